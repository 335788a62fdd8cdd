"""Bits over QAM and AWGN to LLRs, or to counts: hardpath's array path and its fused kernel beside other simulators."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.generators import numbers_alone
from benchmarks.peers import CommPy, Sionna
from benchmarks.timing import Ratio, Stopwatch, Subject
from link import theory
from link.bits import group
from link.channel import Awgn
from link.constellation import bits_per_symbol, map_bits
from link.modem import Modem, demap, llrs
from link.randomness import Draws, Stream
from link.snr import millidecibels

SNR_DB: Final = {4: 8.0, 16: 14.0, 64: 20.0, 256: 26.0, 1024: 32.0}
"""Es/N0 of each order, where about one bit in a hundred is wrong; what a symbol costs does not depend on it."""
ARRAYS_TARGETS: Final = {16: 10.0, 64: 25.0, 256: 70.0, 1024: 400.0}
KERNEL_TARGETS: Final = {16: 25.0, 64: 150.0, 256: 500.0, 1024: 5000.0}
FRAME_SYMBOLS: Final = 1024
COMMPY_ORDER: Final = 16
_COMMPY_SYMBOLS: Final = 256
_NUMBERS_SYMBOLS: Final = 2**12
_DISTANCES_MAX: Final = 2**22
"""Symbols at once times constellation points: beyond, Sionna's arrays leave all caches and it only gets slower."""
_DEVIATIONS: Final = 6.0


class Stage(NamedTuple):
    """A part of the array path by itself, nanoseconds a symbol."""

    name: str
    ns: float


class Chain(NamedTuple):
    """One order on one thread: nanoseconds a symbol, and how many times Sionna's time is hardpath's.

    Attributes
    ----------
    eager_ns, eager_settings : float, str
        Sionna's to LLRs as its manual runs it, at its fastest batch.
    sionna_ns, sionna_settings : float, str
        At the fastest of all settings, torch.compile among them.
    sionna_count_ns : float
        On to a count of errors.
    arrays_ns, numpy_ns : float
        hardpath's to LLRs by link.modem.llrs, at its fastest batch: with normals from numba, and all from NumPy.
    kernel_ns : float
        To counts of bit, symbol and frame errors, by the fused kernel.
    arrays, kernel : Ratio
        Sionna's time to LLRs over the array path's, and to a count over the kernel's; Sionna at the fastest settings.
    arrays_eager, kernel_eager : Ratio
        The same, Sionna without a compiler.
    numbers_ns : float
        Two normals and the bits alone.
    over_numbers, at_most : Ratio
        The kernel's time over that; and Sionna's, to a count, which no chain that draws these numbers exceeds.
    stages : list of Stage
        Of the array path.
    llr_gap : float
        Greatest difference of the LLRs of one reception, relative to the greatest LLR.
    commpy_ns : float or None
    trouble : str
        What torch.compile said where it failed.
    """

    order: int
    snr_db: float
    eager_ns: float
    eager_settings: str
    sionna_ns: float
    sionna_settings: str
    sionna_count_ns: float
    arrays_ns: float
    arrays_settings: str
    numpy_ns: float
    kernel_ns: float
    arrays: Ratio
    arrays_eager: Ratio
    kernel: Ratio
    kernel_eager: Ratio
    numbers_ns: float
    over_numbers: Ratio
    at_most: Ratio
    stages: list[Stage]
    llr_gap: float
    commpy_ns: float | None
    trouble: str


