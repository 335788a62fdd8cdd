"""Gray square QAM: the mapper, and the exact max-log and log-sum-exp demappers.

Labels are those of 3GPP TS 38.211, section 5.1: MSB first, even bits on I, odd bits on Q, Es = 1 as the mean over the
constellation. With s_i = 1 - 2 b_i the amplitude of one dimension's k bits, in units of d = sqrt(3 / (2 (M - 1))), is

    s_0 (2^(k-1) - s_1 (2^(k-2) - ... - s_(k-1)))

which is linear in each s_i. So the same code maps bits to constellation points, exactly, and probabilities of bits to the
mean symbol of independent bits: the hard and the soft transmitter differ in the assignment and nowhere else.

**Sign of the LLR**: llr = ln P(b = 1) / P(b = 0). Positive means one.
"""

from __future__ import annotations

import math
from typing import Any, Final

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.bits import label_bits
from link.errors import ArgumentError

ORDERS: Final = (4, 16, 64, 256, 1024, 4096)

# Significant bits of d's first part: 6 more are left in float32 for the integers up to 63 that multiply it.
_HIGH_PART_BITS: Final = 18


def bits_per_symbol(order: int) -> int:
    """Bits that one symbol of square `order`-QAM carries.

    Examples
    --------
    >>> [bits_per_symbol(order) for order in ORDERS]
    [2, 4, 6, 8, 10, 12]
    """
    if order not in ORDERS:
        raise ArgumentError("order", f"must be one of {', '.join(map(str, ORDERS))}, got {order}")
    return order.bit_length() - 1


def unit_amplitude(order: int) -> float:
    """d: half the distance between neighbouring amplitudes at Es = 1."""
    bits_per_symbol(order)
    return math.sqrt(3.0 / (2.0 * (order - 1)))


def map_bits(bits: Array) -> Array:
    """Map groups of bits, or of bit probabilities, to symbols.

    Parameters
    ----------
    bits : (..., s, m) float32 or float64
        Bits in {0, 1}, or P(b = 1) in [0, 1]; m = log2(order), even.

    Returns
    -------
    (..., s, 2) of the same dtype
        Symbols as (I, Q), Es = 1; the mean symbol where probabilities went in.

    Examples
    --------
    >>> map_bits(np.zeros((1, 4))) * math.sqrt(10)
    array([[1., 1.]])
    """
    xp = namespace(bits)
    d = unit_amplitude(2 ** bits.shape[-1])
    signs = 1.0 - 2.0 * bits
    return xp.stack([_amplitude(signs[..., 0::2]), _amplitude(signs[..., 1::2])], axis=-1) * d


def _amplitude(signs: Array) -> Array:
    """Amplitude of (..., k) signs, in units of d."""
    k = signs.shape[-1]
    amplitude = signs[..., k - 1]
    for i in range(k - 2, -1, -1):
        amplitude = signs[..., i] * (float(2 ** (k - 1 - i)) - amplitude)
    return amplitude


def symbol_energy(bits: Array) -> Array:
    """Energy of the constellation points that bits choose; with probabilities, its mean under independent bits.

    The square of an amplitude is multilinear in the signs too, since s_i^2 = 1. This is the energy of what is *sent*, not of
    the mean symbol, and it is 1 on average where bits are equally likely.

    Parameters
    ----------
    bits : (..., s, m) float32 or float64
        As for `map_bits`.

    Returns
    -------
    (..., s) of the same dtype

    Examples
    --------
    >>> symbol_energy(np.array([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]]))
    array([1.8, 1. ])
    """
    d = unit_amplitude(2 ** bits.shape[-1])
    signs = 1.0 - 2.0 * bits
    return (_square_of_amplitude(signs[..., 0::2]) + _square_of_amplitude(signs[..., 1::2])) * (d * d)


def _square_of_amplitude(signs: Array) -> Array:
    """Mean square of the amplitude of (..., k) independent signs, in units of d^2."""
    k = signs.shape[-1]
    inner, square = signs[..., k - 1], signs[..., k - 1] * 0.0 + 1.0
    for i in range(k - 2, -1, -1):
        step = float(2 ** (k - 1 - i))
        square = step * step - 2.0 * step * inner + square
        inner = signs[..., i] * (step - inner)
    return square


