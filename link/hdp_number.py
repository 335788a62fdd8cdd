"""How many behaviours there are: exp of the entropy of the weights, and how many cover 95 % of them, with intervals.

A truncated model always *has* K behaviours; what counts is how many carry weight. Both figures are taken under the
variational posterior, q(v) of the corpus or q(pi) of a recording, by inverting distribution functions at counted uniforms.

**What the intervals cover**: 95 % of q, given the codes, the truncation, gamma, alpha and eta. **What they do not**: a mean
field is narrower than the posterior, since it takes sticks, weights and responsibilities for independent; it lies at one of
many optima, so that another start may split or join behaviours; and another sample of subjects is not in it. Intervals
of several seeds, or over subjects, are the larger ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from link.errors import ArgumentError
from link.randomness import Draws, Stream

COVERED: Final = 0.95
"""Of the weight, and of q in an interval."""

# Points of Stream.INITIALISATION, behind those of a codebook.
_CORPUS, _RECORDING = 16, 17


class Spread(NamedTuple):
    """Mean and central 95 % interval of a figure under q."""

    mean: float
    low: float
    high: float


class EffectiveNumber(NamedTuple):
    """How many behaviours carry the weight.

    Attributes
    ----------
    perplexity : Spread
        exp(entropy) of the weights: K where all are equal, 1 where there is one.
    covering : Spread
        How many of the most common are needed for 95 % of the weight.
    """

    perplexity: Spread
    covering: Spread


def corpus_number(sticks: ArrayLike, draws: int = 4000, seed: int = 0) -> EffectiveNumber:
    """Effective number of behaviours of the corpus.

    Parameters
    ----------
    sticks : (K - 1, 2) float
        Parameters of each q(v_k) = Beta; v_K is 1.
    draws : int
        From 2.
    seed : int

    Raises
    ------
    ArgumentError
        If the sticks are not positive numbers in pairs, or draws are too few.

    Examples
    --------
    >>> halves = corpus_number([[1e6, 1e6], [1e6, 1.0]])
    >>> [round(figure) for figure in halves.perplexity]
    [2, 2, 2]
    """
    parameters = np.asarray(sticks, dtype=np.float64)
    if parameters.ndim != 2 or parameters.shape[1] != 2 or not (parameters > 0.0).all():
        raise ArgumentError("sticks", f"must be pairs above 0, got shape {parameters.shape}")
    uniforms = _uniforms(_CORPUS, len(parameters), draws, seed)
    v = special.betaincinv(parameters[:, 0], parameters[:, 1], uniforms)
    left = np.cumprod(1.0 - v, axis=-1)
    ones = np.ones((draws, 1))
    return _number(np.concatenate([v, ones], axis=-1) * np.concatenate([ones, left], axis=-1))


def recording_number(concentrations: ArrayLike, draws: int = 4000, seed: int = 0) -> EffectiveNumber:
    """Effective number of behaviours of one recording, of whose weights q(pi) = Dir(a), a (K,).

    Raises
    ------
    ArgumentError
        If a is not a row of positive numbers, or draws are too few.

    Examples
    --------
    >>> round(recording_number([300.0, 300.0, 300.0, 1e-3]).perplexity.mean, 1)
    3.0
    """
    a = np.asarray(concentrations, dtype=np.float64)
    if a.ndim != 1 or len(a) < 2 or not (a > 0.0).all():
        raise ArgumentError("concentrations", f"must be a row of 2 or more numbers above 0, got shape {a.shape}")
    gammas = special.gammaincinv(a, _uniforms(_RECORDING, len(a), draws, seed))
    return _number(gammas / np.sum(gammas, axis=-1, keepdims=True))


def _uniforms(point: int, count: int, draws: int, seed: int) -> NDArray[np.float64]:
    if draws < 2:
        raise ArgumentError("draws", f"must be at least 2, got {draws}")
    uniforms: NDArray[np.float64] = Draws(seed, np.arange(draws)).uniforms(Stream.INITIALISATION, point, count)
    return uniforms


def _number(weights: NDArray[np.float64]) -> EffectiveNumber:
    """Of (draws, K) weights."""
    perplexity = np.exp(np.sum(special.entr(weights), axis=-1))
    covered = np.cumsum(np.sort(weights, axis=-1)[:, ::-1], axis=-1)
    return EffectiveNumber(_spread(perplexity), _spread(1.0 + np.sum(covered < COVERED, axis=-1)))


def _spread(values: NDArray[np.float64]) -> Spread:
    low, high = np.quantile(values, [0.5 - COVERED / 2.0, 0.5 + COVERED / 2.0])
    return Spread(float(np.mean(values)), float(low), float(high))
