"""How often a header is lost and how often it is wrong, exactly: what simulation must give, and training may draw from.

Over AWGN the n correlations of a block's decoder (link.reed_muller), 32 of rm-1-5, in units of its metric, are independent
Gaussians of deviation s = sqrt(N0 / (n repeats)), one of mean 1 and n - 1 of mean 0. With q(v) = 1 - 2 Q(v), the chance of
|N(0, 1)| < v, and t the threshold,

    P(lost)   = (Phi((t - 1) / s) - Phi((-t - 1) / s)) q(t / s)^(n - 1)
    P(right)  = int_t^oo phi((x - 1) / s) / s  q(x / s)^(n - 1) dx
    P(one of the 2 n - 2 orthogonal codewords)
              = int_t^oo phi(x / s) / s  q(x / s)^(n - 2) (Phi((x - 1) / s) - Phi((-x - 1) / s)) dx
    P(the opposite codeword)
              = int_t^oo phi((x + 1) / s) / s  q(x / s)^(n - 1) dx

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

from link.bits import group, label_bits, labels_from_bits
from link.errors import ArgumentError
from link.header import HEAD_BITS, head_blocks
from link.manifest import MODES_MAX, HeaderSpec
from link.reed_muller import CODES, RM_1_5, ReedMuller

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
        Of all 2 n - 2 together, which are equally likely.
    """

    right: NDArray[np.float64]
    lost: NDArray[np.float64]
    orthogonal: NDArray[np.float64]
    opposite: NDArray[np.float64]


def block_rates(snr_db: ArrayLike, repeats: int, threshold: float, code: ReedMuller = RM_1_5) -> BlockRates:
    """What becomes of one block over AWGN, exactly.

    Parameters
    ----------
    snr_db : (...) float
        Es/N0, dB.
    repeats : int
    threshold : float
        In [0, 1).
    code : ReedMuller

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
    others = code.code_bits - 1
    mean = np.sqrt(code.code_bits * repeats * esn0)  # 1 / s: the signal in units of the noise, as every variable below
    least = threshold * mean
    signal_below = ndtr(least - mean) - ndtr(-least - mean)
    return BlockRates(
        right=_integral(
            lambda u, m: _density(u) * _within(u + m) ** others,
            np.maximum(least - mean, -_TAIL),
            np.full_like(mean, _TAIL),
            mean,
        ),
        lost=np.asarray(signal_below * _within(least) ** others),
        orthogonal=2
        * others
        * _integral(
            lambda v, m: _density(v) * _within(v) ** (others - 1) * (ndtr(v - m) - ndtr(-v - m)),
            np.minimum(least, _UNDERFLOW),
            np.minimum(mean + _TAIL, _UNDERFLOW),
            mean,
        ),
        opposite=_integral(
            lambda u, m: _density(u) * _within(np.maximum(u - m, 0.0)) ** others,
            np.minimum(least + mean, _UNDERFLOW),
            np.minimum(least + mean + _TAIL, _UNDERFLOW),
            mean,
        ),
    )


def loss_rate(snr_db: ArrayLike, spec: HeaderSpec) -> NDArray[np.float64]:
    """Probability that a block is lost over AWGN, exactly; (...) to (...).

    Examples
    --------
    >>> loss_rate([-6.0, 0.0], HeaderSpec()).round(6)
    array([0.001986, 0.      ])
    """
    return block_rates(snr_db, spec.repeats, spec.threshold, CODES[spec.code]).lost


def error_rate(snr_db: ArrayLike, spec: HeaderSpec) -> NDArray[np.float64]:
    """Probability that a block is accepted although it is wrong, over AWGN, exactly; (...) to (...).

    Examples
    --------
    >>> error_rate([-6.0, 0.0], HeaderSpec()).round(6)
    array([0.001068, 0.      ])
    """
    rates = block_rates(snr_db, spec.repeats, spec.threshold, CODES[spec.code])
    return rates.orthogonal + rates.opposite


class HeaderRates(NamedTuple):
    """What becomes of the header of a uniform frame; the three sum to 1, each (...) float64."""

    right: NDArray[np.float64]
    lost: NDArray[np.float64]
    wrong: NDArray[np.float64]


def uniform_rates(snr_db: ArrayLike, spec: HeaderSpec, num_modes: int, mode: int) -> HeaderRates:
    """What becomes of the header of a frame that is all in one mode (as a frame of one sample is), over AWGN, exactly.

    Of the wrong heads those that name no mode of the bundle, announce blocks that were not sent, or are not padded with
    zeros make the header lost after all.

    Parameters
    ----------
    snr_db : (...) float
        Es/N0, dB.
    spec : HeaderSpec
    num_modes : int
        2 to 32.
    mode : int
        What the frame is sent in.

    Examples
    --------
    >>> rates = uniform_rates(-6.0, HeaderSpec(), num_modes=4, mode=0)
    >>> [f"{rate:.6f}" for rate in rates]
    ['0.996946', '0.003002', '0.000052']
    """
    if not 0 <= mode < num_modes <= MODES_MAX:
        raise ArgumentError("mode", f"must be in [0, {num_modes}), and num_modes at most {MODES_MAX}, got {mode}")
    code, blocks = CODES[spec.code], head_blocks(spec)
    rates: BlockRates = block_rates(snr_db, spec.repeats, spec.threshold, code)
    each = rates.orthogonal / (2 * code.code_bits - 2)

    def messages(base: int) -> NDArray[np.int64]:
        return np.asarray(labels_from_bits(group(label_bits(base << 1 | 1, HEAD_BITS), code.message_bits)))

    def accepted(base: int) -> NDArray[np.float64]:
        """Probability that each block is taken for that of another mode's head."""
        changed = messages(base) ^ messages(mode)
        return math.prod(
            (rates.right if not bits else rates.opposite if bits == code.code_bits else each for bits in changed),
            start=np.ones_like(rates.right),
        )

    wrong = sum((accepted(base) for base in range(num_modes) if base != mode), start=np.zeros_like(rates.right))
    # Every block accepted, some as another: (right + not)^blocks without right^blocks, and without a difference.
    amiss = rates.orthogonal + rates.opposite
    changed = sum(
        math.comb(blocks, count) * amiss**count * rates.right ** (blocks - count) for count in range(1, blocks + 1)
    )
    lost = -np.expm1(blocks * np.log1p(-rates.lost))
    return HeaderRates(rates.right**blocks, lost + (changed - wrong), wrong)


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
