"""How time grows with symbols, constellation, SNR points and workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.physical import SNR_DB, array_subject, kernel_subject
from benchmarks.timing import Stopwatch, Subject

ARRAYS: Final = "array path"
KERNEL: Final = "fused kernel"
_ORDER: Final = 64
_STEP_DB: Final = 0.5


class Growth(NamedTuple):
    """One curve: milliseconds against what grows."""

    along: str
    subject: str
    sizes: tuple[int, ...]
    ms: tuple[float, ...]


def measure(
    watch: Stopwatch, symbols: Sequence[int], orders: Sequence[int], points: Sequence[int], point_symbols: int
) -> list[Growth]:
    """Each curve's sizes in turn."""
    found = []
    for engine in (ARRAYS, KERNEL):
        of_symbols = [_chain(engine, _ORDER, count, SNR_DB[_ORDER]) for count in symbols]
        found.append(_curve(watch, "symbols", engine, symbols, of_symbols))
        of_orders = [_chain(engine, order, point_symbols, SNR_DB[order]) for order in orders]
        found.append(_curve(watch, "order", engine, orders, of_orders))
        of_points = [_points(engine, count, point_symbols) for count in points]
        found.append(_curve(watch, "points", engine, points, of_points))
    return found


def _curve(watch: Stopwatch, along: str, subject: str, sizes: Sequence[int], chains: Sequence[Subject]) -> Growth:
    named = [chain._replace(name=f"{subject}, {along} {size}") for size, chain in zip(sizes, chains, strict=True)]
    rounds = watch.interleave(f"growth with {along}, {subject}", named)
    times = (rounds.median(chain.name) * chain.units / 1e6 for chain in named)
    return Growth(along, subject, tuple(sizes), tuple(times))


def _chain(engine: str, order: int, symbols: int, snr_db: float) -> Subject:
    if engine == ARRAYS:
        return array_subject("", order, snr_db, symbols, "numba")
    return kernel_subject("", order, snr_db, symbols)


def _points(engine: str, count: int, symbols: int) -> Subject:
    """Points of a grid, one after another."""
    chains = [_chain(engine, _ORDER, symbols, SNR_DB[_ORDER] + _STEP_DB * number) for number in range(count)]
    return Subject("", f"{symbols} symbols a point", lambda: [chain.run() for chain in chains], symbols * count)
