"""How tokens use a codebook: over an epoch, over its batches, and codeword by codeword, in training and evaluation alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from link.randomness import permutation
from train.losses import entropy

ALMOST_ALL: Final = 0.95
"""A token position sends the same codeword for all samples where it does so for this share of them."""


@dataclass(frozen=True)
class Usage:
    """How a set of tokens uses the codebook: exp of the usage entropy, and shares as in CollapseMetrics."""

    perplexity: float
    codes_used: float
    same_codes: float


@dataclass(frozen=True)
class Spread:
    """A figure over the batches of an epoch."""

    mean: float
    least: float
    greatest: float

    def text(self) -> str:
        """As `mean [least, greatest]`, with three digits.

        Examples
        --------
        >>> Spread(6.251, 5.0, 7.5).text()
        '6.25 [5, 7.5]'
        """
        return f"{self.mean:.3g} [{self.least:.3g}, {self.greatest:.3g}]"


@dataclass(frozen=True)
class BatchUsage:
    """How single batches of so many rows use the codebook, each by itself.

    Perplexity and active codes of a batch are at most `reachable`, and random tokens stay well below it: 32 rows of one
    token cannot show more than 32 of 512 codewords. So these figures are compared between training and evaluation, over
    batches of as many rows drawn at random, and not with those of a whole epoch.

    Attributes
    ----------
    rows, batches : int
        Of a batch, and as many of them; a last one of fewer rows is left out.
    reachable : int
        min(K, rows x tokens).
    perplexity : Spread
        exp of the entropy of a batch's codewords.
    active_codes : Spread
        Codewords that a batch uses at least once.
    """

    rows: int
    batches: int
    reachable: int
    perplexity: Spread
    active_codes: Spread


@dataclass(frozen=True)
class CodeCounts:
    """How often each of K codewords was sent in an epoch, in the order of their indices.

    Attributes
    ----------
    training, validation : tuple of int
        Tokens of the epoch's training, as they were sent; and of the validation set, once for each Es/N0 and draw of noise.
    """

    training: tuple[int, ...]
    validation: tuple[int, ...]


class BatchMonitor:
    """Collects the usage of one batch after the other.

    Parameters
    ----------
    codewords : int
        K.
    rows : int
        Of each batch: the first so many count, and a batch of fewer does not.
    """

    def __init__(self, codewords: int, rows: int) -> None:
        self._codewords = codewords
        self._rows = rows
        self._tokens = 0
        self._perplexity: list[float] = []
        self._active: list[int] = []

    def add(self, indices: Tensor) -> None:
        """Count a batch of (B, N) indices."""
        if len(indices) < self._rows:
            return
        counts = torch.bincount(indices[: self._rows].flatten(), minlength=self._codewords)
        self._tokens = indices.shape[1]
        self._perplexity.append(perplexity_of(counts))
        self._active.append(int((counts > 0).sum()))

    def result(self) -> BatchUsage | None:
        """Over all batches; None where there was none."""
        if not self._active:
            return None
        return BatchUsage(
            self._rows,
            len(self._active),
            min(self._codewords, self._rows * self._tokens),
            _spread(self._perplexity),
            _spread(self._active),
        )


def code_usage(indices: Tensor, codewords: int) -> Usage:
    """Usage of the codebook by indices (B, N) int64.

    Examples
    --------
    >>> found = code_usage(torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]]), 8)
    >>> round(found.perplexity, 6), found.codes_used, found.same_codes
    (4.0, 0.625, 0.5)
    """
    return usage_of(position_counts(indices, codewords))


def position_counts(indices: Tensor, codewords: int) -> Tensor:
    """How often each token position of (B, N) sends each codeword, (N, K) float64."""
    return functional.one_hot(indices, codewords).sum(dim=0).double().cpu()


def usage_of(counts: Tensor) -> Usage:
    """Usage of the codebook from the counts of each position, (N, K)."""
    counts = counts[counts.sum(dim=1) > 0]  # positions beyond the tokens of the modes that were sent
    total = counts.sum(dim=0)
    favourite = counts.max(dim=1).values / counts.sum(dim=1)
    return Usage(
        perplexity=perplexity_of(total),
        codes_used=float((total > 0).double().mean()),
        same_codes=float((favourite >= ALMOST_ALL).double().mean()),
    )


def perplexity_of(counts: Tensor) -> float:
    """exp of the entropy of (K,) counts, as if so many codewords were used evenly."""
    return math.exp(float(entropy(counts.double() / counts.sum())))


def shuffled(indices: Tensor, rows: int, seed: int) -> Iterator[Tensor]:
    """Batches of so many rows of (n, N) indices, the rows in an order of the seed's; the last batch may have fewer.

    Data sets come sorted by class, recording or subject, and a batch of one of these uses few codewords however healthy the
    codebook is; those of training are shuffled.
    """
    order = torch.from_numpy(permutation(seed, len(indices)))
    for first in range(0, len(indices), rows):
        yield indices[order[first : first + rows]]


def side_by_side(
    training: Mapping[int, Sequence[int]], validation: Mapping[int, Sequence[int]]
) -> dict[str, CodeCounts]:
    """Counts of each codebook that either used, by its number of codewords, as text."""
    return {
        str(size): CodeCounts(*(tuple(counts.get(size, (0,) * size)) for counts in (training, validation)))
        for size in sorted({*training, *validation})
    }


def by_rank(counts: Sequence[int]) -> NDArray[np.float64]:
    """Shares of the tokens that the codewords have, (K,), the most used first."""
    shares = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    ranked: NDArray[np.float64] = shares / max(float(shares.sum()), 1.0)
    return ranked


def carriers(counts: Sequence[int], share: float) -> int:
    """How many of the most used codewords it takes to carry that share of the tokens.

    Examples
    --------
    >>> carriers((10, 60, 0, 30), 0.5), carriers((10, 60, 0, 30), 0.9), carriers((25, 25, 25, 25), 0.9)
    (1, 2, 4)
    """
    carried = np.cumsum(by_rank(counts))
    return int(np.searchsorted(carried, share - 1e-12) + 1)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(min(values)), float(max(values)))
