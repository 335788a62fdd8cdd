"""The ablation: which defect of a published system, under which schedule, makes the hard path fall.

    schedules x conditions x training seeds ──train──> best, last ─┬─ soft: torch, at its own temperature ─┐
                                                                  └─ hard: export, ONNX Runtime ──────────┴─> the same noise

A condition is the set of defects that a system is trained with. Runs differ in schedule, condition and seed, and in nothing
else: of a preset only the section [schedule] is taken, so that all of them have the recipe's loss. What is deployed is the
clean chain in every condition (`train.defects`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from link.bundle import load_bundle
from link.chain import Link
from link.grid import SweepSpec
from link.lock import locked
from link.provenance import code_version
from link.randomness import Draws
from link.sweep import sweep
from train import checkpoint as checkpoints
from train.ablation_design import Case, Defects
from train.evaluate import chunks, encode, side_tensors, tensors
from train.export import export
from train.questions import asked
from train.recipe import Recipe
from train.record import EpochRecord, batch_usage, read_metrics
from train.run import train
from train.tasks import Split, Task
from train.transceiver import Transceiver

MEASURED_NAME: Final = "measured.json"
KEPT: Final[tuple[Literal["best", "last"], ...]] = ("best", "last")


class Measured(BaseModel):
    """One checkpoint, measured on the test split.

    Attributes
    ----------
    checkpoint : str
        `best` or `last`.
    epoch, epochs : int
        Of the checkpoint, and of the run.
    h_assign, codes_used : float
        Of the validation set in that epoch: assignment entropy in nats, share of the codewords.
    perplexity_training, perplexity_validation, active_training, active_validation : float, optional
        Perplexity and active codes of the codebook in that epoch, means over batches of as many rows; absent where the data
        fill none.
    soft_es_db : float
        Mean energy of the soft symbols, dB above the constellation's.
    soft, hard : mapping of channel to (mapping of Es/N0 in dB, as text, to accuracy)
        Soft in torch with the defects, in batches as large as in training; hard through the exported graphs.
    decisions : int
        Behind each accuracy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: str
    defects: Defects
    seed: int
    checkpoint: Literal["best", "last"]
    epoch: int
    epochs: int
    phase: str
    vq_temp: float
    symbol_temp: float
    h_assign: float
    codes_used: float
    perplexity_training: float | None = None
    perplexity_validation: float | None = None
    active_training: float | None = None
    active_validation: float | None = None
    soft_es_db: float
    soft: dict[str, dict[str, float]]
    hard: dict[str, dict[str, float]]
    decisions: int


