"""Points on their way: which blocks are there, how far the prefix reaches, and what to run next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from link.simulator.block import Task, Workload, total
from link.simulator.rule import Ending, Rule

TASK_SECONDS: Final = 0.5
"""A task is made to last about so long: an interruption loses no more, and its overhead is small beside it."""


class Point:
    """One point's blocks, as they come in whatever order.

    Parameters
    ----------
    snr_db : float
        Es/N0, dB.
    workload : Workload
    rule : Rule
    """

    def __init__(self, snr_db: float, workload: Workload, rule: Rule) -> None:
        self.snr_db = snr_db
        self.ending: Ending | None = None
        self.prefix: list[Any] = []
        """Blocks 0, 1, ... without a gap; where the point has ended, those that it is made of."""
        self.tally = total([])
        """Of the whole strides of the prefix."""
        self._workload = workload
        self._rule = rule
        self._limit = rule.limit * workload.stride
        self._ahead: dict[int, Any] = {}
        self._tallied = 0
        self._cursor = 0

    def add(self, first: int, blocks: Sequence[Any]) -> None:
        """Take blocks first, first + 1, ...; what lies beyond the end of the point is left alone."""
        self._ahead |= {first + offset: block for offset, block in enumerate(blocks)}
        while self.ending is None and len(self.prefix) in self._ahead:
            self.prefix.append(self._ahead.pop(len(self.prefix)))
            if len(self.prefix) % self._workload.stride == 0:
                self._extend()

    def _extend(self) -> None:
        stride = [self._workload.tally(block) for block in self.prefix[self._tallied :]]
        self.tally = total([self.tally, *stride])
        self._tallied = len(self.prefix)
        if self._rule.met(self.tally):
            self.ending = Ending.TARGET
        elif self._tallied >= self._limit:
            self.ending = Ending.LIMIT

    @property
    def whole(self) -> list[Any]:
        """The prefix up to its last whole stride."""
        return self.prefix[: self._tallied]

    @property
    def fraction(self) -> float:
        """Share of the work that is done, as far as can be told."""
        if self.ending is not None:
            return 1.0
        return min(1.0, max(len(self.prefix) / self._limit, self._rule.share(self.tally)))

    def next_task(self, seconds_per_block: float | None) -> Task | None:
        """Blocks worth running now: not many more than the rule is likely to ask for.

        Parameters
        ----------
        seconds_per_block : float, optional
            None where nothing was timed yet: then it is one block.
        """
        first = self._next_missing()
        room = self._wanted() - first
        if self.ending is not None or room <= 0:
            return None
        size = 1 if seconds_per_block is None else max(1, round(TASK_SECONDS / max(seconds_per_block, 1e-9)))
        size = min(size, room)
        for held in range(first, first + size):
            if held in self._ahead:
                size = held - first
                break
        self._cursor = first + size
        return Task(self.snr_db, first, size)

    def _next_missing(self) -> int:
        block = max(self._cursor, len(self.prefix))
        while block in self._ahead:
            block += 1
        return block

    def _wanted(self) -> int:
        """Blocks that the point will probably need: by the evidence so far, or else twice what is there."""
        there = len(self.prefix)
        if not self._rule.sequential:
            return self._limit
        share = self._rule.share(self.tally)
        likely = math.ceil(self._tallied / share) if share > 0.0 else 2 * max(there, 1)
        stride = self._workload.stride
        return min(self._limit, max(there + 1, -(-likely // stride) * stride, stride))
