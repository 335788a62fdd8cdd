"""Behaviours found: of a corpus whose behaviours are known, by coordinate ascent and by gradients."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from link.errors import ArgumentError
from link.hdp import Behaviours, infer
from link.truth import UNJUDGED
from train.hdp import GaussianBehaviours, HdpTables
from train.hdp_fit import clustered, fit, labelled, merge_gains, start

TRUE, TRUNCATION, TOKENS, CODES = 5, 20, 3, 16
RECORDINGS, WINDOWS = 30, 40


class Corpus(NamedTuple):
    indices: torch.Tensor
    behaviours: np.ndarray
    weights: np.ndarray


def draw(seed, recordings=RECORDINGS, windows=WINDOWS, behaviours=TRUE, tokens=TOKENS, codes=CODES):
    """Codes of behaviours that each have a few of the codes, and recordings that each have a few of the behaviours."""
    emissions = np.random.default_rng(0).dirichlet(np.full(codes, 0.1), (behaviours, tokens))
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(behaviours, 0.3), recordings)
    z = np.array([generator.choice(behaviours, windows, p=p) for p in weights])
    thresholds = emissions.cumsum(axis=-1)[z]
    indices = (generator.random((*z.shape, tokens, 1)) > thresholds).sum(axis=-1).clip(max=codes - 1)
    return Corpus(torch.from_numpy(indices), z, weights)


@pytest.fixture(scope="module")
def corpus():
    return draw(1)


@pytest.fixture(scope="module")
def fitted(corpus):
    model = HdpTables(TRUNCATION, TOKENS, CODES).double()
    return model, fit(model, corpus.indices, clustered(corpus.indices, TRUNCATION, seed=0))


def matching(r, z):
    """For each true behaviour, the one found that shares most windows with it."""
    shared = np.stack([r.reshape(-1, r.shape[-1])[z.ravel() == k].sum(axis=0) for k in range(TRUE)])
    return linear_sum_assignment(-shared)[1]


def test_five_behaviours_are_found_at_a_truncation_of_twenty(corpus, fitted):
    model, found = fitted
    r = found.behaviours.responsibilities.numpy()
    chosen = matching(r, corpus.behaviours)
    right = np.mean(chosen[corpus.behaviours] == r.argmax(axis=-1))
    # What the true tables decide, window by window, is the most that can be right.
    assert right > 0.97
    perplexity, covering = model.effective_number()
    truth = np.bincount(corpus.behaviours.ravel()) / corpus.behaviours.size
    assert perplexity.mean == pytest.approx(np.exp(-np.sum(truth * np.log(truth))), abs=0.5)
    assert covering == (TRUE, TRUE, TRUE)


def test_the_weights_of_recordings_are_recovered(corpus, fitted):
    _, found = fitted
    r, a = (array.numpy() for array in found.behaviours)
    mean = (a / a.sum(axis=-1, keepdims=True))[:, matching(r, corpus.behaviours)]
    held = np.stack([np.mean(corpus.behaviours == k, axis=1) for k in range(TRUE)], axis=-1)
    # alpha = 1 window of the corpus's stands beside the 40 of the recording, and 3 % of those may be told wrong.
    assert np.abs(mean - held).max() < 1 / (WINDOWS + 1) + 0.1
    assert np.abs(mean - held).mean() < 1 / (WINDOWS + 1)
    # Drawn windows scatter about the weights by a deviation of sqrt(p (1 - p) / 40).
    spread = np.sqrt(corpus.weights * (1.0 - corpus.weights) / WINDOWS)
    assert np.mean(np.abs(mean - corpus.weights) <= 2.0 * spread + 1 / (WINDOWS + 1)) > 0.95


def test_a_recordings_weights_are_its_own_and_not_those_of_all(fitted):
    """Held out: the second half of a recording is told better by its first half than by any weights that all share."""
    model, found = fitted
    tables = model.tables()
    held_out = draw(2).indices
    first, second = held_out[:, : WINDOWS // 2], held_out[:, WINDOWS // 2 :]
    codes = (model.log_counts.exp() / model.log_counts.exp().sum(dim=-1, keepdim=True)).log().detach()
    log_likelihood = tables._replace(log_codes=codes).log_likelihood(second).detach()
    _, a = infer(tables, first)
    own = (a / a.sum(dim=-1, keepdim=True)).detach()
    totals = found.behaviours.concentrations.sum(dim=0)
    nats = []
    for weights in (own[:, None], totals / totals.sum(), tables.weights.detach()):
        nats.append((log_likelihood + weights.log()).logsumexp(dim=-1).mean(dim=-1))
    for shared in nats[1:]:
        gain = (nats[0] - shared).numpy()
        # Over recordings, which are independent: 4 deviations of the mean above 0.
        assert gain.mean() > 4.0 * gain.std(ddof=1) / np.sqrt(RECORDINGS)
        assert gain.mean() > 0.3  # of ln 5 = 1.6 nats that five equal behaviours cost


@pytest.mark.parametrize("kind", ["indices", "expected, with gaps", "marginal, with gaps", "embeddings"])
def test_no_update_lowers_the_elbo(kind):
    small = draw(3, 10, 10, behaviours=3, tokens=2, codes=6)
    present = None
    model = HdpTables(8, 2, 6, gamma=2.0, alpha=0.6).double()
    windows = small.indices
    if "gaps" in kind:
        model.marginal = kind.startswith("marginal")
        noise = torch.rand(*windows.shape, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        windows = torch.nn.functional.one_hot(windows, 6) + 0.1 * noise
        windows = windows / windows.sum(dim=-1, keepdim=True)
        present = torch.ones(10, 10, dtype=torch.bool)
        present[:, 7:] = False
        windows[:, 7:] = torch.nan
    elif kind == "embeddings":
        model = GaussianBehaviours(8, 2, variance=0.1).double()
        generator = torch.Generator().manual_seed(0)
        places = 3.0 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        noise = 0.3 * torch.randn(10, 10, 2, generator=generator, dtype=torch.float64)
        windows = places[torch.from_numpy(small.behaviours)] + noise
    found = fit(model, windows, clustered(windows, 8, present=present), present=present, tolerance=1e-9)
    elbo = found.elbo.ravel()
    assert len(elbo) > 6
    # Sums of some hundreds of terms, in float64.
    assert (np.diff(elbo) >= -1e-11 * abs(elbo[-1])).all()
    # Responsibilities begun afresh end where coordinate ascent did, beside it or above.
    assert model.elbo_terms(windows, present, iterations=100).elbo.item() > elbo[-1] - 5e-3 * abs(elbo[-1])
    assert 2.0 < model.effective_number().perplexity.mean < 6.0


def test_gradients_reach_the_elbo_of_coordinate_ascent():
    small = draw(4, 10, 10, behaviours=3, tokens=2, codes=6)
    begun = clustered(small.indices, 4, seed=1)
    by_ascent, by_gradient = (HdpTables(4, 2, 6, eta=0.2).double() for _ in range(2))
    best = fit(by_ascent, small.indices, begun, merge=False, sweeps=2000, tolerance=1e-12).elbo[-1, -1]
    start(by_gradient, small.indices, begun)
    optimizer = torch.optim.LBFGS(by_gradient.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -by_gradient.elbo_terms(small.indices, iterations=20).elbo
        loss.backward()
        return loss

    optimizer.step(closure)
    reached = by_gradient.elbo_terms(small.indices, iterations=100).elbo.item()
    # Both stop where a step gains less than 1e-9 of some 300 nats.
    assert reached == pytest.approx(best, abs=1e-5)


def test_gradients_from_a_start_keep_behaviours_apart(corpus):
    model = HdpTables(TRUNCATION, TOKENS, CODES)
    start(model, corpus.indices, labelled(torch.from_numpy(corpus.behaviours), TRUNCATION))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(40):
        rows = torch.arange(step % 4, RECORDINGS, 4)
        optimizer.zero_grad()
        (-model.elbo_terms(corpus.indices[rows], share=0.25).elbo / len(rows)).backward()
        optimizer.step()
    assert model.effective_number().perplexity.mean == pytest.approx(TRUE, abs=0.7)
    r = infer(model.tables(), corpus.indices).responsibilities
    assert (
        np.mean(matching(r.detach().numpy(), corpus.behaviours)[corpus.behaviours] == r.argmax(dim=-1).numpy()) > 0.95
    )


def test_behaviours_that_are_alike_are_not_parted_by_gradients():
    """Why learning needs a start: an untrained model moves the codes of all behaviours along one line."""
    model = HdpTables(3, 2, 6).double()
    model.elbo_terms(draw(5, 4, 5, behaviours=3, tokens=2, codes=6).indices).elbo.backward()
    directions = torch.nn.functional.normalize(model.log_counts.grad.flatten(1), dim=-1)
    torch.testing.assert_close((directions @ directions.T).abs(), torch.ones(3, 3, dtype=torch.float64))


def test_joining_undoes_what_k_means_split(corpus, fitted):
    split = HdpTables(TRUNCATION, TOKENS, CODES).double()
    found = fit(split, corpus.indices, clustered(corpus.indices, TRUNCATION, seed=0), merge=False)
    assert split.effective_number().perplexity.mean > 10.0
    assert fitted[1].elbo[-1, -1] > found.elbo[-1, -1] + 500.0


@pytest.mark.parametrize("kind", ["codes", "embeddings"])
def test_the_gain_of_a_union_is_what_the_elbo_gains(kind):
    small = draw(6, 6, 8, behaviours=3, tokens=2, codes=6)
    r = torch.rand(6, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(4.0).softmax(dim=-1)
    r[..., 3] = 0.0
    if kind == "codes":
        model, windows = HdpTables(4, 2, 6, alpha=0.7).double(), small.indices
    else:
        model = GaussianBehaviours(4, 2, alpha=0.7).double()
        windows = torch.randn(6, 8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def elbo(counted):
        model.absorb(model.statistics(windows, counted))
        tables = model.tables()
        found = Behaviours(counted, tables.prior + counted.sum(dim=-2))
        return model.terms(tables.log_likelihood(windows), counted, found).elbo.item()

    gains = merge_gains(model, windows, r)
    for kept in range(4):
        for emptied in range(4):
            joined = r.clone()
            joined[..., kept] += joined[..., emptied]
            joined[..., emptied] = 0.0
            if kept == emptied or 3 in (kept, emptied):
                assert gains[kept, emptied] == -torch.inf
            else:
                assert gains[kept, emptied].item() == pytest.approx(elbo(joined) - elbo(r), abs=1e-9)


def test_a_fit_returns_what_its_elbo_is_of(corpus, fitted):
    model, found = fitted
    r, a = found.behaviours
    tables = model.tables()
    torch.testing.assert_close(a, tables.prior.detach() + r.sum(dim=-2))
    terms = model.terms(tables.log_likelihood(corpus.indices), r, found.behaviours)
    assert terms.elbo.item() == pytest.approx(found.elbo[-1, -1], abs=1e-6)


def test_clusters_are_of_present_windows_and_the_same_for_a_seed(corpus):
    present = torch.ones(RECORDINGS, WINDOWS, dtype=torch.bool)
    present[:, 30:] = False
    r = clustered(corpus.indices, 6, present=present, seed=1)
    assert torch.equal(r, clustered(corpus.indices, 6, present=present, seed=1))
    assert ((r == 0.0) | (r == 1.0))[present].all()
    assert (r.argmax(dim=-1)[present].bincount(minlength=6) > 0).all()
    assert (r[~present] == 1.0 / 6.0).all()
    assert torch.equal(r[:, :30], clustered(corpus.indices[:, :30], 6, seed=1))


def test_labels_are_behaviours_and_what_has_none_is_shared():
    r = labelled(torch.tensor([[2, UNJUDGED, 0]]), 4)
    assert r.tolist() == [[[0.0, 0.0, 1.0, 0.0], [0.25] * 4, [1.0, 0.0, 0.0, 0.0]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labelled(torch.tensor([[0, 4]]), 4), r"^behaviours must be at least the 5 classes, got 4$"),
        (
            lambda: clustered(torch.zeros(1, 3, 2, dtype=torch.int64), 4),
            r"^behaviours must be at most the 3 windows to start from, got 4$",
        ),
        (
            lambda: fit(HdpTables(4, 2, 6), torch.zeros(1, 3, 2, dtype=torch.int64), torch.zeros(1, 3, 5)),
            r"^responsibilities must have shape \(1, 3, 4\), got \(1, 3, 5\)$",
        ),
        (
            lambda: fit(HdpTables(4, 2, 6), torch.zeros(1, 3, 2, dtype=torch.int64), torch.zeros(1, 3, 4), sweeps=0),
            r"^sweeps must be at least 1, got 0$",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