class _Result(BaseModel):
    """What a run's folder says of its measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    specs: dict[str, SweepSpec]
    code_version: str
    measured: tuple[Measured, ...]


def run_case(
    case: Case,
    specs: Mapping[str, SweepSpec],
    out: Path,
    *,
    data_folder: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> tuple[Measured, ...]:
    """Train one run and measure its checkpoints, or read what was measured before; an interrupted run goes on.

    Parameters
    ----------
    specs : mapping of channel to SweepSpec
    out : Path
        Of the ablation.
    data_folder : Path, optional
        The task's files, where it needs any.
    on_epoch : callable, optional
        Called with each epoch that is trained.

    Raises
    ------
    BundleError
        If what was trained cannot be exported.
    CheckpointError
        If the run's folder holds a run of another recipe.
    """
    folder = out / case.folder
    found = finished(case, specs, out)
    if found is not None:
        return found
    train(case.recipe, folder, data_folder=data_folder, on_epoch=on_epoch)
    with locked(folder):
        measured = _measure(case, folder, specs, data_folder)
        result = _Result(recipe=case.recipe, specs=dict(specs), code_version=code_version(), measured=measured)
        draft = folder / f".{MEASURED_NAME}.part"
        draft.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(folder / MEASURED_NAME)
    return measured


def finished(case: Case, specs: Mapping[str, SweepSpec], out: Path) -> tuple[Measured, ...] | None:
    """What was measured of a run; None where it was not, or another recipe was, or at other points."""
    try:
        text = (out / case.folder / MEASURED_NAME).read_text(encoding="utf-8")
        result = _Result.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    same = result.recipe == case.recipe and result.specs == dict(specs)
    return result.measured if same else None


class Soft(NamedTuple):
    """Accuracy of a surrogate by Es/N0 in dB, as text, and the mean energy of its symbols, dB."""

    accuracy: dict[str, float]
    es_db: float


def soft_accuracy(
    model: Transceiver,
    task: Task,
    split: Split,
    spec: SweepSpec,
    *,
    temperature: float,
    symbol_temperature: float,
    batch_rows: int,
) -> Soft:
    """Send a split by the surrogate, through the noise that the hard path meets in a sweep of the same specification.

    Parameters
    ----------
    batch_rows : int
        Rows sent at a time: some defects are statistics of a batch.
    """
    channel = spec.build_channel()
    correct = dict.fromkeys(spec.snr_db, 0)
    energy = 0.0
    model.eval()
    with torch.no_grad():
        for rows, part in chunks(split, batch_rows):
            sent = model.send_soft(encode(model, tensors(task, part)), temperature, symbol_temperature)
            side = side_tensors(task, part)
            x = sent.symbols.numpy().astype(np.float32)
            energy += float(np.square(x).sum(axis=-1, dtype=np.float64).mean(axis=-1).sum())
            symbols = np.full(len(x), x.shape[1], dtype=np.int64)
            for snr_db in spec.snr_db:
                for draw in range(spec.draws):
                    draws = Draws(spec.seed, np.arange(rows.start, rows.stop), draw)
                    received = channel(x, symbols, snr_db, draws)
                    heard = model.receive(torch.from_numpy(received.y), torch.from_numpy(received.no), side=side)
                    labels = torch.from_numpy(part.labels)
                    answers = asked(model.head, heard.logits, labels).argmax(dim=-1)
                    correct[snr_db] += int((answers == labels).sum())
    accuracy = {f"{snr_db:g}": count / (len(split) * spec.draws) for snr_db, count in correct.items()}
    return Soft(accuracy, 10.0 * math.log10(energy / len(split)))


def _measure(
    case: Case, folder: Path, specs: Mapping[str, SweepSpec], data_folder: Path | None
) -> tuple[Measured, ...]:
    records = {record.epoch: record for record in read_metrics(folder)}
    by_epoch: dict[int, Measured] = {}
    measured = []
    for kept in KEPT:
        described, model = checkpoints.load(folder / kept)
        if described.epoch not in by_epoch:
            task = checkpoints.task_of(described)
            test = task.load(data_folder).test
            bundle = folder / f"bundle-{kept}"
            export(folder / kept, bundle, data_folder=data_folder)
            link = Link(load_bundle(bundle))
            hard = {
                name: {
                    f"{point.snr_db:g}": point.accuracy.value
                    for point in sweep(link, test.inputs, test.labels, spec).points
                }
                for name, spec in specs.items()
            }
            soft = {
                name: soft_accuracy(
                    model,
                    task,
                    test,
                    spec,
                    temperature=described.vq_temp,
                    symbol_temperature=described.symbol_temp,
                    batch_rows=case.recipe.optimizer.batch_size,
                )
                for name, spec in specs.items()
            }
            record = records[described.epoch]
            collapse = record.validation_collapse
            assert collapse is not None
            by_epoch[described.epoch] = Measured(
                schedule=case.schedule,
                defects=case.defects,
                seed=case.seed,
                checkpoint=kept,
                epoch=described.epoch,
                epochs=case.recipe.schedule.epochs,
                phase=described.phase.value,
                vq_temp=described.vq_temp,
                symbol_temp=described.symbol_temp,
                h_assign=collapse.h_assign,
                codes_used=collapse.codes_used,
                **batch_usage(record),
                soft_es_db=next(iter(soft.values())).es_db,
                soft={name: found.accuracy for name, found in soft.items()},
                hard=hard,
                decisions=len(test) * next(iter(specs.values())).draws,
            )
        measured.append(by_epoch[described.epoch].model_copy(update={"checkpoint": kept}))
    return tuple(measured)
