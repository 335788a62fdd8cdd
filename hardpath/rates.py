"""What a server did between two looks at its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from serve.telemetry.snapshot import OperationSnapshot, Snapshot

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


class Rates(NamedTuple):
    """One operation over an interval; None where nothing happened that the figure could be of.

    Attributes
    ----------
    name : str
    version : int
    requests_s, rows_s, bits_s : float
        Answered and sent, a second.
    rows_per_run : float or None
        Mean.
    waiting, streams, sweeps : int
        Requests that wait, streams that are open and sweeps that run, now.
    queue_ms : float or None
        Mean wait of those that were answered.
    p50_ms, p99_ms : float or None
        Of the time from receipt to reply.
    refused_s, failed_s : float
        Refused since the queue was full, and failed for any other reason, a second.
    wasted : float or None
        Of the requests that were run, the share whose caller had gone.
    snr_db : float or None
        Mean Es/N0 of the requests, dB.
    """

    name: str
    version: int
    requests_s: float
    rows_s: float
    rows_per_run: float | None
    waiting: int
    streams: int
    sweeps: int
    queue_ms: float | None
    p50_ms: float | None
    p99_ms: float | None
    refused_s: float
    failed_s: float
    wasted: float | None
    bits_s: float
    snr_db: float | None


def is_restart(now: Snapshot, before: Snapshot) -> bool:
    """Whether the server started anew between two looks."""
    return now.start_time != before.start_time or now.uptime_s < before.uptime_s


def rates(now: Snapshot, before: Snapshot) -> tuple[Rates, ...]:
    """What each operation did between two looks at one server."""
    seconds = max(now.uptime_s - before.uptime_s, 1e-9)
    earlier = {operation.name: operation for operation in before.operations}
    return tuple(_rates(operation, earlier.get(operation.name), seconds) for operation in now.operations)


def _rates(now: OperationSnapshot, before: OperationSnapshot | None, seconds: float) -> Rates:
    def added(name: str) -> int:
        total: int = getattr(now, name)
        return total if before is None else total - getattr(before, name)

    durations, snr, batches = now.durations_ns, now.snr_db, now.batch_rows
    refused, failed = now.failures.overload, sum(now.failures)
    if before is not None:
        durations, snr = durations.since(before.durations_ns), snr.since(before.snr_db)
        batches = batches.since(before.batch_rows)
        refused, failed = refused - before.failures.overload, failed - sum(before.failures)
    answered, executed = added("successes"), added("executed_requests")
    return Rates(
        name=now.name,
        version=now.version,
        requests_s=answered / seconds,
        rows_s=added("rows") / seconds,
        rows_per_run=batches.mean,
        waiting=now.pending_requests,
        streams=now.streams,
        sweeps=now.sweeps,
        queue_ms=1e-6 * added("queue_ns") / answered if answered else None,
        p50_ms=_milliseconds(durations.quantile(0.5)),
        p99_ms=_milliseconds(durations.quantile(0.99)),
        refused_s=refused / seconds,
        failed_s=(failed - refused) / seconds,
        wasted=added("wasted_requests") / executed if executed else None,
        bits_s=added("bits") / seconds,
        snr_db=snr.mean,
    )


def _milliseconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else 1e-6 * nanoseconds


def sparkline(values: Sequence[float | None]) -> str:
    """Values as bars, the largest as high as the line; nothing where one is not known.

    Examples
    --------
    >>> sparkline([0.0, 1.0, None, 4.0, 8.0])
    '▁▁ ▄█'
    """
    highest = max((value for value in values if value is not None), default=0.0)
    steps = len(_BLOCKS) - 1
    return "".join(
        " " if value is None else _BLOCKS[max(1, round(steps * value / highest) if highest > 0.0 else 1)]
        for value in values
    )
