"""What the server counts about itself. Plain additions in the thread of the event loop; knows no gRPC and no exporter.

    engine, servicers ── succeeded, failed, executed, sent ──> Operation ── Statistics.snapshot() ──> metrics, AdminService

A call is recorded once, when it has ended, and that costs about a microsecond. Only the event loop's thread may record. Any
thread may take a snapshot: under the interpreter's lock each number in it is one that was there, but two numbers may be some
calls apart.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from serve.results import RadioState
from serve.telemetry.histogram import DURATION_BOUNDS_NS, ROWS_BOUNDS, SNR_BOUNDS_DB, Histogram
from serve.telemetry.snapshot import (
    REASONS,
    ChannelSamples,
    Failures,
    ModelSnapshot,
    OperationSnapshot,
    Reason,
    Snapshot,
)

LAG_PERIOD_S: Final = 0.25


class Operation:
    """Counters of one operation of a model; see OperationSnapshot for what each means.

    Attributes
    ----------
    name : str
    waiting : callable
        Tells how many requests wait to run; asked at each snapshot, in its thread.
    """

    __slots__ = (
        "_batches",
        "_bits",
        "_channels",
        "_durations",
        "_executed_requests",
        "_executed_rows",
        "_executions",
        "_failed_durations",
        "_failed_ns",
        "_failures",
        "_infer_ns",
        "_input_ns",
        "_output_ns",
        "_queue_ns",
        "_rows",
        "_snr",
        "_snr_db",
        "_streams",
        "_successes",
        "_sweeps",
        "_symbols",
        "_total_ns",
        "_wasted_executions",
        "_wasted_requests",
        "name",
        "waiting",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: Callable[[], int] = int
        self._successes = self._rows = 0
        self._failures: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._queue_ns = self._input_ns = self._infer_ns = self._output_ns = self._total_ns = self._failed_ns = 0
        self._durations = [0] * (len(DURATION_BOUNDS_NS) + 1)
        self._failed_durations = [0] * (len(DURATION_BOUNDS_NS) + 1)
        self._executions = self._executed_requests = self._executed_rows = 0
        self._wasted_executions = self._wasted_requests = 0
        self._batches = [0] * (len(ROWS_BOUNDS) + 1)
        self._bits = self._symbols = 0
        self._snr = [0] * (len(SNR_BOUNDS_DB) + 1)
        self._snr_db = 0.0
        self._channels: dict[str, int] = {}
        self._streams = self._sweeps = 0

    def succeeded(self, rows: int, queue_ns: int, input_ns: int, infer_ns: int, output_ns: int, total_ns: int) -> None:
        """A request was answered: its rows, where its time went, and all of it from receipt to reply."""
        self._successes += 1
        self._rows += rows
        self._queue_ns += queue_ns
        self._input_ns += input_ns
        self._infer_ns += infer_ns
        self._output_ns += output_ns
        self._total_ns += total_ns
        self._durations[bisect_left(DURATION_BOUNDS_NS, total_ns)] += 1

    def failed(self, reason: Reason, total_ns: int) -> None:
        """A request was answered with a status other than OK, `total_ns` after its receipt."""
        self._failures[reason] += 1
        self._failed_ns += total_ns
        self._failed_durations[bisect_left(DURATION_BOUNDS_NS, total_ns)] += 1

    def executed(self, rows: int, requests: int = 1, wasted: int = 0) -> None:
        """A batch of at least one row ran; of `wasted` requests the caller had gone or the deadline passed when it ended."""
        self._executions += 1
        self._executed_requests += requests
        self._executed_rows += rows
        self._batches[min((rows - 1).bit_length(), len(ROWS_BOUNDS))] += 1
        if wasted:
            self._wasted_requests += wasted
            self._wasted_executions += wasted >= requests

    def sent(
        self, bits: int, symbols: int, samples: int, snr_db: float | None = None, channel: str | None = None
    ) -> None:
        """A request's samples became bits and symbols and, where a channel is given, went over it at Es/N0 `snr_db`.

        `channel` must be one that exists: each name takes room for as long as the server runs.
        """
        self._bits += bits
        self._symbols += symbols
        if snr_db is not None:
            self._snr[bisect_left(SNR_BOUNDS_DB, snr_db)] += 1
            self._snr_db += snr_db
        if channel is not None:
            self._channels[channel] = self._channels.get(channel, 0) + samples

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A stream is open while the block runs."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    @contextmanager
    def sweep(self) -> Iterator[None]:
        """A sweep is under way while the block runs."""
        self._sweeps += 1
        try:
            yield
        finally:
            self._sweeps -= 1

    def snapshot(self, version: int = 0) -> OperationSnapshot:
        """What was counted up to now; `version` is of the model that answers."""
        return OperationSnapshot(
            name=self.name,
            version=version,
            successes=self._successes,
            failures=Failures(**self._failures),
            rows=self._rows,
            executions=self._executions,
            executed_requests=self._executed_requests,
            executed_rows=self._executed_rows,
            wasted_executions=self._wasted_executions,
            wasted_requests=self._wasted_requests,
            queue_ns=self._queue_ns,
            input_ns=self._input_ns,
            infer_ns=self._infer_ns,
            output_ns=self._output_ns,
            durations_ns=Histogram(DURATION_BOUNDS_NS, tuple(self._durations), self._total_ns),
            failed_durations_ns=Histogram(DURATION_BOUNDS_NS, tuple(self._failed_durations), self._failed_ns),
            batch_rows=Histogram(ROWS_BOUNDS, tuple(self._batches), self._executed_rows),
            bits=self._bits,
            symbols=self._symbols,
            snr_db=Histogram(SNR_BOUNDS_DB, tuple(self._snr), self._snr_db),
            channels=tuple(ChannelSamples(*item) for item in sorted(self._channels.copy().items())),
            pending_requests=self.waiting(),
            streams=self._streams,
            sweeps=self._sweeps,
        )


class InFlight(NamedTuple):
    """Requests that were let in and are not answered yet, and the bytes of their messages."""

    requests: int = 0
    nbytes: int = 0


class Statistics:
    """All counters of a server.

    Parameters
    ----------
    in_flight : callable
        Asked at each snapshot.

    Attributes
    ----------
    radio : callable
        Tells how the radio is, None where there is none; asked at each snapshot, in its thread.
    """

    def __init__(self, in_flight: Callable[[], InFlight] = InFlight) -> None:
        self.radio: Callable[[], RadioState | None] = lambda: None
        self._in_flight = in_flight
        self._start_time = time.time()
        self._start = time.monotonic()
        self._operations: dict[str, Operation] = {}
        self._models: dict[str, ModelSnapshot] = {}
        self._failures: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._lags = [0] * (len(DURATION_BOUNDS_NS) + 1)
        self._lag_ns = 0

    def operation(self, name: str) -> Operation:
        """Counters of `MODEL.transmitter`, `MODEL.receiver` or `MODEL.link`, made where there are none yet.

        Ask for them where a model is loaded and keep them with it. Never ask with a name that came in a request and is not
        known: each takes room for as long as the server runs.
        """
        found = self._operations.get(name)
        if found is None:
            found = self._operations[name] = Operation(name)
        return found

    def failed(self, reason: Reason) -> None:
        """A request failed before it reached an operation: a refused caller, a model that is not there."""
        self._failures[reason] += 1

    def loaded(self, model: str, version: int) -> None:
        """A bundle answers for `model` from now on; a swap where another one did before."""
        before = self._models.get(model)
        self._models[model] = (
            ModelSnapshot(model, version, 0, 0)
            if before is None
            else before._replace(version=version, swaps=before.swaps + (before.version > 0))
        )

    def refused(self, model: str) -> None:
        """A new bundle for `model` was refused; the one before goes on."""
        before = self._models.get(model, ModelSnapshot(model, 0, 0, 0))
        self._models[model] = before._replace(refusals=before.refusals + 1)

    def lagged(self, lag_ns: int) -> None:
        """The event loop woke a task `lag_ns` later than asked for."""
        self._lags[bisect_left(DURATION_BOUNDS_NS, lag_ns)] += 1
        self._lag_ns += lag_ns

    async def watch_loop(self, period_s: float = LAG_PERIOD_S) -> None:
        """Measure the event loop's lag until cancelled: what every call in it waits on top of its own work."""
        while True:
            due = time.perf_counter_ns() + round(1e9 * period_s)
            await asyncio.sleep(period_s)
            self.lagged(max(0, time.perf_counter_ns() - due))

    def snapshot(self) -> Snapshot:
        """What was counted up to now."""
        models = self._models.copy()
        in_flight = self._in_flight()
        return Snapshot(
            start_time=self._start_time,
            uptime_s=time.monotonic() - self._start,
            operations=tuple(
                operation.snapshot(models[model].version if (model := _model_of(name)) in models else 0)
                for name, operation in sorted(self._operations.copy().items())
            ),
            models=tuple(model for _, model in sorted(models.items())),
            failures=Failures(**self._failures),
            in_flight_requests=in_flight.requests,
            in_flight_bytes=in_flight.nbytes,
            loop_lag_ns=Histogram(DURATION_BOUNDS_NS, tuple(self._lags), self._lag_ns),
            radio=self.radio(),
        )


def _model_of(operation: str) -> str:
    return operation.rpartition(".")[0]
