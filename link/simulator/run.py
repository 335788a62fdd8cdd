"""The loop: tasks out, blocks in, until each point has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from link.errors import ArgumentError, ResultsError
from link.simulator.block import Task, Workload
from link.simulator.journal import Journal
from link.simulator.points import Point
from link.simulator.pool import open_pool, require_pool
from link.simulator.rule import Ending, Rule
from link.snr import millidecibels
from link.stopping import Tally


class Answer(NamedTuple):
    """A point that has ended: the blocks that it is made of, and why there are no more."""

    snr_db: float
    blocks: list[Any]
    ending: Ending


class State(NamedTuple):
    """A point on its way, for whoever watches.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    blocks : int
        Length of the prefix so far.
    tally : Tally
    fraction : float
        Share of the work that is done, as far as can be told.
    seconds : float
        Of computing that it took, over all workers, in this run.
    ending : Ending or None
    """

    snr_db: float
    blocks: int
    tally: Tally
    fraction: float
    seconds: float
    ending: Ending | None


class Outcome(NamedTuple):
    """What a run ended with: points in the order of the grid, those that have no block left out.

    Attributes
    ----------
    answers : list of Answer
    interrupted : KeyboardInterrupt or None
        To be raised again once the results are on disk.
    """

    answers: list[Answer]
    interrupted: KeyboardInterrupt | None


Watch: TypeAlias = Callable[[Sequence[State]], None]
"""Called whenever a task has come in."""


def run(
    workload: Workload,
    snr_db: Sequence[float],
    rule: Rule,
    *,
    journal: Journal | None = None,
    workers: int = 1,
    backend: str = "loky",
    max_time: float | None = None,
    ended: Callable[[Answer, bool], None] | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Simulate each point until it meets the rule.

    Parameters
    ----------
    workload : Workload
    snr_db : sequence of float
        Es/N0 of each point, dB.
    rule : Rule
    journal : Journal, optional
        Blocks found there are not run again.
    workers, backend
        See link.simulator.pool.open_pool. They change no result.
    max_time : float, optional
        Seconds after which no task is begun; what is under way then is dropped. A point that has not ended ends with the
        blocks that are there.
    ended : callable, optional
        Called with each point as it ends, and whether that was in this run; those of the journal come first.
    watch : callable, optional

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    ResultsError
        If the journal cannot be read, or has blocks that are not of this workload, or of a point that is not asked for.
    WorkerError
        If a task lost two workers.
    """
    require_means(workers, backend, max_time)
    points = {millidecibels(value): Point(value, workload, rule) for value in snr_db}
    tell = ended or (lambda answer, fresh: None)
    if journal is not None:
        for task, blocks in journal.read(points):
            _require_counts(workload, journal, task, blocks)
            points[millidecibels(task.snr_db)].add(task.first, blocks)
        for point in points.values():
            if point.ending is not None:
                tell(_answer(point, point.ending), False)
    return _Loop(points, journal, max_time, tell, watch).run(workload, workers, backend)


def require_means(workers: int, backend: str, max_time: float | None) -> None:
    """Raise ArgumentError unless `run` takes these."""
    require_pool(workers, backend)
    if max_time is not None and not max_time > 0.0:
        raise ArgumentError("max_time", f"must be above 0 seconds, got {max_time:g}")


class _Loop:
    def __init__(
        self,
        points: dict[int, Point],
        journal: Journal | None,
        max_time: float | None,
        ended: Callable[[Answer, bool], None],
        watch: Watch | None,
    ) -> None:
        self._points = points
        self._journal = journal
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._ended = ended
        self._watch = watch
        self._seconds = dict.fromkeys(points, 0.0)
        self._pace: dict[int, float] = {}

    def run(self, workload: Workload, workers: int, backend: str) -> Outcome:
        interrupted = None
        missing = Ending.MAX_TIME
        if any(point.ending is None for point in self._points.values()):
            try:
                self._simulate(workload, workers, backend)
            except KeyboardInterrupt as error:
                interrupted, missing = error, Ending.INTERRUPT
        answers = [_answer(point, missing) for point in self._points.values() if point.whole]
        return Outcome(answers, interrupted)

    def _simulate(self, workload: Workload, workers: int, backend: str) -> None:
        with open_pool(workload, workers, backend) as pool:
            while True:
                while pool.room > 0 and not self._late:
                    task = self._next_task()
                    if task is None:
                        break
                    pool.submit(task)
                if not pool.busy or self._late:
                    return
                for task, blocks, seconds in pool.wait(self._left):
                    self._take(task, blocks, seconds)

    def _take(self, task: Task, blocks: list[Any], seconds: float) -> None:
        """Durable first; then it counts."""
        if self._journal is not None:
            self._journal.append(task, blocks)
        name = millidecibels(task.snr_db)
        point = self._points[name]
        was = point.ending
        point.add(task.first, blocks)
        self._seconds[name] += seconds
        self._pace[name] = seconds / task.size
        if self._watch is not None:
            self._watch(self._states())
        if was is None and point.ending is not None:
            self._ended(_answer(point, point.ending), True)

    def _next_task(self) -> Task | None:
        """The earliest point of the grid first; another one where that waits for its evidence."""
        for name, point in self._points.items():
            task = point.next_task(self._pace.get(name))
            if task is not None:
                return task
        return None

    @property
    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def _late(self) -> bool:
        return self._left == 0.0

    def _states(self) -> list[State]:
        return [
            State(point.snr_db, len(point.prefix), point.tally, point.fraction, self._seconds[name], point.ending)
            for name, point in self._points.items()
        ]


def _require_counts(workload: Workload, journal: Journal, task: Task, blocks: Sequence[Any]) -> None:
    """Refuse what no run can have counted: a checksum tells that a line is as it was written, and not by whom."""
    for block in blocks:
        try:
            tally = workload.tally(block)
            if not (0 <= tally.unit_errors <= tally.units and tally.errors >= 0 and tally.squares >= 0):
                raise ValueError(f"{tally.errors:g} errors, {tally.unit_errors} of {tally.units} units in error")
        except ValueError as error:
            raise ResultsError(f"{journal.file}: {task} cannot be right: {error}; use another folder") from None


def _answer(point: Point, missing: Ending) -> Answer:
    return Answer(point.snr_db, point.whole, missing if point.ending is None else point.ending)
