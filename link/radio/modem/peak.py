"""Where a sampled curve has its peak."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def peak_offset(left: Any, middle: Any, right: Any) -> Any:
    """Peak of the parabola through three neighbours, in steps from the middle one, which is the largest.

    Examples
    --------
    >>> float(peak_offset(3.0, 4.0, 3.5))
    0.16666666666666666
    """
    bend = left - 2.0 * middle + right
    return np.where(bend < 0.0, 0.5 * (left - right) / np.where(bend < 0.0, bend, 1.0), 0.0)


def circular_peak(power: NDArray[np.floating]) -> float:
    """Place of the largest value of a periodic curve, between its samples, in [-n / 2, n / 2)."""
    size, peak = len(power), int(power.argmax())
    around = (power[(peak + step) % size] for step in (-1, 0, 1))
    return float((peak + peak_offset(*around) + size / 2) % size - size / 2)
