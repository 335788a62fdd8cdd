"""A stream through a front end: sent and received in turn, by one thread."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from link.radio.frontend import FrontEnd, Samples

QUIET_S: Final = 10.0
"""Longest time without a sample sent or received; a hang is then told from a slow machine."""
_WAIT_S: Final = 0.001


def carry(radio: FrontEnd, samples: Samples, expected: int, chunk: int = 1 << 16) -> Samples:
    """What comes back of a stream.

    Parameters
    ----------
    radio : FrontEnd
        Open.
    samples : (n,) complex64
    expected : int
        Samples to wait for.
    chunk : int
        Samples handed over at once, at most, and taken at once.

    Returns
    -------
    (expected,) complex64

    Raises
    ------
    RuntimeError
        If nothing moves for a while, or samples are missing in between.
    RadioError
        As the front end does.
    """
    received = np.empty(expected, dtype=np.complex64)
    sent = count = 0
    last = time.monotonic()
    while count < expected or sent < len(samples):
        taken = radio.send(samples[sent : sent + chunk], 0.0) if sent < len(samples) else 0
        block = radio.recv(min(chunk, expected - count), 0.0 if taken else _WAIT_S)
        if block.lost != 0:
            raise RuntimeError(f"samples are missing after {count}")
        received[count : count + len(block.samples)] = block.samples
        sent, count = sent + taken, count + len(block.samples)
        if taken or len(block.samples):
            last = time.monotonic()
        elif time.monotonic() - last > QUIET_S:
            raise RuntimeError(f"{sent} of {len(samples)} samples were taken and {count} of {expected} came, then none")
    return received
