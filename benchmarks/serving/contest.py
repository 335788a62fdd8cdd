"""Servers under the same load in turn: A B A B ..., and what each of them answered, at which cost.

Load and servers share the machine, and its speed drifts, so what counts are ratios of one round; benchmarks.timing says why.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.serving.load import Answered, Call, Load, h2load
from benchmarks.serving.process import Process, ask
from benchmarks.timing import Ratio

WARM_S: Final = 0.5
ANSWERED: Final = 0.99
"""Least share of calls that a server has to answer with a message for its figures to count."""


class Contender(NamedTuple):
    """A running server, and what it is asked.

    Attributes
    ----------
    name : str
    process : Process
    call : Call
    check : callable
        Raises AssertionError where a reply is wrong.
    """

    name: str
    process: Process
    call: Call
    check: Callable[[bytes], None]


class Measured(NamedTuple):
    """One server under load in one round.

    Attributes
    ----------
    row, contender : str
    round : int
    calls, samples : int
        Answered.
    seconds : float
    cpu_s : float
        Of the server and all its processes.
    p50_ms, p99_ms : float
    answered : float
        Share of the calls whose reply had a message.
    """

    row: str
    contender: str
    round: int
    calls: int
    samples: int
    seconds: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    answered: float

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of the server a call, microseconds."""
        return 1e6 * self.cpu_s / self.calls


class Standing(NamedTuple):
    """A contender over all rounds: medians."""

    name: str
    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    answered: float


class Table(NamedTuple):
    """What one contest found: each contender's rounds, by name."""

    rounds: dict[str, list[Measured]]

    def standings(self) -> list[Standing]:
        """In the order in which they ran."""
        return [
            Standing(
                name,
                *(
                    statistics.median(getattr(one, part) for one in found)
                    for part in ("rate", "cpu_us", "p50_ms", "p99_ms", "answered")
                ),
            )
            for name, found in self.rounds.items()
        ]

    def rate(self, ours: str, theirs: str) -> Ratio:
        """Our rate over theirs."""
        return self._ratio(ours, theirs, "rate")

    def latency(self, ours: str, theirs: str) -> Ratio:
        """Our p50 over theirs."""
        return self._ratio(ours, theirs, "p50_ms")

    def cpu(self, ours: str, theirs: str) -> Ratio:
        """Our CPU time a call over theirs."""
        return self._ratio(ours, theirs, "cpu_us")

    def _ratio(self, ours: str, theirs: str, part: str) -> Ratio:
        pairs = zip(self.rounds[ours], self.rounds[theirs], strict=True)
        return spread([getattr(mine, part) / getattr(other, part) for mine, other in pairs])


def spread(found: Sequence[float]) -> Ratio:
    """Median and quartiles."""
    if len(found) < 2:
        return Ratio(found[0], found[0], found[0])
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Ratio(median, low, high)


@dataclass
class Contest:
    """Runs contests, and remembers everything that was measured.

    Parameters
    ----------
    folder : path
        For what is written in between.
    rounds : int
        Times that each contender is under load.
    seconds : float
        How long.
    """

    folder: Path
    rounds: int
    seconds: float
    measured: list[Measured] = field(default_factory=list)

    def run(self, row: str, contenders: Sequence[Contender], load: Load) -> Table:
        """Each contender under load once a round. Each is asked before and after, and its replies are checked.

        Raises
        ------
        RuntimeError
            If one does not answer under load.
        """

        def under_load(contender: Contender, seconds: float) -> Answered:
            try:
                return h2load(contender.process.address, contender.call, load, seconds, self.folder)
            except RuntimeError as error:
                raise RuntimeError(f"{contender.name}, {row}: {error}") from None

        sizes = {contender.name: _checked(contender) for contender in contenders}
        for contender in contenders:
            under_load(contender, WARM_S)
        rounds: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
        for number in range(self.rounds):
            for contender in contenders:
                before = contender.process.cpu_s()
                found = under_load(contender, self.seconds)
                spent = contender.process.cpu_s() - before
                share = found.answered(sizes[contender.name])
                if share < ANSWERED:
                    raise RuntimeError(f"{contender.name} answered {share:.1%} of the calls of {row}")
                rounds[contender.name].append(
                    Measured(
                        row,
                        contender.name,
                        number,
                        found.calls,
                        found.calls * contender.call.samples,
                        found.seconds,
                        spent,
                        found.p50_ms,
                        found.p99_ms,
                        share,
                    )
                )
        for contender in contenders:
            _checked(contender)
        self.measured += [one for found in rounds.values() for one in found]
        return Table(rounds)


def _checked(contender: Contender) -> int:
    """Size of a reply that is right."""
    reply = ask(contender.process.address, contender.call)
    contender.check(reply)
    return len(reply)
