"""Frames over a radio, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from link.radio.channel import RadioChannel
from link.radio.operation.figures import RunTally
from link.radio.operation.traffic import BundleTraffic, Traffic


def run(
    radio: RadioChannel,
    traffic: Traffic,
    tally: RunTally,
    *,
    frames: int | None = None,
    seconds: float | None = None,
    after: Callable[[], None] = lambda: None,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Send until so many frames were sent, or so many seconds have gone; for ever where neither is told.

    Parameters
    ----------
    radio : RadioChannel
        Which tells `tally` of its drops.
    traffic : Traffic
    tally : RunTally
    frames, seconds
        An exchange of a bundle is not cut, and one under way is not broken off.
    after : callable
        Called after each exchange.
    now : callable
        Seconds, by a clock that is never set.

    Raises
    ------
    RadioError
        If the device is gone.
    """
    begun, number, sent = now(), 0, 0
    while (frames is None or sent < frames) and (seconds is None or now() - begun < seconds):
        result = traffic.send(radio, number, None if frames is None else frames - sent)
        number += 1
        sent = tally.frames
        if result is not None:
            tally.decided_for(result.decoded.decisions)
        if isinstance(traffic, BundleTraffic):
            tally.decided = traffic.decided
        tally.sample_rate_hz = radio.frontend.capabilities.sample_rate_hz
        after()
