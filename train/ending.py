"""When a run ends before its last epoch: soft and hard agree, or the task is learned no further.

Both look at the last phase alone, alignment once it is fully hard where there is one: a run that ended sooner would save the
epochs that make it digital. The learning rate's cosine is that of all the recipe's epochs, and is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from train.curriculum import ScheduleRecipe
from train.record import EpochRecord
from train.schedule import is_final


def ending(schedule: ScheduleRecipe, records: Sequence[EpochRecord]) -> str | None:
    """Why the run ends after the last of its records, in words; None where it goes on.

    A function of the records, so that an interrupted run ends where it would have ended.
    """
    final = [record for record in records if is_final(schedule, record.epoch)]
    if not final or final[-1] is not records[-1]:
        return None
    return _aligned(schedule, final[-1]) or _learned(schedule, final)


def _aligned(schedule: ScheduleRecipe, record: EpochRecord) -> str | None:
    if not schedule.early_stop or record.validation_collapse is None or record.hard_mean is None:
        return None
    consistency = record.validation_collapse.consistency
    if consistency < schedule.early_stop_consistency and record.hard_mean > schedule.early_stop_accuracy:
        return (
            f"soft and hard agree: consistency {consistency:.4f} is below {schedule.early_stop_consistency:g} "
            f"and hard accuracy {record.hard_mean:.4f} above {schedule.early_stop_accuracy:g}"
        )
    return None


def _learned(schedule: ScheduleRecipe, records: Sequence[EpochRecord]) -> str | None:
    lowest, at = math.inf, records[0].epoch
    for record in records:
        if record.validation_task_hard is not None and record.validation_task_hard < lowest:
            lowest, at = record.validation_task_hard, record.epoch
    if schedule.patience and records[-1].epoch - at >= schedule.patience:
        return f"no lower task loss on the validation set for {schedule.patience} epochs: {lowest:.4f} in epoch {at}"
    return None
