"""Whether the serving benchmark counts rightly and checks replies; never how fast anything is."""

import json
import sys

import grpc
import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.serving import (
    arrivals,
    batching,
    bundles,
    contest,
    environments,
    hardpath_server,
    oip,
    perf_analyzer,
    report,
    scrape,
)
from benchmarks.serving.arena import AIO, Arena
from benchmarks.serving.bundles import Size
from benchmarks.serving.contest import Contender, Contest, Measured, Table
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Answered, Call, read_report
from benchmarks.serving.process import Process, ask
from benchmarks.serving.subjects import Command, Graph, free_port
from benchmarks.timing import Ratio
from link.bundle import load_bundle
from link.chain import Link
from link.runtime import Transmitter
from serve.config.layers import load_config

H2LOAD = """\
starting benchmark...
Warm-up started for thread #0.
Main benchmark duration is started for thread #0.
finished in 2.50s, 1000.00 req/s, 130.27KB/s
requests: 2500 total, 2508 started, 2500 done, 2500 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2500 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 325.67KB (333486) total, 34.48KB (35308) headers (space savings 92.15%), 200.20KB (205000) data
                     min         max         mean         sd        +/- sd
time for request:      150us      3.10ms       300us       120us    88.10%
"""
LOG = [f"1700000000000000\t200\t{duration}" for duration in (100, 200, 300, 400, 5000)]

PERF_ANALYZER = """\
Request concurrency: 8
  Client:
    Request count: 3000
    Throughput: 64000 infer/sec
    p50 latency: 2128 usec
    p90 latency: 3375 usec
    p99 latency: 5540 usec
  Server:
    Inference count: 806720
"""


def measured(contender, rate, cpu_s=0.1, p50_ms=1.0, round=0):
    return Measured("row", contender, round, 100, 100, 100.0 / rate, cpu_s, p50_ms, 2.0, 1.0)


def test_h2load_is_read_to_the_byte():
    found = read_report(H2LOAD, LOG)
    assert found == Answered(
        2500, 2.5, 205000, 0, p50_ms=0.3, p99_ms=pytest.approx(np.percentile([0.1, 0.2, 0.3, 0.4, 5], 99))
    )


def test_calls_that_were_answered_with_a_status_alone_are_seen_by_their_missing_bytes():
    found = read_report(H2LOAD, LOG)
    # 205000 bytes are 2500 replies of 77 bytes and 5 of framing each, or 1250 twice as large.
    assert found.answered(77) == 1.0
    assert found.answered(159) == 0.5


@pytest.mark.parametrize("ending", ["us", "ms", "s"])
def test_the_units_of_h2load_are_seconds_in_the_end(ending):
    given = {"us": "2500000us", "ms": "2500.00ms", "s": "2.50s"}[ending]
    assert read_report(H2LOAD.replace("2.50s,", f"{given},"), LOG).seconds == 2.5


@pytest.mark.parametrize(("text", "log"), [("could not connect to host", LOG), (H2LOAD, ["17\t503\t100"])])
def test_a_load_without_an_answer_is_an_error_and_no_figure(text, log):
    with pytest.raises(RuntimeError, match="h2load had no answer"):
        read_report(text, log)


def test_perf_analyzer_counts_samples_and_calls():
    found = perf_analyzer.read_report(PERF_ANALYZER, "streams", "Triton", 0, samples=64, cpu_s=1.5)
    assert found.calls == 3000
    assert found.rate == pytest.approx(64000.0)
    assert found.cpu_us == pytest.approx(500.0)
    assert (found.p50_ms, found.p99_ms) == (2.128, 5.54)
    with pytest.raises(RuntimeError, match="perf_analyzer had no answer: error: refused"):
        perf_analyzer.read_report("error: refused", "streams", "Triton", 0, samples=64, cpu_s=1.5)


def test_ratios_are_of_one_round():
    ours = [measured("ours", rate, p50_ms=p50_ms) for rate, p50_ms in ((100, 1.0), (10, 10.0), (90, 3.0))]
    theirs = [measured("theirs", rate, p50_ms=p50_ms) for rate, p50_ms in ((50, 2.0), (5, 20.0), (30, 3.0))]
    table = Table({"ours": ours, "theirs": theirs})
    # Rates 2, 2 and 3 times theirs, though both vary tenfold; latencies 0.5, 0.5 and 1 times.
    assert table.rate("ours", "theirs") == Ratio(2.0, 2.0, 2.5)
    assert table.latency("ours", "theirs") == Ratio(0.5, 0.5, 0.75)
    assert [one.name for one in table.standings()] == ["ours", "theirs"]
    assert table.standings()[0].rate == pytest.approx(90.0)


