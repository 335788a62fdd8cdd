"""The lattice: its points, its labels, and the interface of every other codebook."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from link.codebook import soft_assignment
from link.errors import ArgumentError
from link.labeling import channel_distortion
from train.fsq import FiniteScalarQuantizer
from train.losses import assignment_entropy, usage_entropy

LEVELS = [(2, 2, 2), (4, 2), (8,), (2, 4), (4, 4, 4, 4), (8, 8)]


def of(levels, dim=6, **settings):
    return FiniteScalarQuantizer(math.prod(levels), dim, levels=levels, **settings)


def start(quantizer, features, **changes):
    settings = {"temperature": 0.7, "target_entropy": 0.5, "bit_error_rates": np.full(quantizer.index_bits, 0.1)}
    quantizer.start(quantizer.tokens(features), seed=5, **settings | changes)


def some_features(rows=400, dim=6):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("levels", LEVELS)
def test_codewords_are_all_combinations_of_even_steps_from_end_to_end(levels):
    quantizer = of(levels)
    radius = math.sqrt(6 / len(levels))
    ladders = [[radius * (2 * level / (count - 1) - 1) for level in range(count)] for count in levels]
    expected = [[*point, *[0.0] * (6 - len(levels))] for point in itertools.product(*ladders)]
    np.testing.assert_allclose(quantizer.codebook.numpy(), expected, atol=1e-6)
    corner = quantizer.codebook[-1]
    assert float(corner.norm()) == pytest.approx(math.sqrt(6), rel=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_tokens_are_bounded_axes_rounded_each_for_itself(levels):
    quantizer = of(levels)
    features = 2.0 * some_features()
    bounded = np.tanh(features.numpy()[:, : len(levels)].astype(np.float64))
    index = np.zeros(len(features), dtype=np.int64)
    for axis, count in enumerate(levels):
        index = index * count + np.rint((bounded[:, axis] + 1.0) / 2.0 * (count - 1)).astype(np.int64)
    assert np.array_equal(quantizer.hard(quantizer.tokens(features)).numpy(), index)


@pytest.mark.parametrize("levels", LEVELS)
def test_labels_of_neighbouring_points_differ_in_one_bit(levels):
    quantizer = of(levels)
    start(quantizer, some_features())
    assert sorted(quantizer.labels.tolist()) == list(range(quantizer.codewords))
    points = quantizer.codebook[:, : len(levels)] / quantizer.radius
    steps = (points[:, None] - points).abs() * (torch.tensor(levels) - 1) / 2.0
    bits = (quantizer.label_bits[:, None] != quantizer.label_bits).sum(dim=-1)
    neighbours = steps.sum(dim=-1).round() == 1
    assert int(neighbours.sum()) > 0
    assert (bits[neighbours] == 1).all()


@pytest.mark.parametrize("levels", LEVELS)
def test_each_axis_has_bits_of_its_own(levels):
    quantizer = of(levels)
    start(quantizer, some_features())
    coordinates = np.array(list(np.ndindex(*levels)))
    first = 0
    for axis, count in enumerate(levels):
        width = count.bit_length() - 1
        bits = quantizer.label_bits[:, first : first + width].numpy()
        rows = {tuple(row) for row in np.column_stack([coordinates[:, axis], bits]).tolist()}
        assert len(rows) == count
        first += width


def test_searched_labels_begin_at_gray_and_are_no_worse():
    features = some_features() * torch.tensor([3.0, 0.3, 1.0, 1.0, 1.0, 1.0]) + 0.4
    gray, searched = of((4, 4), labelling="axis-gray"), of((4, 4), labelling="searched")
    start(gray, features)
    start(searched, features)
    usage = gray.ema_size.double().numpy()
    rate = 1e-4  # so low that two errors in one label count for nothing
    distortion = [channel_distortion(q.codebook, usage, q.labels, rate) for q in (gray, searched)]
    assert distortion[1] < 0.999 * distortion[0]


def test_training_moves_the_usage_and_nothing_else():
    quantizer = of((4, 2), ema_decay=0.9)
    start(quantizer, some_features())
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    tokens = quantizer.tokens(some_features(50) + 1.0)
    indices = quantizer.hard(tokens)
    quantizer.update(tokens, indices)
    usage = 0.9 * before["ema_size"] + 0.1 * torch.bincount(indices, minlength=8) / 50
    torch.testing.assert_close(quantizer.ema_size, usage)
    assert quantizer.restart(tokens, 1.0, seed=0, draw=1) == 0
    for name, tensor in quantizer.state_dict().items():
        assert (name == "ema_size") != torch.equal(tensor, before[name]), name
    quantizer.refresh_prior()
    expected = (usage / usage.sum() + 5e-4) / (1.0 + 8 * 5e-4)
    torch.testing.assert_close(quantizer.log_prior.exp(), expected, rtol=1e-5, atol=0.0)


def test_a_start_counts_the_usage_and_sets_the_scale():
    quantizer = of((4, 2))
    features = some_features()
    start(quantizer, features, target_entropy=0.4)
    tokens = quantizer.tokens(features)
    counts = torch.bincount(quantizer.hard(tokens), minlength=8)
    torch.testing.assert_close(quantizer.ema_size, counts / len(features))
    soft = soft_assignment(tokens.double(), quantizer.codebook.double(), float(quantizer.scale), 0.7)
    assert float(assignment_entropy(soft)) == pytest.approx(0.4, abs=1e-9)


def test_entropies_reach_the_features_of_the_axes_and_no_others():
    quantizer = of((4, 2))
    features = some_features(40).reshape(8, 5, 6).requires_grad_()
    soft = quantizer.soft(quantizer.tokens(features), 0.7)
    for term in (usage_entropy, assignment_entropy):
        (gradient,) = torch.autograd.grad(term(soft), features, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert float(gradient[..., :2].abs().max(dim=0).values.min()) > 0.0
        assert (gradient[..., 2:] == 0.0).all()


@given(st.integers(1, 12))
def test_levels_left_out_are_four_an_axis(bits):
    quantizer = FiniteScalarQuantizer(2**bits, 6)
    assert set(quantizer.levels) <= {2, 4}
    assert quantizer.levels.count(2) == bits % 2
    assert len(torch.unique(quantizer.codebook, dim=0)) == 2**bits


@pytest.mark.parametrize(
    ("codewords", "dim", "levels", "message"),
    [
        (8, 6, (4, 4), r"^fsq_levels must be powers of two of product 8, got \[4, 4\]$"),
        (8, 6, (8, 1), r"^fsq_levels must be powers of two of product 8, got \[8, 1\]$"),
        (8, 2, (2, 2, 2), r"^fsq_levels must have at most the 2 axes of a token, got 3$"),
        (256, 3, (), r"^fsq_levels must have at most the 3 axes of a token, got 4$"),
    ],
)
def test_levels_that_make_no_lattice_are_refused(codewords, dim, levels, message):
    with pytest.raises(ArgumentError, match=message):
        FiniteScalarQuantizer(codewords, dim, levels=levels)
