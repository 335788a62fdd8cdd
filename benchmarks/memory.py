"""How much memory a demapping takes at its peak, beyond what the process held before; one process a subject.

python -m benchmarks.memory hardpath 1024 65536        prints bytes
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from link.modem import demap
from link.snr import no_from_esn0_db

MIB: Final = 2**20
_WARM: Final = 256
_SNR_DB: Final = 32.0
_STATUS: Final = Path("/proc/self/status")


class Growth(NamedTuple):
    """Peak of the resident memory during one demapping less what was resident before it, bytes; the LLRs are part of it."""

    subject: str
    order: int
    symbols: int
    bytes: int


def measure(subject: str, order: int, symbols: int) -> Growth:
    """In a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", subject, str(order), str(symbols)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return Growth(subject, order, symbols, int(found.stdout.split()[-1]))


def main() -> None:
    """Demap a few symbols, so that all code is loaded; then all of them, and look at the peak."""
    subject, order, symbols = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    work = {"hardpath": _hardpath, "sionna": _sionna}[subject](order)
    y = np.random.default_rng(0).normal(scale=0.7, size=(symbols, 2)).astype(np.float32)
    work(y[:_WARM])
    _forget_peak()
    before = _kib("VmRSS")
    llr = work(y)
    peak = _kib("VmHWM")
    del llr  # held until here, as whoever asked for it would
    print(max(peak - before, 0) * 1024)


def _hardpath(order: int) -> Callable[[np.ndarray], object]:
    return lambda y: demap(y, np.full(len(y), no_from_esn0_db(_SNR_DB), np.float32), order)


def _sionna(order: int) -> Callable[[np.ndarray], object]:
    import torch

    from benchmarks.peers import Sionna

    torch.set_num_threads(1)
    sionna = Sionna(order, _SNR_DB)

    def work(y: np.ndarray) -> object:
        with torch.no_grad():
            return sionna.demapper(torch.view_as_complex(torch.from_numpy(y))[None], sionna.no)[0]

    return work


def _forget_peak() -> None:
    """Let the system take the peak from here on; where it cannot, that of the imports is the least that is seen."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _kib(field: str) -> int:
    """A field of /proc/self/status; ru_maxrss where there is none."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
