"""ModelStreamInfer: many requests on one call, answered in their order, several under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc

from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.streams import StreamLimits
from serve.services.unreadable import Unreadable

_Message = pb.ModelInferRequest | Unreadable
Context = grpc.aio.ServicerContext[Any, Any]
Respond = Callable[[pb.ModelInferRequest], Coroutine[Any, Any, pb.ModelStreamInferResponse]]


class InferStream:
    """One call of ModelStreamInfer.

    A client that takes no reply is not read from either, and is let go after a while. What a stream has under way is
    bounded, and ends with it.

    Parameters
    ----------
    context : ServicerContext
    respond : coroutine function
        Answers one request, be it with what is wrong with it.
    limits : StreamLimits
    closing : asyncio.Future
        Once done, no more is read: what was read is answered, and the stream ends as unavailable.
    """

    def __init__(self, context: Context, respond: Respond, limits: StreamLimits, closing: asyncio.Future[None]) -> None:
        self._context = context
        self._respond = respond
        self._limits = limits
        self._closing = closing
        self._responses: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue(limits.window)

    async def answer(self, requests: AsyncIterator[_Message]) -> None:
        """Read, have answered, write."""
        stalled = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(aiter(requests), tasks))
                while (response := await self._responses.get()) is not None:
                    await asyncio.wait_for(self._context.write(await response), self._limits.stall_s)
        except* TimeoutError:
            stalled = True
        if stalled:
            await self._context.abort(grpc.StatusCode.ABORTED, f"no reply was taken for {self._limits.stall_s:g} s")
        if self._closing.done():
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    async def _read(self, requests: AsyncIterator[_Message], tasks: asyncio.TaskGroup) -> None:
        samples, most = 0, self._limits.samples
        while (request := await self._next(requests)) is not None:
            if isinstance(request, Unreadable):
                await self._responses.put(tasks.create_task(_refused(request)))
                continue
            samples += max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=1)
            full = most is not None and samples > most
            answer = _full(request, most) if full else self._respond(request)
            await self._responses.put(tasks.create_task(answer))
            if full:
                break
        await self._responses.put(None)

    async def _next(self, requests: AsyncIterator[_Message]) -> _Message | None:
        """The next request; None where there is none, or is not to be."""
        coming = asyncio.ensure_future(anext(requests, None))
        try:
            await asyncio.wait((coming, self._closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not coming.done():
                coming.cancel()
        return coming.result() if coming.done() else None


async def _refused(request: Unreadable) -> pb.ModelStreamInferResponse:
    return failed(pb.ModelInferRequest(), str(request.error))


async def _full(request: pb.ModelInferRequest, samples: int | None) -> pb.ModelStreamInferResponse:
    return failed(request, f"a stream takes at most {samples} samples: open another")


def failed(request: pb.ModelInferRequest, message: str) -> pb.ModelStreamInferResponse:
    """What answers a request of a stream that failed."""
    reply = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    return pb.ModelStreamInferResponse(error_message=message, infer_response=reply)
