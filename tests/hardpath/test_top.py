"""`hardpath top`: what it makes of two looks at a server, and how it shows that."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import grpc
import pytest
import trustme

from hardpath import top_view
from hardpath.rates import rates, sparkline
from hardpath.top import watch_server
from link.errors import ServerError
from serve.config.schema import ServerConfig
from serve.pb.hardpath.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from serve.results import RadioState
from serve.security.tokens import new_token
from serve.server import Server as BundleServer
from serve.services.admin import AdminServicer
from serve.telemetry.statistics import InFlight, Statistics

MS = 1_000_000


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Server:
    """Statistics that a test moves on."""

    def __init__(self):
        self.statistics = Statistics(lambda: InFlight(2, 5000))
        self.statistics.loaded("digits", 3)
        self.statistics.operation("digits.link")
        self.uptime_s = 10.0
        self.trouble = None

    def ask(self):
        if self.trouble:
            raise ServerError(self.trouble)
        return self.statistics.snapshot().__class__(**{**vars(self.statistics.snapshot()), "uptime_s": self.uptime_s})

    def work(self, calls=10, seconds=2.0):
        link = self.statistics.operation("digits.link")
        for number in range(calls):
            link.succeeded(64, 2 * MS, 0, MS, 0, 4 * MS if number else 90 * MS)
            link.sent(960, 256, 64, 12.0, "awgn")
        link.executed(320, requests=5, wasted=1)
        link.executed(320, requests=5)
        for _ in range(4):
            link.failed("overload", MS)
        link.failed("expired", MS)
        link.failed("invalid", MS)
        self.uptime_s += seconds


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def clock():
    return Clock()


@contextmanager
def running(statistics, port=0):
    """A server of grpc.aio that answers for statistics."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start():
        served = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_AdminServiceServicer_to_server(AdminServicer(statistics.snapshot, None), served)
        taken = served.add_insecure_port(f"127.0.0.1:{port}")
        await served.start()
        return served, taken

    served, taken = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield taken
    finally:
        asyncio.run_coroutine_threadsafe(served.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_rates_are_what_came_between_two_looks_by_the_servers_clock(server):
    server.work(calls=99, seconds=5.0)
    before = server.ask()
    server.work(calls=10, seconds=2.0)
    (found,) = rates(server.ask(), before)
    assert (found.name, found.version) == ("digits.link", 3)
    assert (found.requests_s, found.rows_s, found.bits_s) == (5.0, 320.0, 4800.0)
    assert (found.rows_per_run, found.queue_ms, found.snr_db) == (320.0, 2.0, 12.0)
    assert (found.refused_s, found.failed_s, found.wasted) == (2.0, 1.0, 0.1)
    assert 2.5 <= found.p50_ms <= 4.0
    assert 63.0 <= found.p99_ms <= 100.0


def test_an_operation_that_did_nothing_has_no_figures_of_it_and_one_that_is_new_has_all(server):
    before = server.ask()
    server.uptime_s += 1.0
    (idle,) = rates(server.ask(), before)
    assert (idle.requests_s, idle.p50_ms, idle.wasted, idle.snr_db, idle.rows_per_run) == (0.0, None, None, None, None)
    server.statistics.operation("texts.link").executed(1)
    assert [found.name for found in rates(server.ask(), before)] == ["digits.link", "texts.link"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], ""), ([None, None], "  "), ([0.0, 0.0], "▁▁"), ([0.001, 1000.0], "▁█"), ([5.0], "█")],
)
def test_bars_are_relative_to_the_highest(values, expected):
    assert sparkline(values) == expected


def test_the_bars_are_of_the_last_minute(server, clock):
    watch = top_view.Watch("host:1", server.ask, clock)
    for second in range(200):
        clock.now += 1.0
        server.uptime_s += 1.0
        if second < 150:
            server.statistics.operation("digits.link").succeeded(1, 0, 0, 0, 0, MS)
        watch.look()
    bars = watch.bars("digits.link")
    assert len(bars) == 30
    assert bars[-25:] == "▁" * 25, "nothing in the last 50 s"
    assert bars[:4] == "████"
    assert watch.bars("other") == " " * 30


