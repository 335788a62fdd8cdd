"""A snapshot as Prometheus' metric families; computed when scraped, so a call costs nothing.

Triton's names where they mean the same, so that its dashboards and alerts work: durations are sums in microseconds, and no
name ends in `_total`. OpenMetrics lets no counter be called so; rather than rename what others know, these are exposed with
the type `unknown` (`untyped` in the older format), which makes no difference to a query. Names of hardpath's own follow the
rules of Prometheus: base units, and counters in `_total`.

The label `model` is the operation (`digits.link`), `version` that of the model which answers now. Counts go on over a change
of version: a swap ends one series and begins another where that one stood.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from serve.results import RadioState
from serve.telemetry.histogram import Histogram
from serve.telemetry.snapshot import OperationSnapshot, Reason, Snapshot

NANOSECONDS: Final = 1e-9

TRITON_REASONS: Final[dict[Reason, str]] = {
    "overload": "REJECTED",
    "expired": "REJECTED",
    "cancelled": "CANCELED",
    "internal": "BACKEND",
    "invalid": "OTHER",
    "denied": "OTHER",
}
"""What Triton calls a failure; the label `cause` tells apart what it calls alike."""


class Series(NamedTuple):
    """One number of each operation.

    Attributes
    ----------
    family : type
        Of prometheus_client.
    name, documentation : str
    value : callable
        Of an operation.
    """

    family: type[CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily]
    name: str
    documentation: str
    value: Callable[[OperationSnapshot], float]


class Buckets(NamedTuple):
    """One histogram of each operation."""

    name: str
    documentation: str
    value: Callable[[OperationSnapshot], Histogram]


SERIES: Final = (
    Series(UnknownMetricFamily, "nv_inference_request_success", "Requests that were answered.", lambda o: o.successes),
    Series(UnknownMetricFamily, "nv_inference_count", "Samples in the requests that were answered.", lambda o: o.rows),
    Series(UnknownMetricFamily, "nv_inference_exec_count", "Runs on a batch.", lambda o: o.executions),
    Series(
        UnknownMetricFamily,
        "nv_inference_request_duration_us",
        "Time from receipt to reply, microseconds, summed over the requests that were answered.",
        lambda o: o.durations_ns.total // 1000,
    ),
    Series(
        UnknownMetricFamily,
        "nv_inference_queue_duration_us",
        "Time waiting to run, microseconds, summed over the requests that were answered.",
        lambda o: o.queue_ns // 1000,
    ),
    Series(
        UnknownMetricFamily,
        "nv_inference_compute_input_duration_us",
        "Time reading requests, microseconds, summed over those that were answered.",
        lambda o: o.input_ns // 1000,
    ),
    Series(
        UnknownMetricFamily,
        "nv_inference_compute_infer_duration_us",
        "Time computing, microseconds, summed over the requests that were answered.",
        lambda o: o.infer_ns // 1000,
    ),
    Series(
        UnknownMetricFamily,
        "nv_inference_compute_output_duration_us",
        "Time writing replies, microseconds, summed over the requests that were answered.",
        lambda o: o.output_ns // 1000,
    ),
    Series(
        GaugeMetricFamily,
        "nv_inference_pending_request_count",
        "Requests that wait to run.",
        lambda o: o.pending_requests,
    ),
    Series(CounterMetricFamily, "hardpath_executed_rows_total", "Rows of all runs.", lambda o: o.executed_rows),
    Series(
        CounterMetricFamily,
        "hardpath_executed_requests_total",
        "Requests in all runs.",
        lambda o: o.executed_requests,
    ),
    Series(
        CounterMetricFamily,
        "hardpath_wasted_executions_total",
        "Runs whose every caller had gone, or whose deadline had passed, when they ended.",
        lambda o: o.wasted_executions,
    ),
    Series(
        CounterMetricFamily,
        "hardpath_wasted_requests_total",
        "Requests whose caller had gone, or whose deadline had passed, when their run ended.",
        lambda o: o.wasted_requests,
    ),
    Series(CounterMetricFamily, "hardpath_bits_total", "Payload bits sent.", lambda o: o.bits),
    Series(
        CounterMetricFamily,
        "hardpath_symbols_total",
        "Symbols sent, padding and headers included.",
        lambda o: o.symbols,
    ),
    Series(GaugeMetricFamily, "hardpath_streams", "Streams that are open.", lambda o: o.streams),
    Series(GaugeMetricFamily, "hardpath_sweeps", "Sweeps that are running.", lambda o: o.sweeps),
)
HISTOGRAMS: Final = (
    Buckets("hardpath_batch_rows", "Rows of a run.", lambda o: o.batch_rows),
    Buckets("hardpath_snr_db", "Es/N0 of requests that asked for a channel, dB.", lambda o: o.snr_db),
)
DURATIONS: Final = "hardpath_request_duration_seconds"


class StatisticsCollector(Collector):
    """Yields the families one by one.

    Parameters
    ----------
    snapshot : callable
        Statistics.snapshot.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        for series in SERIES:
            family = series.family(series.name, series.documentation, labels=("model", "version"))
            for operation in snapshot.operations:
                family.add_metric(_labels(operation), series.value(operation))
            yield family
        yield _failures(snapshot.operations)
        for buckets in HISTOGRAMS:
            histograms = HistogramMetricFamily(buckets.name, buckets.documentation, labels=("model", "version"))
            for operation in snapshot.operations:
                _add(histograms, _labels(operation), buckets.value(operation))
            yield histograms
        yield _durations(snapshot.operations)
        yield _channels(snapshot.operations)
        yield from _of_the_server(snapshot)
        if snapshot.radio is not None:
            yield from _of_the_radio(snapshot.radio)

    def describe(self) -> Iterable[Metric]:
        return ()


