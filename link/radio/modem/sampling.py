"""Two samples a symbol, at the instants of a receiver's own choice: filter, fraction of a sample, and clock in one place."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from link.radio.frontend import Samples
from link.radio.modem.pulse import Pulse

_REACH: Final = 8
"""Samples on either side that interpolation takes: a raised-cosine window over a sinc."""
_FRACTIONS: Final = 4096
"""Of a sample: instants are rounded to them, which is 80 dB below the signal."""


def half_symbols(
    samples: Samples, pulse: Pulse, start: float, cfo: float, first: int, count: int, clock: float = 0.0
) -> NDArray[np.complex128]:
    """The matched filter's output every half symbol, with the carrier's offset removed.

    Parameters
    ----------
    samples : (n,) complex64
        Zeros are taken for what lies outside.
    pulse : Pulse
    start : float
        Sample at which the carrier's phase is kept, and from which half symbols are counted.
    cfo : float
        Cycles a sample.
    first, count : int
        Half symbols from `start` to begin at, and how many.
    clock : float
        By how much the receiver's clock is faster, as a ratio less 1.

    Returns
    -------
    (count,) complex128
    """
    decimation = pulse.samples_per_symbol // 2
    instants = start + np.arange(first, first + count) * (decimation * (1.0 + clock))
    margin = pulse.reach + _REACH
    begin, end = int(np.floor(instants[0])) - margin, int(np.floor(instants[-1])) + margin + 1
    inside = samples[max(begin, 0) : max(end, 0)]
    part = np.zeros(end - begin, dtype=np.complex64)
    part[max(begin, 0) - begin :][: len(inside)] = inside
    part *= np.exp(-2j * np.pi * cfo * (np.arange(begin, end) - start)).astype(np.complex64)
    filtered = pulse.match(part)
    windows = sliding_window_view(filtered, 2 * _REACH)
    whole = np.floor(instants).astype(np.int64)
    places = whole - begin - _REACH + 1
    fraction = instants - whole
    if clock == 0.0:
        return np.asarray(windows[places] @ _interpolator(fraction[:1])[0])
    return np.asarray(np.einsum("nk,nk->n", windows[places], _interpolator(fraction)))


def _interpolator(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the neighbours of instants that lie a fraction of a sample behind the one in their middle, (n, 2 reach)."""
    return _interpolators()[np.rint(fraction * _FRACTIONS).astype(np.int64)]


@cache
def _interpolators() -> NDArray[np.float64]:
    """For every fraction that is told apart."""
    distance = np.arange(_FRACTIONS + 1)[:, None] / _FRACTIONS - np.arange(1 - _REACH, _REACH + 1)
    return np.asarray(np.sinc(distance) * np.cos(0.5 * np.pi * distance / _REACH) ** 2)
