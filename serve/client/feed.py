"""Requests of a stream: taken from the caller one by one while answers come, and kept until they are answered.

Whoever feeds a stream may be slow (a radio) and whoever reads its results too; so requests are taken in a thread, or task,
of their own, at most so many ahead of the answers. A stream that breaks is opened anew, beginning with what is not answered.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from serve.client.calls import Asked, Plan
from serve.client.requests import Inputs
from serve.pb.hardpath.v1 import link_pb2 as pb


class Feed:
    """With threads.

    Parameters
    ----------
    plan : Plan
    batches : iterable
        The caller's; it runs in a thread of its own.
    ahead : int
        Most requests that are not answered.
    """

    def __init__(self, plan: Plan, batches: Iterable[Inputs], ahead: int) -> None:
        self._condition = threading.Condition()
        self._ahead = ahead
        self._waiting: deque[Asked] = deque()
        self._answered = 0
        self._ended = False
        self._error: BaseException | None = None
        self._opened = 0
        threading.Thread(target=self._take, args=(plan, batches), name="hardpath-feed", daemon=True).start()

    def requests(self) -> Iterator[pb.TransmitStreamRequest]:
        """What one opening of the stream sends: what is not answered, then what comes; the opening before it ends."""
        with self._condition:
            self._opened += 1
            self._condition.notify_all()
            return self._from(self._opened, self._answered)

    def _from(self, opened: int, position: int) -> Iterator[pb.TransmitStreamRequest]:
        for number in itertools.count(position):
            with self._condition:
                self._condition.wait_for(partial(self._may_send, opened, number))
                if opened != self._opened or number >= self._taken:
                    return
                asked = self._waiting[number - self._answered]
            yield asked.message

    def _may_send(self, opened: int, number: int) -> bool:
        return opened != self._opened or self._ended or number < self._taken

    @property
    def _taken(self) -> int:
        return self._answered + len(self._waiting)

    @property
    def first(self) -> Asked | None:
        """The oldest request that is not answered."""
        return self._waiting[0] if self._waiting else None

    def answer(self) -> None:
        """The oldest request is answered."""
        with self._condition:
            self._waiting.popleft()
            self._answered += 1
            self._condition.notify_all()

    def pending(self) -> bool:
        """Wait until there is a request that is not answered, or no more come; whether there is one.

        Raises
        ------
        Exception
            What the caller's iterable raised, or what is wrong with a batch of it, once all before it is answered.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._ended or self._waiting)
            if not self._waiting and self._error is not None:
                raise self._error
            return bool(self._waiting)

    def close(self) -> None:
        """Take no more."""
        with self._condition:
            self._ended = True
            self._opened += 1
            self._condition.notify_all()

    def _take(self, plan: Plan, batches: Iterable[Inputs]) -> None:
        try:
            for batch in batches:
                for asked in plan.asked(batch):
                    with self._condition:
                        self._condition.wait_for(lambda: self._ended or len(self._waiting) < self._ahead)
                        if self._ended:
                            return
                        self._waiting.append(asked)
                        self._condition.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            with self._condition:
                self._ended = True
                self._condition.notify_all()


class AsyncFeed:
    """With asyncio: the same, in a task of its own; `batches` may be an asynchronous iterable."""

    def __init__(self, plan: Plan, batches: Iterable[Inputs] | AsyncIterable[Inputs], ahead: int) -> None:
        self._changed = asyncio.Condition()
        self._ahead = ahead
        self._waiting: deque[Asked] = deque()
        self._answered = 0
        self._ended = False
        self._error: BaseException | None = None
        self._opened = 0
        self._task = asyncio.create_task(self._take(plan, batches))

    def requests(self) -> AsyncIterator[pb.TransmitStreamRequest]:
        """As Feed.requests."""
        self._opened += 1
        return self._from(self._opened, self._answered)

    async def _from(self, opened: int, position: int) -> AsyncIterator[pb.TransmitStreamRequest]:
        for number in itertools.count(position):
            await self._wait(partial(self._may_send, opened, number))
            if opened != self._opened or number >= self._taken:
                return
            yield self._waiting[number - self._answered].message

    def _may_send(self, opened: int, number: int) -> bool:
        return opened != self._opened or self._ended or number < self._taken

    @property
    def _taken(self) -> int:
        return self._answered + len(self._waiting)

    @property
    def first(self) -> Asked | None:
        """As Feed.first."""
        return self._waiting[0] if self._waiting else None

    async def answer(self) -> None:
        """As Feed.answer."""
        self._waiting.popleft()
        self._answered += 1
        await self._tell()

    async def pending(self) -> bool:
        """As Feed.pending."""
        await self._wait(lambda: self._ended or bool(self._waiting))
        if not self._waiting and self._error is not None:
            raise self._error
        return bool(self._waiting)

    async def close(self) -> None:
        """As Feed.close."""
        self._ended = True
        self._opened += 1
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._tell()

    async def _take(self, plan: Plan, batches: Iterable[Inputs] | AsyncIterable[Inputs]) -> None:
        try:
            async for batch in _each(batches):
                for asked in plan.asked(batch):
                    await self._wait(lambda: len(self._waiting) < self._ahead)
                    self._waiting.append(asked)
                    await self._tell()
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            await self._tell()

    async def _wait(self, until: Callable[[], bool]) -> None:
        if not until():
            async with self._changed:
                await self._changed.wait_for(until)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _each(batches: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch
