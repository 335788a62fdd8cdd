"""The jobs that look at a run or a checkpoint in torch: `evaluate` and `diagnose`, with their progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from hardpath.terminal import percent, progress, say, say_table, waiting
from link.bundle import sha256
from link.provenance import code_version, library_versions
from train.intervention import Intervened, Kind
from train.measure import Path, Point

if TYPE_CHECKING:
    from train.diagnosis import Diagnosis


class EvaluationReport(BaseModel):
    """What an evaluation measured, and what it takes to measure it again.

    Attributes
    ----------
    checkpoint, checkpoint_sha256 : str
        The file.
    epoch : int
        Of the checkpoint.
    samples, draws, seed : int
        Rows of the split, times that they were sent at each SNR, and the key of the noise.
    points : tuple of Point
        Over AWGN, Es/N0 in dB.
    """

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    checkpoint_sha256: str
    recipe: str
    training_seed: int
    epoch: int
    task: str
    split: str
    samples: int
    draws: int
    seed: int
    hardpath: str
    libraries: dict[str, str]
    points: tuple[Point, ...]


class InterventionReport(BaseModel):
    """What answers rest on, and what it takes to measure it again.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    measured : tuple of Intervened
        As they were first; then under each intervention.
    """

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    checkpoint_sha256: str
    recipe: str
    epoch: int
    split: str
    snr_db: float
    seed: int
    hardpath: str
    measured: tuple[Intervened, ...]


def run_evaluation(
    checkpoint: FilePath,
    *,
    paths: Sequence[Path],
    temperatures: Sequence[float],
    snr_db: Sequence[float] | None,
    draws: int,
    seed: int,
    data: FilePath | None,
    split: Literal["validation", "test"],
) -> EvaluationReport:
    """Measure a checkpoint with a progress bar."""
    from train import checkpoint as checkpoints
    from train.measure import measure

    file = checkpoints.checkpoint_file(checkpoint)
    found, model = checkpoints.load(file)
    task = checkpoints.task_of(found)
    rows = getattr(task.load(data), split)
    with progress(f"evaluating {file}", len(rows)) as update:
        points = measure(
            model,
            task,
            rows,
            snr_db=found.recipe.channel.eval_snr_db if snr_db is None else snr_db,
            draws=draws,
            temperatures=temperatures,
            paths=paths,
            tied=found.recipe.schedule.symbol_temp == "tied",
            seed=seed,
            header=found.recipe.header,
            progress=lambda done, total: update(done, "samples"),
        )
    return EvaluationReport(
        checkpoint=str(file),
        checkpoint_sha256=sha256(file),
        recipe=found.recipe.name,
        training_seed=found.recipe.seed,
        epoch=found.epoch,
        task=found.recipe.task,
        split=split,
        samples=len(rows),
        draws=draws,
        seed=seed,
        hardpath=code_version(),
        libraries=library_versions("numpy", "torch"),
        points=tuple(points),
    )


def run_intervention(
    checkpoint: FilePath,
    kinds: Sequence[Kind],
    *,
    snr_db: float,
    seed: int,
    data: FilePath | None,
    split: Literal["validation", "test"],
) -> InterventionReport:
    """Measure what a checkpoint's answers rest on."""
    from train import checkpoint as checkpoints
    from train.intervention import intervene, require_intervention

    file = checkpoints.checkpoint_file(checkpoint)
    found, model = checkpoints.load(file)
    task = checkpoints.task_of(found)
    require_intervention(model, task)
    with waiting(f"intervening in {file}"):
        parts = task.load(data)
        measured = intervene(
            model, task, parts.train, getattr(parts, split), ("none", *kinds), snr_db=snr_db, seed=seed
        )
    return InterventionReport(
        checkpoint=str(file),
        checkpoint_sha256=sha256(file),
        recipe=found.recipe.name,
        epoch=found.epoch,
        split=split,
        snr_db=snr_db,
        seed=seed,
        hardpath=code_version(),
        measured=tuple(measured),
    )


def intervention_text(found: InterventionReport) -> None:
    """The interventions as a table on stdout."""
    asked = any(one.image_prior is not None for one in found.measured)
    rows = [
        (
            one.kind,
            one.group,
            str(one.rows),
            percent(one.accuracy.value),
            f"{percent(one.accuracy.low)} .. {percent(one.accuracy.high)}",
            percent(one.independent),
            percent(one.question_prior),
            *(() if one.image_prior is None else (percent(one.image_prior),)),
        )
        for one in found.measured
    ]
    say_table(
        f"{found.checkpoint}, epoch {found.epoch}: {found.split}, hard path at {found.snr_db:g} dB, seed {found.seed}",
        (
            "latent",
            "answers",
            "rows",
            "accuracy %",
            "95 % interval",
            "by chance %",
            *(("question alone %", "image alone %") if asked else ("most frequent %",)),
        ),
        rows,
    )
    say("By chance: these answers, if given the question they had nothing to do with the labels.")


def evaluation_text(found: EvaluationReport) -> None:
    """The evaluation as a table on stdout."""
    rows = [
        (
            point.path,
            "any" if point.temperature is None else f"{point.temperature:g}",
            f"{point.snr_db:g}",
            percent(point.accuracy.value),
            f"{percent(point.accuracy.low)} .. {percent(point.accuracy.high)}",
            f"{point.correct}/{point.decisions}",
            f"{point.h_assign:.3f}",
            f"{point.es_db:+.2f}",
        )
        for point in found.points
    ]
    say_table(
        f"{found.checkpoint}, epoch {found.epoch}: {found.samples} samples of {found.split}, sent {found.draws} times over "
        f"awgn, seed {found.seed}",
        ("path", "T", "Es/N0 dB", "accuracy %", "95 % interval", "correct", "H_assign nat", "Es dB"),
        rows,
    )
    if any(point.path == "hard" for point in found.points):
        say("The hard path takes the nearest codeword: no temperature moves it, so it is measured once.")


def run_diagnosis(folder: FilePath, data: FilePath | None, plot: FilePath | None, *, deep: bool) -> Diagnosis:
    """Diagnose a run; measure its checkpoints where `deep`; draw it where `plot` names a file."""
    from train.diagnosis import diagnose, read_run

    run = read_run(folder)
    if deep:
        from train.probe import probe

        with progress(f"measuring the checkpoints of {folder}", 3) as update:
            run = replace(run, probe=probe(folder, data_folder=data, progress=update))
    found = diagnose(folder, run)
    if plot is not None:
        from train.plot import plot_diagnosis

        plot_diagnosis(run.records, run.recipe, plot)
    return found
