"""The noise variance of equalised symbols, by what they are off by."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from link.constellation import points
from link.snr import NO_MIN

_STEPS: Final = 8
_JUMP: Final = 40.0
"""Of the noise variance, the square of a step from one pilot to the next that is no chance. Noise alone makes steps of twice
its variance; a walk's are six times what it leaves between two pilots, and that is in the noise variance already."""


def estimate_no(
    payload: NDArray[np.complex128],
    strength: NDArray[np.float64],
    order: int | None,
    known: NDArray[np.complex128],
    start: float,
) -> float:
    """Noise variance per complex symbol of strength 1, by expectation and maximisation (Dempster, Laird, Rubin 1977).

    A symbol of a known constellation is off by its distance from each point, weighted by how likely that point is at the
    variance found so far; a known symbol by its error. Deciding for the nearest points instead would find too little noise
    where decisions are wrong.

    Parameters
    ----------
    payload : (n,) complex
        Equalised symbols, of mean energy 1.
    strength : (n,) float64
        Power they came with: the variance of each is the common one over its strength.
    order : int or None
        Of their square QAM; None where it is not known, and `known` alone counts.
    known : (m,) complex
        Errors of known symbols that no estimate was fitted to, times the root of their strength.
    start : float
        Where to begin, a variance near the right one.
    """
    squares = float(np.sum(np.abs(known) ** 2))
    if order is None:
        # The start is worth about as many symbols as the channel was estimated from.
        return max((squares + start * 3.0 * len(known)) / (4.0 * max(1, len(known))), NO_MIN)
    amplitudes = np.unique(points(order)[:, 0])
    distances = (np.concatenate([payload.real, payload.imag]) - amplitudes[:, None]) ** 2
    distances *= np.tile(strength, 2)
    nearest = distances.min(axis=0)
    distances -= nearest
    squares += float(nearest.sum())
    no = max(start, NO_MIN)
    for _ in range(_STEPS):
        weights = np.exp(distances * (-1.0 / no))
        excess = np.sum(weights * distances, axis=0) / np.sum(weights, axis=0)
        no = max((float(excess.sum()) + squares) / (len(payload) + len(known)), NO_MIN)
    return no


def jump_errors(pilots: NDArray[np.complex128], gain: NDArray[np.complex128], no: float) -> NDArray[np.float64]:
    """Variance of what a jump near two pilots leaves on the symbols between them, (n - 1,); 0 where there is none.

    Where the phase jumps, or samples are missing and nobody said so, the gain there is anybody's guess, and the mean over
    the frame says too little of it. A sixth of a squared step is the mean square of a walk that is bound to both its ends;
    where the smoother did not follow, what a pilot is off by is what the symbols beside it are off by.

    Parameters
    ----------
    pilots : (n,) complex
        Received over known, of mean amplitude 1.
    gain : (n,) complex
        What they were smoothed to.
    no : float
        Noise variance of one of them.
    """
    steps, rest = np.abs(np.diff(pilots)) ** 2, np.abs(pilots - gain) ** 2
    found = np.where(steps > _JUMP * no, steps / 6.0, 0.0)
    rest = np.where(rest > 0.5 * _JUMP * no, rest, 0.0)
    return np.asarray(np.maximum(found, np.maximum(rest[:-1], rest[1:])))
