"""Confidence intervals for error rates that were counted until enough errors had been seen.

A point of a sweep is run block by block, each of the same number of independent *units*: symbols over AWGN, whose bits share
noise, frames over block fading. It ends with the first block at which a target number r of units in error is reached, or
with a fixed last block. The rule favours runs that were unlucky early, so errors / trials is too large on average, and an
interval that takes the number of trials for granted is off to the same side.

**Rate of units in error.** Let p be the probability that a unit is in error, N the units of a block, S_b the units in error
of the first b blocks. A run that ended with block B at S_B = s speaks for a larger p the sooner it ended, and the more
errors it had by then: the stage-wise ordering of group-sequential trials (Siegmund 1978; Jennison and Turnbull 1983). Its
tails sum over the ways to be still running before the last block,

    P_p(as high or higher) = P(S_{B-1} >= r) + sum_{j<r} P(S_{B-1} = j) P(X >= s - j)
    P_p(as low or lower)   =                   sum_{j<r} P(S_{B-1} = j) P(X <= s - j)          X ~ Bin(N, p)

More errors in a block can only raise the outcome, so the first tail rises with p and the second falls. Where each is
alpha / 2 are the ends of an interval that holds p with probability 1 - alpha or more, *exactly*, for any p, r and N. Blocks
that were not run do not enter. With one block, or with s < r, which no run reaches that could have ended sooner, it is the
interval of Clopper and Pearson (1934).

**Bit error rate.** BER = p E[W | unit in error] / bits of a unit, with W the wrong bits of a unit, its *mark*. Marks of
units in error are independent of which units those are, and the rule looks at that alone, so the two factors are estimated
independently. In logarithms they are summands, whose intervals are joined by the method of variance estimates recovery (Zou
and Donner 2008): distances from the estimate to the ends add as squares. The mean mark lies between 1 and the bits of a
unit, and within those bounds has Student's interval on the logarithmic scale, with one degree of freedom less than there
are *effective errors*,

    effective errors = (sum W)^2 / sum W^2 = K / (1 + cv^2)          K units in error, cv of their marks

which is Kish's size of a sample of unequal weights. K - 1 degrees of freedom would be right for normal marks. Marks of
fading frames are skewed: few hold most of the wrong bits, and until one of those is seen both mean and variance come out too
small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, expit, gammainccinv, gammaincinv, logit, ndtri, stdtrit

from link.errors import ArgumentError, require_range
from link.montecarlo import CONFIDENCE, Proportion, wilson

# A binomial law beyond mean +- (c deviation + c^2 / 3) holds less than 2 exp(-c^2 / 2) by Bernstein's inequality: 5e-18.
_REACH: Final = 9.0
_TAIL_MIN: Final = 1e-300
_TAIL_MAX: Final = 1.0 - 2.0**-53
_LOGIT_MAX: Final = 35.0
_TOLERANCE: Final = 1e-12
_MANY: Final = 10**6
_LOG_MAX: Final = 700.0
"""Above it, exp overflows."""


class Tally(NamedTuple):
    """What the blocks of a point counted, as Python integers; importance sampling (link.rare) has weights for errors.

    Attributes
    ----------
    units : int
        Independent units that were sent.
    unit_errors : int
        Units with at least one wrong bit.
    trials : int
        Bits that were sent, the same number in every unit.
    errors : float
        Wrong bits.
    squares : float
        Sum over units of their wrong bits squared.
    """

    units: int
    unit_errors: int
    trials: int
    errors: float
    squares: float


def unit_error_rate(tally: Tally, block_units: int, target: int | None, confidence: float = CONFIDENCE) -> Proportion:
    """Exact interval of the probability that a unit is in error, valid under the rule that ended the point.

    Parameters
    ----------
    tally : Tally
        Of the shortest prefix of blocks with `target` units in error, or of all blocks.
    block_units : int
        Units of a block.
    target : int or None
        Units in error that end a point; None where the number of blocks was fixed.
    confidence : float
        Two-sided coverage that is guaranteed, in (0, 1).

    Returns
    -------
    Proportion
        The value is units in error over units. The interval is stretched to hold it, where a last block with very many
        errors leaves it outside.

    Raises
    ------
    ArgumentError
        If the counts do not fit each other, or an argument is out of range.

    References
    ----------
    Clopper, Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika
    26. Siegmund (1978), "Estimation following sequential tests", Biometrika 65. Jennison, Turnbull (1983), "Confidence
    intervals for a binomial parameter following a multistage test with application to MIL-STD 105D and medical trials",
    Technometrics 25. Jennison, Turnbull (2000), "Group Sequential Methods with Applications to Clinical Trials", chapter 8.

    Examples
    --------
    Ten errors in 1,000 symbols, and no more than 1,000 were to be sent; or sending was to end with the tenth:

    >>> fixed = unit_error_rate(Tally(1000, 10, 1000, 10, 10), block_units=1, target=None)
    >>> round(fixed.low, 5), round(fixed.high, 5)
    (0.00481, 0.01831)
    >>> until = unit_error_rate(Tally(1000, 10, 1000, 10, 10), block_units=1, target=10)
    >>> round(until.low, 5), round(until.high, 5)
    (0.00481, 0.01703)
    """
    _check(tally, block_units, target, confidence)
    units, errors = tally.units, tally.unit_errors
    if target is None or errors < target:
        # No run could have ended sooner: all units are one block, behind none.
        outcome = _Outcome(before=0, block=units, target=1, errors=errors)
    else:
        # Blocks before had errors - block_units at least, and less than the target; unit_target may put that lower.
        target = max(target, errors - block_units + 1)
        outcome = _Outcome(before=units - block_units, block=block_units, target=target, errors=errors)
    value, miss = errors / units, 0.5 - 0.5 * confidence
    near, step = wilson(value, units, confidence), 1.0 / math.sqrt(min(errors, units - errors) + 1.0)
    low = _root(lambda x: _probit(outcome.as_high(x)) - _probit(miss), near.low, step) if errors else 0.0
    high = _root(lambda x: _probit(miss) - _probit(outcome.as_low(x)), near.high, step) if errors < units else 1.0
    return Proportion(value=value, low=min(low, value), high=max(high, value))


def error_rate(tally: Tally, block_units: int, target: int | None, confidence: float = CONFIDENCE) -> Proportion:
    """Interval of the bit error rate, under the rule that ended the point.

    Parameters
    ----------
    tally, block_units, confidence
        As for `unit_error_rate`.
    target : int or None
        Units in error that end a point; where it ends by *effective* errors, `unit_target` of them.

    Returns
    -------
    Proportion
        The value is wrong bits over bits. Without an error the interval ends at the bound for units, as if a unit were a
        single trial, since nothing is known of how many bits fail together. Where each unit is one bit it is exact.

    Notes
    -----
    Assumed: units are alike and independent of each other. Nothing is assumed of the bits within one.

    The interval of the mean mark is an approximation. Measured coverage at 0.95 over 4,000 points, each ended by K frames
    in error, of QPSK frames that share one Rayleigh gain (standard error 0.0034):

    ==================================  =====  =====  =====  =====
    frame, mean Es/N0, cv^2 of a mark   K = 5  10     50     200
    ==================================  =====  =====  =====  =====
    32 bits, 20 dB, 0.87                0.954  0.957  0.956  0.951
    128 bits, 10 dB, 1.26               0.950  0.955  0.955  0.954
    128 bits, 25 dB, 1.59               0.946  0.954  0.953  0.956
    1024 bits, 10 dB, 1.93              0.957  0.958  0.957  0.949
    1024 bits, 30 dB, 2.88              0.949  0.953  0.954  0.948
    ==================================  =====  =====  =====  =====

    Over AWGN, where marks hardly vary, coverage is that of the exact interval.

    References
    ----------
    Zou, Donner (2008), "Construction of confidence limits about effect measures: a general approach", Statistics in
    Medicine 27. Kish (1965), "Survey Sampling", section 11.7. Fay, Feuer (1997), "Confidence intervals for directly
    standardized rates: a method based on the gamma distribution", Statistics in Medicine 16, take the same effective count.

    Examples
    --------
    20 wrong bits of a million in 20 symbols, and the same number in four frames of 500 bits:

    >>> spread = error_rate(Tally(500_000, 20, 1_000_000, 20, 20), block_units=1000, target=20)
    >>> clustered = error_rate(Tally(2000, 4, 1_000_000, 20, 130), block_units=10, target=4)
    >>> [f"{interval.low:.1e} {interval.high:.1e}" for interval in (spread, clustered)]
    ['1.2e-05 3.0e-05', '3.2e-06 9.3e-05']
    """
    unit = unit_error_rate(tally, block_units, target, confidence)
    bits, count = tally.trials // tally.units, tally.unit_errors
    if bits == 1 or count == 0:
        return unit
    mean, value = tally.errors / count, tally.errors / tally.trials
    spread = _mark_spread(tally, confidence)
    below = math.hypot(math.log(unit.value / unit.low), min(spread, math.log(mean)))
    above = math.hypot(math.log(unit.high / unit.value), min(spread, math.log(bits / mean)))
    return Proportion(value=value, low=value * math.exp(-below), high=max(value, min(1.0, value * math.exp(above))))


def effective_errors(tally: Tally) -> float:
    """Independent errors that would tell as much: (sum W)^2 / sum W^2 over the wrong bits W of units; 0 without errors.

    Examples
    --------
    >>> effective_errors(Tally(2000, 4, 1_000_000, 20, 130))
    3.076923076923077
    """
    return tally.errors**2 / tally.squares if tally.errors else 0.0


def errors_for_width(rel_width: float, confidence: float = CONFIDENCE) -> int:
    """Effective errors at which the interval is at most `rel_width` times the error rate wide, whatever that is.

    For small p the interval of r errors is (gamma_{alpha/2}(r) / r, gamma_{1-alpha/2}(r + 1) / r) times the value, by the
    quantiles of the gamma law (Garwood 1936, "Fiducial limits for the Poisson distribution", Biometrika 28); larger p make
    it narrower. Student's interval exp(+- t / sqrt(r - 1)) bounds what marks add. The smallest r with which the wider of the
    two on each side keeps to the width also does where they are joined, as r = K / (1 + cv^2) shares them out.

    Parameters
    ----------
    rel_width : float
        Full width over the value, in [0.001, 10].
    confidence : float
        In (0, 1).

    Examples
    --------
    >>> errors_for_width(0.2)
    397
    """
    require_range("rel_width", rel_width, 0.001, 10.0)
    _check_confidence(confidence)
    few, enough = 1, 2
    while _relative_width(enough, confidence) > rel_width:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        if _relative_width(middle, confidence) > rel_width:
            few = middle
        else:
            enough = middle
    return enough


def unit_target(tally: Tally, effective: int) -> int:
    """Units in error that stand for a target of effective errors, for points that end by those.

    A point that ends once effective_errors(tally) >= errors_for_width(rel_width) looks at marks too. As their cv settles
    while errors are counted, that is nearly a target of `effective` (1 + cv^2) units in error, with the cv of the end. With
    widths of 0.5 and 0.2 the coverage measured as for `error_rate`, at 0.95, was 0.945 to 0.957.

    Examples
    --------
    >>> unit_target(Tally(2000, 4, 1_000_000, 20, 130), effective=3)
    4
    """
    return max(1, math.ceil(effective * tally.unit_errors / effective_errors(tally))) if tally.errors else effective


class _Law(NamedTuple):
    """A binomial law, P(X = first + i) = mass[i], where it is not negligible."""

    first: int
    mass: NDArray[np.float64]

    def at_most(self, k: NDArray[np.int64]) -> NDArray[np.float64]:
        below = np.concatenate([[0.0], np.cumsum(self.mass)])
        return np.asarray(below[np.clip(k - self.first + 1, 0, len(self.mass))])

    def at_least(self, k: NDArray[np.int64]) -> NDArray[np.float64]:
        above = np.concatenate([np.cumsum(self.mass[::-1])[::-1], [0.0]])
        return np.asarray(above[np.clip(k - self.first, 0, len(self.mass))])


def _binomial(n: int, x: float) -> _Law:
    """Bin(n, p) with p = 1 / (1 + exp(-x)).

    Ratios of neighbours and their sum give the masses without a factorial, whose logarithm has lost all digits for the n of
    long sweeps (scipy's inverse of the incomplete beta function is off by a factor of 100 at 1,000 errors in 1e13).
    """
    mean = n * float(expit(x))
    reach = _REACH * math.sqrt(mean * float(expit(-x))) + _REACH**2 / 3.0
    first, last = max(0, math.floor(mean - reach)), min(n, math.ceil(mean + reach))
    k = np.arange(first, last, dtype=np.float64)
    log_mass = np.concatenate([[0.0], np.cumsum(np.log((n - k) / (k + 1.0)) + x)])
    mass = np.exp(log_mass - log_mass.max())
    return _Law(first, mass / mass.sum())


class _Outcome(NamedTuple):
    """A point that ended with a block of `block` units, behind `before` with fewer than `target` errors, at `errors`."""

    before: int
    block: int
    target: int
    errors: int

    def as_high(self, x: float) -> float:
        """Probability of an outcome as high or higher, at a logit x of p."""
        if self._many:
            return _beta(self.errors, self.block - self.errors + 1, x)
        earlier, running, needed = self._paths(x)
        still = earlier.mass[running] @ _binomial(self.block, x).at_least(needed)
        return float(earlier.mass[~running].sum() + still)

    def as_low(self, x: float) -> float:
        """Probability of an outcome as low or lower."""
        if self._many:
            return _beta(self.block - self.errors, self.errors + 1, -x)
        earlier, running, needed = self._paths(x)
        return float(earlier.mass[running] @ _binomial(self.block, x).at_most(needed))

    @property
    def _many(self) -> bool:
        """Whether one block holds so many errors that the law is long, and the incomplete beta function exact to 1e-9."""
        return self.before == 0 and min(self.errors, self.block - self.errors) > _MANY

    def _paths(self, x: float) -> tuple[_Law, NDArray[np.bool_], NDArray[np.int64]]:
        """Errors before the last block, which of them leave the point running, and what each then lacks."""
        earlier = _binomial(self.before, x)
        count = earlier.first + np.arange(len(earlier.mass))
        running = count < self.target
        return earlier, running, self.errors - count[running]


def _beta(a: int, b: int, x: float) -> float:
    """The regularised incomplete beta function at 1 / (1 + exp(-x)), from its nearer end."""
    return float(betainc(a, b, expit(x)) if x < 0.0 else betaincc(b, a, expit(-x)))


def _probit(tail: float) -> float:
    """A scale on which tails are nearly straight lines in the logit; finite, also where rounding leaves a tail above 1."""
    return float(ndtri(min(max(tail, _TAIL_MIN), _TAIL_MAX)))


def _root(rising: Callable[[float], float], near: float, step: float) -> float:
    """The probability at whose logit a rising function is 0, sought from a probability near it."""
    low = high = min(max(float(logit(near)), -_LOGIT_MAX), _LOGIT_MAX)
    if rising(low) > 0.0:
        low = high - step
        while rising(low) > 0.0:
            low, high, step = low - 2.0 * step, low, 2.0 * step
    else:
        high = low + step
        while rising(high) < 0.0:
            low, high, step = high, high + 2.0 * step, 2.0 * step
    return float(expit(brentq(rising, low, high, xtol=_TOLERANCE)))


def _mark_spread(tally: Tally, confidence: float) -> float:
    """Half the width of Student's interval for the logarithm of the mean mark; inf where one unit is all there is."""
    count, freedom = tally.unit_errors, effective_errors(tally) - 1.0
    # cv^2 of the marks, in integers: their difference cancels where marks hardly vary.
    excess = (tally.squares * count - tally.errors**2) / tally.errors**2
    if count == 1 or freedom <= 0.0:
        return math.inf
    return float(stdtrit(freedom, 0.5 + 0.5 * confidence)) * math.sqrt(excess / (count - 1))


def _relative_width(errors: int, confidence: float) -> float:
    miss = 0.5 - 0.5 * confidence
    student = -float(stdtrit(errors - 1.0, miss)) / math.sqrt(errors - 1.0)
    below = max(math.log(errors / float(gammaincinv(errors, miss))), student)
    above = max(math.log(float(gammainccinv(errors + 1, miss)) / errors), student)
    return math.exp(min(above, _LOG_MAX)) - math.exp(-below)


def _check(tally: Tally, block_units: int, target: int | None, confidence: float) -> None:
    units, unit_errors, trials, errors, squares = tally
    if not (units > 0 and block_units > 0 and units % block_units == 0):
        raise ArgumentError("block_units", f"must divide the {units} units, got {block_units}")
    if not (trials > 0 and trials % units == 0):
        raise ArgumentError("trials", f"must be a multiple of the {units} units, got {trials}")
    bits = trials // units
    if not 0 <= unit_errors <= min(units, errors) <= errors <= bits * unit_errors:
        raise ArgumentError("unit_errors", f"must fit {errors} errors in {units} units of {bits}, got {unit_errors}")
    if not errors * errors <= squares * unit_errors <= errors * bits * unit_errors:
        raise ArgumentError("squares", f"must fit {errors} errors in {unit_errors} units of {bits}, got {squares}")
    if target is not None and target < 1:
        raise ArgumentError("target", f"must be at least 1, got {target}")
    _check_confidence(confidence)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", f"must be in (0, 1), got {confidence:g}")
