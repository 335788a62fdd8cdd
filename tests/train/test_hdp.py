"""The ELBO of behaviours against exact evidence, its terms against other writings of them, and its gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import gammaln, logsumexp
from torch.distributions import Dirichlet, Normal

from link.errors import ArgumentError
from link.hdp import check_hdp, expected_log
from train.hdp import GaussianBehaviours, HdpTables, log_beta

TOKENS, CODES = 1, 2


def random_model(seed=0, behaviours=3, tokens=TOKENS, codes=CODES, **options):
    model = HdpTables(behaviours, tokens, codes, **{"gamma": 2.0, "alpha": 0.8, "eta": 0.5, **options}).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def random_codes(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.5), shape[:-1]))


def log_evidence(indices, behaviours, *, gamma, alpha, eta):
    """Log p(codes) of (J, T, N) indices: all behaviours of all windows added up, phi and pi integrated out in closed form.

    What is left is an integral over the sticks of a polynomial (rising factorials of alpha beta_k, times the density for
    whole gamma), of a degree in each stick below twice the 24 nodes of Gauss and Legendre: exact to rounding.
    """
    recordings, windows, tokens = indices.shape
    nodes, node_weights = np.polynomial.legendre.leggauss(24)
    nodes, node_weights = (nodes + 1.0) / 2.0, node_weights / 2.0
    grid = np.array(list(itertools.product(nodes, repeat=behaviours - 1)))
    density = np.prod(gamma * (1.0 - grid) ** (gamma - 1.0), axis=-1)
    mass = density * np.prod(np.array(list(itertools.product(node_weights, repeat=behaviours - 1))), axis=-1)
    left = np.concatenate([np.ones((len(grid), 1)), np.cumprod(1.0 - grid, axis=-1)], axis=-1)
    beta = np.concatenate([grid, np.ones((len(grid), 1))], axis=-1) * left
    terms = []
    for z in itertools.product(range(behaviours), repeat=recordings * windows):
        z = np.array(z).reshape(recordings, windows)
        counts = np.zeros((behaviours, tokens, CODES))
        for j, t, n in itertools.product(range(recordings), range(windows), range(tokens)):
            counts[z[j, t], n, indices[j, t, n]] += 1.0
        codes = (
            gammaln(eta + counts).sum(-1)
            - gammaln((eta + counts).sum(-1))
            - CODES * gammaln(eta)
            + gammaln(CODES * eta)
        )
        held = np.stack([(z == k).sum(axis=1) for k in range(behaviours)], axis=-1)
        polya = gammaln(alpha) - gammaln(alpha + windows)
        polya = polya + (gammaln(alpha * beta[:, None] + held) - gammaln(alpha * beta[:, None])).sum(axis=-1)
        terms.append(codes.sum() + np.log(np.sum(mass * np.exp(polya.sum(axis=1)))))
    return float(logsumexp(terms))


def test_the_exact_evidence_adds_up_to_one_over_all_codes():
    settings = {"gamma": 2.0, "alpha": 0.8, "eta": 0.5}
    everything = [np.array(c).reshape(2, 2, 1) for c in itertools.product(range(CODES), repeat=4)]
    assert sum(math.exp(log_evidence(c, 3, **settings)) for c in everything) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("behaviours", [2, 3])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_the_elbo_is_below_the_evidence_of_hard_codes(behaviours, alpha, gamma):
    indices = np.random.default_rng(behaviours).integers(0, CODES, (2, 5 - behaviours, TOKENS))
    evidence = log_evidence(indices, behaviours, gamma=gamma, alpha=alpha, eta=0.5)
    model = random_model(0, behaviours, gamma=gamma, alpha=alpha)
    begun = model.elbo_terms(torch.from_numpy(indices)).elbo.item()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -model.elbo_terms(torch.from_numpy(indices), iterations=30).elbo
        loss.backward()
        return loss

    optimizer.step(closure)
    assert begun < model.elbo_terms(torch.from_numpy(indices), iterations=30).elbo.item() < evidence


@pytest.mark.parametrize("marginal", [False, True])
def test_the_elbo_of_soft_codes_is_below_the_evidence_of_what_was_received(marginal):
    soft = random_codes(1, 2, 2, TOKENS, CODES)
    settings = {"gamma": 2.0, "alpha": 0.8, "eta": 0.5}
    terms = []
    for pattern in itertools.product(range(CODES), repeat=4):
        likelihood = np.prod([float(soft[t // 2, t % 2, 0, c]) for t, c in enumerate(pattern)])
        terms.append(math.log(likelihood) + log_evidence(np.array(pattern).reshape(2, 2, 1), 2, **settings))
    evidence = float(logsumexp(terms))
    for seed in range(10):
        assert random_model(seed, 2, marginal=marginal).elbo_terms(soft).elbo.item() < evidence


def test_codes_summed_out_bound_it_closer():
    soft = random_codes(1, 4, 5, 3, 6)
    expected, marginal = (random_model(0, 4, 3, 6, marginal=switch) for switch in (False, True))
    assert marginal.elbo_terms(soft, iterations=50).elbo > expected.elbo_terms(soft, iterations=50).elbo


def test_the_kl_of_recordings_is_that_of_its_factors_from_the_bounded_prior():
    model = random_model(3, 4)
    terms = model.elbo_terms(random_codes(0, 5, 6, TOKENS, CODES))
    r, a = terms.behaviours
    log_pi = expected_log(a)
    of_windows = (r * (r.log() - log_pi[:, None])).sum(dim=(1, 2))
    cross = model.log_normaliser() + ((model.tables().prior - 1.0) * log_pi).sum(dim=-1)
    of_weights = -Dirichlet(a).entropy() - cross
    torch.testing.assert_close(terms.kl_recordings, of_windows + of_weights, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0])
def test_the_normaliser_is_bounded_from_below_and_close(alpha):
    model = random_model(1, 2, alpha=alpha)
    taken, left = model.sticks()[0].tolist()
    exact = stats.beta(taken, left).expect(
        lambda v: gammaln(alpha) - gammaln(alpha * v) - gammaln(alpha * (1.0 - v)), epsabs=1e-10
    )
    # log Gamma(1 + x) is in [-0.1215, 0] for x in [0, 1]: that much a behaviour is lost.
    assert exact - 2 * 0.1215 - 1e-6 < model.log_normaliser().item() < exact


@pytest.mark.parametrize("behaviours", [2, 5])
def test_corpus_weights_are_the_mean_of_sticks(behaviours):
    model = random_model(2, behaviours)
    means = [taken / (taken + left) for taken, left in model.sticks().tolist()]
    expected = [mean * math.prod(1.0 - m for m in means[:k]) for k, mean in enumerate([*means, 1.0])]
    np.testing.assert_allclose(model.weights().detach().numpy(), expected, rtol=1e-12)


def test_the_kl_of_sticks_and_codes_is_that_of_quadrature():
    model = random_model(4, 2)

    def kl(q, p):
        return quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), 0.0, 1.0, epsabs=1e-10)[0]

    (stick,) = model.sticks().tolist()
    assert model.kl_sticks().item() == pytest.approx(kl(stats.beta(*stick), stats.beta(1.0, 2.0)), abs=1e-6)
    rows = model.log_counts.exp()[:, 0].tolist()
    expected = sum(kl(stats.beta(*row), stats.beta(0.5, 0.5)) for row in rows)
    assert model.kl_emissions().item() == pytest.approx(expected, abs=1e-6)


def test_an_untrained_model_is_its_prior():
    model = HdpTables(4, 2, 5)
    assert model.kl_sticks().item() == pytest.approx(0.0, abs=1e-6)
    assert model.kl_emissions().item() == pytest.approx(0.0, abs=1e-4)
    with torch.no_grad():
        check_hdp(model.tables())


def test_minibatches_of_an_epoch_add_up_to_the_elbo_once():
    model, codes = random_model(5, 4, 2, 6), random_codes(2, 10, 4, 2, 6)
    whole = model.elbo_terms(codes).elbo
    parts = [model.elbo_terms(codes[rows], share=len(rows) / 10).elbo for rows in (range(4), range(4, 7), range(7, 10))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0.0)


def test_missing_windows_are_in_no_term():
    model, codes = random_model(6, 4, 2, 6), random_codes(3, 3, 5, 2, 6)
    present = torch.ones(3, 5, dtype=torch.bool)
    present[:, 3:] = False
    codes[:, 3:] = torch.nan
    padded, cut = model.elbo_terms(codes, present), model.elbo_terms(codes[:, :3])
    for found, expected in zip(padded[:4], cut[:4], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    padded.elbo.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("marginal", [False, True])
def test_gradients_of_all_terms_are_those_of_differences(marginal):
    model, codes = random_model(7, 3, 2, 4, marginal=marginal), random_codes(4, 2, 3, 2, 4)
    present = torch.tensor([[True, True, False], [True, True, True]])

    def outputs(codes, *_):
        terms = model.elbo_terms(codes, present, iterations=2)
        return (*terms[:4], *terms.behaviours)

    assert torch.autograd.gradcheck(outputs, (codes.requires_grad_(), *model.parameters()))


def test_float32_has_finite_gradients_at_a_large_truncation():
    model = HdpTables(26, 2, 8, gamma=0.3, alpha=0.1)
    codes = random_codes(5, 4, 6, 2, 8).float().requires_grad_()
    loss = -model.elbo_terms(codes).elbo
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(tensor.grad).all() for tensor in (codes, *model.parameters()))


def test_gaussians_are_judged_by_their_density_and_prior():
    model = GaussianBehaviours(3, 2, variance=0.5, strength=0.2).double()
    with torch.no_grad():
        model.means.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]]))
        model.log_variances.copy_(torch.tensor([[0.1, 0.2], [-0.3, 0.0], [0.5, -0.5]]))
    variances = model.log_variances.exp()
    of_means = Normal(0.0, (variances / 0.2).sqrt()).log_prob(model.means)
    of_variances = torch.from_numpy(stats.invgamma(1.0, scale=0.5).logpdf(variances.detach().numpy()))
    torch.testing.assert_close(model.kl_emissions(), -(of_means + of_variances).sum())
    terms = model.elbo_terms(torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert terms.behaviours.responsibilities.shape == (4, 5, 3)
    with torch.no_grad():
        check_hdp(model.tables())


@pytest.mark.parametrize("kind", ["codes", "embeddings"])
def test_what_behaviours_absorb_is_the_optimum_and_its_value_the_evidence(kind):
    generator = torch.Generator().manual_seed(1)
    r = torch.rand(4, 5, 3, generator=generator, dtype=torch.float64).softmax(dim=-1)
    if kind == "codes":
        model, windows = HdpTables(3, 2, 4, eta=0.3, marginal=False).double(), random_codes(6, 4, 5, 2, 4)
    else:
        model = GaussianBehaviours(3, 2, variance=0.4).double()
        windows = torch.randn(4, 5, 2, generator=generator, dtype=torch.float64)
    statistics = model.statistics(windows, r)
    model.absorb(statistics)

    def value():
        return (r * model.tables().log_likelihood(windows)).sum() - model.kl_emissions()

    torch.testing.assert_close(value(), model.evidence(statistics).sum(), rtol=1e-10, atol=0.0)
    emissions = [parameter for name, parameter in model.named_parameters() if name != "log_sticks"]
    for gradient in torch.autograd.grad(value(), emissions):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0.0)


def test_statistics_of_indices_are_those_of_certain_codes():
    model = HdpTables(3, 2, 4, marginal=False).double()
    indices = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (5, 6, 2)))
    r = random_codes(7, 5, 6, 3)
    certain = torch.nn.functional.one_hot(indices, 4).double()
    expected = model.statistics(indices, r)
    torch.testing.assert_close(model.statistics(certain, r), expected, rtol=1e-12, atol=1e-12)
    model.marginal = True
    torch.testing.assert_close(model.statistics(certain, r), expected, rtol=1e-12, atol=1e-12)


def test_counts_of_codes_summed_out_are_those_of_bayes():
    model, soft, r = random_model(8, 3, 2, 4), random_codes(8, 5, 6, 2, 4), random_codes(9, 5, 6, 3)
    likelihoods = model.tables().log_codes.exp()
    expected = torch.zeros(3, 2, 4, dtype=torch.float64)
    for j, t, k, n in itertools.product(range(5), range(6), range(3), range(2)):
        joint = soft[j, t, n] * likelihoods[k, n]
        expected[k, n] += r[j, t, k] * joint / joint.sum()
    torch.testing.assert_close(model.statistics(soft, r), expected)


def test_log_beta_is_the_normaliser_of_a_dirichlet():
    a = torch.tensor([0.3, 1.2, 4.0], dtype=torch.float64)
    point = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = ((a - 1.0) * point.log()).sum() - Dirichlet(a).log_prob(point)
    torch.testing.assert_close(log_beta(a), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HdpTables(1, 2, 4), r"^behaviours must be at least 2, got 1$"),
        (
            lambda: HdpTables(60, 2, 4, gamma=0.3),
            r"^behaviours must be at most 29, where weights vanish at gamma 0.3, got 60$",
        ),
        (lambda: HdpTables(4, 0, 4), r"^tokens must be at least 1, got 0$"),
        (lambda: HdpTables(4, 2, 1), r"^codes must be at least 2, got 1$"),
        (lambda: HdpTables(4, 2, 4, gamma=0.0), r"^gamma must be above 0, got 0$"),
        (lambda: HdpTables(4, 2, 4, alpha=1.1), r"^alpha must be in \(0, 1\], got 1.1$"),
        (lambda: HdpTables(4, 2, 4, eta=math.inf), r"^eta must be above 0, got inf$"),
        (lambda: GaussianBehaviours(4, 0), r"^features must be at least 1, got 0$"),
        (lambda: GaussianBehaviours(4, 2, variance=0.0), r"^variance must be above 0, got 0$"),
        (lambda: GaussianBehaviours(4, 2, strength=-1.0), r"^strength must be above 0, got -1$"),
        (
            lambda: HdpTables(4, 2, 4).elbo_terms(torch.zeros(1, 3, 2, 4), share=0.0),
            r"^share must be in \(0, 1\], got 0$",
        ),
        (
            lambda: HdpTables(4, 2, 4).elbo_terms(torch.zeros(1, 3, 2, 5)),
            r"^codes must have shape \(\.\.\., 2, 4\), got \(1, 3, 2, 5\)$",
        ),
    ],
)
def test_what_is_no_model_is_refused(build, message):
    with pytest.raises(ArgumentError, match=message):
        build()
