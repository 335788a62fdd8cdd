"""What channel estimation costs a trained run: perfect CSI, and least squares and LMMSE from a few pilots.

    python examples/csi.py runs/digits                # a run that was exported: its bundle, over Rayleigh block fading
    python examples/csi.py runs/digits --snr-db 4 --block-symbols 3

Gains and noise are the same in every row. The baseline repeats the label of the same run's classifier without a link, over
as many symbols and behind the same pilots.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from link.bundle import load_bundle
from link.chain import Link
from link.montecarlo import Proportion
from link.repetition import sweep_repetition
from link.sweep import SweepSpec, sweep
from train import checkpoint as checkpoints
from train.baseline import without_link

KNOWLEDGE = (("perfect", 0), *((kind, pilots) for pilots in (1, 2, 4) for kind in ("ls", "lmmse")))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, with best/ and bundle/")
    parser.add_argument("--data", type=Path, help="folder with the task's files, where it needs any")
    parser.add_argument("--snr-db", type=float, default=10.0, help="Es/N0 in dB")
    parser.add_argument(
        "--block-symbols", type=int, default=0, help="symbols that fade together; 0 is the whole sample"
    )
    asked = parser.parse_args()
    described = checkpoints.read(asked.run / "best")
    task = checkpoints.task_of(described)
    test = task.load(asked.data).test
    link = Link(load_bundle(asked.run / "bundle"))
    decisions = without_link(described.recipe, asked.run, data_folder=asked.data).decisions
    print("| CSI | pilots a block | symbols a sample | hard | label by repetition | BER | theory |")
    print("|---|---|---|---|---|---|---|")
    for kind, pilots in KNOWLEDGE:
        spec = SweepSpec(
            snr_db=(asked.snr_db,),
            channel="rayleigh",
            block_symbols=asked.block_symbols,
            csi=kind,
            pilots=pilots,
            seed=7,
            draws=20,
        )
        point = sweep(link, test.inputs, test.labels, spec).points[0]
        repeated = sweep_repetition(
            decisions,
            test.labels,
            spec,
            num_classes=len(task.classes),
            num_symbols=link.manifest.modes[0].num_symbols,
        )[0]
        cells = (
            kind,
            str(pilots),
            f"{point.symbols_per_sample:g}",
            percent(point.accuracy_noise),
            percent(repeated.accuracy_noise),
            "" if point.ber is None else f"{point.ber.value:.4f}",
            "" if point.ber_theory is None else f"{point.ber_theory:.4f}",
        )
        print(f"| {' | '.join(cells)} |")


def percent(value: Proportion) -> str:
    """A share and its interval over the noise."""
    return f"{100 * value.value:.2f} [{100 * value.low:.2f}, {100 * value.high:.2f}]"


if __name__ == "__main__":
    main()
