"""The sequential test: its errors and its power by simulation, its intervals by their definition.

Simulations draw the counts of whole draws directly: 360 samples in groups that share their probabilities, so that one
multinomial a group is exact. Their bounds are binomial quantiles at 1e-4 a side; the seeds are fixed.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from link.errors import ArgumentError
from link.sequential import (
    Counts,
    DifferenceTest,
    Verdict,
    combine,
    confidence_interval,
    log_evidence_above,
    log_evidence_below,
)

MARGIN = 0.01
ALPHA = 0.05
DISCORDANCE = 0.02
DRAWS = 200

# (samples, relative probability of a discordant decision). Most samples of a trained codec are never close to a boundary, a
# few nearly always are; equal samples are the worst case for the error of the test, where the inequality of means is tight.
TYPICAL = ((300, 0.0), (40, 1.0), (15, 4.0), (5, 12.0))
EQUAL = ((360, 1.0),)

counts = st.integers(min_value=0, max_value=10**6)
means = st.floats(min_value=-0.99, max_value=0.99)


def simulate(seed, runs, delta, groups=TYPICAL, discordance=DISCORDANCE):
    """Running counts at the end of each draw, each (runs, DRAWS), when acc_soft - acc_hard = delta."""
    rng = np.random.default_rng(seed)
    samples = sum(size for size, _ in groups)
    unit = samples / sum(size * weight for size, weight in groups)
    totals = np.zeros((runs, DRAWS, 3), dtype=np.int64)
    for size, weight in groups:
        plus, minus = ((discordance + sign * delta) / 2 * unit * weight for sign in (1, -1))
        totals += rng.multinomial(size, [plus, 1 - plus - minus, minus], size=(runs, DRAWS))
    return Counts(*np.moveaxis(totals.cumsum(axis=1), -1, 0))


def ever(log_evidence, alpha):
    """Runs in which the evidence reaches 1 / alpha at some draw."""
    return (log_evidence >= math.log(1 / alpha)).any(axis=1)


@pytest.mark.parametrize("groups", [TYPICAL, EQUAL])
def test_half_the_margin_is_found_equivalent_in_nine_runs_of_ten(groups):
    history = simulate(1, 1000, MARGIN / 2, groups)
    assert ever(log_evidence_below(history, MARGIN), ALPHA).mean() >= 0.9


@pytest.mark.parametrize("groups", [TYPICAL, EQUAL])
def test_one_and_a_half_margins_are_found_different_in_nine_runs_of_ten_even_among_nine_points(groups):
    history = simulate(2, 1000, 1.5 * MARGIN, groups)
    different = ever(log_evidence_above(history, MARGIN), ALPHA / 9)
    passed = ever(log_evidence_below(history, MARGIN), ALPHA)
    assert (different & ~passed).mean() >= 0.9


@pytest.mark.parametrize(
    ("groups", "discordance"), [(TYPICAL, 0.012), (TYPICAL, 0.02), (EQUAL, 0.012), (EQUAL, 0.02), (EQUAL, 0.2)]
)
def test_exactly_the_margin_passes_in_one_run_of_twenty_at_most(groups, discordance):
    runs = 3000
    history = simulate(3, runs, MARGIN, groups, discordance)
    allowed = binom.ppf(1 - 1e-4, runs, ALPHA)
    assert ever(log_evidence_below(history, MARGIN), ALPHA).sum() <= allowed
    assert ever(log_evidence_above(history, MARGIN), ALPHA).sum() <= allowed


def test_a_test_for_one_look_would_fail_that_check():
    # The check above has teeth: a z-test at the same level, looked at after each draw, errs several times as often.
    runs = 3000
    history = simulate(3, runs, MARGIN, EQUAL)
    n = sum(history)
    mean = (history.plus - history.minus) / n
    deviation = np.sqrt(((history.plus + history.minus) / n - mean**2) / n)
    passed = (mean + 1.645 * deviation < MARGIN).any(axis=1).sum()
    assert passed > 2 * binom.ppf(1 - 1e-4, runs, ALPHA)


def test_the_error_bound_is_not_vacuous():
    # A test that never rejects keeps any level. This one spends a fair part of it when samples are equal.
    history = simulate(4, 3000, MARGIN, EQUAL)
    assert ever(log_evidence_below(history, MARGIN), ALPHA).mean() > 0.01


@pytest.mark.parametrize("groups", [TYPICAL, EQUAL])
@pytest.mark.parametrize("delta", [0.0, 0.004, -0.015])
def test_intervals_of_all_draws_together_hold_the_difference_in_19_runs_of_20(groups, delta):
    # An interval holds what neither side rejects at alpha / 2 (the property test below), which is cheaper to ask.
    runs = 1500
    history = simulate(5, runs, delta, groups)
    missed = ever(log_evidence_above(history, delta), ALPHA / 2) | ever(log_evidence_below(history, delta), ALPHA / 2)
    assert missed.sum() <= binom.ppf(1 - 1e-4, runs, ALPHA)


def test_intervals_computed_draw_by_draw_hold_the_difference():
    runs = 40
    low, high = confidence_interval(simulate(8, runs, 0.004), ALPHA)
    held = ((low <= 0.004) & (high >= 0.004)).all(axis=1)
    assert (~held).sum() <= binom.ppf(1 - 1e-4, runs, ALPHA)


def test_the_interval_at_the_last_draw_is_near_the_width_of_one_look():
    history = simulate(6, 200, 0.004)
    low, high = confidence_interval(Counts(*(count[:, -1] for count in history)), ALPHA)
    one_look = 1.96 * math.sqrt(DISCORDANCE / (360 * DRAWS))
    assert 1.0 < np.median(high - low) / 2 / one_look < 2.2


@given(counts, counts, counts, means)
def test_an_interval_holds_exactly_what_neither_side_rejects(plus, zero, minus, m):
    seen = Counts(plus, zero, minus)
    low, high = confidence_interval(seen, ALPHA)
    threshold = math.log(2 / ALPHA)
    if abs(m - low) > 1e-9:
        assert (m > low) == (log_evidence_above(seen, m) < threshold)
    if abs(m - high) > 1e-9:
        assert (m < high) == (log_evidence_below(seen, m) < threshold)


@given(counts, counts, counts, means)
def test_the_two_sides_are_mirror_images(plus, zero, minus, m):
    mirrored = log_evidence_above(Counts(minus, zero, plus), -m)
    assert log_evidence_below(Counts(plus, zero, minus), m) == mirrored


@given(counts, counts, counts)
def test_evidence_is_finite_and_falls_as_the_claim_grows(plus, zero, minus):
    grid = np.linspace(-0.999, 1.0, 200)
    evidence = log_evidence_above(Counts(plus, zero, minus), grid)
    assert np.isfinite(evidence).all()
    assert (np.diff(evidence) <= 1e-9 * (1 + np.abs(evidence[1:]))).all()


def test_expected_capital_of_one_draw_is_at_most_one_under_the_null_by_enumeration():
    # Four samples of unequal means whose average is m: all 81 outcomes, no simulation.
    m = 0.1
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 1.0, 0.0], [0.1, 0.6, 0.3]])  # P(X = 1, 0, -1)
    assert (probabilities[:, 0] - probabilities[:, 2]).mean() == pytest.approx(m)
    expected = 0.0
    for outcome in itertools.product(range(3), repeat=4):
        chance = np.prod(probabilities[range(4), outcome])
        seen = Counts(*(outcome.count(value) for value in range(3)))
        expected += chance * math.exp(log_evidence_above(seen, m))
    assert 0.5 < expected <= 1.0


def test_evidence_of_one_observation_is_the_mean_of_its_bets():
    m = 0.25
    bets = np.geomspace(2.0**-10, 0.95, 16) / (1 + m)
    for x, seen in ((1, Counts(1, 0, 0)), (0, Counts(0, 1, 0)), (-1, Counts(0, 0, 1))):
        assert math.exp(log_evidence_above(seen, m)) == pytest.approx(np.mean(1 + bets * (x - m)), rel=1e-12)


def test_nothing_seen_is_no_evidence():
    assert log_evidence_above(Counts(0, 0, 0), 0.0) == pytest.approx(0.0, abs=1e-12)
    assert confidence_interval(Counts(0, 0, 0), ALPHA) == (-1.0, 1.0)


def test_paths_that_always_agree_are_equivalent_after_two_draws_of_360():
    test = DifferenceTest(MARGIN, ALPHA)
    for _ in range(2):
        test.update(np.ones(360, dtype=bool), np.ones(360, dtype=bool))
    assert test.settled
    assert (test.verdict, test.two_sided) == (Verdict.EQUIVALENT, Verdict.EQUIVALENT)


def test_a_hard_path_that_is_better_is_not_worse_but_not_the_same():
    test = DifferenceTest(MARGIN, ALPHA)
    hard = np.ones(360, dtype=bool)
    soft = np.arange(360) >= 36
    while not test.settled:
        test.update(soft, hard)
    assert (test.verdict, test.two_sided) == (Verdict.EQUIVALENT, Verdict.DIFFERENT)


def test_a_hard_path_that_is_worse_is_different():
    test = DifferenceTest(MARGIN, ALPHA, num_points=9)
    while not test.settled:
        test.update(np.ones(360, dtype=bool), np.arange(360) >= 36)
    assert (test.verdict, test.two_sided) == (Verdict.DIFFERENT, Verdict.DIFFERENT)
    assert test.interval().low > MARGIN


def test_the_class_counts_draws_as_the_functions_do():
    rng = np.random.default_rng(7)
    soft, hard = rng.random((5, 360)) < 0.97, rng.random((5, 360)) < 0.96
    test = DifferenceTest(MARGIN, ALPHA)
    for row in range(5):
        test.update(soft[row], hard[row])
    assert test.counts == ((soft & ~hard).sum(), (soft == hard).sum(), (hard & ~soft).sum())
    assert test.draws == 5
    assert test.interval() == confidence_interval(test.counts, ALPHA)


@pytest.mark.parametrize("num_points", [1, 9])
@pytest.mark.parametrize("errors", [(8, 0), (5, 0), (3, 1), (0, 0), (4, 4), (1, 3), (0, 5), (0, 8)])
def test_verdicts_fall_when_their_thresholds_are_passed(num_points, errors):
    # `errors` of the hard and of the soft path in each draw, of 360.
    hard, soft = np.arange(360) >= errors[0], np.arange(360) < 360 - errors[1]
    test = DifferenceTest(MARGIN, ALPHA, num_points)
    verdict = two_sided = Verdict.UNDECIDED
    for _ in range(60):
        test.update(soft, hard)
        not_worse, not_better = log_evidence_below(test.counts, MARGIN), log_evidence_above(test.counts, -MARGIN)
        worse, better = log_evidence_above(test.counts, MARGIN), log_evidence_below(test.counts, -MARGIN)
        if verdict is Verdict.UNDECIDED:
            if worse >= math.log(num_points / ALPHA):
                verdict = Verdict.DIFFERENT
            elif not_worse >= math.log(1 / ALPHA):
                verdict = Verdict.EQUIVALENT
        if two_sided is Verdict.UNDECIDED:
            if max(worse, better) >= math.log(2 * num_points / ALPHA):
                two_sided = Verdict.DIFFERENT
            elif min(not_worse, not_better) >= math.log(1 / ALPHA):
                two_sided = Verdict.EQUIVALENT
        assert (test.verdict, test.two_sided) == (verdict, two_sided)
    assert verdict is not Verdict.UNDECIDED


def test_a_decision_stays_when_later_draws_speak_against_it():
    test = DifferenceTest(MARGIN, ALPHA)
    agree = np.ones(360, dtype=bool)
    for _ in range(2):
        test.update(agree, agree)
    for _ in range(20):
        test.update(agree, ~agree)
    assert test.verdict is Verdict.EQUIVALENT


def test_draws_of_other_samples_are_refused():
    test = DifferenceTest(MARGIN)
    test.update(np.ones(4, dtype=bool), np.ones(4, dtype=bool))
    with pytest.raises(ArgumentError, match=r"must be \(4,\) like each draw before it, got \(3,\)"):
        test.update(np.ones(3, dtype=bool), np.ones(3, dtype=bool))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("ee", Verdict.EQUIVALENT),
        ("eu", Verdict.UNDECIDED),
        ("ed", Verdict.DIFFERENT),
        ("ud", Verdict.DIFFERENT),
        ("", Verdict.UNDECIDED),
    ],
)
def test_every_point_must_be_equivalent_and_one_suffices_to_differ(verdicts, expected):
    by_letter = {verdict.value[0]: verdict for verdict in Verdict}
    assert combine([by_letter[letter] for letter in verdicts]) is expected


# Samples of 1 to 6 positions, which share the noise of their sample: all of them are discordant, or none is.
JUDGED = np.arange(6) < np.arange(360)[:, None] % 6 + 1


def positions(rng, delta, discordance=0.05):
    """One draw in which soft is ahead by `delta` of the positions: whole samples are right on one path alone."""
    plus, minus = ((discordance + sign * delta) / 2 for sign in (1, -1))
    ahead = rng.choice([1, 0, -1], p=[plus, 1 - plus - minus, minus], size=(len(JUDGED), 1))
    return np.broadcast_to(ahead >= 0, JUDGED.shape), np.broadcast_to(ahead <= 0, JUDGED.shape)


def test_positions_that_share_their_noise_are_found_worse_by_the_margin_no_more_often_than_promised():
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        test = DifferenceTest(0.05, ALPHA, judged=JUDGED)
        for _ in range(20):
            test.update(*positions(rng, 0.05))
        wrong += test.verdict is Verdict.EQUIVALENT
    assert wrong <= binom.isf(1e-4, 300, ALPHA)


def test_a_difference_in_positions_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(1)
    test = DifferenceTest(0.01, ALPHA, judged=JUDGED)
    draws = [positions(rng, 0.03) for _ in range(100)]
    for soft, hard in draws:
        test.update(soft, hard)
    low, high = test.interval()
    assert test.verdict is Verdict.DIFFERENT
    assert 0.01 < low < 0.03 < high < 0.06
    soft, hard = (np.concatenate([draw[side][JUDGED] for draw in draws]) for side in (0, 1))
    assert test.counts == ((soft & ~hard).sum(), (soft == hard).sum(), (hard & ~soft).sum())


def test_positions_that_are_not_judged_say_nothing():
    test = DifferenceTest(0.01, ALPHA, judged=JUDGED)
    test.update(np.ones_like(JUDGED), JUDGED)
    assert test.counts == (0, JUDGED.sum(), 0)


def test_with_one_position_each_the_test_is_that_of_decisions():
    rng = np.random.default_rng(4)
    one, plain = DifferenceTest(MARGIN, ALPHA, judged=np.ones((360, 1), dtype=bool)), DifferenceTest(MARGIN, ALPHA)
    for _ in range(20):
        soft, hard = rng.random(360) < 0.9, rng.random(360) < 0.9
        one.update(soft[:, None], hard[:, None])
        plain.update(soft, hard)
    assert one.interval() == plain.interval()
    assert (one.verdict, one.counts) == (plain.verdict, plain.counts)


def test_positions_of_the_wrong_shape_are_refused():
    with pytest.raises(ArgumentError, match="judged must hold a position that is judged"):
        DifferenceTest(0.01, judged=np.zeros((2, 3), dtype=bool))
    test = DifferenceTest(0.01, judged=np.ones((2, 3), dtype=bool))
    with pytest.raises(ArgumentError, match=r"must be \(2, 3\)"):
        test.update(np.ones(2, dtype=bool), np.ones(2, dtype=bool))
