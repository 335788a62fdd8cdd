"""The demappers: every LLR again by other means."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

from link.bits import label_bits
from link.constellation import ORDERS, app_llr, bits_per_symbol, map_bits, max_log_llr, points, unit_amplitude
from link.errors import ArgumentError
from link.snr import no_from_esn0_db

ESN0_DB = (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
DEMAPPERS = {"max-log": max_log_llr, "app": app_llr}
SYMBOLS = {4: 2000, 16: 2000, 64: 2000, 256: 1000, 1024: 500, 4096: 250}  # Sionna holds order x symbols x bits
SIONNA_NAMES = {"max-log": "maxlog", "app": "app"}


def received(order, esn0_db, count):
    """Noisy symbols."""
    generator = np.random.default_rng(order)
    no = no_from_esn0_db(esn0_db)
    sent = points(order)[generator.integers(order, size=count)]
    return sent + math.sqrt(no / 2.0) * generator.normal(size=sent.shape), np.full(count, no)


def anywhere(order, esn0_db, count):
    """Noisy symbols, and as many anywhere in the plane, far outside of the constellation too."""
    y, no = received(order, esn0_db, count)
    y[::2] = np.random.default_rng(order).uniform(-3.0, 3.0, (len(y[::2]), 2))
    return y, no


def brute_force(y, no, order, reduce):
    """LLRs over all points of the constellation, (n, m)."""
    bits = label_bits(np.arange(order), bits_per_symbol(order)).astype(bool)
    metric = -np.sum((y[:, None, :] - points(order)) ** 2, axis=-1) / no[:, None]
    return np.stack([reduce(metric[:, bit], axis=1) - reduce(metric[:, ~bit], axis=1) for bit in bits.T], axis=-1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_llrs_are_those_of_a_search_over_all_points(demapper, order):
    for esn0_db in ESN0_DB:
        y, no = anywhere(order, esn0_db, 64)
        expected = brute_force(y, no, order, np.max if demapper == "max-log" else logsumexp)
        error = np.abs(DEMAPPERS[demapper](y, no, order) - expected)
        assert (error <= 1e-10 * (1.0 + np.abs(expected))).all()


def sionna_llr(sionna_mapping, demapper, y, no, order):
    import torch

    demap = sionna_mapping.Demapper(SIONNA_NAMES[demapper], "qam", bits_per_symbol(order), precision="double")
    symbols = torch.from_numpy(y[:, 0] + 1j * y[:, 1])
    return demap(symbols[:, None], torch.from_numpy(no)[:, None]).numpy()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_llrs_in_double_precision_are_sionnas(demapper, order, sionna_mapping):
    for esn0_db in ESN0_DB:
        y, no = anywhere(order, esn0_db, SYMBOLS[order])
        expected = sionna_llr(sionna_mapping, demapper, y, no, order)
        error = np.abs(DEMAPPERS[demapper](y, no, order) - expected)
        assert (error <= 1e-10 * (1.0 + np.abs(expected))).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_llrs_in_single_precision_are_near_sionnas_in_double(demapper, order, sionna_mapping):
    # The steeper the LLR in y, the more a rounding of y costs.
    tolerance = 1e-4 if order == 4096 else 1e-5
    for esn0_db in (*ESN0_DB, 25.0, 35.0):
        y, no = (array.astype(np.float32) for array in received(order, esn0_db, SYMBOLS[order]))
        expected = sionna_llr(sionna_mapping, demapper, y.astype(np.float64), no.astype(np.float64), order)
        found = DEMAPPERS[demapper](y, no, order)
        assert found.dtype == np.float32
        assert (np.abs(found - expected) <= tolerance * (1.0 + np.abs(expected))).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_single_precision_costs_a_few_roundings_of_y_anywhere_in_the_plane(demapper, order):
    for esn0_db in ESN0_DB:
        y, no = (array.astype(np.float32) for array in anywhere(order, esn0_db, 2000))
        expected = DEMAPPERS[demapper](y.astype(np.float64), no.astype(np.float64), order)
        # An LLR is at most this steep in y, and y and its thresholds are known to a rounding of their magnitude.
        steepest = 2.0 * math.sqrt(order) * unit_amplitude(order) / no[0]
        tolerance = 4.0 * np.finfo(np.float32).eps * (steepest * np.abs(y).max() + 1.0)
        assert np.abs(DEMAPPERS[demapper](y, no, order) - expected).max() <= tolerance


def test_the_llr_of_qpsk_is_linear_in_the_received_symbol():
    y = np.array([[0.3, -0.7], [-2.0, 0.0]])
    no = np.array([0.5, 2.0])
    expected = -2.0 * math.sqrt(2.0) * y / no[:, None]
    for demapper in DEMAPPERS.values():
        np.testing.assert_allclose(demapper(y, no, 4), expected, atol=1e-14)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("demapper", DEMAPPERS.values())
def test_a_positive_llr_means_one(demapper, order):
    bits = label_bits(np.arange(order), bits_per_symbol(order))
    llr = demapper(map_bits(bits.astype(np.float64)[:, None, :])[:, 0], np.full(order, 1e-5), order)
    np.testing.assert_array_equal(llr > 0.0, bits == 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("demapper", DEMAPPERS.values())
def test_an_erased_symbol_says_nothing(demapper, dtype, order):
    y = np.array([[0.0, 0.0], [0.4, -1.3], [5.0, 5.0]], dtype=dtype)
    llr = demapper(y, np.full(3, np.inf, dtype=dtype), order)
    assert llr.dtype == dtype
    assert (llr == 0.0).all()


@pytest.mark.parametrize("demapper", DEMAPPERS.values())
def test_symbols_may_have_noise_of_their_own(demapper):
    generator = np.random.default_rng(3)
    y = generator.normal(size=(2, 5, 2))
    no = generator.uniform(0.1, 1.0, (2, 5))
    together = demapper(y, no, 64)
    assert together.shape == (2, 5, 6)
    for row in range(2):
        for s in range(5):
            alone = demapper(y[row, s][None], no[row, s][None], 64)[0]
            np.testing.assert_allclose(together[row, s], alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("order", ORDERS)
def test_max_log_scales_with_the_inverse_of_the_noise(order):
    y, no = received(order, 5.0, 200)
    np.testing.assert_allclose(max_log_llr(y, no / 7.0, order), 7.0 * max_log_llr(y, no, order), rtol=1e-12)


@pytest.mark.parametrize("demapper", DEMAPPERS.values())
def test_the_demapper_refuses_an_unknown_order(demapper):
    with pytest.raises(ArgumentError, match="order must be one of"):
        demapper(np.zeros((1, 2)), np.ones(1), 32)
