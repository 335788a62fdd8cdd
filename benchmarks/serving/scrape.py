"""What the server under test says of itself: its Prometheus metrics, for what no client can see."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Final, NamedTuple

EXECUTIONS: Final = "nv_inference_exec_count"
WASTED: Final = "hardpath_wasted_executions_total"


class Executions(NamedTuple):
    """Runs of graphs so far, and those of which every caller had gone, or whose deadline had passed, when they ended."""

    all: float
    wasted: float


def executions(port: int) -> Executions | None:
    """Of a server with its metrics on this port of 127.0.0.1; None where it has none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5.0) as reply:
            text = reply.read().decode()
    except (OSError, urllib.error.URLError):
        return None
    return Executions(total(text, EXECUTIONS), total(text, WASTED))


def total(text: str, name: str) -> float:
    """A metric in the text format, summed over its labels; 0 where it is absent."""
    samples = (line.split() for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(sample[-1]) for sample in samples)
