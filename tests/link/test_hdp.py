"""Behaviours of a recording from tables: the updates, soft codes, missing windows, streams, refusals, and two libraries."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma, gammaln, softmax, xlogy

from link.bits import label_bits
from link.codebook import posterior
from link.errors import ArgumentError
from link.hdp import Behaviours, GaussianHdp, Hdp, ascend, check_hdp, expected_log, infer, push

BEHAVIOURS, TOKENS, CODES, WINDOWS = 4, 3, 8, 6
seeds = st.integers(0, 2**31)


def over_seeds(test):
    """Twenty of them: each is a recording of its own."""
    return settings(max_examples=20)(given(seeds)(test))


class Problem(NamedTuple):
    tables: Hdp
    indices: np.ndarray
    codes: np.ndarray
    present: np.ndarray


def random_problem(seed, *, recordings=2, marginal=False, alpha=0.7):
    """Tables as a fit makes them, and recordings that hold hard codes, soft ones, and a gap."""
    generator = np.random.default_rng(seed)
    counts = generator.gamma(0.3, size=(BEHAVIOURS, TOKENS, CODES)) * 20.0 + 0.1
    tables = Hdp(expected_log(counts), generator.dirichlet(np.full(BEHAVIOURS, 2.0)), alpha, marginal)
    indices = generator.integers(0, CODES, (recordings, WINDOWS, TOKENS))
    codes = generator.dirichlet(np.full(CODES, 0.3), (recordings, WINDOWS, TOKENS))
    present = np.ones((recordings, WINDOWS), dtype=bool)
    present[0, 2] = False
    return Problem(tables, indices, codes, present)


def one_hot(indices):
    return np.eye(CODES)[indices]


def written_out(tables, codes, present, iterations):
    """The updates as in the module's head, window by window and behaviour by behaviour, for one recording."""
    log_likelihood = np.zeros((len(codes), BEHAVIOURS))
    for t, k, n, v in itertools.product(range(len(codes)), range(BEHAVIOURS), range(TOKENS), range(CODES)):
        log_likelihood[t, k] += codes[t, n, v] * tables.log_codes[k, n, v]
    log_likelihood[~present] = 0.0
    prior = tables.alpha * tables.weights
    r = softmax(np.log(tables.weights) + log_likelihood, axis=-1)
    for _ in range(iterations):
        a = prior + sum(r[t] for t in range(len(codes)) if present[t])
        r = np.array([softmax(digamma(a) - digamma(a.sum()) + log_likelihood[t]) for t in range(len(codes))])
    return r, prior + sum(r[t] for t in range(len(codes)) if present[t])


@settings(max_examples=20)
@given(seeds, st.integers(1, 4))
def test_recordings_are_inferred_by_the_updates_written_out(seed, iterations):
    tables, _, codes, present = random_problem(seed)
    r, a = infer(tables, codes, present, iterations=iterations)
    for j in range(len(codes)):
        expected_r, expected_a = written_out(tables, codes[j], present[j], iterations)
        np.testing.assert_allclose(r[j], expected_r, atol=1e-10)
        np.testing.assert_allclose(a[j], expected_a, atol=1e-9)


@over_seeds
def test_concentrations_are_those_of_the_responsibilities(seed):
    tables, _, codes, present = random_problem(seed)
    r, a = infer(tables, codes, present)
    np.testing.assert_allclose(a, tables.prior + (r * present[..., None]).sum(axis=1), rtol=1e-12)
    # alpha, and one for each window that is there.
    np.testing.assert_allclose(a.sum(axis=-1), tables.alpha + present.sum(axis=-1), rtol=1e-12)


@over_seeds
def test_no_update_lowers_the_bound_of_a_recording(seed):
    tables, _, codes, _ = random_problem(seed)
    log_likelihood = tables.log_likelihood(codes)
    a, bounds = tables.prior + np.zeros((len(codes), 1)), []
    for _ in range(12):
        r, a = ascend(log_likelihood, tables.prior, start=a, iterations=1)
        bounds.append(recording_bound(log_likelihood, r, a))
    assert (np.diff(bounds, axis=0) >= -1e-10).all()


def recording_bound(log_likelihood, r, a):
    """E log p - E log q of z and pi, up to a constant, where a belongs to r."""
    return (r * log_likelihood - xlogy(r, r)).sum(axis=(-2, -1)) + gammaln(a).sum(axis=-1) - gammaln(a.sum(axis=-1))


