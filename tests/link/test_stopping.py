"""Intervals under a stopping rule, against enumeration of every outcome and against simulated sweeps."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator, Philox
from scipy.special import gammaincinv, ndtr, ndtri
from scipy.stats import beta, binom, binomtest

from link.bits import label_bits
from link.constellation import bits_per_symbol, points
from link.errors import ArgumentError
from link.montecarlo import wilson
from link.stopping import Tally, effective_errors, error_rate, errors_for_width, unit_error_rate, unit_target
from link.theory import ber_awgn, ber_rayleigh

SWEEPS = 1000
# What an interval that covers in 0.95 of all sweeps falls below with probability 1e-4.
ENOUGH = binom.ppf(1e-4, SWEEPS, 0.95)


def single_trials(units, errors):
    """Units of one bit."""
    return Tally(units, errors, units, errors, errors)


def outcomes(p, block, target, blocks):
    """Probability of each (block it ends with, errors by then), sorted from high to low, by going through all of them."""
    step = binom.pmf(np.arange(block + 1), block, p)
    running, found = np.array([1.0]), {}
    for number in range(1, blocks + 1):
        after = np.convolve(running, step)
        ends = range(target, len(after)) if number < blocks else range(len(after))
        found.update({(number, errors): after[errors] for errors in ends})
        running = after[:target]
    return sorted(found.items(), key=lambda outcome: (outcome[0][0], -outcome[0][1]))


@pytest.mark.parametrize(("block", "target", "blocks"), [(1, 3, 40), (2, 1, 12), (3, 4, 15), (5, 3, 6), (8, 20, 4)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_ends_leave_half_the_error_probability_on_each_side_of_an_outcome(block, target, blocks, confidence):
    miss = 0.5 - 0.5 * confidence
    ordered = [outcome for outcome, _ in outcomes(0.5, block, target, blocks)]
    for place, (number, errors) in enumerate(ordered):
        interval = unit_error_rate(single_trials(number * block, errors), block, target, confidence)
        if errors:
            tail = sum(chance for _, chance in outcomes(interval.low, block, target, blocks)[: place + 1])
            assert tail == pytest.approx(miss, rel=1e-9) or interval.low == interval.value
        if errors < number * block and interval.high > interval.value:
            tail = sum(chance for _, chance in outcomes(interval.high, block, target, blocks)[place:])
            assert tail == pytest.approx(miss, rel=1e-9)
        assert interval.low <= interval.value == errors / (number * block) <= interval.high


@pytest.mark.parametrize(("block", "target", "blocks"), [(1, 1, 60), (1, 3, 60), (4, 2, 30), (4, 10, 8), (10, 5, 3)])
def test_no_probability_is_covered_less_often_than_promised(block, target, blocks):
    intervals = {
        outcome: unit_error_rate(single_trials(outcome[0] * block, outcome[1]), block, target)
        for outcome, _ in outcomes(0.5, block, target, blocks)
    }
    for p in np.concatenate([np.geomspace(0.002, 0.3, 40), np.linspace(0.31, 0.99, 20)]):
        found = outcomes(p, block, target, blocks)
        assert sum(chance for _, chance in found) == pytest.approx(1.0, abs=1e-12)
        assert sum(chance for at, chance in found if intervals[at].low <= p <= intervals[at].high) >= 0.95


def test_an_interval_that_ignores_the_rule_lies_too_high_too_often():
    """The check can fail: Clopper and Pearson's lower end, at 0.975 one-sided, and the one of here."""
    block, target, p = 20, 10, 0.268

    def too_high(lower_end):
        return sum(chance for outcome, chance in outcomes(p, block, target, 20) if lower_end(*outcome) > p)

    assert too_high(lambda number, errors: beta.ppf(0.025, errors, number * block - errors + 1)) > 0.035
    assert (
        too_high(lambda number, errors: unit_error_rate(single_trials(number * block, errors), block, 10).low) <= 0.025
    )


