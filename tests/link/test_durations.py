import numpy as np
import pytest
import torch
from scipy import stats

from link.durations import Durations, categorical, log_mean, negative_binomial, residual
from link.errors import ArgumentError

MEAN, SHAPE = np.array([1.5, 4.0, 25.0]), np.array([0.4, 1.0, 6.0])
HORIZON = 2000
"""Windows behind which the laws below have less than 1e-30."""


def laws():
    logits = np.random.default_rng(0).normal(size=(2, 5))
    logits[0, 2] = -np.inf
    return {
        "negative binomial": negative_binomial(MEAN, SHAPE, 30),
        "cut negative binomial": negative_binomial(MEAN, SHAPE, 30, open_ended=False),
        "categorical": categorical(logits),
        "categorical with a tail": categorical(logits, np.log([0.3, 0.9])),
        "all in the tail": categorical(np.zeros((1, 1)), np.log([0.7])),
    }


def probabilities(durations):
    """P(d = n), n = 1, ..., HORIZON, from the definition of the law."""
    weights, tail = np.exp(durations.table), np.exp(durations.tail)[:, None]
    beyond = weights[:, -1:] * (1.0 - tail) * tail ** np.arange(HORIZON - weights.shape[1] + 1)
    return np.concatenate([weights[:, :-1], beyond], axis=1)


def at_least(p):
    return np.cumsum(p[:, ::-1], axis=1)[:, ::-1]


@pytest.mark.parametrize("law", laws())
def test_a_law_is_normalised_with_its_tail(law):
    np.testing.assert_allclose(probabilities(laws()[law]).sum(axis=1), 1.0, rtol=1e-13)


@pytest.mark.parametrize("law", laws())
@pytest.mark.parametrize("longest", [1, 3, 5, 80])
def test_probabilities_of_a_duration_and_of_longer_ones_are_those_of_the_definition(law, longest):
    durations = laws()[law]
    expected = probabilities(durations)
    np.testing.assert_allclose(np.exp(durations.log_exactly(longest)), expected[:, :longest], rtol=1e-12)
    np.testing.assert_allclose(np.exp(durations.log_at_least(longest)), at_least(expected)[:, :longest], rtol=1e-12)


@pytest.mark.parametrize("law", laws())
def test_what_is_left_of_a_duration_is_its_survival_over_its_mean(law):
    durations = laws()[law]
    expected = probabilities(durations)
    mean = (expected * np.arange(1, HORIZON + 1)).sum(axis=1)
    np.testing.assert_allclose(np.exp(log_mean(durations)), mean, rtol=1e-12)
    left = residual(durations)
    # At the horizon the sums of the definition lack what is behind it.
    found, survival = probabilities(left)[:, :500], at_least(expected)[:, :500]
    np.testing.assert_allclose(found, survival / mean[:, None], rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(np.exp(left.table).sum(axis=1), 1.0, rtol=1e-13)


def test_the_negative_binomial_is_that_of_scipy_where_it_is_not_cut():
    q = (MEAN - 1.0) / (MEAN - 1.0 + SHAPE)
    expected = stats.nbinom.logpmf(np.arange(400), SHAPE[:, None], 1.0 - q[:, None])
    found = negative_binomial(MEAN, SHAPE, 400)
    # What is behind 400 windows is less than 1e-20.
    np.testing.assert_allclose(found.table[:, :-1], expected[:, :-1], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.exp(log_mean(found)), MEAN, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found.tail), q)


def test_a_cut_negative_binomial_is_the_truncated_one():
    q = (MEAN - 1.0) / (MEAN - 1.0 + SHAPE)
    expected = stats.nbinom.pmf(np.arange(7), SHAPE[:, None], 1.0 - q[:, None])
    found = negative_binomial(MEAN, SHAPE, 7, open_ended=False)
    np.testing.assert_allclose(np.exp(found.table), expected / expected.sum(axis=1, keepdims=True), rtol=1e-12)
    assert (found.tail == -np.inf).all()


@pytest.mark.parametrize("longest", [1, 2, 9])
def test_a_negative_binomial_of_shape_1_is_geometric_wherever_its_table_ends(longest):
    found = negative_binomial(np.array([4.0]), np.array([1.0]), longest).log_exactly(40)[0]
    np.testing.assert_allclose(np.exp(found), 0.25 * 0.75 ** np.arange(40), rtol=1e-12)


def test_small_probabilities_of_the_tail_survive_float32():
    narrow = negative_binomial(np.float32([3.0]), np.float32([50.0]), 90)
    assert narrow.table.dtype == np.float32
    left = residual(narrow)
    assert np.exp(narrow.table[0, -1]) == 0.0
    np.testing.assert_allclose(
        left.table[0, -1], residual(negative_binomial(*map(np.array, ([3.0], [50.0])), 90)).table[0, -1], rtol=1e-5
    )


def test_a_mean_near_one_and_a_mean_of_a_million_windows_are_laws_too():
    for dtype in (np.float32, np.float64):
        found = negative_binomial(np.array([1.0001, 1e6], dtype), np.array([1.0, 1.0], dtype), 20)
        assert (found.tail < 0.0).all()
        np.testing.assert_allclose(np.exp(found.table).sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("open_ended", [True, False])
def test_torch_finds_the_same_negative_binomial(open_ended):
    expected = negative_binomial(MEAN, SHAPE, 12, open_ended=open_ended)
    found = negative_binomial(torch.from_numpy(MEAN), torch.from_numpy(SHAPE), 12, open_ended=open_ended)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-13)


def test_gradients_pass_mean_and_shape():
    def values(mean, shape):
        durations = negative_binomial(mean, shape, 6)
        return *durations, residual(durations).table, log_mean(durations), durations.log_at_least(9)

    mean, shape = (torch.from_numpy(x).requires_grad_() for x in (MEAN, SHAPE))
    assert torch.autograd.gradcheck(values, (mean, shape))


def test_impossible_durations_leave_the_gradients_of_others_finite():
    logits = torch.tensor([[0.5, -torch.inf, 0.1, -torch.inf]], dtype=torch.float64, requires_grad=True)
    left = residual(categorical(logits))
    left.table[left.table > -torch.inf].sum().backward()
    assert logits.grad.isfinite().all()
    assert np.exp(left.table.detach().numpy()[0, -1]) == 0.0


@pytest.mark.parametrize(
    ("mean", "shape", "longest", "message"),
    [
        ([1.0], [1.0], 5, "mean must be finite and above 1 window"),
        ([np.nan], [1.0], 5, "mean must be finite and above 1 window"),
        ([2.0], [0.0], 5, "shape must be finite and above 0"),
        ([2.0], [np.inf], 5, "shape must be finite and above 0"),
        ([2.0], [1.0], 0, "longest must be at least 1, got 0"),
    ],
)
def test_parameters_of_no_law_are_refused(mean, shape, longest, message):
    with pytest.raises(ArgumentError) as error:
        negative_binomial(np.array(mean), np.array(shape), longest)
    assert str(error.value) == message


def test_a_law_is_two_tables():
    table, tail = categorical(np.zeros((3, 4)))
    assert Durations(table, tail).table.shape == (3, 4)
    assert tail.tolist() == [-np.inf] * 3
