"""Confidence intervals for proportions that were counted, not assumed.

The decisions of a sweep are not independent trials: a sample that is easy is right in every draw, and the bits of one fading
block fail together. A binomial interval over all of them is too narrow. Two questions have two answers:

    clustered_proportion   what other samples of the same kind would give; the independent unit is the cluster
    noise_proportion       what other noise would give on *these* samples

Both are Wilson intervals; they differ in the sample size put into it.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import ndtri, stdtrit

from link.errors import ArgumentError

CONFIDENCE: Final = 0.95


class Proportion(BaseModel):
    """An estimated proportion and its confidence interval, 0 <= low <= value <= high <= 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


def wilson(value: float, size: float, confidence: float = CONFIDENCE) -> Proportion:
    """Score interval of a proportion.

    Parameters
    ----------
    value : float
        Estimated proportion, in [0, 1].
    size : float
        Number of independent trials, > 0; an effective one need not be whole.
    confidence : float
        Two-sided coverage aimed at, in (0, 1).

    References
    ----------
    Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.

    Examples
    --------
    >>> interval = wilson(0.5, 10)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.2366, 0.7634)
    """
    if not 0.0 <= value <= 1.0:
        raise ArgumentError("value", f"must be in [0, 1], got {value:g}")
    if not 0.0 < size < math.inf:
        raise ArgumentError("size", f"must be positive and finite, got {size:g}")
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", f"must be in (0, 1), got {confidence:g}")
    z = float(ndtri(0.5 + 0.5 * confidence))
    shrink = 1.0 / (1.0 + z * z / size)
    centre = shrink * (value + 0.5 * z * z / size)
    half = shrink * z * math.sqrt(value * (1.0 - value) / size + (0.5 * z / size) ** 2)
    # At 0 and 1 the bound is the value itself; rounding must not put it a hair on the wrong side.
    return Proportion(value=value, low=max(0.0, min(centre - half, value)), high=min(1.0, max(centre + half, value)))


def clustered_proportion(successes: ArrayLike, trials: ArrayLike, confidence: float = CONFIDENCE) -> Proportion:
    """Interval of a proportion whose trials come in independent units.

    Parameters
    ----------
    successes, trials : (units,) int
        Counts of each unit, 0 <= successes <= trials; units without trials are passed over.
    confidence : float
        Two-sided coverage aimed at, in (0, 1).

    Returns
    -------
    Proportion
        All successes over all trials, with the Wilson interval of `effective_trials`.

    Raises
    ------
    ArgumentError
        If the counts do not fit each other or there is no trial at all.

    References
    ----------
    Korn, Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data", Survey Methodology 24. Dean, Pagano (2015), "Evaluating confidence interval methods for binomial
    proportions in clustered surveys", J. Survey Statistics and Methodology 3. Franco, Little, Louis, Slud (2019),
    "Comparative study of confidence intervals for proportions in complex sample surveys", same journal 7: for Wilson's.

    Notes
    -----
    Where a handful of units hold most of the successes, the variance between units is itself found too small and coverage
    falls: 0.92 instead of 0.95 with 200 units of 64 trials whose probabilities are Beta(0.05, 5).

    Examples
    --------
    Ten samples, each right in all of its 100 draws or in none, are ten trials and not a thousand:

    >>> clustered_proportion([100] * 5 + [0] * 5, [100] * 10) == wilson(0.5, 10)
    True
    """
    return cluster_sums(successes, trials).proportion(confidence)


def noise_proportion(successes: int, trials: int, confidence: float = CONFIDENCE) -> Proportion:
    """Interval over channel noise for given samples: Wilson on all trials.

    It is conservative. Given the samples, receptions are independent but sample i succeeds with a probability p_i of its
    own, and the sum of p_i (1 - p_i) is at most n p (1 - p) with p the mean of the p_i, since p (1 - p) is concave; the
    tails are lighter than binomial too (Hoeffding 1956, "On the distribution of the number of successes in independent
    trials").

    Examples
    --------
    >>> noise_proportion(0, 100).low
    0.0
    """
    sums = cluster_sums([successes], [trials]).require_trials()
    return wilson(sums.successes / sums.trials, sums.trials, confidence)


