"""The block code of the header: first-order Reed-Muller RM(1, 5) on QPSK, decoded softly.

A block is 6 bits in 32: a row of the 32 x 32 Hadamard matrix chosen by five of them, its sign by the sixth. Any two of the
64 codewords are opposite or orthogonal (the code is biorthogonal; distance 16). 32 bits are 16 Gray QPSK symbols, and every
symbol is sent `repeats` times:

    6 bits ──> (-1)^(b0 + <b1..b5, j>), j = 0..31 ──> 16 QPSK symbols ──> the same 16 again, `repeats` in all

The decoder correlates with all 64 at once by a fast Hadamard transform, each symbol weighted by 1 / no, and takes the
largest: maximum likelihood. The *metric* is that correlation, divided by what a perfect reception would give: its mean is 1
for the codeword sent and 0 for those orthogonal to it, whatever the SNR. A block whose best metric is below a threshold is
lost.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bits import group, label_bits
from link.constellation import map_bits

MESSAGE_BITS: Final = 6
CODE_BITS: Final = 32
BLOCK_SYMBOLS: Final = 16


def encode(messages: ArrayLike, repeats: int = 1) -> NDArray[np.float32]:
    """Blocks as symbols.

    Parameters
    ----------
    messages : (...) int
        In [0, 64).
    repeats : int
        Times that the 16 symbols are sent.

    Returns
    -------
    (..., 16 * repeats, 2) float32
        QPSK symbols as (I, Q), Es = 1.

    Examples
    --------
    >>> encode([5]).shape
    (1, 16, 2)
    """
    bits = label_bits(messages, MESSAGE_BITS)
    code = (bits[..., :1] + bits[..., 1:].astype(np.int64) @ label_bits(np.arange(CODE_BITS), MESSAGE_BITS - 1).T) % 2
    symbols = np.asarray(map_bits(group(code.astype(np.float32), 2)))
    return np.tile(symbols, (repeats, 1))


def decode(
    y: NDArray[np.floating], no: NDArray[np.floating], repeats: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The most likely message of each block, and its metric.

    Parameters
    ----------
    y : (..., 16 * repeats, 2) float
        Equalised symbols as (I, Q), Es = 1.
    no : (..., 16 * repeats) float
        Noise variance per complex symbol, linear; inf marks an erased symbol, which counts for nothing.
    repeats : int

    Returns
    -------
    messages : (...) int64
        In [0, 64); the lowest row, and the positive one, on ties.
    metric : (...) float64
        Correlation with its codeword, 1 without noise; 0 where every symbol was erased.

    Examples
    --------
    >>> messages, metric = decode(encode([5, 63]), np.full((2, 16), 0.1))
    >>> messages, metric.round(6)
    (array([ 5, 63]), array([1., 1.]))
    """
    shape = (*no.shape[:-1], repeats, BLOCK_SYMBOLS)
    weights = 1.0 / np.asarray(no, dtype=np.float64).reshape(shape)
    heard = np.asarray(y, dtype=np.float64).reshape(*shape, 2) * weights[..., None]
    # A QPSK bit 0 is sent as + sqrt(1/2).
    summed = math.sqrt(2.0) * heard.sum(axis=-3).reshape(*shape[:-2], CODE_BITS)
    total = 2.0 * weights.sum(axis=(-2, -1))
    correlations = _hadamard(summed) / np.where(total > 0.0, total, 1.0)[..., None]
    rows = np.argmax(np.abs(correlations), axis=-1)
    best = np.take_along_axis(correlations, rows[..., None], axis=-1)[..., 0]
    return rows + CODE_BITS * (best < 0.0), np.abs(best)


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
