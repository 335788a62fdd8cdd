"""Requests that wait for one operation of one model, first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic, perf_counter
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

_MARGIN: Final = 1.2
"""Runs are expected to take so many times what they took on average."""

_REPLY_S: Final = 1e-3
"""From the end of a run until the caller has the reply, at least."""


class Job(Protocol):
    """A request as a program runs it."""

    rows: int
    queued_s: float
    """Set when its batch is formed."""


J = TypeVar("J", bound=Job)
R = TypeVar("R")


class Waiting(Generic[J, R]):
    """A request in line, and the future that its caller awaits."""

    __slots__ = ("deadline", "future", "gone", "job", "since")

    def __init__(self, job: J, deadline: float | None, future: asyncio.Future[R]) -> None:
        self.job = job
        self.deadline = deadline
        self.future = future
        self.since = perf_counter()
        self.gone = False


class Taken(NamedTuple, Generic[J, R]):
    """A batch, and those whose deadline would pass before its end."""

    batch: list[Waiting[J, R]]
    late: list[Waiting[J, R]]


class Line(Generic[J, R]):
    """The queue; the event loop puts, it and workers take.

    Attributes
    ----------
    rows : int
        Waiting.
    arrivals : int
        Requests that ever came.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.arrivals = 0
        self._queue: deque[Waiting[J, R]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def each(self) -> float:
        """Rows of a request that waits, on average; 1 where none does."""
        return self.rows / max(len(self._queue), 1) or 1.0

    def put(self, waiting: Waiting[J, R]) -> None:
        """At the end."""
        with self._lock:
            self._queue.append(waiting)
            self.rows += waiting.job.rows
            self.arrivals += 1

    def forget(self, waiting: Waiting[J, R]) -> None:
        """Its caller is gone: where it still waits it never runs, and holds no memory."""
        with self._lock:
            waiting.gone = True
            try:
                self._queue.remove(waiting)
            except ValueError:
                return
            self.rows -= waiting.job.rows

    def take(self, limit: int, expected_s: Callable[[int], float]) -> Taken[J, R]:
        """From the front, as many as end in time together.

        Parameters
        ----------
        limit : int
            Rows at most, unless the first request alone has more.
        expected_s : callable
            Seconds that a run of so many rows is expected to take.
        """
        batch: list[Waiting[J, R]] = []
        late: list[Waiting[J, R]] = []
        with self._lock:
            now, start, rows, tightest = perf_counter(), monotonic() + _REPLY_S, 0, inf
            while self._queue:
                waiting = self._queue[0]
                size = waiting.job.rows
                deadline = inf if waiting.deadline is None else waiting.deadline
                if deadline < inf and deadline < start + _MARGIN * expected_s(size):
                    late.append(waiting)
                else:
                    tightest = min(tightest, deadline)
                    full = rows + size > limit
                    if batch and (full or (tightest < inf and tightest < start + _MARGIN * expected_s(rows + size))):
                        break
                    waiting.job.queued_s = now - waiting.since
                    batch.append(waiting)
                    rows += size
                self._queue.popleft()
                self.rows -= size
        return Taken(batch, late)