def test_a_server_that_goes_away_and_comes_back_is_shown_as_such(server, clock):
    watch = top_view.Watch("host:1", server.ask, clock)
    server.work()
    assert watch.look().rates
    server.trouble = "no server can be reached at host:1: connection\nrefused"
    clock.now += 75.0
    away = watch.look()
    assert top_view.title(away) == f"host:1 is away for 1:15: {server.trouble}".replace("\n", " ")
    assert top_view.as_json(away)["state"] == "away"
    server.trouble = None
    server.work()
    assert watch.look().rates, "it had only been out of reach"
    server.__init__()
    again = watch.look()
    assert "started anew" in top_view.title(again)
    assert again.rates == ()
    assert not watch.bars("digits.link").strip(), "what was before is of another server"
    server.work()
    assert watch.look().rates[0].requests_s == 5.0


def test_a_server_that_does_not_answer_at_first_is_an_error_at_once(server):
    server.trouble = "no server can be reached at host:1"
    with pytest.raises(ServerError, match="no server"):
        watch_server("host:1", server.ask, 0.1, once=False, as_json=False)


def interrupted_after(server, looks):
    """Asks a server that works, until the user has seen enough."""
    left = iter(range(looks))

    def ask():
        if next(left, None) is None:
            raise KeyboardInterrupt
        server.work()
        return server.ask()

    return ask


def shown(monkeypatch, server, stdout, looks=4, columns=200):
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("hardpath.top.time.sleep", lambda seconds: None)
    with pytest.raises(KeyboardInterrupt):
        watch_server("host:1", interrupted_after(server, looks), 1.0, once=False, as_json=False)
    return stdout.getvalue()


def test_a_terminal_gets_a_table(monkeypatch, server):
    text = shown(monkeypatch, server, Terminal())
    for part in (
        "streams",
        "sweeps",
        "host:1, up 18 s",
        "req/s, last minute",
        "digits.link",
        "4,800",
        "12.0",
        "█",
        "digits version 3",
        "2 in flight",
    ):
        assert part in text, part


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
def test_a_narrow_terminal_gets_fewer_columns_and_no_figure_is_cut(monkeypatch, server, columns):
    text = shown(monkeypatch, server, Terminal(), columns=columns)
    assert "…" not in text
    assert ("p99 ms" in text, "req/s" in text) == (True, True)
    assert ("last minute" in text) == (columns == 200)


def test_lines_are_written_where_there_is_no_terminal(monkeypatch, server):
    lines = shown(monkeypatch, server, io.StringIO()).splitlines()
    assert len(lines) == 3
    assert "digits.link: req/s 5, rows/s 320, rows/run 320, waiting 0, queue ms 2," in lines[-1]
    assert "\x1b" not in lines[-1]


def test_streams_and_sweeps_are_shown_of_their_operation_and_in_all(server, clock):
    watch = top_view.Watch("host:1", server.ask, clock)
    link = server.statistics.operation("digits.link")
    server.statistics.loaded("digits", 4)
    server.work()
    with link.stream(), link.stream(), link.stream(), link.sweep():
        view = watch.look()
    assert top_view.lines(view)[0].endswith("Es/N0 dB 12.0, streams 3, sweeps 1")
    (operation,) = top_view.as_json(view)["operations"]
    assert (operation["streams"], operation["sweeps"]) == (3, 1)
    assert "3 streams, 1 sweep;" in f"{top_view.caption(view.snapshot)};"
    assert "digits version 4, 1 swap;" in top_view.caption(view.snapshot)


def test_a_radio_has_a_line_of_its_own_where_there_is_one(server, clock):
    watch = top_view.Watch("host:1", server.ask, clock)
    server.work()
    view = watch.look()
    assert "radio" not in "".join((*top_view.lines(view), top_view.caption(view.snapshot)))
    assert top_view.as_json(view)["radio"] is None
    for up, state in ((True, "there"), (False, "gone")):
        counted = RadioState("zmq", up, 12, 1, 1200, 3, 4, 2)
        server.statistics.radio = lambda counted=counted: counted
        server.work()
        view = watch.look()
        line = f"radio (zmq) {state}: 12 exchanges, 1,200 frames, 3 lost, 4 not whole; 1 error; 2 waiting"
        assert top_view.lines(view)[-1].partition(" ")[2] == line
        assert top_view.caption(view.snapshot).splitlines()[1:] == [line]
        assert top_view.as_json(view)["radio"] == counted._asdict()


