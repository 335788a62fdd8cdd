import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from link.errors import ArgumentError, OutOfMemory
from serve.engine.admission import Admission
from serve.engine.batcher import Batcher, Caller
from serve.engine.cost import CostModel
from serve.engine.errors import Expired, Overloaded, ShuttingDown
from serve.engine.policy import Adaptive, Fixed
from serve.engine.workers import Workers


@dataclass(eq=False)
class Rows:
    """A request: its rows are numbers of its own."""

    first: int
    rows: int
    bad: bool = False
    queued_s: float = 0.0

    @property
    def numbers(self):
        return range(self.first, self.first + self.rows)


class Square:
    """Squares all numbers of a batch together, and hands each request its part."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.batches = []
        self.threads = set()

    def run(self, jobs):
        self.batches.append(list(jobs))
        self.threads.add(threading.current_thread())
        time.sleep(self.seconds)
        squares = [number**2 for job in jobs for number in job.numbers]
        results, stop = [], 0
        for job in jobs:
            start, stop = stop, stop + job.rows
            results.append(ArgumentError("numbers", "must be good") if job.bad else squares[start:stop])
        return results

    @property
    def ran(self):
        return [job for batch in self.batches for job in batch]


@pytest.fixture
def workers():
    pool = Workers(2)
    yield pool
    pool.close()


def batcher_of(program, workers, *, policy=None, seconds=None, admission=None, ran=lambda run: None):
    cost = CostModel()
    if seconds is not None:
        for rows in (1, 64):
            cost.record(rows, seconds)
    policy = policy or Adaptive(cost, 64)
    return Batcher(program, policy, cost, workers, admission or Admission(), ran)


async def cancelled_after(task, turns):
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


requests = st.lists(
    st.tuples(
        st.integers(1, 9),  # rows
        st.booleans(),  # bad
        st.none() | st.integers(0, 6),  # turns of the loop until its caller goes
        st.integers(0, 4),  # turns until it comes
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=150, deadline=None)
@given(requests=requests, quick=st.booleans(), limit=st.integers(1, 20), count=st.integers(1, 3))
def test_every_caller_gets_its_own_rows_whoever_fails_or_goes_beside_it(requests, quick, limit, count):
    """Numbers are unique, so a row that is answered to the wrong caller is seen."""

    async def call(batcher, job, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batcher.submit(job)

    async def run():
        program, pool = Square(), Workers(count)
        try:
            batcher = batcher_of(program, pool, policy=Fixed(limit, 1e-3), seconds=1e-6 if quick else 1.0)
            jobs = [Rows(1000 * place, rows, bad) for place, (rows, bad, _, _) in enumerate(requests)]
            tasks = [
                asyncio.create_task(call(batcher, job, turns))
                for job, (_, _, _, turns) in zip(jobs, requests, strict=True)
            ]
            goers = [
                cancelled_after(task, turns)
                for task, (_, _, turns, _) in zip(tasks, requests, strict=True)
                if turns is not None
            ]
            results = (await asyncio.gather(*tasks, *goers, return_exceptions=True))[: len(jobs)]
        finally:
            pool.close()
        for job, result, (_, bad, goes, _) in zip(jobs, results, requests, strict=True):
            if isinstance(result, asyncio.CancelledError):
                assert goes is not None
            elif bad:
                assert isinstance(result, ArgumentError)
            else:
                assert result == [number**2 for number in job.numbers]
        assert all(sum(job.rows for job in batch) <= max(limit, batch[0].rows) for batch in program.batches)
        assert batcher.waiting_rows == 0

    asyncio.run(run())


def test_requests_that_come_while_a_batch_runs_make_the_next_one(workers):
    program = Square(seconds=0.05)

    async def run():
        batcher = batcher_of(program, Workers(1), policy=Fixed(64))
        first = asyncio.create_task(batcher.submit(Rows(0, 1)))
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(batcher.submit(Rows(10 * i, 1))) for i in range(1, 8)]
        await asyncio.gather(first, *rest)

    asyncio.run(run())
    assert [len(batch) for batch in program.batches] == [1, 7]


def test_a_quick_request_alone_runs_where_it_came_and_at_once(workers):
    program = Square()

    async def run():
        batcher = batcher_of(program, workers, policy=Fixed(1), seconds=1e-6)
        await batcher.submit(Rows(3, 1))

    asyncio.run(run())
    assert program.threads == {threading.main_thread()}


def test_a_long_run_leaves_the_event_loop_free(workers):
    program = Square(seconds=0.05)

    async def run():
        batcher = batcher_of(program, workers, seconds=0.05)
        task = asyncio.create_task(batcher.submit(Rows(3, 1)))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns

    assert asyncio.run(run()) > 3
    assert threading.main_thread() not in program.threads


class Hold:
    """A program that runs on only once it is let go."""

    def __init__(self):
        self.entered, self.go, self.jobs = threading.Event(), threading.Event(), []

    def run(self, jobs):
        self.jobs += jobs
        self.entered.set()
        assert self.go.wait(20)
        return [job.first for job in jobs]


async def entered(program):
    with ThreadPoolExecutor(1) as pool:
        assert await asyncio.get_running_loop().run_in_executor(pool, program.entered.wait, 20)


def test_work_whose_caller_is_gone_never_runs(workers):
    program = Hold()

    async def run():
        batcher = batcher_of(program, Workers(1), policy=Fixed(1))
        first = asyncio.create_task(batcher.submit(Rows(1, 1)))
        await entered(program)
        gone, stays = (asyncio.create_task(batcher.submit(Rows(number, 1))) for number in (2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting_rows == 1
        program.go.set()
        assert await asyncio.gather(first, stays) == [1, 3]

    asyncio.run(run())
    assert [job.first for job in program.jobs] == [1, 3]


def test_a_request_whose_deadline_passes_in_the_queue_is_told_so_and_never_runs(workers):
    program = Hold()

    async def run():
        batcher = batcher_of(program, Workers(1), policy=Fixed(1))
        first = asyncio.create_task(batcher.submit(Rows(1, 1)))
        await entered(program)
        late = asyncio.create_task(batcher.submit(Rows(2, 1), Caller(deadline=time.monotonic() + 0.01)))
        await asyncio.sleep(0.02)
        program.go.set()
        assert await first == 1
        with pytest.raises(Expired):
            await late

    asyncio.run(run())
    assert [job.first for job in program.jobs] == [1]


def test_a_deadline_that_has_passed_or_cannot_be_met_is_refused_at_once(workers):
    program = Hold()

    async def run():
        batcher = batcher_of(program, Workers(1), seconds=0.5)
        with pytest.raises(Expired):
            await batcher.submit(Rows(0, 1), Caller(deadline=time.monotonic() - 1.0))
        first = asyncio.create_task(batcher.submit(Rows(1, 1)))
        await entered(program)
        with pytest.raises(Overloaded) as refused:
            await batcher.submit(Rows(2, 1), Caller(deadline=time.monotonic() + 0.2))
        assert refused.value.retry_after_s > 0.0
        program.go.set()
        await first

    asyncio.run(run())


@pytest.mark.parametrize(("bounds", "text"), [((3, 2**20), "3 requests are waiting"), ((99, 250), "250")])
def test_the_queue_is_bounded_by_requests_and_by_bytes(workers, bounds, text):
    program, admission = Hold(), Admission(*bounds)

    async def run():
        batcher = batcher_of(program, Workers(1), policy=Fixed(1), admission=admission)
        first = asyncio.create_task(batcher.submit(Rows(0, 1), Caller(nbytes=100)))
        await entered(program)
        tasks = [asyncio.create_task(batcher.submit(Rows(i, 1), Caller(nbytes=75))) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=text):
            await batcher.submit(Rows(3, 1), Caller(nbytes=75))
        assert admission.requests == 3
        program.go.set()
        assert await asyncio.gather(first, *tasks) == [0, 1, 2]
        assert (admission.requests, admission.nbytes) == (0, 0)

    asyncio.run(run())


def test_what_is_closed_takes_nothing_and_finishes_what_it_has(workers):
    program, admission = Hold(), Admission()

    async def run():
        batcher = batcher_of(program, Workers(1), policy=Fixed(1), admission=admission)
        first = asyncio.create_task(batcher.submit(Rows(5, 1)))
        await entered(program)
        admission.close()
        with pytest.raises(ShuttingDown):
            await batcher.submit(Rows(6, 1))
        program.go.set()
        assert await first == 5

    asyncio.run(run())


class Poisoned(Square):
    """Fails as a whole where one request is bad."""

    def run(self, jobs):
        results = super().run(jobs)
        if any(job.bad for job in jobs):
            raise RuntimeError("poison")
        return results


def test_a_request_that_breaks_its_batch_breaks_nobody_elses(workers):
    async def run():
        batcher = batcher_of(Poisoned(seconds=0.01), Workers(1), policy=Fixed(64))
        jobs = [Rows(10 * i, 2, bad=i == 3) for i in range(8)]
        results = await asyncio.gather(*map(batcher.submit, jobs), return_exceptions=True)
        for job, result in zip(jobs, results, strict=True):
            if job.bad:
                assert isinstance(result, RuntimeError)
            else:
                assert result == [number**2 for number in job.numbers]

    asyncio.run(run())


def test_runs_are_counted_with_those_that_were_for_nobody(workers):
    runs, program = [], Hold()

    async def run():
        batcher = batcher_of(program, Workers(1), policy=Fixed(64), ran=runs.append)
        task = asyncio.create_task(batcher.submit(Rows(1, 3)))
        await entered(program)
        task.cancel()
        await asyncio.sleep(0)
        program.go.set()
        while not runs:
            await asyncio.sleep(0.001)

    asyncio.run(run())
    assert [(run.requests, run.rows, run.wasted) for run in runs] == [(1, 3, 1)]


def test_a_device_without_memory_refuses_its_batch_for_now_and_is_asked_once(workers):
    """The session has halved the batch down to a row already: one by one would not help."""

    class Full(Square):
        def run(self, jobs):
            super().run(jobs)
            raise OutOfMemory("the GPU is full")

    async def run():
        program = Full()
        batcher = batcher_of(program, workers, policy=Fixed(64, 0.0), seconds=1.0)
        calls = [batcher.submit(Rows(place, 1)) for place in range(5)]
        return program, await asyncio.gather(*calls, return_exceptions=True)

    program, answers = asyncio.run(run())
    assert [(type(answer), str(answer)) for answer in answers] == [(Overloaded, "the GPU is full")] * 5
    assert all(answer.retry_after_s > 0 for answer in answers)
    assert len(program.ran) == 5
