"""How good decisions are where classes differ in size: accuracy, macro-F1, and whether a probability is what it says."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.randomness import Draws, Stream

BINS: Final = 15
RESAMPLES: Final = 2000


class Scores(NamedTuple):
    """Of decisions with their probabilities.

    Attributes
    ----------
    accuracy : float
    macro_f1 : float
        Mean over the classes of 2 TP / (2 TP + FP + FN); a class that neither is nor is decided is left out.
    calibration_error : float
        Expected difference of confidence and accuracy over BINS bins of equal width (Guo et al. 2017, arXiv:1706.04599,
        eq. 3).
    """

    accuracy: float
    macro_f1: float
    calibration_error: float


def scores(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Scores:
    """Scores of probabilities (n, C) against the right classes (n,).

    Examples
    --------
    >>> scores(np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.6, 0.4]]), np.array([0, 0, 1, 1]))._asdict()
    {'accuracy': 0.75, 'macro_f1': 0.7333333333333334, 'calibration_error': 0.175}
    """
    decisions = probabilities.argmax(axis=-1)
    return Scores(
        float(np.mean(decisions == labels)),
        macro_f1(decisions, labels, probabilities.shape[-1]),
        _calibration_error(probabilities.max(axis=-1).astype(np.float64), decisions == labels),
    )


def macro_f1(decisions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Mean F1 over the classes that are there or are decided.

    Examples
    --------
    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    0.6666666666666666
    """
    right, decided, there = (
        np.bincount(chosen, minlength=classes) for chosen in (labels[decisions == labels], decisions, labels)
    )
    judged = decided + there > 0
    return float(np.mean(2.0 * right[judged] / (decided + there)[judged]))


def gain_in_f1(
    better: NDArray[np.int64],
    than: NDArray[np.int64],
    labels: NDArray[np.int64],
    recording: NDArray[np.int64],
    classes: int,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much higher the macro-F1 of some decisions is than that of others: gain, and the ends of its 95 % interval.

    The interval is that of a bootstrap over recordings, whose windows are not independent: it covers other recordings of
    such people, neither other people nor other training seeds.

    Parameters
    ----------
    recording : (n,) int64
        Which recording each window is of.
    """
    numbers, place = np.unique(recording, return_inverse=True)
    counts = np.zeros((2, 3, len(numbers), classes), dtype=np.int64)
    for way, decisions in enumerate((better, than)):
        right = decisions == labels
        for kind, (chosen, rows) in enumerate(((labels, right), (decisions, slice(None)), (labels, slice(None)))):
            np.add.at(counts[way, kind], (place[rows], chosen[rows]), 1)

    def gain(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        right, decided, there = np.einsum("rn,wknc->kwrc", weights, counts)
        total = decided + there
        f1 = np.where(total > 0, 2.0 * right / np.maximum(total, 1), np.nan)
        return np.asarray(np.nanmean(f1[0], axis=-1) - np.nanmean(f1[1], axis=-1))

    uniforms = Draws(seed, np.arange(RESAMPLES)).uniforms(Stream.SPLIT, 0, len(numbers))
    chosen = np.minimum((uniforms[:, : len(numbers)] * len(numbers)).astype(np.int64), len(numbers) - 1)
    weights = np.stack([np.bincount(row, minlength=len(numbers)) for row in chosen])
    low, high = np.quantile(gain(weights), [0.025, 0.975])
    return float(gain(np.ones((1, len(numbers)), dtype=np.int64))[0]), float(low), float(high)


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    sums = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(sums).sum() / len(confidence))
