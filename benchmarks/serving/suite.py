"""What is measured, how much of it, and in which order."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from benchmarks import machine
from benchmarks.serving import batched, batching, footprint, latency, overload, transmit, unary
from benchmarks.serving.arena import Arena
from benchmarks.serving.contest import Contest
from benchmarks.serving.findings import Row
from benchmarks.serving.report import Findings


class Size(NamedTuple):
    """How much is measured: rounds, and how long a server is under load in each."""

    rounds: int
    seconds: float


FULL: Final = Size(rounds=5, seconds=2.0)
QUICK: Final = Size(rounds=2, seconds=0.5)
_MODULES: Final = (unary, batched, transmit, latency, overload, footprint, batching)
ROWS: Final = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
USUAL: Final = tuple(key for key in ROWS if key != "batching")
"""What is measured unless asked otherwise: the grid of batching takes minutes by itself."""


def measure(size: Size, cache: Path, rows: Sequence[str], demo: Path | None) -> Findings:
    """The rows, in the order of the page; servers of one row are ended before the next."""
    start, described = time.monotonic(), machine.describe()
    found: list[Row] = []
    about: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as scratch:
        contest = Contest(Path(scratch), size.rounds, size.seconds)
        for key, module in ROWS.items():
            if key not in rows:
                continue
            print(f"{time.monotonic() - start:5.0f} s  {key}", file=sys.stderr, flush=True)
            folder = Path(scratch) / key
            folder.mkdir()
            with Arena(cache, folder, demo) as arena:
                try:
                    found.append(module.measure(arena, contest))
                except (
                    AssertionError,
                    OSError,
                    RuntimeError,
                    grpc.RpcError,
                ) as error:  # the other rows are worth having
                    found.append(Row(key, key.capitalize(), f"Not measured: {error}"))
                about |= arena.about()
    return Findings(described, size.rounds, size.seconds, time.monotonic() - start, about, found, contest.measured)
