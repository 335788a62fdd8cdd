"""Batching that decides by itself, against settings that a user could have fixed, over cost and concurrency.

A setting is good for some graphs and some loads; what decides by itself must be nearly as good as the best one everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.serving import hardpath_server
from benchmarks.serving.arena import Arena
from benchmarks.serving.bundles import SLOW, SMALL, Size
from benchmarks.serving.contest import Contender, Contest, Table
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Load
from benchmarks.serving.subjects import Command

MIDDLE: Final = Size("middle", (64, 768, 768, 10), tokens=5)
SIZES: Final = (SMALL, MIDDLE, SLOW)
LOADS: Final = (Load(1), Load(8, 8), Load(64, 8))
OVER_ONE, OVER_BEST = 0.97, 0.95
AUTO: Final = "decides by itself"
ONE: Final = "one request a run"
ROUNDS: Final = 3
SECONDS: Final = 1.0
_SERVER: Final = """\
import os, sys
from pathlib import Path
from serve.config.layers import load_config
from serve.server import serve
flags = {"bundles": (Path(sys.argv[1]),), "listen.host": "127.0.0.1", "listen.port": 0}
serve(load_config(None, os.environ, flags), ready=lambda address: print(f"serving on {address}", flush=True))
"""


class Setting(NamedTuple):
    """How runs are made up: rows at most, and how long a row waits for others; None where the server decides."""

    name: str
    rows: int | None = None
    wait_us: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For the server."""
        if self.rows is None:
            return {}
        return {
            "HARDPATH_SERVE_BATCHING_AUTO": "false",
            "HARDPATH_SERVE_BATCHING_MAX_ROWS": str(self.rows),
            "HARDPATH_SERVE_BATCHING_MAX_WAIT_US": str(self.wait_us),
        }


SETTINGS: Final = (
    Setting(AUTO),
    Setting(ONE, 1, 0),
    Setting("8 rows, no wait", 8, 0),
    Setting("64 rows, no wait", 64, 0),
    Setting("64 rows, 1 ms", 64, 1000),
    Setting("64 rows, 5 ms", 64, 5000),
)


def measure(arena: Arena, contest: Contest) -> Row:
    """Each graph under each load, one sample a call: the server with each setting in turn."""
    row = Row(
        "batching",
        "Batching",
        "One sample a call over Encode, by h2load: the same server with each setting in turn. The best of the fixed "
        "settings is the best of these rounds, so noise is in its favour.",
    )
    shorter = Contest(contest.folder, min(ROUNDS, contest.rounds), min(SECONDS, contest.seconds), contest.measured)
    for size in SIZES:
        contenders = [_contender(arena, size, setting) for setting in SETTINGS]
        for load in LOADS:
            case = f"{size.name}, {load.in_flight} in flight"
            table = shorter.run(f"batching {case}", contenders, load)
            row.standings[case] = table.standings()
            row.figures += figures(case, table)
    return row


def figures(case: str, table: Table) -> list[Figure]:
    """What decides by itself, over one request a run and over the best of the fixed settings."""
    fixed = [one for one in table.standings() if one.name != AUTO]
    best = max(fixed, key=lambda one: one.rate).name
    work = f"batching, {case}"
    return [
        Figure(work, f"{AUTO} over {ONE}", table.rate(AUTO, ONE), at_least=OVER_ONE),
        Figure(work, f"{AUTO} over the best fixed: {best}", table.rate(AUTO, best), at_least=OVER_BEST),
    ]


def _contender(arena: Arena, size: Size, setting: Setting) -> Contender:
    bundle, x = arena.bundle(size), size.rows(1)
    process = arena.start(f"{size.name}, {setting.name}", _command(bundle, setting))
    call = hardpath_server.encode(arena.graph(size), x)
    return Contender(setting.name, process, call, hardpath_server.check_encode(arena.symbols(size, x)))


def _command(bundle: Path, setting: Setting) -> Command:
    arguments: Sequence[str] = [sys.executable, "-c", _SERVER, str(bundle)]
    return Command(arguments, environment=setting.environment)
