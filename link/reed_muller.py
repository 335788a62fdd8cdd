"""The block codes of the header: first-order Reed-Muller RM(1, m) on QPSK, decoded softly.

A block is m + 1 bits in n = 2^m: a row of the n x n Hadamard matrix chosen by m of them, its sign by the other. Any two of
the 2 n codewords are opposite or orthogonal (the code is biorthogonal; distance n / 2). n bits are n / 2 Gray QPSK symbols,
and every symbol is sent `repeats` times. With m = 5, the most robust:

    6 bits ──> (-1)^(b0 + <b1..b5, j>), j = 0..31 ──> 16 QPSK symbols ──> the same 16 again, `repeats` in all

The decoder correlates with all of them at once by a fast Hadamard transform, each symbol weighted by 1 / no, and takes the
largest: maximum likelihood. The *metric* is that correlation, divided by what a perfect reception would give: its mean is 1
for the codeword sent and 0 for those orthogonal to it, whatever the SNR. A block whose best metric is below a threshold is
lost.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bits import group, label_bits
from link.constellation import map_bits


class ReedMuller(NamedTuple):
    """RM(1, m).

    Attributes
    ----------
    m : int
        At least 2.
    """

    m: int

    @property
    def message_bits(self) -> int:
        """Of a block, m + 1."""
        return self.m + 1

    @property
    def code_bits(self) -> int:
        """n = 2^m."""
        return int(2**self.m)

    @property
    def symbols(self) -> int:
        """Of a block that is sent once, n / 2."""
        return self.code_bits // 2


RM_1_5: Final = ReedMuller(5)
CODES: Final = {"rm-1-3": ReedMuller(3), "rm-1-4": ReedMuller(4), "rm-1-5": RM_1_5}
"""By the name that a header's specification gives."""


def encode(messages: ArrayLike, repeats: int = 1, code: ReedMuller = RM_1_5) -> NDArray[np.float32]:
    """Blocks as symbols.

    Parameters
    ----------
    messages : (...) int
        In [0, 2 n).
    repeats : int
        Times that the n / 2 symbols are sent.
    code : ReedMuller

    Returns
    -------
    (..., n / 2 * repeats, 2) float32
        QPSK symbols as (I, Q), Es = 1.

    Examples
    --------
    >>> encode([5]).shape
    (1, 16, 2)
    """
    bits = label_bits(messages, code.message_bits)
    words = (bits[..., :1] + bits[..., 1:].astype(np.int64) @ label_bits(np.arange(code.code_bits), code.m).T) % 2
    symbols = np.asarray(map_bits(group(words.astype(np.float32), 2)))
    return np.tile(symbols, (repeats, 1))


def decode(
    y: NDArray[np.floating], no: NDArray[np.floating], repeats: int = 1, code: ReedMuller = RM_1_5
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The most likely message of each block, and its metric.

    Parameters
    ----------
    y : (..., n / 2 * repeats, 2) float
        Equalised symbols as (I, Q), Es = 1.
    no : (..., n / 2 * repeats) float
        Noise variance per complex symbol, linear; inf marks an erased symbol, which counts for nothing.
    repeats : int
    code : ReedMuller

    Returns
    -------
    messages : (...) int64
        In [0, 2 n); the lowest row, and the positive one, on ties.
    metric : (...) float64
        Correlation with its codeword, 1 without noise; 0 where every symbol was erased.

    Examples
    --------
    >>> messages, metric = decode(encode([5, 63]), np.full((2, 16), 0.1))
    >>> messages, metric.round(6)
    (array([ 5, 63]), array([1., 1.]))
    """
    shape = (*no.shape[:-1], repeats, code.symbols)
    weights = 1.0 / np.asarray(no, dtype=np.float64).reshape(shape)
    heard = np.asarray(y, dtype=np.float64).reshape(*shape, 2) * weights[..., None]
    # A QPSK bit 0 is sent as + sqrt(1/2).
    summed = math.sqrt(2.0) * heard.sum(axis=-3).reshape(*shape[:-2], code.code_bits)
    total = 2.0 * weights.sum(axis=(-2, -1))
    correlations = _hadamard(summed) / np.where(total > 0.0, total, 1.0)[..., None]
    rows = np.argmax(np.abs(correlations), axis=-1)
    best = np.take_along_axis(correlations, rows[..., None], axis=-1)[..., 0]
    return rows + code.code_bits * (best < 0.0), np.abs(best)


def _hadamard(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fast Hadamard transform over the last axis, of a power of two; rows in natural order."""
    length = x.shape[-1]
    step = 1
    while step < length:
        pairs = x.reshape(*x.shape[:-1], length // (2 * step), 2, step)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([low + high, low - high], axis=-2).reshape(x.shape)
        step *= 2
    return x
