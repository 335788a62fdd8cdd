"""The best that a linear equaliser can do over a known channel: the oracle where AWGN theory does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from link.radio.modem.pulse import Pulse

_FREQUENCIES: Final = 4096


def linear_equaliser_sinr(taps: Sequence[complex], no: float, pulse: Pulse) -> float:
    """Es over noise and interference behind the unbiased linear equaliser of least mean square error, of any length.

        MSE = mean_f 1 / (1 + S(f) / N0)        S(f) = sum_k |H(f + k / T)|^2 RC(f + k / T) / T        SINR = 1 / MSE - 1

    (Proakis and Salehi 2008, "Digital Communications", 9.4.) Without echoes S = 1, and it is Es/N0.

    Parameters
    ----------
    taps : sequence of complex
        The channel's impulse response at the sample rate.
    no : float
        Noise variance of a complex sample, for a pulse and symbols of unit energy.
    pulse : Pulse

    Examples
    --------
    >>> round(linear_equaliser_sinr([1.0], 0.1, Pulse()), 6)
    10.0
    """
    f = (np.arange(_FREQUENCIES) + 0.5) / _FREQUENCIES - 0.5  # cycles a symbol
    folded = sum(_spectrum(f + fold, taps, pulse) for fold in (-1, 0, 1))
    mse = float(np.mean(1.0 / (1.0 + folded / no)))
    return 1.0 / mse - 1.0


def _spectrum(f: NDArray[np.float64], taps: Sequence[complex], pulse: Pulse) -> NDArray[np.float64]:
    """|H(f)|^2 RC(f), f in cycles a symbol."""
    delays = np.arange(len(taps)) / pulse.samples_per_symbol
    response = np.exp(-2j * np.pi * np.multiply.outer(f, delays)) @ np.asarray(taps, dtype=np.complex128)
    beyond = np.clip((np.abs(f) - 0.5 * (1.0 - pulse.rolloff)) / pulse.rolloff, 0.0, 1.0)
    return np.asarray(np.abs(response) ** 2 * np.cos(0.5 * np.pi * beyond) ** 2)