@pytest.mark.parametrize(("units", "errors"), [(10, 0), (10, 1), (10, 10), (1000, 7), (1000, 999), (200_000, 150)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 1.0 - 1e-9])
def test_a_fixed_number_of_units_has_the_interval_of_clopper_and_pearson(units, errors, confidence):
    low, high = binomtest(errors, units).proportion_ci(confidence, method="exact")
    tally = single_trials(units, errors)
    for target, block in ((None, 1), (None, units), (1, units), (errors + 1, 1)):
        interval = unit_error_rate(tally, block, target, confidence)
        assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-8)


@pytest.mark.parametrize(("units", "target"), [(30, 1), (57, 10), (5000, 10), (10**7, 300)])
def test_single_units_have_the_interval_of_inverse_binomial_sampling(units, target):
    interval = unit_error_rate(single_trials(units, target), 1, target)
    # To end with unit n is to have r errors by n, and fewer by n - 1.
    expected = beta.ppf(0.025, target, units - target + 1), beta.ppf(0.975, target, units - target)
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("units", [10**9, 10**13])
@pytest.mark.parametrize("errors", [1, 10, 200, 10**4, 10**6])
def test_long_sweeps_have_the_interval_of_a_poisson_count(units, errors):
    def bounds(low_errors, high_errors):
        return gammaincinv(low_errors, 0.025) / units, gammaincinv(high_errors, 0.975) / units

    # The variance of a binomial count is below that of a Poisson count by a share p.
    tolerance = max(1e-9, 2.0 * errors / units)
    fixed = unit_error_rate(single_trials(units, errors), units, None)
    assert (fixed.low, fixed.high) == pytest.approx(bounds(errors, errors + 1), rel=tolerance)
    fine = unit_error_rate(single_trials(units, errors), 1, errors)
    assert (fine.low, fine.high) == pytest.approx(bounds(errors, errors), rel=tolerance)
    for share in (10**3, 10):
        coarse = unit_error_rate(single_trials(units, errors), units // share, errors)
        assert fine.low == pytest.approx(coarse.low, rel=tolerance)
        assert fine.high * (1.0 - tolerance) <= coarse.high <= fixed.high * (1.0 + tolerance)


@pytest.mark.parametrize("units", [40, 20_000, 10**6, 10**8, 10**13])
@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-3, 0.3, 0.5])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 1.0 - 1e-9])
def test_a_rate_and_its_complement_have_mirrored_intervals(units, share, confidence):
    errors = math.floor(share * units) + 1
    interval = unit_error_rate(single_trials(units, errors), units, None, confidence)
    mirrored = unit_error_rate(single_trials(units, units - errors), units, None, confidence)
    # Rates near 1 are rounded to 2^-53.
    assert (1.0 - mirrored.high, 1.0 - mirrored.low) == pytest.approx(
        (interval.low, interval.high), rel=1e-8, abs=2e-16
    )
    if errors > 10**6:
        half = ndtri(0.5 + 0.5 * confidence) * math.sqrt(share * (1.0 - share) / units)
        assert interval.high - interval.low == pytest.approx(2.0 * half, rel=2e-3)


def test_no_error_is_bounded_by_the_rule_of_three():
    interval = unit_error_rate(single_trials(10**13, 0), 10**9, 100)
    assert interval.low == interval.value == 0.0
    assert interval.high == pytest.approx(-math.log(0.025) / 10**13, rel=1e-9)


@pytest.mark.parametrize("errors", [3, 31, 39])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 1.0 - 1e-9])
def test_a_target_that_the_blocks_before_must_have_passed_is_raised(errors, confidence):
    tally = single_trials(40, errors)
    assert unit_error_rate(tally, 1, 1, confidence) == unit_error_rate(tally, 1, errors, confidence)
    assert unit_error_rate(tally, 2, 1, confidence) == unit_error_rate(tally, 2, errors - 1, confidence)


@pytest.mark.parametrize(("units", "errors", "block", "target"), [(2 * 10**6, 50, 10**6, 1), (24_740, 351, 1237, 30)])
def test_a_last_block_that_no_probability_explains_stretches_the_interval_to_the_value(units, errors, block, target):
    interval = unit_error_rate(single_trials(units, errors), block, target)
    # All there is to go by is that the blocks before nearly ended the point.
    assert interval.low == pytest.approx(beta.ppf(0.025, target, units - block - target + 1), rel=1e-6)
    assert beta.ppf(0.975, target, units - block - target + 1) < interval.high == interval.value == errors / units


