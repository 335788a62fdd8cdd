"""A sequential test of "the hard path is not worse than the soft one by the margin".

Each draw of channel noise decides every sample i once on both paths, on the same noise, and gives

    X_i = soft_correct_i - hard_correct_i   in {-1, 0, 1},   E X_i = mu_i,   delta = mean(mu_i) = acc_soft - acc_hard

The expectation is over channel noise for the samples at hand: this is a claim on one bundle and one data set, not on
samples that were never seen. Draws are repeated until the question is settled, so the test must stay valid however often
it is looked at. It bets (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS-B
86, section 4): against H0 "delta <= m" the capital

    K(m) = mean over c of prod_X (1 + lambda (X - m)),   lambda = c / (1 + m),   c from a fixed grid in (0, 1)

grows when delta > m. The mean over a grid of bets is a discrete universal portfolio (Cover 1991; Orabona and Jun 2021,
"Tight concentrations and confidence sequences from the regret of universal portfolio"): no bet is tuned, the best one
prevails. A product of fixed bets depends on nothing but how often X was -1, 0 and 1. H0 "delta >= m" is the mirror image,
X and m negated.

**Validity.** The samples' means mu_i differ, so K is no supermartingale from one X to the next. It is one from one whole
draw to the next: the noise is independent over samples and draws, so a draw multiplies the capital of a fixed bet by a
factor of mean

    prod_i (1 + lambda (mu_i - m))  <=  (1 + lambda (delta - m))^n  <=  1      when delta <= m, lambda > 0

by the inequality of the arithmetic and geometric means (all factors are positive), and a mean of such capitals inherits
it. By Ville's inequality P(K ever reaches 1 / alpha, at the end of any draw) <= alpha. Equality needs equal means; unequal
ones only make the test cautious.

**Where an answer is of several positions**, as a text's pieces are, they meet the same noise, and the sample stays the unit:
with c the most positions of any sample,

    X_i = (soft_correct_i - hard_correct_i) / c   in {-1, -1 + 1/c, ..., 1},   delta = c n mean(mu_i) / positions

so a margin on delta, a share of the positions, is one on the mean of X, smaller by positions / (c n); the rest stands.

**Over several SNR points**, delta < margin must hold at every point. "Equivalent" is the rejection of delta >= margin at
*every* point, each at alpha: if the claim is false, some point has delta >= margin, and the test of that point errs with
probability alpha at most, whatever the others do; so no correction for multiplicity is due (an intersection-union test:
Berger 1982, Technometrics 24). "Different" is the rejection of delta <= margin at *some* point, which each of the points
may do by chance: each is tested at alpha / num_points (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from link.errors import ArgumentError, require_range

# The growth-optimal bet is about (delta - m) / P(X != 0): near 1 when the paths never disagree, 0.25 at 2 % discordance
# and half a margin of 0.01, below 0.01 for an interval from a million decisions. A bet off by a factor r grows at
# 1 - (1 - r)^2 of the best rate; neighbours here are 1.6 apart, so the nearest one is within 7 % of it.
_BETS: Final = np.geomspace(2.0**-10, 0.95, 16)
_BISECTIONS: Final = 40


class Verdict(StrEnum):
    """What a test concludes; `UNDECIDED` until it does, and for good where the draws run out."""

    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class Counts(NamedTuple):
    """How often X was 1 (soft alone correct), 0 and -1 (hard alone correct); integers, or arrays of one shape."""

    plus: ArrayLike
    zero: ArrayLike
    minus: ArrayLike


class Interval(NamedTuple):
    """A confidence interval [low, high] for delta."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def log_evidence_above(counts: Sequence[ArrayLike], m: ArrayLike) -> NDArray[np.float64]:
    """Log of the capital won against H0 "delta <= m": reject at level alpha where it reaches ln(1 / alpha).

    Parameters
    ----------
    counts : Counts of (...) int, or 2 c + 1 of them
        How often X was 1, 1 - 1/c, ..., -1, at the end of a whole draw.
    m : (...) float
        In (-1, 1].

    Returns
    -------
    (...) float64
        Nats. It falls with m, so the values of m that are rejected form an interval.

    Examples
    --------
    >>> rejected = log_evidence_above(Counts(60, 900, 0), 0.01) > math.log(1 / 0.05)
    >>> bool(rejected)
    True
    """
    *times, m = (np.asarray(value, dtype=np.float64)[..., None] for value in (*counts, m))
    # The factor of X is 1 + lambda (X - m) with lambda = bet / (1 + m); for X = -1 it is 1 - bet whatever m.
    capital = sum(
        (
            count * np.log1p(_BETS * ((x - m) / (1.0 + m)))
            for x, count in zip(np.linspace(1.0, -1.0, len(times)).tolist(), times, strict=True)
            if count.any()
        ),
        np.zeros_like(m),
    )
    return np.asarray(logsumexp(capital + np.zeros_like(_BETS), axis=-1) - math.log(len(_BETS)))


