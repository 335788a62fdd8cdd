"""What is learned of behaviours: q(v) of the corpus's sticks, and what each behaviour emits.

    log evidence >= E log p(windows | z) - KL(z, pi of each recording) - KL(v) - KL(phi)

with the mean field q(v_k) = Beta, q(phi_kn) = Dirichlet, q(pi_j) = Dirichlet and q(z_t) categorical; the model, and the
updates of the last two, are link.hdp's. One term has no closed form: E log 1/B(alpha beta), the normaliser of
Dir(alpha beta). With alpha <= 1 every alpha beta_k is in (0, 1], where -log Gamma(x) >= log x (Gamma(1 + x) <= 1), so that

    E log 1/B(alpha beta) >= log Gamma(alpha) + K log alpha + sum_k E log beta_k

(Hughes, Kim & Sudderth 2015) and the ELBO stays a bound. What is called the KL of a recording is thereby one from above.
Since a recording's a is that of its responsibilities, a = alpha E beta + sum_t r_t, E log pi cancels from it:

    KL_j = sum_t sum_k r_tk log r_tk - log B(a_j) - (log Gamma(alpha) + K log alpha + sum_k E log beta_k)

Gradients pass through the updates of r and a, for whatever follows a recording's behaviours; at their fixed point the ELBO's
own derivative by r is 0.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Beta, Dirichlet, kl_divergence
from torch.distributions.utils import broadcast_all

from link.errors import ArgumentError
from link.hdp import ITERATIONS, Behaviours, GaussianHdp, Hdp, ascend, blank
from link.hdp_number import EffectiveNumber, corpus_number

_SMALLEST_WEIGHT: Final = 1e-18
"""alpha E beta_K of an untrained model: its trigamma, 1e36, is a float32."""


class ElboTerms(NamedTuple):
    """The terms of the ELBO of some recordings, nats.

    Attributes
    ----------
    log_likelihood : (...) Tensor
        Expected log likelihood of each recording's windows.
    kl_recordings : (...) Tensor
        Of each recording's behaviours and weights.
    kl_sticks, kl_emissions : () Tensor
        Of the corpus, times the share of the corpus that the recordings are.
    behaviours : Behaviours
        What they are taken under.
    """

    log_likelihood: Tensor
    kl_recordings: Tensor
    kl_sticks: Tensor
    kl_emissions: Tensor
    behaviours: Behaviours

    @property
    def elbo(self) -> Tensor:
        """Their sum: over the minibatches of an epoch, the ELBO of the corpus once."""
        return self.log_likelihood.sum() - self.kl_recordings.sum() - self.kl_sticks - self.kl_emissions


class BehaviourModel(nn.Module):
    """A truncated HDP over K behaviours; what they emit is a subclass's.

    Untrained, q is the prior and all behaviours are alike, where no gradient parts them: `train.hdp_fit.start` does.

    Parameters
    ----------
    behaviours : int
        K, the truncation, from 2.
    gamma : float
        Of v_k ~ Beta(1, gamma), > 0: the more, the more behaviours.
    alpha : float
        In (0, 1]: concentration of a recording's weights at the corpus's.
    """

    def __init__(self, behaviours: int, *, gamma: float, alpha: float) -> None:
        super().__init__()
        if behaviours < 2:
            raise ArgumentError("behaviours", f"must be at least 2, got {behaviours}")
        if not 0.0 < gamma < math.inf:
            raise ArgumentError("gamma", f"must be above 0, got {gamma:g}")
        if not 0.0 < alpha <= 1.0:
            raise ArgumentError("alpha", f"must be in (0, 1], got {alpha:g}")
        most = 1 + int(math.log(_SMALLEST_WEIGHT / alpha) / math.log(gamma / (1.0 + gamma)))
        if behaviours > most:
            raise ArgumentError(
                "behaviours", f"must be at most {most}, where weights vanish at gamma {gamma:g}, got {behaviours}"
            )
        self.behaviours = behaviours
        self.gamma = gamma
        self.alpha = alpha
        self.log_sticks = nn.Parameter(torch.tensor([[1.0, gamma]]).log().repeat(behaviours - 1, 1))

    def tables(self) -> Hdp | GaussianHdp:
        """What a receiver infers with."""
        raise NotImplementedError

    def kl_emissions(self) -> Tensor:
        """KL of what behaviours emit, ()."""
        raise NotImplementedError

    def statistics(self, windows: Tensor, responsibilities: Tensor) -> Tensor:
        """Sufficient statistics of each behaviour, (K, ...), of windows (J, T, ...) under (J, T, K) responsibilities."""
        raise NotImplementedError

    def absorb(self, statistics: Tensor) -> None:
        """Set what behaviours emit to the optimum under these statistics."""
        raise NotImplementedError

    def evidence(self, statistics: Tensor) -> Tensor:
        """Expected log likelihood less KL at that optimum, behaviour by behaviour: (M, ...) to (M,)."""
        raise NotImplementedError

    def elbo_terms(
        self, windows: Tensor, present: Tensor | None = None, *, share: float = 1.0, iterations: int = ITERATIONS
    ) -> ElboTerms:
        """The ELBO of some recordings, term by term.

        Parameters
        ----------
        windows : (..., T, N, V) or (..., T, F) float, or (..., T, N) int64
            As `link.hdp.infer` takes them.
        present : (..., T) bool, optional
        share : float
            Of the corpus's recordings, how large a part these are (Hoffman et al. 2013): the KLs of the corpus are
            multiplied by it.
        iterations : int
            Of the updates of each recording.

        Raises
        ------
        ArgumentError
            If share is not in (0, 1], or windows, tables and `present` do not fit.
        """
        if not 0.0 < share <= 1.0:
            raise ArgumentError("share", f"must be in (0, 1], got {share:g}")
        tables = self.tables()
        log_likelihood = tables.log_likelihood(blank(windows, present))
        found = ascend(log_likelihood, tables.prior, present, iterations=iterations)
        counted = found.responsibilities if present is None else found.responsibilities * present[..., None]
        return self.terms(log_likelihood, counted, found, share)

    def terms(self, log_likelihood: Tensor, counted: Tensor, found: Behaviours, share: float = 1.0) -> ElboTerms:
        """The same of (..., T, K) log likelihoods and the responsibilities that count, 0 where a window is missing."""
        return ElboTerms(
            (counted * log_likelihood).sum(dim=(-2, -1)),
            self.kl_recordings(counted, found.concentrations),
            share * self.kl_sticks(),
            share * self.kl_emissions(),
            found,
        )

    def kl_recordings(self, counted: Tensor, concentrations: Tensor) -> Tensor:
        """KL_j of the module's head: of (..., T, K) responsibilities and their concentrations (..., K) to (...)."""
        smallest = torch.finfo(counted.dtype).tiny  # 0 log 0 = 0, with a gradient that is a number
        negative_entropy = (counted * counted.clamp_min(smallest).log()).sum(dim=(-2, -1))
        return negative_entropy - log_beta(concentrations) - self.log_normaliser()

    def log_normaliser(self) -> Tensor:
        """Lower bound of E log 1/B(alpha beta), ()."""
        taken, left = self.sticks().digamma().sub(self.sticks().sum(dim=-1, keepdim=True).digamma()).unbind(dim=-1)
        behind = torch.arange(self.behaviours - 1, 0, -1, dtype=left.dtype, device=left.device)
        constant = math.lgamma(self.alpha) + self.behaviours * math.log(self.alpha)
        return constant + (taken + behind * left).sum()

    def sticks(self) -> Tensor:
        """Both parameters of each q(v_k) = Beta, (K - 1, 2); v_K is 1."""
        return self.log_sticks.exp()

    def weights(self) -> Tensor:
        """E beta, (K,): E v_k times what the sticks before leave, both independent under q."""
        log_mean = self.log_sticks.log_softmax(dim=-1)
        left = torch.cat([log_mean.new_zeros(1), log_mean[:, 1].cumsum(dim=0)])
        taken = torch.cat([log_mean[:, 0], log_mean.new_zeros(1)])
        return (left + taken).exp()

    def kl_sticks(self) -> Tensor:
        """KL of q(v) from Beta(1, gamma), ()."""
        taken, left, one, gamma = broadcast_all(*self.sticks().unbind(dim=-1), 1.0, self.gamma)
        return kl_divergence(Beta(taken, left), Beta(one, gamma)).sum()

    @torch.no_grad()
    def effective_number(self, draws: int = 4000, seed: int = 0) -> EffectiveNumber:
        """How many behaviours the corpus has, with what q(v) leaves open (`link.hdp_number.corpus_number`)."""
        return corpus_number(self.sticks().double().cpu().numpy(), draws, seed)


