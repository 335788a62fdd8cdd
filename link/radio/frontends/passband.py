"""Complex baseband on a real carrier: s = Re{x exp(j 2 pi nu t)} / sqrt 2, with nu in cycles a sample, and back.

So I and Q of size 1 reach a real amplitude of 1. What x holds farther from 0 than nu, or than 1/2 - nu, is folded.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, kaiserord, lfilter

from link.radio.frontend import Samples

WIDEST: Final = 0.8
"""The edge of the low-pass over the carrier's `room`, at most: the rest is for the filter to fall in."""

STOPBAND_DB: Final = 80.0


def room(nu: float) -> float:
    """How far a carrier is from 0 and from half the sample rate, in cycles a sample."""
    return min(nu, 0.5 - nu)


class UpConverter:
    """x -> s; the phase goes on from call to call."""

    def __init__(self, nu: float) -> None:
        self._carrier = _Carrier(nu)

    def __call__(self, x: Samples) -> NDArray[np.float32]:
        s: NDArray[np.float32] = (x * self._carrier(len(x))).real * np.float32(np.sqrt(0.5))
        return s


class DownConverter:
    """s -> the low-pass of 2 sqrt 2 s exp(-j 2 pi nu t), which is x, `delay` samples later.

    The low-pass is of linear phase (Kaiser's window). From the carrier's `room` on it stops: the image at -2 nu, and what
    a sound card has at frequency 0.

    Parameters
    ----------
    nu : float
        The carrier, cycles a sample.
    edge : float
        Up to where the low-pass lets through, cycles a sample, at most WIDEST * room(nu).

    Attributes
    ----------
    delay : int
    """

    def __init__(self, nu: float, edge: float) -> None:
        self._carrier = _Carrier(-nu)
        taps, beta = kaiserord(STOPBAND_DB, 2 * (room(nu) - edge))
        low_pass = firwin(taps | 1, edge + room(nu), window=("kaiser", beta))  # edges of firwin are in half cycles
        self._taps = (2 * np.sqrt(2) * low_pass).astype(np.float32)
        self._state: Samples = np.zeros(len(self._taps) - 1, np.complex64)
        self.delay = len(self._taps) // 2

    def __call__(self, s: NDArray[np.float32]) -> Samples:
        if not len(s):
            return np.zeros(0, np.complex64)
        x: Samples
        x, self._state = lfilter(self._taps, np.float32(1), s * self._carrier(len(s)), zi=self._state)
        return x


class _Carrier:
    """exp(j 2 pi nu t), t = 0, 1, ..., going on from call to call."""

    def __init__(self, nu: float) -> None:
        self._nu = nu
        self._phase = 0.0

    def __call__(self, count: int) -> Samples:
        cycles = self._phase + self._nu * np.arange(count + 1)
        self._phase = float(cycles[-1] % 1.0)
        carrier: Samples = np.exp(2j * np.pi * cycles[:-1]).astype(np.complex64)
        return carrier
