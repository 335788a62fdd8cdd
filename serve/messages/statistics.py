"""A snapshot as a message of AdminService and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from serve.pb.hardpath.v1 import admin_pb2 as pb
from serve.results import RadioState
from serve.telemetry.histogram import Histogram
from serve.telemetry.snapshot import ChannelSamples, Failures, ModelSnapshot, OperationSnapshot, Snapshot

_HISTOGRAMS: Final = ("durations_ns", "failed_durations_ns", "batch_rows", "snr_db")
_PLAIN: Final = tuple(
    field.name
    for field in fields(OperationSnapshot)
    if field.name not in (*_HISTOGRAMS, "failures", "channels")  # the same name and type in the message
)
_SECOND_NS: Final = 1_000_000_000


def snapshot_to_message(snapshot: Snapshot) -> pb.Statistics:
    """What a server has counted, as it is sent."""
    message = pb.Statistics(
        uptime_s=snapshot.uptime_s,
        operations=[_operation_to_message(operation) for operation in snapshot.operations],
        models=[pb.ModelStatistics(**model._asdict()) for model in snapshot.models],
        failures=pb.FailureCounts(**snapshot.failures._asdict()),
        in_flight_requests=snapshot.in_flight_requests,
        in_flight_bytes=snapshot.in_flight_bytes,
        loop_lag_ns=_histogram_to_message(snapshot.loop_lag_ns),
        radio=None if snapshot.radio is None else pb.RadioStatistics(**snapshot.radio._asdict()),
    )
    message.start_time.FromNanoseconds(round(_SECOND_NS * snapshot.start_time))
    return message


def snapshot_from_message(message: pb.Statistics) -> Snapshot:
    """Inverse of `snapshot_to_message`, the start to the microsecond."""
    return Snapshot(
        start_time=message.start_time.ToNanoseconds() / _SECOND_NS,
        uptime_s=message.uptime_s,
        operations=tuple(_operation_from_message(operation) for operation in message.operations),
        models=tuple(ModelSnapshot(model.name, model.version, model.swaps, model.refusals) for model in message.models),
        failures=_failures_from_message(message.failures),
        in_flight_requests=message.in_flight_requests,
        in_flight_bytes=message.in_flight_bytes,
        loop_lag_ns=_histogram_from_message(message.loop_lag_ns),
        radio=_radio_from_message(message.radio) if message.HasField("radio") else None,
    )


def _operation_to_message(operation: OperationSnapshot) -> pb.OperationStatistics:
    same: dict[str, Any] = {name: getattr(operation, name) for name in _PLAIN}
    histograms: dict[str, Any] = {name: _histogram_to_message(getattr(operation, name)) for name in _HISTOGRAMS}
    return pb.OperationStatistics(
        **same,
        **histograms,
        failures=pb.FailureCounts(**operation.failures._asdict()),
        channels=[pb.ChannelSamples(channel=channel, samples=samples) for channel, samples in operation.channels],
    )


def _operation_from_message(message: pb.OperationStatistics) -> OperationSnapshot:
    same: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN}
    histograms: dict[str, Any] = {name: _histogram_from_message(getattr(message, name)) for name in _HISTOGRAMS}
    return OperationSnapshot(
        **same,
        **histograms,
        failures=_failures_from_message(message.failures),
        channels=tuple(ChannelSamples(item.channel, item.samples) for item in message.channels),
    )


def _radio_from_message(message: pb.RadioStatistics) -> RadioState:
    return RadioState(**{name: getattr(message, name) for name in RadioState._fields})


def _failures_from_message(message: pb.FailureCounts) -> Failures:
    return Failures(**{name: getattr(message, name) for name in Failures._fields})


def _histogram_to_message(histogram: Histogram) -> pb.Histogram:
    return pb.Histogram(bounds=histogram.bounds, counts=histogram.counts, total=histogram.total)


def _histogram_from_message(message: pb.Histogram) -> Histogram:
    return Histogram(tuple(message.bounds), tuple(message.counts), message.total)
