"""The endpoint: what a scraper reads, and what clients that mean no good can do."""

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
from email.message import Message
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from link.errors import ServerError
from serve.telemetry import metrics
from serve.telemetry.metrics import MetricsServer
from serve.telemetry.statistics import InFlight, Statistics


class Reply(NamedTuple):
    status: int
    body: str
    headers: Message


OPENMETRICS = "application/openmetrics-text; version=1.0.0"
STRANGE = 'di"gi\\ts\n.link'


@pytest.fixture(scope="module")
def statistics():
    counted = Statistics(lambda: InFlight(7, 700))
    counted.loaded("digits", 3)
    for name in ("digits.link", "digits.transmitter", STRANGE):
        operation = counted.operation(name)
        operation.succeeded(64, 1_000_000, 2_000_000, 30_000_000, 4_000_000, 40_000_000)
        operation.failed("expired", 20_000_000)
        operation.executed(64, requests=5, wasted=5)
        operation.executed(3)
        operation.sent(90, 23, 6, -4.0, "awgn")
        operation.waiting = lambda: 1
    counted.failed("denied")
    counted.lagged(2_000_000)
    return counted


@pytest.fixture(scope="module")
def serving():
    return threading.Event()


@pytest.fixture(scope="module")
def server(statistics, serving):
    serving.set()
    with MetricsServer(statistics.snapshot, serving.is_set, port=0, timeout_s=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def scraped(server):
    return ask(server, "/metrics").body


def ask(server, path, method="GET", **fields):
    with contextlib.closing(http.client.HTTPConnection(server.address, timeout=10)) as connection:
        connection.request(method, path, headers=fields)
        with connection.getresponse() as reply:
            return Reply(reply.status, reply.read().decode(), reply.headers)


def connect(server):
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def samples(text, parse=parse_text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


def test_counters_have_tritons_names_and_its_units(scraped):
    found = samples(scraped)
    labels = {"model": "digits.link", "version": "3"}
    for name, expected in {
        "nv_inference_request_success": 1,
        "nv_inference_count": 64,
        "nv_inference_exec_count": 2,
        "nv_inference_request_duration_us": 40_000,
        "nv_inference_queue_duration_us": 1_000,
        "nv_inference_compute_input_duration_us": 2_000,
        "nv_inference_compute_infer_duration_us": 30_000,
        "nv_inference_compute_output_duration_us": 4_000,
        "nv_inference_pending_request_count": 1,
        "hardpath_executed_rows_total": 67,
        "hardpath_wasted_executions_total": 1,
        "hardpath_executed_requests_total": 6,
        "hardpath_wasted_requests_total": 5,
        "hardpath_bits_total": 90,
        "hardpath_symbols_total": 23,
    }.items():
        assert value(found, name, **labels) == expected, name
    assert value(found, "nv_inference_request_failure", **labels, reason="REJECTED", cause="expired") == 1
    assert value(found, "nv_inference_request_failure", **labels, reason="BACKEND", cause="internal") == 0
    assert value(found, "hardpath_channel_samples_total", **labels, channel="awgn") == 6
    assert value(found, "hardpath_unrouted_failures_total", cause="denied") == 1
    assert value(found, "hardpath_in_flight_requests") == 7
    assert value(found, "hardpath_in_flight_bytes") == 700
    assert value(found, "hardpath_model_version", model="digits") == 3
    assert value(found, "process_resident_memory_bytes") > 2**20
    assert value(found, "process_open_fds") > 2
    assert value(found, "hardpath_threads") >= 2


def test_histograms_are_cumulative_and_end_with_their_count(scraped):
    found = samples(scraped)
    labels = {"model": "digits.link", "version": "3"}
    assert value(found, "hardpath_batch_rows_bucket", **labels, le="2.0") == 0
    assert value(found, "hardpath_batch_rows_bucket", **labels, le="4.0") == 1
    assert value(found, "hardpath_batch_rows_bucket", **labels, le="64.0") == 2
    assert value(found, "hardpath_batch_rows_sum", **labels) == 67
    assert value(found, "hardpath_snr_db_bucket", **labels, le="-6.0") == 0
    assert value(found, "hardpath_snr_db_bucket", **labels, le="-3.0") == 1
    duration = {**labels, "outcome": "success"}
    assert value(found, "hardpath_request_duration_seconds_bucket", **duration, le="0.025") == 0
    assert value(found, "hardpath_request_duration_seconds_bucket", **duration, le="0.04") == 1
    assert value(found, "hardpath_request_duration_seconds_bucket", **duration, le="+Inf") == 1
    assert value(found, "hardpath_request_duration_seconds_count", **duration) == 1
    assert value(found, "hardpath_request_duration_seconds_sum", **duration) == pytest.approx(0.04)


def test_both_formats_parse_and_say_the_same(server, scraped):
    reply = ask(server, "/metrics", Accept=OPENMETRICS)
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    moving = ("process_", "hardpath_uptime_seconds", "hardpath_threads")
    plain, strict = (
        {key: value for key, value in samples(text, parse).items() if not key[0].startswith(moving)}
        for text, parse in ((scraped, parse_text), (reply.body, parse_openmetrics))
    )
    assert plain == strict
    assert len(plain) > 100


def test_no_family_and_no_sample_comes_twice_and_each_has_its_help(scraped):
    lines = scraped.splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert families == [line.split()[2] for line in lines if line.startswith("# HELP")]
    numbers = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(numbers) == len(set(numbers))


def test_counters_end_in_total_but_for_those_that_have_tritons_names(scraped):
    for line in scraped.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert (kind == "counter") == name.endswith("_total"), line
            assert (kind == "untyped") == (name.startswith("nv_") and "pending" not in name), line


def test_labels_are_escaped(scraped):
    assert value(samples(scraped), "nv_inference_count", model=STRANGE, version="0") == 64
    assert scraped.isascii()


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/metrics?name[]=up", "/nothing"])
def test_head_answers_with_the_head_of_get(server, path):
    shown, head = ask(server, path), ask(server, path, "HEAD")
    assert (head.status, head.body) == (shown.status, "")
    assert head.headers["Content-Type"] == shown.headers["Content-Type"]
    assert int(head.headers["Content-Length"]) > 0


def test_healthz_says_whether_the_server_serves(server, serving):
    assert (ask(server, "/healthz").status, ask(server, "/healthz").body) == (200, "serving\n")
    serving.clear()
    try:
        assert ask(server, "/healthz").status == 503
        assert ask(server, "/metrics").status == 200, "a server that drains is still watched"
    finally:
        serving.set()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/", 404), ("GET", "/../etc/passwd", 404), ("POST", "/metrics", 405)],
)
def test_what_there_is_not_is_refused(server, method, path, status):
    assert ask(server, path, method).status == status


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=x; escaping=\xff\nSet-Cookie: a\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000,
    ],
    ids=["nothing", "HTTP/0.9", "TLS", "HTTP/2", "header", "long"],
)
def test_garbage_is_refused_or_dropped_and_does_no_harm(server, garbage, caplog):
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(garbage)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received == b"" or received.split(b" ")[1] in (b"400", b"200"), received[:80]
        assert b"Set-Cookie" not in received
    assert ask(server, "/healthz").status == 200
    assert not caplog.records


