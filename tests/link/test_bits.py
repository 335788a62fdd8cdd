import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.bits import block_interleaver, group, label_bits, labels_from_bits, num_symbols, ungroup
from link.errors import ArgumentError


@given(st.data(), st.integers(1, 16))
def test_labels_survive_the_way_to_bits_and_back(data, width):
    labels = np.array(data.draw(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=20)))
    np.testing.assert_array_equal(labels_from_bits(label_bits(labels, width)), labels)


@given(st.integers(0, 2**16 - 1))
def test_bits_read_as_the_binary_number(label):
    assert "".join(map(str, label_bits(label, 16))) == f"{label:016b}"


@pytest.mark.parametrize("label", [-1, 8])
def test_a_label_that_does_not_fit_is_refused(label):
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 8\), got"):
        label_bits([0, label], 3)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4))
def test_grouping_pads_the_end_of_each_sample_with_zeros(length, bits_per_symbol, batch):
    bits = np.ones((batch, length))
    grouped = group(bits, bits_per_symbol)
    symbols = num_symbols(length, bits_per_symbol)
    assert grouped.shape == (batch, symbols, bits_per_symbol)
    assert (symbols - 1) * bits_per_symbol < length <= symbols * bits_per_symbol
    flat = grouped.reshape(batch, -1)
    assert (flat[:, :length] == 1.0).all()
    assert (flat[:, length:] == 0.0).all()
    np.testing.assert_array_equal(ungroup(grouped, length), bits)


@given(st.integers(1, 40), st.sampled_from([2, 4, 6, 8, 10, 12]), st.integers(2, 7), st.integers(0, 2**31))
def test_padding_never_leaks_into_the_next_sample(length, bits_per_symbol, batch, seed):
    bits = np.random.default_rng(seed).integers(0, 2, (batch, length))
    together = group(bits, bits_per_symbol)
    for row in range(batch):
        np.testing.assert_array_equal(group(bits[row : row + 1], bits_per_symbol)[0], together[row])


def test_grouping_keeps_the_dtype_and_the_order():
    bits = np.array([[0.25, 0.5, 0.75]], dtype=np.float32)
    grouped = group(bits, 2)
    assert grouped.dtype == np.float32
    assert grouped.tolist() == [[[0.25, 0.5], [0.75, 0.0]]]


@given(st.integers(0, 200), st.integers(1, 40))
def test_the_interleaver_is_a_permutation(length, rows):
    assert sorted(block_interleaver(length, rows)) == list(range(length))


@given(st.integers(2, 200), st.integers(2, 40))
def test_neighbours_on_the_channel_were_far_apart_before(length, rows):
    distances = np.abs(np.diff(block_interleaver(length, rows)))
    assert distances.min() >= max(1, -(-length // rows) - 1)


def test_the_interleaver_of_a_full_block_is_written_by_rows_and_read_by_columns():
    np.testing.assert_array_equal(block_interleaver(12, 3), np.arange(12).reshape(3, 4).T.ravel())


def test_an_interleaver_needs_a_row():
    with pytest.raises(ArgumentError, match="rows must be at least 1, got 0"):
        block_interleaver(8, 0)
