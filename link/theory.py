"""What the link must measure: error rates and LLR magnitudes of Gray square QAM, in closed form or by quadrature.

Over AWGN the error rate of each bit is a sum of Gaussian tails (Cho and Yoon 2002, "On the general BER expression of one-
and two-dimensional amplitude modulations", IEEE Trans. Commun. 50(7), eq. 9),

    P_b = sum_i w_i Q((2 i + 1) d sqrt(2 Es/N0))          d half the distance between amplitudes at Es = 1

and flat fading with a known gain only averages each tail over the SNR (Simon and Alouini 2005, "Digital Communication over
Fading Channels", chapter 5). All functions take an array of SNRs and are for hard decisions, the signs of the LLRs.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, ndtr

from link.bits import label_bits
from link.constellation import bits_per_symbol, unit_amplitude
from link.errors import ArgumentError

# The integrand of rician_tail is analytic for |Im u| < pi / 2 and falls off as exp(-|u|): both errors are below 1e-15.
_RICIAN_STEP: Final = 0.0625
_RICIAN_RANGE: Final = (-25.0, 38.0)

# Quadrature of mean |LLR|: panels of half a standard deviation, out to where a Gaussian density is below 1e-17.
_NODES: Final = 16
_PANELS_PER_SIGMA: Final = 2
_TAIL_SIGMAS: Final = 9.0
_BISECTIONS: Final = 52


def bit_error_rates(order: int, esn0_db: ArrayLike) -> NDArray[np.float64]:
    """Error rate of each bit of a symbol over AWGN.

    Parameters
    ----------
    order : int
        QAM order.
    esn0_db : (...) float
        Es/N0 in dB.

    Returns
    -------
    (..., m) float64
        In label order: I, Q, I, Q, ...; earlier bits fail less often.

    Examples
    --------
    >>> bit_error_rates(16, 12.0).round(5)
    array([0.01875, 0.01875, 0.03751, 0.03751])
    """
    weights, odd = _tails(order)
    arguments = odd * unit_amplitude(order) * np.sqrt(2.0 * _linear(esn0_db))[..., None]
    return np.repeat(ndtr(-arguments) @ weights.T, 2, axis=-1)


def ber_awgn(order: int, esn0_db: ArrayLike) -> NDArray[np.float64]:
    """Bit error rate over AWGN, the mean over a symbol's bits; shapes (...) to (...).

    Examples
    --------
    >>> round(float(ber_awgn(16, 12.0)), 5)
    0.02813
    """
    return np.asarray(bit_error_rates(order, esn0_db).mean(axis=-1))


def ber_rayleigh(order: int, esn0_db: ArrayLike) -> NDArray[np.float64]:
    """Bit error rate over flat Rayleigh fading with a known gain, block or fast; shapes (...) to (...).

    E[Q(sqrt(2 c g))] = (1 - sqrt(c / (1 + c))) / 2 for the gain g = |h|^2, exponential with mean 1.

    Parameters
    ----------
    order : int
        QAM order.
    esn0_db : (...) float
        Mean Es/N0 in dB.

    Examples
    --------
    >>> round(float(ber_rayleigh(4, 10.0)), 5)
    0.04356
    """
    weights, odd = _tails(order)
    c = (odd * unit_amplitude(order)) ** 2 * _linear(esn0_db)[..., None]
    return np.asarray(rayleigh_tail(c) @ weights.mean(axis=0))


def ber_rician(order: int, esn0_db: ArrayLike, k_factor_db: float) -> NDArray[np.float64]:
    """Bit error rate over flat Rician fading with a known gain, block or fast; shapes (...) to (...).

    Parameters
    ----------
    order : int
        QAM order.
    esn0_db : (...) float
        Mean Es/N0 in dB.
    k_factor_db : float
        Power of the line of sight over that of the scattered paths, in dB.

    Examples
    --------
    >>> round(float(ber_rician(4, 10.0, 6.0)), 5)
    0.01433
    """
    weights, odd = _tails(order)
    c = (odd * unit_amplitude(order)) ** 2 * _linear(esn0_db)[..., None]
    return np.asarray(rician_tail(c, 10.0 ** (k_factor_db / 10.0)) @ weights.mean(axis=0))


def mean_abs_llr(
    order: int, esn0_db: ArrayLike, demapper: Literal["max-log", "app"] = "max-log"
) -> NDArray[np.float64]:
    """Mean |LLR| over AWGN and equally likely bits, the mean over a symbol's bits too; before any clipping.

    Parameters
    ----------
    order : int
        QAM order.
    esn0_db : (...) float
        Es/N0 in dB.
    demapper : {"max-log", "app"}
        "max-log" is exact, "app" a quadrature accurate to about 1e-12, relative.

    Returns
    -------
    (...) float64
        In nats.

    Examples
    --------
    >>> mean_abs_llr(16, [0.0, 12.0]).round(4)
    array([ 1.0188, 11.1743])
    """
    if demapper not in ("max-log", "app"):
        raise ArgumentError("demapper", f"must be max-log or app, got {demapper!r}")
    mean = _mean_abs_max_log if demapper == "max-log" else _mean_abs_app
    esn0 = _linear(esn0_db)
    return np.array([mean(order, 1.0 / float(value)) for value in esn0.ravel()]).reshape(esn0.shape)


def _linear(esn0_db: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(10.0 ** (np.asarray(esn0_db, dtype=np.float64) / 10.0))


def _tails(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights w of each bit's Gaussian tails, (k, n), and the odd multiples of d they are taken at, (n,)."""
    k = bits_per_symbol(order) // 2
    levels = 2**k
    i = np.arange(levels - 1)
    weights = np.zeros((k, len(i)))
    for bit in range(k):
        steps = i * 2**bit
        used = i < levels - levels // 2 ** (bit + 1)
        sign = 1 - 2 * (steps // levels % 2)
        weights[bit] = used * sign * (2.0 / levels) * (2**bit - (2 * steps + levels) // (2 * levels))
    return weights, 2.0 * i + 1.0


def rayleigh_tail(c: NDArray[np.float64]) -> NDArray[np.float64]:
    """E[Q(sqrt(2 c g))] for an exponential gain g of mean 1: (1 - sqrt(c / (1 + c))) / 2, without its cancellation."""
    root = np.sqrt(c / (1.0 + c))
    return np.asarray(0.5 / ((1.0 + c) * (1.0 + root)))


def rician_tail(c: NDArray[np.float64], k: float) -> NDArray[np.float64]:
    """E[Q(sqrt(2 c g))] for a Rician gain g of mean 1 and K-factor k, linear.

    Craig's form of Q (1991) turns the mean over g into its moment-generating function, and tan(theta) = exp(u) turns
    the integral over theta into one that the trapezoidal rule solves to rounding whatever c is.
    """
    u = np.arange(*_RICIAN_RANGE, _RICIAN_STEP)
    s = c[..., None] * (1.0 + np.exp(-2.0 * u))
    generating = (1.0 + k) / (1.0 + k + s) * np.exp(-k * s / (1.0 + k + s))
    return np.asarray(generating @ (0.5 / np.cosh(u))) * (_RICIAN_STEP / np.pi)


def _mean_abs_max_log(order: int, no: float) -> float:
    """Mean |LLR|, exact: between neighbouring even multiples of d it is linear in y, and y is a mixture of Gaussians."""
    bits, amplitudes = _dimension(order)
    d = unit_amplitude(order)
    sigma = np.sqrt(no / 2.0)
    inner = np.arange(2 - len(amplitudes), len(amplitudes) - 1, 2) * d
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    left, right = (np.abs(_llr(amplitudes + offset * d, bits, amplitudes, no, "max-log")) for offset in (-0.5, 0.5))
    slope = (right - left) / d
    value = (right + left) / 2.0
    z = (edges[:, None] - amplitudes) / sigma
    mass = np.diff(ndtr(z), axis=0)
    moment = -sigma * np.diff(np.exp(-z * z / 2.0) / np.sqrt(2.0 * np.pi), axis=0)
    shift = amplitudes - amplitudes[:, None]
    segments = value @ mass + slope @ (moment + shift * mass)
    return float(segments.mean())


def _mean_abs_app(order: int, no: float) -> float:
    """Mean |LLR| by Gauss-Legendre quadrature over y > 0, each panel split where the LLR changes sign."""
    bits, amplitudes = _dimension(order)
    sigma = np.sqrt(no / 2.0)
    end = amplitudes[-1] + _TAIL_SIGMAS * sigma
    edges = np.linspace(0.0, end, 1 + int(np.ceil(end / sigma * _PANELS_PER_SIGMA)))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    total = 0.0
    for bit in bits.T:
        column = bit[:, None]
        low, high = edges[:-1], edges[1:]
        sign_low = _llr(low, column, amplitudes, no, "app")[0] < 0.0
        crossed = sign_low != (_llr(high, column, amplitudes, no, "app")[0] < 0.0)
        a, b, negative = low[crossed], high[crossed], sign_low[crossed]
        for _ in range(_BISECTIONS):
            middle = (a + b) / 2.0
            before = (_llr(middle, column, amplitudes, no, "app")[0] < 0.0) == negative
            a, b = np.where(before, middle, a), np.where(before, b, middle)
        cuts = np.sort(np.concatenate([edges, a]))
        half = np.diff(cuts)[:, None] / 2.0
        y = (cuts[:-1, None] + half + half * nodes).ravel()
        density = np.exp(-((y[:, None] - amplitudes) ** 2) / no).mean(axis=1) / np.sqrt(np.pi * no)
        total += float((half * weights).ravel() @ (np.abs(_llr(y, column, amplitudes, no, "app")[0]) * density))
    return 2.0 * total / len(bits.T)


def _dimension(order: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Labels of one dimension, (2**k, k), and amplitudes at Es = 1, rising, (2**k,).

    The reflected Gray code is TS 38.211's but for inverted bits, which change no |LLR|.
    """
    k = bits_per_symbol(order) // 2
    steps = np.arange(2**k)
    return label_bits(steps ^ (steps >> 1), k), (2.0 * steps + 1.0 - 2.0**k) * unit_amplitude(order)


def _llr(
    y: NDArray[np.float64],
    bits: NDArray[np.uint8],
    amplitudes: NDArray[np.float64],
    no: float,
    demapper: Literal["max-log", "app"],
) -> NDArray[np.float64]:
    """LLRs of (n,) values by going through all amplitudes, (k, n)."""
    metric = -((y[:, None] - amplitudes) ** 2) / no
    reduce = np.max if demapper == "max-log" else logsumexp
    return np.stack([reduce(metric[:, bit == 1], axis=1) - reduce(metric[:, bit == 0], axis=1) for bit in bits.T])
