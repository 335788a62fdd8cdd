"""Behaviours of a recording by a truncated hierarchical Dirichlet process, inferred from the codes of its windows.

    v_k ~ Beta(1, gamma)      beta = sticks(v)            corpus: what behaviours there are, and how common (v_K = 1)
    pi_j ~ Dir(alpha beta)                                recording j: its own weights of the same behaviours
    z_jt ~ pi_j               c_jtn ~ phi_(z_jt) n        window t: its behaviour, and the code of each token n

(Teh, Jordan, Beal & Blei 2006, truncated at K.) Learned are q(v) and q(phi) (`train.hdp`); what a receiver needs of them
are two tables, E log phi and E beta. For a recording the rest of the mean field, q(z_t) = r_t and q(pi) = Dir(a), is found
here, by coordinate ascent:

    r_tk ∝ exp(psi(a_k) - psi(sum a) + sum_n E log phi_kn(c_tn))        a = alpha E beta + sum_t r_t

**Soft codes.** Of a code that was received the receiver has probabilities p_tn, in proportion to P(LLRs | code). They enter
in one of two ways, and with a constant (the log evidence of the LLRs under a flat prior of codes) the objective is a lower
bound of the log evidence of what was received in both:

    marginal    log sum_v p_tnv exp(E log phi_knv)      q(c_tn | z_t) at its optimum: the code is summed out
    expected    sum_v p_tnv E log phi_knv               p_tn is q(c_tn): an *expected* log likelihood under q(c)

Jensen's inequality makes the first the tighter one. The second is not neutral where a code was lost: a guess among all codes
is seldom a code of a behaviour that has few, so an erased token speaks for behaviours that have many, and noise drowns what
other tokens say. The first says next to nothing there. For hard codes, a one-hot p, they are the same. A posterior under a
prior of codes is still a q(c) in the second; in the first the prior would count twice.

A window that is missing has the responsibilities that its recording's weights give without evidence, and is not counted.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple, Protocol

import array_api_compat
import numpy as np
from scipy import special

from link.array import Array, namespace
from link.codebook import lookup, softmax
from link.errors import ArgumentError

ITERATIONS: Final = 10
"""Updates of a recording's responsibilities and weights: a fixed number, so that the answer is smooth in the tables."""

_ROUNDING: Final = 1e-4  # of tables kept in float32


class Tables(Protocol):
    """What a recording is inferred with: corpus weights, and how well each behaviour explains a window."""

    @property
    def prior(self) -> Array: ...
    def log_likelihood(self, windows: Array) -> Array: ...


class Hdp(NamedTuple):
    """The tables of behaviours over codes.

    Attributes
    ----------
    log_codes : (K, N, V) float
        E log phi: expected log probability of each code of each token under each behaviour, nats.
    weights : (K,) float
        E beta: expected weight of each behaviour in the corpus; they add up to 1.
    alpha : float
        In (0, 1]: how many windows the corpus weights count for in a recording.
    marginal : bool
        Whether soft codes are summed out; or else they enter by their expected log likelihood.
    """

    log_codes: Array
    weights: Array
    alpha: float
    marginal: bool = True

    @property
    def prior(self) -> Array:
        """alpha E beta: concentrations of a recording's weights before its first window, (K,)."""
        return self.alpha * self.weights

    def log_likelihood(self, windows: Array) -> Array:
        """How well each behaviour explains a window, nats.

        Parameters
        ----------
        windows : (..., N, V) float of the tables' dtype, or (..., N) int64
            Probabilities of the codes of each token (`link.codebook.posterior` makes them of LLRs; with a log prior of 0, as
            marginal tables need them), or indices of codes.

        Returns
        -------
        (..., K) float
            sum_n log sum_v p_nv exp(E log phi_knv), or sum_n sum_v p_nv E log phi_knv where `marginal` is False.

        Raises
        ------
        ArgumentError
            If the windows are not of N tokens and V codes.
        """
        xp = namespace(windows, self.log_codes)
        behaviours, tokens, codes = self.log_codes.shape
        table = xp.reshape(self.log_codes, (behaviours, tokens * codes)).T
        if xp.isdtype(windows.dtype, "integral"):
            _check_shape("indices", windows.shape, (tokens,))
            if math.prod(windows.shape) and not (int(xp.min(windows)) >= 0 and int(xp.max(windows)) < codes):
                found = f"[{int(xp.min(windows))}, {int(xp.max(windows))}]"
                raise ArgumentError("indices", f"must be in [0, {codes}), got {found}")
            first = xp.arange(tokens, device=array_api_compat.device(windows)) * codes
            return xp.sum(lookup(table, windows + first), axis=-2)
        _check_shape("codes", windows.shape, (tokens, codes))
        if not self.marginal:
            return xp.reshape(windows, (*windows.shape[:-2], tokens * codes)) @ table
        flat = xp.reshape(windows, (math.prod(windows.shape[:-2]), tokens, codes))
        likelihoods = xp.moveaxis(flat, 1, 0) @ xp.exp(xp.permute_dims(self.log_codes, (1, 2, 0)))
        smallest = float(xp.finfo(windows.dtype).smallest_normal)  # what underflows is all but impossible, not 0
        likelihoods = xp.where(likelihoods > smallest, likelihoods, xp.full_like(likelihoods, smallest))
        return xp.reshape(xp.sum(xp.log(likelihoods), axis=0), (*windows.shape[:-2], behaviours))