def test_a_client_that_says_nothing_and_one_that_reads_nothing_are_dropped(server):
    with connect(server) as silent, connect(server) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert silent.recv(1) == b"", "after 0.5 s"
        assert ask(server, "/healthz").status == 200
    for _ in range(100):
        if not server._open:
            break
        threading.Event().wait(0.05)
    assert not server._open


def test_a_crowd_of_silent_clients_is_bounded_and_passes(server):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(server)) for _ in range(metrics.CONNECTIONS + 20)]
        for client in crowd:
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
    assert ask(server, "/metrics").status == 200


def test_the_port_is_free_again_after_the_end_and_stopping_twice_is_stopping_once(statistics):
    server = MetricsServer(statistics.snapshot, lambda: True, port=0)
    server.start()
    with connect(server) as held:
        threads = threading.active_count()
        server.stop()
        server.stop()
        assert threading.active_count() == threads - 1
        with contextlib.suppress(ConnectionError):  # it need not have been accepted yet
            assert held.recv(1) == b""
    port = int(server.address.rpartition(":")[2])
    with MetricsServer(statistics.snapshot, lambda: True, port=port) as again:
        assert ask(again, "/healthz").status == 200


def test_a_port_in_use_is_one_clear_line(server, statistics):
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(ServerError, match=rf"cannot listen for metrics on 127.0.0.1:{port}: .*in use"):
        MetricsServer(statistics.snapshot, lambda: True, port=port)
    with pytest.raises(
        ServerError, match=rf": the metrics port {port} is in use; stop what holds it or choose another"
    ):
        MetricsServer(statistics.snapshot, lambda: True, port=port)


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("127.0.0.1", 70000, "the metrics port must be in [0, 65535]"),
        ("192.0.2.1", 0, "Cannot assign requested address"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_clear_line(statistics, host, port, line):
    with pytest.raises(ServerError) as error:
        MetricsServer(statistics.snapshot, lambda: True, host=host, port=port)
    assert str(error.value) == f"cannot listen for metrics on {host}:{port}: {line}"


def test_without_prometheus_client_the_extra_is_named():
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from link.errors import MissingExtra\nfrom serve.telemetry.metrics import MetricsServer\n"
        "try:\n    MetricsServer(lambda: None, lambda: True)\nexcept MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == (
        "prometheus_client is not installed; install it with: pip install 'hardpath[serve]'"
    ), done.stderr
