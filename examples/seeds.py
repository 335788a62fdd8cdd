"""Train a recipe with several seeds and measure each bundle on the test set: the tables of docs/results.md.

    python examples/seeds.py digits --seeds 0 1 2 3 4 --out runs/seeds
    python examples/seeds.py text --data FOLDER --encoder FOLDER --seeds 0 1 2 --out runs/text

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

from link.bundle import load_bundle
from link.chain import Link
from link.repetition import sweep_repetition
from link.sweep import SweepResult, SweepSpec, sweep
from train import checkpoint as checkpoints
from train.baseline import without_link
from train.evaluate import evaluate
from train.export import export
from train.recipe import Recipe
from train.recipe_file import load_recipe
from train.run import train

SNR_DB: Final = (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0)
SWEEP: Final = SweepSpec(snr_db=SNR_DB, seed=7, draws=20)
RAYLEIGH: Final = SweepSpec(snr_db=(10.0,), channel="rayleigh", seed=7, draws=20)


def measure(recipe: Recipe, folder: Path, data: Path | None) -> dict[str, Any]:
    """Train, export and sweep one seed."""
    started = time.monotonic()
    train(recipe, folder, data_folder=data)
    seconds = time.monotonic() - started
    described, model = checkpoints.load(folder)
    task = checkpoints.task_of(described)
    test = task.load(data).test

    def swept(name: str, spec: SweepSpec) -> SweepResult:
        bundle = folder / f"bundle-{name}"
        if not bundle.exists():
            export(folder / name, bundle, data_folder=data)
        out = folder / f"sweep-{name}-{spec.channel}"
        return sweep(Link(load_bundle(bundle)), test.inputs, test.labels, spec, out=out)

    hard, faded = swept("best", SWEEP), swept("best", RAYLEIGH)
    last = hard if checkpoints.read(folder / "last").epoch == described.epoch else swept("last", SWEEP)
    grid = recipe.channel.model_copy(update={"eval_snr_db": SNR_DB, "eval_draws": SWEEP.draws})
    soft = evaluate(
        model,
        task,
        test,
        grid,
        temperature=described.vq_temp,
        symbol_temperature=described.symbol_temp,
        seed=SWEEP.seed,
        header=recipe.header,
    )
    baseline = without_link(recipe, folder, data_folder=data)
    repetition = sweep_repetition(
        baseline.decisions,
        test.labels,
        SWEEP,
        num_classes=len(task.classes),
        num_symbols=recipe.link.num_symbols,
    )
    return {
        "seed": recipe.seed,
        "seconds": seconds,
        "epoch": described.epoch,
        "hard": [point.accuracy.value for point in hard.points],
        "noise_low": [point.accuracy_noise.low for point in hard.points],
        "noise_high": [point.accuracy_noise.high for point in hard.points],
        "last": [point.accuracy.value for point in last.points],
        "soft": [soft.soft[snr_db] for snr_db in SNR_DB],
        "repetition": [point.accuracy.value for point in repetition],
        "rayleigh": faded.points[0].accuracy.value,
        "es_db": hard.points[0].es_db,
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
    labels = {
        "hard": "hard, mean",
        "last": "hard, last epoch, mean",
        "soft": "soft, mean",
        "repetition": "label by repetition, mean",
    }
    for name, label in labels.items():
        cells = [interval([row[name][index] for row in rows]) for index in range(len(SNR_DB))]
        lines.append(f"| **{label}** | {' | '.join(cells)} | | | | {interval([row['no_link'] for row in rows])} |")
    gaps = [[row["soft"][index] - row["hard"][index] for row in rows] for index in range(len(SNR_DB))]
    lines.append(f"| **soft - hard, mean** | {' | '.join(interval(gap) for gap in gaps)} | | | | |")
    widest = [max(gap, key=abs) for gap in gaps]
    lines.append(f"| **soft - hard, widest** | {' | '.join(f'{100 * gap:+.2f}' for gap in widest)} | | | | |")
    lines.append("")
    lines.append(f"Rayleigh, one gain a sample, 10 dB: {interval([row['rayleigh'] for row in rows])}")
    return "\n".join(lines)


def main() -> None:
    """Measure each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    overrides = dict(setting.split("=", 1) for setting in options.set)
    if options.encoder is not None:
        overrides["task_options.encoder"] = json.dumps(str(options.encoder.resolve()))
    rows = []
    for seed in options.seeds:
        recipe = load_recipe(options.recipe, overrides | {"seed": str(seed)})
        rows.append(measure(recipe, options.out / str(seed), options.data))
        print(f"seed {seed}: epoch {rows[-1]['epoch']}, trained in {rows[-1]['seconds']:.1f} s", flush=True)
    (options.out / "seeds.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
