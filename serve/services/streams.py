"""Many requests on one call, answered in their order.

    requests ──> window of a few under way ──> replies, in the order of the requests ──> a peer that reads, or is dropped

A stream holds no more than its window: a client that does not read is not read from either, and is let go after a while.
What a stream has under way ends with it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Generic, TypeVar, cast

import grpc

from serve.engine.batcher import Caller
from serve.engine.errors import Overloaded
from serve.engine.means import MAX_BATCH
from serve.messages.status import failure_of
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.services.unreadable import Unreadable

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]
Transmit = Callable[[pb.TransmitRequest, Caller], Awaitable[pb.TransmitResponse]]

ABORT_S: Final = 1.0
"""A peer that reads nothing does not read the status either; the call is ended without it then."""


@dataclass(frozen=True)
class StreamLimits:
    """What one stream may take.

    Attributes
    ----------
    window : int
        Requests of a stream under way at a time.
    samples : int, optional
        Samples over one stream.
    stall_s : float
        A peer that takes no reply for so long is let go.
    idle_s : float
        One that sends no request for so long, and awaits no reply, too.
    max_batch : int
        Most samples in one request; one that holds more is refused, and counts as one sample.
    """

    window: int = 16
    samples: int | None = None
    stall_s: float = 30.0
    idle_s: float = 300.0
    max_batch: int = MAX_BATCH

    def counted(self, sizes: Iterable[int]) -> int:
        """Samples of a request, by the first dimension of each of its tensors."""
        rows = max(sizes, default=1)
        return rows if 1 <= rows <= self.max_batch else 1


class OrderedStream(ABC, Generic[Request, Response]):
    """One call with many requests.

    Parameters
    ----------
    context : ServicerContext
    limits : StreamLimits
    closing : asyncio.Future
        Once done, no more is read: what was read is answered, and the stream ends as unavailable.
    """

    def __init__(self, context: Context, limits: StreamLimits, closing: asyncio.Future[None]) -> None:
        self._context = context
        self._limits = limits
        self._closing = closing
        self._under_way = 0
        self._cut = self._idle = False
        self._replies: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue(limits.window)

    @abstractmethod
    def _samples(self, request: Request) -> int:
        """How many there are in a request."""

    @abstractmethod
    async def _reply(self, index: int, request: Request) -> Response:
        """The answer to the request of that number, counted from 0, be it with what is wrong with it."""

    @abstractmethod
    async def _refusal(self, index: int, request: Request, error: Exception) -> Response:
        """The answer to a request that is not looked at."""

    async def answer(self, requests: AsyncIterator[Request | Unreadable]) -> None:
        """Read, have answered, write."""
        stalled = gone = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(aiter(requests), tasks))
                while (reply := await self._replies.get()) is not None:
                    await write(self._context, await reply, self._limits.stall_s)
                    self._under_way -= 1
        except* TimeoutError:
            stalled = True
        except* PeerGone:
            gone = True
        if stalled:
            await drop(self._context, f"no reply was taken for {self._limits.stall_s:g} s")
        elif self._idle and not gone:
            await drop(self._context, f"no request came for {self._limits.idle_s:g} s")
        elif self._cut and not gone:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    async def _read(self, requests: AsyncIterator[Request | Unreadable], tasks: asyncio.TaskGroup) -> None:
        samples, index, most, full = 0, 0, self._limits.samples, False
        while (request := await self._next(requests)) is not None:
            if isinstance(request, Unreadable):
                answer = self._refusal(index, cast(Request, request.kind()), request.error)
            else:
                samples += self._samples(request)
                full = most is not None and samples > most
                no_more = Overloaded(f"a stream takes at most {most} samples: open another", 0.0)
                answer = self._refusal(index, request, no_more) if full else self._reply(index, request)
            # A task of the group before it is in the queue: where the put is cancelled, so is the task.
            self._under_way += 1
            await self._replies.put(tasks.create_task(answer))
            if full:
                break
            index += 1
        await self._replies.put(None)

    async def _next(self, requests: AsyncIterator[Request | Unreadable]) -> Request | Unreadable | None:
        """The next request; None where there is none, or is not to be."""
        coming = asyncio.ensure_future(anext(requests, None))
        either = (coming, self._closing)
        try:
            while not (await asyncio.wait(either, timeout=self._limits.idle_s, return_when=asyncio.FIRST_COMPLETED))[0]:
                if not self._under_way:
                    self._idle = True
                    return None
        finally:
            if not coming.done():
                coming.cancel()
        self._cut = not coming.done()
        return coming.result() if coming.done() else None


class PeerGone(Exception):
    """Whom a reply was for is not there any more."""


async def write(context: Context, reply: object, stall_s: float) -> None:
    """Write a reply to a peer that reads.

    Raises
    ------
    TimeoutError
        If it takes none for so long.
    PeerGone
        If it is not there any more.
    """
    try:
        await asyncio.wait_for(context.write(reply), stall_s)
    except grpc.aio.InternalError:  # what gRPC makes of a peer that went
        raise PeerGone from None


async def drop(context: Context, text: str) -> None:
    """End the call of a peer that does not read, and so may not read the status either."""
    with suppress(TimeoutError):
        await asyncio.wait_for(context.abort(grpc.StatusCode.ABORTED, text), ABORT_S)


class TransmitStream(OrderedStream[pb.TransmitStreamRequest, pb.TransmitStreamResponse]):
    """One call of TransmitStream of hardpath.v1.

    Parameters
    ----------
    transmit : coroutine function
        Answers one request.
    context, limits, closing
        As for OrderedStream.
    """

    def __init__(
        self, context: Context, transmit: Transmit, limits: StreamLimits, closing: asyncio.Future[None]
    ) -> None:
        super().__init__(context, limits, closing)
        self._transmit = transmit

    def _samples(self, request: pb.TransmitStreamRequest) -> int:
        return self._limits.counted(t.shape[0] for t in request.request.inputs.values() if t.shape)

    async def _reply(self, index: int, request: pb.TransmitStreamRequest) -> pb.TransmitStreamResponse:
        left = self._context.time_remaining()
        caller = Caller(None if left is None else monotonic() + left, request.ByteSize())
        try:
            return pb.TransmitStreamResponse(index=index, response=await self._transmit(request.request, caller))
        except Exception as error:  # of this request; the stream goes on
            return await self._refusal(index, request, error)

    async def _refusal(
        self, index: int, request: pb.TransmitStreamRequest, error: Exception
    ) -> pb.TransmitStreamResponse:
        return pb.TransmitStreamResponse(index=index, failure=failure_of(error, request.request))