def test_a_figure_is_judged_on_its_targets_side():
    value = Ratio(0.9, 0.8, 1.1)
    assert Figure("", "", value, at_least=0.9).reached is True
    assert Figure("", "", value, at_least=1.0).reached is False
    assert Figure("", "", value, at_most=1.0).reached is True
    assert Figure("", "", value, at_most=0.8).reached is False
    assert Figure("", "", value).reached is None


def test_the_page_tells_what_was_missed_and_what_was_not_measured():
    figures = [
        Figure("work", "ours over theirs", Ratio(0.5, 0.4, 0.6), at_least=0.8),
        Figure("work", "ready", Ratio(0.7, 0.7, 0.7), "s", at_most=1),
    ]
    row = Row(
        "unary",
        "One sample a call",
        "text",
        figures,
        {"small": Table({"ours": [measured("ours", 50.0)]}).standings()},
        ["Ray Serve: not installed."],
    )
    machine = {
        "processor": "p",
        "cores": 2,
        "system": "s",
        "python": "3",
        "packages": {},
        "commit": "",
        "load_at_start": 0.0,
    }
    found = report.Findings(machine, 5, 3.0, 60.0, {"Triton": "2.51"}, [row], [measured("ours", 50.0)])
    page = report.page(found)
    assert "| work | ours over theirs | 0.5 (0.4 to 0.6) | **missed**: at least 0.8 x |" in page
    assert "| work | ready | 0.7 s | at most 1 s |" in page
    assert "| ours | 50 | 1,000 | 1.00 | 2.00 |" in page
    assert "- Ray Serve: not installed." in page
    kept = json.loads(found.json())
    assert kept["rows"][0]["figures"][0]["value"] == {"median": 0.5, "low": 0.4, "high": 0.6}
    assert kept["measured"][0]["contender"] == "ours"


def test_contenders_are_under_load_in_turn_and_checked_before_and_after(monkeypatch, tmp_path):
    seen = []

    class Still:
        address = "nowhere"

        def cpu_s(self):
            return float(len(seen))

    def load(address, call, load, seconds, folder):
        seen.append(call.method)
        return Answered(100, seconds, 100 * (len(b"reply") + 5), 0, 1.0, 2.0)

    monkeypatch.setattr(contest, "h2load", load)
    monkeypatch.setattr(contest, "ask", lambda address, call: b"reply")
    checks = []
    both = [Contender(name, Still(), Call(name, b"", 4), checks.append) for name in "ab"]
    watch = Contest(tmp_path, rounds=3, seconds=2.0)
    table = watch.run("row", both, None)
    assert seen == [*"ab", *"ab" * 3]
    assert len(checks) == 4
    assert [one.samples for one in table.rounds["a"]] == [400] * 3
    assert [one.cpu_s for one in table.rounds["b"]] == [1.0] * 3
    assert len(watch.measured) == 6


def test_a_server_that_refuses_under_load_has_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(contest, "h2load", lambda *given: Answered(100, 1.0, 500, 0, 1.0, 2.0))
    monkeypatch.setattr(contest, "ask", lambda address, call: b"reply")

    class Still:
        address = "nowhere"

        def cpu_s(self):
            return 0.0

    with pytest.raises(RuntimeError, match=r"a answered 50.0% of the calls of row"):
        Contest(tmp_path, 1, 1.0).run("row", [Contender("a", Still(), Call("a", b""), lambda reply: None)], None)


def test_arrivals_come_at_their_rate_and_with_deadlines_in_their_range():
    schedule = arrivals.poisson(1000.0, 20.0, (0.02, 0.05))
    assert len(schedule.at_s) == 20_000
    # The sum of n exponential gaps has a standard deviation of sqrt(n) gaps: 5 of them.
    assert abs(schedule.at_s[-1] - 20.0) < 5 * 20_000**0.5 / 1000.0
    assert (np.diff(schedule.at_s) >= 0.0).all()
    assert 0.02 <= schedule.deadline_s.min() < schedule.deadline_s.max() <= 0.05


def test_a_request_and_its_reply_survive_the_wire():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    model, inputs, outputs = oip.asked(oip.request("small.transmitter", {"x": x}, ["symbols"]))
    assert (model, outputs) == ("small.transmitter", ["symbols"])
    np.testing.assert_array_equal(inputs["x"], x)
    np.testing.assert_array_equal(oip.outputs_of(oip.response("m", {"symbols": x}))["symbols"], x)


def test_a_peer_that_is_not_installed_is_told_in_one_line(tmp_path):
    with pytest.raises(environments.Absent, match=r"^not installed: python -m benchmarks.serving --setup-peers$"):
        environments.python(tmp_path, "triton")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    size = Size("tiny", (6, 8, 4), tokens=2)
    return size, bundles.made(size, tmp_path_factory.mktemp("bundles"))


