"""How many rows a run takes, and whether it waits for more.

A worker that has become free finds q rows waiting. It may run them at once, or wait for another row, which then shares the
fixed part of a run's cost instead of paying for one of its own. Waiting w seconds delays q rows; a row that joins saves `a`
seconds of the worker's time. So another moment pays as long as

    (arrivals a second) * a  >  q

that is, while the next arrival is nearer than a / q. `Adaptive` waits no longer than that after the last arrival, and only as
long as waiting pays: it keeps the balance of what its waits have saved and cost. With one caller, or a graph that gains
nothing from batches, it does not wait, but for a trial now and then.
"""

from __future__ import annotations

from typing import Final, Protocol

from serve.cost import CostModel

WAIT_MAX_S: Final = 0.02
"""The longest that a run is held back."""

_WEIGHT: Final = 0.1
_TRIAL_MIN: Final = 16
_TRIAL_MAX: Final = 256
"""Where waiting did not pay, it is tried again after so many chances; each failure doubles that."""


_IDLE_MAX_S: Final = 1e-3
"""An event loop that stood still for longer was not idle, but held up by other processes."""


class Policy(Protocol):
    """Decides for one operation of one model."""

    @property
    def wait_max_s(self) -> float:
        """The longest that a run is held back."""
        ...

    def limit(self) -> int:
        """Rows that a run takes at most, unless one request alone has more."""
        ...

    def gather(self, rows: int) -> int:
        """Rows that a quick run is held back for, with `rows` waiting; no more than those: it is not held back."""
        ...

    def gathered(self, before: int, after: int, idle_s: float, in_time: bool) -> None:
        """Learn from a quick run that was held back, `idle_s` of that for nothing; not `in_time` where it gave up."""
        ...

    def begin(self, rows: int, least_s: float) -> bool:
        """Whether a run that could take `rows` rows now should wait for more, where no wait is shorter than `least_s`."""
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

    def gather(self, rows: int) -> int:
        """The size set, where a wait is."""
        return self._rows if self._wait_s > 0.0 else 0

    def gathered(self, before: int, after: int, idle_s: float, in_time: bool) -> None:
        """Nothing is learned."""

    def begin(self, rows: int, least_s: float) -> bool:
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
        self._balance = 0.0
        self._pause = _TRIAL_MIN
        self._chances = 0
        self._target = 0
        self._gather_balance = 0.0
        self._gathers = 0
        self._gather_pause = _TRIAL_MIN

    @property
    def wait_max_s(self) -> float:
        """A constant."""
        return WAIT_MAX_S

    def limit(self) -> int:
        """The size at which a row costs least."""
        return self._cost.best_rows(self._most)

    def gather(self, rows: int) -> int:
        """As many as came the last time; more, or any at all, for a trial now and then."""
        most = self.limit()
        if rows >= most or self._cost.saving(rows) <= 0.0:
            return 0
        self._gathers += 1
        if self._gathers >= self._gather_pause:
            return most
        return min(self._target, most) if self._gather_balance > 0.0 else 0

    def gathered(self, before: int, after: int, idle_s: float, in_time: bool) -> None:
        """Seconds of runs saved, less those in which the loop stood idle."""
        trial = self._gathers >= self._gather_pause
        net = (after - before) * self._cost.saving(before) - min(idle_s, _IDLE_MAX_S)
        self._gather_balance += _WEIGHT * (net - self._gather_balance)
        if trial or not in_time:
            self._target = after
        if trial:
            self._gathers = 0
            self._gather_pause = min(2 * self._gather_pause, _TRIAL_MAX) if net < 0.0 else _TRIAL_MIN

    def begin(self, rows: int, least_s: float) -> bool:
        """Where another row would save something, and waiting has paid, or is due for a trial."""
        if rows >= self.limit() or self.patience_s(rows) < least_s:
            return False
        if self._balance >= 0.0:
            return True
        self._chances += 1
        return self._chances >= self._pause

    def patience_s(self, rows: int) -> float:
        """The wait for one more row that costs those waiting as much as it saves."""
        return max(0.0, self._cost.saving(rows) / rows)

    def end(self, before: int, after: int, waited_s: float) -> None:
        """Saved run time less what those waiting lost, in row-seconds."""
        joined = after - before
        net = joined * self._cost.saving(before) - waited_s * (before + after) / 2
        self._balance += _WEIGHT * (net - self._balance)
        if self._balance < 0.0:
            self._pause = min(2 * self._pause, _TRIAL_MAX) if net < 0.0 else _TRIAL_MIN
            self._chances = 0
