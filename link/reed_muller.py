"""The block code of the header: first-order Reed-Muller RM(1, 5) on QPSK, decoded softly, and its exact error rates.

A block is 6 bits in 32: a row of the 32 x 32 Hadamard matrix chosen by five of them, its sign by the sixth. Any two of the
64 codewords are opposite or orthogonal (the code is biorthogonal; distance 16). 32 bits are 16 Gray QPSK symbols, and every
symbol is sent `repeats` times:

    6 bits ──> (-1)^(b0 + <b1..b5, j>), j = 0..31 ──> 16 QPSK symbols ──> the same 16 again, `repeats` in all

The decoder correlates with all 64 at once by a fast Hadamard transform, each symbol weighted by 1 / no, and takes the
largest: maximum likelihood. The *metric* is that correlation, divided by what a perfect reception would give: its mean is 1
for the codeword sent and 0 for those orthogonal to it, whatever the SNR. A block whose best metric is below a threshold is
lost.

Over AWGN, where all weights are equal, the 32 correlations are independent Gaussians of deviation
s = sqrt(N0 / (32 repeats)), one of mean 1 and 31 of mean 0. With q(v) = 1 - 2 Q(v), the chance of |N(0, 1)| < v, and t the
threshold,

    P(lost)   = (Phi((t - 1) / s) - Phi((-t - 1) / s)) q(t / s)^31
    P(right)  = int_t^oo phi((x - 1) / s) / s  q(x / s)^31 dx
    P(one of 62 orthogonal codewords)
              = int_t^oo phi(x / s) / s  q(x / s)^30 (Phi((x - 1) / s) - Phi((-x - 1) / s)) dx
    P(the opposite codeword)
              = int_t^oo phi((x + 1) / s) / s  q(x / s)^31 dx

which sum to 1 (Proakis, Salehi 2008, "Digital Communications", section 4.4, for the case without threshold). Over a fading
channel they hold given a gain that one block shares, at that gain's SNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtr

from link.bits import group, label_bits
from link.constellation import map_bits
from link.errors import ArgumentError

MESSAGE_BITS: Final = 6
CODE_BITS: Final = 32
BLOCK_SYMBOLS: Final = 16
ORTHOGONAL: Final = 62
"""Codewords orthogonal to a given one; of the other two of the 64 one is itself, one its opposite."""

_OTHER_ROWS: Final = CODE_BITS - 1
_PANELS: Final = 128
_NODES: Final = 8
_TAIL: Final = 9.0
_UNDERFLOW: Final = 40.0
"""Deviations beyond which a normal density is 0 in float64."""


class BlockRates(NamedTuple):
    """What becomes of one block over AWGN; the four sum to 1.

    Attributes
    ----------
    right, lost, opposite : (...) float64
    orthogonal : (...) float64
        Of all 62 together, which are equally likely.
    """

    right: NDArray[np.float64]
    lost: NDArray[np.float64]
    orthogonal: NDArray[np.float64]
    opposite: NDArray[np.float64]


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


def block_rates(snr_db: ArrayLike, repeats: int, threshold: float) -> BlockRates:
    """What becomes of one block over AWGN, exactly.

    Parameters
    ----------
    snr_db : (...) float
        Es/N0, dB.
    repeats : int
    threshold : float
        In [0, 1).

    Returns
    -------
    BlockRates
        Accurate to 1e-12, relative, but for rates below 1e-300, which may come out as 0.

    Examples
    --------
    >>> rates = block_rates(-6.0, 4, 0.5)
    >>> float(rates.right.round(4)), float(rates.lost.round(4)), float((rates.orthogonal + rates.opposite).round(4))
    (0.9969, 0.002, 0.0011)
    """
    if not 0.0 <= threshold < 1.0:
        raise ArgumentError("threshold", f"must be in [0, 1), got {threshold:g}")
    if repeats < 1:
        raise ArgumentError("repeats", f"must be at least 1, got {repeats}")
    esn0 = 10.0 ** (np.asarray(snr_db, dtype=np.float64) / 10.0)
    mean = np.sqrt(CODE_BITS * repeats * esn0)  # 1 / s: the signal in units of the noise, as every variable below
    least = threshold * mean
    signal_below = ndtr(least - mean) - ndtr(-least - mean)
    return BlockRates(
        right=_integral(
            lambda u, m: _density(u) * _within(u + m) ** _OTHER_ROWS,
            np.maximum(least - mean, -_TAIL),
            np.full_like(mean, _TAIL),
            mean,
        ),
        lost=np.asarray(signal_below * _within(least) ** _OTHER_ROWS),
        orthogonal=ORTHOGONAL
        * _integral(
            lambda v, m: _density(v) * _within(v) ** (_OTHER_ROWS - 1) * (ndtr(v - m) - ndtr(-v - m)),
            np.minimum(least, _UNDERFLOW),
            np.minimum(mean + _TAIL, _UNDERFLOW),
            mean,
        ),
        opposite=_integral(
            lambda u, m: _density(u) * _within(np.maximum(u - m, 0.0)) ** _OTHER_ROWS,
            np.minimum(least + mean, _UNDERFLOW),
            np.minimum(least + mean + _TAIL, _UNDERFLOW),
            mean,
        ),
    )


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


def _integral(
    density: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Gauss-Legendre quadrature of density(x, mean) between (...) low and high, on panels below a third of a deviation."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    places = ((np.arange(_PANELS)[:, None] + 0.5 * (1.0 + nodes)) / _PANELS).ravel()
    width = (high - low)[..., None]
    values = density(low[..., None] + width * places, mean[..., None])
    return np.asarray(width[..., 0] * (values @ np.tile(weights, _PANELS)) / (2.0 * _PANELS))


def _density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))


def _within(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(|N(0, 1)| < v)."""
    return np.asarray(erf(v / math.sqrt(2.0)))
