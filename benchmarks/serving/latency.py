"""One call at a time on one connection: what is added to gRPC's own latency."""

from __future__ import annotations

from typing import Final

from benchmarks.serving.arena import AIO, THREADS, TRITON, Arena
from benchmarks.serving.bundles import SMALL
from benchmarks.serving.contest import Contest
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Load

LOAD: Final = Load(in_flight=1)
OVER_BARE: Final = 1.3


def measure(arena: Arena, contest: Contest) -> Row:
    """The small graph, beside gRPC alone with the same bytes."""
    ours = arena.ours(SMALL, 1)
    bare = [arena.bare(AIO, one) for one in ours] + [arena.bare(THREADS, ours[0])]
    others = arena.peers(SMALL, 1, TRITON)
    table = contest.run("latency", [*ours, *bare, *others], LOAD)
    work = "one connection, one call at a time, p50"
    figures = [
        Figure(work, f"{mine.name} over {alone.name}", table.latency(mine.name, alone.name), at_most=OVER_BARE)
        for mine, alone in zip([*ours, ours[0]], bare, strict=True)
    ]
    figures += [
        Figure(work, f"{ours[0].name} over {peer.name}", table.latency(ours[0].name, peer.name)) for peer in others
    ]
    return Row(
        "latency",
        "One call at a time",
        "64-256-256-10, one sample a call, one connection, by h2load: the median from request to the end of the reply.",
        figures,
        {"small": table.standings()},
        arena.notes(),
    )
