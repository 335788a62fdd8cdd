"""The theory, by other means: decision regions, numerical integration, simulation with link's own demappers."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate
from scipy.special import ive, ndtr

from link.bits import label_bits
from link.constellation import ORDERS, app_llr, bits_per_symbol, max_log_llr, points
from link.errors import ArgumentError
from link.theory import ber_awgn, ber_rayleigh, ber_rician, bit_error_rates, mean_abs_llr

ESN0_DB = np.array([-20.0, -5.0, 0.0, 5.0, 12.0, 20.0])


def rates_by_regions(order, esn0_db):
    """Error rates by the probability of each decision region under each symbol of one dimension, for even bits."""
    bits = label_bits(np.arange(order), bits_per_symbol(order))
    row = (bits[:, 1::2] == 0).all(axis=1)
    rising = np.argsort(points(order)[row, 0])
    levels, labels = points(order)[row, 0][rising], bits[row, 0::2][rising]
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2.0, [np.inf]])
    z = (edges[:, None] - levels) / math.sqrt(0.5 * 10.0 ** (-esn0_db / 10.0))
    # The difference from the nearer tail keeps small probabilities exact.
    regions = np.where(z[:-1] > 0, ndtr(-z[:-1]) - ndtr(-z[1:]), ndtr(z[1:]) - ndtr(z[:-1]))
    wrong = labels[:, None, :] != labels[None, :, :]
    return np.einsum("ji,jib->b", regions, wrong) / len(levels)


@pytest.mark.parametrize("order", ORDERS)
def test_bit_error_rates_are_the_probabilities_of_the_decision_regions(order):
    for esn0_db in ESN0_DB:
        expected = np.repeat(rates_by_regions(order, esn0_db), 2)
        np.testing.assert_allclose(bit_error_rates(order, esn0_db), expected, rtol=1e-11, atol=1e-300)


def tail(x):
    return ndtr(-x)


def test_qpsk_and_16_qam_have_their_textbook_rates():
    esn0 = 10.0 ** (ESN0_DB / 10.0)
    np.testing.assert_allclose(ber_awgn(4, ESN0_DB), tail(np.sqrt(esn0)), rtol=1e-13)
    a = np.sqrt(esn0 / 5.0)
    expected = (3.0 * tail(a) + 2.0 * tail(3.0 * a) - tail(5.0 * a)) / 4.0
    np.testing.assert_allclose(ber_awgn(16, ESN0_DB), expected, rtol=1e-12)
    np.testing.assert_allclose(ber_awgn(16, 12.0), 0.02813, atol=5e-6)


def test_rayleigh_qpsk_has_its_textbook_rate():
    esn0 = 10.0 ** (ESN0_DB / 10.0)
    np.testing.assert_allclose(ber_rayleigh(4, ESN0_DB), 0.5 * (1.0 - np.sqrt(esn0 / (2.0 + esn0))), rtol=1e-10)


def over_gains(order, esn0_db, k_factor):
    """Error rate averaged over the density of the gain |h|^2, Rician with a linear K-factor."""

    def density(gain):
        argument = 2.0 * math.sqrt(k_factor * (1.0 + k_factor) * gain)
        return (1.0 + k_factor) * math.exp(argument - k_factor - (1.0 + k_factor) * gain) * ive(0, argument)

    def integrand(gain):
        return density(gain) * float(ber_awgn(order, esn0_db + 10.0 * math.log10(gain)))

    # Panels that resolve the deep fades, where the errors are, and the line of sight.
    cuts = [1e-12, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 4.0, 8.0, 40.0]
    return sum(integrate.quad(integrand, a, b, epsabs=0.0, epsrel=1e-11)[0] for a, b in itertools.pairwise(cuts))


@pytest.mark.parametrize("order", [4, 64, 4096])
@pytest.mark.parametrize("esn0_db", [-10.0, 5.0, 25.0])
def test_fading_averages_the_awgn_rate_over_the_gain(order, esn0_db):
    assert ber_rayleigh(order, esn0_db) == pytest.approx(over_gains(order, esn0_db, 0.0), rel=1e-8)
    for k_factor_db in (-5.0, 6.0, 15.0):
        expected = over_gains(order, esn0_db, 10.0 ** (k_factor_db / 10.0))
        assert ber_rician(order, esn0_db, k_factor_db) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("order", ORDERS)
def test_rician_fading_lies_between_rayleigh_and_awgn_and_reaches_both(order):
    esn0_db = np.array([-30.0, 0.0, 20.0, 60.0])
    np.testing.assert_allclose(ber_rician(order, esn0_db, -300.0), ber_rayleigh(order, esn0_db), rtol=1e-12)
    # With K = 120 dB the gain varies by 1e-6.
    np.testing.assert_allclose(ber_rician(order, esn0_db[:2], 120.0), ber_awgn(order, esn0_db[:2]), rtol=1e-9)
    assert ber_awgn(order, 20.0) < ber_rician(order, 20.0, 6.0) < ber_rayleigh(order, 20.0)


@pytest.mark.parametrize("order", ORDERS)
def test_rates_fall_with_the_snr_and_rise_with_the_place_of_the_bit(order):
    esn0_db = np.linspace(-20.0, 40.0, 61)
    for rates in (ber_awgn(order, esn0_db), ber_rayleigh(order, esn0_db), ber_rician(order, esn0_db, 6.0)):
        assert rates.shape == esn0_db.shape
        assert (np.diff(rates) <= 0.0).all()
    by_bit = bit_error_rates(order, esn0_db)
    assert by_bit.shape == (61, bits_per_symbol(order))
    np.testing.assert_array_equal(by_bit[:, 0::2], by_bit[:, 1::2])
    assert (np.diff(by_bit[:, 0::2], axis=-1) >= 0.0).all()
    np.testing.assert_allclose(by_bit.mean(axis=-1), ber_awgn(order, esn0_db), rtol=1e-13)


DEMAPPERS = {"max-log": max_log_llr, "app": app_llr}


def mean_abs_by_quadrature(order, esn0_db, demapper):
    """Mean |LLR| by a trapezoidal rule fine enough for the kinks, over link's own demapper."""
    no = 10.0 ** (-esn0_db / 10.0)
    sigma = math.sqrt(no / 2.0)
    levels = np.unique(points(order)[:, 0])
    y = np.linspace(-levels[-1] - 9.0 * sigma, levels[-1] + 9.0 * sigma, 200_001)
    density = np.zeros_like(y)
    for level in levels:
        density += np.exp(-((y - level) ** 2) / no) / (math.sqrt(math.pi * no) * len(levels))
    llr = DEMAPPERS[demapper](np.stack([y, y], axis=-1), np.full(len(y), no), order)
    return integrate.trapezoid(np.abs(llr).mean(axis=-1) * density, y)


