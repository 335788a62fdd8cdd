"""What a run's checkpoints do when they are measured, beside what they wrote down: `hardpath diagnose --deep`.

Tokens are looked at in both modes of torch's modules: batch statistics and dropout act in training mode alone, and a codec
that needs them is another codec once it is deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint
from train.collapse import (
    CollapseMetrics,
    TokenDrift,
    TokenStatistics,
    token_drift,
    token_statistics,
)
from train.collapse_probe import ROWS_MAX, CollapseProbe, encode_as, probe_collapse, spread
from train.evaluate import evaluate
from train.measure import TEMPERATURES, Point, measure
from train.tasks import Data, Task
from train.transceiver import Transceiver
from train.usage import Usage, code_usage


class Modes(BaseModel):
    """Usage of the codebook by rows of the training and of the validation set, in both modes of the modules."""

    model_config = ConfigDict(frozen=True)

    rows: int
    training_as_trained: Usage
    training_as_evaluated: Usage
    validation_as_trained: Usage
    validation_as_evaluated: Usage


class CheckpointProbe(BaseModel):
    """One checkpoint as measured on the validation set.

    Attributes
    ----------
    recorded_hard : float
        Hard accuracy, mean over the grid, that the checkpoint says it had, on the same rows through the same noise.
    hard, soft : mapping of Es/N0 in dB, as text, to accuracy
        At the checkpoint's own temperature.
    hard_loss, soft_loss : float
        Task loss, nats.
    points : tuple of Point
        Both paths over the grid, the soft one at each of TEMPERATURES.
    set_drift : TokenDrift
        Tokens of the validation set against those of the training set, both as evaluated.
    mode_drift : TokenDrift
        Tokens of the validation set as evaluated against the same as trained.
    changed : tuple of str
        Weights and buffers that evaluating changed; it should change none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    epoch: int
    vq_temp: float
    recorded_hard: float
    hard: dict[str, float]
    soft: dict[str, float]
    hard_loss: float
    soft_loss: float
    collapse: CollapseMetrics
    points: tuple[Point, ...]
    modes: Modes
    set_drift: TokenDrift
    mode_drift: TokenDrift
    changed: tuple[str, ...]

    @property
    def hard_mean(self) -> float:
        """Hard accuracy averaged over the grid."""
        return float(np.mean(list(self.hard.values())))

    @property
    def soft_mean(self) -> float:
        """Soft accuracy averaged over the grid, at the checkpoint's temperature."""
        return float(np.mean(list(self.soft.values())))


class Probe(BaseModel):
    """Best and last checkpoint as measured; before the link is there, there is no best.

    Attributes
    ----------
    collapse : CollapseProbe, optional
        What becomes of the last one's codebook in evaluation.
    """

    model_config = ConfigDict(frozen=True)

    best: CheckpointProbe | None
    last: CheckpointProbe
    collapse: CollapseProbe | None = None


def probe(
    folder: Path, *, data_folder: Path | None = None, progress: Callable[[int, str], None] | None = None
) -> Probe | None:
    """Measure best and last checkpoint of a run; None before its link is there.

    Raises
    ------
    CheckpointError
        If a checkpoint is missing or cannot be read.
    """
    told = progress or (lambda done, remark: None)
    last = checkpoints.read(folder / "last")
    if not last.hard_accuracy:
        return None
    task = checkpoints.task_of(last)
    data = task.load(data_folder)
    loaded = {name: checkpoints.load(folder / name) for name in ("best", "last")}
    told(0, "best")
    best = _probe("best", *loaded["best"], task, data)
    told(1, "last")
    same = best.epoch == last.epoch
    found = best.model_copy(update={"name": "last"}) if same else _probe("last", *loaded["last"], task, data)
    told(2, "its codebook in evaluation")
    collapse = probe_collapse(loaded["last"], loaded["best"], task, data)
    told(3, "done")
    return Probe(best=best, last=found, collapse=collapse)


def _probe(name: str, found: Checkpoint, model: Transceiver, task: Task, data: Data) -> CheckpointProbe:
    recipe = found.recipe
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluation = evaluate(
        model,
        task,
        data.validation,
        recipe.channel,
        temperature=found.vq_temp,
        symbol_temperature=found.symbol_temp,
        seed=recipe.seed,
        header=recipe.header,
    )
    changed = tuple(name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name]))
    points = measure(
        model,
        task,
        data.validation,
        snr_db=recipe.channel.eval_snr_db,
        draws=recipe.channel.eval_draws,
        temperatures=TEMPERATURES,
        tied=recipe.schedule.symbol_temp == "tied",
        seed=recipe.seed,
        header=recipe.header,
    )
    modes, set_drift, mode_drift = _compare(model, task, data, found)
    return CheckpointProbe(
        name=name,
        epoch=found.epoch,
        vq_temp=found.vq_temp,
        recorded_hard=found.mean_hard_accuracy,
        hard=_by_snr(evaluation.hard),
        soft=_by_snr(evaluation.soft),
        hard_loss=evaluation.hard_loss,
        soft_loss=evaluation.soft_loss,
        collapse=evaluation.collapse,
        points=tuple(points),
        modes=modes,
        set_drift=set_drift,
        mode_drift=mode_drift,
        changed=changed,
    )


@torch.no_grad()
def _compare(model: Transceiver, task: Task, data: Data, found: Checkpoint) -> tuple[Modes, TokenDrift, TokenDrift]:
    """Usage and drift of both sets in both modes, on as many rows of each; the model stays as it is."""
    rows = min(len(data.train), len(data.validation), ROWS_MAX)
    size, seed = found.recipe.optimizer.batch_size, found.recipe.seed
    statistics: dict[str, TokenStatistics] = {}
    usage: dict[str, Usage] = {}
    for mode, training in (("evaluated", False), ("trained", True)):
        for which, split in (("training", data.train), ("validation", data.validation)):
            tokens = encode_as(model, task, spread(split, rows), size, seed, training=training).tokens
            name = f"{which}_as_{mode}"
            statistics[name] = token_statistics(tokens)
            usage[name] = code_usage(model.quantizer.hard(tokens), model.quantizer.codewords)
    evaluated = statistics["validation_as_evaluated"]
    return (
        Modes(rows=rows, **usage),
        token_drift(statistics["training_as_evaluated"], evaluated),
        token_drift(statistics["validation_as_trained"], evaluated),
    )


def _by_snr(accuracy: Mapping[float, float]) -> dict[str, float]:
    return {f"{snr_db:g}": value for snr_db, value in accuracy.items()}
