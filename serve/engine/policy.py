"""How many rows a run takes, and whether it is held back for more.

A run costs a fixed part, whatever its rows, and holding it back lets more of them share that: a run that is saved is worth
`a` seconds. Who holds it back, a worker or the event loop, loses the seconds in which there is nothing else to do. So
waiting for another row pays as long as the next arrival is nearer than `a`. Whether it will be can only be learned:

    target     a run is held back for as many rows as came the last time, and goes as soon as they are there; if they did not
               come, for half of them
    patience   it goes without them once the last arrival is `a` ago
    balance    of what was saved and lost; below 0, runs are not held back
    trial      now and then a run is held back for as many rows as may come; rarely where that has failed

With one caller, or a graph that gains nothing from batches, nothing is held back but for the trials. With callers who come
back together, runs are as large as there are callers, and no time is lost in waiting for one who does not come.
"""

from __future__ import annotations

from typing import Final, Protocol

from serve.engine.cost import CostModel

WAIT_MAX_S: Final = 0.02
"""The longest that a run is held back."""

_WEIGHT: Final = 0.1
_TRIAL_MIN: Final = 16
_TRIAL_MAX: Final = 256
"""Runs between trials; each that fails doubles their number."""


class Policy(Protocol):
    """Decides for one operation of one model."""

    @property
    def wait_max_s(self) -> float:
        """The longest that a run is held back."""
        ...

    def limit(self) -> int:
        """Rows that a run takes at most, unless one request alone has more."""
        ...

    def gather(self, rows: int, each: float) -> int:
        """Rows that a run is held back for; no more than `rows`: it is not held back.

        Parameters
        ----------
        rows : int
            Waiting.
        each : float
            Rows of a request, on average.
        """
        ...

    def patience_s(self, rows: int, each: float) -> float:
        """Seconds from the last arrival on, with `rows` waiting, after which a run that is held back goes."""
        ...

    def gathered(self, after: int, saved_s: float, idle_s: float, last_s: float, *, in_time: bool) -> None:
        """Learn from a run that was held back.

        Parameters
        ----------
        after : int
            Rows in the end.
        saved_s : float
            What the runs would have taken that those who came would have made of their own.
        idle_s, last_s : float
            Seconds that were lost, in all and until the last arrival.
        in_time : bool
            Whether the rows came that it was held back for.
        """
        ...


class Fixed:
    """As a user sets it: runs of `rows` rows, and a longest wait for them."""

    def __init__(self, rows: int, wait_s: float = 0.0) -> None:
        self._rows = rows
        self._wait_s = wait_s

    @property
    def wait_max_s(self) -> float:
        """As set."""
        return self._wait_s

    def limit(self) -> int:
        """As set."""
        return self._rows

    def gather(self, rows: int, each: float) -> int:
        """The size set, where a wait is."""
        return self._rows if self._wait_s > 0.0 else 0

    def patience_s(self, rows: int, each: float) -> float:
        """As set, whatever has arrived since; `wait_max_s` bounds the whole wait."""
        return self._wait_s

    def gathered(self, after: int, saved_s: float, idle_s: float, last_s: float, *, in_time: bool) -> None:
        """Nothing is learned."""


class Adaptive:
    """By measured cost and by what holding back has paid.

    Parameters
    ----------
    cost : CostModel
    most : int
        Rows of a run at most.
    """

    def __init__(self, cost: CostModel, most: int) -> None:
        self._cost = cost
        self._most = most
        self._target = 0
        self._balance = 0.0
        self._runs = 0
        self._trial = False
        self._pause = _TRIAL_MIN

    @property
    def wait_max_s(self) -> float:
        """A constant."""
        return WAIT_MAX_S

    def limit(self) -> int:
        """The size at which a row costs least; any, for a trial: what is known may be an accident."""
        return self._most if self._trial else self._cost.best_rows(self._most)

    def gather(self, rows: int, each: float) -> int:
        """As many as came the last time, where that has paid; as many as may come, for a trial."""
        self._runs += 1
        self._trial = self._runs >= self._pause
        most = self.limit()
        if self._trial or rows >= most:
            return most
        return min(self._target, most) if self._balance > 0.0 and self._cost.saving(rows, each) > 0.0 else 0

    def patience_s(self, rows: int, each: float) -> float:
        """What one more request would save."""
        return max(0.0, self._cost.saving(rows, each))

    def gathered(self, after: int, saved_s: float, idle_s: float, last_s: float, *, in_time: bool) -> None:
        """Keep the balance, in seconds of the worker."""
        if self._trial:  # with what it tells, the next run goes when the last of these has come
            self._runs = 0
            self._pause = min(2 * self._pause, _TRIAL_MAX) if after <= self._target or saved_s <= last_s else _TRIAL_MIN
            if saved_s > last_s:
                self._target = after
                self._balance = max(self._balance, saved_s - last_s)
            return
        self._balance += _WEIGHT * (saved_s - idle_s - self._balance)
        if not in_time:
            self._target = max(after, self._target // 2)
