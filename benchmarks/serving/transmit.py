"""Transmit: the server's part of a call, over transmitter, channel and receiver in this process."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import hardpath_server
from benchmarks.serving.arena import Arena
from benchmarks.serving.bundles import LARGE, SLOW
from benchmarks.serving.contest import Contest, spread
from benchmarks.serving.findings import Figure, Row
from benchmarks.serving.load import Call, Load, h2load
from benchmarks.serving.process import ask
from benchmarks.timing import Ratio
from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.randomness import Draws

SAMPLES: Final = 64
OVER_IN_PROCESS_MS: Final = 0.5
OVER_SLOW: Final = 1.1
_SEED: Final = 1


def measure(arena: Arena, contest: Contest) -> Row:
    """The demo bundle, and one that takes 5 ms and more."""
    row = Row(
        "transmit",
        "Transmit, 64 samples a call",
        "One call at a time on one connection, by h2load, over AWGN; beside it `link.chain.Link.transmit` in this process, "
        "on one thread, with the same seed. Both are medians of a round.",
    )
    digits = _digits(arena.demo())
    extra, ratio, inside = _both(arena.demo(), digits, arena, contest)
    work = f"Transmit, {SAMPLES} samples a call"
    row.figures += [
        Figure(f"{work}, demo bundle", "in process", inside, "ms"),
        Figure(f"{work}, demo bundle", "call less in process", extra, "ms", at_most=OVER_IN_PROCESS_MS),
        Figure(f"{work}, demo bundle", "call over in process", ratio),
    ]
    for size in (SLOW, LARGE):
        extra, ratio, inside = _both(arena.bundle(size), size.rows(SAMPLES), arena, contest)
        row.figures += [
            Figure(f"{work}, {size.name}", "in process", inside, "ms"),
            Figure(f"{work}, {size.name}", "call over in process", ratio, at_most=OVER_SLOW if size == SLOW else None),
        ]
    return row


def _both(bundle: Path, rows: NDArray[Any], arena: Arena, contest: Contest) -> tuple[Ratio, Ratio, Ratio]:
    """Call less in process and over it, and in process, ms: round by round."""
    link, process = Link(load_bundle(bundle)), arena.hardpath(bundle)
    (name,) = link.manifest.input_names
    draws, inputs = Draws(_SEED, np.arange(len(rows))), {name: rows}
    expected = link.transmit(inputs, Awgn(), hardpath_server.SNR_DB, draws).decoded.decisions
    call: Call = hardpath_server.transmit(name, rows)
    hardpath_server.check_transmit(expected.tolist())(ask(process.address, call))
    inside, outside = [], []
    for _ in range(contest.rounds):
        times, until = [], time.perf_counter() + contest.seconds / 2.0
        while time.perf_counter() < until:
            start = time.perf_counter()
            link.transmit(inputs, Awgn(), hardpath_server.SNR_DB, draws)
            times.append(1e3 * (time.perf_counter() - start))
        inside.append(statistics.median(times))
        outside.append(h2load(process.address, call, Load(1), contest.seconds / 2.0, contest.folder).p50_ms)
    pairs = list(zip(outside, inside, strict=True))
    return spread([a - b for a, b in pairs]), spread([a / b for a, b in pairs]), spread(inside)


def _digits(bundle: Path) -> NDArray[np.float32]:
    """Inputs in the range that the manifest gives; what they show does not matter to time."""
    (spec,) = load_bundle(bundle).manifest.transmitter.inputs
    low, high = (0.0 if spec.low is None else spec.low), (1.0 if spec.high is None else spec.high)
    shape = [SAMPLES, *(int(size) for size in spec.shape[1:])]
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
