"""What random numbers cost alone: the floor under every figure, since each symbol takes two normals and its bits."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import torch

from benchmarks.timing import Stopwatch, Subject
from link import box_muller
from link.compiled import compiled
from link.randomness import Draws, Stream, last_word

ROWS: Final = 16
NUMPY: Final = "hardpath, NumPy (Philox)"
NUMBA: Final = "hardpath, numba (Philox)"
TORCH: Final = "torch (Mersenne Twister)"
SFC64: Final = "numpy.random (SFC64)"
_POINT: Final = 6000
_BLOCK_BITS: Final = 128


class Cost(NamedTuple):
    """Of one generator, nanoseconds: a normal in float64 and in float32, and a bit.

    Attributes
    ----------
    addressed : bool
        Whether each number has an address of its own, so that one can be drawn alone.
    """

    generator: str
    normal_ns: float
    normal32_ns: float | None
    bit_ns: float
    addressed: bool


def measure(watch: Stopwatch, count: int) -> list[Cost]:
    """Each generator, `count` numbers at a time. Bits are bytes of 0 or 1, but for numba, which keeps them in words."""
    pairs, note = count // (2 * ROWS), f"{count} at once"
    draws, zeros, last = Draws(1, np.arange(ROWS)), np.zeros(ROWS, dtype=np.int64), last_word(Stream.NOISE, _POINT)
    sfc = np.random.Generator(np.random.SFC64(1))
    source = torch.Generator().manual_seed(1)

    def numba_normals(dtype: type[np.float32 | np.float64]) -> object:
        return box_muller.normals(1, draws.samples, zeros, 0, last, pairs, dtype)

    def torch_normals(dtype: torch.dtype) -> object:
        return torch.randn(count, dtype=dtype, generator=source)

    normals = watch.interleave(
        "normals",
        [
            Subject(f"{NUMPY} float64", note, lambda: draws.normals(Stream.NOISE, _POINT, pairs), count),
            Subject(f"{NUMBA} float64", note, lambda: numba_normals(np.float64), count),
            Subject(f"{NUMBA} float32", note, lambda: numba_normals(np.float32), count),
            Subject(f"{TORCH} float64", note, lambda: torch_normals(torch.float64), count),
            Subject(f"{TORCH} float32", note, lambda: torch_normals(torch.float32), count),
            Subject(f"{SFC64} float64", note, lambda: sfc.standard_normal(count), count),
            Subject(f"{SFC64} float32", note, lambda: sfc.standard_normal(count, np.float32), count),
        ],
    )
    bits = watch.interleave(
        "bits",
        [
            Subject(NUMPY, note, lambda: draws.bits(Stream.BITS, _POINT, count // ROWS), count),
            Subject(NUMBA, note, lambda: _words(1, count // _BLOCK_BITS, last), count),
            Subject(TORCH, note, lambda: torch.randint(0, 2, (count,), dtype=torch.uint8, generator=source), count),
            Subject(SFC64, note, lambda: np.unpackbits(np.frombuffer(sfc.bytes(count // 8), np.uint8)), count),
        ],
    )
    return [
        Cost(
            name,
            normals.median(f"{name} float64"),
            normals.median(f"{name} float32") if f"{name} float32" in normals.ns else None,
            bits.median(name),
            name in (NUMPY, NUMBA),
        )
        for name in (NUMPY, NUMBA, TORCH, SFC64)
    ]


def numbers_alone(symbols: int, width: int) -> Subject:
    """Two normals and the bits of so many symbols, as the fused kernel draws them, and nothing else."""
    samples, length = np.arange(ROWS), symbols // ROWS
    zeros, last = np.zeros(ROWS, dtype=np.int64), last_word(Stream.NOISE, _POINT)

    def run() -> None:
        box_muller.normals(1, samples, zeros, 0, last, length)
        _words(1, ROWS * length * width // _BLOCK_BITS, last)

    return Subject("numbers alone", f"{symbols} symbols", run, ROWS * length)


@compiled
def _words(seed: int, blocks: int, last: int) -> Any:
    """The words of so many blocks, as the kernel draws them, folded into one."""
    folded = 0
    for i in range(blocks):
        w0, w1, w2, w3 = box_muller.philox_block(i, 0, 0, last, seed)
        folded ^= w0 ^ w1 ^ w2 ^ w3
    return folded
