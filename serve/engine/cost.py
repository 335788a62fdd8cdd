"""What a run of so many rows takes, learned as it goes.

Runs are sorted by rows into buckets of powers of two; each bucket holds a running mean of its rows and of its seconds.
Between buckets cost is interpolated, beyond them extended along the last slope. No form of the curve is assumed: a graph
that gains nothing from a second row, and one that loses by a batch that leaves the cache, are seen as what they are.
"""

from __future__ import annotations

from typing import Final

_WEIGHT_LESS: Final = 0.25
_WEIGHT_MORE: Final = 0.05
"""Of a measurement in the mean of its bucket: what took less shows the cost, what took more may have been held up."""

_OUTLIER: Final = 3.0
"""A run that took longer than so many means counts as that many."""

_GOOD_ENOUGH: Final = 1.03
"""Of batch sizes whose rows cost within this factor of the least, the smallest is taken: whoever is done goes."""

_HANDLING_S: Final = 20e-6
"""What a run costs beside itself: to form a batch, and to hand out its parts."""


class CostModel:
    """Seconds of a run by its rows, when nothing holds it up.

    Examples
    --------
    >>> cost = CostModel()
    >>> for rows in (1, 64):
    ...     cost.record(rows, 0.005 + 0.0001 * rows)
    >>> round(cost.seconds(32), 6), round(cost.saving(8), 6)
    (0.0082, 0.005)
    """

    def __init__(self) -> None:
        self._rows: list[float] = []
        self._seconds: list[float] = []
        self._bucket: list[int] = []
        self._best: int | None = None

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return bool(self._rows)

    def record(self, rows: int, seconds: float) -> None:
        """Learn from a run of `rows` rows, at least 1, that took `seconds`."""
        self._best = None
        bucket = (rows - 1).bit_length()
        if bucket in self._bucket:
            place = self._bucket.index(bucket)
            weight = _WEIGHT_LESS if seconds < self._seconds[place] else _WEIGHT_MORE
            self._rows[place] += weight * (rows - self._rows[place])
            self._seconds[place] += weight * (min(seconds, _OUTLIER * self._seconds[place]) - self._seconds[place])
        else:
            if self._rows:
                seconds = min(seconds, _OUTLIER * self.seconds(rows))
            place = sum(other < bucket for other in self._bucket)
            self._bucket.insert(place, bucket)
            self._rows.insert(place, float(rows))
            self._seconds.insert(place, seconds)
        # Fewer rows never cost more: a size that is not run any more forgets an accident so.
        for smaller in range(place):
            self._seconds[smaller] = min(self._seconds[smaller], self._seconds[place])

    def seconds(self, rows: float) -> float:
        """What a run of so many rows will take; 0 where nothing was measured yet."""
        count = len(self._rows)
        if not count:
            return 0.0
        if rows <= self._rows[0]:
            return self._seconds[0]
        if count == 1:
            return self._seconds[0] * rows / self._rows[0]
        right = next((i for i in range(1, count) if rows <= self._rows[i]), count - 1)
        x0, x1 = self._rows[right - 1], self._rows[right]
        y0, y1 = self._seconds[right - 1], self._seconds[right]
        slope = max(0.0, (y1 - y0) / (x1 - x0))
        return y0 + slope * (rows - x0) if rows <= x1 else y1 + slope * (rows - x1)

    def saving(self, rows: float, more: float = 1.0) -> float:
        """Seconds saved when `more` rows join a run of `rows` instead of having one of their own; below 0 if it costs."""
        return self.seconds(more) + self.seconds(rows) - self.seconds(rows + more)

    def best_rows(self, most: int) -> int:
        """Rows of a run, up to `most`, at which a row costs least; twice as far as was measured where that is the end of it.

        Where nothing was measured yet, `most`.
        """
        if self._best is None:
            self._best = self._cheapest()
        return min(most, self._best) if self._best else most

    def _cheapest(self) -> int:
        """As `best_rows`, without a bound; 0 where nothing was measured."""
        if not self._rows:
            return 0
        each = [(seconds + _HANDLING_S) / rows for rows, seconds in zip(self._rows, self._seconds, strict=True)]
        least = min(each)
        place = min(i for i, value in enumerate(each) if value <= _GOOD_ENOUGH * least)
        top = 1 << self._bucket[place]
        return 2 * top if place == len(each) - 1 else top
