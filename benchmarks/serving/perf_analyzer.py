"""Streams by Triton's perf_analyzer, unmodified: a load in C++, so that the client is not what is measured."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.serving.contest import Contender, Measured, Table
from benchmarks.serving.environments import python, site_packages
from benchmarks.serving.process import Process

WINDOW_MS: Final = 1000
"""It looks at windows of this length, and reports on the last of them."""
WINDOWS: Final = 3
TOLERANCE_PERCENT: Final = 999
"""Servers are compared round by round, so it need not wait until its windows agree."""
LONGEST_S: Final = 15.0
TRIES: Final = 3
_POLL_S: Final = 0.2
_THROUGHPUT: Final = re.compile(r"Throughput: ([\d.]+) infer/sec")
_PERCENTILE: Final = re.compile(r"p(50|99) latency: (\d+) usec")
_REQUESTS: Final = re.compile(r"Client:\s+Request count: (\d+)")


class Streams(NamedTuple):
    """A load by streams of ModelStreamInfer.

    Attributes
    ----------
    model : str
    samples : int
        A message.
    in_flight : int
        Messages.
    """

    model: str
    samples: int
    in_flight: int


def contest(case: str, cache: Path, servers: Sequence[Callable[[], Contender]], load: Streams, rounds: int) -> Table:
    """Each server under perf_analyzer once a round.

    Parameters
    ----------
    servers : sequence of callable
        Each gives a server that runs: one that died is started again, and tried `TRIES` times in all.

    Raises
    ------
    Absent
        If perf_analyzer is not installed.
    RuntimeError
        If it fails on a server.
    """
    program = python(cache, "perf_analyzer").with_name("perf_analyzer")
    found: dict[str, list[Measured]] = {}
    for number in range(rounds):
        for server in servers:
            measured = _tried(program, case, server, load, number)
            found.setdefault(measured.contender, []).append(measured)
    return Table(found)


def _tried(program: Path, case: str, server: Callable[[], Contender], load: Streams, number: int) -> Measured:
    """One round of one server."""
    trouble = ""
    for _ in range(TRIES):
        contender = server()
        before = contender.process.cpu_s()
        try:
            report = _run(program, contender.process, load)
        except RuntimeError as error:
            trouble = f"perf_analyzer on {contender.name}: {error}"
            continue
        spent = contender.process.cpu_s() - before
        return read_report(report, case, contender.name, number, load.samples, spent)
    raise RuntimeError(trouble)


def _run(program: Path, process: Process, load: Streams) -> str:
    """What perf_analyzer prints."""
    command = [
        str(program),
        *("-m", load.model, "-i", "grpc", "-u", process.address, "--streaming"),
        *("-b", str(load.samples), "--concurrency-range", str(load.in_flight), "--percentile", "50"),
        # Its own choice, random bits, is hardly ever in the range that a bundle takes.
        *("--input-data", "zero"),
        *("--measurement-interval", str(WINDOW_MS), "-r", str(WINDOWS), "-s", str(TOLERANCE_PERCENT)),
    ]
    libraries = site_packages(program) / "nvidia" / "cuda_runtime" / "lib"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    until = time.monotonic() + LONGEST_S
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while True:
            try:
                report, _ = running.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                # It would wait for ever for a server that has died.
                if process.alive and time.monotonic() < until:
                    continue
                running.kill()
                reason = f"it did not end within {LONGEST_S:g} s" if process.alive else "the server died"
                raise RuntimeError(reason) from None
    if running.returncode:
        raise RuntimeError(_reason(report))
    return report


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
    return lines[-1].rstrip(". ") if lines else "it said nothing"
