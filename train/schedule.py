"""Which phase an epoch belongs to, its temperature, what it sends and what it freezes: one strategy a kind of schedule.

    1 ......... warmup_epochs | .......................................................... epochs
      WARMUP, no link           by kind

Epochs are counted from 1, as in the published system. There, `--alignment-start-epoch 20` means that epochs 1 to 20 learn
and 21 to 30 align: its number is the *last* epoch of learning, and `alignment_start_epoch` here, the first epoch of
alignment, is one more. (Its code, `if epoch < alignment_start_epoch: learn`, aligns one epoch before its text and tables do;
the presets go by the text.) The temperatures in its tables, 0.85 in epoch 5, 0.789 in epoch 8 and 0.73 in epoch 10, are not
those of the formula beside them, 0.97^(epoch - 1), which gives 0.885, 0.808 and 0.760; here the formula holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from train.curriculum import ScheduleRecipe


class Phase(StrEnum):
    """What an epoch does."""

    WARMUP = "WARMUP"
    LEARNING = "LEARNING"
    ALIGNMENT = "ALIGNMENT"


class EpochPlan(NamedTuple):
    """One epoch's settings.

    Attributes
    ----------
    epoch : int
        From 1.
    phase : Phase
    vq_temp : float
        T of the soft assignment.
    hard_forward : bool
        Whether the forward pass sends real constellation points, or what goes over into them.
    restarts : bool
        Whether dead codewords restart.
    symbol_temp : float
        What the logits of the soft bits are divided by; 1 is off.
    hardness : float
        Share of the constellation points in the symbols sent where `hard_forward`: (1 - a) soft + a hard.
    """

    epoch: int
    phase: Phase
    vq_temp: float
    hard_forward: bool
    restarts: bool
    symbol_temp: float = 1.0
    hardness: float = 1.0


def plan(schedule: ScheduleRecipe, epoch: int) -> EpochPlan:
    """The settings of an epoch, counted from 1.

    Examples
    --------
    >>> schedule = ScheduleRecipe(epochs=100, warmup_epochs=10, alignment_start_epoch=41)
    >>> plan(schedule, 12).phase.value, round(plan(schedule, 12).vq_temp, 4)
    ('LEARNING', 0.97)
    >>> plan(schedule, 41).phase.value, plan(schedule, 41).vq_temp
    ('ALIGNMENT', 0.7)
    """
    if epoch <= schedule.warmup_epochs:
        settings = EpochPlan(epoch, Phase.WARMUP, schedule.temp_start, hard_forward=False, restarts=False)
    else:
        settings = _KINDS[schedule.kind](schedule, epoch)
    return settings._replace(symbol_temp=settings.vq_temp) if schedule.symbol_temp == "tied" else settings


def two_phase(schedule: ScheduleRecipe, epoch: int) -> EpochPlan:
    """Learn soft, align hard at a frozen temperature: the default.

    | epochs                      | forward                              | T                                |
    |-----------------------------|--------------------------------------|----------------------------------|
    | to alignment_start_epoch    | soft                                 | temp_decay an epoch, to the floor |
    | hardening_epochs from there | (1 - a) soft + a hard, a = 1/n .. 1  | temp_freeze_floor                |
    | to the end                  | hard, its gradient soft              | temp_freeze_floor                |
    """
    start = schedule.alignment_start_epoch
    if start is None or epoch < start:
        return _learning(epoch, annealed(schedule, epoch))
    hardness = min(1.0, (epoch - start + 1) / max(schedule.hardening_epochs, 1))
    return EpochPlan(
        epoch,
        Phase.ALIGNMENT,
        schedule.temp_freeze_floor,
        hard_forward=True,
        restarts=False,
        hardness=hardness,
    )


def anneal(schedule: ScheduleRecipe, epoch: int) -> EpochPlan:
    """Anneal to a floor, soft to the end, never aligned: the published failure, whose floor was 0.1.

    | epochs     | forward | T                                                                     |
    |------------|---------|-----------------------------------------------------------------------|
    | to the end | soft    | temp_decay an epoch; 0.97^29 = 0.413 in its last epoch, the 30th      |
    """
    return _learning(epoch, annealed(schedule, epoch))


def floor(schedule: ScheduleRecipe, epoch: int) -> EpochPlan:
    """Anneal to a floor high enough to stay soft, 0.5 or 0.7, and stay: the published band-aid.

    | epochs     | forward | T                                                        |
    |------------|---------|----------------------------------------------------------|
    | to the end | soft    | temp_decay an epoch, to temp_freeze_floor, and no further |
    """
    return _learning(epoch, annealed(schedule, epoch))


def freeze(schedule: ScheduleRecipe, epoch: int) -> EpochPlan:
    """Stop annealing early and freeze.

    The published code goes to the floor in the epoch after the last that anneals, by a step where annealing was not there
    yet (0.97^14 = 0.65 to 0.5); `freeze_at = "reached"` stays where it was.

    | epochs               | forward | T                                                     |
    |----------------------|---------|-------------------------------------------------------|
    | to anneal_stop_epoch | soft    | temp_decay an epoch, not below temp_freeze_floor       |
    | to the end           | soft    | temp_freeze_floor, or what annealing reached          |
    """
    stop = schedule.anneal_stop_epoch
    if epoch > stop and schedule.freeze_at == "floor":
        return _learning(epoch, schedule.temp_freeze_floor)
    return _learning(epoch, annealed(schedule, min(epoch, stop)))


_KINDS: Final[Mapping[str, Callable[[ScheduleRecipe, int], EpochPlan]]] = {
    "two-phase": two_phase,
    "anneal": anneal,
    "floor": floor,
    "freeze": freeze,
}


def is_final(schedule: ScheduleRecipe, epoch: int) -> bool:
    """Whether an epoch belongs to the last phase of its schedule, and sends fully hard if that is alignment."""
    settings = plan(schedule, epoch)
    if schedule.kind == "two-phase":
        return settings.phase is Phase.ALIGNMENT and settings.hardness == 1.0
    return settings.phase is Phase.LEARNING


def annealed(schedule: ScheduleRecipe, epoch: int) -> float:
    """max(temp_freeze_floor, temp_start * temp_decay^e), e the learning epochs before this one."""
    falling = schedule.temp_start * schedule.temp_decay ** (epoch - schedule.warmup_epochs - 1)
    return max(schedule.temp_freeze_floor, falling)


def _learning(epoch: int, temperature: float) -> EpochPlan:
    return EpochPlan(epoch, Phase.LEARNING, temperature, hard_forward=False, restarts=True)


def learning_rate_factor(step: int, steps: int) -> float:
    """Cosine from 1 to 0 over all steps.

    Examples
    --------
    >>> learning_rate_factor(0, 100), learning_rate_factor(100, 100)
    (1.0, 0.0)
    """
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))
