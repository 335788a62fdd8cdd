"""Whether the benchmark measures in turn, tells what it missed, and runs to its end; never how fast anything is."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, memory, physical, report
from benchmarks.timing import Ratio, Rounds, Stopwatch, Subject
from link.modem import ErrorCounts, Modem

ROOT = Path(__file__).parents[2]


def test_subjects_run_in_turn_and_every_measurement_is_kept(tmp_path):
    ran = []
    watch = Stopwatch(rounds=3, least_s=0.0)
    subjects = [Subject(name, "as it is", lambda name=name: ran.append(name), units=4) for name in "ab"]
    rounds = watch.interleave("case", subjects)
    # Twice each, to load what they need and to count calls; then round by round.
    assert ran == [*"aabb", *"ab" * 3]
    assert {name: len(found) for name, found in rounds.ns.items()} == {"a": 3, "b": 3}
    watch.write(tmp_path / "timings.csv")
    with (tmp_path / "timings.csv").open(newline="") as stream:
        kept = list(csv.DictReader(stream))
    assert [(row["subject"], row["round"]) for row in kept] == [(name, str(n)) for n in range(3) for name in "ab"]
    assert [float(row["ns_per_unit"]) for row in kept[::2]] == [
        pytest.approx(found, rel=1e-4) for found in rounds.ns["a"]
    ]


def test_a_ratio_is_of_times_of_one_round():
    rounds = Rounds({"slow": [10.0, 40.0, 30.0, 8.0, 30.0], "fast": [1.0, 2.0, 10.0, 4.0, 1.0]})
    # 10, 20, 3, 2 and 30: their median and quartiles.
    assert rounds.ratio("slow", "fast") == Ratio(median=10.0, low=3.0, high=20.0)
    assert rounds.median("slow") == 30.0


def test_the_fastest_candidate_is_found_by_its_best_time(monkeypatch):
    watch = Stopwatch(rounds=1, least_s=0.0)
    times = iter([3.0, 2.0, 1.0, 9.0, 5.0, 4.0])
    monkeypatch.setattr(watch, "_measure", lambda *_: next(times))
    first, second = (Subject(name, "", lambda: None, 1) for name in "ab")
    assert watch.fastest("case", [first, second]).name == "a"


def test_a_device_is_measured_beside_its_peer_and_none_is_said():
    watch = Stopwatch(rounds=2, least_s=0.0)
    times = gpu.measure(watch, 64, 20.0, (256, 512), 4096, "torch", "a processor")
    assert times.ratio.low <= times.ratio.median <= times.ratio.high
    assert {timing.subject for timing in watch.timings} == {"sionna", "hardpath"}
    assert "| 64 | batch" in report._gpu([times])[-1]
    assert "nothing of it was measured" in report._gpu([])[-1]


def test_a_missed_target_is_told_beside_its_ratio():
    ratio = Ratio(9.0, 8.0, 11.0)
    assert report._judged(ratio, 10.0) == "9 (8 to 11) **below 10**"
    assert report._judged(ratio, 9.0) == report._judged(ratio, None) == "9 (8 to 11)"


def test_a_kernel_that_is_wrong_is_not_timed(monkeypatch):
    physical.check_kernel(16, 14.0, frames=20)
    count = Modem.count
    monkeypatch.setattr(Modem, "count", lambda *given: ErrorCounts(*(2 * found for found in count(*given))))
    with pytest.raises(AssertionError, match="the kernel's error rate is"):
        physical.check_kernel(16, 14.0, frames=20)


def test_memory_holds_the_llrs_at_least():
    symbols = 2**18
    llrs = 4 * 10 * symbols
    assert memory.measure("hardpath", 1024, symbols).bytes >= 0.9 * llrs


@pytest.mark.slow
def test_the_quick_benchmark_writes_table_figures_and_every_timing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.link",
        "--quick",
        "--out",
        tmp_path / "out",
        "--cache",
        tmp_path / "cache",
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("link.json", "link.md", "timings.csv"),
        *("growth.svg", "growth.png", "ratios.svg", "ratios.png"),
    }
    found = json.loads((tmp_path / "out" / "link.json").read_text())
    assert [chain["order"] for chain in found["chains"]] == [4, 16]
    for chain in found["chains"]:
        assert {"median", "low", "high"} == chain["kernel"].keys() == chain["arrays"].keys()
        assert chain["llr_gap"] < 1e-5
    assert [scaling["workers"] for scaling in found["workers"]] == [1, 2]
    assert [growth["subject"] for growth in found["memory"]] == ["hardpath", "sionna"]
    assert [sweep["threads"] for sweep in found["sweeps"]] == [1, 2]
    assert {curve["along"] for curve in found["growth"]} == {"symbols", "order", "points"}
    assert found["machine"]["processor"]
    page = (tmp_path / "out" / "link.md").read_text()
    assert page in ended.stdout
    for heading in ("Bits over AWGN", "Workers", "Memory", "Semantic sweep", "Random numbers alone", "Growth"):
        assert f"\n## {heading}" in page
    with (tmp_path / "out" / "timings.csv").open(newline="") as stream:
        kept = list(csv.DictReader(stream))
    assert {"16-QAM", "workers, 64-QAM", "normals", "semantic sweep, 1 thread"} <= {row["case"] for row in kept}
    assert all(float(row["seconds"]) > 0.0 for row in kept)
