"""Capacities and dispersions, by entropies and adaptive integration, by simulation and at their limits."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate
from scipy.special import exp1, logsumexp, ndtr, ndtri

from link.bits import label_bits
from link.capacity import (
    capacity,
    capacity_snr_db,
    information,
    normal_approximation_bits,
    normal_approximation_bler,
    normal_approximation_snr_db,
    rayleigh_capacity,
    rayleigh_outage,
)
from link.constellation import ORDERS, app_llr, bits_per_symbol, map_bits, points
from link.errors import ArgumentError
from link.snr import no_from_esn0_db

SNR_DB = np.array([-20.0, -3.0, 5.0, 12.0, 20.0, 30.0])
DECODINGS = ("cm", "bicm")


def dimension(order, snr_db):
    """Amplitudes of one dimension, their labels, and the deviation of the noise."""
    bits = label_bits(np.arange(order), bits_per_symbol(order))
    row = (bits[:, 1::2] == 0).all(axis=1)
    return points(order)[row, 0], bits[row, 0::2], math.sqrt(no_from_esn0_db(snr_db) / 2.0)


def log_density(y, amplitudes, deviation):
    """Of amplitude + noise, the amplitude uniform."""
    return (
        logsumexp(-0.5 * ((y - amplitudes) / deviation) ** 2)
        - math.log(len(amplitudes) * deviation)
        - 0.9189385332046727
    )


def integral(function, amplitudes, deviation):
    """Over all that can be received, in panels of two deviations at most."""
    end = np.abs(amplitudes).max() + 11.0 * deviation
    cuts = np.linspace(-end, end, 2 + math.ceil(end / deviation))
    return sum(integrate.quad(function, a, b, epsabs=0.0, epsrel=1e-10)[0] for a, b in itertools.pairwise(cuts))


def entropy(amplitudes, deviation):
    """Of what is received, bits."""

    def integrand(y):
        log_p = log_density(y, amplitudes, deviation)
        return -math.exp(log_p) * log_p / math.log(2.0)

    return integral(integrand, amplitudes, deviation)


@pytest.mark.parametrize("order", [4, 16, 64])
def test_capacities_are_differences_of_entropies(order):
    for snr_db in SNR_DB[:5]:
        amplitudes, labels, deviation = dimension(order, snr_db)
        received = entropy(amplitudes, deviation)
        cm = received - 0.5 * math.log2(2.0 * math.pi * math.e * deviation**2)
        bicm = sum(
            received - 0.5 * sum(entropy(amplitudes[column == bit], deviation) for bit in (0, 1)) for column in labels.T
        )
        assert capacity(snr_db, order) == pytest.approx(2.0 * cm, abs=1e-9)
        assert capacity(snr_db, order, "bicm") == pytest.approx(2.0 * bicm, abs=1e-9)


@pytest.mark.parametrize("order", [4, 16, 64])
def test_dispersions_are_variances_of_the_information_density(order):
    for snr_db in SNR_DB[:5]:
        amplitudes, labels, deviation = dimension(order, snr_db)
        end = amplitudes.max() + 10.0 * deviation
        # The trapezoidal rule over what is received, with steps far below the noise.
        y = np.arange(-end, end, 0.01 * deviation)
        given = np.exp(-0.5 * ((y[:, None] - amplitudes) / deviation) ** 2) / math.sqrt(2.0 * math.pi)
        received = given.mean(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            cm = np.log2(given / received[:, None])
            bicm = np.zeros_like(given)
            for column in labels.T:
                for bit in (0, 1):
                    same = column == bit
                    bicm[:, same] += np.log2(given[:, same].mean(axis=1) / received)[:, None]
        for density, decoding in ((cm, "cm"), (bicm, "bicm")):
            density[given == 0.0] = 0.0
            weights = 0.01 * given / len(amplitudes)
            mean = (weights * density).sum()
            variance = (weights * (density - mean) ** 2).sum()
            ours = information(snr_db, order, decoding)
            assert ours.capacity == pytest.approx(2.0 * mean, abs=1e-9)
            assert ours.dispersion == pytest.approx(2.0 * variance, abs=1e-9)


@pytest.mark.parametrize("order", [16, 256, 4096])
def test_bit_interleaved_information_is_what_the_demapper_gives(order):
    snr_db, count = 15.0, 20_000
    generator = np.random.default_rng(3)
    bits = generator.integers(0, 2, (count, 1, bits_per_symbol(order)))
    no = no_from_esn0_db(snr_db)
    y = map_bits(bits.astype(np.float64)) + math.sqrt(no / 2.0) * generator.standard_normal((count, 1, 2))
    llr = app_llr(y, np.full((count, 1), no), order)
    # i(B; Y) = log2 P(b | y) / (1/2), with P(b | y) from the LLR.
    density = (1.0 - np.logaddexp(0.0, np.where(bits == 1, -llr, llr)) / math.log(2.0)).sum(axis=(1, 2))
    mean, variance = information(snr_db, order, "bicm")
    assert abs(density.mean() - mean) < 4.0 * density.std() / math.sqrt(count)
    squares = (density - mean) ** 2
    assert abs(squares.mean() - variance) < 4.0 * squares.std() / math.sqrt(count)


def test_antipodal_signals_have_their_known_limits():
    # Eb/N0 at rate 1/2, and at rate 1/3, where a QPSK symbol carries 1 and 2/3 bits.
    assert capacity_snr_db(1.0, 4) == pytest.approx(0.187, abs=5e-4)
    assert capacity_snr_db(2.0 / 3.0, 4) - 10.0 * math.log10(2.0 / 3.0) == pytest.approx(-0.497, abs=2e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_capacities_keep_their_order_and_rise_with_the_snr(order):
    snr_db = np.arange(-30.0, 61.0, 6.0)
    m = bits_per_symbol(order)
    gaussian, cm, bicm = capacity(snr_db), capacity(snr_db, order), capacity(snr_db, order, "bicm")
    assert (bicm > 0.0).all()
    assert (bicm <= cm + 1e-12).all()
    assert (cm <= np.minimum(gaussian, m)).all()
    assert (np.diff(cm[cm < m - 1e-12]) > 0.0).all()
    assert (np.diff(bicm[bicm < m - 1e-12]) > 0.0).all()
    if order == 4:
        np.testing.assert_allclose(bicm, cm, rtol=1e-12)
        for ours, theirs in zip(information(snr_db, 4, "bicm"), information(snr_db, 4), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("order", ORDERS)
def test_capacities_reach_their_limits(order):
    if order < 4096:
        for decoding in DECODINGS:
            assert capacity(60.0, order, decoding) == pytest.approx(bits_per_symbol(order), abs=1e-12)
            assert information(60.0, order, decoding).dispersion == pytest.approx(0.0, abs=1e-12)
    # C = (SNR - SNR^2 / 2 + ...) / ln 2 for any input of zero mean and equal power in both dimensions, and V = 2 C / ln 2.
    snr = 1e-3
    assert capacity(-30.0, order) == pytest.approx((snr - snr**2 / 2.0) / math.log(2.0), rel=1e-6)
    assert information(-30.0, order).dispersion == pytest.approx(2.0 * snr / math.log(2.0) ** 2, rel=3.0 * snr)
    assert information(-30.0).dispersion == pytest.approx(2.0 * snr / math.log(2.0) ** 2, rel=3.0 * snr)


def test_gray_labels_lose_a_fifth_of_the_capacity_of_16_qam_at_low_snr():
    # Its slope is the energy of the mean symbol given a bit, summed over bits: 2^2 / 5 for the sign, none for the other.
    assert capacity(-30.0, 16, "bicm") / capacity(-30.0, 16) == pytest.approx(0.8, abs=2e-3)


def test_rayleigh_capacity_of_gaussian_inputs_is_its_closed_form():
    snr = 10.0 ** (SNR_DB[1:] / 10.0)
    expected = np.exp(1.0 / snr) * exp1(1.0 / snr) / math.log(2.0)
    np.testing.assert_allclose(rayleigh_capacity(SNR_DB[1:]), expected, rtol=1e-11)


@pytest.mark.parametrize("decoding", DECODINGS)
def test_rayleigh_capacity_is_the_mean_over_gains(decoding):
    for snr_db in (0.0, 18.0):

        def integrand(gain, snr_db=snr_db):
            return float(capacity(snr_db + 10.0 * math.log10(gain), 16, decoding)) * math.exp(-gain)

        cuts = [1e-14, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 40.0]
        expected = sum(integrate.quad(integrand, a, b, epsrel=1e-9)[0] for a, b in itertools.pairwise(cuts))
        assert rayleigh_capacity(snr_db, 16, decoding) == pytest.approx(expected, rel=1e-8)
        assert rayleigh_capacity(snr_db, 16, decoding) < capacity(snr_db, 16, decoding)


@pytest.mark.parametrize(("order", "decoding"), [(None, "cm"), (16, "cm"), (16, "bicm")])
def test_outage_is_how_often_a_gain_is_too_small(order, decoding):
    snr_db, bits, count = 8.0, 1.5, 4000
    gains = np.random.default_rng(4).exponential(size=count)
    outages = capacity(snr_db + 10.0 * np.log10(gains), order, decoding) < bits
    expected = float(rayleigh_outage(bits, snr_db, order, decoding))
    assert abs(outages.mean() - expected) < 4.0 * math.sqrt(expected * (1.0 - expected) / count)
    if order is None:
        assert expected == pytest.approx(-math.expm1(-(2.0**bits - 1.0) / 10.0**0.8), rel=1e-12)


def test_results_have_the_shape_of_the_snrs():
    grid = np.array([[0.0, 5.0], [10.0, 15.0]])
    for function in (capacity, rayleigh_capacity):
        for order in (None, 16):
            assert function(3.0, order).shape == ()
            assert function(grid, order).shape == (2, 2)
            assert function(grid, order)[1, 0] == pytest.approx(float(function(10.0, order)), rel=1e-14)
    assert normal_approximation_bler(100, 100, grid, 16).shape == (2, 2)


def test_the_normal_approximation_is_that_of_twice_as_many_real_symbols():
    # A thousand uses of the real channel at 0 dB: C = 1/2, V = 3/8 log2(e)^2.
    deviation = math.sqrt(1000.0 * 3.0 / 8.0) / math.log(2.0)
    bits = 500.0 + deviation * ndtri(1e-3) + 0.5 * math.log2(1000.0)
    assert normal_approximation_bits(500, 1e-3, 0.0) == pytest.approx(bits, rel=1e-12)
    expected = ndtr((420.0 - 500.0 - 0.5 * math.log2(1000.0)) / deviation)
    assert normal_approximation_bler(420, 500, 0.0) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("order", "decoding"), [(4, "cm"), (16, "cm"), (16, "bicm")])
def test_random_codes_stay_above_the_normal_approximation_and_near_it(order, decoding):
    """The dependence-testing bound (Polyanskiy, Poor, Verdu 2010, theorem 17), which some code reaches."""
    n, rows, snr_db = 250, 20_000, 3.0
    k = int(normal_approximation_bits(n, 1e-2, snr_db, order, decoding))
    amplitudes, labels, deviation = dimension(order, snr_db)
    generator = np.random.default_rng(2)
    total = np.zeros(rows)
    for _ in range(2 * n):
        sent = generator.integers(len(amplitudes), size=rows)
        y = amplitudes[sent] + deviation * generator.standard_normal(rows)
        likelihood = np.exp(-0.5 * ((y[:, None] - amplitudes) / deviation) ** 2)
        received = np.log2(likelihood.mean(axis=1))
        if decoding == "cm":
            total += np.log2(likelihood[np.arange(rows), sent]) - received
        else:
            for column in labels.T:
                same = column == column[sent][:, None]
                total += np.log2((likelihood * same).sum(axis=1) / same.sum(axis=1)) - received
    errors = 2.0 ** -np.maximum(total - (k - 1), 0.0)
    bound, error = errors.mean(), errors.std() / math.sqrt(rows)
    approximation = float(normal_approximation_bler(k, n, snr_db, order, decoding))
    assert approximation < bound + 4.0 * error
    # The bound has no log2(2 n) / 2, and otherwise differs by a constant number of bits: here less than 4 of over 300.
    shifted = k + math.ceil(0.5 * math.log2(2.0 * n)) + 4
    assert bound - 4.0 * error < float(normal_approximation_bler(shifted, n, snr_db, order, decoding))


@pytest.mark.parametrize(("order", "decoding"), [(None, "cm"), (4, "cm"), (64, "cm"), (64, "bicm")])
def test_inverses_lead_back(order, decoding):
    k, n, bler = 1000, 800, 1e-5
    snr_db = normal_approximation_snr_db(k, n, bler, order, decoding)
    assert normal_approximation_bler(k, n, snr_db, order, decoding) == pytest.approx(bler, rel=1e-9)
    assert normal_approximation_bits(n, bler, snr_db, order, decoding) == pytest.approx(k, rel=1e-12)
    limit = capacity_snr_db(k / n, order, decoding)
    assert capacity(limit, order, decoding) == pytest.approx(k / n, rel=1e-12)
    assert snr_db > limit
    longer = normal_approximation_snr_db(10**6 * k, 10**6 * n, bler, order, decoding)
    assert longer == pytest.approx(limit, abs=0.02)


def test_nearly_all_bits_of_a_noiseless_constellation_get_through():
    assert normal_approximation_bler(1999, 1000, 60.0, 4) == 0.0
    assert normal_approximation_bits(1000, 1e-3, 60.0, 4) == 2000.0
    assert normal_approximation_bits(1, 1e-100, -30.0) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: capacity(0.0, 8), "order must be one of"),
        (lambda: capacity(0.0, 16, "mlc"), "decoding must be cm or bicm, got 'mlc'"),
        (lambda: capacity_snr_db(2.0, 4), "bits must be above 0 and below 2, got 2"),
        (lambda: capacity_snr_db(0.0), "bits must be above 0, got 0"),
        (lambda: capacity_snr_db(30.0), r"bits must be reached in \[-30, 60\] dB, got 30"),
        (lambda: normal_approximation_bler(200, 100, 0.0, 4), r"k must be in \[1, 200\), got 200"),
        (lambda: normal_approximation_bler(0, 100, 0.0), r"k must be in \[1, inf\), got 0"),
        (lambda: normal_approximation_bits(0, 1e-3, 0.0), "n_symbols must be in"),
        (lambda: normal_approximation_bits(100, 0.0, 0.0), r"bler must be in \(0, 1\), got 0"),
        (lambda: normal_approximation_snr_db(1, 10**6, 1e-3), r"bler must be reached in \[-30, 60\] dB, got 0.001"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
