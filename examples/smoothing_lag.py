"""What waiting brings: macro-F1 of windows decided so many windows late, through an exported bundle of recordings.

    python examples/smoothing_lag.py runs/motion/bundle --data sisfall
    python examples/smoothing_lag.py runs/motion/bundle --data sisfall --channel rayleigh --snr-db 0 --lags 0 2 10

Everyone is measured on whom nothing was learned from. All rows are of the same receptions; `alone` is without the sequence
stage, and `all` waits for the end of the recording.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from link.bundle import load_bundle
from link.chain import Link
from link.errors import ArgumentError
from link.grid import SweepSpec
from link.manifest import Manifest
from link.plot import save_figure, styled_figure
from link.randomness import Draws
from link.sequence import SequenceStream, SequenceTables, code_probabilities, smoothed
from train.scores import macro_f1
from train.tasks import WholeRecording, recordings_of_manifest


def main() -> None:
    """Print a table in Markdown, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="recordings")
    parser.add_argument("--channel", default="awgn")
    parser.add_argument("--snr-db", type=float, nargs="+", default=[0.0, 3.0, 6.0, 12.0], help="Es/N0 in dB")
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 1, 2, 3, 5, 10], help="windows waited for")
    parser.add_argument("--out", type=Path, help="where to draw it, without suffix")
    asked = parser.parse_args()
    bundle = load_bundle(asked.bundle)
    tables = bundle.sequence()
    if tables is None:
        raise ArgumentError("bundle", "decides each window by itself: there is nothing to wait for")
    recordings = unseen(bundle.manifest, asked.data)
    if not any((recording.labels != "").any() for recording in recordings):
        raise ArgumentError("data", "has no window with a label of somebody whom the model was not chosen by")
    link = Link(bundle)
    rows = [["alone"], *([str(lag)] for lag in asked.lags), ["all"]]
    for snr_db in asked.snr_db:
        for row, figure in zip(rows, measure(link, recordings, tables, asked.channel, snr_db, asked.lags), strict=True):
            row.append(f"{100 * figure:.1f}")
    print(f"| windows waited for, {asked.channel} | {' | '.join(f'{snr_db:g} dB' for snr_db in asked.snr_db)} |")
    print("|---" * (1 + len(asked.snr_db)) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    if asked.out is not None:
        draw(rows, asked.snr_db, asked.channel, asked.out)


def unseen(manifest: Manifest, folder: Path) -> list[WholeRecording]:
    """The recordings of everyone whom the model was not chosen by."""
    subjects = manifest.provenance.facts["subjects"]
    seen = {*subjects["train"], *subjects["validation"]}
    return [found for found in recordings_of_manifest(manifest, folder) if found.subject not in seen]


def measure(
    link: Link, recordings: list[WholeRecording], tables: SequenceTables, channel: str, snr_db: float, lags: list[int]
) -> list[float]:
    """Macro-F1 of windows decided alone, with each lag, and with all of their recording."""
    mode, classes = link.manifest.modes[0], link.manifest.task.classes
    through = SweepSpec(snr_db=(snr_db,), channel=channel, seed=0, draws=1).build_channel()
    decided: list[list[NDArray[np.int64]]] = [[] for _ in range(len(lags) + 2)]
    first = 0
    for recording in recordings:
        count = len(recording.labels)
        result = link.transmit(recording.inputs, through, snr_db, Draws(0, np.arange(first, first + count)))
        logits = result.decoded.logits.astype(np.float64)
        codes = code_probabilities(result.decoded.llr, mode).astype(np.float64)
        decided[0].append(logits.argmax(axis=-1))
        for place, lag in enumerate(lags, start=1):
            stream = SequenceStream(tables, lag)
            told = [stream.push(*window) for window in zip(logits, codes, strict=True)]
            late = [found for found in (*told, *stream.flush()) if found is not None]
            decided[place].append(np.stack(late).argmax(axis=-1))
        decided[-1].append(np.asarray(smoothed(tables, logits, codes)).argmax(axis=-1))
        first += count
    labels = np.concatenate([recording.labels for recording in recordings])
    known = labels != ""
    right = np.array([classes.index(label) for label in labels[known]])
    return [macro_f1(np.concatenate(parts)[known], right, len(classes)) for parts in decided]


def draw(rows: list[list[str]], snr_db: list[float], channel: str, path: Path) -> None:
    """Macro-F1 against lag, a line an Es/N0."""
    with styled_figure((5.0, 3.4)) as figure:
        axes = figure.subplots()
        for column, level in enumerate(snr_db, start=1):
            axes.plot(range(len(rows)), [float(row[column]) for row in rows], "o-", markersize=4, label=f"{level:g} dB")
        axes.set_xticks(range(len(rows)), [row[0] for row in rows])
        axes.set_xlabel(f"Windows waited for, {channel}")
        axes.set_ylabel("Macro-F1 (%)")
        axes.legend()
        save_figure(figure, path)


if __name__ == "__main__":
    main()
