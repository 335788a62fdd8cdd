"""Complex baseband on a real carrier, and back, in numbers alone."""

import numpy as np
import pytest

from link.radio.frontends.passband import WIDEST, DownConverter, UpConverter, room

CARRIERS = [0.01, 0.125, 0.25, 0.4, 0.495]


def tone(nu, count):
    return np.exp(2j * np.pi * nu * np.arange(count)).astype(np.complex64)


@pytest.mark.parametrize("nu", CARRIERS)
def test_full_scale_stays_full_scale(nu):
    """I = Q = 1 has the magnitude sqrt 2, which 1 / sqrt 2 makes 1; a carrier a little off meets every phase."""
    s = UpConverter(nu + 0.00037)(np.full(4000, 1 + 1j, np.complex64))
    assert 0.99 < np.abs(s).max() <= 1 + 1e-6


@pytest.mark.parametrize("nu", CARRIERS)
@pytest.mark.parametrize("offset", [-WIDEST, -0.3, 0.0, 0.5, WIDEST])
def test_a_tone_comes_back_as_it_was_and_later_by_the_delay(nu, offset):
    """Within the ripple and the stopband of 80 dB: 1e-4 each, and float32's phase of the carrier is far finer."""
    down = DownConverter(nu, WIDEST * room(nu))
    x = tone(offset * room(nu), 4 * down.delay + 1000)
    came = down(UpConverter(nu)(x))[2 * down.delay :]
    assert np.abs(came - x[down.delay : -down.delay]).max() < 2.5e-4


@pytest.mark.parametrize("nu", CARRIERS)
def test_what_a_sound_card_has_at_frequency_zero_is_stopped(nu):
    """A constant of 1 is mixed to -nu with 2 sqrt 2, and is 80 dB below it; a dB is for the window's approximation."""
    down = DownConverter(nu, WIDEST * room(nu))
    came = down(np.ones(4 * down.delay + 1000, np.float32))[2 * down.delay :]
    assert np.abs(came).max() < 2 * np.sqrt(2) * 10 ** (-79 / 20)


def test_how_it_is_cut_changes_nothing():
    """But the carrier's phase in its last bits, for float64 sums of it differ: 1e-6 is float32's."""
    x = np.random.default_rng(3).normal(size=(5000, 2)) @ (0.1, 0.1j)
    whole = DownConverter(0.11, 0.05)(UpConverter(0.11)(x.astype(np.complex64)))
    up, down = UpConverter(0.11), DownConverter(0.11, 0.05)
    parts = [down(up(part.astype(np.complex64))) for part in np.split(x, [1, 1, 700, 701, 4096])]
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-6


def test_the_carrier_keeps_its_phase_from_call_to_call():
    """After 2**23 samples, three minutes at 48 kHz, compared with the phase in whole numbers; 1e-6 is float32's."""
    up = UpConverter(1 / 7)
    ones = np.ones(1 << 16, np.complex64)
    for _ in range(1 << 7):
        last = up(ones)
    start = ((1 << 7) - 1) * (1 << 16)
    exact = np.cos(2 * np.pi * ((start + np.arange(1 << 16)) % 7) / 7) / np.sqrt(2)
    assert np.abs(last - exact).max() < 1e-6
