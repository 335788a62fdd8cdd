"""Versions swapped under load: no call may fail, each reply is right, and the tail of the latencies stays where it was.

python -m benchmarks.chaos.swaps BUNDLE --times 200

Two copies of the bundle that differ in their version take each other's place, by a symbolic link that is turned over and a
call of ReloadModel. Latencies are those of one caller beside the load, one call at a time: during a swap, from the call of
ReloadModel until its reply, and between swaps.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import numpy as np

from benchmarks.chaos.load import Load, open_channel, unary
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import Question, make_questions
from link.bundle import MANIFEST_NAME, load_bundle
from link.chain import Link
from serve.client.admin import AdminClient

CALLERS: Final = 4
PAUSE_S: Final = 0.1
"""Between swaps: as many latencies come from there as from the swaps."""


class Swapped(NamedTuple):
    """What a number of swaps did.

    Attributes
    ----------
    swaps : int
        In which another version took over.
    answered : int
        Calls answered rightly.
    failed : int
        Calls that were not.
    during_ms, between_ms : float
        99th percentile of the latencies in swaps and between them.
    tracebacks : int
        In the server's log.
    """

    swaps: int
    answered: int
    failed: int
    during_ms: float
    between_ms: float
    tracebacks: int


class Probe:
    """One caller, one call at a time, whose latencies are sorted by whether a swap was under way."""

    def __init__(self, address: str, question: Question) -> None:
        self.swapping = Event()
        self.during_s: list[float] = []
        self.between_s: list[float] = []
        self.failed = 0
        self._address, self._question = address, question
        self._ended = Event()
        self._thread = Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with open_channel(self._address) as channel:
            call = unary(channel, self._question.method)
            while not self._ended.is_set():
                start, before = time.perf_counter(), self.swapping.is_set()
                reply = call(self._question.request, timeout=20.0)
                seconds = time.perf_counter() - start
                self.failed += not self._question.is_answered_by(reply)
                (self.during_s if before or self.swapping.is_set() else self.between_s).append(seconds)


def under_load(bundle: Path, questions: tuple[Question, ...], times: int) -> Swapped:
    """Swap so many times while callers ask."""
    with (
        _versions(bundle) as (current, versions),
        ServerProcess(current) as server,
        Load(server.address, questions, CALLERS) as load,
        Probe(server.address, questions[0]) as probe,
        open_channel(server.address) as channel,
    ):
        load.wait_for(200)
        admin, swaps = AdminClient(channel, server.address), 0
        for number in range(times):
            _turn_over(current, versions[(number + 1) % 2])
            probe.swapping.set()
            swaps += sum(model.changed for model in admin.reload(""))
            probe.swapping.clear()
            time.sleep(PAUSE_S)
        tally = load.stop()
        during, between = (1e3 * float(np.quantile(s, 0.99)) for s in (probe.during_s, probe.between_s))
        failed = len(tally.failures) + probe.failed
        return Swapped(swaps, tally.answered, failed, during, between, server.tracebacks())


@contextmanager
def _versions(bundle: Path) -> Iterator[tuple[Path, tuple[Path, Path]]]:
    """A symbolic link to the first of two copies of a bundle that differ in their version, and the two."""
    with tempfile.TemporaryDirectory() as folder:
        copies = (Path(folder) / "one", Path(folder) / "two")
        for version, copy in enumerate(copies, start=1):
            shutil.copytree(bundle, copy)
            manifest = json.loads((copy / MANIFEST_NAME).read_text(encoding="utf-8"))
            (copy / MANIFEST_NAME).write_text(json.dumps(manifest | {"version": version}), encoding="utf-8")
        current = Path(folder) / "current"
        current.symlink_to(copies[0])
        yield current, copies


def _turn_over(link: Path, target: Path) -> None:
    new = link.with_name("next")
    new.symlink_to(target)
    os.replace(new, link)


def main() -> int:
    """Swap many times; 1 where a call failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=200)
    arguments = parser.parse_args()
    found = under_load(
        arguments.bundle, make_questions(Link(load_bundle(arguments.bundle)), 60, rows=(1, 8)), arguments.times
    )
    print(
        f"{found.swaps} swaps, {found.answered} answered, {found.failed} failed, {found.tracebacks} tracebacks; p99 "
        f"{found.during_ms:.1f} ms in swaps, {found.between_ms:.1f} ms between: x{found.during_ms / found.between_ms:.2f}"
    )
    return int(found.failed > 0 or found.tracebacks > 0)


if __name__ == "__main__":
    sys.exit(main())
