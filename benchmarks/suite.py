"""What is measured, how much of it, and in which order."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import generators, gpu, growth, machine, memory, peers, physical, report, semantic, workers
from benchmarks.timing import Stopwatch


class Size(NamedTuple):
    """How much is measured.

    Attributes
    ----------
    peers : bool
        Whether Sionna is compiled too, and scikit-commpy installed.
    epochs : int or None
        Of the digits run; None is the recipe as it stands.
    draws : int
        Times that a sweep in several processes sends each row, so that starting them does not count.
    """

    rounds: int
    least_s: float
    peers: bool
    orders: tuple[int, ...]
    batches: tuple[int, ...]
    kernel_symbols: int
    worker_symbols: int
    workers: tuple[int, ...]
    memory_symbols: int
    epochs: int | None
    sweep_rows: int
    draws: int
    snr_db: tuple[float, ...]
    numbers: int
    symbols: tuple[int, ...]
    points: tuple[int, ...]
    point_symbols: int


FULL: Final = Size(
    rounds=15,
    least_s=0.05,
    peers=True,
    orders=(4, 16, 64, 256, 1024),
    batches=(256, 1024, 4096, 16384, 65536),
    kernel_symbols=2**20,
    worker_symbols=2**25,
    workers=(1, 2),
    memory_symbols=65536,
    epochs=None,
    sweep_rows=10_000,
    draws=20,
    snr_db=tuple(float(snr_db) for snr_db in range(-6, 19, 2)),
    numbers=2**18,
    symbols=tuple(2**power for power in range(8, 23, 2)),
    points=(1, 2, 4, 8, 16, 32),
    point_symbols=2**16,
)
QUICK: Final = Size(
    rounds=2,
    least_s=0.002,
    peers=False,
    orders=(4, 16),
    batches=(256, 1024),
    kernel_symbols=2**14,
    worker_symbols=2**16,
    workers=(1, 2),
    memory_symbols=4096,
    epochs=6,
    sweep_rows=400,
    draws=2,
    snr_db=(0.0, 12.0),
    numbers=2**12,
    symbols=(256, 1024),
    points=(1, 2),
    point_symbols=1024,
)


def measure(watch: Stopwatch, size: Size, cache: Path) -> report.Findings:
    """All of it, in the order of the page."""
    start, described = time.monotonic(), machine.describe()
    slow = Stopwatch(min(watch.rounds, 3), watch.least_s, watch.timings)

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)

    say("the digits bundle")
    digits = semantic.load_digits(cache, size.sweep_rows, epochs=size.epochs)
    commpy = peers.commpy_python(cache) if size.peers else None
    chains = []
    for order in size.orders:
        say(f"{order}-QAM")
        python = commpy if order == physical.COMMPY_ORDER else None
        chains.append(physical.measure(watch, order, size.batches, size.kernel_symbols, size.peers, python))
    say("workers")
    scaling = workers.measure(watch, 64, physical.SNR_DB[64], size.workers, size.worker_symbols)
    say("memory")
    grown = [memory.measure(subject, 1024, size.memory_symbols) for subject in ("hardpath", "sionna")]
    say("semantic sweep")
    sweeps = [semantic.measure(watch, digits, size.snr_db), semantic.measure(slow, digits, size.snr_db, 2, size.draws)]
    say("GPU")
    on_gpu = gpu.measure_all(watch, physical.SNR_DB, 2**24)
    say("random numbers")
    costs = generators.measure(watch, size.numbers)
    say("growth")
    curves = growth.measure(watch, size.symbols, size.orders, size.points, size.point_symbols)
    return report.Findings(
        machine=described,
        rounds=size.rounds,
        seconds=time.monotonic() - start,
        chains=chains,
        workers=scaling,
        memory=grown,
        sweeps=sweeps,
        gpu=on_gpu,
        generators=costs,
        growth=curves,
    )
