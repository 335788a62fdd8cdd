"""Runs that are held back for more rows: on the event loop, and in a worker."""

from __future__ import annotations

from time import perf_counter

from serve.engine.policy import Policy


class Gathering:
    """A quick run that the event loop holds back until `target` rows are there.

    Attributes
    ----------
    arrived : int
        Requests that had come when it began, its first included.
    arrivals : int
        Requests that had come when it was last looked at.
    turns : int
        Turns of the loop that passed since, once the patience was over.
    last_s : float
        Seconds until the last arrival.
    """

    def __init__(self, target: int, arrivals: int) -> None:
        self.target = target
        self.arrived = self.arrivals = arrivals
        self.turns = 0
        self.last_s = 0.0
        self._began = perf_counter()

    def came(self) -> None:
        """A request came."""
        self.last_s = self.held_s

    @property
    def held_s(self) -> float:
        """Seconds since it began."""
        return perf_counter() - self._began


class Wait:
    """A run that a worker holds back, by the policy's patience."""

    def __init__(self, arrivals: int) -> None:
        self._arrivals = arrivals
        self._began = self._last = perf_counter()

    def left_s(self, rows: int, each: float, arrivals: int, policy: Policy) -> float:
        """Seconds that it may last on; at most 0 where it is over."""
        now = perf_counter()
        if arrivals != self._arrivals:
            self._arrivals, self._last = arrivals, now
        return min(self._last + policy.patience_s(max(rows, 1), each), self._began + policy.wait_max_s) - now

    @property
    def last_s(self) -> float:
        """Seconds until the last arrival."""
        return self._last - self._began

    @property
    def held_s(self) -> float:
        """Seconds since it began."""
        return perf_counter() - self._began
