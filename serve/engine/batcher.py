"""Requests in, batches out: who is run together, when, and where.

    submit ──┬── quick, and nobody else is expected ──> run here and now: no future, no thread, no turn of the event loop
             └── line ──┬── quick ──> run on the event loop, held back while that brings more rows than it costs time
                        └── other ──> a worker takes what waits, up to the policy's size, once the policy says so
                                         └──> each caller gets its own rows

The line is first come, first served. When a batch is formed, requests whose caller is gone or whose deadline would pass
before the reply are left out: they cost nothing. A request that cannot be answered in time by what waits before it is
refused at once. If a batch fails as a whole, its requests are run one by one, so that nobody pays for a stranger; but for a
device without memory, where the run was halved down to a single row already (link.session): all are refused for now.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter, sleep
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from link.errors import OutOfMemory
from serve.engine.admission import Admission, retry_after
from serve.engine.cost import CostModel
from serve.engine.errors import Expired, Overloaded
from serve.engine.line import J, Job, Line, R, Taken, Waiting
from serve.engine.policy import Policy
from serve.engine.waits import Gathering, Wait
from serve.engine.workers import Workers

logger = logging.getLogger(__name__)

QUICK_S: Final = 1.5e-3
"""A run that is expected to end within this is run on the event loop, where one worker would do no better."""

QUICK_BESIDE_S: Final = 0.2e-3
"""The same where several workers run beside each other."""

_ARRIVAL_S: Final = 150e-6
"""What the event loop does for a request that comes, before it is here (measured: a bare call takes 140 us of CPU)."""

_TICK_S: Final = 150e-6
"""How often a worker that waits for more rows looks for them."""

_PATIENCE_S: Final = 1e-3
"""A quick run that is held back goes ahead where no request came for so long; the event loop has no finer timers."""

_TURNS: Final = 3
"""A busy loop may be late with what has come: it is given so many turns more."""

_GATHER_S: Final = 4e-3
"""The longest that a quick run is held back."""

_STRETCH_WEIGHT: Final = 0.1

_NO_MEMORY_RETRY_S: Final = 1.0

J_contra = TypeVar("J_contra", bound=Job, contravariant=True)


class Program(Protocol[J_contra, R]):
    """What runs a batch: called from one thread at a time for each of its calls, any number of them at once."""

    def run(self, jobs: Sequence[J_contra]) -> list[R | Exception]:
        """Each job's result, or what was wrong with it."""
        ...


class Caller(NamedTuple):
    """Who asks.

    Attributes
    ----------
    deadline : float, optional
        time.monotonic() by which the reply is wanted.
    nbytes : int
        Size of the request's message.
    """

    deadline: float | None = None
    nbytes: int = 0


ANYONE: Final = Caller()


class Run(NamedTuple):
    """A batch that was run, for whoever counts.

    Attributes
    ----------
    requests, rows : int
    wasted : int
        Requests whose caller was gone, or whose deadline had passed, when it ended.
    seconds : float
    """

    requests: int
    rows: int
    wasted: int
    seconds: float


