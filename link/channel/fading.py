"""Rayleigh and Rician flat fading, block or fast, with perfect channel state information and a one-tap equaliser.

    y = h x + w,   x_hat = y / h,   no_eff = no / |h|^2          E|h|^2 = 1

The effective variance is what the receiver is told. A symbol block interleaver stands before the fading blocks, so that most
symbols of one block are far apart in the sample.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from link.bits import block_interleaver
from link.channel.awgn import add_noise
from link.channel.base import Received, erase_unsent, require_rows
from link.errors import ArgumentError, require_range
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db


class Fading:
    """Flat fading.

    Parameters
    ----------
    block_symbols : int
        Symbols that share one gain, in the order sent; 1 is fast fading, 0 one gain for the whole sample.
    k_factor_db : float or None
        Rician K-factor, in [-20, 40] dB: power of the line of sight over that of the scattered paths. None is Rayleigh.
    """

    def __init__(self, block_symbols: int = 0, k_factor_db: float | None = None) -> None:
        if not 0 <= block_symbols < 2**31:
            raise ArgumentError("block_symbols", f"must be in [0, 2**31), got {block_symbols}")
        if k_factor_db is not None:
            require_range("k_factor_db", k_factor_db, -20.0, 40.0)
        self.block_symbols = block_symbols
        self.k_factor_db = k_factor_db
        family = "rayleigh" if k_factor_db is None else "rician"
        self.name = f"{family}-fast" if block_symbols == 1 else family

    def __call__(self, x: NDArray[np.float32], num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        require_rows(x, num_symbols, draws)
        no = no_from_esn0_db(snr_db)
        point = millidecibels(snr_db)
        h = self._gains(num_symbols, x.shape[1], point, draws)
        noisy = add_noise(_multiply(h, x), no, draws.normals(Stream.NOISE, point, x.shape[1]))
        power = np.sum(h * h, axis=-1)
        y = _multiply(h * (1.0, -1.0), noisy) / power[..., None]
        y, variances = erase_unsent(y.astype(np.float32), (no / power).astype(np.float32), num_symbols)
        sent = np.isfinite(variances)
        return Received(y, variances, num_symbols, {"mean_gain": float(power[sent].mean()) if sent.any() else 1.0})

    def _gains(self, num_symbols: NDArray[np.int64], length: int, point: int, draws: Draws) -> NDArray[np.float64]:
        """Channel gains as (real, imaginary) pairs, (B, S, 2)."""
        blocks = _blocks(num_symbols, length, self.block_symbols)
        scattered = draws.normals(Stream.FADING, point, length) / math.sqrt(2.0)
        h: NDArray[np.float64] = np.take_along_axis(scattered, blocks[..., None], axis=1)
        if self.k_factor_db is not None:
            k = 10.0 ** (self.k_factor_db / 10.0)
            h = math.sqrt(1.0 / (k + 1.0)) * h
            h[..., 0] += math.sqrt(k / (k + 1.0))
        return h


def _blocks(num_symbols: NDArray[np.int64], length: int, block_symbols: int) -> NDArray[np.int64]:
    """Which fading block each symbol falls into, (B, S), behind the interleaver of its sample."""
    blocks = np.zeros((len(num_symbols), length), dtype=np.int64)
    if block_symbols == 0:
        return blocks
    for count in np.unique(num_symbols):
        slot = np.argsort(block_interleaver(int(count), block_symbols))
        blocks[num_symbols == count, :count] = slot // block_symbols
    return blocks


def _multiply(a: NDArray[np.float64], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Product of complex numbers held as (real, imaginary) pairs."""
    return np.stack(
        [a[..., 0] * b[..., 0] - a[..., 1] * b[..., 1], a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]], axis=-1
    )
