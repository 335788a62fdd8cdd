"""What changes along a frame: the carrier's phase and a fade, seen at the pilots, and the clock, seen in when symbols come.

A pilot over its known value is g[p] + w[p], g about 1. What is left of the carrier's offset turns it steadily and is found
over all pilots at once; what is left then is taken for a random walk, whose variance a step is told by the pilots too, and
smoothed as that calls for: over the whole frame where there is none, over a few pilots where the oscillator is poor or the
channel fades.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from link.radio.modem.peak import circular_peak

_FFT: Final = 16
"""Bins of the spectrum of the pilots for each of them, before the peak is interpolated."""
_GAINS: Final = (0.01, 0.03, 0.08, 0.2, 0.4, 0.6, 0.8, 0.93)
"""Of the smoother: a memory of 100 pilots, and so on down to a pilot alone; one between two of them gains 0.1 dB at most."""


def pilot_frequency(pilots: NDArray[np.complex128], spacing: int, most: float = 0.5) -> float:
    """Frequency of a steady turn, cycles a symbol, below 1 / (2 spacing): the peak of the pilots' spectrum.

    Parameters
    ----------
    pilots : (n,) complex
        Received over known, `spacing` symbols apart.
    spacing : int
    most : float
        Largest frequency that it may have, cycles a symbol: of few pilots in much noise the highest peak may be anywhere.
    """
    size = _FFT * (1 << (len(pilots) - 1).bit_length())
    power = np.abs(np.fft.fft(pilots, size)) ** 2
    power[np.abs(np.fft.fftfreq(size, spacing)) > most] = 0.0
    return circular_peak(power) / (size * spacing)


def smooth_gain(pilots: NDArray[np.complex128], no: float) -> NDArray[np.complex128]:
    """The gain at each pilot.

    The smoother is that of Rauch, Tung and Striebel (1965) in its steady state: one exponential forwards and one backwards.
    Their own gain g stands for the walk, and is the most likely one: what a pilot is off its prediction by has the variance
    no / (1 - g).

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
    both = np.stack([pilots, pilots[::-1]])
    least, smoothed = math.inf, pilots
    for gain in _GAINS:
        filtered = _exponential(both, gain)
        variance = max(no, 1e-9) / (1.0 - gain)
        errors = 0.5 * float(np.sum(np.abs(both[:, 1:] - filtered[:, :-1]) ** 2))
        surprise = errors / variance + (count - 1) * math.log(variance)
        if surprise < least:
            least, smoothed = surprise, (filtered[0] + filtered[1, ::-1] - gain * pilots) / (2.0 - gain)
    return np.asarray(smoothed)


def _exponential(values: NDArray[np.complex128], gain: float) -> NDArray[np.complex128]:
    """Exponential smoothing of each row, that begins with the mean of what its memory will hold."""
    memory = min(values.shape[-1], max(1, round(1.0 / gain)))
    state = (1.0 - gain) * values[:, :memory].mean(axis=-1, keepdims=True)
    return np.asarray(lfilter([gain], [1.0, gain - 1.0], values, zi=state)[0])


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


class TimingSlope(NamedTuple):
    """By how much symbols are taken later and later, symbols a symbol, and the standard deviation of that figure."""

    value: float
    deviation: float


def timing_slope(
    symbols: NDArray[np.complex128],
    decided: NDArray[np.complex128],
    derivative: NDArray[np.complex128],
) -> TimingSlope:
    """By how much symbols are taken later and later: the least-squares fit of x + (a + b n) dx/dt.

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
    inverse = np.linalg.pinv(moments)
    # Noise of variance no a symbol has no / 2 along a derivative.
    variance = 0.5 * float(np.mean(np.abs(symbols - decided) ** 2)) * inverse[1, 1]
    return TimingSlope(float(inverse[1] @ right) / len(symbols), math.sqrt(max(variance, 0.0)) / len(symbols))
