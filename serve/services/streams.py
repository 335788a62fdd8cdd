"""TransmitStream of hardpath.v1: many requests on one call.

    requests ──> window of a few under way ──> replies, in the order of the requests ──> a peer that reads, or is dropped

A stream holds no more than its window: a client that does not read is not read from either, and is let go after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2  # type: ignore[import-untyped]

from serve.engine.batcher import Caller
from serve.messages.status import failure_of
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.services.unreadable import Unreadable

Context = grpc.aio.ServicerContext[Any, Any]
_Message = pb.TransmitStreamRequest | Unreadable
Transmit = Callable[[pb.TransmitRequest, Caller], Awaitable[pb.TransmitResponse]]


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
    """

    window: int = 16
    samples: int | None = None
    stall_s: float = 30.0


class TransmitStream:
    """One call of TransmitStream: requests are answered in their order, several under way at a time.

    Parameters
    ----------
    context : ServicerContext
    transmit : callable
        Answers one request.
    limits : StreamLimits
    closing : asyncio.Future
        Once done, no more is read: what was read is answered, and the stream ends as unavailable.
    """

    def __init__(
        self, context: Context, transmit: Transmit, limits: StreamLimits, closing: asyncio.Future[None]
    ) -> None:
        self._context = context
        self._transmit = transmit
        self._limits = limits
        self._closing = closing
        self._replies: asyncio.Queue[asyncio.Task[pb.TransmitStreamResponse] | None] = asyncio.Queue(limits.window)

    async def answer(self, requests: AsyncIterator[_Message]) -> None:
        """Read, have answered, write."""
        reader = asyncio.create_task(self._read(aiter(requests)))
        try:
            while (reply := await self._replies.get()) is not None:
                await send(self._context, await reply, self._limits.stall_s)
            await reader
        finally:
            reader.cancel()
            while not self._replies.empty():
                if (left := self._replies.get_nowait()) is not None:
                    left.cancel()
        if self._closing.done():
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    async def _read(self, requests: AsyncIterator[_Message]) -> None:
        samples, index = 0, 0
        try:
            while (request := await self._next(requests)) is not None:
                samples += _samples(request)
                full = self._limits.samples is not None and samples > self._limits.samples
                answer = _full(index, self._limits.samples) if full else self._answer(index, request)
                await self._replies.put(asyncio.create_task(answer))
                if full:
                    break
                index += 1
        finally:
            await self._replies.put(None)

    async def _next(self, requests: AsyncIterator[_Message]) -> pb.TransmitRequest | Unreadable | None:
        """The next request; None where there is none, or is not to be."""
        coming = asyncio.ensure_future(anext(requests, None))
        await asyncio.wait((coming, self._closing), return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            coming.cancel()
            return None
        message = coming.result()
        return message.request if isinstance(message, pb.TransmitStreamRequest) else message

    async def _answer(self, index: int, request: pb.TransmitRequest | Unreadable) -> pb.TransmitStreamResponse:
        if isinstance(request, Unreadable):
            return pb.TransmitStreamResponse(index=index, failure=failure_of(request.error, request.kind()))
        left = self._context.time_remaining()
        caller = Caller(None if left is None else monotonic() + left, request.ByteSize())
        try:
            return pb.TransmitStreamResponse(index=index, response=await self._transmit(request, caller))
        except Exception as error:  # of this request; the stream goes on
            return pb.TransmitStreamResponse(index=index, failure=failure_of(error, request))


async def send(context: Context, reply: Message, stall_s: float) -> None:
    """Write a reply to a peer that reads; the call ends here where it takes none for so long, and where it is gone."""
    try:
        await asyncio.wait_for(context.write(reply), stall_s)
    except TimeoutError:
        await context.abort(grpc.StatusCode.ABORTED, f"no reply was taken for {stall_s:g} s")
    except grpc.aio.InternalError:  # what gRPC makes of a peer that went
        raise asyncio.CancelledError from None


def _samples(request: pb.TransmitRequest | Unreadable) -> int:
    """What a request counts for, before it is checked."""
    if isinstance(request, Unreadable):
        return 1
    return max((tensor.shape[0] for tensor in request.inputs.values() if tensor.shape), default=1)


async def _full(index: int, samples: int | None) -> pb.TransmitStreamResponse:
    return pb.TransmitStreamResponse(
        index=index,
        failure=pb.Failure(
            code=code_pb2.RESOURCE_EXHAUSTED, message=f"a stream takes at most {samples} samples: open another"
        ),
    )