class GaussianHdp(NamedTuple):
    """The tables of behaviours over embeddings, for a receiver without a codebook: a diagonal Gaussian each.

    Attributes
    ----------
    means, variances : (K, F) float
    weights, alpha
        As in `Hdp`.
    """

    means: Array
    variances: Array
    weights: Array
    alpha: float

    @property
    def prior(self) -> Array:
        """As in `Hdp`."""
        return self.alpha * self.weights

    def log_likelihood(self, windows: Array) -> Array:
        """Log density of each window's embedding under each behaviour, (..., F) to (..., K), nats."""
        xp = namespace(windows, self.means)
        _check_shape("embeddings", windows.shape, (self.means.shape[-1],))
        distances = (windows[..., None, :] - self.means) ** 2 / self.variances
        return -0.5 * xp.sum(distances + xp.log(2.0 * math.pi * self.variances), axis=-1)


class Behaviours(NamedTuple):
    """What is known of a recording, or of it so far.

    Attributes
    ----------
    responsibilities : (..., T, K) float
        q(z_t): probabilities of each window's behaviours. (..., K) of the window that was pushed.
    concentrations : (..., K) float
        a of q(pi) = Dir(a): the recording's own weights are a / sum a.
    """

    responsibilities: Array
    concentrations: Array


def infer(
    tables: Tables,
    windows: Array,
    present: Array | None = None,
    *,
    iterations: int = ITERATIONS,
) -> Behaviours:
    """Behaviours of whole recordings.

    Parameters
    ----------
    tables : Hdp or GaussianHdp
    windows : (..., T, N, V) or (..., T, F) float, or (..., T, N) int64
        As `tables.log_likelihood` takes them.
    present : (..., T) bool, optional
        Which windows there are; all, where it is left out.
    iterations : int

    Returns
    -------
    Behaviours

    Raises
    ------
    ArgumentError
        If windows and tables, or windows and `present`, do not fit.
    """
    return ascend(tables.log_likelihood(blank(windows, present)), tables.prior, present, iterations=iterations)


def push(tables: Tables, state: Array, window: Array, *, iterations: int = ITERATIONS) -> Behaviours:
    """Behaviours of the next window of a stream, from those before it alone.

    Streaming variational Bayes (Broderick et al. 2013): q(pi) given the windows so far is the prior of the next one, so a
    push is `infer` on one window with `state` in place of alpha E beta. Responsibilities once given are not revised.

    Parameters
    ----------
    tables : Hdp or GaussianHdp
    state : (..., K) float
        Concentrations after the last push; `tables.prior` before the first.
    window : (..., N, V) or (..., F) float, or (..., N) int64

    Returns
    -------
    Behaviours
        Responsibilities (..., K) of this window, and the new state.
    """
    r, a = ascend(tables.log_likelihood(window)[..., None, :], state, iterations=iterations)
    return Behaviours(r[..., 0, :], a)


def ascend(
    log_likelihood: Array,
    prior: Array,
    present: Array | None = None,
    *,
    start: Array | None = None,
    iterations: int = ITERATIONS,
) -> Behaviours:
    """Coordinate ascent on q(z) and q(pi) of each recording.

    Parameters
    ----------
    log_likelihood : (..., T, K) float
    prior : (..., K) float
        Concentrations of the weights without any window, > 0.
    present : (..., T) bool, optional
    start : (..., K) float, optional
        Concentrations to begin at. Where they are left out, windows are first judged by the prior's mean weights: a sparse
        Dirichlet's E log pi would rule out all but the most common behaviours before a window has been seen.
    iterations : int
        Of both updates, from 1.

    Returns
    -------
    Behaviours
        The concentrations are those of the responsibilities: a = prior + sum_t r_t over the windows present.
    """
    xp = namespace(log_likelihood, prior)
    if iterations < 1:
        raise ArgumentError("iterations", f"must be at least 1, got {iterations}")
    evidence = blank(log_likelihood, present)
    counted = None if present is None else xp.astype(present, log_likelihood.dtype)[..., None]

    def count(r: Array) -> Array:
        return prior + xp.sum(r if counted is None else r * counted, axis=-2)

    a = start
    if a is None:
        a = count(softmax(evidence + xp.log(prior)[..., None, :]))
    for _ in range(iterations):
        r = softmax(evidence + expected_log(a)[..., None, :])
        a = count(r)
    return Behaviours(r, a)


