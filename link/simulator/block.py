"""What a sweep simulates: blocks of fixed content, each a pure function of its point and number."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from link.stopping import Tally


class Task(NamedTuple):
    """Blocks of a point that are run together: numbers first, first + 1, ..., first + size - 1."""

    snr_db: float
    first: int
    size: int

    def __str__(self) -> str:
        last = self.first + self.size - 1
        return f"{self.snr_db:g} dB, " + (f"block {last}" if last == self.first else f"blocks {self.first} to {last}")


class Done(NamedTuple):
    """A task that was run: what each of its blocks gave, and how many seconds all of them took."""

    task: Task
    blocks: list[Any]
    seconds: float


class Workload(Protocol):
    """What is simulated. It is pickled to the workers once.

    Attributes
    ----------
    block_type : type
        A NamedTuple of numbers, strings and sequences of them: what a block gives, and how the journal reads it.
    stride : int
        A point ends behind a multiple of so many blocks.
    """

    @property
    def block_type(self) -> type[Any]: ...
    @property
    def stride(self) -> int: ...
    def run(self, snr_db: float, block: int) -> Any:
        """One block's counts, of `block_type`."""
        ...

    def tally(self, block: Any) -> Tally:
        """What the rule looks at: units, units in error, trials, errors. Tallies of blocks add up.

        Raises
        ------
        ValueError
            If a block that was read from disk cannot be one of this workload's. That no sum is below 0, and not more units
            are in error than there are, need not be looked at.
        """
        ...


def perform(workload: Workload, task: Task) -> Done:
    """Run a task's blocks in order."""
    begun = time.perf_counter()
    blocks = [workload.run(task.snr_db, task.first + number) for number in range(task.size)]
    return Done(task, blocks, time.perf_counter() - begun)


def total(tallies: Sequence[Tally]) -> Tally:
    """Sum of tallies, field by field."""
    return Tally(*map(sum, zip(*tallies, strict=True))) if tallies else Tally(0, 0, 0, 0, 0)
