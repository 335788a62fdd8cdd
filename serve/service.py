"""hardpath.v1.LinkService: messages in, engine, messages out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from serve import convert
from serve.engine import Engine
from serve.model import model_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc
from serve.status import status_of

NAME = pb.DESCRIPTOR.services_by_name["LinkService"].full_name

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
_Method = Callable[["LinkService", Request, grpc.ServicerContext], Response]


def _answered(method: _Method[Request, Response]) -> _Method[Request, Response]:
    """Answer whatever `method` raises with the status that the table has for it."""

    @wraps(method)
    def answer(service: LinkService, request: Request, context: grpc.ServicerContext) -> Response:
        try:
            return method(service, request, context)
        except Exception as error:  # every error must become a status; a traceback goes to the log
            status = status_of(error, request)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status returned")

    return answer


class LinkService(link_pb2_grpc.LinkServiceServicer):
    """The servicer.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @_answered
    def Encode(self, request: pb.EncodeRequest, context: grpc.ServicerContext) -> pb.EncodeResponse:
        snr_db = request.snr_db if request.HasField("snr_db") else None
        arrays, cut, _ = self._engine.read(convert.inputs_from_message(request.inputs))
        sent = self._engine.encode(arrays, snr_db)
        return pb.EncodeResponse(
            sent=convert.sent_to_message(sent, request.tensor_format, include_symbols=True),
            truncated=() if cut is None else cut.tolist(),
        )

    @_answered
    def Decode(self, request: pb.DecodeRequest, context: grpc.ServicerContext) -> pb.DecodeResponse:
        decoded = self._engine.decode(*convert.decode_arguments(request))
        return pb.DecodeResponse(
            decoded=convert.decoded_to_message(decoded, request.tensor_format, request.include_llr)
        )

    @_answered
    def Transmit(self, request: pb.TransmitRequest, context: grpc.ServicerContext) -> pb.TransmitResponse:
        settings = convert.settings_from_message(request.settings)
        result = self._engine.transmit(convert.inputs_from_message(request.inputs), settings)
        return convert.transmitted_to_message(result, request)

    @_answered
    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        return model_to_message(self._engine.model())