def test_names_cannot_move_the_cursor(server, clock):
    server.statistics.loaded("\x1b[2J", 1)
    server.statistics.operation("\x1b[2J.link")
    watch = top_view.Watch("host:1", server.ask, clock)
    server.work()
    view = watch.look()
    assert all(line.isprintable() for line in (*top_view.lines(view), top_view.caption(view.snapshot)))


def test_json_once_is_one_object(hardpath, server):
    server.work()
    with running(server.statistics) as port:
        answer = hardpath("top", f"127.0.0.1:{port}", "--once", "--json", "--interval", "0.1")
    assert answer.code == 0, answer
    assert answer.json["state"] == "answering"
    assert answer.json["models"] == [{"name": "digits", "version": 3, "swaps": 0, "refusals": 0}]
    (operation,) = answer.json["operations"]
    assert (operation["name"], operation["requests_s"], operation["p99_ms"]) == ("digits.link", 0.0, None)


def test_once_is_a_table_and_what_is_in_flight(hardpath, server):
    with running(server.statistics) as port:
        answer = hardpath("top", f"127.0.0.1:{port}", "--once", "--interval", "0.1")
    assert answer.code == 0, answer
    assert "digits.link" in answer.out
    assert "2 in flight, 5,000 bytes" in answer.out


@pytest.mark.parametrize("address", ["127.0.0.1:1,127.0.0.1:2", "dns:///localhost:1"])
def test_the_figures_of_several_servers_are_not_mixed(hardpath, address):
    assert hardpath("top", address).refused(2).startswith("HOST:PORT must be of one server")


def test_a_server_with_tls_and_tokens_is_watched_with_the_options_of_call(hardpath, bundle, tmp_path, monkeypatch):
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    own = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    own.private_key_pem.write_to_path(tmp_path / "tls.key")
    token, line = new_token("operator", ["admin"])
    (tmp_path / "tokens.toml").write_text(f"{line}\n")
    (tmp_path / "token").write_text(f"{token}\n")
    config = ServerConfig(
        bundles=(bundle,),
        listen={"port": 0},
        tls={"certificate": tmp_path / "tls.crt", "key": tmp_path / "tls.key"},
        auth={"tokens": tmp_path / "tokens.toml"},
    )
    with BundleServer(config=config) as running:
        looked = ("top", running.address, "--once", "--interval", "0.1", "--json")
        found = hardpath(*looked, "--ca", tmp_path / "ca.pem", "--token-file", tmp_path / "token")
        assert found.json["state"] == "answering"
        monkeypatch.setenv("HARDPATH_TOKEN", token)
        assert hardpath(*looked, "--ca", tmp_path / "ca.pem").code == 0
        monkeypatch.setenv("HARDPATH_TOKEN", "unknown")
        assert "UNAUTHENTICATED" in hardpath(*looked, "--ca", tmp_path / "ca.pem").refused(5)
        monkeypatch.delenv("HARDPATH_TOKEN")
        assert "it may speak TLS" in hardpath(*looked).refused(5)


def test_nobody_at_the_address_is_one_line(hardpath):
    assert hardpath("top", "127.0.0.1:1").refused(5).startswith("no server can be reached at 127.0.0.1:1")


def test_ctrl_c_ends_it_cleanly_and_a_new_server_at_the_address_is_seen(server):
    with running(server.statistics) as port:
        top = subprocess.Popen(
            [sys.executable, "-m", "hardpath", "top", f"127.0.0.1:{port}", "--interval", "0.1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )  # fmt: skip
        states = (json.loads(line)["state"] for line in top.stdout)
        assert next(states) == "answering"
    with top:
        assert "away" in states
        with running(Statistics(), port):
            assert "restarted" in states
            assert "answering" in states
            top.send_signal(signal.SIGINT)
            _, errors = top.communicate(timeout=20)
    assert (top.returncode, errors) == (0, "")
