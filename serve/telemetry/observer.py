"""A call as it is seen from outside: counted, logged and traced in one place, when it has ended.

    with observer.call("hardpath.v1.LinkService/Transmit", context) as call:
        model = engine.model(request.model)
        call.of(f"{model.name}.link")
        inputs = ...                                # read the request
        call.read()
        result = await model.transmit(inputs, ...)
        call.computed(rows, result.timing)
        return ...                                  # write the reply

Whatever ends the block otherwise is a failure: of the operation, or of none where there was none yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Final

import grpc

from serve.messages.status import code_of
from serve.results import Timing
from serve.telemetry.logs import AccessLog, Peer, request_id_of
from serve.telemetry.snapshot import Reason
from serve.telemetry.statistics import Operation, Statistics
from serve.telemetry.traces import Stage, Traces

REASONS: Final[dict[grpc.StatusCode, Reason]] = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid",
    grpc.StatusCode.NOT_FOUND: "invalid",
    grpc.StatusCode.OUT_OF_RANGE: "invalid",
    grpc.StatusCode.FAILED_PRECONDITION: "invalid",
    grpc.StatusCode.UNIMPLEMENTED: "invalid",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overload",
    grpc.StatusCode.UNAVAILABLE: "overload",
    grpc.StatusCode.DEADLINE_EXCEEDED: "expired",
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.ABORTED: "cancelled",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
}
"""What a status is counted as; any other is the server's own fault."""

Context = grpc.aio.ServicerContext[Any, Any]


class Observer:
    """What a server tells of its calls, and to whom.

    Parameters
    ----------
    statistics : Statistics
    access : AccessLog, optional
    traces : Traces, optional
        None where they are off.
    """

    def __init__(self, statistics: Statistics, access: AccessLog | None = None, traces: Traces | None = None) -> None:
        self.statistics = statistics
        self.access = access or AccessLog()
        self.traces = traces

    def call(self, method: str, context: Context, stream: OpenStream | None = None) -> Call:
        """A call of `method`, PACKAGE.SERVICE/METHOD as the server names it; for a `with` block around its answer.

        A request of a stream counts as a call, of that stream.
        """
        return Call(self, method, context, stream)

    @contextmanager
    def stream(self) -> Iterator[OpenStream]:
        """A stream is open while the block runs."""
        with ExitStack() as counted:
            yield OpenStream(counted)

    def refused(self, method: str, code: grpc.StatusCode, context: Context) -> None:
        """A call was refused before anything was read of it: by the door that asks for tokens, say."""
        self.statistics.failed(REASONS.get(code, "internal"))
        self.access.ended(method, code.name, 0, peer=lambda: _peer(context))


class OpenStream:
    """A stream that is open; it counts with the operation that it asks for first."""

    def __init__(self, counted: ExitStack) -> None:
        self._counted = counted
        self._known = False

    def of(self, operation: Operation) -> None:
        """An operation is asked for."""
        if not self._known:
            self._known = True
            self._counted.enter_context(operation.stream())


class Call:
    """One call, from receipt to reply."""

    __slots__ = (
        "_computed",
        "_context",
        "_method",
        "_observer",
        "_operation",
        "_read",
        "_rows",
        "_start",
        "_stream",
        "_timing",
    )

    def __init__(self, observer: Observer, method: str, context: Context, stream: OpenStream | None = None) -> None:
        self._observer = observer
        self._method = method
        self._context = context
        self._stream = stream
        self._operation: Operation | None = None
        self._timing: Timing | None = None
        self._rows = 0
        self._start = self._read = self._computed = perf_counter_ns()

    def of(self, operation: str) -> Operation:
        """The operation that is asked for, of a model that is there."""
        self._operation = self._observer.statistics.operation(operation)
        if self._stream is not None:
            self._stream.of(self._operation)
        return self._operation

    def read(self) -> None:
        """The request has been read, and is about to wait for its run."""
        self._read = perf_counter_ns()

    def computed(self, rows: int, timing: Timing | None) -> None:
        """Its run has ended, and the reply to `rows` samples, at least one, is about to be written."""
        self._computed = perf_counter_ns()
        self._rows = rows
        self._timing = timing

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = perf_counter_ns()
        code = grpc.StatusCode.OK if error is None else self._code(error)
        if code is grpc.StatusCode.OK:
            self._succeeded(end)
        elif self._operation is not None:
            self._operation.failed(REASONS.get(code, "internal"), end - self._start)
        else:
            self._observer.statistics.failed(REASONS.get(code, "internal"))
        model = "" if self._operation is None else self._operation.name
        self._observer.access.ended(
            self._method, code.name, end - self._start, model=model, peer=lambda: _peer(self._context)
        )
        if self._observer.traces is not None:
            attributes: dict[str, str | int | float] = {"model": model, "rows": self._rows}
            self._observer.traces.ended(
                self._method,
                code.name,
                self._start,
                self._stages(end),
                metadata=self._context.invocation_metadata(),
                attributes=attributes,
            )

    def _succeeded(self, end: int) -> None:
        if self._operation is None or not self._rows:
            return  # a call that runs no operation
        queue = 0 if self._timing is None else round(1e3 * self._timing.queue_us)
        self._operation.succeeded(
            self._rows,
            queue,
            self._read - self._start,
            max(0, self._computed - self._read - queue),
            end - self._computed,
            end - self._start,
        )

    def _code(self, error: BaseException) -> grpc.StatusCode:
        if isinstance(error, grpc.aio.AbortError) and error.__context__ is not None:
            error = error.__context__  # what it was aborted for
        if isinstance(error, asyncio.CancelledError):
            left = self._context.time_remaining()
            late = left is not None and left <= 0.0
            return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
        return code_of(error)

    def _stages(self, end: int) -> tuple[Stage, ...]:
        timing = self._timing
        if timing is None:
            return ()
        stages = (
            Stage("read", self._read - self._start),
            Stage("queue", round(1e3 * timing.queue_us)),
            Stage("transmitter", round(1e3 * timing.transmitter_us)),
            Stage("channel", round(1e3 * timing.channel_us)),
            Stage("receiver", round(1e3 * timing.receiver_us)),
            Stage("write", end - self._computed),
        )
        return tuple(stage for stage in stages if stage.duration_ns > 0)


def _peer(context: Context) -> Peer:
    return Peer(context.peer(), request_id_of(context.invocation_metadata()))
