import numpy as np
import pytest

from link.radio.modem.pulse import Pulse
from link.radio.modem.sampling import half_symbols

PULSE = Pulse(span=64)
SYMBOLS = np.random.default_rng(1).choice([-1, 1], size=(300, 2)) @ [0.5**0.5, 0.5**0.5 * 1j]


def heard(times):
    """Behind the matched filter at times in symbols: each symbol's raised cosine."""
    return PULSE.correlation(np.asarray(times)[:, None] - np.arange(len(SYMBOLS))) @ SYMBOLS


@pytest.mark.parametrize("late", [0.0, 0.003, 0.3, 0.5, 0.999, -0.2])
@pytest.mark.parametrize("clock", [0.0, 1e-4, -1e-3])
def test_half_symbols_are_taken_at_their_instants(late, clock):
    samples = PULSE.shape(SYMBOLS)
    start = PULSE.reach + 4 * 100 + late
    found = half_symbols(samples, PULSE, start, 0.0, -20, 200, clock)
    wanted = heard(100 + late / 4 + np.arange(-20, 180) / 2 * (1 + clock))
    # The pulse is cut 64 symbols away, instants are rounded to 1 / 4096 of a sample, a window of 16 samples leaves -60 dB.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3)


def test_the_carrier_s_offset_is_removed_and_its_phase_kept_where_it_begins():
    samples = PULSE.shape(SYMBOLS)
    start, cfo = PULSE.reach + 400.25, 2e-3
    turned = samples * np.exp(2j * np.pi * cfo * (np.arange(len(samples)) - start))
    found = half_symbols(turned.astype(np.complex64), PULSE, start, cfo, -20, 200)
    np.testing.assert_allclose(found, half_symbols(samples, PULSE, start, 0.0, -20, 200), rtol=0, atol=1e-5)


@pytest.mark.parametrize("first", [-5000, -300, 500, 9000])
def test_beyond_the_samples_there_is_silence(first):
    samples = PULSE.shape(SYMBOLS)
    padded = np.concatenate([np.zeros(12_000, np.complex64), samples, np.zeros(24_000, np.complex64)])
    found = half_symbols(samples, PULSE, PULSE.reach + 0.4, 0.0, first, 100)
    wanted = half_symbols(padded, PULSE, PULSE.reach + 0.4 + 12_000, 0.0, first, 100)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
