"""Time that subjects take for the same work, in turn: A B A B ...

A machine's speed drifts by tens of per cent within minutes, with its clock and with its neighbours, so times that were taken
one after another cannot be compared. Here all subjects of a case are measured once in each round, and what is reported is
the ratio of two of them within a round: its median over the rounds, and its quartiles.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Subject(NamedTuple):
    """Something that does a piece of work.

    Attributes
    ----------
    name : str
    settings : str
        What else it was told: batch, precision, threads.
    run : callable
        Does the work once.
    units : int
        Symbols, receptions or numbers that one call does.
    """

    name: str
    settings: str
    run: Callable[[], object]
    units: int


class Timing(NamedTuple):
    """One measurement: so many calls, one after another."""

    case: str
    subject: str
    settings: str
    round: int
    calls: int
    units: int
    seconds: float

    @property
    def ns_per_unit(self) -> float:
        """Nanoseconds a unit."""
        return 1e9 * self.seconds / (self.calls * self.units)


class Ratio(NamedTuple):
    """How many times one subject's time is another's: the median over the rounds, and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


class Rounds(NamedTuple):
    """What each subject of a case took a unit, ns, round by round."""

    ns: dict[str, list[float]]

    def median(self, subject: str) -> float:
        """Nanoseconds a unit of a subject."""
        return statistics.median(self.ns[subject])

    def ratio(self, slower: str, faster: str) -> Ratio:
        """Time of `slower` over that of `faster`, round by round."""
        found = [a / b for a, b in zip(self.ns[slower], self.ns[faster], strict=True)]
        low, median, high = statistics.quantiles(found, n=4, method="inclusive")
        return Ratio(median, low, high)


@dataclass
class Stopwatch:
    """Measures, and remembers everything that it measured.

    Parameters
    ----------
    rounds : int
        Times that each subject of a case is measured.
    least_s : float
        A measurement repeats its subject until it lasts about so long.
    """

    rounds: int
    least_s: float
    timings: list[Timing] = field(default_factory=list)

    def interleave(self, case: str, subjects: Sequence[Subject]) -> Rounds:
        """Measure all subjects of a case once a round. Each runs once before, untimed: compilers, caches, memory."""
        calls = [self._calls(subject) for subject in subjects]
        ns: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        for number in range(self.rounds):
            for subject, count in zip(subjects, calls, strict=True):
                ns[subject.name].append(self._measure(case, subject, number, count))
        return Rounds(ns)

    def fastest(self, case: str, candidates: Sequence[Subject]) -> Subject:
        """The candidate of the least time a unit, by the best of three measurements in turn."""
        calls = [self._calls(candidate) for candidate in candidates]
        best = [float("inf")] * len(candidates)
        for number in range(3):
            for place, candidate in enumerate(candidates):
                best[place] = min(best[place], self._measure(case, candidate, number, calls[place]))
        return candidates[best.index(min(best))]

    def write(self, file: Path) -> None:
        """All timings as CSV."""
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*Timing._fields, "ns_per_unit"])
            writer.writerows([*timing, f"{timing.ns_per_unit:.5g}"] for timing in self.timings)

    def _measure(self, case: str, subject: Subject, number: int, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            subject.run()
        seconds = time.perf_counter() - start
        timing = Timing(case, subject.name, subject.settings, number, calls, subject.units, round(seconds, 9))
        self.timings.append(timing)
        return timing.ns_per_unit

    def _calls(self, subject: Subject) -> int:
        """Calls that a measurement takes, by a second call that is timed and not kept."""
        subject.run()
        start = time.perf_counter()
        subject.run()
        return max(1, round(self.least_s / max(time.perf_counter() - start, 1e-9)))
