import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from link.bits import group
from link.channel import Csi, Fading
from link.constellation import bits_per_symbol, map_bits, max_log_llr, points
from link.csi_theory import ber_estimated
from link.randomness import Draws, Stream
from link.snr import no_from_esn0_db
from link.theory import ber_rayleigh, ber_rician


def simulated(order, snr_db, fading, samples=60_000, symbols=4):
    """Bit error rate and its standard error; a sample has one gain."""
    m = bits_per_symbol(order)
    draws = Draws(3, np.arange(samples))
    bits = group(draws.bits(Stream.BITS, order, symbols * m), m)
    heard = fading(map_bits(bits.astype(np.float32)), np.full(samples, symbols), snr_db, draws)
    rates = ((max_log_llr(heard.y, heard.no, order) > 0.0) != bits).mean(axis=(1, 2))
    return rates.mean(), rates.std(ddof=1) / np.sqrt(samples)


def integrated(order, esn0_db, pilots):
    """LMMSE over Rayleigh fading, by going through all pairs of points of 16-QAM and integrating over |h_hat|^2."""
    no, d = no_from_esn0_db(esn0_db), 1.0 / np.sqrt(10.0)
    error = 1.0 / (1.0 + pilots / no)
    cells = {-3: (-np.inf, -2), -1: (-2, 0), 1: (0, 2), 3: (2, np.inf)}
    ideal = points(order)
    m = bits_per_symbol(order)
    bits = (np.arange(order)[:, None] >> np.arange(m - 1, -1, -1)) & 1

    def rate(gain):
        total = 0.0
        for sent, label in zip(ideal, bits, strict=True):
            sigma = np.sqrt((no + error * (sent**2).sum()) / (2.0 * gain))
            for decided, other in zip(ideal, bits, strict=True):
                chance = 1.0
                for a, b in zip(sent, decided, strict=True):
                    low, high = cells[round(b / d)]
                    chance *= ndtr((high * d - a) / sigma) - ndtr((low * d - a) / sigma)
                total += chance * (label != other).sum()
        return total / (order * m)

    scale = 1.0 - error
    return quad(lambda gain: rate(gain) * np.exp(-gain / scale) / scale, 0.0, 40.0 * scale, limit=200)[0]


@pytest.mark.parametrize("kind", ["ls", "lmmse"])
@pytest.mark.parametrize(("snr_db", "pilots"), [(-5.0, 1), (10.0, 2), (30.0, 4)])
def test_qpsk_fails_as_the_correlation_of_gain_and_symbol_says(kind, snr_db, pilots):
    no = no_from_esn0_db(snr_db)
    mu = np.sqrt(1.0 / ((1.0 + no / pilots) * (1.0 + no)))
    expected = 0.5 * (1.0 - mu / np.sqrt(2.0 - mu * mu))
    assert ber_estimated(4, snr_db, Fading(csi=Csi(kind, pilots))) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("snr_db", "pilots"), [(3.0, 1), (18.0, 2)])
def test_16qam_is_what_integration_over_all_pairs_of_points_gives(snr_db, pilots):
    found = ber_estimated(16, snr_db, Fading(csi=Csi("lmmse", pilots)))
    assert found == pytest.approx(integrated(16, snr_db, pilots), rel=1e-7)


@pytest.mark.parametrize("order", [4, 16, 256, 4096])
def test_with_many_pilots_it_is_that_of_known_gains(order):
    for k_factor_db in (None, 6.0):
        known = ber_rayleigh(order, 25.0) if k_factor_db is None else ber_rician(order, 25.0, k_factor_db)
        few, many = (ber_estimated(order, 25.0, Fading(0, k_factor_db, Csi("lmmse", p))) for p in (1, 1024))
        assert known < many < few
        assert many == pytest.approx(known, rel=3e-3)


@pytest.mark.parametrize(
    ("order", "snr_db", "fading"),
    [
        (4, 6.0, Fading(csi=Csi("ls", 1))),
        (4, 6.0, Fading(csi=Csi("lmmse", 2))),
        (4, 6.0, Fading(0, 3.0, Csi("lmmse", 1))),
        (16, 8.0, Fading(csi=Csi("ls", 1))),
        (16, 12.0, Fading(csi=Csi("lmmse", 2))),
        (16, 12.0, Fading(0, 3.0, Csi("lmmse", 1))),
        (16, 8.0, Fading(csi=Csi("lmmse", 1), no_offset_db=6.0)),
        (16, 8.0, Fading(csi=Csi("lmmse", 1), no_offset_db=-6.0)),
        (64, 16.0, Fading(csi=Csi("ls", 1))),
        # The mean of what is received for a point lies beyond a threshold: drawn in, and driven out.
        (16, 0.0, Fading(csi=Csi("ls", 1))),
        (16, 3.0, Fading(csi=Csi("lmmse", 1), no_offset_db=10.0)),
    ],
)
def test_simulation_finds_it(order, snr_db, fading):
    rate, error = simulated(order, snr_db, fading)
    assert abs(rate - ber_estimated(order, snr_db, fading)) < 4.0 * error
    assert error < 0.015 * rate
    # And not that of known gains.
    known = ber_rayleigh(order, snr_db) if fading.k_factor_db is None else ber_rician(order, snr_db, fading.k_factor_db)
    assert rate - known > 10.0 * error


def test_what_is_not_known_is_absent():
    assert ber_estimated(4, 6.0, Fading(0, 3.0, Csi("ls", 1))) is None
    assert ber_estimated(4, 6.0, Fading(0, 3.0, Csi("lmmse", 1), no_offset_db=3.0)) is None
