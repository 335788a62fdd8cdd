"""hardpath.v1.LinkService: messages in, engine, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from time import monotonic
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from link.bundle import Bundle
from link.errors import ArgumentError
from serve.engine.batcher import Caller
from serve.engine.engine import Engine
from serve.messages import convert
from serve.messages.manifest import list_to_message, model_to_message
from serve.messages.status import refuse
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc
from serve.services.streams import StreamLimits, TransmitStream
from serve.telemetry.observer import Call, Observer

NAME = pb.DESCRIPTOR.services_by_name["LinkService"].full_name
_ENCODE, _DECODE, _TRANSMIT, _STREAM, _SWEEP = (
    f"{NAME}/{name}" for name in ("Encode", "Decode", "Transmit", "TransmitStream", "Sweep")
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]
_Method = Callable[["LinkService", Request, Context], Awaitable[Response]]


def _answered(method: _Method[Request, Response]) -> _Method[Request, Response]:
    """Answer whatever `method` raises with the status that the table has for it."""

    @wraps(method)
    async def answer(service: LinkService, request: Request, context: Context) -> Response:
        try:
            return await method(service, request, context)
        except Exception as error:  # every error must become a status; a traceback goes to the log
            await refuse(context, error, request)

    return answer


class LinkService(link_pb2_grpc.LinkServiceServicer):
    """The servicer.

    Parameters
    ----------
    engine : Engine
    limits : StreamLimits
    closing : asyncio.Future
        Done once open streams are to come to an end.
    """

    def __init__(self, engine: Engine, limits: StreamLimits, closing: asyncio.Future[None], observer: Observer) -> None:
        self._engine = engine
        self._observer = observer
        self._limits = limits
        self._closing = closing

    @_answered
    async def Encode(self, request: pb.EncodeRequest, context: Context) -> pb.EncodeResponse:
        with self._observer.call(_ENCODE, context) as call:
            model = self._engine.model(request.model)
            operation = call.of(f"{model.name}.transmitter")
            snr_db = request.snr_db if request.HasField("snr_db") else None
            inputs = convert.inputs_from_message(request.inputs)
            call.read()
            mode = convert.mode_from_message(request.mode)
            encoded = await model.encode(inputs, snr_db, caller_of(request, context), mode=mode)
            sent = encoded.sent
            call.computed(len(sent.mode), encoded.timing)
            operation.sent(int(sent.num_bits.sum()), int(sent.num_symbols.sum()), len(sent.mode))
            return convert.encoded_to_message(encoded, request, model.id)

    @_answered
    async def Decode(self, request: pb.DecodeRequest, context: Context) -> pb.DecodeResponse:
        with self._observer.call(_DECODE, context) as call:
            model = self._engine.model(request.model)
            call.of(f"{model.name}.receiver")
            given = convert.decode_arguments(request)
            call.read()
            decoded = await model.decode(*given, caller=caller_of(request, context))
            call.computed(len(decoded.decisions), decoded.timing)
            return convert.decode_response(decoded, request, model.id)

    @_answered
    async def Transmit(self, request: pb.TransmitRequest, context: Context) -> pb.TransmitResponse:
        return await self._transmit(request, caller_of(request, context), self._observer.call(_TRANSMIT, context))

    async def TransmitStream(self, requests: AsyncIterator[pb.TransmitStreamRequest], context: Context) -> None:
        with self._observer.stream() as stream:

            async def transmit(request: pb.TransmitRequest, caller: Caller) -> pb.TransmitResponse:
                return await self._transmit(request, caller, self._observer.call(_STREAM, context, stream))

            await TransmitStream(context, transmit, self._limits, self._closing).answer(requests)

    async def Sweep(self, request: pb.SweepRequest, context: Context) -> None:
        try:
            await self._sweep(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # every error must become a status; a traceback goes to the log
            await refuse(context, error, request)

    @_answered
    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        model = self._engine.model(request.model)
        reply = model_to_message(model.info)
        if request.include_sequence:
            reply.sequence = sequence_file(model.link.bundle)
        return reply

    @_answered
    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return list_to_message([model.info for model in self._engine.models])

    async def _sweep(self, request: pb.SweepRequest, context: Context) -> None:
        from serve.services.sweeping import sweep

        with self._observer.call(_SWEEP, context) as call:
            model = self._engine.model(request.model)
            operation = call.of(f"{model.name}.sweep")  # of its own: it takes minutes where others take milliseconds
            with operation.sweep():
                samples = await sweep(model, request, context, self._limits, operation)
            call.computed(samples, None)

    async def _transmit(self, request: pb.TransmitRequest, caller: Caller, seen: Call) -> pb.TransmitResponse:
        with seen as call:
            model = self._engine.model(request.model)
            operation = call.of(f"{model.name}.link")
            settings = convert.settings_from_message(request.settings)
            inputs = convert.inputs_from_message(request.inputs)
            call.read()
            result = await model.transmit(inputs, settings, caller, mode=convert.mode_from_message(request.mode))
            sent, used = result.sent, result.settings
            call.computed(len(sent.mode), result.timing)
            symbols = int(sent.num_symbols.sum()) + (result.header.header_symbols if result.header else 0)
            operation.sent(int(sent.num_bits.sum()), symbols, len(sent.mode), used.snr_db, used.channel)
            return convert.transmitted_to_message(result, request, model.id)


def sequence_file(bundle: Bundle) -> bytes:
    """The tables by which windows of a recording are decided together, as a bundle has them.

    Raises
    ------
    ArgumentError
        If it has none.
    BundleError
        If the file is another one by now.
    """
    spec = bundle.manifest.task.sequence
    if spec is None:
        raise ArgumentError("include_sequence", f"must be false: {bundle.manifest.name} decides each sample by itself")
    return bundle.read(spec)


def caller_of(request: Message, context: Context) -> Caller:
    """Who asks: until when the reply is wanted, and how large the request is."""
    left = context.time_remaining()
    return Caller(None if left is None else monotonic() + left, request.ByteSize())
