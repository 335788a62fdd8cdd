import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.bits import label_bits
from link.errors import ArgumentError
from link.labeling import binary_switching, channel_distortion, pca_gray

sizes = st.sampled_from([2, 4, 8, 16, 32])
seeds = st.integers(0, 2**31)


def problem(seed, count, dim=8):
    """A codebook, its usage and rates of the bits."""
    generator = np.random.default_rng(seed)
    codebook = generator.normal(size=(count, dim)) * generator.uniform(0.3, 2.0, dim)
    usage = generator.dirichlet(np.ones(count))
    return codebook, usage, generator.uniform(0.01, 0.2, count.bit_length() - 1), generator.permutation(count)


def cost_of_single_errors(codebook, usage, labels, rates):
    """The cost that switching lowers, in plain loops."""
    at = {int(label): i for i, label in enumerate(labels)}
    width = len(rates)
    total = 0.0
    for i, label in enumerate(labels):
        for bit, rate in enumerate(rates):
            j = at[int(label) ^ (1 << (width - 1 - bit))]
            total += usage[i] * rate * np.sum((codebook[i] - codebook[j]) ** 2)
    return total


@given(sizes, seeds)
def test_every_labelling_is_a_permutation_and_the_same_every_time(count, seed):
    codebook, usage, rates, start = problem(seed, count)
    for labels in (pca_gray(codebook), binary_switching(codebook, usage, start, rates)):
        assert sorted(labels) == list(range(count))
        assert labels.dtype == np.int64
    np.testing.assert_array_equal(pca_gray(codebook), pca_gray(codebook.copy()))
    np.testing.assert_array_equal(
        binary_switching(codebook, usage, start, rates), binary_switching(codebook, usage, start.copy(), rates)
    )


@given(sizes, seeds)
def test_pca_gray_does_not_depend_on_where_the_codebook_lies_or_its_scale(count, seed):
    codebook, *_ = problem(seed, count)
    np.testing.assert_array_equal(pca_gray(3.0 * codebook + 5.0), pca_gray(codebook))


def test_pca_gray_does_not_depend_on_the_signs_of_the_eigenvectors(monkeypatch):
    codebook, *_ = problem(4, 32)
    expected = pca_gray(codebook)
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))
    np.testing.assert_array_equal(pca_gray(codebook), expected)


@pytest.mark.parametrize("count", [2, 4, 16, 256])
def test_neighbours_on_a_line_differ_in_one_bit(count):
    positions = np.random.default_rng(count).permutation(count)
    labels = pca_gray(positions[:, None])
    bits = label_bits(labels[np.argsort(positions)], count.bit_length() - 1).astype(int)
    assert (np.abs(np.diff(bits, axis=0)).sum(axis=1) == 1).all()


def test_neighbours_on_a_grid_differ_in_one_bit():
    rows, columns = 4, 8
    grid = np.array(list(itertools.product(range(rows), range(columns))), dtype=float)
    bits = label_bits(pca_gray(grid), 5).astype(int).reshape(rows, columns, 5)
    for axis in (0, 1):
        assert (np.abs(np.diff(bits, axis=axis)).sum(axis=-1) == 1).all()


@given(sizes, seeds)
def test_switching_never_raises_the_cost_and_ends_where_no_swap_lowers_it(count, seed):
    codebook, usage, rates, start = problem(seed, count)
    labels = binary_switching(codebook, usage, start, rates)
    cost = cost_of_single_errors(codebook, usage, labels, rates)
    assert cost <= cost_of_single_errors(codebook, usage, start, rates) * (1.0 + 1e-12)
    if count <= 8:
        for i, j in itertools.combinations(range(count), 2):
            swapped = labels.copy()
            swapped[[i, j]] = swapped[[j, i]]
            assert cost_of_single_errors(codebook, usage, swapped, rates) >= cost * (1.0 - 1e-9)


def test_every_pass_lowers_the_cost():
    codebook, usage, rates, start = problem(3, 64)
    costs = [
        cost_of_single_errors(codebook, usage, binary_switching(codebook, usage, start, rates, passes), rates)
        for passes in range(4)
    ]
    assert costs[0] == cost_of_single_errors(codebook, usage, start, rates)
    assert costs == sorted(costs, reverse=True)
    assert costs[1] < costs[0]


def test_switching_finds_the_best_of_all_labellings_of_four():
    codebook, usage, rates, start = problem(5, 4)
    best = min(cost_of_single_errors(codebook, usage, labels, rates) for labels in itertools.permutations(range(4)))
    found = cost_of_single_errors(codebook, usage, binary_switching(codebook, usage, start, rates), rates)
    assert found == pytest.approx(best, rel=1e-12)


