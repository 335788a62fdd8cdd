"""Counters: what is recorded is what a snapshot says."""

import asyncio
import random
import threading
from contextlib import suppress

import numpy as np
import pytest

from serve.telemetry.histogram import DURATION_BOUNDS_NS, ROWS_BOUNDS, SNR_BOUNDS_DB, Histogram
from serve.telemetry.snapshot import REASONS, ChannelSamples, Failures
from serve.telemetry.statistics import InFlight, Statistics

MS = 1_000_000


@pytest.fixture
def statistics():
    return Statistics()


@pytest.fixture
def link(statistics):
    return statistics.operation("digits.link")


def test_a_request_that_was_answered_adds_its_rows_and_its_times(link):
    link.succeeded(64, 1, 2, 3, 4, 10 * MS)
    link.succeeded(2, 10, 20, 30, 40, 30 * MS)
    found = link.snapshot()
    assert (found.successes, found.rows) == (2, 66)
    assert (found.queue_ns, found.input_ns, found.infer_ns, found.output_ns) == (11, 22, 33, 44)
    assert found.durations_ns.count == 2
    assert found.durations_ns.mean == 20 * MS
    assert found.failed_durations_ns.count == 0


@pytest.mark.parametrize("reason", REASONS)
def test_a_failure_is_counted_under_its_reason_and_not_as_an_answer(link, reason):
    link.failed(reason, 2 * MS)
    found = link.snapshot()
    assert found.failures == Failures(**{reason: 1})
    assert found.failed_durations_ns.total == 2 * MS
    assert (found.successes, found.durations_ns.count) == (0, 0)


def test_a_reason_that_there_is_not_is_no_new_reason(link):
    with pytest.raises(KeyError):
        link.failed("bored", 1)


def test_a_run_is_wasted_only_where_every_caller_had_gone(link):
    link.executed(64, requests=8, wasted=3)
    link.executed(5, requests=2, wasted=2)
    link.executed(1)
    found = link.snapshot()
    assert (found.executions, found.executed_requests, found.executed_rows) == (3, 11, 70)
    assert (found.wasted_executions, found.wasted_requests) == (1, 5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 63, 64, 65, 4096, 8192, 8193, 100_000])
def test_a_batch_falls_into_the_first_bucket_that_holds_it(link, rows):
    link.executed(rows)
    expected = next((index for index, bound in enumerate(ROWS_BOUNDS) if rows <= bound), len(ROWS_BOUNDS))
    assert link.snapshot().batch_rows.counts.index(1) == expected


@pytest.mark.parametrize("snr_db", [-30.0, -29.9, 0.0, 0.1, 12.0, 60.0])
def test_an_snr_falls_into_the_first_bucket_that_holds_it(link, snr_db):
    link.sent(90, 23, 6, snr_db, "awgn")
    expected = next(index for index, bound in enumerate(SNR_BOUNDS_DB) if snr_db <= bound)
    assert link.snapshot().snr_db.counts.index(1) == expected


def test_bits_and_symbols_are_counted_with_and_without_a_channel(link):
    link.sent(90, 23, 6, 12.0, "rayleigh")
    link.sent(30, 8, 2, 3.0, "awgn")
    link.sent(15, 4, 1, 3.0, "awgn")
    link.sent(15, 4, 1)
    found = link.snapshot()
    assert (found.bits, found.symbols) == (150, 39)
    assert found.channels == (ChannelSamples("awgn", 3), ChannelSamples("rayleigh", 6))
    assert found.snr_db.count == 3


def test_what_waits_is_asked_for_at_each_snapshot(link):
    assert link.snapshot().pending_requests == 0
    link.waiting = iter((3, 1)).__next__
    assert [link.snapshot().pending_requests for _ in range(2)] == [3, 1]


def test_streams_and_sweeps_are_counted_while_they_are_open_and_closed_by_an_error_too(link):
    with suppress(RuntimeError), link.stream(), link.sweep():
        assert (link.snapshot().streams, link.snapshot().sweeps) == (1, 1)
        raise RuntimeError("cut")
    assert (link.snapshot().streams, link.snapshot().sweeps) == (0, 0)


def test_an_operation_is_one_however_often_it_is_asked_for(statistics, link):
    assert statistics.operation("digits.link") is link
    assert [operation.name for operation in statistics.snapshot().operations] == ["digits.link"]


