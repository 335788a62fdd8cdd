"""What coding could reach: capacities of AWGN and Rayleigh fading, and the error rate of the best code of a finite length.

All are per complex symbol at Es/N0 = SNR, with noise of variance N0 / 2 in each dimension.

    Gaussian inputs   C = log2(1 + SNR)
    "cm"              coded modulation: I(X; Y) with X uniform on square QAM, for a decoder that takes symbols whole
    "bicm"            bit-interleaved coded modulation: the sum of I(B_i; Y) over a symbol's Gray-labelled bits, for a
                      decoder that is given the exact demapper's LLRs and takes bits for independent

(Caire, Taricco, Biglieri 1998, "Bit-interleaved coded modulation", IEEE Trans. Inf. Theory 44(3), section III). Each is the
mean of an information density i(X; Y). The variance of that, the dispersion V, says what a finite length costs: the best
code that sends k bits in n real dimensions has a block error rate of about

    Q((n C - k + log2(n) / 2) / sqrt(n V))          C and V per real dimension

(Polyanskiy, Poor, Verdu 2010, "Channel coding rate in the finite blocklength regime", IEEE Trans. Inf. Theory 56(5), eq.
296). It is an approximation, neither reached by a code nor a bound on codes, and good from n = 100 or so on unless the rate
is very low. For Gaussian inputs V = SNR (SNR + 2) / (2 (SNR + 1)^2) log2(e)^2, that of codewords on a sphere. For QAM it is
the variance over X and Y both, that of codewords of independent symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from link.bits import label_bits
from link.constellation import bits_per_symbol, unit_amplitude
from link.errors import ArgumentError, require_range
from link.snr import SNR_DB_MAX, SNR_DB_MIN

Decoding: TypeAlias = Literal["cm", "bicm"]

# The trapezoidal rule with step h over the noise, in deviations. Two amplitudes 2 t deviations apart make the integrand
# singular at an imaginary part of pi / (2 t), where the density is exp(-t^2 / 2): the error, of the order of
# exp(-(pi^2 / (t h) + t^2 / 2)), is below 1e-18 whatever t is.
_NOISE: Final = np.arange(-160, 161) / 16.0
_NOISE_WEIGHTS: Final = np.exp(-0.5 * _NOISE**2) / np.exp(-0.5 * _NOISE**2).sum()
# The same over the logarithm of an exponential gain: analytic for |Im| < pi / 2, so of the order of exp(-pi^2 / h) = 1e-17.
_LOG_GAINS: Final = np.arange(-100, 17) / 4.0
_GAIN_WEIGHTS: Final = np.exp(_LOG_GAINS - np.exp(_LOG_GAINS)) / 4.0
_BISECTIONS: Final = 60


class Information(NamedTuple):
    """Mean and variance of the information density of a complex symbol; (...) float64 each.

    Attributes
    ----------
    capacity : (...) float64
        Bits.
    dispersion : (...) float64
        Bits squared.
    """

    capacity: NDArray[np.float64]
    dispersion: NDArray[np.float64]


def information(snr_db: ArrayLike, order: int | None = None, decoding: Decoding = "cm") -> Information:
    """Capacity and dispersion over AWGN.

    Parameters
    ----------
    snr_db : (...) float
        Es/N0, dB.
    order : int or None
        QAM order, used uniformly; None for Gaussian inputs.
    decoding : {"cm", "bicm"}
        Of QAM; the two are one for QPSK.

    Examples
    --------
    >>> [float(information(10.0, 16, decoding).capacity.round(4)) for decoding in ("cm", "bicm")]
    [3.1639, 3.1636]
    """
    if decoding not in ("cm", "bicm"):
        raise ArgumentError("decoding", f"must be cm or bicm, got {decoding!r}")
    snr = 10.0 ** (np.asarray(snr_db, dtype=np.float64) / 10.0)
    if order is None:
        return Information(np.log1p(snr) / math.log(2.0), snr * (snr + 2.0) / (snr + 1.0) ** 2 / math.log(2.0) ** 2)
    moments = np.array([_moments(order, float(value), decoding) for value in snr.ravel()])
    return Information(*(2.0 * moments.T.reshape(2, *snr.shape)))


def capacity(snr_db: ArrayLike, order: int | None = None, decoding: Decoding = "cm") -> NDArray[np.float64]:
    """Capacity over AWGN, bits a symbol; parameters and shapes as for `information`.

    Examples
    --------
    >>> capacity([0.0, 10.0]).round(4)
    array([1.    , 3.4594])
    >>> capacity([0.0, 10.0], 4).round(4)
    array([0.9719, 1.9935])
    """
    return information(snr_db, order, decoding).capacity


def rayleigh_capacity(snr_db: ArrayLike, order: int | None = None, decoding: Decoding = "cm") -> NDArray[np.float64]:
    """Ergodic capacity over Rayleigh fading whose gain the receiver knows, bits a symbol: E[C(g SNR)], g exponential.

    For Gaussian inputs that is exp(1 / SNR) E1(1 / SNR) / ln 2 (Alouini, Goldsmith 1999, "Capacity of Rayleigh fading
    channels under different adaptive transmission and diversity-combining techniques", IEEE Trans. Veh. Technol. 48(4)).

    Parameters
    ----------
    snr_db : (...) float
        Mean Es/N0, dB.
    order, decoding
        As for `information`.

    Examples
    --------
    >>> rayleigh_capacity([0.0, 10.0]).round(4)
    array([0.8603, 2.9065])
    """
    of_gains = np.asarray(snr_db, dtype=np.float64)[..., None] + _LOG_GAINS * (10.0 / math.log(10.0))
    return np.asarray(capacity(of_gains, order, decoding) @ _GAIN_WEIGHTS)


def rayleigh_outage(
    bits: float, snr_db: ArrayLike, order: int | None = None, decoding: Decoding = "cm"
) -> NDArray[np.float64]:
    """Probability that a block which shares one Rayleigh gain cannot carry `bits` a symbol: P(C(g SNR) < bits).

    That is 1 - exp(-SNR_bits / SNR), with SNR_bits the one at which C is `bits`. Over such a channel it is near the error
    rate of the best code even where blocks are short, since beside fading the dispersion of the noise hardly matters (Yang,
    Durisi, Koch, Polyanskiy 2014, "Quasi-static multiple-antenna fading channels at finite blocklength", IEEE Trans. Inf.
    Theory 60(7)).

    Parameters
    ----------
    bits : float
        Information bits a symbol, above 0 and below those of the constellation.
    snr_db : (...) float
        Mean Es/N0, dB.
    order, decoding
        As for `information`.

    Examples
    --------
    >>> rayleigh_outage(1.0, [0.0, 10.0, 20.0]).round(4)
    array([0.6321, 0.0952, 0.01  ])
    """
    margin_db = capacity_snr_db(bits, order, decoding) - np.asarray(snr_db, dtype=np.float64)
    return np.asarray(-np.expm1(-(10.0 ** (margin_db / 10.0))))


def normal_approximation_bler(
    k: int, n_symbols: int, snr_db: ArrayLike, order: int | None = None, decoding: Decoding = "cm"
) -> NDArray[np.float64]:
    """Block error rate of about the best code that sends k bits in n_symbols over AWGN.

    Parameters
    ----------
    k : int
        Information bits of a block; below the bits of its symbols.
    n_symbols : int
        Complex symbols of a block.
    snr_db : (...) float
        Es/N0, dB.
    order, decoding
        As for `information`.

    Returns
    -------
    (...) float64

    Examples
    --------
    Half a bit a dimension in 500 QPSK symbols:

    >>> normal_approximation_bler(500, 500, [0.5, 1.0, 1.5], 4).round(6)
    array([1.30258e-01, 3.89000e-03, 1.00000e-05])
    """
    _require_block(k, n_symbols, order)
    c, v = information(snr_db, order, decoding)
    # Where a constellation is all but noiseless its dispersion underflows, and the error rate with it.
    deviation = np.sqrt(np.maximum(n_symbols * v, np.finfo(np.float64).tiny))
    return np.asarray(ndtr((k - n_symbols * c - _log_term(n_symbols)) / deviation))


def normal_approximation_bits(
    n_symbols: int, bler: float, snr_db: ArrayLike, order: int | None = None, decoding: Decoding = "cm"
) -> NDArray[np.float64]:
    """Information bits that about the best code sends in n_symbols at a block error rate; not rounded, at least 0.

    Parameters
    ----------
    n_symbols : int
    bler : float
        In (0, 1).
    snr_db : (...) float
    order, decoding
        As for `information`.

    Examples
    --------
    >>> normal_approximation_bits(500, 1e-3, [0.0, 10.0]).round(1)
    array([ 418.6, 1635.4])
    """
    _require_block(1, n_symbols, order)
    _require_bler(bler)
    c, v = information(snr_db, order, decoding)
    bits = n_symbols * c + np.sqrt(n_symbols * v) * float(ndtri(bler)) + _log_term(n_symbols)
    most = math.inf if order is None else n_symbols * bits_per_symbol(order)
    return np.asarray(np.clip(bits, 0.0, most))


def normal_approximation_snr_db(
    k: int, n_symbols: int, bler: float, order: int | None = None, decoding: Decoding = "cm"
) -> float:
    """Es/N0 in dB that about the best code needs to send k bits in n_symbols at a block error rate.

    Parameters
    ----------
    k, n_symbols, order, decoding
        As for `normal_approximation_bler`.
    bler : float
        In (0, 1).

    Raises
    ------
    ArgumentError
        If no SNR in [-30, 60] dB gives that rate, or an argument is out of range.

    Examples
    --------
    >>> round(normal_approximation_snr_db(500, 500, 1e-3, 4), 3)
    1.136
    """
    _require_bler(bler)

    def rate(snr_db: float) -> float:
        return float(normal_approximation_bler(k, n_symbols, snr_db, order, decoding))

    return _falling(rate, bler, "bler")


def capacity_snr_db(bits: float, order: int | None = None, decoding: Decoding = "cm") -> float:
    """Es/N0 in dB at which the capacity over AWGN is `bits` a symbol: the limit for blocks without end.

    Examples
    --------
    Coded at rate 1/2, antipodal signals need an Eb/N0 of 0.187 dB at least, and QPSK sends one information bit a symbol:

    >>> round(capacity_snr_db(1.0, 4), 3)
    0.187
    """
    if not bits > 0.0 or (order is not None and bits >= bits_per_symbol(order)):
        limit = "" if order is None else f" and below {bits_per_symbol(order)}"
        raise ArgumentError("bits", f"must be above 0{limit}, got {bits:g}")
    return _falling(lambda snr_db: -float(capacity(snr_db, order, decoding)), -bits, "bits")


def _falling(function: Callable[[float], float], value: float, field: str) -> float:
    """The SNR, dB, at which a falling function takes a value."""
    low, high = SNR_DB_MIN, SNR_DB_MAX
    if not function(high) <= value <= function(low):
        raise ArgumentError(field, f"must be reached in [{low:g}, {high:g}] dB, got {abs(value):g}")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if function(middle) > value else (low, middle)
    return high


@lru_cache(maxsize=4096)
def _moments(order: int, snr: float, decoding: Decoding) -> tuple[float, float]:
    """Mean and variance of the information density of one dimension, bits."""
    k = bits_per_symbol(order) // 2
    steps = np.arange(2**k)
    # In deviations of the noise. The reflected Gray code is TS 38.211's but for inverted bits; by symmetry the upper half of
    # the amplitudes stands for all.
    amplitudes = (2.0 * steps + 1.0 - 2.0**k) * unit_amplitude(order) * math.sqrt(2.0 * snr)
    labels = label_bits(steps ^ (steps >> 1), k)
    upper = steps[2 ** (k - 1) :]
    y = amplitudes[upper, None] + _NOISE
    likelihood = np.exp(-0.5 * (y[..., None] - amplitudes) ** 2)
    total = np.log2(likelihood.sum(axis=-1))
    if decoding == "cm":
        density = k - 0.5 * _NOISE**2 / math.log(2.0) - total
    else:
        same = (labels[upper, None, :] == labels).astype(np.float64)
        density = k + np.log2(likelihood @ same).sum(axis=-1) - k * total
    weights = _NOISE_WEIGHTS / len(upper)
    mean = float((density @ weights).sum())
    return min(max(mean, 0.0), float(k)), float(((density - mean) ** 2 @ weights).sum())


def _log_term(n_symbols: int) -> float:
    """Half the logarithm of the number of real dimensions."""
    return 0.5 * math.log2(2.0 * n_symbols)


def _require_block(k: int, n_symbols: int, order: int | None) -> None:
    require_range("n_symbols", n_symbols, 1, 1e12)
    most = math.inf if order is None else bits_per_symbol(order) * n_symbols
    if not 1 <= k < most:
        raise ArgumentError("k", f"must be in [1, {most:g}), got {k}")


def _require_bler(bler: float) -> None:
    if not 0.0 < bler < 1.0:
        raise ArgumentError("bler", f"must be in (0, 1), got {bler:g}")
