"""Three times as many calls as can be answered, each with a deadline: what is still answered in time."""

from __future__ import annotations

import statistics
from typing import Final

import grpc

from benchmarks.serving import hardpath_server
from benchmarks.serving.arena import Arena
from benchmarks.serving.arrivals import arrive, poisson, saturate, seconds_of
from benchmarks.serving.bundles import SLOW
from benchmarks.serving.contest import Contest, spread
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Call
from benchmarks.serving.process import Process
from benchmarks.serving.scrape import executions
from benchmarks.serving.subjects import free_port

TIMES_PEAK: Final = 3.0
DEADLINE_S: Final = (0.02, 0.05)
SAMPLES: Final = 64
IN_FLIGHT: Final = 8
GOODPUT: Final = 90.0
REFUSAL_MS: Final = 2.0
WASTED: Final = 1.0


def measure(arena: Arena, contest: Contest) -> Row:
    """The bundle of 5 ms and more a batch: its peak, then three times that, in turn."""
    row = Row(
        "overload",
        "Overload",
        f"{SAMPLES} samples a call of the bundle `slow`, by grpc.aio. Peak: {IN_FLIGHT} calls in flight without deadlines. "
        f"Overload: {TIMES_PEAK:g} times that, Poisson arrivals, deadlines of {1e3 * DEADLINE_S[0]:g} to "
        f"{1e3 * DEADLINE_S[1]:g} ms. Goodput: calls answered in time a second, over the peak of the same round. Refusals "
        "are timed by the client, whose event loop shares the cores.",
    )
    port = free_port()
    with Process(hardpath_server.command(arena.bundle(SLOW), port)) as process:
        _overload(process.address, hardpath_server.encode(arena.graph(SLOW), SLOW.rows(SAMPLES)), port, contest, row)
    row.notes += arena.notes()
    return row


def _overload(address: str, call: Call, metrics_port: int, contest: Contest, row: Row) -> None:
    saturate(address, call, IN_FLIGHT, 0.5)
    peaks, goodput, refused, refusal_ms, wasted = [], [], [], [], []
    for _ in range(contest.rounds):
        peak = saturate(address, call, IN_FLIGHT, contest.seconds / 2.0)
        schedule = poisson(TIMES_PEAK * peak, contest.seconds, DEADLINE_S)
        before = executions(metrics_port)
        outcomes = arrive(address, call, schedule)
        after = executions(metrics_port)
        if before is not None and after is not None:
            wasted.append(100.0 * (after.wasted - before.wasted) / max(1.0, after.all - before.all))
        lasted = float(schedule.at_s[-1])
        answered = seconds_of(outcomes, grpc.StatusCode.OK)
        turned_away = seconds_of(outcomes, grpc.StatusCode.RESOURCE_EXHAUSTED)
        peaks.append(peak)
        goodput.append(100.0 * len(answered) / lasted / peak)
        refused.append(100.0 * len(turned_away) / len(outcomes))
        if turned_away:
            refusal_ms.append(1e3 * statistics.median(turned_away))
        others = {outcome.code for outcome in outcomes} - _EXPECTED
        if others:
            row.notes.append(f"Under overload calls ended with {', '.join(sorted(code.name for code in others))}.")
    work = f"{TIMES_PEAK:g}x overload, deadlines {1e3 * DEADLINE_S[0]:g} to {1e3 * DEADLINE_S[1]:g} ms"
    row.figures += [
        Figure(work, "peak", spread(peaks), "calls/s"),
        Figure(work, "goodput over peak", spread(goodput), "%", at_least=GOODPUT),
        Figure(work, "refused at once", spread(refused), "%"),
    ]
    if wasted:
        row.figures.append(Figure(work, "executions for expired calls", spread(wasted), "%", at_most=WASTED))
    else:
        row.notes.append("Executions for expired calls: the server has no metrics to count them by.")
    if refusal_ms:
        row.figures.append(
            Figure(work, "refusal, from call to status at the client", spread(refusal_ms), "ms", at_most=REFUSAL_MS)
        )


_EXPECTED: Final = {
    grpc.StatusCode.OK,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
