"""Which phase an epoch belongs to, its temperature, and what it freezes.

1 ......... warmup_epochs | ........ | alignment_start_epoch ......... epochs
  WARMUP                    LEARNING   ALIGNMENT
  no link                   soft       hard forward, soft backward
  -                         T falls    T frozen at the floor
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from train.recipe import ScheduleRecipe


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
        Whether the forward pass sends real constellation points.
    restarts : bool
        Whether dead codewords restart.
    """

    epoch: int
    phase: Phase
    vq_temp: float
    hard_forward: bool
    restarts: bool


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
        return EpochPlan(epoch, Phase.WARMUP, schedule.temp_start, hard_forward=False, restarts=False)
    if epoch >= schedule.alignment_start_epoch:
        return EpochPlan(epoch, Phase.ALIGNMENT, schedule.temp_freeze_floor, hard_forward=True, restarts=False)
    annealed = schedule.temp_start * schedule.temp_decay ** (epoch - schedule.warmup_epochs - 1)
    temperature = max(schedule.temp_freeze_floor, annealed)
    return EpochPlan(epoch, Phase.LEARNING, temperature, hard_forward=False, restarts=True)


def learning_rate_factor(step: int, steps: int) -> float:
    """Cosine from 1 to 0 over all steps.

    Examples
    --------
    >>> learning_rate_factor(0, 100), learning_rate_factor(100, 100)
    (1.0, 0.0)
    """
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))
