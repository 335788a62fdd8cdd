"""What a radio does to samples, each effect by itself, in double precision.

Effects with a memory are classes: called with one stretch of the stream after the other, they give what they would give for
the whole of it, to the last bit. Phases and sampling instants are found from the number of the sample, exactly modulo 1, so
that they do not drift away in a long run.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from link.device import host_engine
from link.randomness import Draws, Stream

Signal: TypeAlias = NDArray[np.complex128]

_SPAN: Final = 1 << 12
_SEGMENT: Final = 1 << 28
_SEGMENTS: Final = 1000
_POINTS: Final = 1 << 17
_BESIDE: Final = 8
"""What is sent beside the payload, as headers are, takes its numbers from the streams so many further on."""

# Windowed sinc: an interpolation that passes |f| <= 0.35 cycles a sample and stops the images from 0.65 on. Kaiser's formula
# gives (A - 8) / (2.285 * 2 pi * 0.3) = 24 taps for A = 111 dB; the window is chosen for 100 dB. Between its 1024 phases
# the taps are interpolated linearly: (1 / 1024)^2 / 8 * max |h''| = 4e-7 (h'' = pi^2 / 3) is -128 dB.
TAPS: Final = 24
_BEFORE: Final = TAPS // 2 - 1
LATENCY: Final = TAPS // 2 + 1
_PHASES: Final = 1024
_BETA: Final = 0.1102 * (100.0 - 8.7)


def amplitude(decibels: float) -> float:
    """Ratio of amplitudes.

    Examples
    --------
    >>> round(amplitude(6.0), 3)
    1.995
    """
    return float(10.0 ** (decibels / 20.0))


def sent_with_imbalance(samples: Signal, gain_db: float, phase_deg: float) -> Signal:
    """I cos(wt) - g Q sin(wt + phi) instead of I cos(wt) - Q sin(wt): at baseband I + j g exp(j phi) Q.

    With G1, G2 = (1 +- g exp(j phi)) / 2 this is G1 x + G2 conj(x): the image stands |G2 / G1|^2 below the signal.
    """
    found: Signal = samples.real + (1j * cmath.rect(amplitude(gain_db), math.radians(phase_deg))) * samples.imag
    return found


def received_with_imbalance(samples: Signal, gain_db: float, phase_deg: float) -> Signal:
    """Q is mixed with -g sin(wt + phi): I + j g (Q cos phi - I sin phi).

    With K1 = (1 + g exp(-j phi)) / 2 and K2 = (1 - g exp(j phi)) / 2 this is K1 x + K2 conj(x).
    """
    gain, phase = amplitude(gain_db), math.radians(phase_deg)
    found = samples.copy()
    found.imag *= gain * math.cos(phase)
    found.imag -= (gain * math.sin(phase)) * samples.real
    return found


def quantised(samples: Signal, bits: int, full_scale: float) -> Signal:
    """I and Q from a converter: k 2^(1-bits) full_scale with an integer k in [-2^(bits-1), 2^(bits-1) - 1]."""
    most = 1 << (bits - 1)
    steps = np.rint(samples.view(np.float64) * (most / full_scale))
    found: Signal = (np.clip(steps, -most, most - 1) * (full_scale / most)).view(np.complex128)
    return found


class Randomness:
    """Normals at the samples of one stream, by address: (seed, sample, draw) of the row, the point, and the sample's number.

    The counter has 2^28 words for them; then it goes on in another point, and after 2.7e11 samples it begins anew.

    Parameters
    ----------
    draws : Draws
        Its first row alone is taken, within Stream.RADIO; those within another stream give other numbers.
    point : int
        Which SNR, in millidecibels.
    """

    def __init__(self, draws: Draws, point: int) -> None:
        self._draws = replace(draws.rows(slice(0, 1)), within=Stream.RADIO, engine=host_engine())
        self._beside = 0 if draws.within is None else _BESIDE
        self._point = point

    def pairs(self, stream: Stream, start: int, count: int) -> NDArray[np.float64]:
        """(count, 2) standard normals of samples `start` on."""
        found = [
            self._draws.normals(Stream(stream + self._beside), self._point + _POINTS * (segment % _SEGMENTS), n, first)[
                0
            ]
            for segment, first, n in _spans(start, count, _SEGMENT)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)


def noise(randomness: Randomness, n0: float, start: int, count: int) -> Signal:
    """White circular Gaussian noise, of variance `n0` a complex sample."""
    pairs = randomness.pairs(Stream.NOISE, start, count) * math.sqrt(n0 / 2.0)
    found: Signal = pairs.view(np.complex128)[:, 0]
    return found


class PhaseNoise:
    """Phases of an oscillator that wander (Wiener): each sample adds a normal of variance `rad2` to the phase."""

    def __init__(self, rad2: float, randomness: Randomness) -> None:
        self._scale = math.sqrt(rad2)
        self._randomness = randomness
        self._last = 0.0

    def __call__(self, start: int, count: int) -> NDArray[np.float64]:
        """(count,) rad."""
        steps = self._randomness.pairs(Stream.FADING, start, count)[:, 0] * self._scale
        steps[:1] += self._last
        phases = np.cumsum(steps)
        self._last = float(phases[-1])
        return phases


def carrier(start: int, count: int, cfo: float, drift: float, phase: float) -> NDArray[np.float64]:
    """Phases of a carrier off by `cfo` cycles a sample, and by `drift` more with each sample.

    2 pi (cfo n + drift n^2 / 2) + phase. What it is at every 4096th sample is found in fractions and taken modulo 1 before
    it is rounded, so that sample 10^9 is as exact as the first.

    Returns
    -------
    (count,) float64
        rad.
    """
    found = np.empty(count)
    at, f, d = 0, Fraction(cfo), Fraction(drift)
    for span, first, n in _spans(start, count, _SPAN):
        base = span * _SPAN
        cycles = float((f * base + d * base * base / 2) % 1)
        frequency = float((f + d * base) % 1)
        k = np.arange(first, first + n, dtype=np.float64)
        turns = cycles + k * (frequency + (0.5 * drift) * k)
        found[at : at + n] = (2.0 * math.pi) * turns + phase
        at += n
    return found


def rotated(samples: Signal, phases: NDArray[np.float64]) -> Signal:
    """Each sample by its phase, in rad."""
    turn = np.empty_like(samples)
    np.cos(phases, out=turn.real)
    np.sin(phases, out=turn.imag)
    turn *= samples
    return turn


class Multipath:
    """A finite impulse response: y[n] = sum_k h[k] x[n - k], x = 0 in front of the stream.

    Parameters
    ----------
    taps : (k,) complex
        At the sample rate; as they are, without normalisation. Zeros cost nothing.
    """

    def __init__(self, taps: tuple[complex, ...]) -> None:
        self._taps = [(delay, tap) for delay, tap in enumerate(taps) if tap]
        self._tail: Signal = np.zeros(len(taps) - 1, dtype=np.complex128)

    def __call__(self, samples: Signal) -> Signal:
        held = np.concatenate([self._tail, samples])
        memory = len(self._tail)
        found = np.zeros_like(samples)
        for delay, tap in self._taps:
            found += held[memory - delay : len(held) - delay] * tap
        self._tail = held[len(samples) :].copy()
        return found


class Resampler:
    """A receiver's clock: output m is the signal at m / (1 + ppm 1e-6) - delay samples, zero in front of the stream.

    A sample comes out once the 13 behind its instant have come in. It takes 12 of them: instants are rounded, and one next
    to a sample may fall on either side of it.
    """

    def __init__(self, clock_ppm: float, delay: float) -> None:
        self._step = 1 / (1 + Fraction(clock_ppm) / 10**6)
        self._delay = Fraction(delay)
        self._next = 0
        self._first = math.floor(-self._delay) - _BEFORE - 1
        self._held: Signal = np.zeros(-self._first, dtype=np.complex128)

    def __call__(self, samples: Signal) -> Signal:
        held = np.concatenate([self._held, samples])
        last = self._first + len(held) - LATENCY
        end = max(self._next, math.ceil((last + self._delay) / self._step))
        found = [self._at(held, span, first, n) for span, first, n in _spans(self._next, end - self._next, _SPAN)]
        self._next = end
        drop = max(0, math.floor(end * self._step - self._delay) - _BEFORE - 1 - self._first)
        self._held, self._first = held[drop:].copy(), self._first + drop
        return np.concatenate(found) if found else np.zeros(0, dtype=np.complex128)

    def _at(self, held: Signal, span: int, first: int, count: int) -> Signal:
        base = span * _SPAN * self._step - self._delay
        whole = math.floor(base)
        instants = float(base - whole) + np.arange(first, first + count) * float(self._step)
        integers = np.floor(instants)
        rows = integers.astype(np.int64) + (whole - _BEFORE - self._first)
        phases = (instants - integers) * _PHASES
        index = phases.astype(np.int64)
        weights = _TABLE[index]
        weights += _SLOPE[index] * (phases - index)[:, None]
        windows = np.lib.stride_tricks.sliding_window_view(held, TAPS)[rows]
        found = np.empty(count, dtype=np.complex128)
        np.einsum("ij,ij->i", windows.real, weights, out=found.real)
        np.einsum("ij,ij->i", windows.imag, weights, out=found.imag)
        return found


def _windowed_sinc() -> NDArray[np.float64]:
    """(phases + 1, TAPS) weights of the samples at n - 11 ... n + 12, for the instants n + p / phases."""
    offsets = np.arange(-_BEFORE, TAPS // 2 + 1) - np.arange(_PHASES + 1)[:, None] / _PHASES
    inside = np.maximum(0.0, 1.0 - (offsets / (TAPS // 2)) ** 2)
    window = np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA)
    found: NDArray[np.float64] = np.sinc(offsets) * window
    return found


def _spans(start: int, count: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(number, first, length) of what lies in each stretch of `size`, counted from 0."""
    end = start + count
    while start < end:
        number, first = divmod(start, size)
        length = min(size - first, end - start)
        yield number, first, length
        start += length


_TABLE: Final = _windowed_sinc()[:-1]
_SLOPE: Final = np.diff(_windowed_sinc(), axis=0)