@pytest.mark.parametrize("marginal", [False, True])
@over_seeds
def test_indices_are_certain_codes(marginal, seed):
    tables, indices, _, _ = random_problem(seed, marginal=marginal)
    expected = tables.log_likelihood(one_hot(indices))
    # Of a sum of exponentials all but one are 0; exp and log cost a few roundings of numbers up to some hundreds.
    np.testing.assert_allclose(tables.log_likelihood(indices), expected, rtol=1e-12)


@over_seeds
def test_soft_codes_enter_by_their_expected_log_likelihood(seed):
    tables, _, codes, _ = random_problem(seed)
    window = codes[0, 0]
    expected = np.zeros(BEHAVIOURS)
    for pattern in itertools.product(range(CODES), repeat=TOKENS):
        probability = np.prod([window[n, v] for n, v in enumerate(pattern)])
        expected += probability * tables.log_likelihood(np.array(pattern))
    np.testing.assert_allclose(tables.log_likelihood(window), expected, rtol=1e-10)


@over_seeds
def test_or_summed_out_by_the_log_of_an_expected_likelihood(seed):
    tables, _, codes, _ = random_problem(seed, marginal=True)
    window = codes[0, 0]
    expected = np.zeros(BEHAVIOURS)
    for pattern in itertools.product(range(CODES), repeat=TOKENS):
        probability = np.prod([window[n, v] for n, v in enumerate(pattern)])
        expected += probability * np.exp(tables.log_likelihood(np.array(pattern)))
    np.testing.assert_allclose(tables.log_likelihood(window), np.log(expected), rtol=1e-10)


@over_seeds
def test_summing_codes_out_is_the_tighter_bound(seed):
    tables, _, codes, _ = random_problem(seed)
    assert (tables._replace(marginal=True).log_likelihood(codes) >= tables.log_likelihood(codes) - 1e-12).all()


def test_a_lost_window_speaks_for_behaviours_of_many_codes_unless_codes_are_summed_out():
    counts = np.full((2, 1, CODES), 0.1)
    counts[0] += 100.0  # a behaviour that has every code, and one that has a single code
    counts[1, 0, 0] += 800.0
    lost = posterior(np.zeros((1, 1, 3)), label_bits(np.arange(CODES), 3).astype(float), np.zeros(CODES))
    tables = Hdp(expected_log(counts), np.array([0.5, 0.5]), 1.0)
    expected, marginal = (tables._replace(marginal=switch).log_likelihood(lost)[0] for switch in (False, True))
    assert expected[0] - expected[1] > 10.0
    # sum_v exp(E log phi) falls short of 1 by about (V - 1) / (2 x 800) where all codes have 100 counts, and by
    # 7 x 0.1 / 800 + 1 / (2 x 800) where one has all: together below 1 %.
    assert abs(marginal[0] - marginal[1]) < 0.01


def test_what_underflows_is_unlikely_and_not_impossible():
    counts = np.full((2, 1, CODES), 1e-4)
    counts[:, 0, 1] += 10.0
    tables = Hdp(expected_log(counts), np.array([0.5, 0.5]), 1.0, marginal=True)
    found = tables.log_likelihood(one_hot(np.array([[0]])))
    assert np.isfinite(found).all()
    assert (found < -700.0).all()


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e300])
@over_seeds
def test_a_missing_window_counts_for_nothing_whatever_is_in_its_place(rubbish, seed):
    tables, _, codes, present = random_problem(seed)
    broken = np.where(present[..., None, None], codes, rubbish)
    r, a = infer(tables, broken, present)
    kept = np.delete(codes[0], 2, axis=0)
    alone = infer(tables, kept)
    np.testing.assert_allclose(np.delete(r[0], 2, axis=0), alone.responsibilities, atol=1e-10)
    np.testing.assert_allclose(a[0], alone.concentrations, atol=1e-10)


@pytest.mark.parametrize("kind", ["indices", "codes"])
@over_seeds
def test_a_missing_window_is_told_by_its_recordings_weights(kind, seed):
    problem = random_problem(seed)
    tables, present = problem.tables, problem.present
    windows = problem.indices if kind == "indices" else problem.codes
    before = infer(tables, windows, present, iterations=9)
    found = infer(tables, windows, present, iterations=10)
    np.testing.assert_allclose(
        found.responsibilities[0, 2], softmax(expected_log(before.concentrations[0])), atol=1e-10
    )


def test_indices_of_a_missing_window_may_be_out_of_range():
    tables, indices, _, present = random_problem(3)
    broken = np.where(present[..., None], indices, -1)
    np.testing.assert_array_equal(infer(tables, broken, present)[0], infer(tables, indices, present)[0])


@over_seeds
def test_recordings_stand_alone_in_a_batch(seed):
    tables, _, codes, present = random_problem(seed, recordings=3)
    together = infer(tables, codes, present)
    for j in range(3):
        alone = infer(tables, codes[j], present[j])
        np.testing.assert_allclose(together.responsibilities[j], alone.responsibilities, atol=1e-11)


