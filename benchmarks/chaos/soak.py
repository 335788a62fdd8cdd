"""Millions of samples with faults injected: is every good reply right, and does the memory stay where it is?

python -m benchmarks.chaos.soak BUNDLE --samples 2000000 --minutes 30 --log soak.csv

Resident memory is followed over the requests answered; its slope is that of the least-squares line after a warm-up, with the
standard error of the slope as if the residuals were independent.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.chaos.faults import KINDS, Faults
from benchmarks.chaos.load import Load
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import make_questions
from link.bundle import load_bundle
from link.chain import Link

QUESTIONS: Final = 600
WARM_UP: Final = 0.25
"""Share of the requests before the slope is looked at: allocators, caches and what Python compiles come first."""
_LOOK_S: Final = 0.5
_TELL_S: Final = 10.0


class Look(NamedTuple):
    """One look at the server.

    Attributes
    ----------
    seconds : float
        Since the start.
    requests : int
        Answered rightly, and faults.
    samples : int
        Rows answered rightly.
    rss_mb : float
    open_files : int
    """

    seconds: float
    requests: int
    samples: int
    rss_mb: float
    open_files: int


class Soak(NamedTuple):
    """What was found.

    Attributes
    ----------
    looks : tuple of Look
    failures : tuple of str
        Good calls that failed, or were answered wrongly; and faults that were answered in a way they should not be.
    tracebacks : int
        In the server's log.
    exit_code : int
        After SIGTERM in the end.
    cpu_us : float
        Processor time of the server a request, microseconds.
    faults : dict of str to int
    """

    looks: tuple[Look, ...]
    failures: tuple[str, ...]
    tracebacks: int
    exit_code: int
    cpu_us: float
    faults: dict[str, int]


def slope(looks: Sequence[Look], warm_up: float = WARM_UP) -> tuple[float, float]:
    """Growth of the resident memory, MB per million requests, with its standard error.

    Examples
    --------
    >>> looks = [Look(n, 1000 * n, n, 80.0 + 0.002 * n, 9) for n in range(100)]
    >>> round(slope(looks)[0], 6)
    2.0
    """
    late = [look for look in looks if look.requests >= warm_up * looks[-1].requests]
    requests = np.array([look.requests for look in late]) / 1e6
    line = stats.linregress(requests, [look.rss_mb for look in late])
    return float(line.slope), float(line.stderr)


def run(
    bundle: Path | str,
    samples: int,
    minutes: float,
    callers: int = 8,
    log: Path | None = None,
    kinds: Collection[str] = KINDS,
) -> Soak:
    """Ask until so many samples were answered, or the time is up."""
    link = Link(load_bundle(bundle))
    questions = make_questions(link, QUESTIONS)
    floats = next(spec for spec in link.manifest.task_inputs if spec.dtype == "float32")
    looks: list[Look] = []
    start, told = time.monotonic(), 0.0
    with ServerProcess(bundle) as server:
        load = Load(server.address, questions, callers)
        faults = Faults(server.address, questions, floats, kinds)
        with load, faults if kinds else nullcontext():
            while True:
                tally, seconds = load.tally(), time.monotonic() - start
                looks.append(
                    Look(seconds, tally.answered + faults.calls, tally.samples, server.rss_mb, server.open_files)
                )
                if seconds - told >= _TELL_S:
                    told = seconds
                    _tell(looks, len(tally.failures))
                    _write(looks, log)
                if tally.samples >= samples or seconds >= 60.0 * minutes or not server.running:
                    break
                time.sleep(_LOOK_S)
        tally = load.tally()
        cpu_us = 1e6 * server.cpu_s / looks[-1].requests
        exit_code = server.terminate()
        failures = [f"{f.method} {f.code}: {f.details}" for f in tally.failures]
        failures += [f"{count} x fault answered {text}" for text, count in faults.surprises.items()]
        _write(looks, log)
        return Soak(tuple(looks), tuple(failures), server.tracebacks(), exit_code, cpu_us, dict(faults.made))


def main() -> int:
    """Print the growth and what failed; 1 where anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--samples", type=int, default=2_000_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--log", type=Path, help="CSV with a row for each look")
    parser.add_argument("--faults", default=",".join(KINDS), help="kinds of faults, apart by commas; none where empty")
    arguments = parser.parse_args()
    found = run(
        arguments.bundle,
        arguments.samples,
        arguments.minutes,
        arguments.callers,
        arguments.log,
        [kind for kind in arguments.faults.split(",") if kind],
    )
    last = found.looks[-1]
    growth, error = slope(found.looks)
    print(f"{last.samples} samples in {last.requests} requests, {last.seconds:.0f} s; faults: {found.faults}")
    print(f"resident memory {last.rss_mb:.1f} MB, slope {growth:+.2f} +- {2 * error:.2f} MB per million requests")
    print(
        f"server: {found.cpu_us:.0f} us of processor a request, {found.tracebacks} tracebacks, exit {found.exit_code}"
    )
    print("\n".join(sorted(set(found.failures))) or "every good call was answered rightly")
    return int(bool(found.failures) or found.tracebacks > 0 or found.exit_code != 0)


def _tell(looks: Sequence[Look], failures: int) -> None:
    look = looks[-1]
    print(
        f"{look.seconds:5.0f} s  {look.samples:9d} samples  {look.requests / look.seconds:6.0f} requests/s  "
        f"{look.rss_mb:6.1f} MB  {look.open_files} files  {failures} failed",
        flush=True,
    )


def _write(looks: Sequence[Look], log: Path | None) -> None:
    if log is None:
        return
    with log.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Look._fields)
        writer.writerows(looks)


if __name__ == "__main__":
    sys.exit(main())
