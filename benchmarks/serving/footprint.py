"""One process with the demo bundle: from start to ready, and its memory before and after a load."""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.serving import hardpath_server
from benchmarks.serving.arena import Arena
from benchmarks.serving.contest import Contest, spread
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Load, h2load
from benchmarks.serving.process import Process
from link.bundle import load_bundle

READY_S: Final = 1.0
MEMORY_MB: Final = 130.0
_STARTS: Final = 5
_MB_PER_MIB: Final = 2**20 / 1e6


def measure(arena: Arena, contest: Contest) -> Row:
    """Several starts one after another; the last of them under load."""
    bundle = arena.demo()
    (spec,) = load_bundle(bundle).manifest.transmitter.inputs
    zeros = np.zeros([64, *(int(size) for size in spec.shape[1:])], dtype=np.float32)
    ready, fresh, after, peak = [], [], [], []
    for number in range(min(_STARTS, max(2, contest.rounds))):
        with Process(hardpath_server.command(bundle)) as process:
            ready.append(process.ready_after_s)
            fresh.append(_MB_PER_MIB * process.resident_mib())
            if number == 0:
                for rows, in_flight in ((1, 64), (64, 8)):
                    call = hardpath_server.transmit(spec.name, zeros[:rows])
                    h2load(process.address, call, Load(in_flight, 8), contest.seconds, contest.folder)
                after.append(_MB_PER_MIB * process.resident_mib())
                peak.append(_MB_PER_MIB * process.peak_mib())
    work = "one process, demo bundle"
    return Row(
        "footprint",
        "Start and memory",
        "Ready: from the start of the process until its health says SERVING, asked every 10 ms. Memory: resident, once "
        "ready, and after Transmit with 64 calls in flight and with 64 samples a call.",
        [
            Figure(work, "ready", spread(ready), "s", at_most=READY_S),
            Figure(work, "memory once ready", spread(fresh), "MB", at_most=MEMORY_MB),
            Figure(work, "memory after load", spread(after), "MB", at_most=MEMORY_MB),
            Figure(work, "memory at its peak", spread(peak), "MB", at_most=MEMORY_MB),
        ],
    )
