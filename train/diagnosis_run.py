"""A run as the rules of a diagnosis see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from train.alarms import Symptom, symptoms
from train.checkpoint import Checkpoint
from train.probe import Probe
from train.recipe import Recipe
from train.record import EpochRecord
from train.remedy import Remedy
from train.schedule import EpochPlan, Phase, plan


class Evidence(NamedTuple):
    """What was seen, with its numbers and epochs; the epoch before which it says little; what it asks for by itself."""

    text: str
    wait_until: int | None = None
    remedies: tuple[Remedy, ...] = ()


class Best(NamedTuple):
    """The best epoch and its hard and soft accuracy, means over the grid."""

    epoch: int
    hard: float
    soft: float


@dataclass(frozen=True)
class Run:
    """Recipe, epochs and checkpoints of a run, and what measuring the checkpoints gave, where they were measured.

    Attributes
    ----------
    records : tuple of EpochRecord
        At least one.
    best : Checkpoint or None
        None before the link is there.
    """

    recipe: Recipe
    records: tuple[EpochRecord, ...]
    best: Checkpoint | None
    last: Checkpoint
    probe: Probe | None = None

    @cached_property
    def now(self) -> EpochRecord:
        """The last epoch; as measured, where it was."""
        if self.probe is None:
            return self.records[-1]
        found = self.probe.last
        recorded = next((record for record in self.records if record.epoch == found.epoch), self.records[-1])
        validation = found.hard_loss if recorded.hard_forward else found.soft_loss
        training = recorded.train_collapse
        modes = found.modes
        return recorded.model_copy(
            update={
                "hard_accuracy": found.hard,
                "soft_accuracy": found.soft,
                "hard_mean": found.hard_mean,
                "soft_mean": found.soft_mean,
                "soft_hard_gap": 100.0 * (found.soft_mean - found.hard_mean),
                "validation_task_hard": found.hard_loss,
                "validation_task_soft": found.soft_loss,
                "overfitting": validation / max(recorded.losses["task"], 1e-12),
                # Of as many rows in both, which the epoch's own were not.
                "train_collapse": None
                if training is None
                else replace(training, perplexity=modes.training_as_trained.perplexity),
                "validation_collapse": replace(found.collapse, perplexity=modes.validation_as_evaluated.perplexity),
                "token_drift": found.set_drift,
            }
        )

    @cached_property
    def linked(self) -> tuple[EpochRecord, ...]:
        """The epochs over the link."""
        return tuple(record for record in self.records if record.hard_mean is not None)

    @cached_property
    def aligned(self) -> tuple[EpochRecord, ...]:
        """The epochs of alignment."""
        return tuple(record for record in self.linked if record.phase is Phase.ALIGNMENT)

    @cached_property
    def learning(self) -> tuple[EpochRecord, ...]:
        """The epochs of soft learning over the link."""
        return tuple(record for record in self.linked if record.phase is Phase.LEARNING)

    @cached_property
    def best_now(self) -> Best | None:
        """The best epoch of any phase, since a fall into alignment is a fall; as measured, where it was."""
        if self.probe is not None and self.probe.best is not None:
            return Best(self.probe.best.epoch, self.probe.best.hard_mean, self.probe.best.soft_mean)
        if not self.linked:
            return None
        # Later epochs win ties, as in training.
        found = max(self.linked, key=lambda record: (record.hard_mean or 0.0, record.epoch))
        return Best(found.epoch, found.hard_mean or 0.0, found.soft_mean or 0.0)

    @property
    def unfinished(self) -> bool:
        """Whether the recipe has more epochs and the run goes on."""
        return self.now.epoch < self.recipe.schedule.epochs and self.last.ended is None

    @cached_property
    def alignment_start(self) -> int | None:
        """First epoch of alignment that the schedule has."""
        return self._first(lambda settings: settings.phase is Phase.ALIGNMENT)

    @cached_property
    def settles(self) -> int | None:
        """First epoch over the link whose temperature is at the floor."""
        floor = self.recipe.schedule.temp_freeze_floor
        return self._first(lambda settings: settings.phase is not Phase.WARMUP and settings.vq_temp <= floor)

    def awaited(self, epoch: int | None) -> int | None:
        """That epoch, where the run is still before it and will come to it."""
        if epoch is None or not self.now.epoch < epoch:
            return None
        return min(epoch, self.recipe.schedule.epochs) if self.unfinished else None

    def grown(self, weight: str | None) -> int | None:
        """The epoch to wait for until a weight of the loss has grown to its value; None where it has, or never grows."""
        if weight is None:
            return None
        return self.awaited(full_from(self.recipe.model_dump(), weight))

    def seen(self, symptom: Symptom) -> str | None:
        """What the last epoch shows of a symptom, and since when."""
        alarm = symptoms(self.now, self.recipe).get(symptom)
        if alarm is None:
            return None
        since = self.now.epoch
        for record in reversed([record for record in self.records if record.epoch < self.now.epoch]):
            if symptom not in symptoms(record, self.recipe):
                break
            since = record.epoch
        when = f"epoch {self.now.epoch}" + (f", since epoch {since}" if since < self.now.epoch else "")
        return f"{alarm.text} ({when}{', measured' if self.probe else ''})"

    def _first(self, holds: Callable[[EpochPlan], bool]) -> int | None:
        epochs = range(1, self.recipe.schedule.epochs + 1)
        return next((epoch for epoch in epochs if holds(plan(self.recipe.schedule, epoch))), None)


def full_from(recipe: dict[str, Any], weight: str) -> int | None:
    """First epoch in which a weight that grows has its full value; epochs of growth count from the first over the link.

    Examples
    --------
    >>> recipe = {"schedule": {"warmup_epochs": 3}, "loss": {"lambda_vq": 0.1, "warmup": {"lambda_vq": 10}}}
    >>> full_from(recipe, "lambda_vq"), full_from({"schedule": {"warmup_epochs": 3}, "loss": {}}, "lambda_vq")
    (13, None)
    """
    growth = recipe["loss"].get("warmup", {}).get(weight, 0)
    return recipe["schedule"]["warmup_epochs"] + growth if growth else None
