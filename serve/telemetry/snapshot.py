"""What a server has counted up to one moment: frozen, for exporters and converters to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from serve.results import RadioState
from serve.telemetry.histogram import Histogram

Reason = Literal["invalid", "overload", "expired", "cancelled", "internal", "denied"]
"""Why a request failed: a wrong argument; refused since the queue was full; its deadline passed; its caller gave up; a fault
of the server; a caller without the permission."""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


class Failures(NamedTuple):
    """Requests that failed, by reason."""

    invalid: int = 0
    overload: int = 0
    expired: int = 0
    cancelled: int = 0
    internal: int = 0
    denied: int = 0


class ChannelSamples(NamedTuple):
    """Samples that went over one channel."""

    channel: str
    samples: int


@dataclass(frozen=True)
class OperationSnapshot:
    """One operation of a model: `NAME.transmitter`, `NAME.receiver` or `NAME.link`.

    Counts are since the server started, over all versions of the model; times are sums in nanoseconds over the requests that
    succeeded, and divided by their number they are means.

    Attributes
    ----------
    name : str
    version : int
        Of the model that answers now; 0 where none was announced.
    successes : int
        Requests that were answered.
    failures : Failures
    rows : int
        Samples in the requests that were answered.
    executions, executed_requests, executed_rows : int
        Runs of the operation on a batch, and the requests and rows in them.
    wasted_executions, wasted_requests : int
        Of these, runs whose every caller had gone, or whose deadline had passed, when they ended; and such requests.
    queue_ns, input_ns, infer_ns, output_ns : int
        Waiting to run; reading the request; computing; writing the reply.
    durations_ns, failed_durations_ns : Histogram
        From receipt to reply of a request that succeeded, and from receipt to status of one that failed.
    batch_rows : Histogram
        Rows of each execution.
    bits, symbols : int
        Payload bits and symbols sent, padding and headers included in the latter.
    snr_db : Histogram
        Es/N0 in dB of each request that asked for a channel.
    channels : tuple of ChannelSamples
    pending_requests : int
        Waiting to run, now.
    streams, sweeps : int
        Open and running, now.
    """

    name: str
    version: int
    successes: int
    failures: Failures
    rows: int
    executions: int
    executed_requests: int
    executed_rows: int
    wasted_executions: int
    wasted_requests: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    durations_ns: Histogram
    failed_durations_ns: Histogram
    batch_rows: Histogram
    bits: int
    symbols: int
    snr_db: Histogram
    channels: tuple[ChannelSamples, ...]
    pending_requests: int
    streams: int
    sweeps: int


class ModelSnapshot(NamedTuple):
    """A model that is served.

    Attributes
    ----------
    name : str
    version : int
        Served now.
    swaps : int
        Times that a new bundle took over from the one before.
    refusals : int
        Times that a new bundle was refused and the one before went on.
    """

    name: str
    version: int
    swaps: int
    refusals: int


@dataclass(frozen=True)
class Snapshot:
    """All that a server counts.

    Attributes
    ----------
    start_time : float
        When the server started, seconds since 1970-01-01 UTC.
    uptime_s : float
        Seconds since, by a clock that is never set.
    operations : tuple of OperationSnapshot
        By name.
    models : tuple of ModelSnapshot
        By name.
    failures : Failures
        Requests that failed before they reached an operation: refused callers, models that are not there.
    in_flight_requests, in_flight_bytes : int
        Requests that were let in and are not answered yet, and the size of their messages, now.
    loop_lag_ns : Histogram
        How much later than asked for the event loop woke a task.
    radio : RadioState, optional
        None where the server has no radio.
    """

    start_time: float
    uptime_s: float
    operations: tuple[OperationSnapshot, ...]
    models: tuple[ModelSnapshot, ...]
    failures: Failures
    in_flight_requests: int
    in_flight_bytes: int
    loop_lag_ns: Histogram
    radio: RadioState | None = None
