"""A sweep from its question to its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from link.lock import locked
from link.simulator.block import Workload
from link.simulator.folder import Result, ResultsFolder
from link.simulator.rule import Rule
from link.simulator.run import Answer, Watch, require_means, run

PointT = TypeVar("PointT", bound=BaseModel)
ResultT = TypeVar("ResultT", bound=Result)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what had been found by then.

    Attributes
    ----------
    result : Result
    """

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class Question(Protocol):
    """What every sweep is asked, see link.grid.GridSpec."""

    @property
    def snr_db(self) -> tuple[float, ...]: ...
    @property
    def rule(self) -> Rule: ...


def conduct(
    workload: Workload,
    spec: Question,
    question: Mapping[str, BaseModel],
    *,
    point: Callable[[Answer], PointT],
    result: Callable[[tuple[PointT, ...]], ResultT],
    out: Path | None,
    workers: int,
    backend: str,
    max_time: float | None,
    progress: Callable[[PointT, int, int], None] | None,
    watch: Watch | None,
) -> ResultT:
    """Run a workload over a grid, write what is found as it is found, and go on with what is there.

    Parameters
    ----------
    workload : Workload
    spec : Question
    question : mapping of str to BaseModel
        What a results folder belongs to.
    point, result : callable
        What an answer says, and what all points say together.
    out, workers, backend, max_time, progress, watch
        As for link.sweep.sweep.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    Interrupted
        Once what is finished is on disk.
    """
    require_means(workers, backend, max_time)  # before a folder is made
    with nullcontext() if out is None else locked(out):
        folder = None if out is None else ResultsFolder(out, question, workload.block_type)
        finished: dict[float, Any] = {}

        def ended(answer: Answer, fresh: bool) -> None:
            finished[answer.snr_db] = point(answer)
            if not fresh:  # it was shown before, and is again at the end
                return
            if folder is not None:
                folder.show([finished[snr_db] for snr_db in spec.snr_db if snr_db in finished])
            if progress is not None:
                progress(finished[answer.snr_db], len(finished), len(spec.snr_db))

        outcome = run(
            workload,
            spec.snr_db,
            spec.rule,
            journal=None if folder is None else folder.journal,
            workers=workers,
            backend=backend,
            max_time=max_time,
            ended=ended,
            watch=watch,
        )
        points = tuple(finished.get(answer.snr_db) or point(answer) for answer in outcome.answers)
        found = result(points)
        if folder is not None:
            folder.close(found)
        if outcome.interrupted is not None:
            raise Interrupted(found) from outcome.interrupted
    return found