def test_windows_of_one_recording_pull_each_other_to_its_own_behaviours():
    """One window that two behaviours explain alike goes with those around it; the corpus alone leaves it open."""
    log_codes = expected_log(np.array([[[50.0, 10.0, 0.1]], [[0.1, 10.0, 50.0]]]))
    tables = Hdp(log_codes, np.array([0.5, 0.5]), 1.0)
    shared = 1
    assert infer(tables, np.array([[shared]])).responsibilities[0].tolist() == [0.5, 0.5]
    among = infer(tables, np.array([[0], [0], [shared], [0]])).responsibilities
    assert among[2, 0] > 0.9


@over_seeds
def test_a_push_is_one_window_inferred_from_the_state(seed):
    tables, _, codes, _ = random_problem(seed)
    state = tables.prior + np.arange(BEHAVIOURS)
    found = push(tables, state, codes[0, 0])
    same = ascend(tables.log_likelihood(codes[0, :1]), state)
    np.testing.assert_array_equal(found.responsibilities, same.responsibilities[0])
    np.testing.assert_array_equal(found.concentrations, same.concentrations)
    np.testing.assert_allclose(found.concentrations, state + found.responsibilities, rtol=1e-12)


def pushed(tables, windows):
    state, each = tables.prior, []
    for window in windows:
        r, state = push(tables, state, window)
        each.append(r)
    return Behaviours(np.array(each), state)


@over_seeds
def test_the_first_push_is_a_recording_of_one_window(seed):
    tables, _, codes, _ = random_problem(seed)
    one = infer(tables, codes[0, :1])
    np.testing.assert_allclose(pushed(tables, codes[0, :1]).responsibilities, one.responsibilities, atol=1e-12)


@over_seeds
def test_no_later_window_changes_what_a_stream_has_said(seed):
    tables, _, codes, _ = random_problem(seed)
    other = codes[0].copy()
    other[4:] = codes[1, 4:]
    np.testing.assert_array_equal(
        pushed(tables, codes[0]).responsibilities[:4], pushed(tables, other).responsibilities[:4]
    )


@over_seeds
def test_where_windows_leave_no_doubt_a_stream_ends_as_the_whole_recording(seed):
    generator = np.random.default_rng(seed)
    counts = np.full((CODES, 1, CODES), 0.01) + 100.0 * np.eye(CODES)[:, None, :]
    tables = Hdp(expected_log(counts), np.full(CODES, 1.0 / CODES), 0.5)
    windows = generator.integers(0, CODES, (9, 1))
    # A code speaks for its behaviour by psi(100) - psi(0.01) = 105 nats, against which stand at most psi(9) - psi(1/16) = 19
    # of weights: doubt is below e^-80, and roundings are left.
    whole, stream = infer(tables, windows), pushed(tables, windows)
    np.testing.assert_array_equal(stream.responsibilities.argmax(axis=-1), windows[:, 0])
    np.testing.assert_allclose(stream.concentrations, whole.concentrations, rtol=1e-12)