def test_operations_tell_the_version_that_their_model_has_now(statistics):
    for name in ("digits.v2.link", "digits.link", "texts.link"):
        statistics.operation(name).executed(1)
    statistics.loaded("digits", 1)
    statistics.loaded("digits.v2", 7)
    statistics.loaded("digits", 2)
    statistics.refused("digits")
    found = statistics.snapshot()
    assert [(operation.name, operation.version) for operation in found.operations] == [
        ("digits.link", 2), ("digits.v2.link", 7), ("texts.link", 0),
    ]  # fmt: skip
    assert found.models == (("digits", 2, 1, 1), ("digits.v2", 7, 0, 0))
    assert found.operations[0].executions == 1, "counts go on over a swap"


def test_the_first_bundle_after_a_refused_one_is_no_swap(statistics):
    statistics.refused("digits")
    statistics.loaded("digits", 1)
    assert statistics.snapshot().models == (("digits", 1, 0, 1),)


def test_failures_before_an_operation_are_the_servers(statistics):
    statistics.failed("denied")
    assert statistics.snapshot().failures == Failures(denied=1)


def test_what_is_in_flight_is_asked_for_at_each_snapshot():
    held = [InFlight(3, 300), InFlight()]
    statistics = Statistics(lambda: held.pop(0))
    first, second = statistics.snapshot(), statistics.snapshot()
    assert (first.in_flight_requests, first.in_flight_bytes) == (3, 300)
    assert (second.in_flight_requests, second.in_flight_bytes) == (0, 0)


def test_a_loop_that_is_held_up_is_seen_to_lag(statistics):
    held_s = 0.05

    async def hold():
        watch = asyncio.ensure_future(statistics.watch_loop(0.001))
        await asyncio.sleep(0)
        threading.Event().wait(held_s)  # blocks the loop
        while not statistics.snapshot().loop_lag_ns.count:
            await asyncio.sleep(0.001)
        watch.cancel()

    asyncio.run(hold())
    lag = statistics.snapshot().loop_lag_ns
    assert lag.total >= 1e9 * (held_s - 0.001)


def test_snapshots_of_another_thread_never_fail_while_the_loop_records(statistics):
    link = statistics.operation("digits.link")
    failures, done = [], threading.Event()

    def watch():
        while not done.is_set():
            try:
                statistics.snapshot()
            except RuntimeError as error:  # a dictionary that grew under it
                failures.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for index in range(2000):
        link.sent(1, 1, 1, 0.0, f"channel {index}")
        statistics.operation(f"model {index}.link").executed(1)
    done.set()
    watcher.join()
    assert not failures


def test_quantiles_lie_in_the_bucket_of_the_true_ones():
    draws = random.Random(3)
    values = sorted(round(1e6 * draws.lognormvariate(0.0, 1.0)) for _ in range(5000))
    statistics = Statistics()
    for value in values:
        statistics.lagged(value)
    found = statistics.snapshot().loop_lag_ns
    for q in (0.01, 0.5, 0.9, 0.99, 0.999):
        true = values[int(np.ceil(q * len(values))) - 1]
        bucket = np.searchsorted(DURATION_BOUNDS_NS, true)
        assert DURATION_BOUNDS_NS[bucket - 1] <= found.quantile(q) <= DURATION_BOUNDS_NS[bucket], q


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ((0, 0, 0), 0.5, None),
        ((4, 0, 0), 0.5, 0.5),
        ((0, 4, 0), 0.0, 1.0),
        ((0, 4, 0), 0.25, 1.25),
        ((0, 4, 0), 1.0, 2.0),
        ((2, 2, 0), 0.5, 1.0),
        ((0, 0, 4), 0.5, 2.0),
    ],
)
def test_a_quantile_is_linear_inside_its_bucket(counts, q, expected):
    assert Histogram((1, 2), counts, 0.0).quantile(q) == expected


def test_a_quantile_below_zero_starts_at_the_lowest_bound():
    assert Histogram((-30, -27), (2, 0, 0), -60.0).quantile(0.5) == -30


def test_the_difference_of_two_states_is_what_came_between():
    earlier, later = Histogram((1, 2), (1, 0, 2), 9.0), Histogram((1, 2), (4, 1, 2), 12.5)
    assert later.since(earlier) == Histogram((1, 2), (3, 1, 0), 3.5)
    assert later.since(earlier).mean == 3.5 / 4


def test_bounds_ascend_and_no_bucket_of_durations_is_much_wider_than_the_series_has_it():
    for bounds in (DURATION_BOUNDS_NS, ROWS_BOUNDS, SNR_BOUNDS_DB):
        assert list(bounds) == sorted(set(bounds))
    ratios = np.divide(DURATION_BOUNDS_NS[1:], DURATION_BOUNDS_NS[:-1])
    assert ratios.max() <= 1.61  # 10^(1/5) = 1.585, rounded to two digits
    assert (DURATION_BOUNDS_NS[0], DURATION_BOUNDS_NS[-1]) == (25_000, 63_000_000_000)
