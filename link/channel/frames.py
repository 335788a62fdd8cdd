"""What became of the frames that a radio sent."""

from __future__ import annotations

import math
from typing import NamedTuple


class FrameCounts(NamedTuple):
    """Counts and sums over frames, to be added up.

    Attributes
    ----------
    frames, lost : int
        Sent, and those of them that no receiver found: their symbols are erased.
    crc_failed : int
        Received, but not whole.
    gaps, clipped : int
        Places where samples were missing, and samples beyond the front end's full scale.
    no, squared_evm : float
        Sums over the frames received: noise variance per complex symbol, and the square of the error vector magnitude.
    papr : float
        Largest peak over mean power of a burst, linear.
    """

    frames: int = 0
    lost: int = 0
    crc_failed: int = 0
    gaps: int = 0
    clipped: int = 0
    no: float = 0.0
    squared_evm: float = 0.0
    papr: float = 0.0

    def plus(self, other: FrameCounts) -> FrameCounts:
        """Of both."""
        sums = FrameCounts._make(mine + its for mine, its in zip(self, other, strict=True))
        return sums._replace(papr=max(self.papr, other.papr))

    @property
    def received(self) -> int:
        """Frames that were found."""
        return self.frames - self.lost

    @property
    def snr_db(self) -> float | None:
        """Es/N0 behind the equaliser as the receiver measured it, dB; None where no frame was received.

        Examples
        --------
        >>> FrameCounts(frames=3, lost=1, no=0.2).snr_db
        10.0
        """
        return -10.0 * math.log10(self.no / self.received) if self.received else None

    @property
    def evm(self) -> float | None:
        """Root mean square error vector magnitude; None where no frame was received."""
        return math.sqrt(self.squared_evm / self.received) if self.received else None

    @property
    def papr_db(self) -> float | None:
        """Largest peak over mean power of a burst, dB."""
        return 10.0 * math.log10(self.papr) if self.papr else None
