"""64 samples a call, and streams: the way in which many samples are meant to be sent."""

from __future__ import annotations

from typing import Final

from benchmarks.serving import perf_analyzer
from benchmarks.serving.arena import INFER, ONNX, TRITON, Arena
from benchmarks.serving.bundles import LARGE, SMALL, Size
from benchmarks.serving.contest import Contest
from benchmarks.serving.environments import Absent
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Load

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
        _stream(arena, contest, size, row)
    row.notes += arena.notes()
    return row


def _stream(arena: Arena, contest: Contest, size: Size, row: Row) -> None:
    """The same graphs by streams, where perf_analyzer is installed and both servers speak its protocol."""
    subjects = [one for one in arena.ours(size, 1) if one.name == INFER]
    subjects += arena.peers(size, 1, TRITON)
    for samples, in_flight in STREAMED:
        case = f"{size.name}, streams, {samples} samples a message"
        try:
            table = perf_analyzer.contest(
                case, arena.cache, arena.graph(size).name, subjects, samples, in_flight, min(contest.rounds, 3)
            )
        except (Absent, RuntimeError) as error:
            row.notes.append(f"{case}: {error}.")
            continue
        contest.measured += [one for found in table.rounds.values() for one in found]
        row.standings[case] = table.standings()
        if len(subjects) > 1:
            row.figures.append(
                Figure(
                    f"streams of {samples} samples a message, {size.name}",
                    f"{subjects[0].name} over {TRITON}",
                    table.rate(subjects[0].name, TRITON),
                    at_least=OVER_TRITON[size.name] if samples > 1 else None,
                )
            )
