"""Calls that arrive whether or not those before them were answered, each with a deadline: what overload is.

A client that waits for an answer before it asks again slows down with its server, and never overloads it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.load import Call

CHANNELS: Final = 4
_SEED: Final = 3
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))


class Schedule(NamedTuple):
    """When calls arrive, and how long each may take.

    Attributes
    ----------
    at_s : (n,) float
        From the start, in order.
    deadline_s : (n,) float
        From the arrival.
    """

    at_s: NDArray[np.float64]
    deadline_s: NDArray[np.float64]


class Outcome(NamedTuple):
    """What became of one call: its status, and how long that took, s."""

    code: grpc.StatusCode
    seconds: float


def poisson(rate: float, seconds: float, deadline_s: tuple[float, float]) -> Schedule:
    """Arrivals at a rate a second, with deadlines drawn evenly from a range."""
    random = np.random.default_rng(_SEED)
    count = max(1, round(rate * seconds))
    gaps = random.exponential(1.0 / rate, count)
    return Schedule(np.cumsum(gaps), random.uniform(*deadline_s, size=count))


def arrive(address: str, call: Call, schedule: Schedule) -> list[Outcome]:
    """Each call at its time."""

    async def one(channel: grpc.aio.Channel, start: float, at: float, deadline: float) -> Outcome:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        sent = time.perf_counter()
        code = await _code(channel, call, deadline)
        return Outcome(code, time.perf_counter() - sent)

    async def run() -> list[Outcome]:
        channels = _channels(address)
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        start = time.perf_counter()
        tasks = [
            one(channels[number % CHANNELS], start, at, deadline)
            for number, (at, deadline) in enumerate(zip(*map(np.ndarray.tolist, schedule), strict=True))
        ]
        found = await asyncio.gather(*tasks)
        await asyncio.gather(*(channel.close(None) for channel in channels))
        return found

    return asyncio.run(run())


def saturate(address: str, call: Call, in_flight: int, seconds: float) -> float:
    """Calls a second that are answered with so many in flight and no deadline: the peak."""

    async def worker(channel: grpc.aio.Channel, until: float) -> int:
        answered = 0
        while time.perf_counter() < until:
            answered += await _code(channel, call, None) is grpc.StatusCode.OK
        return answered

    async def run() -> float:
        channels = _channels(address)
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        start = time.perf_counter()
        workers = [worker(channels[number % CHANNELS], start + seconds) for number in range(in_flight)]
        answered = sum(await asyncio.gather(*workers))
        spent = time.perf_counter() - start
        await asyncio.gather(*(channel.close(None) for channel in channels))
        return answered / spent

    return asyncio.run(run())


def seconds_of(outcomes: Sequence[Outcome], code: grpc.StatusCode) -> list[float]:
    """How long the calls took that ended so."""
    return [outcome.seconds for outcome in outcomes if outcome.code is code]


def _channels(address: str) -> list[grpc.aio.Channel]:
    return [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(CHANNELS)]


async def _code(channel: grpc.aio.Channel, call: Call, timeout_s: float | None) -> grpc.StatusCode:
    """How a call ended."""
    try:
        await channel.unary_unary(call.method, None, None)(call.body, timeout=timeout_s)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
