"""Requests in, batches out: who is run together, when, and where.

    submit ──> queue ──┬── a quick run ──> here, on the event loop: no thread is woken for 50 us of work
                       └── any other   ──> a worker: takes what waits, up to the policy's size, once the policy says so
                                              └──> each caller gets its own rows

The queue is first come, first served. When a batch is formed, requests whose caller is gone or whose deadline would pass
before the reply are left out: they cost nothing. A request that cannot be answered in time by what is waiting before it is
refused at once. If a batch fails as a whole, its requests are run one by one, so that nobody pays for a stranger.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, perf_counter, sleep
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from serve.admission import Admission, retry_after
from serve.cost import CostModel
from serve.errors import Expired, Overloaded
from serve.policy import Policy

logger = logging.getLogger(__name__)

QUICK_S: Final = 400e-6
"""A run that is expected to end within this is run on the event loop."""

_MARGIN: Final = 1.2
"""Runs are expected to take so many times what they took on average."""

_TICK_S: Final = 150e-6
"""How often a worker that waits for more rows looks for them."""


class Job(Protocol):
    """A request as a program runs it."""

    rows: int
    queued_s: float
    """Set when its batch is formed."""


J = TypeVar("J", bound=Job)
J_contra = TypeVar("J_contra", bound=Job, contravariant=True)
R = TypeVar("R")


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


class Workers:
    """Threads that run batches, for all models of a server."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="hardpath-run")

    def submit(self, call: Callable[[], None]) -> None:
        """Have `call` run."""
        self._pool.submit(call)

    def close(self) -> None:
        """Wait for what is being run; what was not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


class _Waiting(Generic[J, R]):
    __slots__ = ("deadline", "future", "gone", "job", "since")

    def __init__(self, job: J, deadline: float | None, future: asyncio.Future[R]) -> None:
        self.job = job
        self.deadline = deadline
        self.future = future
        self.since = perf_counter()
        self.gone = False


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
        self._queue: deque[_Waiting[J, R]] = deque()
        self._lock = threading.Lock()
        self._rows = 0
        self._busy_rows = 0
        self._busy_until = 0.0
        self._arrivals = 0
        self._running = 0
        self._scheduled = False
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
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        wait_s = self._wait_s()
        if caller.deadline is not None:
            self._require_time(caller.deadline, wait_s, job.rows)
        self._admission.enter(caller.nbytes, wait_s)
        future: asyncio.Future[R] = self._loop.create_future()
        waiting = _Waiting(job, caller.deadline, future)
        try:
            with self._lock:
                self._queue.append(waiting)
                self._rows += job.rows
                self._arrivals += 1
            if not self._scheduled:
                self._scheduled = True
                # Behind the handlers that are ready in this turn of the loop, so that their requests go together.
                self._loop.call_soon(self._dispatch)
            return await future
        except asyncio.CancelledError:
            self._forget(waiting)
            raise
        finally:
            self._admission.leave(caller.nbytes)

    @property
    def waiting_rows(self) -> int:
        """Rows that are not being run yet."""
        return self._rows

    def _wait_s(self) -> float:
        """How long a request that comes now is likely to wait before it is run."""
        rows = self._rows
        left = max(0.0, self._busy_until - perf_counter()) if self._running else 0.0
        if not rows:
            return left
        size = min(self._policy.limit(), rows)
        return left + self._cost.seconds(size) * (rows / size) / self._workers.count

    def _require_time(self, deadline: float, wait_s: float, rows: int) -> None:
        left = deadline - monotonic()
        if left <= 0.0:
            raise Expired("the deadline has passed")
        if wait_s and wait_s + self._cost.seconds(rows) > left:
            raise Overloaded(
                f"a reply would take {1e3 * wait_s:.1f} ms, the deadline is in {1e3 * left:.1f} ms", retry_after(wait_s)
            )

    def _forget(self, waiting: _Waiting[J, R]) -> None:
        """Its caller is gone: where it still waits, it never runs, and holds no memory."""
        with self._lock:
            waiting.gone = True
            try:
                self._queue.remove(waiting)
            except ValueError:
                return
            self._rows -= waiting.job.rows

    def _dispatch(self) -> None:
        """On the event loop: run what is quick, wake a worker for the rest."""
        self._scheduled = False
        with self._lock:
            rows = self._rows
            if not self._queue:
                return
            quick = self._running == 0 and self._cost.known
            quick = quick and self._cost.seconds(min(rows, self._policy.limit())) <= QUICK_S
            if not quick:
                if self._running >= self._workers.count:
                    return
                self._running += 1
        if quick:
            batch, late = self._form(share=1)
            self._deliver(batch, self._run(batch), late)
            if self._queue:
                self._reschedule()
            return
        self._workers.submit(self._work)

    def _reschedule(self) -> None:
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _work(self) -> None:
        """In a worker: one batch."""
        assert self._loop is not None
        batch: list[_Waiting[J, R]] = []
        late: list[_Waiting[J, R]] = []
        outcome = _Outcome[R]([], 0.0)
        try:
            self._await_rows()
            batch, late = self._form(share=max(1, self._workers.count - self._running + 1))
            if self._queue and self._running < self._workers.count:
                self._call_soon(self._reschedule)
            outcome = self._run(batch)
        except Exception as error:  # a defect of the batcher must not leave callers waiting
            logger.exception("a batch could not be formed")
            outcome = _Outcome([error] * len(batch), 0.0)
        with self._lock:
            more = bool(self._queue)
            if not more:
                self._running -= 1
        self._call_soon(self._deliver, batch, outcome, late)
        if more:
            self._workers.submit(self._work)  # at the end of the line: other models wait too

    def _call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop was closed: nobody is left to be answered
            logger.warning("a batch ended after the server")

    def _await_rows(self) -> None:
        """Wait for more rows as long as the policy expects that to pay."""
        before = self._rows
        if not before or not self._policy.begin(before, self._busy_rows):
            return
        began = last = perf_counter()
        latest = began + self._policy.wait_max_s
        seen, limit = self._arrivals, self._policy.limit()
        while self._rows < limit:
            now = perf_counter()
            if self._arrivals != seen:
                seen, last = self._arrivals, now
            left = min(last + self._policy.patience_s(max(self._rows, 1)), latest) - now
            if left <= 0.0:
                break
            sleep(min(_TICK_S, left))
        self._policy.end(before, self._rows, perf_counter() - began)

    def _form(self, share: int) -> tuple[list[_Waiting[J, R]], list[_Waiting[J, R]]]:
        """The next batch, and requests that are too late to be in any."""
        batch: list[_Waiting[J, R]] = []
        late: list[_Waiting[J, R]] = []
        with self._lock:
            limit = max(1, min(self._policy.limit(), -(-self._rows // share)))
            now, rows = perf_counter(), 0
            ends = monotonic() + _MARGIN * self._cost.seconds(min(limit, max(self._rows, 1)))
            while self._queue:
                waiting = self._queue[0]
                size = waiting.job.rows
                if waiting.deadline is not None and waiting.deadline < ends:
                    late.append(waiting)
                elif batch and rows + size > limit:
                    break
                else:
                    waiting.job.queued_s = now - waiting.since
                    batch.append(waiting)
                    rows += size
                self._queue.popleft()
                self._rows -= size
            self._busy_rows += rows
            self._busy_until = now + self._cost.seconds(max(rows, 1))
        return batch, late

    def _run(self, batch: Sequence[_Waiting[J, R]]) -> _Outcome[R]:
        jobs = [waiting.job for waiting in batch if not waiting.gone]
        if not jobs:
            return _Outcome([], 0.0)
        start = perf_counter()
        results = self._results(jobs)
        seconds = perf_counter() - start
        self._cost.record(sum(job.rows for job in jobs), seconds)
        if len(jobs) < len(batch):
            answers = iter(results)
            results = [Expired("the caller is gone") if waiting.gone else next(answers) for waiting in batch]
        return _Outcome(results, seconds)

    def _results(self, jobs: Sequence[J]) -> list[R | Exception]:
        try:
            return self._program.run(jobs)
        except Exception as error:  # nobody knows yet whose fault it is
            if len(jobs) == 1:
                return [error]
            return [result for job in jobs for result in self._results([job])]

    def _deliver(self, batch: Sequence[_Waiting[J, R]], outcome: _Outcome[R], late: Sequence[_Waiting[J, R]]) -> None:
        """On the event loop: each caller its own."""
        now = monotonic()
        wasted = rows = 0
        for waiting, result in zip(batch, outcome.results, strict=False):
            rows += waiting.job.rows
            if waiting.future.done() or (waiting.deadline is not None and waiting.deadline < now):
                wasted += 1
            if waiting.future.done():
                continue
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
        for waiting in late:
            if not waiting.future.done():
                waiting.future.set_exception(Expired("the deadline would pass before the reply"))
        with self._lock:
            self._busy_rows -= sum(waiting.job.rows for waiting in batch)
        if batch:
            self._ran(Run(len(batch), rows, wasted, outcome.seconds))
        if self._queue:
            self._reschedule()


class _Outcome(NamedTuple, Generic[R]):
    results: list[R | Exception]
    seconds: float
