"""The uncoded link: payload bits through mapper, channel and demapper, and what the signs of the LLRs get wrong.

    bits ──group, map──> x ──channel──> y, no ──demap──> LLRs ──sign──> compared with the bits, and counted
    └──────────────────────── `llrs` ───────────────────────────┘

`Modem` counts frames by number, and a frame's numbers are its own: counts do not depend on how frames are split among calls,
tiles, processes or machines. The stages are link's; over AWGN and over fading with known gains the fused kernel, which is
held to them by test, counts max-log decisions many times faster. A coded link encodes in front of `llrs` and decodes behind.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.bits import group, num_symbols, ungroup
from link.channel import Awgn, Channel, Fading
from link.constellation import app_llr, bits_per_symbol, map_bits, max_log_llr
from link.device import arrays, host_engine
from link.errors import ArgumentError
from link.randomness import SEED_MAX, Draws, Stream
from link.snr import millidecibels

DEMAPPERS: Final = ("max-log", "app")

FRAME_SYMBOLS_MAX: Final = 2**20
FRAMES_MAX: Final = 2**32
"""A frame's number is its sample's in the random generator."""

_TILE_SYMBOLS: Final = 2**14
_CUDA_TILE_SYMBOLS: Final = 2**20


class ErrorCounts(NamedTuple):
    """What went wrong in some frames.

    Attributes
    ----------
    bit_errors, symbol_errors, frame_errors : int
        Bits decided wrong, and symbols and frames with any such bit.
    symbol_squares, frame_squares : int
        Sums over symbols, and over frames, of the square of how many of their bits are wrong: what the variance of the bit
        error rate is estimated from, where the symbol, or the frame, is the independent unit.
    """

    bit_errors: int
    symbol_errors: int
    symbol_squares: int
    frame_errors: int
    frame_squares: int

    @classmethod
    def total(cls, counts: Iterable[ErrorCounts]) -> ErrorCounts:
        """Of several sets of frames.

        Examples
        --------
        >>> ErrorCounts.total([ErrorCounts(3, 2, 5, 1, 9), ErrorCounts(1, 1, 1, 1, 1)])
        ErrorCounts(bit_errors=4, symbol_errors=3, symbol_squares=6, frame_errors=2, frame_squares=10)
        """
        sums = [0] * len(cls._fields)
        for some in counts:
            sums = [total + count for total, count in zip(sums, some, strict=True)]
        return cls(*sums)

    def require_fit(self, frames: int, frame_symbols: int, frame_bits: int) -> None:
        """Raise ValueError unless so many frames can have given these counts; without symbols, none of those is judged.

        Examples
        --------
        >>> ErrorCounts(3, 2, 5, 5, 9).require_fit(frames=4, frame_symbols=16, frame_bits=32)
        Traceback (most recent call last):
        ...
        ValueError: frame_errors = 5 do not fit 4 frames
        """
        most = (frames * frame_bits, frames * frame_symbols, self.bit_errors**2, frames, self.bit_errors**2)
        for name, count, limit in zip(self._fields, self, most, strict=True):
            if not 0 <= count <= limit:
                raise ValueError(f"{name} = {count} do not fit {frames} frames")
        of_symbol = (self.symbol_errors, self.symbol_squares) if frame_symbols else (self.bit_errors, self.bit_errors)
        ordered = self.frame_errors <= of_symbol[0] <= self.bit_errors <= of_symbol[1] <= self.frame_squares
        # Cauchy and Schwarz, over symbols and over frames in error.
        least = min(of_symbol[0] * of_symbol[1], self.frame_errors * self.frame_squares)
        if not (ordered and self.bit_errors**2 <= least):
            raise ValueError(f"{self} contradicts itself")


@dataclass(frozen=True)
class Modem:
    """Gray square QAM over a channel, in frames.

    Parameters
    ----------
    order : int
        QAM order, one of link.constellation.ORDERS.
    channel : Channel
        A row of it is a frame.
    demapper : {"max-log", "app"}
    frame_symbols : int
        In [1, 2**20]. Over block fading the frame is the independent unit, otherwise the symbol.
    seed : int
        In [0, 2**63).
    engine : str
        What makes the numbers (link.device). "numba": the fused kernel over AWGN and fading with known gains, for max-log;
        the array path with normals from numba elsewhere. "numpy", "torch", "cuda": the array path. "auto" becomes "numba"
        where that is installed, and "numpy" elsewhere.

    Raises
    ------
    ArgumentError
        If a field is out of its range.
    MissingExtra
        If the engine asked for is not installed.

    Examples
    --------
    >>> modem = Modem(16, Awgn(), frame_symbols=64, engine="numpy")
    >>> modem.count(12.0, first_frame=0, frames=100)
    ErrorCounts(bit_errors=700, symbol_errors=679, symbol_squares=742, frame_errors=100, frame_squares=5430)
    """

    order: int
    channel: Channel
    demapper: Literal["max-log", "app"] = "max-log"
    frame_symbols: int = 1024
    seed: int = 0
    engine: str = "auto"

    def __post_init__(self) -> None:
        bits_per_symbol(self.order)
        if self.demapper not in DEMAPPERS:
            raise ArgumentError("demapper", f"must be one of {', '.join(DEMAPPERS)}, got {self.demapper!r}")
        if not 1 <= self.frame_symbols <= FRAME_SYMBOLS_MAX:
            raise ArgumentError("frame_symbols", f"must be in [1, {FRAME_SYMBOLS_MAX}], got {self.frame_symbols}")
        if not 0 <= self.seed <= SEED_MAX:
            raise ArgumentError("seed", f"must be in [0, 2**63), got {self.seed}")
        if self.engine == "auto":
            object.__setattr__(self, "engine", host_engine())
        elif self.engine == "numba":
            importlib.import_module("link.box_muller")
        arrays(self.engine)

    @property
    def frame_bits(self) -> int:
        """Payload bits of a frame."""
        return self.frame_symbols * bits_per_symbol(self.order)

    @property
    def fused(self) -> bool:
        """Whether the fused kernel counts."""
        return self.engine == "numba" and self._fusible

    @property
    def _fusible(self) -> bool:
        # Types to the letter: a subclass may be another channel.
        known = type(self.channel) is Awgn or (type(self.channel) is Fading and self.channel.csi.perfect)
        return known and self.demapper == "max-log"

    def count(self, snr_db: float, first_frame: int, frames: int) -> ErrorCounts:
        """Send some frames.

        Parameters
        ----------
        snr_db : float
            Es/N0 in dB, in [-30, 60].
        first_frame, frames : int
            Frames by number; the last one below 2**32.

        Raises
        ------
        ArgumentError
            If there are no such frames, or the SNR is out of range.
        """
        if not 0 <= first_frame < FRAMES_MAX:
            raise ArgumentError("first_frame", f"must be in [0, 2**32), got {first_frame}")
        if not 0 <= frames <= FRAMES_MAX - first_frame:
            raise ArgumentError("frames", f"must be in [0, 2**32 - first_frame], got {frames}")
        if self.fused:
            from link.kernel import count_errors

            fading = self.channel if isinstance(self.channel, Fading) else None
            numbers = count_errors(self.order, snr_db, self.frame_symbols, first_frame, frames, self.seed, fading)
            return ErrorCounts(*numbers)
        tile = max(1, _tile_symbols(self.engine) // self.frame_symbols)
        last = first_frame + frames
        return ErrorCounts.total(
            self._count(snr_db, np.arange(first, min(first + tile, last))) for first in range(first_frame, last, tile)
        )

    def _count(self, snr_db: float, frames: NDArray[np.int64]) -> ErrorCounts:
        draws = Draws(self.seed, frames, engine=self.engine)
        bits = draws.bits(Stream.BITS, millidecibels(snr_db), self.frame_bits)
        llr = llrs(bits, self.order, self.channel, snr_db, draws, self.demapper)
        return count_wrong(decide(llr) != bits, bits_per_symbol(self.order))


def llrs(bits: Array, order: int, channel: Channel, snr_db: float, draws: Draws, demapper: str = "max-log") -> Array:
    """Send bits over a channel: what a decoder is given.

    Parameters
    ----------
    bits : (B, n) uint8
        One frame a row; the last symbol is padded with zeros where it is not full. On the device of `draws`.
    order : int
        QAM order.
    channel : Channel
    snr_db : float
        Es/N0 in dB.
    draws : Draws
        One sample a row; `engine="numba"` draws the same normals faster.
    demapper : {"max-log", "app"}

    Returns
    -------
    (B, n) float32
        ln P(b = 1) / P(b = 0), not clipped.

    Examples
    --------
    >>> bits = np.array([[0, 1, 1, 0, 1]], dtype=np.uint8)
    >>> llrs(bits, 4, Awgn(), 10.0, Draws(0, np.array([0]))).round(1)
    array([[-18.2,  27. ,  22.6, -17.4,  16.9]], dtype=float32)
    """
    xp, width = namespace(bits), bits_per_symbol(order)
    length = bits.shape[-1]
    symbols = num_symbols(length, width)
    llr = xp.empty(bits.shape, dtype=xp.float32, device=array_api_compat.device(bits))
    tile = max(1, _tile_symbols(draws.engine) // max(symbols, 1))
    for first in range(0, len(bits), tile):
        rows = slice(first, min(first + tile, len(bits)))
        x = map_bits(group(xp.astype(bits[rows], xp.float32), width))
        received = channel(x, np.full(len(x), symbols), snr_db, draws.rows(rows))
        llr[rows] = ungroup(demap(received.y, received.no, order, demapper, _tile_symbols(draws.engine)), length)
    return llr


def demap(y: Array, no: Array, order: int, demapper: str = "max-log", tile_symbols: int = _TILE_SYMBOLS) -> Array:
    """LLRs tile by tile: those of link.constellation's demappers, in little memory beside them.

    Parameters
    ----------
    y : (..., s, 2) float32 or float64
        Equalised symbols as (I, Q), Es = 1.
    no : (..., s) of the same dtype
        Noise variance per complex symbol, linear.
    order : int
        QAM order.
    demapper : {"max-log", "app"}
    tile_symbols : int
        Symbols at a time for max-log; app, which compares all amplitudes, takes fewer.

    Returns
    -------
    (..., s, m) of the same dtype
    """
    xp, width = namespace(y, no), bits_per_symbol(order)
    function = max_log_llr if demapper == "max-log" else app_llr
    tile = tile_symbols if demapper == "max-log" else max(1, tile_symbols >> (width // 2))
    flat, variances = xp.reshape(y, (-1, 2)), xp.reshape(no, (-1,))
    if len(flat) <= tile:
        return function(y, no, order)
    llr = xp.empty((len(flat), width), dtype=y.dtype, device=array_api_compat.device(y))
    for first in range(0, len(flat), tile):
        part = slice(first, first + tile)
        llr[part] = function(flat[part], variances[part], order)
    return xp.reshape(llr, (*y.shape[:-1], width))


def decide(llr: Array) -> Array:
    """Bits by the signs of their LLRs, uint8; an LLR of 0 is decided as 0."""
    xp = namespace(llr)
    return xp.astype(llr > 0.0, xp.uint8)


def count_wrong(wrong: Array, width: int) -> ErrorCounts:
    """Count wrong bits by bits, by symbols of `width` bits, and by frames.

    Parameters
    ----------
    wrong : (B, n) bool
        Which bits of each frame are wrong.

    Examples
    --------
    >>> count_wrong(np.array([[True, True, False, True], [False] * 4]), 2)
    ErrorCounts(bit_errors=3, symbol_errors=2, symbol_squares=5, frame_errors=1, frame_squares=9)
    """
    xp = namespace(wrong)
    of_symbol = xp.sum(group(xp.astype(wrong, xp.int64), width), axis=-1)
    of_frame = xp.sum(of_symbol, axis=-1)
    sums = [xp.sum(of_symbol)]
    for errors in (of_symbol, of_frame):
        sums += [xp.sum(xp.astype(errors > 0, xp.int64)), xp.sum(errors * errors)]
    return ErrorCounts(*xp.stack(sums).tolist())


def _tile_symbols(engine: str) -> int:
    """Symbols at a time: what stays in a cache, or what keeps a GPU busy."""
    return _CUDA_TILE_SYMBOLS if engine.startswith("cuda") else _TILE_SYMBOLS
