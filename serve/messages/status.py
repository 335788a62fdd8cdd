"""Exceptions to gRPC status, in one table; serve.client.failures is the way back.

A caller learns what was wrong with the request: the field's path and the range; and where it may try again, when. Of
anything that is the server's fault it learns an id, under which the log has the rest.
"""

from __future__ import annotations

import logging
from typing import Any, Final, NoReturn
from uuid import uuid4

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from link.errors import (
    ArgumentError,
    DriverUnavailable,
    HardpathError,
    MissingExtra,
    OutOfMemory,
    RadioError,
    ServerError,
)
from serve.engine.errors import Expired, ModelNotFound, Overloaded, ShuttingDown
from serve.pb.hardpath.v1 import link_pb2 as pb

logger = logging.getLogger(__name__)

# The first that fits; what none fits is INTERNAL.
_CODES: Final = (
    (ArgumentError, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelNotFound, grpc.StatusCode.NOT_FOUND),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (OutOfMemory, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Expired, grpc.StatusCode.DEADLINE_EXCEEDED),
    (ShuttingDown, grpc.StatusCode.UNAVAILABLE),
    (MissingExtra, grpc.StatusCode.UNIMPLEMENTED),
    (ServerError, grpc.StatusCode.UNAVAILABLE),
    (DriverUnavailable, grpc.StatusCode.FAILED_PRECONDITION),
    (RadioError, grpc.StatusCode.UNAVAILABLE),
    (HardpathError, grpc.StatusCode.FAILED_PRECONDITION),
)
_RADIO_RETRY_S: Final = 1.0
"""A radio that is gone may be back so soon; whoever tries again opens it anew."""
_NESTED: Final = "settings"
_DETAILS: Final = "grpc-status-details-bin"
# A status travels in HTTP/2 trailers, of which peers take 8 KiB in all; names and values come from the request.
_FIELD_LENGTH: Final = 128
_TEXT_LENGTH: Final = 512


def code_of(error: BaseException) -> grpc.StatusCode:
    """What the table has for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def status_of(error: Exception, request: Message) -> status_pb2.Status:
    """The status that answers `request`, which `error` ended."""
    code = code_of(error)
    if code is grpc.StatusCode.INTERNAL:
        return _internal(error, request)
    if (retry_after_s := _retry_after_s(error)) is not None:
        delay = error_details_pb2.RetryInfo()
        delay.retry_delay.FromNanoseconds(int(1e9 * retry_after_s))
        return _status(code, _ascii(str(error), _TEXT_LENGTH), delay)
    if not isinstance(error, ArgumentError):
        return _status(code, _ascii(str(error), _TEXT_LENGTH))
    field = _ascii(_path(error.field, request), _FIELD_LENGTH)
    text = _ascii(str(error).removeprefix(error.field).strip(), _TEXT_LENGTH)
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
    return _status(code, f"{field} {text}", error_details_pb2.BadRequest(field_violations=[violation]))


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: Exception, request: Message) -> NoReturn:
    """End a call with the status that the table has for an error; raises what gRPC ends calls with."""
    status = status_of(error, request)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, ((_DETAILS, status.SerializeToString()),))
    raise AssertionError("abort raises")


def failure_of(error: Exception, request: Message) -> pb.Failure:
    """The same for one request of a stream."""
    status = status_of(error, request)
    failure = pb.Failure(code=status.code, message=status.message)
    for detail in status.details:
        violation, retry, info = (
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
            error_details_pb2.RequestInfo(),
        )
        if detail.Unpack(violation):
            failure.field = violation.field_violations[0].field
        elif detail.Unpack(retry):
            failure.retry_after_ms = retry.retry_delay.ToNanoseconds() / 1e6
        elif detail.Unpack(info):
            failure.request_id = info.request_id
    return failure


def _retry_after_s(error: Exception) -> float | None:
    """When the same request may succeed, in seconds; None where nobody can tell, or it never will."""
    if isinstance(error, Overloaded):
        return error.retry_after_s
    passes = isinstance(error, RadioError) and not isinstance(error, DriverUnavailable)
    return _RADIO_RETRY_S if passes else None


def _internal(error: Exception, request: Message) -> status_pb2.Status:
    request_id = uuid4().hex
    logger.error("%s failed, request %s", request.DESCRIPTOR.name, request_id, exc_info=error)
    detail = error_details_pb2.RequestInfo(request_id=request_id)
    return _status(grpc.StatusCode.INTERNAL, f"internal error; the server's log has it as request {request_id}", detail)


def _status(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _path(field: str, request: Message) -> str:
    """Path of an argument in its request: the domain says `snr_db`, TransmitRequest has it as `settings.snr_db`."""
    if field in request.DESCRIPTOR.fields_by_name:  # a sweep has its points beside its settings
        return field
    nested = request.DESCRIPTOR.fields_by_name.get(_NESTED)
    arguments = nested.message_type.fields_by_name if nested and nested.message_type else ()
    return f"{_NESTED}.{field}" if field in arguments else field


def _ascii(text: str, length: int) -> str:
    escaped = text.encode("ascii", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= length else f"{escaped[: length - 3]}..."
