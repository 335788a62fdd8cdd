"""The fused kernel in worker processes. It imports link alone, and so do they."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Final, NamedTuple

from benchmarks.timing import Ratio, Stopwatch, Subject
from link.channel import Awgn
from link.modem import Modem

TARGET: Final = 1.8
"""Of two workers."""
_FRAME_SYMBOLS: Final = 1024
_TASKS: Final = 16
_SEED: Final = 1


class Task(NamedTuple):
    """Frames that one worker takes at once."""

    order: int
    snr_db: float
    first_frame: int
    frames: int


class Scaling(NamedTuple):
    """So many workers: nanoseconds a symbol, and how many times faster than one on the same frames."""

    order: int
    workers: int
    symbols: int
    ns: float
    speedup: Ratio


def measure(watch: Stopwatch, order: int, snr_db: float, workers: Sequence[int], symbols: int) -> list[Scaling]:
    """Pools of processes that share out the same frames, in turn; pools stand open, as they do in a sweep of many points."""
    frames = symbols // _FRAME_SYMBOLS // _TASKS
    tasks = [Task(order, snr_db, number * frames, frames) for number in range(_TASKS)]
    with ExitStack() as pools:
        subjects = [
            Subject(
                f"{count} worker{'s' * (count > 1)}",
                f"{_TASKS} tasks of {frames} frames",
                _filled(pools.enter_context(ProcessPoolExecutor(count, mp_context=get_context("spawn"))), tasks),
                frames * _TASKS * _FRAME_SYMBOLS,
            )
            for count in workers
        ]
        rounds = watch.interleave(f"workers, {order}-QAM", subjects)
    one = subjects[0]
    return [
        Scaling(order, count, one.units, rounds.median(subject.name), rounds.ratio(one.name, subject.name))
        for count, subject in zip(workers, subjects, strict=True)
    ]


def _filled(pool: ProcessPoolExecutor, tasks: list[Task]) -> Callable[[], int]:
    return lambda: sum(pool.map(bit_errors, tasks))


def bit_errors(task: Task) -> int:
    """Of a task's frames."""
    modem = Modem(task.order, Awgn(), frame_symbols=_FRAME_SYMBOLS, seed=_SEED, engine="numba")
    return modem.count(task.snr_db, task.first_frame, task.frames).bit_errors
