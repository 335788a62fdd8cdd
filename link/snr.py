"""Signal-to-noise ratios: the only place that converts between them.

Es = 1 throughout, as the mean over the constellation, so that N0 = 1 / (Es/N0). `no` is N0: the variance of a *complex*
noise sample, no / 2 in each dimension.
"""

from __future__ import annotations

import math
from typing import Final

from link.errors import ArgumentError, require_range

SNR_DB_MIN: Final = -30.0
SNR_DB_MAX: Final = 60.0
SNR_ERROR_DB_MAX: Final = 30.0
"""Most that a transmitter's estimate of the SNR may be off, dB."""
SYMBOL_MAX: Final = 1e15
"""Largest received amplitude; a deep fade stays far below it, and beyond it float32 overflows."""
NO_OFFSET_DB_MAX: Final = 30.0
"""Most that a receiver's estimate of the noise variance may be off, dB."""
NO_MIN: Final = 1e-6
"""Least noise variance that a receiver is told; below it LLRs mean nothing in float32."""


def no_from_esn0_db(esn0_db: float) -> float:
    """Noise variance N0 of a complex sample at Es = 1.

    Parameters
    ----------
    esn0_db : float
        Es/N0 in dB, in [-30, 60].

    Raises
    ------
    ArgumentError
        If `esn0_db` is out of range or NaN.

    Examples
    --------
    >>> no_from_esn0_db(10.0)
    0.1
    """
    require_range("snr_db", esn0_db, SNR_DB_MIN, SNR_DB_MAX)
    return float(10.0 ** (-esn0_db / 10.0))


def told_no(no: float, no_offset_db: float) -> float:
    """Noise variance that a receiver is told, `no_offset_db` above the true one.

    Parameters
    ----------
    no : float
        Variance of a complex noise sample.
    no_offset_db : float
        In [-30, 30] dB; below 0 the receiver trusts what it hears too much.

    Raises
    ------
    ArgumentError
        If `no_offset_db` is out of range or NaN.

    Examples
    --------
    >>> told_no(0.1, 10.0)
    1.0
    """
    require_range("no_offset_db", no_offset_db, -NO_OFFSET_DB_MAX, NO_OFFSET_DB_MAX)
    return float(no * 10.0 ** (no_offset_db / 10.0))


def esn0_db_from_ebn0_db(ebn0_db: float, bits_per_symbol: float, code_rate: float = 1.0) -> float:
    """Es/N0 in dB that an Eb/N0 in dB means at `bits_per_symbol * code_rate` information bits a symbol.

    Examples
    --------
    >>> round(esn0_db_from_ebn0_db(0.0, 4), 3)
    6.021
    """
    if bits_per_symbol <= 0 or not 0 < code_rate <= 1:
        raise ArgumentError("code_rate", f"must be in (0, 1] with bits_per_symbol > 0, got {code_rate:g}")
    return ebn0_db + 10.0 * math.log10(bits_per_symbol * code_rate)


def millidecibels(esn0_db: float) -> int:
    """The SNR as the integer that names its point to the random generator: 6.0 dB -> 6000.

    Two grids that share an SNR to the millidecibel share its noise.
    """
    require_range("snr_db", esn0_db, SNR_DB_MIN, SNR_DB_MAX)
    return round(esn0_db * 1000.0)