def awgn_marks(order, esn0_db):
    """Law of a symbol's wrong bits over AWGN, (m + 1,), by the decision regions of one dimension."""
    bits = label_bits(np.arange(order), bits_per_symbol(order))
    row = (bits[:, 1::2] == 0).all(axis=1)
    rising = np.argsort(points(order)[row, 0])
    levels, labels = points(order)[row, 0][rising], bits[row, 0::2][rising]
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2.0, [np.inf]])
    z = (edges[:, None] - levels) / math.sqrt(0.5 * 10.0 ** (-esn0_db / 10.0))
    regions = np.where(z[:-1] > 0, ndtr(-z[:-1]) - ndtr(-z[1:]), ndtr(z[1:]) - ndtr(z[:-1]))
    wrong = (labels[:, None, :] != labels[None, :, :]).sum(axis=-1)
    of_dimension = np.bincount(wrong.ravel(), regions.ravel()) / len(levels)
    return np.convolve(of_dimension, of_dimension)


def fading_marks(bits, esn0_db):
    """Law of the wrong bits of a QPSK frame that shares one Rayleigh gain, (bits + 1,)."""
    nodes, weights = np.polynomial.legendre.leggauss(300)
    log_gain = -11.0 + 14.5 * nodes
    gain = np.exp(log_gain)
    rate = ndtr(-np.sqrt(gain * 10.0 ** (esn0_db / 10.0)))
    law = binom.pmf(np.arange(bits + 1)[:, None], bits, rate) @ (14.5 * weights * gain * np.exp(-gain))
    law[0] += 1.0 - law.sum()  # deeper fades than exp(-25.5) and higher gains than exp(3.5)
    return law


LAWS = {
    "QPSK, 0 dB": awgn_marks(4, 0.0),
    "QPSK, 10 dB": awgn_marks(4, 10.0),
    "64-QAM, 5 dB": awgn_marks(64, 5.0),
    "64-QAM, 20 dB": awgn_marks(64, 20.0),
    "fading, 128 bits, 10 dB": fading_marks(128, 10.0),
    "fading, 1024 bits, 30 dB": fading_marks(1024, 30.0),
}


def test_the_laws_have_the_error_rates_of_theory():
    def rate(name):
        return LAWS[name] @ np.arange(len(LAWS[name])) / (len(LAWS[name]) - 1)

    assert rate("QPSK, 10 dB") == pytest.approx(float(ber_awgn(4, 10.0)), rel=1e-12)
    assert rate("64-QAM, 5 dB") == pytest.approx(float(ber_awgn(64, 5.0)), rel=1e-12)
    assert rate("fading, 128 bits, 10 dB") == pytest.approx(float(ber_rayleigh(4, 10.0)), rel=1e-8)
    assert rate("fading, 1024 bits, 30 dB") == pytest.approx(float(ber_rayleigh(4, 30.0)), rel=1e-8)


def simulate(law, block, blocks, enough, seed):
    """Tallies of SWEEPS points of at most `blocks` blocks, each ended by enough(unit errors, effective errors)."""
    generator = Generator(Philox(seed))
    failed = generator.binomial(block, 1.0 - law[0], (SWEEPS, blocks))
    marks = 1.0 + np.searchsorted(np.cumsum(law[1:] / law[1:].sum())[:-1], generator.random(failed.sum()))
    of_block = np.repeat(np.arange(failed.size), failed.ravel())
    errors = np.bincount(of_block, marks, failed.size).reshape(failed.shape).cumsum(axis=1)
    squares = np.bincount(of_block, marks * marks, failed.size).reshape(failed.shape).cumsum(axis=1)
    failed = failed.cumsum(axis=1)
    ended = enough(failed, errors**2 / np.maximum(squares, 1.0))
    assert ended[:, -1].all()
    units = (1 + ended.argmax(axis=1)) * block
    counts = (count[ended & (ended.cumsum(axis=1) == 1)] for count in (failed, errors, squares))
    columns = (column.astype(int).tolist() for column in (units, *counts))
    return [Tally(n, k, n * (len(law) - 1), wrong, squared) for n, k, wrong, squared in zip(*columns, strict=True)]


