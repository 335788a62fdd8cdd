"""Train digits with several seeds and measure each bundle on the test set: the table of docs/results.md.

    python examples/digits_seeds.py --seeds 0 1 2 3 4 --out runs/seeds

The hard path runs through the two ONNX graphs; the soft surrogate meets the same noise in torch. Two intervals are given:
over the noise, for one bundle, and over training seeds, for the method. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.stats import t

from link.chain import Link
from link.manifest import load_bundle
from link.repetition import sweep_repetition
from link.sweep import SweepSpec, sweep
from train import checkpoint as checkpoints
from train.baseline import without_link
from train.evaluate import evaluate
from train.export import export
from train.loop import train
from train.recipe import load_recipe
from train.tasks import load_task

SNR_DB: Final = (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0)
SWEEP: Final = SweepSpec(snr_db=SNR_DB, seed=7, draws=20)


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Train, export and sweep one seed."""
    recipe = load_recipe("digits", {"seed": str(seed)})
    started = time.monotonic()
    train(recipe, folder)
    seconds = time.monotonic() - started
    manifest = export(folder, folder / "bundle")
    described, model = checkpoints.load(folder)
    task = load_task(recipe.task)
    test = task.load(None).test
    hard = sweep(Link(load_bundle(folder / "bundle")), test.inputs, test.labels, SWEEP, out=folder / "sweep")
    grid = recipe.channel.model_copy(update={"eval_snr_db": SNR_DB, "eval_draws": SWEEP.draws})
    soft = evaluate(
        model,
        task,
        test,
        grid,
        temperature=described.vq_temp,
        symbol_temperature=described.symbol_temp,
        seed=SWEEP.seed,
    )
    baseline = without_link(recipe, folder)
    repetition = sweep_repetition(
        baseline.decisions, test.labels, SWEEP, num_classes=len(task.classes), num_symbols=manifest.num_symbols
    )
    return {
        "seed": seed,
        "seconds": seconds,
        "epoch": described.epoch,
        "hard": [point.accuracy.value for point in hard.points],
        "noise_low": [point.accuracy_noise.low for point in hard.points],
        "noise_high": [point.accuracy_noise.high for point in hard.points],
        "soft": [soft.soft[snr_db] for snr_db in SNR_DB],
        "repetition": [point.accuracy.value for point in repetition],
        "no_link": baseline.accuracy,
        "h_assign": soft.collapse.h_assign,
        "codes_used": soft.collapse.codes_used,
        "perplexity": soft.collapse.perplexity,
    }


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds, by Student's t, as per cent."""
    if len(values) == 1:
        return f"{100 * values[0]:.2f}"
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{100 * float(np.mean(values)):.2f} ±{100 * half:.2f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Everything as Markdown."""
    lines = [
        "| seed | " + " | ".join(f"{snr:g} dB" for snr in SNR_DB) + " | h_assign | codes used | perplexity | no link |",
        "|" + "---|" * (len(SNR_DB) + 5),
    ]
    for row in rows:
        cells = [
            f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
            for value, low, high in zip(row["hard"], row["noise_low"], row["noise_high"], strict=True)
        ]
        lines.append(
            f"| {row['seed']} | {' | '.join(cells)} | {row['h_assign']:.3f} | {row['codes_used']:.0%} | "
            f"{row['perplexity']:.2f} | {100 * row['no_link']:.2f} |"
        )
    for name, label in (("hard", "hard, mean"), ("soft", "soft, mean"), ("repetition", "label by repetition, mean")):
        cells = [interval([row[name][index] for row in rows]) for index in range(len(SNR_DB))]
        lines.append(f"| **{label}** | {' | '.join(cells)} | | | | {interval([row['no_link'] for row in rows])} |")
    gaps = [[row["soft"][index] - row["hard"][index] for row in rows] for index in range(len(SNR_DB))]
    lines.append(f"| **soft - hard, mean** | {' | '.join(interval(gap) for gap in gaps)} | | | | |")
    widest = [max(gap, key=abs) for gap in gaps]
    lines.append(f"| **soft - hard, widest** | {' | '.join(f'{100 * gap:+.2f}' for gap in widest)} | | | | |")
    return "\n".join(lines)


def main() -> None:
    """Measure each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in options.seeds:
        rows.append(measure(seed, options.out / str(seed)))
        print(f"seed {seed}: epoch {rows[-1]['epoch']}, trained in {rows[-1]['seconds']:.1f} s", flush=True)
    (options.out / "seeds.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
