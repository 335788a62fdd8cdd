"""The modem on a GPU, against Sionna on the same one: bits over AWGN to counts of errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch

from benchmarks.peers import Sionna
from benchmarks.timing import Ratio, Stopwatch, Subject
from link.channel import Awgn
from link.modem import Modem

ORDERS: Final = (16, 64, 256)
BATCHES: Final = (2**14, 2**16, 2**18, 2**20)
TARGETS: Final = {64: 20.0}
FRAME_SYMBOLS: Final = 1024


class GpuTimes(NamedTuple):
    """Counts of errors on one device.

    Attributes
    ----------
    device : str
        Its name.
    order : int
    settings : str
        Sionna's best.
    sionna_ns, hardpath_ns : float
        Nanoseconds a symbol, until the count is known to the host.
    ratio : Ratio
        Sionna's time over hardpath's.
    """

    device: str
    order: int
    settings: str
    sionna_ns: float
    hardpath_ns: float
    ratio: Ratio


def measure_all(watch: Stopwatch, snr_db: dict[int, float], symbols: int) -> list[GpuTimes]:
    """Each order on the first GPU; nothing where there is none."""
    if not torch.cuda.is_available():
        return []
    name = torch.cuda.get_device_name(0)
    return [measure(watch, order, snr_db[order], BATCHES, symbols, "cuda", name) for order in ORDERS]


def measure(
    watch: Stopwatch, order: int, snr_db: float, batches: Sequence[int], symbols: int, engine: str, name: str
) -> GpuTimes:
    """One order; `engine` is one of link.device, and Sionna runs where that does."""
    peer = Sionna(order, snr_db, "cpu" if engine == "torch" else "cuda:0")

    def count(bits: torch.Tensor) -> int:
        return int(peer.errors(bits))  # asks for a number, so the device has finished

    candidates = [peer.subject("sionna", batch, count, "eager") for batch in batches]
    case = f"{order}-QAM on {name}"
    best = watch.fastest(f"search {case}", candidates)
    modem = Modem(order, Awgn(), frame_symbols=FRAME_SYMBOLS, engine=engine)
    frames = max(1, symbols // FRAME_SYMBOLS)
    ours = Subject("hardpath", f"{frames} frames", lambda: modem.count(snr_db, 0, frames), frames * FRAME_SYMBOLS)
    rounds = watch.interleave(case, [best, ours])
    ratio = rounds.ratio("sionna", "hardpath")
    return GpuTimes(name, order, best.settings, rounds.median("sionna"), rounds.median("hardpath"), ratio)
