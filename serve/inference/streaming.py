"""ModelStreamInfer: many requests on one call, answered in their order, several under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc

from serve.pb.inference import grpc_service_pb2 as pb
from serve.streams import StreamLimits

Context = grpc.aio.ServicerContext[Any, Any]
Respond = Callable[[pb.ModelInferRequest], Coroutine[Any, Any, pb.ModelStreamInferResponse]]
_Responses = asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None]


async def respond_in_order(
    requests: AsyncIterator[pb.ModelInferRequest], context: Context, respond: Respond, limits: StreamLimits
) -> None:
    """Answer requests in their order.

    A client that takes no reply is not read from either, and is let go after a while. What a stream has under way is
    bounded, and ends with it.

    Parameters
    ----------
    requests : async iterator of ModelInferRequest
    context : grpc.aio.ServicerContext
    respond : coroutine function
        Answers one request, be it with what is wrong with it.
    limits : StreamLimits
    """
    responses: _Responses = asyncio.Queue(limits.window)
    stalled = False
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_read(requests, respond, limits.idle_s, responses, tasks))
            while (response := await responses.get()) is not None:
                await asyncio.wait_for(context.write(await response), limits.stall_s)
    except* TimeoutError:
        stalled = True
    if stalled:
        await context.abort(grpc.StatusCode.ABORTED, f"no reply was taken for {limits.stall_s:g} s")


async def _read(
    requests: AsyncIterator[pb.ModelInferRequest],
    respond: Respond,
    idle_s: float | None,
    responses: _Responses,
    tasks: asyncio.TaskGroup,
) -> None:
    iterator = aiter(requests)
    while True:
        try:
            request = await asyncio.wait_for(anext(iterator), idle_s)
        except (StopAsyncIteration, TimeoutError):
            break
        await responses.put(tasks.create_task(respond(request)))
    await responses.put(None)
