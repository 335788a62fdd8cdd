"""Sweep of hardpath.v1: a data set over a grid of SNRs, beside the batches; points are sent as they end.

Loaded when a sweep is first asked for: the intervals need SciPy, which takes a while.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Final

import grpc
import numpy as np

from link.channel import RADIO
from link.errors import ArgumentError, require_range
from link.montecarlo import CONFIDENCE, Proportion
from link.semantic import clean_decisions
from link.simulator.rule import BLOCKS_MAX
from link.sweep import SweepPoint, SweepSpec
from link.sweep import sweep as run_sweep
from serve.engine.batcher import Caller
from serve.engine.channels import channel_of
from serve.engine.model import Model
from serve.messages import convert
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.services.streams import PeerGone, StreamLimits, drop, write
from serve.telemetry.statistics import Operation

POINTS_MAX: Final = 1000
K_FACTOR_DB: Final = 6.0

Context = grpc.aio.ServicerContext[Any, Any]


class _Cancelled(Exception):
    """The caller of a sweep is gone."""


async def sweep(
    model: Model, request: pb.SweepRequest, context: Context, limits: StreamLimits, counted: Operation
) -> int:
    """Run a sweep beside the batches, and write each point as it ends; how many samples were sent.

    Where the caller goes, a sweep that waits never runs, and one that runs ends with the block that it is at.

    Raises
    ------
    ArgumentError
        If an argument is wrong.
    Overloaded
        If as many long calls wait as may.
    """
    spec = _spec(request)
    inputs = convert.inputs_from_message(request.inputs)
    loop = asyncio.get_running_loop()
    points: asyncio.Queue[SweepPoint | None] = asyncio.Queue()
    gone = threading.Event()

    def run() -> None:
        labels = np.array(request.labels, dtype=np.int64) if request.labels else clean_decisions(model.link, inputs)
        if model.link.manifest.task.text is not None:
            labels = labels.reshape(-1, model.link.manifest.task.positions)
        watch(None)
        run_sweep(model.link, inputs, labels, spec, progress=tell, watch=watch)

    def tell(point: SweepPoint, done: int, total: int) -> None:
        loop.call_soon_threadsafe(points.put_nowait, point)

    def ended(task: asyncio.Task[None]) -> None:
        points.put_nowait(None)
        if not task.cancelled():
            task.exception()  # looked at, lest one that nobody waits for any more be logged as a defect

    def watch(states: Any) -> None:
        if gone.is_set():
            raise _Cancelled

    task = asyncio.create_task(model.apart(run, Caller(nbytes=request.ByteSize())))
    task.add_done_callback(ended)
    done = samples = 0
    try:
        while (point := await points.get()) is not None:
            done += 1
            samples += point.receptions
            counted.sent(point.bits, point.symbols + point.header_symbols, point.receptions, point.snr_db, spec.channel)
            response = pb.SweepResponse(
                point=_point(point),
                points_done=done,
                points=len(spec.snr_db),
                model_version=model.version,
                model_digest=model.id.digest,
            )
            await write(context, response, limits.stall_s)
        await task
    except TimeoutError:
        await drop(context, f"no point was taken for {limits.stall_s:g} s")
    except PeerGone:
        pass  # nobody is left to be told
    finally:
        gone.set()
        task.cancel()
        del task  # its error's traceback holds this frame: no ring, no garbage
    return samples


def _spec(request: pb.SweepRequest) -> SweepSpec:
    given = request.settings
    if given.HasField("snr_db"):
        raise ArgumentError("settings.snr_db", "must be absent: the points are in snr_db")
    for name in ("sample_offset", "draw"):
        if getattr(given, name):
            raise ArgumentError(f"settings.{name}", f"must be 0: the sweep sets it, got {getattr(given, name)}")
    if not 1 <= len(request.snr_db) <= POINTS_MAX:
        raise ArgumentError("snr_db", f"must hold 1 to {POINTS_MAX} points, got {len(request.snr_db)}")
    if given.channel == RADIO:
        raise ArgumentError(
            "settings.channel", "must be a simulated one for a sweep: send over a radio by Transmit, point by point"
        )
    channel_of(
        given.channel or "awgn",
        given.block_symbols,
        given.k_factor_db if given.HasField("k_factor_db") else None,
        given.csi or "perfect",
        given.pilots,
        given.no_offset_db,
    )  # refuses an option that the channel has no use for, as Transmit does
    require_range("draws", request.draws or 1, 1, BLOCKS_MAX)
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
