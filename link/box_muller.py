"""Philox and the normals of Box and Muller, compiled so that their loops become vector instructions.

A second writing of what is in link.randomness, held to it by test: the integers are the same, the normals a few ulp apart
(`normals`). Logarithm, sine and cosine are polynomials, since the C library's would be called number by number. Importing
this module without numba is a MissingExtra.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from link.compiled import bits_of, compiled, float_of, inlined
from link.randomness import MULTIPLIERS, ROUNDS, WEYL, WORD_MASK

# log(1 + f) = 2 s + s z R(z), s = f / (2 + f), z = s^2: minimax (Remez) over the m of `_minus_log`, so that the truncation
# stays below 0.02 * 2^-53 of the logarithm. ln 2 in two parts: the first times any exponent is exact.
_LOG: Final = (
    0.6666666666666734,
    0.3999999999941432,
    0.28571428742475,
    0.22222198563471535,
    0.18183564867403085,
    0.15314035816894742,
    0.1479610561993578,
)
_LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
# sin(pi t / 2) = t (pi / 2 + z P(z)) and cos(pi t / 2) = 1 + z Q(z), z = t^2, |t| <= 1/2: minimax, truncation below
# 0.04 * 2^-53 of the sine and 0.001 * 2^-53.
_SIN: Final = (
    -0.645964097506245,
    0.07969262624606273,
    -0.004681754132616262,
    0.00016044115259845128,
    -3.59864934045898e-06,
    5.6346750514656274e-08,
)
_COS: Final = (
    -1.2337005501361697,
    0.2536695079010469,
    -0.020863480763315442,
    0.0009192602742250312,
    -2.520203699152642e-05,
    4.7106156574779583e-07,
    -6.321892428417524e-09,
)
_HALF_PI: Final = math.pi / 2.0

# Bits of float64: 2^52, whose last bit is worth 1; the fraction; and a number just below sqrt(1/2).
_TWO_52: Final = 0x4330000000000000
_FRACTION: Final = 0xFFFFFFFFFFFFF
_ROOT_HALF: Final = 0x3FE6A09E00000000
# Added and subtracted, it rounds a number below 2^51 to an integer, which stands in its last bits.
_ROUNDER: Final = 1.5 * 2.0**52


@inlined
def philox_block(c0: int, c1: int, c2: int, c3: int, key: int) -> tuple[int, int, int, int]:
    """One block of link.randomness.philox4x32."""
    c0, c1, c2, c3 = c0 & WORD_MASK, c1 & WORD_MASK, c2 & WORD_MASK, c3 & WORD_MASK
    k0, k1 = key & WORD_MASK, (key >> 32) & WORD_MASK
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) & WORD_MASK) ^ c1 ^ k0, p1 & WORD_MASK
        c2, c3 = ((p0 >> 32) & WORD_MASK) ^ c3 ^ k1, p0 & WORD_MASK
        k0, k1 = (k0 + WEYL[0]) & WORD_MASK, (k1 + WEYL[1]) & WORD_MASK
    return c0, c1, c2, c3


@inlined
def _whole(word: int) -> float:
    """A word as float64, without the conversion that AVX2 has no vector instruction for."""
    above: float = float_of(word | _TWO_52)
    return above - 2.0**52


@inlined
def _minus_log(x: float) -> float:
    """-ln x of x in [2^-53, 1], to less than 1 ulp (largest error seen: 0.82), also where x is next to 1.

    x = 2^n m with m in [sqrt(1/2), sqrt(2)), and ln m through s = f / (2 + f), f = m - 1, in the order of additions that
    keeps f whole (Tang 1990, "Table-driven implementation of the logarithm function in IEEE floating-point arithmetic", ACM
    Trans. Math. Softw. 16, without the table).
    """
    above = bits_of(x) - _ROOT_HALF
    n: float = float_of((above >> 52) + (_TWO_52 + 64)) - (2.0**52 + 64.0)
    f: float = float_of((above & _FRACTION) + _ROOT_HALF) - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = _LOG[5] + z * _LOG[6]
    series = _LOG[2] + z * (_LOG[3] + z * (_LOG[4] + z * series))
    series = z * (_LOG[0] + z * (_LOG[1] + z * series))
    half_square = 0.5 * f * f
    return (half_square - (s * (half_square + series) + n * _LN2_LOW)) - f - n * _LN2_HIGH


@inlined
def normal_pair(w0: int, w1: int, w2: int, w3: int) -> tuple[float, float]:
    """Two standard normals of one block, from the 53-bit uniforms of Draws.normals.

    The angle 2 pi u is reduced before it is rounded: 4 u = q + t with an integer q and |t| <= 1/2, exactly.
    """
    radius = math.sqrt(2.0 * _minus_log(1.0 - (_whole(w0) * 2.0**-32 + _whole(w1 >> 11) * 2.0**-53)))
    turns = _whole(w2) * 2.0**-30 + _whole(w3 >> 11) * 2.0**-51
    rounded = turns + _ROUNDER
    q = bits_of(rounded)
    t = turns - (rounded - _ROUNDER)
    z = t * t
    series = _SIN[1] + z * (_SIN[2] + z * (_SIN[3] + z * (_SIN[4] + z * _SIN[5])))
    sine = t * (_HALF_PI + z * (_SIN[0] + z * series))
    series = _COS[2] + z * (_COS[3] + z * (_COS[4] + z * (_COS[5] + z * _COS[6])))
    cosine = 1.0 + z * (_COS[0] + z * (_COS[1] + z * series))
    swapped = (q & 1) != 0
    first, second = (sine if swapped else cosine), (cosine if swapped else sine)
    # The second bit of q, or of q + 1, moves to the sign.
    first = float_of(bits_of(first) ^ (((q + 1) & 2) << 62))
    second = float_of(bits_of(second) ^ ((q & 2) << 62))
    return radius * first, radius * second


@inlined
def pairs_at(
    seed: int,
    words: NDArray[Any],
    rows: NDArray[Any],
    first: int,
    sample: int,
    last: int,
    pairs: tuple[NDArray[Any], NDArray[Any]],
    count: int,
) -> None:
    """Pairs of normals at words `first + words` of samples `sample + rows`, draw 0."""
    for i in range(count):
        w0, w1, w2, w3 = philox_block(first + words[i], sample + rows[i], 0, last, seed)
        pairs[0][i], pairs[1][i] = normal_pair(w0, w1, w2, w3)


@compiled
def _fill_normals(
    seed: int, samples: NDArray[Any], draws: NDArray[Any], first: int, last: int, normals: NDArray[Any]
) -> None:
    for row in range(normals.shape[0]):
        sample, draw, pairs = samples[row], draws[row], normals[row]
        for i in range(pairs.shape[0] // 2):
            w0, w1, w2, w3 = philox_block(first + i, sample, draw, last, seed)
            pairs[2 * i], pairs[2 * i + 1] = normal_pair(w0, w1, w2, w3)


def normals(
    seed: int,
    samples: NDArray[np.int64],
    draws: NDArray[np.int64],
    first: int,
    last: int,
    count: int,
    dtype: type[np.float32 | np.float64] = np.float64,
) -> NDArray[Any]:
    """Standard normals by Box and Muller (1958), at the addresses of link.randomness.Draws.normals.

    Both evaluate the same function of the same 53-bit uniforms. Of a pair r (cos a, sin a), with r > 0, the two writings
    differ by at most 7 * 2^-52 r in each number, in 10^8 pairs by at most 3.9 * 2^-52 r. Most of that is NumPy's: its angle
    2 pi u is rounded, which alone moves it by up to 3.1 * 2^-52; the rest is the rounding of logarithm, root, cosine and
    product in both. These numbers were at most 1.2 * 2^-52 r from the true ones, NumPy's 3.1 * 2^-52 r.

    Parameters
    ----------
    seed : int
        In [0, 2**63).
    samples, draws : (B,) int64
        In [0, 2**32).
    first : int
        First word of the counter; each pair takes the next.
    last : int
        Fourth word of the counter: link.randomness.last_word of stream and point.
    count : int
        Pairs of each sample.
    dtype : type
        float64, or float32: the same numbers rounded.

    Returns
    -------
    (B, count, 2) array of that dtype

    Examples
    --------
    >>> sample = np.zeros(1, dtype=np.int64)
    >>> normals(0, sample, sample, first=0, last=0, count=1).round(3)
    array([[[-0.09 , -1.005]]])
    """
    pairs = np.empty((len(samples), 2 * count), dtype=dtype)
    _fill_normals(seed, np.ascontiguousarray(samples), np.ascontiguousarray(draws), first, last, pairs)
    return pairs.reshape(len(samples), count, 2)
