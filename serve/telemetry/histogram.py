"""Histograms with fixed buckets: counted in the server, read by whoever watches it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

DURATION_BOUNDS_NS: Final = tuple(
    step * 10**decade for decade in range(3, 10) for step in (10, 16, 25, 40, 63) if step * 10**decade >= 25_000
)
"""Upper ends of the buckets of durations, nanoseconds: Renard's series R5, 25 us to 63 s, so a bucket is 1.6 wide."""
ROWS_BOUNDS: Final = tuple(2**power for power in range(14))
"""Upper ends of the buckets of batches, rows."""
SNR_BOUNDS_DB: Final = tuple(range(-30, 61, 3))
"""Upper ends of the buckets of Es/N0, dB: the range that a link takes."""


@dataclass(frozen=True)
class Histogram:
    """How often what was measured fell between two bounds.

    Attributes
    ----------
    bounds : tuple of n numbers
        Upper end of each bucket, included, ascending; a last bucket holds what is above.
    counts : tuple of n + 1 int
        Of each bucket.
    total : float
        Sum of all that was measured, in the unit of the bounds.

    Examples
    --------
    >>> waits = Histogram((1, 2, 4), (0, 3, 1, 0), 7.5)
    >>> waits.count, waits.mean, waits.quantile(0.5)
    (4, 1.875, 1.6666666666666665)
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How much was measured."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Mean of what was measured; None where nothing was."""
        count = self.count
        return self.total / count if count else None

    @property
    def cumulative(self) -> tuple[int, ...]:
        """How much is at most each bound, and last how much there is."""
        return tuple(accumulate(self.counts))

    def quantile(self, q: float) -> float | None:
        """Value below which a share `q` in [0, 1] lies; None where nothing was measured.

        Linear inside a bucket, as Prometheus' histogram_quantile has it, so that two views of a server agree. What lies
        above the last bound counts as the last bound.
        """
        cumulative = self.cumulative
        if not cumulative[-1]:
            return None
        rank = q * cumulative[-1]
        bucket = bisect_left(cumulative, rank)
        while bucket < len(self.bounds) and not self.counts[bucket]:  # rank 0 starts in the first bucket that holds any
            bucket += 1
        if bucket == len(self.bounds):
            return float(self.bounds[-1])
        high = self.bounds[bucket]
        low = self.bounds[bucket - 1] if bucket else min(0.0, high)
        below = cumulative[bucket] - self.counts[bucket]
        return low + (high - low) * (rank - below) / self.counts[bucket]

    def since(self, earlier: Histogram) -> Histogram:
        """What was measured after an earlier state of the same histogram."""
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.bounds, counts, self.total - earlier.total)
