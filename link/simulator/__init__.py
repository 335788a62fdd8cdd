"""The Monte-Carlo simulator: blocks of fixed content, on any number of workers, to the same result.

    workload ── (point, block) ──> counts                  a pure function: the noise of each block has an address
       │
       ├── schedule ── tasks: runs of blocks ──> pool ── inline, loky, Dask or Ray ──┐
       │      ^                                                                      │
       │      └── points: the shortest prefix of blocks that meets the rule <── journal: each task durable at once
       │
       └── point(prefix) ──> what a point found ──> results.json, .csv, .parquet

What a block holds is part of the question and never of how it is answered: not of batch size, workers, backend or order
of execution. A point is the shortest prefix of its blocks that meets the rule, whatever finished first; blocks beyond it are
kept in the journal and counted nowhere. So the result is the same for any number of workers, after `kill -9` and a resume,
and one point can be replayed alone.
"""

from __future__ import annotations

from link.simulator.block import Task, Workload
from link.simulator.conduct import Interrupted
from link.simulator.pool import BACKENDS, open_pool
from link.simulator.rule import Ending, Rule
from link.simulator.run import Answer, Outcome, Watch, run

__all__ = [
    "BACKENDS",
    "Answer",
    "Ending",
    "Interrupted",
    "Outcome",
    "Rule",
    "Task",
    "Watch",
    "Workload",
    "open_pool",
    "run",
]
