"""What random numbers cost alone: the floor under every figure, since each symbol takes two normals and its bits."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch

from benchmarks.timing import Stopwatch, Subject
from link import kernel
from link.randomness import Draws, Stream

ROWS: Final = 16
ARRAYS: Final = "link.randomness (Philox, NumPy)"
KERNEL: Final = "link.kernel (Philox, numba)"
TORCH: Final = "torch"
SFC64: Final = "numpy.random (SFC64)"


class Cost(NamedTuple):
    """Of one generator, ns: a normal as float64 or float32, and a bit; `None` where it makes no such numbers by itself."""

    generator: str
    normal_ns: float
    normal32_ns: float | None
    bit_ns: float | None
    addressed: bool


def measure(watch: Stopwatch, count: int) -> list[Cost]:
    """Each generator, `count` numbers at a time."""
    pairs = count // (2 * ROWS)
    draws = Draws(1, np.arange(ROWS))
    sfc = np.random.Generator(np.random.SFC64(1))
    source = torch.Generator().manual_seed(1)

    def philox(dtype: type[np.float32 | np.float64]) -> Subject:
        return Subject(
            f"{KERNEL} {np.dtype(dtype).name}",
            f"{count} at once",
            lambda: kernel.normals(draws, Stream.NOISE, 6000, pairs, dtype),
            count,
        )

    def torch_normals(dtype: torch.dtype) -> Subject:
        name = str(dtype).removeprefix("torch.")
        return Subject(
            f"{TORCH} {name}", f"{count} at once", lambda: torch.randn(count, dtype=dtype, generator=source), count
        )

    normals = watch.interleave(
        "normals",
        [
            Subject(f"{ARRAYS} float64", f"{count} at once", lambda: draws.normals(Stream.NOISE, 6000, pairs), count),
            philox(np.float64),
            philox(np.float32),
            torch_normals(torch.float64),
            torch_normals(torch.float32),
            Subject(f"{SFC64} float64", f"{count} at once", lambda: sfc.standard_normal(count), count),
            Subject(f"{SFC64} float32", f"{count} at once", lambda: sfc.standard_normal(count, np.float32), count),
        ],
    )
    bits = watch.interleave(
        "bits",
        [
            Subject(ARRAYS, f"{count} as uint8", lambda: draws.bits(Stream.BITS, 0, count // ROWS), count),
            Subject(TORCH, f"{count} as uint8", lambda: _torch_bits(count, source), count),
            Subject(
                SFC64, f"{count} as uint8", lambda: np.unpackbits(np.frombuffer(sfc.bytes(count // 8), np.uint8)), count
            ),
        ],
    )
    return [
        Cost(
            name,
            normals.median(f"{name} float64"),
            normals.median(f"{name} float32") if f"{name} float32" in normals.ns else None,
            bits.median(name) if name in bits.ns else None,
            name in (ARRAYS, KERNEL),
        )
        for name in (ARRAYS, KERNEL, TORCH, SFC64)
    ]


def _torch_bits(count: int, source: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, (count,), dtype=torch.uint8, generator=source)
