"""What changes along a frame: the carrier's phase and a fade, seen at the pilots, and the clock, seen in when symbols come.

A pilot over its known value is g[p] + w[p], g about 1. What is left of the carrier's offset turns it steadily and is found
over all pilots at once; what is left then is taken for a random walk, whose variance a step is estimated from the pilots
too, and smoothed as that calls for: over the whole frame where there is none, over a few pilots where the oscillator is poor
or the channel fades.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from link.radio.peak import circular_peak

_FFT: Final = 16
"""Bins of the spectrum of the pilots for each of them, before the peak is interpolated."""
_WALK_MIN: Final = 1e-4
"""Least variance of the walk's step over that of a pilot's noise: the memory of 100 pilots."""


def pilot_frequency(pilots: NDArray[np.complex128], spacing: int) -> float:
    """Frequency of a steady turn, cycles a symbol, below 1 / (2 spacing): the peak of the pilots' spectrum."""
    size = _FFT * (1 << (len(pilots) - 1).bit_length())
    power = np.abs(np.fft.fft(pilots, size)) ** 2
    return circular_peak(power) / (size * spacing)


def smooth_gain(pilots: NDArray[np.complex128], no: float) -> NDArray[np.complex128]:
    """The gain at each pilot.

    The walk's step has the variance q that the pilots' differences over one and over two steps tell, as far as it is
    significant; the smoother is that of Rauch, Tung and Striebel (1965) in its steady state: one exponential
    forwards and one backwards.

    Parameters
    ----------
    pilots : (n,) complex
        Received over known, of mean amplitude 1.
    no : float
        Noise variance of one of them.
    """
    count = len(pilots)
    if count < 4:
        return np.full(count, pilots.mean())
    one = float(np.mean(np.abs(np.diff(pilots)) ** 2))
    two = float(np.mean(np.abs(pilots[2:] - pilots[:-2]) ** 2))
    r = max(no, 1e-9)
    q = max(two - one - 4.0 * r / math.sqrt(count), _WALK_MIN * r)
    predicted = 0.5 * (q + math.sqrt(q * q + 4.0 * q * r))
    gain = predicted / (predicted + r)
    both = _exponential(pilots, gain) + _exponential(pilots[::-1], gain)[::-1]
    return np.asarray((both - gain * pilots) / (2.0 - gain))


def _exponential(values: NDArray[np.complex128], gain: float) -> NDArray[np.complex128]:
    """Exponential smoothing that begins with the mean of what its memory will hold."""
    memory = min(len(values), max(1, round(1.0 / gain)))
    state = (1.0 - gain) * values[:memory].mean()
    return np.asarray(lfilter([gain], [1.0, gain - 1.0], values, zi=[state])[0])


def arrival_shift(response: NDArray[np.complex128], reference: NDArray[np.complex128]) -> float:
    """How much later a response comes than another one of the same channel, in places: the peak of their correlation."""
    fine = 16
    size = fine * 2 * len(response)
    spectrum = np.zeros(size, dtype=np.complex128)
    product = np.fft.fft(response, 2 * len(response)) * np.conj(np.fft.fft(reference, 2 * len(response)))
    half = len(response)
    spectrum[:half], spectrum[-half:] = product[:half], product[half:]
    power = np.abs(np.fft.ifft(spectrum)) ** 2
    return circular_peak(power) / fine


def timing_slope(
    symbols: NDArray[np.complex128],
    decided: NDArray[np.complex128],
    derivative: NDArray[np.complex128],
) -> float:
    """By how much symbols are taken later and later, symbols a symbol: the least-squares fit of x + (a + b n) dx/dt.

    Parameters
    ----------
    symbols, decided, derivative : (n,) complex
        Equalised symbols, what they were decided as, and the derivative of what was equalised, a symbol.
    """
    n = np.linspace(-0.5, 0.5, len(symbols))
    power = np.abs(derivative) ** 2
    error = np.real(np.conj(derivative) * (symbols - decided))
    moments = np.array([[np.sum(power * n**i * n**j) for i in range(2)] for j in range(2)])
    right = np.array([np.sum(error), np.sum(error * n)])
    return float(np.linalg.lstsq(moments, right)[0][1]) / len(symbols)