class HdpTables(BehaviourModel):
    """Behaviours over codes: phi_kn ~ Dir(eta), a table for each token.

    Parameters
    ----------
    behaviours : int
        K.
    tokens, codes : int
        N and V.
    gamma, alpha
        As in `BehaviourModel`.
    eta : float
        > 0; below 1 where a behaviour has few of the codes.
    marginal : bool
        Whether soft codes are summed out (`link.hdp`).
    """

    def __init__(
        self,
        behaviours: int,
        tokens: int,
        codes: int,
        *,
        gamma: float = 1.0,
        alpha: float = 1.0,
        eta: float = 0.1,
        marginal: bool = True,
    ) -> None:
        super().__init__(behaviours, gamma=gamma, alpha=alpha)
        if tokens < 1:
            raise ArgumentError("tokens", f"must be at least 1, got {tokens}")
        if codes < 2:
            raise ArgumentError("codes", f"must be at least 2, got {codes}")
        if not 0.0 < eta < math.inf:
            raise ArgumentError("eta", f"must be above 0, got {eta:g}")
        self.eta = eta
        self.marginal = marginal
        self.log_counts = nn.Parameter(torch.full((behaviours, tokens, codes), math.log(eta)))

    def tables(self) -> Hdp:
        """E log phi and E beta, with gradients."""
        counts = self.log_counts.exp()
        log_codes = counts.digamma() - counts.sum(dim=-1, keepdim=True).digamma()
        return Hdp(log_codes, self.weights(), self.alpha, self.marginal)

    def kl_emissions(self) -> Tensor:
        """KL of q(phi) from Dir(eta), ()."""
        counts = self.log_counts.exp()
        return kl_divergence(Dirichlet(counts), Dirichlet(torch.full_like(counts, self.eta))).sum()

    def statistics(self, windows: Tensor, responsibilities: Tensor) -> Tensor:
        """Expected counts of each code, (K, N, V): under q(c | z) of the present tables, where soft codes are summed out."""
        weights = responsibilities.flatten(0, 1)
        _, tokens, codes = self.log_counts.shape
        if windows.is_floating_point():
            if self.marginal:
                return self._marginal_counts(windows.flatten(0, 1).to(weights.dtype), weights)
            counts = weights.T @ windows.flatten(0, 1).flatten(1).to(weights.dtype)
        else:
            places = (windows + torch.arange(tokens, device=windows.device) * codes).flatten()
            empty = weights.new_zeros(tokens * codes, self.behaviours)
            counts = empty.index_add(0, places, weights.repeat_interleave(tokens, dim=0)).T
        return counts.reshape(self.log_counts.shape)

    def _marginal_counts(self, codes: Tensor, weights: Tensor) -> Tensor:
        """sum_t r_tk q(c_tn = v | z_t = k), q(c | z) ∝ p exp(E log phi), of (W, N, V) codes and (W, K) responsibilities."""
        likelihoods: Tensor = self.tables().log_codes.exp().movedim(1, 0)
        codes = codes.movedim(1, 0)
        totals = (codes @ likelihoods.mT).clamp_min(torch.finfo(codes.dtype).tiny)
        return (((weights / totals).mT @ codes) * likelihoods).movedim(0, 1)

    @torch.no_grad()
    def absorb(self, statistics: Tensor) -> None:
        """Counts and eta."""
        self.log_counts.copy_((self.eta + statistics).log())

    def evidence(self, statistics: Tensor) -> Tensor:
        """Log evidence of the codes under Dirichlet-multinomials: sum_n log B(eta + counts) - log B(eta)."""
        prior = torch.full_like(statistics, self.eta)
        return (log_beta(prior + statistics) - log_beta(prior)).sum(dim=-1)