def measure(
    watch: Stopwatch, order: int, batches: tuple[int, ...], kernel_symbols: int, compile_too: bool, commpy: Path | None
) -> Chain:
    """All simulators at one order: a search for each one's settings, then all in turn."""
    snr_db = SNR_DB[order]
    check_kernel(order, snr_db)
    sionna = Sionna(order, snr_db)
    theirs, trouble = sionna.best(watch, [n for n in batches if n * order <= _DISTANCES_MAX], compile_too)
    case = f"search {order}-QAM"
    arrays, numpy = (
        watch.fastest(case, [array_subject(name, order, snr_db, batch, engine) for batch in batches])
        for name, engine in (("arrays", "numba"), ("arrays numpy", "numpy"))
    )
    alone = numbers_alone(_NUMBERS_SYMBOLS, bits_per_symbol(order))
    subjects = [*theirs, arrays, numpy, kernel_subject("kernel", order, snr_db, kernel_symbols), alone]
    with ExitStack() as peers:
        if commpy is not None:
            subjects.append(peers.enter_context(CommPy(commpy, order, snr_db, _COMMPY_SYMBOLS)))
        rounds = watch.interleave(f"{order}-QAM", subjects)
    llr_name = min(("sionna", "sionna eager"), key=lambda name: rounds.ratio(name, "arrays").median)
    count_name = min(("sionna counting", "sionna eager counting"), key=lambda name: rounds.ratio(name, "kernel").median)
    settings = {subject.name: subject.settings for subject in subjects}
    return Chain(
        order=order,
        snr_db=snr_db,
        eager_ns=rounds.median("sionna eager"),
        eager_settings=settings["sionna eager"],
        sionna_ns=rounds.median(llr_name),
        sionna_settings=settings[llr_name],
        sionna_count_ns=rounds.median(count_name),
        arrays_ns=rounds.median("arrays"),
        arrays_settings=arrays.settings,
        numpy_ns=rounds.median("arrays numpy"),
        kernel_ns=rounds.median("kernel"),
        arrays=rounds.ratio(llr_name, "arrays"),
        arrays_eager=rounds.ratio("sionna eager", "arrays"),
        kernel=rounds.ratio(count_name, "kernel"),
        kernel_eager=rounds.ratio("sionna eager counting", "kernel"),
        numbers_ns=rounds.median(alone.name),
        over_numbers=rounds.ratio("kernel", alone.name),
        at_most=rounds.ratio(count_name, alone.name),
        stages=_stages(watch, order, snr_db, arrays.units),
        llr_gap=sionna.same_llrs(),
        commpy_ns=rounds.median("scikit-commpy") if commpy is not None else None,
        trouble=trouble,
    )


def array_subject(name: str, order: int, snr_db: float, symbols: int, engine: str) -> Subject:
    """New bits to LLRs by link.modem.llrs."""
    length = min(symbols, FRAME_SYMBOLS)
    draws = Draws(1, np.arange(symbols // length), engine=engine)
    bits = length * bits_per_symbol(order)

    def run() -> object:
        sent = draws.bits(Stream.BITS, millidecibels(snr_db), bits)
        return llrs(sent, order, Awgn(), snr_db, draws)

    return Subject(name, f"batch {symbols}, normals from {engine}", run, symbols)


def kernel_subject(name: str, order: int, snr_db: float, symbols: int) -> Subject:
    """New bits to counts by the fused kernel."""
    length = min(symbols, FRAME_SYMBOLS)
    modem = Modem(order, Awgn(), frame_symbols=length, engine="numba")
    assert modem.fused
    settings = f"{symbols} symbols in frames of {length}"
    return Subject(name, settings, lambda: modem.count(snr_db, 0, symbols // length), symbols)


def _stages(watch: Stopwatch, order: int, snr_db: float, symbols: int) -> list[Stage]:
    """Bits, mapper, channel and demapper of the array path, each on what the one before it gave."""
    width, length, point = bits_per_symbol(order), min(symbols, FRAME_SYMBOLS), millidecibels(snr_db)
    draws = Draws(1, np.arange(symbols // length), engine="numba")
    bits = draws.bits(Stream.BITS, point, length * width)
    x = map_bits(group(bits.astype(np.float32), width))
    count = np.full(len(x), length)
    received = Awgn()(x, count, snr_db, draws)
    parts = {
        "bits": lambda: draws.bits(Stream.BITS, point, length * width),
        "mapper": lambda: map_bits(group(bits.astype(np.float32), width)),
        "normals": lambda: draws.normals(Stream.NOISE, point, length),
        "channel": lambda: Awgn()(x, count, snr_db, draws),
        "demapper": lambda: demap(received.y, received.no, order),
    }
    subjects = [Subject(name, f"batch {symbols}", run, symbols) for name, run in parts.items()]
    rounds = watch.interleave(f"stages, {order}-QAM", subjects)
    return [Stage(name, rounds.median(name)) for name in parts]


def check_kernel(order: int, snr_db: float, frames: int = 200) -> None:
    """Refuse to time a kernel whose error rate is not that of theory, within six deviations of its symbols."""
    modem = Modem(order, Awgn(), frame_symbols=FRAME_SYMBOLS, engine="numba")
    found, rate = modem.count(snr_db, 0, frames), float(theory.bit_error_rates(order, snr_db).mean())
    symbols, width = frames * FRAME_SYMBOLS, bits_per_symbol(order)
    deviation = math.sqrt(found.symbol_squares) / (symbols * width)
    gap = abs(found.bit_errors / (symbols * width) - rate)
    if gap > _DEVIATIONS * deviation:
        raise AssertionError(
            f"{order}-QAM at {snr_db:g} dB: the kernel's error rate is {gap:.2e} off theory's {rate:.2e}"
        )
