"""Additive white Gaussian noise."""

from __future__ import annotations

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.channel.base import Received, erase_unsent, require_rows
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db, told_no


def add_noise(x: Array, no: Array | float, normals: Array) -> Array:
    """y = x + sqrt(no / 2) n.

    Parameters
    ----------
    x : (..., 2) float
        Symbols as (I, Q).
    no : (...) float or scalar
        Variance of a complex noise sample; no / 2 in each dimension.
    normals : (..., 2) float
        Standard normals.
    """
    deviation = (no * 0.5) ** 0.5
    return x + normals * (deviation if isinstance(deviation, float) else deviation[..., None])


class Awgn:
    """White Gaussian noise of the SNR asked for; the receiver knows its variance.

    Parameters
    ----------
    no_offset_db : float
        In [-30, 30]: dB that the variance the receiver is told lies above the true one.
    """

    name = "awgn"

    def __init__(self, no_offset_db: float = 0.0) -> None:
        told_no(1.0, no_offset_db)
        self.no_offset_db = no_offset_db

    def __call__(self, x: Array, num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        require_rows(x, num_symbols, draws)
        xp = namespace(x)
        no = no_from_esn0_db(snr_db)
        normals = draws.normals(Stream.NOISE, millidecibels(snr_db), x.shape[1])
        y = xp.astype(add_noise(x, no, normals), xp.float32)
        told = told_no(no, self.no_offset_db)
        variances = xp.full(x.shape[:-1], told, dtype=xp.float32, device=array_api_compat.device(x))
        return Received(*erase_unsent(y, variances, num_symbols), num_symbols)