def _labels(operation: OperationSnapshot) -> tuple[str, str]:
    return operation.name, str(operation.version)


def _failures(operations: Iterable[OperationSnapshot]) -> Metric:
    family = UnknownMetricFamily(
        "nv_inference_request_failure",
        "Requests that failed, by Triton's reason and by the cause behind it.",
        labels=("model", "version", "reason", "cause"),
    )
    for operation in operations:
        for cause, reason in TRITON_REASONS.items():
            family.add_metric((*_labels(operation), reason, cause), getattr(operation.failures, cause))
    return family


def _durations(operations: Iterable[OperationSnapshot]) -> Metric:
    family = HistogramMetricFamily(
        DURATIONS, "Time from receipt to reply, or to the status of a failure.", labels=("model", "version", "outcome")
    )
    for operation in operations:
        _add(family, (*_labels(operation), "success"), operation.durations_ns, NANOSECONDS)
        _add(family, (*_labels(operation), "failure"), operation.failed_durations_ns, NANOSECONDS)
    return family


def _channels(operations: Iterable[OperationSnapshot]) -> Metric:
    family = CounterMetricFamily(
        "hardpath_channel_samples_total", "Samples sent, by channel.", labels=("model", "version", "channel")
    )
    for operation in operations:
        for channel, samples in operation.channels:
            family.add_metric((*_labels(operation), channel), samples)
    return family


def _of_the_server(snapshot: Snapshot) -> Iterator[Metric]:
    unrouted = CounterMetricFamily(
        "hardpath_unrouted_failures_total",
        "Requests that failed before they reached an operation: refused callers, models that are not there.",
        labels=("cause",),
    )
    for cause, count in snapshot.failures._asdict().items():
        unrouted.add_metric((cause,), count)
    yield unrouted
    version = GaugeMetricFamily("hardpath_model_version", "Version of the model that is served.", labels=("model",))
    swaps = CounterMetricFamily("hardpath_model_swaps_total", "Times that a new bundle took over.", labels=("model",))
    refusals = CounterMetricFamily(
        "hardpath_model_refusals_total",
        "Times that a new bundle was refused and the old one went on.",
        labels=("model",),
    )
    for model in snapshot.models:
        version.add_metric((model.name,), model.version)
        swaps.add_metric((model.name,), model.swaps)
        refusals.add_metric((model.name,), model.refusals)
    yield from (version, swaps, refusals)
    lag = HistogramMetricFamily(
        "hardpath_event_loop_lag_seconds", "How much later than asked for the event loop woke a task.", labels=()
    )
    _add(lag, (), snapshot.loop_lag_ns, NANOSECONDS)
    yield lag
    yield GaugeMetricFamily(
        "hardpath_in_flight_requests",
        "Requests that were let in and are not answered yet.",
        value=snapshot.in_flight_requests,
    )
    yield GaugeMetricFamily("hardpath_in_flight_bytes", "Bytes of their messages.", value=snapshot.in_flight_bytes)
    yield GaugeMetricFamily("hardpath_uptime_seconds", "Since the server started.", value=snapshot.uptime_s)
    yield GaugeMetricFamily("hardpath_threads", "Threads that Python knows of.", value=threading.active_count())


def _of_the_radio(radio: RadioState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "hardpath_radio_up", "Whether the radio was there when it was last used or looked at.", value=radio.up
    )
    yield GaugeMetricFamily("hardpath_radio_waiting", "Calls that wait for their turn on it.", value=radio.waiting)
    for name, documentation, value in (
        ("exchanges", "Bursts sent and received.", radio.exchanges),
        ("errors", "Calls that failed since the radio was not there, or went away.", radio.errors),
        ("frames", "Frames sent.", radio.frames),
        ("frames_lost", "Frames that the receiver did not find.", radio.frames_lost),
        ("crc_failed", "Frames that it found, with a payload that is not whole.", radio.crc_failed),
    ):
        yield CounterMetricFamily(f"hardpath_radio_{name}_total", documentation, value=value)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram, scale: float = 1.0) -> None:
    """One more histogram; `scale` brings its bounds and its sum to the unit of the family."""
    bounds = (floatToGoString(float(f"{bound * scale:g}")) for bound in histogram.bounds)  # type: ignore[no-untyped-call]
    pairs = list(zip((*bounds, "+Inf"), histogram.cumulative, strict=True))
    family.add_metric(labels, buckets=pairs, sum_value=histogram.total * scale)
