"""64 samples a call, and streams: the way in which many samples are meant to be sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.serving import perf_analyzer
from benchmarks.serving.arena import INFER, ONNX, TRITON, Arena
from benchmarks.serving.bundles import LARGE, SMALL, Size
from benchmarks.serving.contest import Contender, Contest
from benchmarks.serving.environments import Absent
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Load
from benchmarks.serving.perf_analyzer import Streams

LOAD: Final = Load(in_flight=8, connections=8)
SAMPLES: Final = 64
STREAMED: Final = ((1, 64), (SAMPLES, 8))
"""Samples a message, and messages in flight."""
OVER_TRITON: Final = {SMALL.name: 0.85, LARGE.name: 1.1}


def measure(arena: Arena, contest: Contest) -> Row:
    """Both graphs, by calls and by streams."""
    row = Row(
        "batched",
        "64 samples a call, and streams",
        f"{SAMPLES} samples a call, {LOAD.in_flight} calls in flight on {LOAD.connections} connections, by h2load; streams "
        "of ModelStreamInfer by perf_analyzer.",
    )
    for size in (SMALL, LARGE):
        ours = arena.ours(size, SAMPLES)
        others = arena.peers(size, SAMPLES, TRITON, ONNX)
        table = contest.run(f"batched {size.name}", [*ours, *others], LOAD)
        row.standings[f"{size.name}, {SAMPLES} samples a call"] = table.standings()
        row.figures += [
            Figure(
                f"{SAMPLES} samples a call, {size.name}",
                f"{mine.name} over {peer.name}",
                table.rate(mine.name, peer.name),
                at_least=OVER_TRITON[size.name] if peer.name == TRITON else None,
            )
            for mine in ours
            for peer in others
        ]
        row.figures += [
            Figure(
                f"{SAMPLES} samples a call, {size.name}",
                f"CPU a call, {ours[0].name} over {peer.name}",
                table.cpu(ours[0].name, peer.name),
            )
            for peer in others
        ]
        _stream(arena, contest, size, row)
    row.notes += arena.notes()
    return row


def _stream(arena: Arena, contest: Contest, size: Size, row: Row) -> None:
    """The same graphs by streams, where perf_analyzer is installed and both servers speak its protocol."""
    servers: list[Callable[[], Contender]] = [
        partial(_again, arena, size, one.name) for one in arena.ours(size, 1) if one.name == INFER
    ]
    if arena.peers(size, 1, TRITON):
        servers.append(partial(_again, arena, size, TRITON))
    for samples, in_flight in STREAMED:
        case = f"{size.name}, streams, {samples} samples a message"
        load = Streams(arena.graph(size).name, samples, in_flight)
        try:
            table = perf_analyzer.contest(case, arena.cache, servers, load, min(contest.rounds, 3))
        except (Absent, RuntimeError) as error:
            row.notes.append(f"{case}: {error}.")
            continue
        contest.measured += [one for found in table.rounds.values() for one in found]
        row.standings[case] = table.standings()
        if len(servers) > 1:
            row.figures.append(
                Figure(
                    f"streams of {samples} samples a message, {size.name}",
                    f"{INFER} over {TRITON}",
                    table.rate(INFER, TRITON),
                    at_least=OVER_TRITON[size.name] if samples > 1 else None,
                )
            )


def _again(arena: Arena, size: Size, name: str) -> Contender:
    """A server as it runs now."""
    found = arena.peers(size, 1, name) if name == TRITON else arena.ours(size, 1)
    return next(one for one in found if one.name == name)
