"""What the receiver knows of the gains of a block fading channel: all of it, or what pilots tell.

    P pilots a block    y_p = h p + w        |p|^2 = 1, w ~ CN(0, no)
    least squares       h_ls = mean(y_p p*) = h + CN(0, no/P)
    LMMSE               h_hat = m + g (h_ls - m)              g = s / (s + no/P), h ~ CN(m, s)
                        h = h_hat + e, e ~ CN(0, g no/P) independent of h_hat

(Kay 1993, "Fundamentals of Statistical Signal Processing: Estimation Theory", chapters 4 and 12.) LMMSE is told the mean m
and the variance s of the gains, for Rayleigh m = 0 and s = 1, and gains being Gaussian it is the posterior mean. A payload
symbol is then y = h_hat x + (e x + w), so what the receiver is told after its one tap is

    no_eff = (no + E|h - h_hat|^2) / |h_hat|^2                Es = 1

For LMMSE this is exact given h_hat for symbols of constant modulus, whose LLRs are calibrated; for larger QAM, |x|^2 is
replaced by its mean. Least squares knows no prior, so it hands on the unconditional no/P and leaves a bias: over Rayleigh
fading E[y/h_ls | h_ls, x] = g x, drawn to 0, where LMMSE has x. In either case the error of a gain is the same for all
symbols of its block, so sums of their LLRs, which take it for independent, are overconfident.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.channel.awgn import add_noise
from link.constellation import points
from link.errors import ArgumentError
from link.randomness import Draws, Stream

CSI: Final = ("perfect", "ls", "lmmse")

PILOTS_MAX: Final = 1024
"""Most pilots a fading block."""

_SEQUENCE: Final = points(4)
"""Pilots, (4, 2), in turn: the points of QPSK."""

_PILOT_SPAN: Final = 2**18
"""Words of the random generator between one pilot of a block and the next; so many blocks may a sample have."""


class Estimate(NamedTuple):
    """Gains as the receiver takes them.

    Attributes
    ----------
    h_hat : (B, K, 2) float64
        Of each block, as (real, imaginary).
    error_variance : float
        E|h - h_hat|^2, as the receiver has it.
    """

    h_hat: Array
    error_variance: float


@dataclass(frozen=True)
class Csi:
    """Channel state information: how the receiver comes by the gains.

    Parameters
    ----------
    kind : str
        One of CSI.
    pilots : int
        Pilot symbols a fading block, in [1, 1024], each of energy Es = 1; 0 where the gains are known.

    Raises
    ------
    ArgumentError
        If the kind is unknown, or the number of pilots is none that it can use.
    """

    kind: str = "perfect"
    pilots: int = 0

    def __post_init__(self) -> None:
        if self.kind not in CSI:
            raise ArgumentError("csi", f"must be one of {', '.join(CSI)}, got {self.kind!r}")
        if self.kind == "perfect" and self.pilots != 0:
            raise ArgumentError("pilots", f"must be 0 with perfect csi, got {self.pilots}")
        if self.kind != "perfect" and not 1 <= self.pilots <= PILOTS_MAX:
            raise ArgumentError("pilots", f"must be in [1, {PILOTS_MAX}] with csi {self.kind}, got {self.pilots}")

    @property
    def perfect(self) -> bool:
        """Whether the gains are known."""
        return self.kind == "perfect"

    def estimate(
        self,
        h: Array,
        no: float,
        told: float,
        mean: float,
        variance: float,
        point: int,
        draws: Draws,
    ) -> Estimate:
        """What the receiver makes of the pilots of each block.

        Parameters
        ----------
        h : (B, K, 2) float64
            True gains.
        no, told : float
            Noise variance of a pilot, and what the receiver takes it for.
        mean, variance : float
            Of the gains: their real mean, and E|h - mean|^2.
        point : int
            The SNR in millidecibels.
        draws : Draws
            Stream PILOTS is taken from.
        """
        if self.perfect:
            return Estimate(h, 0.0)
        h_ls = least_squares(h, no, self.pilots, point, draws)
        return (
            Estimate(h_ls, told / self.pilots) if self.kind == "ls" else lmmse(h_ls, told, self.pilots, mean, variance)
        )


PERFECT: Final = Csi()


def least_squares(h: Array, no: float, pilots: int, point: int, draws: Draws) -> Array:
    """Send pilots through each block and match them: h_ls = mean(y_p p*), (B, K, 2).

    The noise of a pilot has an address of its own, (block, number), so that fewer pilots are the first of more.
    """
    if h.shape[1] > _PILOT_SPAN:
        raise ArgumentError("block_symbols", f"must make at most {_PILOT_SPAN} blocks a sample, made {h.shape[1]}")
    xp = namespace(h)
    matched = xp.zeros_like(h)
    sequence = xp.asarray(_SEQUENCE, device=array_api_compat.device(h))
    for number in range(pilots):
        p = sequence[number % len(_SEQUENCE)]
        normals = draws.normals(Stream.PILOTS, point, h.shape[1], start=number * _PILOT_SPAN)
        matched += multiply(conjugate(p), add_noise(multiply(h, p), no, normals))
    return matched / pilots


def lmmse(h_ls: Array, no: float, pilots: int, mean: float, variance: float) -> Estimate:
    """Posterior mean and variance of gains CN(mean, variance), given their least-squares estimates.

    Examples
    --------
    >>> lmmse(np.array([[[1.0, 1.0]]]), no=1.0, pilots=4, mean=0.0, variance=1.0)
    Estimate(h_hat=array([[[0.8, 0.8]]]), error_variance=0.2)
    """
    g = variance / (variance + no / pilots)
    prior = namespace(h_ls).asarray([mean, 0.0], dtype=h_ls.dtype, device=array_api_compat.device(h_ls))
    return Estimate(prior + g * (h_ls - prior), g * no / pilots)


def num_blocks(num_symbols: NDArray[np.int64], block_symbols: int) -> NDArray[np.int64]:
    """Fading blocks of samples of so many symbols, (B,); one each where `block_symbols` is 0, none where nothing is sent.

    Examples
    --------
    >>> num_blocks(np.array([0, 1, 6, 7]), 3), num_blocks(np.array([0, 1, 6, 7]), 0)
    (array([0, 1, 2, 3]), array([0, 1, 1, 1]))
    """
    blocks = -(-num_symbols // block_symbols) if block_symbols else np.minimum(num_symbols, 1)
    return np.asarray(blocks, dtype=np.int64)


def multiply(a: Array, b: Array) -> Array:
    """Product of complex numbers held as (real, imaginary) pairs."""
    return namespace(a, b).stack(
        [a[..., 0] * b[..., 0] - a[..., 1] * b[..., 1], a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]], axis=-1
    )


def conjugate(a: Array) -> Array:
    """Conjugate of complex numbers held as (real, imaginary) pairs."""
    return namespace(a).stack([a[..., 0], -a[..., 1]], axis=-1)


def one_tap(noisy: Array, h_hat: Array, told: float, error_variance: Array | float) -> tuple[Array, Array]:
    """Divide what was heard by the gain it is taken for.

    Parameters
    ----------
    noisy : (B, S, 2) float
        h x + w.
    h_hat : (B, S, 2) float64
        Each symbol's gain, as the receiver takes it.
    told : float
        Noise variance that the receiver is told.
    error_variance : (B, S) float64 or float
        E|h - h_hat|^2, as the receiver has it.

    Returns
    -------
    (B, S, 2) float32, (B, S) float32
        Equalised symbols, and their effective noise variance (no + E|h - h_hat|^2) / |h_hat|^2.
    """
    xp = namespace(noisy, h_hat)
    power = xp.sum(h_hat * h_hat, axis=-1)
    y = multiply(conjugate(h_hat), noisy) / power[..., None]
    return xp.astype(y, xp.float32), xp.astype((told + error_variance) / power, xp.float32)


def gain_report(h: Array, h_hat: Array, num_symbols: NDArray[np.int64]) -> dict[str, float]:
    """Mean |h|^2 and mean |h_hat - h|^2 over the symbols that were sent; both gains are (B, S, 2).

    Nothing of another device's arrays: a number would make the host wait for it.
    """
    if not isinstance(h, np.ndarray):
        return {}
    sent = np.arange(h.shape[1]) < num_symbols[:, None]
    if not sent.any():
        return {"mean_gain": 1.0, "csi_mse": 0.0}
    power, error = np.sum(h * h, axis=-1), np.sum((h_hat - h) ** 2, axis=-1)
    return {"mean_gain": float(power[sent].mean()), "csi_mse": float(error[sent].mean())}