def log_evidence_below(counts: Sequence[ArrayLike], m: ArrayLike) -> NDArray[np.float64]:
    """Log of the capital won against H0 "delta >= m", m in [-1, 1): the mirror image of `log_evidence_above`."""
    return log_evidence_above(counts[::-1], -np.asarray(m, dtype=np.float64))


def confidence_interval(counts: Sequence[ArrayLike], alpha: float) -> Interval:
    """The values of delta that neither side rejects at alpha / 2: a confidence sequence when computed draw by draw.

    Parameters
    ----------
    counts : Counts of (...) int, or 2 c + 1 of them
        At the end of a whole draw.
    alpha : float
        In (0, 1). With probability 1 - alpha the intervals of *all* draws hold delta.

    Examples
    --------
    >>> low, high = confidence_interval(Counts(60, 9880, 60), 0.05)
    >>> bool(-0.01 < low < 0 < high < 0.01)
    True
    """
    require_range("alpha", alpha, 1e-12, 1.0 - 1e-12)
    return Interval(_lower_bound(counts, alpha / 2), -_lower_bound(counts[::-1], alpha / 2))


def _lower_bound(counts: Sequence[ArrayLike], alpha: float) -> NDArray[np.float64]:
    """Largest m that is rejected, from below; -1 where none is."""
    threshold = -math.log(alpha)
    low = np.full(np.broadcast_shapes(*(np.shape(count) for count in counts)), -1.0)
    high = np.ones_like(low)  # never rejected: no bet wins against delta <= 1
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        rejected = log_evidence_above(counts, middle) >= threshold
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


