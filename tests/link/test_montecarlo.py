import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from link.errors import ArgumentError
from link.montecarlo import clustered_proportion, effective_trials, noise_proportion, wilson

SWEEPS = 1000
FALSE_ALARM = 1e-6
# A method that covers in 0.95 of all sweeps would miss this many of 1,000 with probability FALSE_ALARM.
ENOUGH = binom.ppf(FALSE_ALARM, SWEEPS, 0.95)


def covered(interval_of, truth, seed):
    generator = np.random.default_rng(seed)
    intervals = [interval_of(generator) for _ in range(SWEEPS)]
    return sum(interval.low <= truth <= interval.high for interval in intervals)


def beta_units(generator, a, b, units, draws):
    """Samples that succeed with probabilities of their own: the clusters of a sweep."""
    return generator.binomial(draws, generator.beta(a, b, units)), np.full(units, draws)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 1000), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson_is_that_of_scipy(successes, trials, confidence):
    ours = wilson(successes / trials, trials, confidence)
    theirs = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    # Both subtract numbers near 1 in double precision.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-14)


@given(trials=st.integers(1, 10**9), data=st.data(), confidence=st.floats(0.01, 0.9999))
def test_the_value_lies_in_its_interval_and_that_in_zero_to_one(trials, data, confidence):
    value = data.draw(st.integers(0, trials)) / trials
    interval = wilson(value, trials, confidence)
    assert 0.0 <= interval.low <= value <= interval.high <= 1.0
    assert (interval.low == 0.0) >= (value == 0.0)
    assert (interval.high == 1.0) >= (value == 1.0)


@pytest.mark.parametrize(
    ("a", "b", "units", "draws"),
    [
        (0.2, 0.2, 100, 20),  # nearly all samples always right or always wrong: an accuracy
        (9, 1, 360, 10),
        (2, 2, 4, 50),  # few units: without Student's quantile 873 of 1,000 are covered
        (0.5, 4.5, 50, 64),  # bits that share a fade
        (1e5, 1e5, 50, 20),  # no clustering at all
    ],
)
def test_the_clustered_interval_covers_the_truth_as_often_as_it_says(a, b, units, draws):
    truth = a / (a + b)
    hits = covered(lambda generator: clustered_proportion(*beta_units(generator, a, b, units, draws)), truth, seed=1)
    assert hits >= ENOUGH


def test_units_of_unequal_size_are_covered_too():
    trials = np.repeat([1, 5, 40], 60)
    hits = covered(
        lambda generator: clustered_proportion(generator.binomial(trials, generator.beta(2, 3, len(trials))), trials),
        0.4,
        seed=2,
    )
    assert hits >= ENOUGH


def test_a_binomial_interval_over_clusters_does_not_cover():
    """The check can fail: this is what the clustered interval is there for."""

    def binomial(generator):
        successes, trials = beta_units(generator, 0.2, 0.2, 100, 20)
        return wilson(successes.sum() / trials.sum(), trials.sum())

    assert covered(binomial, 0.5, seed=1) < binom.ppf(FALSE_ALARM, SWEEPS, 0.6)


def test_the_interval_over_noise_covers_at_least_as_often_for_given_samples():
    chances = np.random.default_rng(3).beta(1, 0.5, 50)
    draws = 20
    hits = covered(
        lambda generator: noise_proportion(int(generator.binomial(draws, chances).sum()), 50 * draws),
        chances.mean(),
        seed=4,
    )
    # Unequal chances lower the variance below the binomial one, so it covers more often than a binomial count would.
    narrower = np.mean(chances * (1 - chances)) / (chances.mean() * (1 - chances.mean()))
    assert narrower < 0.7
    assert hits >= binom.ppf(FALSE_ALARM, SWEEPS, 0.975)


def test_effective_trials_lie_between_units_and_trials():
    generator = np.random.default_rng(5)
    for a in (0.01, 0.3, 3.0, 1e6):
        successes, trials = beta_units(generator, a, a, 40, 25)
        assert 40 <= effective_trials(successes, trials) <= 1000
    assert effective_trials([25] * 20 + [0] * 20, [25] * 40) == 40
    assert effective_trials([10] * 40, [25] * 40) == 1000  # as even as counts can be
    assert effective_trials([10] * 39 + [11], [25] * 40) == 1000  # and more even than chance would leave them
    assert effective_trials([0, 0, 0], [1, 1, 10]) == 12**2 / 102  # one large unit counts for little more than one


def test_effective_trials_are_those_of_the_between_unit_variance():
    successes, trials = np.array([3, 7, 5, 9, 6, 2]), np.full(6, 10)
    rates = successes / trials
    p = rates.mean()
    variance = rates.var(ddof=1) / 6
    from scipy.stats import t as student

    ratio = (student.ppf(0.975, 59) / student.ppf(0.975, 5)) ** 2
    assert effective_trials(successes, trials) == pytest.approx(p * (1 - p) / variance * ratio, rel=1e-12)


@pytest.mark.parametrize("count", [0, 50])
def test_none_or_all_successes_count_each_unit_as_one_trial(count):
    interval = clustered_proportion([count] * 30, [50] * 30)
    assert interval == wilson(count / 50, 30)
    assert interval.high - interval.low > 0.1


def test_one_trial_a_unit_is_the_binomial_interval():
    successes = (np.arange(200) % 7 == 0).astype(int)
    assert clustered_proportion(successes, np.ones(200)) == wilson(successes.mean(), 200)


def test_a_single_unit_is_one_trial_and_empty_units_are_passed_over():
    assert clustered_proportion([3], [10]) == wilson(0.3, 1)
    assert clustered_proportion([3, 0, 5], [10, 0, 10]) == clustered_proportion([3, 5], [10, 10])


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: wilson(1.1, 10), "value"),
        (lambda: wilson(0.5, 0), "size"),
        (lambda: wilson(0.5, 10, 1.0), "confidence"),
        (lambda: clustered_proportion([3], [2]), "successes"),
        (lambda: clustered_proportion([-1], [2]), "successes"),
        (lambda: clustered_proportion([1, 1], [2]), "trials"),
        (lambda: clustered_proportion([0], [0]), "trials"),
        (lambda: noise_proportion(0, 0), "trials"),
    ],
)
def test_counts_that_cannot_be_are_refused(call, field):
    with pytest.raises(ArgumentError) as error:
        call()
    assert error.value.field == field
