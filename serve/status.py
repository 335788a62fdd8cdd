"""Exceptions to gRPC status, in one table, and back.

A caller learns what was wrong with the request: the field's path and the range. Of anything else it learns an id, under
which the log has the rest.
"""

from __future__ import annotations

import logging
from typing import Final
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from link.errors import ArgumentError, HardpathError, MissingExtra, ServerError

logger = logging.getLogger(__name__)

# The first that fits; what none fits is INTERNAL.
_CODES: Final = (
    (ArgumentError, grpc.StatusCode.INVALID_ARGUMENT),
    (MissingExtra, grpc.StatusCode.UNIMPLEMENTED),
    (ServerError, grpc.StatusCode.UNAVAILABLE),
    (HardpathError, grpc.StatusCode.FAILED_PRECONDITION),
)
_NESTED: Final = "settings"
# A status travels in HTTP/2 trailers, of which peers take 8 KiB in all; names and values come from the request.
_FIELD_LENGTH: Final = 128
_TEXT_LENGTH: Final = 512


def status_of(error: Exception, request: Message) -> status_pb2.Status:
    """The status that answers `request`, which `error` ended."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    if code is grpc.StatusCode.INTERNAL:
        return _internal(error, request)
    if not isinstance(error, ArgumentError):
        return _status(code, _ascii(str(error), _TEXT_LENGTH))
    field = _ascii(_path(error.field, request), _FIELD_LENGTH)
    text = _ascii(str(error).removeprefix(error.field).strip(), _TEXT_LENGTH)
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
    return _status(code, f"{field} {text}", error_details_pb2.BadRequest(field_violations=[violation]))


def argument_error(call: grpc.Call) -> ArgumentError | None:
    """The ArgumentError that `status_of` made a status of, if it did; with the name that the client's caller knows."""
    status = rpc_status.from_call(call)
    for detail in status.details if status else ():
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request) and bad_request.field_violations:
            violation = bad_request.field_violations[0]
            return ArgumentError(violation.field.removeprefix(f"{_NESTED}."), violation.description)
    return None


def _internal(error: Exception, request: Message) -> status_pb2.Status:
    request_id = uuid4().hex
    logger.error("%s failed, request %s", request.DESCRIPTOR.name, request_id, exc_info=error)
    detail = error_details_pb2.RequestInfo(request_id=request_id)
    return _status(grpc.StatusCode.INTERNAL, f"internal error; the server's log has it as request {request_id}", detail)


def _status(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _path(field: str, request: Message) -> str:
    """Path of an argument in its request: the domain says `snr_db`, TransmitRequest has it as `settings.snr_db`."""
    nested = request.DESCRIPTOR.fields_by_name.get(_NESTED)
    arguments = nested.message_type.fields_by_name if nested and nested.message_type else ()
    return f"{_NESTED}.{field}" if field in arguments else field


def _ascii(text: str, length: int) -> str:
    escaped = text.encode("ascii", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= length else f"{escaped[: length - 3]}..."