class DifferenceTest:
    """The test at one SNR point, draw by draw.

    Parameters
    ----------
    margin : float
        Largest tolerated delta, exclusive, in (0, 1).
    alpha : float
        Error probability of the verdict over all points.
    num_points : int
        Points that share it.
    judged : (n, T) bool, optional
        Where an answer is of several positions: which of each sample are judged, at least one of all; delta is a share of
        those. Absent where a sample has one.

    Attributes
    ----------
    verdict : Verdict
        Of "delta < margin": the hard path is not worse than the soft one by the margin.
    two_sided : Verdict
        Of "|delta| < margin": it is not better by the margin either.
    draws : int
        Whole draws so far.
    counts : Counts
        Positions, over all draws, that the soft path alone got right, that both did or neither, and that the hard one alone.
    """

    def __init__(
        self, margin: float, alpha: float = 0.05, num_points: int = 1, judged: NDArray[np.bool_] | None = None
    ) -> None:
        require_range("margin", margin, 1e-6, 1.0 - 1e-6)
        require_range("alpha", alpha, 1e-12, 1.0 - 1e-12)
        require_range("num_points", num_points, 1, math.inf)
        self.margin = margin
        self.alpha = alpha
        self.num_points = num_points
        self.counts = Counts(0, 0, 0)
        self.draws = 0
        self._judged = judged
        positions = np.ones(1, dtype=np.int64) if judged is None else judged.sum(axis=1)
        self._most = int(positions.max())
        if not self._most:
            raise ArgumentError("judged", "must hold a position that is judged")
        self._share = float(positions.sum() / (self._most * len(positions)))
        self._times = [0] * (2 * self._most + 1)
        self.verdict = Verdict.UNDECIDED
        self.two_sided = Verdict.UNDECIDED
        self._not_worse = self._not_better = False
        self._shape: tuple[int, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether both questions are decided; what is decided stays so, and more draws change nothing."""
        return Verdict.UNDECIDED not in (self.verdict, self.two_sided)

    def update(self, soft_correct: ArrayLike, hard_correct: ArrayLike) -> None:
        """Count one draw.

        Parameters
        ----------
        soft_correct, hard_correct : (n,) or (n, T) bool
            Whether each path decided each sample, or each of its positions, correctly on the same noise. Always the same n
            samples, and all of them: validity rests on whole draws.

        Raises
        ------
        ArgumentError
            If the shapes differ, or change from one draw to the next.
        """
        soft, hard = np.asarray(soft_correct, dtype=bool), np.asarray(hard_correct, dtype=bool)
        expected = self._shape or (soft.shape if self._judged is None else self._judged.shape)
        if soft.ndim != 1 + (self._judged is not None) or not len(soft) or not soft.shape == hard.shape == expected:
            raise ArgumentError(
                "hard_correct", f"must be {expected} like each draw before it, got {soft.shape} and {hard.shape}"
            )
        self._shape = soft.shape
        judged = np.ones_like(soft) if self._judged is None else self._judged
        soft, hard = soft & judged, hard & judged
        plus, minus = int((soft & ~hard).sum()), int((hard & ~soft).sum())
        draw = (plus, int(judged.sum()) - plus - minus, minus)
        self.counts = Counts(*(int(np.asarray(old)) + new for old, new in zip(self.counts, draw, strict=True)))
        ahead = (soft.astype(np.int64) - hard).reshape(len(soft), -1).sum(axis=1)
        self._times = (self._times + np.bincount(self._most - ahead, minlength=len(self._times))).tolist()
        self.draws += 1
        self._decide()

    def interval(self) -> Interval:
        """Confidence interval for delta at 1 - alpha, valid at whatever draw it is asked for."""
        low, high = confidence_interval(self._times, self.alpha)
        return Interval(np.maximum(low / self._share, -1.0), np.minimum(high / self._share, 1.0))

    def _decide(self) -> None:
        """Test both sides; "different" first, since it is the rarer error."""
        passes, fails = math.log(1 / self.alpha), math.log(self.num_points / self.alpha)
        times, margin = self._times, self.margin * self._share
        self._not_worse |= bool(log_evidence_below(times, margin) >= passes)
        self._not_better |= bool(log_evidence_above(times, -margin) >= passes)
        worse = float(log_evidence_above(times, margin))
        better = float(log_evidence_below(times, -margin))
        if self.verdict is Verdict.UNDECIDED:
            self.verdict = _conclude(worse >= fails, self._not_worse)
        if self.two_sided is Verdict.UNDECIDED:
            # Either side may err: each gets half.
            self.two_sided = _conclude(max(worse, better) >= fails + math.log(2), self._not_worse and self._not_better)


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict over all points: different if any is, equivalent if all are.

    Examples
    --------
    >>> combine([Verdict.EQUIVALENT, Verdict.UNDECIDED]).value
    'undecided'
    """
    if Verdict.DIFFERENT in verdicts:
        return Verdict.DIFFERENT
    return _conclude(False, bool(verdicts) and all(verdict is Verdict.EQUIVALENT for verdict in verdicts))


def _conclude(different: bool, equivalent: bool) -> Verdict:
    if different:
        return Verdict.DIFFERENT
    return Verdict.EQUIVALENT if equivalent else Verdict.UNDECIDED