def covered(intervals, truth):
    return sum(interval.low <= truth <= interval.high for interval in intervals)


WIDTH = 0.5
RULES = {"10": 10, "50": 50, "200": 200, "rel-width": None}


@pytest.mark.parametrize(
    ("name", "rules", "blocks"),
    [
        ("QPSK, 0 dB", ("10", "50"), 8.0),
        ("QPSK, 10 dB", ("10", "50", "200", "rel-width"), 8.0),
        ("QPSK, 10 dB", ("10",), 0.2),
        ("64-QAM, 5 dB", ("10", "200"), 3.0),
        ("64-QAM, 20 dB", ("50", "rel-width"), 8.0),
        ("fading, 128 bits, 10 dB", ("10", "50", "200", "rel-width"), 8.0),
        ("fading, 128 bits, 10 dB", ("50",), 0.3),
        ("fading, 1024 bits, 30 dB", ("10", "50", "rel-width"), 8.0),
    ],
)
def test_the_bit_error_rate_is_covered_as_often_as_promised(name, rules, blocks):
    """With as many blocks on average as `blocks`; below 1, the first one is enough."""
    law = LAWS[name]
    wrong = np.arange(len(law))
    truth, spread = law @ wrong / wrong[-1], (law @ wrong**2) * (1.0 - law[0]) / (law @ wrong) ** 2
    effective = errors_for_width(WIDTH)
    for rule in rules:
        target = RULES[rule]
        block = max(1, round((target or effective * spread) / (1.0 - law[0]) / blocks))
        enough = (lambda k, e: e >= effective) if target is None else (lambda k, e, target=target: k >= target)
        tallies = simulate(law, block, 2 + math.ceil(3.0 * blocks), enough, seed=17)
        cached = functools.cache(
            lambda tally, block=block, target=target: error_rate(tally, block, target or unit_target(tally, effective))
        )
        assert covered(map(cached, tallies), truth) >= ENOUGH, rule


def test_a_binomial_interval_over_all_bits_does_not_cover():
    """The check can fail: this is what marks are there for."""
    law = LAWS["fading, 128 bits, 10 dB"]
    tallies = simulate(law, 10, 30, lambda k, e: k >= 50, seed=17)
    naive = [wilson(tally.errors / tally.trials, tally.trials) for tally in tallies]
    assert covered(naive, law @ np.arange(129) / 128) < binom.ppf(1e-4, SWEEPS, 0.5)


@given(units=st.integers(1, 50), bits=st.integers(1, 20), data=st.data())
def test_the_interval_holds_the_value_within_that_of_units(units, bits, data):
    marks = data.draw(st.lists(st.integers(0, bits), min_size=units, max_size=units))
    tally = Tally(units, sum(map(bool, marks)), units * bits, sum(marks), sum(mark * mark for mark in marks))
    target = data.draw(st.one_of(st.none(), st.integers(1, units)))
    unit, interval = (rate(tally, 1, target) for rate in (unit_error_rate, error_rate))
    assert (
        unit.low / bits * (1.0 - 1e-12) <= interval.low <= interval.value <= interval.high <= unit.high * (1.0 + 1e-12)
    )
    assert interval.value == tally.errors / tally.trials
    if bits == 1 or not tally.errors:
        assert interval == unit
    if len({mark for mark in marks if mark}) == 1 < tally.unit_errors:
        scale = interval.value / unit.value
        assert (interval.low, interval.high) == pytest.approx(
            (unit.low * scale, min(1.0, unit.high * scale)), rel=1e-12
        )


def test_one_unit_in_error_tells_nothing_of_how_bits_fail_together():
    tally = Tally(1000, 1, 100_000, 7, 49)
    unit, interval = unit_error_rate(tally, 1000, None), error_rate(tally, 1000, None)
    mean = math.log(7.0), math.log(100 / 7.0)
    ends = math.log(unit.value / unit.low), math.log(unit.high / unit.value)
    assert math.log(interval.value / interval.low) == pytest.approx(math.hypot(mean[0], ends[0]))
    assert math.log(interval.high / interval.value) == pytest.approx(math.hypot(mean[1], ends[1]))


