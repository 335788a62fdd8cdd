"""What a channel is: sent symbols in, equalised symbols and their noise variance out.

Symbols are NumPy arrays, or torch tensors of the device that the draws are on (link.device); numbers of symbols are NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.channel.frames import FrameCounts
from link.device import HOST_ENGINES
from link.errors import ArgumentError
from link.randomness import Draws
from link.snr import NO_MIN


@dataclass(frozen=True)
class Received:
    """What the receiver gets to see.

    Attributes
    ----------
    y : (B, S, 2) float32
        Equalised symbols as (I, Q), Es = 1, unbiased; 0 where nothing was sent.
    no : (B, S) float32
        Noise variance per complex symbol after equalisation, linear; inf where nothing was sent.
    num_symbols : (B,) int64
        Symbols of each sample that were sent.
    report : mapping of str to float
        What the channel knows of itself (for example the mean channel gain), of NumPy arrays; the receiver never sees it.
    num_pilots : (B,) int64 or None
        Pilot symbols, and whatever else of a radio's frames, that were sent beside each sample's; None stands for none.
    frames : FrameCounts or None
        What became of a radio's frames; None where there are none.
    """

    y: Array
    no: Array
    num_symbols: NDArray[np.int64]
    report: Mapping[str, float] = field(default_factory=dict)
    num_pilots: NDArray[np.int64] | None = None
    frames: FrameCounts | None = None

    @property
    def pilot_symbols(self) -> int:
        """Pilot symbols of all samples."""
        return 0 if self.num_pilots is None else int(self.num_pilots.sum())


class Channel(Protocol):
    """A channel, or a radio: anything that carries symbols."""

    name: str

    def __call__(self, x: Array, num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        """Carry `x` (B, S, 2), Es = 1, at `snr_db` = Es/N0, with the randomness that `draws` addresses."""
        ...


def require_rows(x: Array, num_symbols: NDArray[np.int64], draws: Draws) -> None:
    """Refuse draws that are not for `x`: with one row alone it would be broadcast, and all samples get the same noise.

    Raises
    ------
    ArgumentError
        If `num_symbols` or `draws.samples` does not have one entry a row of `x`, or `draws` makes other arrays than `x` is.
    """
    if (draws.engine in HOST_ENGINES) != isinstance(x, np.ndarray):
        raise ArgumentError("engine", f"must be that of the symbols, which are a {type(x)}, got {draws.engine!r}")
    for name, rows in (("num_symbols", num_symbols), ("samples", draws.samples)):
        if rows.shape != tuple(x.shape[:1]):
            raise ArgumentError(name, f"must have shape ({len(x)},), one a row of x, got {rows.shape}")


def erase_unsent(y: Array, no: Array, num_symbols: NDArray[np.int64]) -> tuple[Array, Array]:
    """Zero the symbols past each sample's `num_symbols` and give them infinite noise, so that their LLRs are 0.

    The variance of the others is raised to NO_MIN where it is less.
    """
    xp = namespace(y, no)
    variances = xp.clip(no, NO_MIN, None)
    if (num_symbols >= y.shape[1]).all():
        return y, variances
    device = array_api_compat.device(y)
    sent = xp.arange(y.shape[1], device=device) < xp.asarray(num_symbols, device=device)[:, None]
    return xp.where(sent[..., None], y, 0.0), xp.where(sent, variances, np.inf)
