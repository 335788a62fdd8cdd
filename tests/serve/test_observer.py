"""A call is seen once, whatever ends it."""

import asyncio
import contextlib
import logging

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from link.errors import ArgumentError, BundleError
from serve.engine.errors import Expired, ModelNotFound, Overloaded, ShuttingDown
from serve.results import Timing
from serve.telemetry.logs import AccessLog
from serve.telemetry.observer import REASONS, Observer
from serve.telemetry.snapshot import Failures
from serve.telemetry.statistics import Statistics
from serve.telemetry.traces import Traces

METHOD = "hardpath.v1.LinkService/Transmit"
TIMING = Timing(transmitter_us=30.0, channel_us=20.0, receiver_us=10.0, queue_us=40.0)


class Context:
    """What a servicer knows of its call."""

    def __init__(self, left=None, metadata=()):
        self.left = left
        self.metadata = metadata

    def time_remaining(self):
        return self.left

    def invocation_metadata(self):
        return self.metadata

    def peer(self):
        return "ipv4:10.0.0.1:5000"


@pytest.fixture
def observer():
    return Observer(Statistics())


def ended(observer, error=None, operation="digits.link", context=None):
    """A call that ends, with an error or without."""
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected, observer.call(METHOD, context or Context()) as call:
        if operation:
            call.of(operation)
        call.read()
        if error is not None:
            raise error
        call.computed(64, TIMING)
    return observer.statistics.snapshot()


def test_a_call_that_ends_well_is_counted_with_all_of_its_time(observer):
    (link,) = ended(observer).operations
    assert (link.successes, link.rows, sum(link.failures)) == (1, 64, 0)
    assert link.queue_ns == 40_000
    parts = link.queue_ns + link.input_ns + link.infer_ns + link.output_ns
    assert link.durations_ns.total <= parts <= link.durations_ns.total + link.queue_ns, "here nothing waited in truth"


@pytest.mark.parametrize(
    ("error", "left", "reason"),
    [
        (ArgumentError("snr_db", "is missing"), None, "invalid"),
        (BundleError("no"), None, "invalid"),
        (Overloaded("full", 0.1), None, "overload"),
        (ShuttingDown("bye"), None, "overload"),
        (Expired("late"), None, "expired"),
        (asyncio.CancelledError(), None, "cancelled"),
        (asyncio.CancelledError(), 0.5, "cancelled"),
        (asyncio.CancelledError(), -0.1, "expired"),
        (ZeroDivisionError("oops"), None, "internal"),
        (grpc.aio.AbortError(), None, "internal"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_failure_is_counted_once_by_what_it_was(observer, error, left, reason):
    found = ended(observer, error, context=Context(left))
    (link,) = found.operations
    assert link.failures == Failures(**{reason: 1})
    assert (link.successes, sum(found.failures)) == (0, 0)
    assert link.failed_durations_ns.count == 1


def test_an_aborted_call_is_counted_by_what_it_was_aborted_for(observer):
    aborted = grpc.aio.AbortError()
    aborted.__context__ = Overloaded("full", 0.1)
    (link,) = ended(observer, aborted).operations
    assert link.failures == Failures(overload=1)


def test_a_failure_before_there_is_an_operation_is_the_servers_and_makes_no_operation(observer):
    found = ended(observer, ModelNotFound("cats", ["digits"]), operation=None)
    assert found.operations == ()
    assert found.failures == Failures(invalid=1)
    observer.refused(METHOD, grpc.StatusCode.UNAUTHENTICATED, Context())
    assert observer.statistics.snapshot().failures == Failures(invalid=1, denied=1)


def test_a_call_that_runs_nothing_is_not_counted_as_one_that_does(observer):
    with observer.call("hardpath.v1.LinkService/GetModel", Context()):
        pass
    assert observer.statistics.snapshot().operations == ()


def test_every_status_that_is_not_listed_is_a_fault_of_the_server():
    left = set(grpc.StatusCode) - set(REASONS) - {grpc.StatusCode.OK}
    assert {code.name for code in left} == {"UNKNOWN", "INTERNAL", "DATA_LOSS", "ALREADY_EXISTS"}


def test_a_failure_is_logged_with_the_callers_name_for_it(caplog):
    observer = Observer(Statistics(), AccessLog(logging.getLogger("serve.access")))
    with caplog.at_level(logging.INFO):
        ended(observer)
        ended(observer, Overloaded("full", 0.1), context=Context(metadata=(("x-request-id", "abc"),)))
    (record,) = caplog.records
    assert (record.method, record.code, record.model) == (METHOD, "RESOURCE_EXHAUSTED", "digits.link")
    assert (record.request_id, record.peer) == ("abc", "ipv4:10.0.0.1:5000")


def test_a_call_is_traced_with_its_stages_in_the_callers_trace():
    exporter = InMemorySpanExporter()
    observer = Observer(Statistics(), traces=Traces("", exporter=exporter))
    traceparent = ("traceparent", f"00-{'4b' * 16}-{'7a' * 8}-01")
    ended(observer, context=Context(metadata=(traceparent,)))
    ended(observer, Overloaded("full", 0.1), context=Context(metadata=(traceparent,)))
    observer.traces.close()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans if span.name not in ("read", "write")] == [
        "queue", "transmitter", "channel", "receiver", METHOD, METHOD,
    ]  # fmt: skip
    assert {f"{span.context.trace_id:032x}" for span in spans} == {"4b" * 16}
    assert spans[-2].attributes["hardpath.model"] == "digits.link"
    assert spans[-1].attributes["rpc.grpc.status_code"] == "RESOURCE_EXHAUSTED"
