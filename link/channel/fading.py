"""Rayleigh and Rician flat fading, block or fast, and a one-tap equaliser.

    y = h x + w,   x_hat = y / h_hat,   no_eff = (no + E|h - h_hat|^2) / |h_hat|^2          E|h|^2 = 1

The receiver knows the gains (h_hat = h) or estimates those of blocks from pilots (link.channel.csi); the effective variance
is what it is told. Gains and noise are the same whatever it knows, so kinds of channel state information are compared in
pairs. A symbol block interleaver stands before the fading blocks, so that most symbols of one block are far apart in the
sample.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.bits import block_interleaver
from link.channel.awgn import add_noise
from link.channel.base import Received, erase_unsent, require_rows
from link.channel.csi import PERFECT, Csi, gain_report, multiply, num_blocks, one_tap
from link.device import arrays
from link.errors import ArgumentError, require_range
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db, told_no


class Fading:
    """Flat fading.

    Parameters
    ----------
    block_symbols : int
        Symbols that share one gain, in the order sent; 1 is fast fading, 0 one gain for the whole sample.
    k_factor_db : float or None
        Rician K-factor, in [-20, 40] dB: power of the line of sight over that of the scattered paths. None is Rayleigh.
    csi : Csi
        What the receiver knows of the gains; all of them where fading is fast.
    no_offset_db : float
        In [-30, 30]: dB that the noise variance the receiver is told lies above the true one.

    Raises
    ------
    ArgumentError
        If an option is out of range, or fast fading is to be estimated from pilots.
    """

    def __init__(
        self,
        block_symbols: int = 0,
        k_factor_db: float | None = None,
        csi: Csi = PERFECT,
        no_offset_db: float = 0.0,
    ) -> None:
        if not 0 <= block_symbols < 2**31:
            raise ArgumentError("block_symbols", f"must be in [0, 2**31), got {block_symbols}")
        if k_factor_db is not None:
            require_range("k_factor_db", k_factor_db, -20.0, 40.0)
        if block_symbols == 1 and not csi.perfect:
            raise ArgumentError(
                "csi",
                f"must be perfect where each symbol fades anew, since pilots tell nothing of it, got {csi.kind!r}",
            )
        told_no(1.0, no_offset_db)
        self.block_symbols = block_symbols
        self.k_factor_db = k_factor_db
        self.csi = csi
        self.no_offset_db = no_offset_db
        family = "rayleigh" if k_factor_db is None else "rician"
        self.name = f"{family}-fast" if block_symbols == 1 else family

    @property
    def moments(self) -> tuple[float, float]:
        """Mean of the gains, which is real, and their variance E|h - mean|^2; the power they sum to is 1."""
        if self.k_factor_db is None:
            return 0.0, 1.0
        k = 10.0 ** (self.k_factor_db / 10.0)
        return math.sqrt(k / (k + 1.0)), 1.0 / (k + 1.0)

    def __call__(self, x: Array, num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        require_rows(x, num_symbols, draws)
        no = no_from_esn0_db(snr_db)
        told = told_no(no, self.no_offset_db)
        point = millidecibels(snr_db)
        h = self._gains(x.shape[1], point, draws)
        estimate = self.csi.estimate(h, no, told, *self.moments, point, draws)
        lengths, which = np.unique(num_symbols, return_inverse=True)
        engine = arrays(draws.engine)
        block = engine.put(fading_blocks(lengths, x.shape[1], self.block_symbols))[engine.put(which)]
        h, h_hat = _of_symbols(h, block), _of_symbols(estimate.h_hat, block)
        noisy = add_noise(multiply(h, x), no, draws.normals(Stream.NOISE, point, x.shape[1]))
        y, variances = erase_unsent(*one_tap(noisy, h_hat, told, estimate.error_variance), num_symbols)
        blocks = num_blocks(num_symbols, self.block_symbols)
        return Received(y, variances, num_symbols, gain_report(h, h_hat, num_symbols), self.csi.pilots * blocks)

    def _gains(self, length: int, point: int, draws: Draws) -> Array:
        """Gains of each block as (real, imaginary) pairs, (B, K, 2)."""
        most = int(num_blocks(np.array(length), self.block_symbols))
        mean, variance = self.moments
        xp, device = arrays(draws.engine)
        scattered = draws.normals(Stream.FADING, point, most) / math.sqrt(2.0)
        return math.sqrt(variance) * scattered + xp.asarray([mean, 0.0], dtype=xp.float64, device=device)


def fading_blocks(lengths: NDArray[np.int64], longest: int, block_symbols: int) -> NDArray[np.int64]:
    """Which fading block each symbol falls into, behind the interleaver of its sample; a row for each length of a sample."""
    blocks = np.zeros((len(lengths), longest), dtype=np.int64)
    if block_symbols:
        for row, length in zip(blocks, lengths, strict=True):
            row[:length] = np.argsort(block_interleaver(int(length), block_symbols)) // block_symbols
    return blocks


def _of_symbols(of_blocks: Array, block: Array) -> Array:
    """Each symbol's gain, (B, S, 2), from those of the blocks, (B, K, 2)."""
    return namespace(of_blocks, block).take_along_axis(of_blocks, block[..., None], axis=1)
