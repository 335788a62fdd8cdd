"""`hardpath ablate`: all runs one after the other, and what they say together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hardpath.terminal import note, percent, progress, write_text
from link.errors import BundleError
from link.lock import locked

if TYPE_CHECKING:
    from train.ablation import Measured
    from train.ablation_design import Ablation
    from train.ablation_report import Baseline
    from train.record import EpochRecord

RESULTS_NAME = "results.jsonl"
BASELINES_NAME = "baselines.jsonl"
TABLE_NAME = "table.md"
PLOT_NAME = "ablation"


def run_ablation(
    ablation: Ablation, out: Path, data: Path | None, threads: int
) -> tuple[list[Measured], list[Baseline]]:
    """Train and measure every run that is missing, with a progress bar over all epochs; what is finished is kept.

    `out` gets a folder a run, results.jsonl (one line a checkpoint), baselines.jsonl (one line a seed), table.md and
    ablation.png, each anew after every run.

    Raises
    ------
    BundleError
        At the end, if a run could not be exported: the others are kept.
    """
    import torch

    from train.ablation import finished, run_case
    from train.ablation_report import measure_baselines

    torch.set_num_threads(threads)
    specs, cases = ablation.specs(), ablation.cases()
    done: list[Measured] = []
    failed: list[str] = []
    with locked(out):
        there = sum(finished(case, specs, out) is not None for case in cases)
        total = sum(case.recipe.schedule.epochs for case in cases)
        note(f"{out}: {len(cases)} runs, {there} of them finished already")
        with progress("ablation, epochs of all runs", total) as update:
            epochs = 0
            baselines = measure_baselines(ablation, out, data)
            for number, case in enumerate(cases, start=1):

                def show(record: EpochRecord, before: int = epochs, text: str = case.text()) -> None:
                    update(before + record.epoch, f"{text}: validation {percent(record.hard_mean or 0.0)} %")

                missing = finished(case, specs, out) is None
                try:
                    done += run_case(case, specs, out, data_folder=data, on_epoch=show)
                except BundleError as error:
                    failed.append(f"{case.text()}: {error}")
                    note(f"run {number} of {len(cases)} failed: {failed[-1]}")
                epochs += case.recipe.schedule.epochs
                update(epochs, case.text())
                if missing:
                    write_results(ablation, out, done, baselines)
                    if done:
                        note(f"run {number} of {len(cases)}: {_summary(done[-1])}")
            write_results(ablation, out, done, baselines)
    if failed:
        raise BundleError(f"{len(failed)} of {len(cases)} runs could not be exported; the first: {failed[0]}")
    return done, baselines


def write_results(ablation: Ablation, out: Path, done: list[Measured], baselines: list[Baseline]) -> None:
    """Write what is known so far."""
    from train.ablation_report import markdown, plot_ablation

    write_text(out / RESULTS_NAME, "".join(json.dumps(found.model_dump(mode="json")) + "\n" for found in done))
    write_text(out / BASELINES_NAME, "".join(json.dumps(found.model_dump(mode="json")) + "\n" for found in baselines))
    if done:
        write_text(out / TABLE_NAME, markdown(ablation, done, baselines))
        plot_ablation(ablation, done, baselines, out / PLOT_NAME)


def _summary(found: Measured) -> str:
    from train.ablation_design import condition_name

    channel, points = next(iter(found.hard.items()))
    snr_db, hard = list(points.items())[-1]
    soft = found.soft[channel][snr_db]
    name = f"{found.schedule}, {condition_name(found.defects)}, seed {found.seed}, {found.checkpoint}"
    return f"{name}: {channel} {snr_db} dB soft {percent(soft)} %, hard {percent(hard)} %"
