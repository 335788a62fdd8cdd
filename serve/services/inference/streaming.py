"""ModelStreamInfer: many requests on one call, answered in their order, several under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.streams import Context, OrderedStream, StreamLimits

Respond = Callable[[pb.ModelInferRequest], Coroutine[Any, Any, pb.ModelStreamInferResponse]]


class InferStream(OrderedStream[pb.ModelInferRequest, pb.ModelStreamInferResponse]):
    """One call of ModelStreamInfer.

    Parameters
    ----------
    respond : coroutine function
        Answers one request, be it with what is wrong with it.
    context, limits, closing
        As for OrderedStream.
    """

    def __init__(self, context: Context, respond: Respond, limits: StreamLimits, closing: asyncio.Future[None]) -> None:
        super().__init__(context, limits, closing)
        self._respond = respond

    def _samples(self, request: pb.ModelInferRequest) -> int:
        return self._limits.counted(tensor.shape[0] for tensor in request.inputs if tensor.shape)

    async def _reply(self, index: int, request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
        return await self._respond(request)

    async def _refusal(
        self, index: int, request: pb.ModelInferRequest, error: Exception
    ) -> pb.ModelStreamInferResponse:
        return failed(request, str(error))


def failed(request: pb.ModelInferRequest, message: str) -> pb.ModelStreamInferResponse:
    """What answers a request of a stream that failed."""
    reply = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    return pb.ModelStreamInferResponse(error_message=message, infer_response=reply)
