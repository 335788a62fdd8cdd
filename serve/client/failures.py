"""What a call can fail with, at the client: the inverse of the table in serve.messages.status.

HardpathError
├── ArgumentError              INVALID_ARGUMENT: names the argument as the caller knows it
│   └── ModelNotFound          NOT_FOUND
└── ServerError                any other status, and the root of these:
    ├── Unreachable            UNAVAILABLE: no server, or one that went away
    ├── DeadlineExceeded       not answered in time
    ├── Unavailable            UNAVAILABLE of a server that answers: what it needs, its radio, is not there; `retry_after_s`
    ├── Overloaded             RESOURCE_EXHAUSTED: more to do than can be done in time; `retry_after_s`
    ├── Unauthenticated        no token, or one that the server does not know
    ├── PermissionDenied       a token that does not allow the call
    ├── Internal               a defect of the server; `request_id` is what its log has it under
    └── UnreadableReply        an answer that this client cannot read
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from link.errors import ArgumentError, ServerError
from serve.pb.hardpath.v1 import link_pb2 as pb


class ModelNotFound(ArgumentError):
    """The server holds no model of that name."""


class Unreachable(ServerError):
    """No server answers there, or it went away during the call."""


class DeadlineExceeded(ServerError):
    """No answer within the time that the caller gave."""


class Overloaded(ServerError):
    """The server has more to do than it can do in time.

    Attributes
    ----------
    retry_after_s : float or None
        When to try again, in seconds, where the server says so.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(ServerError):
    """The server answers, but what it needs for this call is not there: its radio.

    Attributes
    ----------
    retry_after_s : float
        When to try again, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unauthenticated(ServerError):
    """No token, or one that the server does not know."""


class PermissionDenied(ServerError):
    """A token that does not allow the call."""


class Internal(ServerError):
    """A defect of the server.

    Attributes
    ----------
    request_id : str
        What the server's log has it under; empty where the server says none.
    """

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class UnreadableReply(ServerError):
    """An answer that this client cannot read."""


class Failed(Protocol):
    """What a call raises that failed, with threads and with asyncio alike."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...


class Failure(NamedTuple):
    """How one attempt failed.

    Attributes
    ----------
    code : grpc.StatusCode
    text : str
        What the server says, in one line.
    field : str
        Path of the argument that is wrong; empty where none is.
    retry_after_s : float or None
        When to try again, in seconds; None where the server does not say.
    request_id : str
        What the server's log has it under; empty where the server says none.
    """

    code: grpc.StatusCode
    text: str
    field: str = ""
    retry_after_s: float | None = None
    request_id: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed a moment later.

        CANCELLED, where the caller cancelled nothing, is a server that stopped before it answered. RESOURCE_EXHAUSTED
        without a time is a message that is too large, which no wait makes smaller.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_after_s is not None
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


BROKEN: Final = Failure(grpc.StatusCode.UNAVAILABLE, "the stream broke")
"""All that gRPC's asyncio tells of a stream that ended while a request was written: why it ended is lost."""

_WRITE_FAILED: Final = "Internal error from Core"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_TLS: Final = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (
            r"CERTIFICATE_VERIFY_FAILED: ([^:]+)",
            r"its certificate is not trusted, \1: the certificates of its authority are given as ca (--ca)",
        ),
        (r"WRONG_VERSION_NUMBER", r"what listens there speaks no TLS"),
        (
            r"Hostname Verification Check failed",
            r"its certificate is for another name than the address has, which is given as server_name (--server-name)",
        ),
        (
            r"failed to connect to all addresses.*: (?:Socket closed|.*Connection reset by peer)",
            r"what listens there closed the connection at once: it may speak TLS (--tls, --ca), or ask for a certificate of "
            r"the client (--certificate, --key)",
        ),
    )
)
_ROW: Final = re.compile(r"(inputs\.[^\[]*|symbols|no|bits|llr_in|mode|labels)\[(\d+)\]")


def reason(text: str) -> str:
    """Why there is no connection: what gRPC says, or in plain words what it says of TLS.

    Examples
    --------
    >>> reason("failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: Tls handshake failed "
    ...     "(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER")
    'what listens there speaks no TLS'
    """
    for pattern, meaning in _TLS:
        found = pattern.search(text)
        if found:
            return found.expand(meaning)
    return text


def failure_of_call(call: Failed) -> Failure:
    """How a call failed, by its status and the details that came with it."""
    found = Failure(call.code(), call.details() or "")
    if found.code is grpc.StatusCode.INTERNAL and found.text == _WRITE_FAILED:
        return BROKEN
    try:
        status = rpc_status.from_call(cast("grpc.Call", call))
    except (ValueError, DecodeError):  # details that contradict the status, or are none
        return found
    for detail in status.details if status else ():
        wrong, retry, request = (
            getattr(error_details_pb2, name)() for name in ("BadRequest", "RetryInfo", "RequestInfo")
        )
        if detail.Unpack(wrong) and wrong.field_violations:
            violation = wrong.field_violations[0]
            found = found._replace(field=violation.field, text=violation.description)
        elif detail.Unpack(retry):
            found = found._replace(retry_after_s=max(0.0, retry.retry_delay.ToNanoseconds() * 1e-9))
        elif detail.Unpack(request):
            found = found._replace(request_id=request.request_id)
    return found


def failure_of_message(message: pb.Failure) -> Failure:
    """How one request of a stream failed."""
    code = _CODES.get(message.code, grpc.StatusCode.UNKNOWN)
    text = message.message.removeprefix(message.field).strip() if message.field else message.message
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_after_s = 1e-3 * message.retry_after_ms if message.retry_after_ms > 0.0 or exhausted else None
    return Failure(code, text, message.field, retry_after_s, message.request_id)


def error_of(failure: Failure, address: str, timeout_s: float | None, first_row: int = 0) -> Exception:
    """What the caller is to be told of a failure.

    Parameters
    ----------
    failure : Failure
    address : str
        As the caller gave it.
    timeout_s : float or None
        Time that the whole call had.
    first_row : int
        Row of the caller's batch that the request began with: the server counts from there.
    """
    code, text, field, retry_after_s, request_id = failure
    field = _ROW.sub(lambda row: f"{row[1]}[{int(row[2]) + first_row}]", field.removeprefix("settings."))
    if code is grpc.StatusCode.INVALID_ARGUMENT and field:
        return ArgumentError(field, text)
    if code is grpc.StatusCode.NOT_FOUND:
        return ModelNotFound("model", text.removeprefix("model "))
    if code is grpc.StatusCode.UNAVAILABLE and retry_after_s is not None:
        return Unavailable(f"the server at {address} cannot do this now: {text}", retry_after_s)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Unreachable(f"no server can be reached at {address}: {reason(text)}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        within = "in time" if timeout_s is None else f"within {timeout_s:g} s"
        return DeadlineExceeded(f"the server at {address} did not answer {within}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None:
        return Overloaded(f"the server at {address} has more to do than it can do in time: {text}", retry_after_s)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(f"the server at {address} wants a token that it knows: {text}")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return PermissionDenied(f"the server at {address} does not allow this call: {text}")
    said = f"the server at {address} failed: {code.name}: {text}"
    return Internal(said, request_id) if code is grpc.StatusCode.INTERNAL else ServerError(said)