@pytest.mark.parametrize("marginal", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_finds_the_same_behaviours(dtype, marginal):
    tables, indices, codes, present = random_problem(5, marginal=marginal)
    tables = Hdp(tables.log_codes.astype(dtype), tables.weights.astype(dtype), tables.alpha, marginal)
    in_torch = Hdp(torch.from_numpy(tables.log_codes), torch.from_numpy(tables.weights), tables.alpha, marginal)
    # Rounding of log likelihoods of some 50 nats, doubled at most by each of 10 updates near a fixed point.
    rounding = 2e3 * float(np.finfo(dtype).eps)
    for windows in (codes.astype(dtype), indices):
        expected = infer(tables, windows, present)
        found = infer(in_torch, torch.from_numpy(windows), torch.from_numpy(present))
        for one, other in zip(found, expected, strict=True):
            assert one.numpy().dtype == other.dtype == dtype
            np.testing.assert_allclose(one.numpy(), other, atol=rounding)
    stream, expected = (
        push(in_torch, in_torch.prior, torch.from_numpy(indices[:, 0])),
        push(tables, tables.prior, indices[:, 0]),
    )
    np.testing.assert_allclose(stream.responsibilities.numpy(), expected.responsibilities, atol=rounding)


@pytest.mark.parametrize("marginal", [False, True])
def test_gradients_reach_codes_and_tables(marginal):
    tables, _, codes, present = random_problem(2, recordings=1, marginal=marginal)
    inputs = [torch.from_numpy(x).requires_grad_() for x in (codes, tables.log_codes, tables.weights)]

    def outputs(codes, log_codes, weights):
        return tuple(infer(Hdp(log_codes, weights, 0.7, marginal), codes, torch.from_numpy(present), iterations=2))

    assert torch.autograd.gradcheck(outputs, inputs)


def test_embeddings_enter_by_their_density():
    generator = np.random.default_rng(0)
    tables = GaussianHdp(generator.normal(size=(3, 2)), generator.uniform(0.5, 2.0, (3, 2)), np.full(3, 1 / 3), 1.0)
    windows = generator.normal(size=(5, 2))
    normals = torch.distributions.Normal(torch.from_numpy(tables.means), torch.from_numpy(tables.variances).sqrt())
    expected = normals.log_prob(torch.from_numpy(windows)[:, None]).sum(dim=-1)
    np.testing.assert_allclose(tables.log_likelihood(windows), expected.numpy(), rtol=1e-12)
    assert infer(tables, windows).responsibilities.shape == (5, 3)
    check_hdp(tables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, r"^alpha must be in \(0, 1\], got 0$"),
        ({"alpha": 1.5}, r"^alpha must be in \(0, 1\], got 1.5$"),
        ({"alpha": float("nan")}, r"^alpha must be in \(0, 1\], got nan$"),
        ({"weights": np.array([1.0])}, r"^weights must be of at least 2 behaviours, got shape \(1,\)$"),
        ({"weights": np.array([0.5, 0.5, 0.0, 0.0])}, r"^weights must be above 0, got 0$"),
        ({"weights": np.array([0.5, 0.5, np.nan, 0.1])}, r"^weights must be above 0, got nan$"),
        ({"weights": np.array([0.5, 0.5, 0.5, 0.5])}, r"^weights must add up to 1, got 2$"),
        ({"log_codes": np.zeros((3, 2, 4))}, r"^log_codes must have shape \(4, N, V\), got \(3, 2, 4\)$"),
        ({"log_codes": np.zeros((4, 2))}, r"^log_codes must have shape \(4, N, V\), got \(4, 2\)$"),
        ({"log_codes": np.full((4, 2, 3), -np.inf)}, r"^log_codes must be finite, got NaN or infinity$"),
        ({"log_codes": np.zeros((4, 2, 3))}, r"^log_codes must have at most probability 1 a token, got 3$"),
    ],
)
def test_tables_that_no_training_makes_are_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        check_hdp(random_problem(0).tables._replace(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": np.zeros((3, 2))}, r"^means must have shape \(2, F\), got \(3, 2\)$"),
        ({"variances": np.ones((2, 5))}, r"^variances must have shape \(\.\.\., 2, 2\), got \(2, 5\)$"),
        ({"variances": np.zeros((2, 2))}, r"^variances must be above 0, got 0$"),
        ({"means": np.full((2, 2), np.nan)}, r"^means must be finite, got NaN or infinity$"),
    ],
)
def test_gaussians_that_no_training_makes_are_refused(changes, message):
    tables = GaussianHdp(np.zeros((2, 2)), np.ones((2, 2)), np.array([0.5, 0.5]), 1.0)
    with pytest.raises(ArgumentError, match=message):
        check_hdp(tables._replace(**changes))


def test_tables_of_a_fit_are_taken():
    check_hdp(random_problem(1).tables)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.zeros((5, TOKENS + 1), dtype=np.int64), r"^indices must have shape \(\.\.\., 3\), got \(5, 4\)$"),
        (np.full((5, TOKENS), CODES), r"^indices must be in \[0, 8\), got \[8, 8\]$"),
        (np.full((5, TOKENS), -1), r"^indices must be in \[0, 8\), got \[-1, -1\]$"),
        (np.zeros((5, TOKENS, CODES + 1)), r"^codes must have shape \(\.\.\., 3, 8\), got \(5, 3, 9\)$"),
        (np.zeros(CODES), r"^codes must have shape \(\.\.\., 3, 8\), got \(8,\)$"),
    ],
)
def test_windows_that_are_not_of_the_tables_are_refused(windows, message):
    with pytest.raises(ArgumentError, match=message):
        infer(random_problem(0).tables, windows)


def test_a_mask_of_other_windows_is_refused():
    tables, _, codes, _ = random_problem(0)
    with pytest.raises(ArgumentError, match=r"^present must have shape \(2, 6\), got \(2, 5\)$"):
        infer(tables, codes, np.ones((2, 5), dtype=bool))
    with pytest.raises(ArgumentError, match=r"^iterations must be at least 1, got 0$"):
        infer(tables, codes, iterations=0)
