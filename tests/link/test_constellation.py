"""The mapper: closed form, enumeration, and Sionna's."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from link.bits import label_bits
from link.constellation import ORDERS, bits_per_symbol, map_bits, points, symbol_energy, unit_amplitude
from link.errors import ArgumentError


@pytest.mark.parametrize("order", ORDERS)
def test_the_mean_energy_of_a_symbol_is_one(order):
    assert np.sum(points(order) ** 2, axis=-1).mean() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("order", ORDERS)
def test_the_constellation_is_the_square_grid(order):
    side = math.isqrt(order)
    odd = np.arange(1 - side, side, 2.0) * unit_amplitude(order)
    expected = np.array(list(itertools.product(odd, odd)))
    found = points(order)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize("order", ORDERS)
def test_neighbours_differ_in_one_bit(order):
    grid = points(order)
    bits = label_bits(np.arange(order), bits_per_symbol(order)).astype(int)
    labels = {
        tuple(np.round(point / unit_amplitude(order)).astype(int)): label
        for label, point in zip(bits, grid, strict=True)
    }
    for (i, q), label in labels.items():
        for neighbour in ((i + 2, q), (i, q + 2)):
            if neighbour in labels:
                assert np.sum(label != labels[neighbour]) == 1


# TS 38.211 section 5.1, written out as there.
def qpsk(b):
    return ((1 - 2 * b[0]) + 1j * (1 - 2 * b[1])) / math.sqrt(2)


def qam16(b):
    return ((1 - 2 * b[0]) * (2 - (1 - 2 * b[2])) + 1j * (1 - 2 * b[1]) * (2 - (1 - 2 * b[3]))) / math.sqrt(10)


def qam64(b):
    i = (1 - 2 * b[0]) * (4 - (1 - 2 * b[2]) * (2 - (1 - 2 * b[4])))
    q = (1 - 2 * b[1]) * (4 - (1 - 2 * b[3]) * (2 - (1 - 2 * b[5])))
    return (i + 1j * q) / math.sqrt(42)


def qam256(b):
    i = (1 - 2 * b[0]) * (8 - (1 - 2 * b[2]) * (4 - (1 - 2 * b[4]) * (2 - (1 - 2 * b[6]))))
    q = (1 - 2 * b[1]) * (8 - (1 - 2 * b[3]) * (4 - (1 - 2 * b[5]) * (2 - (1 - 2 * b[7]))))
    return (i + 1j * q) / math.sqrt(170)


@pytest.mark.parametrize(("order", "formula"), [(4, qpsk), (16, qam16), (64, qam64), (256, qam256)])
def test_symbols_are_those_of_38_211(order, formula):
    bits = label_bits(np.arange(order), bits_per_symbol(order)).astype(int)
    expected = np.array([formula(row) for row in bits])
    np.testing.assert_allclose(points(order), np.stack([expected.real, expected.imag], axis=-1), atol=1e-15)


@pytest.mark.parametrize("order", ORDERS)
def test_the_mapper_is_sionnas(order, sionna_mapping):
    m = bits_per_symbol(order)
    bits = label_bits(np.arange(order), m).astype(np.float64)
    expected = sionna_mapping.Mapper("qam", m, precision="double")(torch.from_numpy(bits))[:, 0].numpy()
    found = map_bits(bits[:, None, :])[:, 0]
    np.testing.assert_allclose(found, np.stack([expected.real, expected.imag], axis=-1), atol=1e-14)


@given(st.sampled_from(ORDERS[:4]), st.integers(0, 2**31))
def test_probabilities_map_to_the_mean_symbol_of_independent_bits(order, seed):
    m = bits_per_symbol(order)
    probabilities = np.random.default_rng(seed).uniform(size=m)
    labels = label_bits(np.arange(order), m)
    weights = np.prod(np.where(labels == 1, probabilities, 1.0 - probabilities), axis=-1)
    np.testing.assert_allclose(map_bits(probabilities[None, :])[0], weights @ points(order), atol=1e-14)


@given(st.sampled_from(ORDERS), st.integers(0, 2**31))
def test_the_mapper_is_linear_in_each_bit(order, seed):
    m = bits_per_symbol(order)
    generator = np.random.default_rng(seed)
    bits, bit = generator.uniform(size=m), generator.integers(m)
    zero, one = bits.copy(), bits.copy()
    zero[bit], one[bit] = 0.0, 1.0
    expected = (1.0 - bits[bit]) * map_bits(zero[None]) + bits[bit] * map_bits(one[None])
    np.testing.assert_allclose(map_bits(bits[None]), expected, atol=1e-14)


def test_float32_bits_give_float32_symbols():
    symbols = map_bits(np.zeros((2, 3, 4), dtype=np.float32))
    assert symbols.dtype == np.float32
    assert symbols.shape == (2, 3, 2)


@pytest.mark.parametrize("order", [0, 2, 8, 32, 100, 16384])
def test_an_order_that_is_no_square_qam_is_refused(order):
    with pytest.raises(ArgumentError, match=f"order must be one of 4, 16, 64, 256, 1024, 4096, got {order}"):
        bits_per_symbol(order)


@pytest.mark.parametrize("order", ORDERS)
def test_the_energy_of_bits_is_that_of_their_point(order):
    bits = label_bits(np.arange(order), bits_per_symbol(order)).astype(np.float64)[:, None, :]
    np.testing.assert_allclose(symbol_energy(bits), np.sum(map_bits(bits) ** 2, axis=-1), rtol=1e-12)
    assert symbol_energy(bits).mean() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("order", [4, 16, 64])
def test_the_energy_of_probabilities_is_the_mean_over_independent_bits(order):
    width = bits_per_symbol(order)
    chances = np.random.default_rng(5).uniform(size=width)
    bits = label_bits(np.arange(order), width)
    weights = np.prod(np.where(bits == 1, chances, 1.0 - chances), axis=-1)
    expected = float(weights @ np.sum(points(order) ** 2, axis=-1))
    assert float(symbol_energy(chances[None, :])[0]) == pytest.approx(expected, rel=1e-12)
