"""A semantic sweep of the digits bundle, against its checkpoint's torch modules run whole at each point."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import Ratio, Stopwatch, Subject
from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.randomness import Draws
from link.snr import no_from_esn0_db
from link.sweep import SweepSpec, sweep
from train import checkpoint as checkpoints
from train.export import export
from train.recipe_file import load_recipe
from train.run import train
from train.transceiver import Transceiver

TORCH_BATCH: Final = 256
PART_ROWS: Final = 1024
PART_SNR_DB: Final = 6.0
TARGET: Final = 20.0


class SweepTimes(NamedTuple):
    """The sweep and the torch chain over the same rows and points.

    Attributes
    ----------
    threads : int
        Worker processes of the sweep, one thread each, and threads that torch may use: it gets one where that is faster.
    points, rows, draws : int
        The sweep sends each row `draws` times at each point, torch once.
    torch_us, sweep_us : float
        Microseconds a reception.
    channel_us, receiver_us, head_us : float
        Of what is in the sweep's: the channel, receiver.onnx, and of that the head, by torch; each alone on one thread.
    ratio : Ratio
        Torch's time over the sweep's.
    accuracy_gap : float
        Greatest difference between the accuracies that the two found at a point.
    """

    threads: int
    points: int
    rows: int
    draws: int
    torch_us: float
    sweep_us: float
    channel_us: float
    receiver_us: float
    head_us: float
    ratio: Ratio
    accuracy_gap: float


class Digits(NamedTuple):
    """A trained run, its bundle, and rows to send."""

    model: Transceiver
    link: Link
    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]


def load_digits(folder: Path, rows: int, *, epochs: int | None = None) -> Digits:
    """The digits recipe trained and exported in `folder`, unless that is done; its test rows, again and again, to `rows`."""
    short = {} if epochs is None else _short(epochs)
    run = folder / ("digits" if epochs is None else f"digits-{epochs}")
    train(load_recipe("digits", short), run)
    if not (run / "bundle").exists():
        export(run, run / "bundle")
    described, model = checkpoints.load(run)
    test = checkpoints.task_of(described).load(None).test
    again = np.arange(rows) % len(test)
    inputs = {name: values[again] for name, values in test.inputs.items()}
    return Digits(model.eval(), Link(load_bundle(run / "bundle")), inputs, test.labels[again])


def measure(
    watch: Stopwatch, digits: Digits, snr_db: tuple[float, ...], threads: int = 1, draws: int = 1
) -> SweepTimes:
    """Both in turn."""
    spec = SweepSpec(snr_db=snr_db, seed=1, draws=draws)
    timed = snr_db[:2]  # torch does the same work at each point
    peers = [
        Subject(
            f"torch on {count}",
            f"batch {TORCH_BATCH}, {count} threads",
            partial(torch_accuracies, digits, timed, count),
            len(digits.labels) * len(timed),
        )
        for count in sorted({1, threads})
    ]
    ours = Subject(
        "hardpath",
        f"{threads} workers, {draws} draws",
        lambda: sweep(digits.link, digits.inputs, digits.labels, spec, workers=threads),
        len(digits.labels) * len(snr_db) * draws,
    )
    case = f"semantic sweep, {threads} thread{'s' * (threads > 1)}"
    rounds = watch.interleave(case, [*peers, ours, *_parts(digits)])
    torch_at_best = min((peer.name for peer in peers), key=rounds.median)
    found = [point.accuracy.value for point in sweep(digits.link, digits.inputs, digits.labels, spec).points]
    gap = max(abs(ours - theirs) for ours, theirs in zip(found, torch_accuracies(digits, snr_db, 1), strict=True))
    return SweepTimes(
        threads,
        len(snr_db),
        len(digits.labels),
        draws,
        rounds.median(torch_at_best) / 1e3,
        rounds.median("hardpath") / 1e3,
        rounds.median("channel") / 1e3,
        rounds.median("receiver.onnx") / 1e3,
        rounds.median("head") / 1e3,
        rounds.ratio(torch_at_best, "hardpath"),
        gap,
    )


def _parts(digits: Digits) -> list[Subject]:
    """Channel, receiver's graph and head by themselves, each on what the one before it gave."""
    rows = min(PART_ROWS, len(digits.labels))
    sent = digits.link.transmitter({name: values[:rows] for name, values in digits.inputs.items()})
    channel, draws = Awgn(), Draws(1, np.arange(rows), engine="numba")
    received = channel(sent.symbols, sent.num_symbols, PART_SNR_DB, draws)
    y, no = torch.from_numpy(received.y), torch.from_numpy(received.no)
    with torch.no_grad():
        embedding = digits.model.receive(y, no).embedding
    note = f"batch {rows}"
    return [
        Subject("channel", note, lambda: channel(sent.symbols, sent.num_symbols, PART_SNR_DB, draws), rows),
        Subject("receiver.onnx", note, lambda: digits.link.receiver(received.y, received.no, sent.mode), rows),
        Subject("head", note, torch.no_grad()(lambda: digits.model.head(embedding)), rows),
    ]


@torch.no_grad()
def torch_accuracies(digits: Digits, snr_db: tuple[float, ...], threads: int) -> list[float]:
    """The checkpoint's modules at each point: encoder, argmax, mapper, noise, demapper, posterior mean, head."""
    torch.set_num_threads(threads)
    inputs = [torch.from_numpy(values) for values in digits.inputs.values()]
    labels = torch.from_numpy(digits.labels)
    source, found = torch.Generator().manual_seed(1), []
    for point in snr_db:
        no, right = no_from_esn0_db(point), 0
        for start in range(0, len(labels), TORCH_BATCH):
            rows = slice(start, start + TORCH_BATCH)
            symbols = digits.model.send_hard(digits.model.encode(*(values[rows] for values in inputs))).symbols
            y = symbols + (0.5 * no) ** 0.5 * torch.randn(symbols.shape, generator=source)
            heard = digits.model.receive(y, torch.full(y.shape[:2], no))
            right += int((heard.logits.argmax(dim=-1) == labels[rows]).sum())
        found.append(right / len(labels))
    torch.set_num_threads(1)
    return found


def _short(epochs: int) -> dict[str, str]:
    """A schedule of few epochs: a bundle to try the benchmark with."""
    half = epochs // 2
    return {
        "schedule.epochs": str(epochs),
        "schedule.warmup_epochs": str(half - 1),
        "schedule.alignment_start_epoch": str(half + 1),
    }