def test_a_bundle_of_the_benchmark_is_a_real_one_and_is_made_once(tiny):
    size, folder = tiny
    x = size.rows(7)
    link = Link(load_bundle(folder))
    sent = link.transmitter({bundles.INPUT: x})
    assert sent.bits.shape == (7, 6)
    assert len(np.unique(sent.indices)) > 1
    y = link.receiver(sent.symbols, np.full(sent.symbols.shape[:2], 1e-3, np.float32), sent.mode)
    np.testing.assert_array_equal(y.indices_hat, sent.indices)
    before = (folder / "transmitter.onnx").stat().st_mtime_ns
    assert bundles.made(size, folder.parent) == folder
    assert (folder / "transmitter.onnx").stat().st_mtime_ns == before


def test_a_wrong_reply_is_refused(tiny):
    size, folder = tiny
    x = size.rows(2)
    symbols = Transmitter(load_bundle(folder))({bundles.INPUT: x}).symbols
    check = hardpath_server.check_infer(symbols)
    check(oip.response("tiny.transmitter", {"symbols": symbols}))
    with pytest.raises(AssertionError, match=r"symbols differ by 1\.0e-01"):
        check(oip.response("tiny.transmitter", {"symbols": symbols + np.float32(0.1)}))
    with pytest.raises(AssertionError, match="instead of"):
        check(oip.response("tiny.transmitter", {"symbols": symbols[:1]}))


def test_a_peer_answers_what_onnxruntime_does_and_gRPC_alone_the_same_bytes(tiny, tmp_path):
    size, folder = tiny
    graph = Graph.of(folder)
    x = size.rows(3)
    call = hardpath_server.infer(graph, x)
    (expected,) = ort.InferenceSession(str(graph.file)).run(["symbols"], {bundles.INPUT: x})
    plain = Command([sys.executable, "-m", "benchmarks.serving.peers.grpc_onnx", f"{graph.name}={graph.file}"])
    with Process(plain, call) as process:
        like = Contender("plain", process, call, hardpath_server.check_infer(expected))
        reply = ask(process.address, call)
        like.check(reply)
        assert process.cpu_s() > 0.0
        assert process.resident_mib() > 10.0
        with Arena(tmp_path, tmp_path) as arena:
            bare = arena.bare(AIO, like)
            assert ask(bare.process.address, bare.call) == reply
            bare.check(reply)
        assert not bare.process.alive
        with pytest.raises(grpc.RpcError):
            ask(bare.process.address, bare.call, timeout_s=1.0)


def test_a_server_that_does_not_start_says_why():
    with pytest.raises(RuntimeError, match="it ended before it listened: no such thing"):
        Process(Command([sys.executable, "-c", "import sys; sys.exit('no such thing')"]))


def test_batching_is_held_to_one_request_a_run_and_to_the_best_fixed_setting():
    rates = {batching.AUTO: (90.0, 95.0, 100.0), batching.ONE: (100.0, 100.0, 100.0), "64 rows": (100.0, 190.0, 100.0)}
    table = Table({name: [measured(name, rate) for rate in found] for name, found in rates.items()})
    # The two fixed settings have the same median; the first of them is taken.
    one, best = batching.figures("small, 8 in flight", table)
    assert (one.value.median, one.reached) == (pytest.approx(0.95), False)
    assert (best.figure, best.value.median) == (
        f"decides by itself over the best fixed: {batching.ONE}",
        pytest.approx(0.95),
    )
    rates["64 rows"] = (200.0, 190.0, 200.0)
    table = Table({name: [measured(name, rate) for rate in found] for name, found in rates.items()})
    assert batching.figures("", table)[1].value.median == pytest.approx(0.5)


def test_a_fixed_setting_reaches_the_server_as_its_environment():
    named = batching.Setting("8 rows", 8, 500).environment
    config = load_config(None, named, {})
    assert (config.batching.auto, config.batching.max_rows, config.batching.max_wait_us) == (False, 8, 500)
    assert batching.Setting(batching.AUTO).environment == {}


def test_a_metric_is_summed_over_its_labels_and_no_other_is_taken_for_it():
    text = (
        "# HELP nv_inference_exec_count Runs on a batch.\n"
        'nv_inference_exec_count{model="a.link",version="1"} 12\n'
        'nv_inference_exec_count{model="b.link",version="1"} 3.0\n'
        "nv_inference_exec_count_other 100\n"
    )
    assert scrape.total(text, "nv_inference_exec_count") == 15.0
    assert scrape.total(text, "hardpath_wasted_executions_total") == 0.0
    assert scrape.executions(free_port()) is None
