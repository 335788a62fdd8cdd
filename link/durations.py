"""How long a behaviour lasts: laws of durations 1, 2, ... in windows, as tables of D logs and a geometric tail.

    p(d) = w_d                          1 <= d < D        w_1 + ... + w_D = 1
    p(D + k) = w_D (1 - s) s^k          k = 0, 1, ...     s in [0, 1), the tail

So a table of D = 30 windows does not forbid a walk of 50: what lasts D windows or longer goes on as a Markov chain would,
and the law stays normalised. With s = 0 nothing lasts longer than D.

**In the middle** of a stationary process, what is left of a duration, the window itself counted, has the law

    P(left = n) = P(d >= n) / mean      mean = sum_n P(d >= n)

(Cox 1962, Renewal Theory, chapter 5, in whole windows). Its tail is geometric with the same s, so it has the same form.
"""

from __future__ import annotations

from typing import NamedTuple

import array_api_compat

from link.array import Array, namespace
from link.errors import ArgumentError
from link.log_space import floored, log1m_exp, log_softmax, log_sum_exp, unfloored


class Durations(NamedTuple):
    """Laws of C behaviours.

    Attributes
    ----------
    table : (C, D) float
        ln w_d of 1, ..., D windows.
    tail : (C,) float
        ln s; -inf where nothing lasts longer than D.
    """

    table: Array
    tail: Array

    def log_exactly(self, longest: int) -> Array:
        """ln P(d = n) of n = 1, ..., longest: (C, longest), FLOOR and below for -inf."""
        return _extended(self.table, self.tail, log1m_exp(self.tail), longest)

    def log_at_least(self, longest: int) -> Array:
        """ln P(d >= n) of n = 1, ..., longest: (C, longest), FLOOR and below for -inf."""
        return _extended(_survival(self.table), self.tail, namespace(self.tail).zeros_like(self.tail), longest)


def negative_binomial(mean: Array, shape: Array, longest: int, *, open_ended: bool = True) -> Durations:
    """Durations 1 + X, X negative binomial: over-dispersed counts, as what people do lasts.

        P(X = k) = Gamma(k + r) / (k! Gamma(r)) (1 - q)^r q^k      q = m / (m + r), m = E X, Var X = m + m^2 / r

    The ratio of one probability to that before tends to q, so q is the tail's s. With r = 1 the law is geometric, and exact.
    The quotient of gamma functions is a product of r, r + 1, ..., whose logs are added up.

    Parameters
    ----------
    mean : (C,) float
        Of the law before it is cut at D, in windows, above 1.
    shape : (C,) float
        r > 0. The larger, the narrower: Poisson in the limit.
    longest : int
        D.
    open_ended : bool
        Whether the law goes on beyond D; if not, it is cut there and normalised.

    Raises
    ------
    ArgumentError
        If a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(negative_binomial(np.array([2.0]), np.array([1.0]), 4).table)
    array([[0.5  , 0.25 , 0.125, 0.125]])
    """
    xp = namespace(mean, shape)
    if longest < 1:
        raise ArgumentError("longest", f"must be at least 1, got {longest}")
    if not bool(xp.all((mean > 1.0) & xp.isfinite(mean))):
        raise ArgumentError("mean", "must be finite and above 1 window")
    if not bool(xp.all((shape > 0.0) & xp.isfinite(shape))):
        raise ArgumentError("shape", "must be finite and above 0")
    excess = mean - 1.0
    log_q = -xp.log1p(shape / excess)
    tail = log_q if open_ended else xp.zeros_like(log_q) - xp.inf
    counts = xp.arange(1, longest, dtype=mean.dtype, device=array_api_compat.device(mean))
    ratios = xp.log((counts - 1.0 + shape[:, None]) / counts) + log_q[:, None]
    logs = xp.concat([xp.zeros_like(shape)[:, None], xp.cumsum(ratios, axis=-1)], axis=-1)
    last = logs[:, -1:] - log1m_exp(tail)[:, None]
    return Durations(log_softmax(xp.concat([logs[:, :-1], last], axis=-1)), tail)


def categorical(logits: Array, tail: Array | None = None) -> Durations:
    """Durations of any shape: softmax over 1, ..., D.

    Parameters
    ----------
    logits : (C, D) float
    tail : (C,) float, optional
        ln s; nothing lasts longer than D if absent.
    """
    if tail is None:
        xp = namespace(logits)
        tail = xp.zeros_like(logits[:, 0]) - xp.inf
    return Durations(log_softmax(logits), tail)


def residual(durations: Durations) -> Durations:
    """What is left of a duration in the middle of a stationary process, the window itself counted."""
    return Durations(unfloored(log_softmax(_terms_of_mean(durations))), durations.tail)


def log_mean(durations: Durations) -> Array:
    """Log of the mean duration in windows, (C,)."""
    return log_sum_exp(_terms_of_mean(durations))


def _terms_of_mean(durations: Durations) -> Array:
    """ln P(d >= n) of n < D, and of n >= D their sum: (C, D)."""
    survival = _survival(durations.table)
    last = survival[:, -1:] - log1m_exp(durations.tail)[:, None]
    return namespace(survival).concat([survival[:, :-1], last], axis=-1)


def _survival(table: Array) -> Array:
    """ln (w_n + ... + w_D), (C, D): each sum by itself, since a running one would lose what is small."""
    xp = namespace(table)
    n = xp.arange(table.shape[-1], device=array_api_compat.device(table))
    later = n[None, :] >= n[:, None]
    return log_sum_exp(floored(xp.where(later, table[:, None, :], -xp.inf)))


def _extended(table: Array, tail: Array, at_last: Array, longest: int) -> Array:
    """A (C, D) table whose last entry, times exp(at_last), goes on geometrically: (C, longest)."""
    xp = namespace(table)
    table, tail = floored(table), floored(tail)
    last = table.shape[-1]
    beyond = xp.arange(max(longest - last + 1, 0), dtype=table.dtype, device=array_api_compat.device(table))
    on = (table[:, -1] + at_last)[:, None] + beyond * tail[:, None]
    return xp.concat([table[:, : min(last - 1, longest)], on], axis=-1)
