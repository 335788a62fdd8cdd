"""Spans of calls: their tree, their times, whose trace they are in."""

import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from itertools import pairwise

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from link.errors import ArgumentError
from serve.config.schema import ServerConfig, TraceConfig
from serve.telemetry.assembly import Telemetry
from serve.telemetry.statistics import InFlight
from serve.telemetry.traces import EXPORT_S, Stage, Traces

METHOD = "hardpath.v1.LinkService/Transmit"
STAGES = tuple(
    Stage(name, 1000 * us) for name, us in (("queue", 40), ("transmitter", 30), ("channel", 20), ("receiver", 10))
)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def finished(*calls, ratio=1.0):
    """The spans of some calls, in the order in which they ended."""
    exporter = InMemorySpanExporter()
    traces = Traces("", ratio=ratio, exporter=exporter)
    for call in calls:
        call(traces)
    traces.close()
    return exporter.get_finished_spans()


def ended(code="OK", start_ns=None, stages=STAGES, **options):
    return lambda traces: traces.ended(METHOD, code, start_ns or time.perf_counter_ns(), stages, **options)


def test_a_call_is_a_span_with_its_stages_below_it_one_after_the_other():
    before = time.time_ns()
    start = time.perf_counter_ns()
    *children, call = finished(ended(start_ns=start, attributes={"model": "digits.link", "rows": 64}))
    assert [child.name for child in children] == ["queue", "transmitter", "channel", "receiver"]
    assert {child.parent.span_id for child in children} == {call.context.span_id}
    assert (call.name, call.kind, call.parent) == (METHOD, SpanKind.SERVER, None)
    assert children[0].start_time == call.start_time
    assert [child.end_time - child.start_time for child in children] == [stage.duration_ns for stage in STAGES]
    assert all(one.end_time == other.start_time for one, other in pairwise(children))
    assert abs(call.start_time - before) < 1e9, "the clock of spans is that of the wall"
    assert call.end_time >= call.start_time
    assert call.attributes["hardpath.rows"] == 64
    assert call.attributes["rpc.method"] == "Transmit"
    assert call.attributes["rpc.service"] == "hardpath.v1.LinkService"
    assert call.attributes["rpc.grpc.status_code"] == "OK"
    assert call.resource.attributes["service.name"] == "hardpath"


def test_a_span_is_as_long_as_its_call():
    held_ns = 20_000_000
    (call,) = finished(ended(start_ns=time.perf_counter_ns() - held_ns, stages=()))
    assert held_ns <= call.end_time - call.start_time


def test_a_caller_finds_the_call_in_its_own_trace():
    metadata = (("user-agent", "x"), ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=7"))
    spans = finished(ended(metadata=metadata), ratio=0.0)
    assert len(spans) == 5, "it was sampled there, so it is here"
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert f"{spans[-1].parent.span_id:016x}" == PARENT
    assert spans[-1].context.trace_state["vendor"] == "7"


def test_a_caller_that_does_not_sample_is_not_sampled():
    assert finished(ended(metadata=(("traceparent", f"00-{TRACE}-{PARENT}-00"),))) == ()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        "\x00",
        "-" * 9000,
        b"00",
    ],
)
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(value):
    *_, call = finished(ended(metadata=(("traceparent", value), ("tracestate", value))))
    assert call.parent is None
    assert f"{call.context.trace_id:032x}" != TRACE


@pytest.mark.parametrize(("ratio", "traced"), [(0.0, 0), (1.0, 20)])
def test_of_other_calls_a_share_is_traced(ratio, traced):
    assert len(finished(*[ended(stages=())] * 20, ratio=ratio)) == traced


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_none_and_all(ratio):
    with pytest.raises(ArgumentError, match=r"ratio must be in \[0, 1\]"):
        Traces("", ratio=ratio, exporter=InMemorySpanExporter())


@pytest.mark.parametrize(
    ("code", "expected"),
    [("OK", StatusCode.UNSET), ("INVALID_ARGUMENT", StatusCode.UNSET), ("INTERNAL", StatusCode.ERROR)],
)
def test_only_a_fault_of_the_server_is_an_error(code, expected):
    *_, call = finished(ended(code))
    assert call.status.status_code is expected


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the names of the spans that it is sent."""

    def __init__(self):
        self.names = []

    def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting(collector):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_spans_reach_a_collector_over_grpc_before_the_end():
    collector = Collector()
    with collecting(collector) as endpoint:
        traces = Traces(endpoint, ratio=1.0)
        ended()(traces)
        traces.close()
    assert collector.names == ["queue", "transmitter", "channel", "receiver", METHOD]


@pytest.mark.parametrize(("ratio", "spans"), [(0.0, 0), (1.0, 100)])
def test_the_share_is_that_of_the_configuration(ratio, spans):
    collector = Collector()
    with collecting(collector) as endpoint:
        config = ServerConfig(trace=TraceConfig(otlp_endpoint=endpoint, sample_ratio=ratio))
        telemetry = Telemetry(config, lambda: InFlight(0, 0))
        for _ in range(100):
            ended(stages=())(telemetry.observer.traces)
        telemetry.close()
    assert len(collector.names) == spans


def test_a_collector_that_is_away_holds_neither_calls_nor_the_end():
    traces = Traces("http://127.0.0.1:1", ratio=1.0)
    for _ in range(3000):  # more than may wait to be sent
        ended(stages=())(traces)
    closing = threading.Thread(target=traces.close)
    closing.start()
    closing.join(timeout=10 * EXPORT_S)
    assert not closing.is_alive()


def test_nothing_is_imported_until_traces_are_asked_for_and_what_is_missing_is_named():
    program = (
        "import sys, serve.telemetry.traces\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)\n"
        "sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from link.errors import MissingExtra\n"
        "try:\n    serve.telemetry.traces.Traces('http://127.0.0.1:1')\nexcept MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == ("opentelemetry is not installed; install it with: pip install 'hardpath[otel]'"), (
        done.stderr
    )
