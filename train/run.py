"""A run: a recipe trained into a folder, from where an earlier call was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from link.errors import CheckpointError
from link.lock import locked
from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint
from train.ending import ending
from train.features import Progress
from train.loop import Trainer
from train.processes import Processes
from train.recipe import Recipe
from train.record import EpochRecord, Recorder, read_metrics
from train.sequence_run import learn_sequence, require_recordings
from train.tasks import facts_behind, load_task, task_facts
from train.transmitter import Transmitter, load_transmitter, require_same, require_transmitter


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
    on_found: Callable[[Checkpoint], None] | None = None,
    on_stage: Callable[[int, float], None] = lambda epoch, loss: None,
    processes: Processes | None = None,
    transmitter: Path | None = None,
) -> Summary:
    """Train a recipe into a folder, going on where an interrupted run of the same recipe and rows stopped.

    A finished run answers from its folder alone; where data are named all the same, they are compared.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        Gets best/, last/, metrics.jsonl and tensorboard/. Where there are several processes, one that all of them see.
    data_folder : Path, optional
        Files of the task's data set, where it needs any.
    on_epoch : callable, optional
        Called with each finished epoch, in the first process.
    on_encoding : callable, optional
        Told how far a frozen backbone is with the data; see train.features.
    on_found : callable, optional
        Told of the last epoch of an earlier call, once it is sure that the run goes on from it or is finished.
    on_stage : callable
        Told of each epoch of a sequence stage, which is learned at the end where the recipe has one, and its loss.
    processes : Processes, optional
        Those that train together (train.processes.launched); alone on the CPU where absent.
    transmitter : Path, optional
        A checkpoint, or a run (its best), whose transmitter is kept as it is: a head alone is trained, over the link for all
        the epochs of the schedule (train.transmitter).

    Raises
    ------
    CheckpointError
        If the folder holds a run of another recipe or of other rows, or behind another transmitter, or is not the same for
        all processes.
    RecipeError
        If the recipe's link or encoder is not the transmitter's, or it has a sequence stage and rows that stand apart.
    """
    require_recordings(recipe)
    processes = processes or Processes()
    with ExitStack() as stack:
        if processes.is_first:
            stack.enter_context(locked(folder))
        summary = _train(
            recipe,
            folder,
            data_folder,
            on_epoch,
            on_encoding,
            on_found or (lambda found: None),
            processes,
            None if transmitter is None else load_transmitter(transmitter),
        )
        if processes.is_first:
            learn_sequence(folder, data_folder=data_folder, on_epoch=on_stage)
        processes.meet()
        return summary


def _train(
    recipe: Recipe,
    folder: Path,
    data_folder: Path | None,
    on_epoch: Callable[[EpochRecord], None] | None,
    on_encoding: Progress | None,
    on_found: Callable[[Checkpoint], None],
    processes: Processes,
    kept: Transmitter | None,
) -> Summary:
    processes.meet()  # the first one has the folder
    found = checkpoints.last_of_run(folder)
    start = 0 if found is None else found.epoch
    if start != processes.agree(start):
        raise CheckpointError(f"{folder} is not the same for all processes: name one that each of them sees")
    if found is not None:
        checkpoints.require_recipe(found, recipe, folder)
        require_transmitter(found, kept, folder)
    if kept is not None:
        require_same(recipe, kept)
    facts = _facts(recipe, data_folder, kept) if found is None else found.facts
    task = load_task(recipe.task, recipe.task_options, facts)
    if found is not None and found.finished:
        if data_folder is not None:
            checkpoints.require_data(found, task.load(data_folder), folder)
        on_found(found)
        return Summary(checkpoints.read(folder / "best"), found)
    data = task.load(data_folder)
    if found is not None:
        checkpoints.require_data(found, data, folder)
    with processes.one_before_the_others():  # it computes the states of a frozen backbone
        trainer = Trainer(
            recipe, task, data, facts=facts, on_encoding=on_encoding, processes=processes, transmitter=kept
        )
    trainer.restore(folder)
    if found is not None:
        on_found(found)
    recorder = Recorder(folder, after=start) if processes.is_first else None
    records = processes.agree(read_metrics(folder) if processes.is_first else [])
    ended = None
    try:
        for epoch in range(start + 1, recipe.schedule.epochs + 1):
            if ended is not None:
                break
            record = trainer.run_epoch(epoch, folder)
            records.append(record)
            ended = ending(recipe.schedule, records) if epoch < recipe.schedule.epochs else None
            if recorder is None:
                continue
            recorder.write(record)
            reached = trainer.checkpoint(record).model_copy(update={"ended": ended})
            checkpoints.save(folder / "last", reached, trainer.model, trainer.optimizer)
            if on_epoch is not None:
                on_epoch(record)
    finally:
        if recorder is not None:
            recorder.close()
    processes.meet()  # the last checkpoint is written
    return Summary(checkpoints.read(folder / "best"), checkpoints.read(folder / "last"))


def _facts(recipe: Recipe, data_folder: Path | None, kept: Transmitter | None) -> dict[str, Any]:
    """What the task must know of its data; of the texts' encoder, what the transmitter that is kept knows."""
    facts = task_facts(recipe, data_folder)
    return facts if kept is None else facts_behind(recipe, facts, kept.checkpoint.facts)
