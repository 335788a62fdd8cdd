"""How many behaviours there are: known weights, limits of q, and what is drawn."""

import numpy as np
import pytest
from scipy.special import digamma

from link.errors import ArgumentError
from link.hdp_number import corpus_number, recording_number

CERTAIN = 1e9


def sticks_of(weights, certainty=CERTAIN):
    """Sticks that give these weights, all but certainly."""
    left = 1.0 - np.cumsum(weights) + weights
    shares = (np.asarray(weights) / left)[:-1]
    return np.stack([shares, 1.0 - shares], axis=-1) * certainty + 1e-9


@pytest.mark.parametrize("weights", [[0.25] * 4, [0.7, 0.2, 0.05, 0.05], [0.05, 0.05, 0.2, 0.7]])
def test_certain_sticks_have_the_number_of_their_weights(weights):
    perplexity, covering = corpus_number(sticks_of(weights), 200)
    expected = np.exp(-np.sum(weights * np.log(weights)))
    # A share of deviation 0.5 / sqrt(1e9) = 2e-5 moves the entropy by less than its 4 sigma times ln(1 / 0.05) = 3.
    np.testing.assert_allclose(perplexity, expected, rtol=2.4e-4)
    needed = 1 + np.sum(np.cumsum(np.sort(weights)[::-1]) < 0.95 - 1e-4)
    assert covering.low >= needed
    assert covering.high <= needed + 1  # 0.7 + 0.2 + 0.05 is 0.95 to within q


def test_a_recordings_mean_entropy_is_that_of_a_dirichlet():
    a = np.array([3.0, 2.0, 0.5, 0.01])
    perplexity, _ = recording_number(a, 20_000, seed=1)
    mean_entropy = digamma(a.sum() + 1.0) - np.sum(a / a.sum() * digamma(a + 1.0))
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(a, 20_000)
    values = np.exp(-np.sum(weights * np.log(np.maximum(weights, 1e-300)), axis=-1))
    # Two means of 20,000 draws each: 4 sigma of their difference.
    assert perplexity.mean == pytest.approx(values.mean(), abs=4.0 * values.std() * np.sqrt(2.0 / 20_000))
    assert perplexity.mean >= np.exp(mean_entropy) - 0.01  # Jensen
    # 500 draws lie beyond each end; their number has a deviation of 22, and the density there is above 0.05.
    np.testing.assert_allclose(perplexity[1:], np.quantile(values, [0.025, 0.975]), atol=0.05)


def test_the_interval_narrows_as_sticks_become_certain():
    widths = []
    for certainty in (10.0, 1000.0):
        perplexity, _ = corpus_number(sticks_of([0.4, 0.3, 0.2, 0.1], certainty))
        assert perplexity.low < perplexity.mean < perplexity.high
        widths.append(perplexity.high - perplexity.low)
    # The deviation of a Beta goes as 1 / sqrt(certainty); skewness at 10 leaves it within a factor of 2.
    assert 5.0 < widths[0] / widths[1] < 20.0


def test_the_number_is_between_one_and_the_truncation():
    few, many = corpus_number(np.full((6, 2), [1e6, 1e-3])), corpus_number(np.ones((6, 2)))
    np.testing.assert_allclose(few.perplexity, 1.0, atol=1e-6)
    assert few.covering == (1.0, 1.0, 1.0)
    assert 1.0 < many.perplexity.low < many.perplexity.high <= 7.0


def test_a_seed_draws_the_same_and_another_does_not():
    sticks = np.ones((4, 2))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert corpus_number(sticks, seed=3) == corpus_number(sticks, seed=3)
    assert corpus_number(sticks, seed=3) != corpus_number(sticks, seed=4)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corpus_number([1.0, 2.0]), r"^sticks must be pairs above 0, got shape \(2,\)$"),
        (lambda: corpus_number([[1.0, 0.0]]), r"^sticks must be pairs above 0, got shape \(1, 2\)$"),
        (lambda: corpus_number([[1.0, np.nan]]), r"^sticks must be pairs above 0, got shape \(1, 2\)$"),
        (lambda: corpus_number([[1.0, 1.0]], 1), r"^draws must be at least 2, got 1$"),
        (
            lambda: recording_number([1.0]),
            r"^concentrations must be a row of 2 or more numbers above 0, got shape \(1,\)$",
        ),
        (
            lambda: recording_number([1.0, -1.0]),
            r"^concentrations must be a row of 2 or more numbers above 0, got shape \(2,\)$",
        ),
    ],
)
def test_what_is_no_posterior_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
