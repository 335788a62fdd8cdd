"""One sample a call, 64 calls in flight: what a server adds to gRPC, and what it gains by joining calls."""

from __future__ import annotations

from typing import Final

from benchmarks.serving.arena import AIO, MLSERVER, ONNX, RAY, THREADS, TRITON, Arena
from benchmarks.serving.bundles import SMALL
from benchmarks.serving.contest import Contest
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Load

LOAD: Final = Load(in_flight=64, connections=8)
WORK: Final = "unary, small MLP, 64 in flight"
OVER_BARE: Final = 0.8
_TARGETS: Final = {MLSERVER: 3.0, RAY: 10.0}


def measure(arena: Arena, contest: Contest) -> Row:
    """All servers of the small graph in turn; Ray Serve, whose processes never rest, in a contest of its own."""
    ours = arena.ours(SMALL, 1)
    bare = [arena.bare(AIO, one) for one in ours] + [arena.bare(THREADS, ours[0])]
    others = arena.peers(SMALL, 1, ONNX, TRITON, MLSERVER)
    table = contest.run("unary", [*ours, *bare, *others], LOAD)
    head = ours[0].name
    figures = [
        Figure(WORK, f"{mine.name} over {alone.name}", table.rate(mine.name, alone.name), at_least=OVER_BARE)
        for mine, alone in zip([*ours, ours[0]], bare, strict=True)
    ]
    figures += [
        Figure(WORK, f"{head} over {peer.name}", table.rate(head, peer.name), at_least=_TARGETS.get(peer.name))
        for peer in others
    ]
    figures += [
        Figure(WORK, f"CPU a call, {head} over {other.name}", table.cpu(head, other.name))
        for other in (*bare[:1], *others)
    ]
    row = Row(
        "unary",
        "One sample a call",
        f"64-256-256-10, {LOAD.in_flight} calls in flight on {LOAD.connections} connections, by h2load.",
        figures,
        {"small": table.standings()},
    )
    ray = arena.peers(SMALL, 1, RAY)
    if ray:
        beside = contest.run("unary beside Ray Serve", [ours[0], *ray], LOAD)
        row.figures.append(Figure(WORK, f"{head} over {RAY}", beside.rate(head, RAY), at_least=_TARGETS[RAY]))
        row.standings["small, beside Ray Serve, whose processes never rest"] = beside.standings()
    row.notes += arena.notes()
    return row