def test_effective_errors_are_units_in_error_over_one_plus_cv_squared():
    marks = np.array([1, 1, 4, 2, 9, 1])
    tally = Tally(100, 6, 1600, int(marks.sum()), int(marks @ marks))
    assert effective_errors(tally) == pytest.approx(6 / (1 + marks.var() / marks.mean() ** 2))
    assert effective_errors(single_trials(1000, 12)) == 12.0
    assert effective_errors(single_trials(1000, 0)) == 0.0
    assert effective_errors(Tally(100, 1, 1600, 9, 81)) == 1.0


def test_unit_targets_are_whole_and_reached_when_the_effective_ones_are():
    assert unit_target(single_trials(1000, 12), 10) == 10
    assert unit_target(single_trials(1000, 0), 10) == 10
    marks = [1, 1, 4, 2, 9, 1]
    tally = Tally(100, 6, 1600, sum(marks), sum(mark * mark for mark in marks))
    assert effective_errors(tally) == pytest.approx(3.115, abs=1e-3)
    assert unit_target(tally, 3) == 6


@pytest.mark.parametrize("rel_width", [0.02, 0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_so_many_errors_make_the_interval_as_narrow_as_asked_for_whatever_the_rate_and_the_marks(rel_width, confidence):
    wanted = errors_for_width(rel_width, confidence)

    def width(interval):
        return (interval.high - interval.low) / interval.value

    for share in (1e-9, 0.03, 0.4):
        tally = single_trials(math.ceil(wanted / share), wanted)
        assert width(unit_error_rate(tally, tally.units, None, confidence)) <= rel_width
        assert width(unit_error_rate(tally, 1, wanted, confidence)) <= rel_width
    for big in (3, 40, 5000):  # of 11 units in error ten have one wrong bit, and one has many
        errors, squares = 10 + big, 10 + big * big
        times = math.ceil(wanted * squares / errors**2)
        tally = Tally(10**12, 11 * times, 10**16, errors * times, squares * times)
        assert effective_errors(tally) >= wanted
        assert width(error_rate(tally, 10**12, None, confidence)) <= rel_width
    # With h = z / sqrt(r) a Poisson count has logarithmic ends at h -+ h^2 / 6, Student has h (1 + (z^2 + 3) / (4 r)), and
    # exp(h) - exp(-h) = 2 h (1 + h^2 / 6): the wider on each side asks for that much more than a count does.
    z = ndtri(0.5 + 0.5 * confidence)
    fewer = wanted - math.ceil(z**2 + z * math.sqrt(wanted) / 6.0) - 2
    assert fewer < 2 or width(unit_error_rate(single_trials(10**12, fewer), 10**12, None, confidence)) > rel_width


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: unit_error_rate(single_trials(10, 11), 10, None), "unit_errors"),
        (lambda: unit_error_rate(single_trials(10, 1), 3, None), "block_units"),
        (lambda: unit_error_rate(single_trials(10, 1), 0, None), "block_units"),
        (lambda: unit_error_rate(single_trials(10, 1), 10, 0), "target"),
        (lambda: unit_error_rate(single_trials(10, 1), 10, None, 1.0), "confidence"),
        (lambda: error_rate(Tally(10, 1, 15, 1, 1), 10, None), "trials"),
        (lambda: error_rate(Tally(10, 3, 20, 2, 2), 10, None), "unit_errors"),
        (lambda: error_rate(Tally(10, 1, 20, 3, 9), 10, None), "unit_errors"),
        (lambda: error_rate(Tally(10, 2, 20, 3, 4), 10, None), "squares"),
        (lambda: error_rate(Tally(10, 2, 20, 3, 7), 10, None), "squares"),
        (lambda: errors_for_width(0.0), "rel_width"),
        (lambda: errors_for_width(0.1, 0.0), "confidence"),
    ],
)
def test_what_cannot_be_is_refused(call, field):
    with pytest.raises(ArgumentError) as error:
        call()
    assert error.value.field == field


def test_a_width_is_reached_at_any_confidence_below_one():
    # The quantile of 1 - 2^-54 is 8.3 deviations, that of 0.975 is 1.96: some 18 times as many errors.
    ratio = errors_for_width(0.2, 1.0 - 2.0**-53) / errors_for_width(0.2, 0.95)
    assert 15.0 < ratio < 21.0