class GaussianBehaviours(BehaviourModel):
    """Behaviours over embeddings of windows: a diagonal Gaussian each, for variants without a codebook.

    Means and variances are points, not distributions: their prior's log density stands where a KL would (a maximum a
    posteriori estimate within the variational one), so that the objective is no bound and tells less well how many
    behaviours there are.

        1 / variance ~ Gamma(1, variance_0)      mean | variance ~ N(0, variance / strength)

    Parameters
    ----------
    behaviours : int
        K.
    features : int
        F.
    gamma, alpha
        As in `BehaviourModel`.
    variance : float
        variance_0, > 0: of the order of the variance within a behaviour.
    strength : float
        > 0: how many windows the prior of a mean counts for.
    """

    def __init__(
        self,
        behaviours: int,
        features: int,
        *,
        gamma: float = 1.0,
        alpha: float = 1.0,
        variance: float = 1.0,
        strength: float = 0.1,
    ) -> None:
        super().__init__(behaviours, gamma=gamma, alpha=alpha)
        if features < 1:
            raise ArgumentError("features", f"must be at least 1, got {features}")
        for field, value in (("variance", variance), ("strength", strength)):
            if not 0.0 < value < math.inf:
                raise ArgumentError(field, f"must be above 0, got {value:g}")
        self.variance = variance
        self.strength = strength
        self.means = nn.Parameter(torch.zeros(behaviours, features))
        self.log_variances = nn.Parameter(torch.full((behaviours, features), math.log(variance)))

    def tables(self) -> GaussianHdp:
        """Means, variances and E beta, with gradients."""
        return GaussianHdp(self.means, self.log_variances.exp(), self.weights(), self.alpha)

    def kl_emissions(self) -> Tensor:
        """Less the log density of means and variances under their prior, ()."""
        return -self._log_prior(self.means, self.log_variances.exp()).sum()

    def statistics(self, windows: Tensor, responsibilities: Tensor) -> Tensor:
        """Number of windows, sums and sums of squares, (K, 3, F)."""
        weights, values = responsibilities.flatten(0, 1), windows.flatten(0, 1).to(responsibilities.dtype)
        return torch.stack(
            [weights.T @ torch.ones_like(values), weights.T @ values, weights.T @ values.square()], dim=1
        )

    @torch.no_grad()
    def absorb(self, statistics: Tensor) -> None:
        """Mean and variance of highest posterior density."""
        means, variances = self._optimum(statistics)
        self.means.copy_(means)
        self.log_variances.copy_(variances.log())

    def evidence(self, statistics: Tensor) -> Tensor:
        """Log likelihood and log prior density at that optimum."""
        count, total, square = statistics.unbind(dim=1)
        means, variances = self._optimum(statistics)
        distances = (square - 2.0 * means * total + count * means.square()) / variances
        log_likelihood = -0.5 * (distances + count * (2.0 * math.pi * variances).log()).sum(dim=-1)
        return log_likelihood + self._log_prior(means, variances)

    def _optimum(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        count, total, square = statistics.unbind(dim=1)
        means = total / (count + self.strength)
        rest = square - total * means  # = sum (x - mean)^2 + strength mean^2
        return means, (2.0 * self.variance + rest.clamp_min(0.0)) / (count + 5.0)

    def _log_prior(self, means: Tensor, variances: Tensor) -> Tensor:
        """Of each behaviour, (K,)."""
        normal = 0.5 * (self.strength / (2.0 * math.pi * variances)).log() - 0.5 * self.strength * means**2 / variances
        gamma = math.log(self.variance) - 2.0 * variances.log() - self.variance / variances
        return (normal + gamma).sum(dim=-1)


def log_beta(concentrations: Tensor) -> Tensor:
    """log B(a) = sum_k log Gamma(a_k) - log Gamma(sum a), (..., K) to (...)."""
    return concentrations.lgamma().sum(dim=-1) - concentrations.sum(dim=-1).lgamma()
