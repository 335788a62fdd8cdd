"""A run: a recipe trained into a folder, from where an earlier call was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from link.lock import locked
from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint
from train.ending import ending
from train.features import Progress
from train.loop import Trainer
from train.recipe import Recipe
from train.record import EpochRecord, Recorder, read_metrics
from train.tasks import facts_behind, load_task, task_facts
from train.transmitter import load_transmitter, require_same


class Summary(NamedTuple):
    """How a run ended: its best and its last checkpoint."""

    best: Checkpoint
    last: Checkpoint

    def text(self, folder: Path) -> str:
        """Best against last, for the screen."""
        rule = "=" * 70
        lines = [rule, "Training finished!"]
        for name, kept in self._asdict().items():
            by_snr = " ".join(f"{snr}dB={value:.4f}" for snr, value in kept.hard_accuracy.items())
            lines += [
                f"  {name.capitalize()}: epoch {kept.epoch}, {kept.phase.value}, vq_T={kept.vq_temp:.3f}, "
                f"hard {kept.mean_hard_accuracy:.4f} ({by_snr})",
                f"        {folder / name}",
            ]
        if self.last.ended is not None:
            lines.append(
                f"  Ended after epoch {self.last.epoch} of {self.last.recipe.schedule.epochs}: {self.last.ended}"
            )
        gap = self.best.mean_hard_accuracy - self.last.mean_hard_accuracy
        return "\n".join([*lines, f"  Best - last: {100 * gap:.2f} points, hard, mean over the grid", rule])


def train(
    recipe: Recipe,
    folder: Path,
    *,
    data_folder: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_encoding: Progress | None = None,
    transmitter: Path | None = None,
) -> Summary:
    """Train a recipe into a folder, going on where an interrupted run of the same recipe stopped.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        Gets best/, last/, metrics.jsonl and tensorboard/.
    data_folder : Path, optional
        Files of the task's data set, where it needs any.
    on_epoch : callable, optional
        Called with each finished epoch.
    on_encoding : callable, optional
        Told how far a frozen backbone is with the data; see train.features.
    transmitter : Path, optional
        A checkpoint, or a run (its best), whose transmitter is kept as it is: a head alone is trained, over the link for all
        the epochs of the schedule (train.transmitter).

    Raises
    ------
    CheckpointError
        If the folder holds a run of another recipe, or behind another transmitter.
    RecipeError
        If the recipe's link or encoder is not the transmitter's.
    """
    with locked(folder):
        return _train(recipe, folder, data_folder, on_epoch, on_encoding, transmitter)


def _train(
    recipe: Recipe,
    folder: Path,
    data_folder: Path | None,
    on_epoch: Callable[[EpochRecord], None] | None,
    on_encoding: Progress | None,
    transmitter: Path | None,
) -> Summary:
    kept = None if transmitter is None else load_transmitter(transmitter)
    if kept is not None:
        require_same(recipe, kept)
    facts = checkpoints.facts_of_run(folder)
    if facts is None:
        facts = task_facts(recipe, data_folder)
        if kept is not None:
            facts = facts_behind(recipe, facts, kept.checkpoint.facts)
    task = load_task(recipe.task, recipe.task_options, facts)
    trainer = Trainer(recipe, task, task.load(data_folder), facts=facts, on_encoding=on_encoding, transmitter=kept)
    start = trainer.restore(folder)
    recorder = Recorder(folder, after=start)
    records = read_metrics(folder)
    ended = checkpoints.read(folder / "last").ended if start else None
    try:
        for epoch in range(start + 1, recipe.schedule.epochs + 1):
            if ended is not None:
                break
            record = trainer.run_epoch(epoch, folder)
            recorder.write(record)
            records.append(record)
            ended = ending(recipe.schedule, records) if epoch < recipe.schedule.epochs else None
            reached = trainer.checkpoint(record).model_copy(update={"ended": ended})
            checkpoints.save(folder / "last", reached, trainer.model, trainer.optimizer)
            if on_epoch is not None:
                on_epoch(record)
    finally:
        recorder.close()
    return Summary(checkpoints.read(folder / "best"), checkpoints.read(folder / "last"))
