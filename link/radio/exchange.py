"""A burst goes out, and what comes back is kept: no wait without a bound, no sample without its place.

Sending and receiving take turns, so that a device whose buffers are full of what it received still takes what is to be sent.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import numpy as np

from link.errors import RadioError
from link.radio.frontend import EMPTY, Block, FrontEnd, Samples

_POLL_S: Final = 0.01
_DRAIN_S: Final = 0.1
_SLACK: Final = 0.002
"""Share of the samples that clocks and filters may keep."""
_HELD: Final = 256
"""Samples that software on the way may hold back for good."""


class Capture(NamedTuple):
    """What was received.

    Attributes
    ----------
    runs : list of (n,) complex64
        Samples in a row; between two runs some are missing.
    gaps : int
        Places where samples are missing.
    lost : int
        Samples known to be missing.
    clipped : int
        Samples of the burst that were beyond the front end's full scale, and were limited to it.
    drained : int
        Samples that had come in before, and were let go of; those known to be missing among them.
    """

    runs: list[Samples]
    gaps: int
    lost: int
    clipped: int
    drained: int = 0


def exchange(frontend: FrontEnd, samples: Samples, *, timeout_s: float, latency_s: float = 0.0) -> Capture:
    """Send a burst, and receive until it is back.

    Parameters
    ----------
    frontend : FrontEnd
        Open. Where it only receives, nothing is sent.
    samples : (n,) complex64
    timeout_s : float
        Without a sample taken for so long, or once all are, without one given, it is over.
    latency_s : float
        Behind the burst, a front end that runs by its own clock is listened to for so long.

    Raises
    ------
    RadioError
        If the device is gone, or took or gave no sample at all in time.
    """
    able = frontend.capabilities
    burst, clipped = _limited(samples if able.sends else EMPTY, able.full_scale)
    drained = _drain(frontend, able.chunk)
    wanted = len(burst) + (round(latency_s * (able.sample_rate_hz or 0.0)) if able.real_time else 0)
    sent, received = 0, 0
    blocks: list[Block] = []
    progress = time.monotonic()
    while sent < len(burst) or received < wanted:
        took = frontend.send(burst[sent : sent + able.chunk], _POLL_S) if sent < len(burst) else 0
        sent += took
        block = frontend.recv(able.chunk, 0.0 if took else _POLL_S)
        received += len(block.samples) + (block.lost or 0)
        if len(block.samples) or block.lost != 0:
            blocks.append(block)
        if took or (sent == len(burst) and len(block.samples)):
            progress = time.monotonic()
        elif sent == len(burst) and not able.real_time and received >= wanted * (1.0 - _SLACK) - _HELD:
            break
        elif time.monotonic() - progress > timeout_s:
            if not sent or not received:
                what = "took no sample" if not sent else "gave no sample"
                raise RadioError(f"the front end {what} within {timeout_s:g} s")
            break
    return _capture(blocks, clipped, drained)


def _drain(frontend: FrontEnd, chunk: int) -> int:
    """Let go of what has come in since the last exchange, as far as time allows: an old frame is known as such.

    How many samples that were, those known to be missing among them.
    """
    limit = time.monotonic() + _DRAIN_S
    drained = 0
    while time.monotonic() < limit:
        block = frontend.recv(chunk, 0.0)
        drained += len(block.samples) + (block.lost or 0)
        if not len(block.samples):
            break
    return drained


def _limited(samples: Samples, full_scale: float | None) -> tuple[Samples, int]:
    if full_scale is None:
        return samples, 0
    limited = np.clip(samples.real, -full_scale, full_scale) + 1j * np.clip(samples.imag, -full_scale, full_scale)
    return limited.astype(np.complex64), int(np.count_nonzero(limited != samples))


def _capture(blocks: list[Block], clipped: int, drained: int) -> Capture:
    runs: list[list[Samples]] = [[]]
    gaps, lost = 0, 0
    for block in blocks:
        if block.lost != 0:
            gaps += 1
            lost += block.lost or 0
            runs.append([])
        runs[-1].append(block.samples)
    return Capture([np.concatenate(run) if run else EMPTY for run in runs if run], gaps, lost, clipped, drained)