def test_counts_serve_as_usage():
    codebook, usage, rates, start = problem(7, 32)
    np.testing.assert_array_equal(
        binary_switching(codebook, usage, start, rates), binary_switching(codebook, 1000.0 * usage, start, rates)
    )


def test_a_weak_bit_gets_the_small_steps():
    # Four corners of a rectangle: the bit that fails more often must be the one along the short side.
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [3.0, 1.0]])
    for rates, short in (([0.01, 0.1], 1), ([0.1, 0.01], 0)):
        labels = binary_switching(corners, np.ones(4), [0, 3, 1, 2], rates)
        bits = label_bits(labels, 2).astype(int)
        assert (bits[0] != bits[1]).tolist() == [short == 0, short == 1]
        assert (bits[2] != bits[3]).tolist() == [short == 0, short == 1]


@given(st.sampled_from([2, 4, 8]), seeds)
def test_the_distortion_is_the_mean_over_all_error_patterns(count, seed):
    codebook, usage, rates, labels = problem(seed, count)
    at = np.argsort(labels)
    expected = 0.0
    for i, label in enumerate(labels):
        for pattern in itertools.product((0, 1), repeat=len(rates)):
            flipped = int(label) ^ int("".join(map(str, pattern)), 2)
            probability = np.prod([rate if bit else 1.0 - rate for bit, rate in zip(pattern, rates, strict=True)])
            expected += usage[i] * probability * np.sum((codebook[i] - codebook[at[flipped]]) ** 2)
    assert channel_distortion(codebook, usage, labels, rates) == pytest.approx(expected, rel=1e-10)


def test_the_distortion_is_the_cost_of_single_errors_where_errors_are_rare():
    codebook, usage, rates, labels = problem(1, 16)
    rates = 1e-7 * rates
    expected = cost_of_single_errors(codebook, usage, labels, rates)
    assert channel_distortion(codebook, usage, labels, rates) == pytest.approx(expected, rel=1e-6)


def test_bits_that_say_nothing_cost_twice_the_spread():
    codebook, usage, _, labels = problem(2, 16)
    mean = usage @ codebook
    # A codeword drawn by fair bits, independent of the one sent.
    expected = usage @ np.sum((codebook - mean) ** 2, axis=1)
    expected += np.mean(np.sum((codebook - mean) ** 2, axis=1))
    expected -= 2.0 * np.dot((usage @ (codebook - mean)), (codebook - mean).mean(axis=0))
    assert channel_distortion(codebook, usage, labels, 0.5) == pytest.approx(expected, rel=1e-12)
    assert channel_distortion(codebook, usage, labels, 0.0) == 0.0


def decibels(ratio):
    return 10.0 * np.log10(ratio)


@pytest.mark.parametrize("count", [64, 256])
def test_switching_saves_at_least_one_and_a_half_decibels_over_random_labels(count):
    codebook, usage, _, _ = problem(0, count)
    generator = np.random.default_rng(1)
    random = np.mean([channel_distortion(codebook, usage, generator.permutation(count), 1e-2) for _ in range(10)])
    start = pca_gray(codebook)
    switched = binary_switching(codebook, usage, start)
    assert decibels(random / channel_distortion(codebook, usage, start, 1e-2)) > 0.5
    assert decibels(random / channel_distortion(codebook, usage, switched, 1e-2)) >= 1.5


@pytest.mark.parametrize("codebook", [np.zeros((3, 2)), np.zeros(4), np.zeros((1, 2)), np.full((4, 2), np.nan)])
def test_a_codebook_without_a_label_for_each_codeword_is_refused(codebook):
    with pytest.raises(ArgumentError, match="codebook must be finite, "):
        pca_gray(codebook)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1, 2, 2]}, "labels must be a permutation of 0 to 3"),
        ({"labels": [0, 1]}, "labels must be a permutation of 0 to 3"),
        ({"usage": [1.0, -1.0, 1.0, 1.0]}, "usage must be"),
        ({"usage": np.zeros(4)}, "usage must be"),
        ({"bit_error_rates": [0.1, 1.5]}, "bit_error_rates must be one rate or 2"),
        ({"bit_error_rates": [0.1, 0.1, 0.1]}, "bit_error_rates must be one rate or 2"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    valid = {"codebook": np.eye(4), "usage": np.ones(4), "labels": range(4), "bit_error_rates": 0.1}
    for function in (binary_switching, channel_distortion):
        with pytest.raises(ArgumentError, match=message):
            function(**{**valid, **arguments})