class Batcher(Generic[J, R]):
    """One operation of one model.

    Parameters
    ----------
    program : Program
    policy : Policy
    cost : CostModel
        Learns from each run.
    workers : Workers
    admission : Admission
    ran : callable, optional
        Called on the event loop with each Run.
    """

    def __init__(
        self,
        program: Program[J, R],
        policy: Policy,
        cost: CostModel,
        workers: Workers,
        admission: Admission,
        ran: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self._program = program
        self._policy = policy
        self._cost = cost
        self._workers = workers
        self._admission = admission
        self._ran = ran
        self._quick_s = QUICK_S if workers.count == 1 else QUICK_BESIDE_S
        self._line: Line[J, R] = Line()
        self._running = 0
        self._lock = threading.Lock()  # of _running
        self._busy_until = 0.0
        self._stretch = 1.0
        self._scheduled = False
        self._held: Gathering | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def submit(self, job: J, caller: Caller = ANYONE) -> R:
        """Have a job run with whatever else is there.

        Raises
        ------
        Overloaded
            If too much is waiting, or what is waiting would take too long.
        Expired
            If the deadline passes first.
        ShuttingDown
            If no more work is taken.
        Exception
            What the program finds wrong with the job.
        """
        if caller.deadline is not None:
            self._require_time(caller.deadline, job.rows)
        target = 0
        if self._held is None and not self._line and not self._running and self._quick(job.rows):
            target = self._policy.gather(job.rows, job.rows)
            if target <= job.rows:
                self._admission.require_open()
                return self._run_now(job)
        self._admission.enter(caller.nbytes, self._wait_s)
        self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[R] = self._loop.create_future()
        waiting = Waiting(job, caller.deadline, future)
        try:
            self._line.put(waiting)
            if target:
                self._held = Gathering(target, self._line.arrivals)
                self._look_later()
            elif self._held is None:
                self._dispatch()
            else:
                self._held.came()
                if self._line.rows >= self._held.target or self._held.held_s > _GATHER_S:
                    self._schedule()
            return await future
        except asyncio.CancelledError:
            self._line.forget(waiting)
            raise
        finally:
            self._admission.leave(caller.nbytes)
            del future, waiting  # an error's traceback holds this frame, and the future the error: no ring, no garbage

    @property
    def waiting_rows(self) -> int:
        """Rows that are not being run yet."""
        return self._line.rows

    def _quick(self, rows: int) -> bool:
        return self._cost.known and self._cost.seconds(min(rows, self._policy.limit())) <= self._quick_s

    @property
    def waiting_requests(self) -> int:
        """Requests that are not being run yet."""
        return len(self._line)

    def _wait_s(self) -> float:
        """How long a request that comes now is likely to wait before it is run."""
        rows = self._line.rows
        left = max(0.0, self._busy_until - perf_counter()) if self._running else 0.0
        if not rows:
            return left
        size = min(self._policy.limit(), rows)
        return left + self._expected_s(size) * (rows / size) / self._workers.count

    def _expected_s(self, rows: int) -> float:
        """What a run will take by the clock, with what else goes on in the machine."""
        return self._stretch * self._cost.seconds(max(rows, 1))

    def _require_time(self, deadline: float, rows: int) -> None:
        left = deadline - monotonic()
        if left <= 0.0:
            raise Expired("the deadline has passed")
        wait_s = self._wait_s()
        if wait_s and wait_s + self._expected_s(rows) > left:
            raise Overloaded(
                f"a reply would take {1e3 * wait_s:.1f} ms, the deadline is in {1e3 * left:.1f} ms", retry_after(wait_s)
            )

    # On the event loop

    def _run_now(self, job: J) -> R:
        start = perf_counter()
        (result,) = self._measured([job])
        self._ran(Run(1, job.rows, 0, perf_counter() - start))
        if isinstance(result, Exception):
            try:
                raise result
            finally:
                del result  # see submit
        return result

    def _schedule(self) -> None:
        """Behind the handlers that are ready in this turn of the loop, so that their requests go together."""
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Run what is quick, wake a worker for the rest."""
        self._scheduled = False
        self._release(in_time=True)
        while self._line and not self._running and self._quick(self._line.rows):
            taken = self._take(1)
            start = perf_counter()
            self._deliver(taken, self._results(taken.batch), perf_counter() - start)
        with self._lock:
            if not self._line or self._running >= self._workers.count:
                return
            self._running += 1
        self._workers.submit(self._work)

    def _look_later(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(_PATIENCE_S, self._look)

    def _look(self) -> None:
        """Where no request came since, run those that are there."""
        if self._held is None:
            return
        if self._line.arrivals != self._held.arrivals:
            self._held.arrivals, self._held.turns = self._line.arrivals, 0
            self._look_later()
            return
        if self._held.turns < _TURNS and self._loop is not None:
            self._held.turns += 1
            self._loop.call_soon(self._look)
            return
        self._release(in_time=False)
        self._dispatch()

    def _release(self, in_time: bool) -> None:
        """End what is held back, and learn from it."""
        if self._held is None:
            return
        held, self._held = self._held, None
        if self._timer is not None:
            self._timer.cancel()
        rows = self._line.rows
        came = self._line.arrivals - held.arrived
        # Without the wait, each would have been run as it came. What is longer than the patience was not idle.
        idle_s = min(max(held.held_s - came * _ARRIVAL_S, 0.0), _PATIENCE_S)
        last_s = min(max(held.last_s - came * _ARRIVAL_S, 0.0), idle_s)
        saved_s = (came + 1) * self._cost.seconds(rows / (came + 1)) - self._cost.seconds(max(rows, 1))
        self._policy.gathered(rows, saved_s, idle_s, last_s, in_time=in_time)

    def _deliver(self, taken: Taken[J, R], results: Sequence[R | Exception], seconds: float) -> None:
        """Each caller its own."""
        now = monotonic()
        wasted = rows = 0
        for waiting, result in zip(taken.batch, results, strict=True):
            rows += waiting.job.rows
            if waiting.future.done() or (waiting.deadline is not None and waiting.deadline < now):
                wasted += 1
            if waiting.future.done():
                continue
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
        for waiting in taken.late:
            if not waiting.future.done():
                waiting.future.set_exception(Expired("the deadline would pass before the reply"))
        if taken.batch:
            self._ran(Run(len(taken.batch), rows, wasted, seconds))
        if self._line and self._held is None:
            self._schedule()

    # In a worker

    def _work(self) -> None:
        """One batch."""
        taken: Taken[J, R] = Taken([], [])
        results: list[R | Exception] = []
        start = perf_counter()
        try:
            self._await_rows()
            taken = self._take(max(1, self._workers.count - self._running + 1))
            if self._line and self._running < self._workers.count:
                self._call_soon(self._schedule)
            start = perf_counter()
            results = self._results(taken.batch)
        except Exception as error:  # a defect of the batcher must not leave callers waiting
            logger.exception("a batch could not be formed")
            results = [error] * len(taken.batch)
        with self._lock:
            more = bool(self._line)
            if not more:
                self._running -= 1
        self._call_soon(self._deliver, taken, results, perf_counter() - start)
        if more:
            self._workers.submit(self._work)  # at the end of the line: other models wait too

    def _await_rows(self) -> None:
        """Hold the run back as long as the policy expects that to pay."""
        before, each = self._line.rows, self._line.each
        target = self._policy.gather(before, each) if before else 0
        if target <= before:
            return
        wait = Wait(self._line.arrivals)
        while (rows := self._line.rows) < target:
            if (left := wait.left_s(rows, each, self._line.arrivals, self._policy)) <= 0.0:
                break
            sleep(min(_TICK_S, left))
        # Without the wait, those that came would have come during the run, and made the next one together.
        saved_s = self._cost.saving(before, rows - before) if rows > before else 0.0
        self._policy.gathered(rows, saved_s, wait.held_s, wait.last_s, in_time=rows >= target)

    def _call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop was closed: nobody is left to be answered
            logger.warning("a batch ended after the server")

    # On either

    def _take(self, share: int) -> Taken[J, R]:
        """A batch of what waits, or of a share of it where others take too."""
        limit = max(1, min(self._policy.limit(), -(-self._line.rows // share)))
        taken = self._line.take(limit, self._expected_s)
        self._busy_until = perf_counter() + self._expected_s(sum(waiting.job.rows for waiting in taken.batch))
        return taken

    def _results(self, batch: Sequence[Waiting[J, R]]) -> list[R | Exception]:
        there = [not waiting.gone for waiting in batch]  # once: callers may go at any time
        jobs = [waiting.job for waiting, stays in zip(batch, there, strict=True) if stays]
        answers = iter(self._measured(jobs) if jobs else [])
        return [next(answers) if stays else Expired("the caller is gone") for stays in there]

    def _measured(self, jobs: Sequence[J]) -> list[R | Exception]:
        start = perf_counter()
        results = self._guarded(jobs)
        seconds = perf_counter() - start
        rows = sum([job.rows for job in jobs])
        expected = self._cost.seconds(rows)
        self._cost.record(rows, seconds)
        if expected:
            self._stretch += _STRETCH_WEIGHT * (min(seconds / expected, 10.0) - self._stretch)
        return results

    def _guarded(self, jobs: Sequence[J]) -> list[R | Exception]:
        try:
            return self._program.run(jobs)
        except OutOfMemory as error:
            logger.error("%d requests are refused: %s", len(jobs), error)
            return [Overloaded(str(error), _NO_MEMORY_RETRY_S)] * len(jobs)
        except Exception as error:  # nobody knows yet whose fault it is
            if len(jobs) == 1:
                return [error]
            return [result for job in jobs for result in self._guarded([job])]