def max_log_llr(y: Array, no: Array, order: int) -> Array:
    """Max-log LLRs of equalised symbols, in closed form.

    With c the nearest amplitude in units of d and r the rest, y/d = c + r, the LLR of a dimension's first bit is
    -sign(c) 4 d^2/N0 m (m + r sign(c)) where m = (|c| + 1)/2 amplitudes lie between c and the threshold. Folding at the
    threshold, c -> 2^(k-1) - |c| and r -> -r sign(c), leaves the same question for the next bit. This is the maximum over
    the constellation exactly, at a cost that grows with log2(order); c stays an integer, so float32 loses nothing in folds.

    Parameters
    ----------
    y : (..., s, 2) float32 or float64
        Equalised symbols as (I, Q), Es = 1; finite.
    no : (..., s) of the same dtype
        Noise variance per complex symbol, linear, > 0; inf marks an erased symbol (its LLRs are 0).
    order : int
        4, 16, 64, 256, 1024 or 4096.

    Returns
    -------
    (..., s, m) of the same dtype
        ln P(b = 1) / P(b = 0), max-log.
    """
    xp = namespace(y, no)
    k = bits_per_symbol(order) // 2
    d = unit_amplitude(order)
    slope = -4.0 * d * d / no
    # Dimensions first, so that N0 is broadcast along the outer axis and each operation runs through the symbols.
    amplitude, residual = _nearest_amplitude(xp, xp.stack([y[..., 0], y[..., 1]]), k, d)
    llrs = []
    for i in range(k):
        sign = xp.sign(amplitude)
        distance = amplitude * sign
        outward = residual * sign
        steps = 0.5 * distance + 0.5
        llr = slope * sign * steps * (steps + outward)
        llrs += [llr[0], llr[1]]
        amplitude = float(2 ** (k - 1 - i)) - distance
        residual = -outward
    return xp.stack(llrs, axis=-1)


def app_llr(y: Array, no: Array, order: int) -> Array:
    """Exact LLRs of equalised symbols for equally likely bits, by log-sum-exp over each dimension's amplitudes.

    Parameters and shapes as in `max_log_llr`. Distances are taken from the nearest amplitude c: with r = y/d - c and
    g = c - level, (y/d - level)^2 - r^2 = g (g + 2 r), which stays accurate in float32 where the squares would cancel.

    Returns
    -------
    (..., s, m) of the same dtype
        ln P(b = 1) / P(b = 0), exact.
    """
    xp = namespace(y, no)
    k = bits_per_symbol(order) // 2
    d = unit_amplitude(order)
    bits, amplitudes = _amplitude_table(k)
    device = array_api_compat.device(y)
    # Amplitudes and dimensions first, as in `max_log_llr`, and those that a bit chooses from in front of them.
    nearest, residual = _nearest_amplitude(xp, xp.stack([y[..., 0], y[..., 1]]), k, d)
    levels = xp.asarray(amplitudes.reshape(-1, *[1] * y.ndim), dtype=y.dtype, device=device)
    gaps = nearest[None] - levels
    metric = -(d * d / no) * gaps * (gaps + 2.0 * residual)
    halves = np.stack([[np.flatnonzero(bits[:, i] == bit) for i in range(k)] for bit in (1, 0)])
    chosen = xp.take(metric, xp.asarray(halves.ravel(), device=device), axis=0)
    likelihood = _log_sum_exp(xp, xp.reshape(chosen, (*halves.shape, *nearest.shape)), axis=2)
    return xp.moveaxis(xp.reshape(likelihood[0] - likelihood[1], (2 * k, *no.shape)), 0, -1)


def points(order: int) -> NDArray[np.float64]:
    """The constellation, (order, 2) float64: row i is the symbol whose bits spell i, MSB first."""
    bits = label_bits(np.arange(order), bits_per_symbol(order)).astype(np.float64)
    return np.asarray(map_bits(bits[:, None, :])[:, 0, :])


def _amplitude_table(k: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """All k-bit labels of one dimension, (2**k, k), and their amplitudes in units of d, (2**k,)."""
    bits = label_bits(np.arange(2**k), k)
    return bits, np.asarray(_amplitude(1.0 - 2.0 * bits.astype(np.float64)))


def _nearest_amplitude(xp: Any, y: Array, k: int, d: float) -> tuple[Array, Array]:
    """The nearest of a dimension's 2^k amplitudes and what is left, y/d = amplitude + residual, in units of d.

    d is taken in two parts, of which the first times any amplitude is exact in float32: the residual is then accurate to
    float32 although neither d nor the amplitude's place is a float32.
    """
    nearest = xp.clip(2.0 * xp.floor(y * (0.5 / d)) + 1.0, float(1 - 2**k), float(2**k - 1))
    high, low = split_unit_amplitude(d)
    return nearest, ((y - nearest * high) - nearest * low) / d


def split_unit_amplitude(d: float) -> tuple[float, float]:
    """d in two parts, of which the first times any amplitude is exact in float32."""
    unit = 2.0 ** (math.frexp(d)[1] - _HIGH_PART_BITS)
    high = round(d / unit) * unit
    return high, d - high


def _log_sum_exp(xp: Any, x: Array, axis: int) -> Array:
    peak = xp.max(x, axis=axis, keepdims=True)
    return xp.log(xp.sum(xp.exp(x - peak), axis=axis)) + xp.squeeze(peak, axis=axis)