def blank(windows: Array, present: Array | None) -> Array:
    """Windows (..., T, ...) with zeros for those that are missing, whatever was in their place.

    Raises
    ------
    ArgumentError
        If `present` is not of the leading dimensions of `windows`.
    """
    if present is None:
        return windows
    xp = namespace(windows, present)
    if tuple(present.shape) != tuple(windows.shape[: present.ndim]) or present.ndim >= windows.ndim:
        raise ArgumentError(
            "present", f"must have shape {tuple(windows.shape[: present.ndim])}, got {tuple(present.shape)}"
        )
    shape = (*present.shape, *[1] * (windows.ndim - present.ndim))
    return xp.where(xp.reshape(present, shape), windows, xp.zeros_like(windows))


def expected_log(concentrations: Array) -> Array:
    """E log pi under Dir(a): psi(a_k) - psi(sum a), (..., K) to (..., K)."""
    xp = namespace(concentrations)
    digamma = special.digamma if xp is np else xp.digamma
    return digamma(concentrations) - digamma(xp.sum(concentrations, axis=-1, keepdims=True))


def check_hdp(tables: Hdp | GaussianHdp) -> None:
    """Refuse tables that no training makes.

    Raises
    ------
    ArgumentError
        If shapes do not fit, alpha is not in (0, 1], weights are not positive or do not add up to 1, a row of `log_codes`
        has more probability than 1 (E log phi <= log E phi), a variance is not positive, or anything is not finite.
    """
    xp = namespace(tables.weights)
    if not 0.0 < tables.alpha <= 1.0:
        raise ArgumentError("alpha", f"must be in (0, 1], got {tables.alpha:g}")
    if tables.weights.ndim != 1 or tables.weights.shape[0] < 2:
        raise ArgumentError("weights", f"must be of at least 2 behaviours, got shape {tuple(tables.weights.shape)}")
    if not float(xp.min(tables.weights)) > 0.0:
        raise ArgumentError("weights", f"must be above 0, got {float(xp.min(tables.weights)):g}")
    total = float(xp.sum(tables.weights))
    if not abs(total - 1.0) <= _ROUNDING:
        raise ArgumentError("weights", f"must add up to 1, got {total:g}")
    if isinstance(tables, Hdp):
        _check_emissions(xp, "log_codes", tables.log_codes, tables.weights.shape[0], 3)
        most = float(xp.max(xp.sum(xp.exp(tables.log_codes), axis=-1)))
        if not most <= 1.0 + _ROUNDING:
            raise ArgumentError("log_codes", f"must have at most probability 1 a token, got {most:g}")
        return
    for field, values in (("means", tables.means), ("variances", tables.variances)):
        _check_emissions(xp, field, values, tables.weights.shape[0], 2)
    _check_shape("variances", tables.variances.shape, tuple(tables.means.shape))
    if not float(xp.min(tables.variances)) > 0.0:
        raise ArgumentError("variances", f"must be above 0, got {float(xp.min(tables.variances)):g}")


def _check_emissions(xp: Any, field: str, values: Array, behaviours: int, ndim: int) -> None:
    if values.ndim != ndim or values.shape[0] != behaviours or 0 in values.shape:
        expected = "(" + ", ".join([str(behaviours), "N", "V"] if ndim == 3 else [str(behaviours), "F"]) + ")"
        raise ArgumentError(field, f"must have shape {expected}, got {tuple(values.shape)}")
    if not bool(xp.all(xp.isfinite(values))):
        raise ArgumentError(field, "must be finite, got NaN or infinity")


def _check_shape(field: str, shape: tuple[int, ...], last: tuple[int, ...]) -> None:
    if tuple(shape[len(shape) - len(last) :]) != last or len(shape) < len(last):
        sizes = ", ".join(map(str, last))
        raise ArgumentError(field, f"must have shape (..., {sizes}), got {tuple(shape)}")
