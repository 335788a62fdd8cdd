"""How fast the link is, beside others and beside what is possible.

    make bench                             everything, into docs/bench: some ten minutes on two cores
    python -m benchmarks.link --quick      a smoke test of a minute, into runs/bench/quick

Run it on a machine with nothing else to do. What it needs and does not find it makes in runs/bench: the digits bundle, an
environment with scikit-commpy.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import torch

from benchmarks import figures, generators, growth, machine, memory, peers, physical, report, semantic
from benchmarks.timing import Stopwatch


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    least_s: float
    orders: tuple[int, ...]
    batches: tuple[int, ...]
    kernel_symbols: int
    worker_symbols: int
    workers: tuple[int, ...]
    memory_symbols: int
    epochs: int | None
    sweep_rows: int
    snr_db: tuple[float, ...]
    numbers: int
    symbols: tuple[int, ...]
    points: tuple[int, ...]
    point_symbols: int


FULL: Final = Size(
    rounds=9,
    least_s=0.1,
    orders=(4, 16, 64, 256, 1024),
    batches=(256, 1024, 4096, 16384, 65536),
    kernel_symbols=2**20,
    worker_symbols=2**25,
    workers=(1, 2),
    memory_symbols=65536,
    epochs=None,
    sweep_rows=10_000,
    snr_db=tuple(float(snr_db) for snr_db in range(-6, 19, 2)),
    numbers=2**18,
    symbols=tuple(2**power for power in range(8, 23, 2)),
    points=(1, 2, 4, 8, 16, 32),
    point_symbols=2**16,
)
QUICK: Final = Size(
    rounds=2,
    least_s=0.002,
    orders=(4, 16),
    batches=(256, 1024),
    kernel_symbols=2**14,
    worker_symbols=2**16,
    workers=(1, 2),
    memory_symbols=4096,
    epochs=6,
    sweep_rows=400,
    snr_db=(0.0, 12.0),
    numbers=2**12,
    symbols=(256, 1024),
    points=(1, 2),
    point_symbols=1024,
)


def main() -> None:
    """Measure, print the tables, write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--out", type=Path, help="folder of the results [docs/bench, or runs/bench/quick]")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench"), help="what is made once [%(default)s]")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    out = options.out or (options.cache / "quick" if options.quick else Path("docs/bench"))
    for folder in (out, options.cache):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    watch = Stopwatch(size.rounds, size.least_s)
    found = measure(watch, size, options.cache, quick=options.quick)
    watch.write(out / "timings.csv")
    print(report.write(out, found))
    figures.draw(out, found.growth, found.workers, found.chains)
    print(f"written to {out}", file=sys.stderr)


def measure(watch: Stopwatch, size: Size, cache: Path, *, quick: bool) -> report.Findings:
    """All of it, in the order of the page."""
    start, described = time.monotonic(), machine.describe()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)

    say("the digits bundle")
    digits = semantic.load_digits(cache, size.sweep_rows, epochs=size.epochs)
    commpy = None if quick else peers.commpy_python(cache)
    chains = []
    for order in size.orders:
        say(f"{order}-QAM")
        python = commpy if order == physical.COMMPY_ORDER else None
        chains.append(physical.measure(watch, order, size.batches, size.kernel_symbols, not quick, python))
    say("workers")
    workers = physical.measure_workers(watch, 64, size.workers, size.worker_symbols)
    say("memory")
    grown = [memory.measure(subject, 1024, size.memory_symbols) for subject in ("hardpath", "sionna")]
    say("semantic sweep")
    sweeps = [semantic.measure(watch, digits, size.snr_db, threads) for threads in size.workers]
    say("random numbers")
    costs = generators.measure(watch, size.numbers)
    say("growth")
    curves = growth.measure(watch, size.symbols, size.orders, size.points, size.point_symbols)
    return report.Findings(
        machine=described,
        rounds=size.rounds,
        seconds=time.monotonic() - start,
        chains=chains,
        workers=workers,
        memory=grown,
        sweeps=sweeps,
        generators=costs,
        growth=curves,
    )


if __name__ == "__main__":
    main()
