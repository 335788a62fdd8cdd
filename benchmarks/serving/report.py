"""The results as JSON, and as a page whose first table is that of the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.contest import Measured, Standing
from benchmarks.serving.findings import Figure, Row
from benchmarks.timing import Ratio

_QUIET: Final = 0.5
_BUSY: Final = (
    "**The machine had other work.** Rates and latencies are then those of whoever got a core, and a server of many "
    "threads gets more of them; CPU a call is what can be compared."
)


@dataclass(frozen=True)
class Findings:
    """All that one run measured."""

    machine: dict[str, Any]
    rounds: int
    round_s: float
    seconds: float
    about: dict[str, str]
    rows: list[Row]
    measured: list[Measured]

    def json(self) -> str:
        """As a JSON object."""
        return json.dumps(_plain(self), indent=2) + "\n"


def write(folder: Path, found: Findings) -> None:
    """serve.json and serve.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serve.json").write_text(found.json(), encoding="utf-8")
    (folder / "serve.md").write_text(page(found), encoding="utf-8")


def page(found: Findings) -> str:
    """The page."""
    machine = found.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts = [
        "# How fast the server is",
        "`make bench-serve` measures what this page says and writes it anew; `serve.json` has every measurement.",
        "Load and servers share the machine's cores. Servers are processes of their own, under load in turn, "
        f"{found.round_s:g} s each in {found.rounds} rounds; a figure is a ratio within a round, the median of the rounds, "
        "quartiles in brackets. Replies are checked against ONNX Runtime in process before and after. CPU is that of the "
        "server and all its processes a call, which the machine's other work moves less than it moves rates. A target that "
        "is missed says so.",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; {versions}; "
        f"commit {machine['commit'] or 'unknown'}; load {machine['load_at_start']} at the start; {found.seconds:.0f} s.",
        *([_BUSY] if machine["load_at_start"] > _QUIET else []),
        *(["\n".join(f"- {name}: {about}." for name, about in found.about.items())] if found.about else []),
        "## Figures",
        table(
            ["work", "figure", "value", "target"],
            [
                [figure.work, figure.figure, _value(figure), _judged(figure)]
                for row in found.rows
                for figure in row.figures
            ],
        ),
    ]
    for row in found.rows:
        parts += [f"## {row.title}", row.text]
        for case, standings in row.standings.items():
            parts += [f"{case[0].upper()}{case[1:]}:", _standings(standings)]
        if row.notes:
            parts.append("\n".join(f"- {note}" for note in row.notes))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; columns behind the first that hold numbers only are set to the right."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(figure: Figure) -> str:
    value: Ratio = figure.value
    unit = "" if figure.unit == "x" else f" {figure.unit}"
    if value.low == value.high:
        return f"{value.median:.3g}{unit}"
    return f"{value}{unit}"


def _judged(figure: Figure) -> str:
    if figure.reached is None:
        return "for comparison"
    return figure.target if figure.reached else f"**missed**: {figure.target}"


def _standings(found: Sequence[Standing]) -> str:
    return table(
        ["server", "samples/s", "CPU us a call", "p50 ms", "p99 ms"],
        [
            [one.name, f"{one.rate:,.0f}", f"{one.cpu_us:,.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}"]
            for one in found
        ],
    )


def _plain(value: Any) -> Any:
    """Tuples with names and dataclasses as objects, whatever they hold."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(item) for name, item in vars(value).items()}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
