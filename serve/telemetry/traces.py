"""Traces for OpenTelemetry: of a call one span, and under it one for each stage that it went through.

    hardpath.v1.LinkService/Transmit ──┬── queue
                                       ├── transmitter
                                       ├── channel
                                       └── receiver

A call is traced when it has ended, from the times that its reply tells anyway: while it runs nothing is done for it, and
where traces are off nothing at all, and nothing is imported. A caller that sends a W3C `traceparent` finds the call in its
own trace, and decides whether it is sampled; of the others a share is, since a span and its stages cost about 0.1 ms. Spans
are sent by a thread of their own; a collector that is away costs spans, never a call.

In a batch the stages are those of the whole batch, which each of its calls waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from link.errors import MissingExtra, require_range
from link.provenance import code_version
from serve.config.schema import SAMPLE_RATIO

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

NAME: Final = "hardpath"
EXPORT_S: Final = 2.0
"""That sending spans may take, and that what is left of them may take when the server stops."""

_TRACE_CONTEXT: Final = ("traceparent", "tracestate")
# Those that are the server's own fault: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Stage(NamedTuple):
    """A part of a call, which follows upon the one before."""

    name: str
    duration_ns: int


class Traces:
    """Sends spans to a collector.

    Parameters
    ----------
    endpoint : str
        Of a collector that speaks OTLP over gRPC: http://HOST:4317, or https:// with TLS.
    ratio : float, optional
        Share of calls without a `traceparent` that are traced, in [0, 1].
    exporter : SpanExporter, optional
        In place of the one for `endpoint`.

    Raises
    ------
    MissingExtra
        If OpenTelemetry is not installed.
    ArgumentError
        If the ratio is none.
    """

    def __init__(self, endpoint: str, *, ratio: float = SAMPLE_RATIO, exporter: SpanExporter | None = None) -> None:
        require_range("ratio", ratio, 0.0, 1.0)
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError:
            raise MissingExtra("opentelemetry", "otel") from None
        resource = Resource.create({"service.name": NAME, "service.version": code_version()})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(endpoint)))
        self._tracer = self._provider.get_tracer(NAME, code_version())
        self._propagator = TraceContextTextMapPropagator()

    def ended(
        self,
        method: str,
        code: str,
        start_ns: int,
        stages: Iterable[Stage] = (),
        *,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        attributes: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """A call has ended, now.

        Parameters
        ----------
        method : str
            PACKAGE.SERVICE/METHOD.
        code : str
            Name of its gRPC status: OK, INVALID_ARGUMENT, ...
        start_ns : int
            time.perf_counter_ns() at its receipt.
        stages : iterable of Stage
            One after the other, the first from `start_ns` on.
        metadata : iterable of (str, str or bytes), optional
            Of the call.
        attributes : mapping, optional
            `model`, `rows`, `snr_db`, `channel`: what the span says of the call, under `hardpath.`.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        now_ns = time.time_ns()
        begun_ns = now_ns - (time.perf_counter_ns() - start_ns)
        carrier = {name: value for name, value in metadata or () if name in _TRACE_CONTEXT and isinstance(value, str)}
        parent = self._propagator.extract(carrier) if carrier else None
        service, _, name = method.rpartition("/")
        span = self._tracer.start_span(
            method,
            context=parent,
            kind=SpanKind.SERVER,
            start_time=begun_ns,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "rpc.grpc.status_code": code,
                **{f"{NAME}.{key}": value for key, value in (attributes or {}).items()},
            },
        )
        if span.is_recording():
            within = set_span_in_context(span, parent)
            for stage in stages:
                child = self._tracer.start_span(stage.name, context=within, start_time=begun_ns)
                begun_ns += stage.duration_ns
                child.end(begun_ns)
            if code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR))
        span.end(now_ns)

    def close(self) -> None:
        """Send what is left; what cannot be sent within EXPORT_S is lost."""
        closing = threading.Thread(target=self._provider.shutdown, name="hardpath-traces", daemon=True)
        closing.start()
        closing.join(EXPORT_S)


def _exporter(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        raise MissingExtra("opentelemetry-exporter-otlp-proto-grpc", "otel") from None
    return OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
