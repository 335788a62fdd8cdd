"""The streaming methods of hardpath.v1: many requests on one call, and a sweep whose points come as they end.

    requests ──> window of a few under way ──> replies, in the order of the requests ──> a peer that reads, or is dropped

A stream holds no more than its window: a client that does not read is not read from either, and is let go after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import grpc
import numpy as np
from google.rpc import code_pb2  # type: ignore[import-untyped]

from link.errors import ArgumentError
from link.montecarlo import CONFIDENCE, Proportion
from link.semantic import clean_decisions
from link.sweep import SweepPoint, SweepSpec
from link.sweep import sweep as run_sweep
from serve import convert
from serve.engine import Caller, Model
from serve.errors import Overloaded
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.status import failure_of

POINTS_MAX: Final = 1000
K_FACTOR_DB: Final = 6.0

Context = grpc.aio.ServicerContext[Any, Any]
Transmit = Callable[[pb.TransmitRequest, Caller], Awaitable[pb.TransmitResponse]]


@dataclass(frozen=True)
class StreamLimits:
    """What one stream may take.

    Attributes
    ----------
    window : int
        Requests of a stream under way at a time.
    samples : int, optional
        Samples over one stream.
    stall_s : float
        A peer that takes no reply for so long is let go.
    idle_s : float, optional
        A stream on which no request comes for so long ends.
    """

    window: int = 16
    samples: int | None = None
    stall_s: float = 60.0
    idle_s: float | None = None


async def transmit_stream(
    requests: AsyncIterator[pb.TransmitStreamRequest], context: Context, transmit: Transmit, limits: StreamLimits
) -> None:
    """Answer requests in their order, several under way at a time."""
    replies: asyncio.Queue[asyncio.Task[pb.TransmitStreamResponse] | None] = asyncio.Queue(limits.window)
    reader = asyncio.create_task(_read(requests, context, transmit, limits, replies))
    try:
        while (reply := await replies.get()) is not None:
            await asyncio.wait_for(context.write(await reply), limits.stall_s)
        await reader
    except TimeoutError:
        await context.abort(grpc.StatusCode.ABORTED, f"no reply was taken for {limits.stall_s:g} s")
    finally:
        reader.cancel()
        while not replies.empty():
            if (left := replies.get_nowait()) is not None:
                left.cancel()


async def _read(
    requests: AsyncIterator[pb.TransmitStreamRequest],
    context: Context,
    transmit: Transmit,
    limits: StreamLimits,
    replies: asyncio.Queue[asyncio.Task[pb.TransmitStreamResponse] | None],
) -> None:
    samples, index = 0, 0
    iterator = aiter(requests)
    try:
        while True:
            try:
                message = await asyncio.wait_for(anext(iterator), limits.idle_s)
            except (StopAsyncIteration, TimeoutError):
                break
            samples += max((tensor.shape[0] for tensor in message.request.inputs.values() if tensor.shape), default=1)
            full = limits.samples is not None and samples > limits.samples
            answer = _full(index, limits.samples) if full else _answer(index, message.request, context, transmit)
            await replies.put(asyncio.create_task(answer))
            if full:
                break
            index += 1
    finally:
        await replies.put(None)


async def _answer(
    index: int, request: pb.TransmitRequest, context: Context, transmit: Transmit
) -> pb.TransmitStreamResponse:
    left = context.time_remaining()
    caller = Caller(None if left is None else monotonic() + left, request.ByteSize())
    try:
        return pb.TransmitStreamResponse(index=index, response=await transmit(request, caller))
    except Exception as error:  # of this request; the stream goes on
        return pb.TransmitStreamResponse(index=index, failure=failure_of(error, request))


async def _full(index: int, samples: int | None) -> pb.TransmitStreamResponse:
    return pb.TransmitStreamResponse(
        index=index,
        failure=pb.Failure(
            code=code_pb2.RESOURCE_EXHAUSTED, message=f"a stream takes at most {samples} samples: open another"
        ),
    )


class _Cancelled(Exception):
    """The caller of a sweep is gone."""


async def sweep(model: Model, request: pb.SweepRequest, context: Context, limits: StreamLimits) -> None:
    """Run a sweep beside the batches, and write each point as it ends.

    Raises
    ------
    ArgumentError
        If an argument is wrong.
    Overloaded
        If another sweep is being run.
    """
    spec = _spec(request)
    inputs = convert.inputs_from_message(request.inputs)
    loop = asyncio.get_running_loop()
    points: asyncio.Queue[SweepPoint | None] = asyncio.Queue()
    gone = threading.Event()

    def run() -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # requests come first
        rows = model.rows(inputs)
        labels: Any = np.array(request.labels, dtype=np.int64) if request.labels else None
        if labels is None:
            labels = clean_decisions(model.link, inputs)
        elif len(labels) != rows:
            raise ArgumentError("labels", f"must hold one class a sample: {rows}, got {len(labels)}")
        run_sweep(model.link, inputs, labels, spec, progress=tell, watch=watch)

    def tell(point: SweepPoint, done: int, total: int) -> None:
        loop.call_soon_threadsafe(points.put_nowait, point)

    def watch(states: Any) -> None:
        if gone.is_set():
            raise _Cancelled

    task = asyncio.create_task(model.apart(run, Caller(nbytes=request.ByteSize())))
    task.add_done_callback(lambda _: points.put_nowait(None))
    done = 0
    try:
        while (point := await points.get()) is not None:
            done += 1
            response = pb.SweepResponse(
                point=_point(point), points_done=done, points=len(spec.snr_db), model_version=model.version
            )
            await asyncio.wait_for(context.write(response), limits.stall_s)
        await task
    finally:
        gone.set()


def _spec(request: pb.SweepRequest) -> SweepSpec:
    given = request.settings
    if given.HasField("snr_db"):
        raise ArgumentError("settings.snr_db", "must be absent: the points are in snr_db")
    for name in ("sample_offset", "draw"):
        if getattr(given, name):
            raise ArgumentError(f"settings.{name}", f"must be 0: the sweep sets it, got {getattr(given, name)}")
    if not 1 <= len(request.snr_db) <= POINTS_MAX:
        raise ArgumentError("snr_db", f"must hold 1 to {POINTS_MAX} points, got {len(request.snr_db)}")
    return SweepSpec(
        snr_db=tuple(request.snr_db),
        channel=given.channel or "awgn",
        block_symbols=given.block_symbols,
        k_factor_db=given.k_factor_db if given.HasField("k_factor_db") else K_FACTOR_DB,
        csi=given.csi or "perfect",
        pilots=given.pilots,
        no_offset_db=given.no_offset_db,
        seed=given.seed,
        snr_error_db=given.snr_error_db,
        draws=request.draws or 1,
        target_errors=request.target_errors or None,
        rel_width=request.rel_width or None,
        confidence=request.confidence or CONFIDENCE,
    )


def _point(point: SweepPoint) -> pb.SweepPoint:
    return pb.SweepPoint(
        snr_db=point.snr_db,
        samples=point.samples,
        draws=point.draws,
        correct=point.correct,
        accuracy=_rate(point.accuracy),
        accuracy_noise=_rate(point.accuracy_noise),
        bit_errors=point.bit_errors,
        bits=point.bits,
        ber=None if point.ber is None else _rate(point.ber),
        symbols_per_sample=point.symbols_per_sample,
        bits_per_sample=point.bits_per_sample,
        mean_abs_llr=point.mean_abs_llr,
        stopped_by=point.stopped_by.value,
    )


def _rate(proportion: Proportion) -> pb.Rate:
    return pb.Rate(value=proportion.value, low=proportion.low, high=proportion.high)