@pytest.mark.parametrize("order", [4, 16, 64, 256])
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_the_mean_llr_is_that_of_the_demapper(demapper, order):
    for esn0_db in (-10.0, 3.0, 15.0, 30.0):
        assert mean_abs_llr(order, esn0_db, demapper) == pytest.approx(
            mean_abs_by_quadrature(order, esn0_db, demapper), rel=1e-7
        )


def test_the_mean_llr_of_qpsk_is_a_folded_normal():
    # |LLR| is |N(mu, 2 mu)| with mu = 2 Es/N0.
    mu = 2.0 * 10.0 ** (ESN0_DB / 10.0)
    sigma = np.sqrt(2.0 * mu)
    expected = sigma * math.sqrt(2.0 / math.pi) * np.exp(-(mu**2) / (2.0 * sigma**2)) + mu * (
        1.0 - 2.0 * ndtr(-mu / sigma)
    )
    for demapper in DEMAPPERS:
        np.testing.assert_allclose(mean_abs_llr(4, ESN0_DB, demapper), expected, rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_the_two_demappers_meet_at_high_snr(order):
    np.testing.assert_allclose(mean_abs_llr(order, 55.0, "app"), mean_abs_llr(order, 55.0, "max-log"), rtol=1e-9)


def test_the_mean_llr_keeps_the_shape_of_the_snrs():
    assert mean_abs_llr(16, 3.0).shape == ()
    grid = mean_abs_llr(16, [[0.0, 3.0], [6.0, 9.0]])
    assert grid.shape == (2, 2)
    assert grid[0, 1] == mean_abs_llr(16, 3.0)


def test_an_unknown_demapper_is_refused():
    with pytest.raises(ArgumentError, match="demapper must be max-log or app, got 'maxlog'"):
        mean_abs_llr(16, 3.0, "maxlog")
