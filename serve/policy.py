"""How many rows a run takes, and whether it waits for more.

A worker that has become free finds q rows waiting. It may run them at once, or wait for another row, which then shares the
fixed part of a run's cost instead of paying for one of its own. Waiting w seconds delays q rows; a row that joins saves `a`
seconds of the worker's time. So another moment pays as long as

    (arrivals a second) * a  >  q

that is, while the next arrival is nearer than a / q. `Adaptive` waits no longer than that after the last arrival, only where
there are callers who are likely to come back (fewer rows wait than were in the system a moment ago), and only as long as
waiting has paid before. With one caller, or a graph that gains nothing from batches, it never waits.
"""

from __future__ import annotations

from typing import Final, Protocol

from serve.cost import CostModel

WAIT_MAX_S: Final = 0.02
"""The longest that a run is held back."""

_WEIGHT: Final = 0.1
_FADE: Final = 0.95
_RETRY: Final = 16
"""Where waiting did not pay, it is tried again each time that this many chances were passed up."""

_FLOOR_S: Final = 100e-6
"""A wait that could save less is not worth a thread's sleep."""


class Policy(Protocol):
    """Decides for one operation of one model."""

    @property
    def wait_max_s(self) -> float:
        """The longest that a run is held back."""
        ...

    def limit(self) -> int:
        """Rows that a run takes at most, unless one request alone has more."""
        ...

    def begin(self, rows: int, busy: int) -> bool:
        """Whether a run that could take `rows` rows now should wait for more; `busy` rows are being run elsewhere."""
        ...

    def patience_s(self, rows: int) -> float:
        """Seconds from the last arrival on, with `rows` waiting, after which the wait has failed."""
        ...

    def end(self, before: int, after: int, waited_s: float) -> None:
        """Learn from a wait that took `waited_s`, in which `before` rows became `after`."""
        ...


class Fixed:
    """As a user sets it: runs of `rows` rows, and a longest wait for them."""

    def __init__(self, rows: int, wait_s: float = 0.0) -> None:
        self._rows = rows
        self._wait_s = wait_s

    def limit(self) -> int:
        """As set."""
        return self._rows

    def begin(self, rows: int, busy: int) -> bool:
        """Where a wait is set and the run is not full."""
        return self._wait_s > 0.0 and rows < self._rows

    def patience_s(self, rows: int) -> float:
        """As set, whatever has arrived since; `wait_max_s` bounds the whole wait."""
        return self._wait_s

    def end(self, before: int, after: int, waited_s: float) -> None:
        """Nothing is learned."""

    @property
    def wait_max_s(self) -> float:
        """The whole wait."""
        return self._wait_s


class Adaptive:
    """By measured cost and by whether waiting has paid.

    Parameters
    ----------
    cost : CostModel
    most : int
        Rows of a run at most.
    """

    def __init__(self, cost: CostModel, most: int) -> None:
        self._cost = cost
        self._most = most
        self._peak = 0.0
        self._score = 0.0
        self._passed = 0

    @property
    def wait_max_s(self) -> float:
        """A constant."""
        return WAIT_MAX_S

    def limit(self) -> int:
        """The size at which a row costs least."""
        return self._cost.best_rows(self._most)

    def begin(self, rows: int, busy: int) -> bool:
        """Where callers are likely to return, joining them saves something, and it has paid lately."""
        present = rows + busy
        self._peak = max(float(present), _FADE * self._peak)
        if rows >= self._peak - 0.5 or rows >= self.limit() or self._cost.saving(rows) / rows < _FLOOR_S:
            return False
        if self._score >= 0.0:
            return True
        self._passed = (self._passed + 1) % _RETRY
        return self._passed == 0

    def patience_s(self, rows: int) -> float:
        """The wait for one more row that costs those waiting as much as it saves."""
        return max(0.0, self._cost.saving(rows) / rows)

    def end(self, before: int, after: int, waited_s: float) -> None:
        """Saved run time less what those waiting lost, in row-seconds."""
        joined = after - before
        net = joined * self._cost.saving(before) - waited_s * (before + after) / 2
        self._score += _WEIGHT * (net - self._score)