def effective_trials(successes: ArrayLike, trials: ArrayLike, confidence: float = CONFIDENCE) -> float:
    """Number of independent trials that would have the variance seen between units.

    p (1 - p) / var(p_hat), with the ratio estimator's var(p_hat) = u / (u - 1) sum (s_i - p t_i)^2 / (sum t_i)^2 over u
    units, times the squared ratio of Student quantiles at (trials - 1) and (u - 1) degrees of freedom, since a variance
    from few units is itself uncertain (Korn and Graubard).

    It is held between two bounds. Units help each other at most by being independent trials throughout: not above the number
    of trials, however even the counts happen to be. And units hurt at most by succeeding or failing as a whole: not below
    (sum t_i)^2 / sum t_i^2, Kish's number of units, which is the number of units where they are of one size.

    Where nothing varies because every trial succeeded, or none did, the variance says nothing about clustering: the answer
    is the lower bound, as if each unit were a single trial. That assumes nothing of the clustering: a trial succeeds at most
    as often as a unit holds any success. The same holds for a single unit.
    """
    return cluster_sums(successes, trials).effective_trials(confidence)


class ClusterSums(NamedTuple):
    """What an interval needs to know of counts in independent units: integers that add up, field by field.

    Attributes
    ----------
    units : int
        Units with at least one trial.
    successes, trials : int
    squared_successes, products, squared_trials : int
        Sums over units of s^2, s t and t^2.
    """

    units: int = 0
    successes: int = 0
    trials: int = 0
    squared_successes: int = 0
    products: int = 0
    squared_trials: int = 0

    def plus(self, other: ClusterSums) -> ClusterSums:
        """Sums over the units of both."""
        return ClusterSums(*(a + b for a, b in zip(self, other, strict=True)))

    def proportion(self, confidence: float = CONFIDENCE) -> Proportion:
        """See `clustered_proportion`."""
        self.require_trials()
        return wilson(self.successes / self.trials, self.effective_trials(confidence), confidence)

    def effective_trials(self, confidence: float = CONFIDENCE) -> float:
        """See `effective_trials`."""
        self.require_trials()
        units, s, t = self.units, self.successes, self.trials
        fewest = t * t / self.squared_trials
        if units == 1 or s in (0, t):
            return fewest
        # Times t^2, so that it stays a whole number: nothing cancels.
        spread = t * t * self.squared_successes - 2 * s * t * self.products + s * s * self.squared_trials
        if spread == 0:
            return float(t)
        p = s / t
        variance = units / (units - 1) * (spread / t**4)
        tail = 0.5 + 0.5 * confidence
        ratio = float(stdtrit(t - 1.0, tail) / stdtrit(units - 1.0, tail))
        return min(max(p * (1.0 - p) / variance * ratio * ratio, fewest), float(t))

    def require_trials(self) -> ClusterSums:
        """These sums; an ArgumentError where there is no trial."""
        if not self.trials:
            raise ArgumentError("trials", "must hold at least one trial")
        return self


def cluster_sums(successes: ArrayLike, trials: ArrayLike) -> ClusterSums:
    """Sums of counts in units.

    Parameters
    ----------
    successes, trials : (units,) int
        0 <= successes <= trials, squares within 64 bits; units without trials are passed over.

    Examples
    --------
    >>> cluster_sums([1, 0, 2], [4, 0, 4])
    ClusterSums(units=2, successes=3, trials=8, squared_successes=5, products=12, squared_trials=32)
    """
    s, t = _counts(successes, trials)
    return ClusterSums(len(t), int(s.sum()), int(t.sum()), int(s @ s), int(s @ t), int(t @ t))


def _counts(successes: ArrayLike, trials: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    s, t = np.asarray(successes, dtype=np.int64), np.asarray(trials, dtype=np.int64)
    if s.ndim != 1 or s.shape != t.shape:
        raise ArgumentError("trials", f"must be (units,) as successes are, got {t.shape} and {s.shape}")
    if not ((s >= 0) & (s <= t)).all():
        raise ArgumentError("successes", "must be in [0, trials] in every unit")
    return s[t > 0], t[t > 0]
