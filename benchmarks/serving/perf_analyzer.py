"""Streams by Triton's perf_analyzer, unmodified: a load in C++, so that the client is not what is measured."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.serving.contest import Contender, Measured, Table
from benchmarks.serving.environments import python, site_packages

WINDOW_MS: Final = 1000
"""It looks at windows of this length until three in a row agree."""
TOLERANCE_PERCENT: Final = 50
LONGEST_S: Final = 60.0
_THROUGHPUT: Final = re.compile(r"Throughput: ([\d.]+) infer/sec")
_PERCENTILE: Final = re.compile(r"p(50|99) latency: (\d+) usec")
_REQUESTS: Final = re.compile(r"Client:\s+Request count: (\d+)")


def contest(
    case: str,
    cache: Path,
    model: str,
    contenders: Sequence[Contender],
    samples: int,
    in_flight: int,
    rounds: int,
    *,
    streaming: bool = True,
) -> Table:
    """Each server under perf_analyzer once a round.

    Raises
    ------
    Absent
        If perf_analyzer is not installed.
    RuntimeError
        If it fails on a server.
    """
    interpreter = python(cache, "perf_analyzer")
    libraries = site_packages(interpreter) / "nvidia" / "cuda_runtime" / "lib"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    found: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            command = [
                str(interpreter.with_name("perf_analyzer")),
                *("-m", model, "-i", "grpc", "-u", contender.process.address),
                *("-b", str(samples), "--concurrency-range", str(in_flight)),
                *("--measurement-interval", str(WINDOW_MS), "-s", str(TOLERANCE_PERCENT), "--percentile", "50"),
                *(["--streaming"] if streaming else []),
            ]
            before = contender.process.cpu_s()
            ended = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST_S
            )
            spent = contender.process.cpu_s() - before
            if ended.returncode:
                raise RuntimeError(f"perf_analyzer on {contender.name}: {_reason(ended.stdout + ended.stderr)}")
            found[contender.name].append(read_report(ended.stdout, case, contender.name, number, samples, spent))
    return Table(found)


def read_report(report: str, row: str, contender: str, number: int, samples: int, cpu_s: float) -> Measured:
    """What perf_analyzer printed.

    Raises
    ------
    RuntimeError
        If it is not perf_analyzer's.
    """
    rate, counted = _THROUGHPUT.search(report), _REQUESTS.search(report)
    percentiles = {int(rank): float(us) / 1e3 for rank, us in _PERCENTILE.findall(report)}
    if rate is None or counted is None or not {50, 99} <= percentiles.keys():
        raise RuntimeError(f"perf_analyzer had no answer: {_reason(report)}")
    calls = int(counted[1])
    seconds = calls * samples / float(rate[1])
    return Measured(
        row, contender, number, calls, calls * samples, seconds, cpu_s, percentiles[50], percentiles[99], 1.0
    )


def _reason(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
