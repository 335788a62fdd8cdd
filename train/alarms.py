"""What is out of its range in one epoch, in one line each. `train.diagnosis` looks at a whole run.

The checks are a table: a symptom and a function that finds it. Their thresholds are the recipe's, section [alarms].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from train.collapse import ALMOST_ALL
from train.recipe import Recipe
from train.record import EpochRecord

PUBLISHED_VQ_ENTROPY: Final = 2.5
PUBLISHED_SYMBOL_ENTROPY: Final = 1.5
PUBLISHED_MEAN_ABS_LLR: Final = 8.0


class Symptom(StrEnum):
    """What one epoch can show."""

    NOT_FINITE = "not-finite"
    CODE_ENTROPY = "code-entropy"
    CODES_UNUSED = "codes-unused"
    SYMBOL_ENTROPY = "symbol-entropy"
    TOO_SOFT = "too-soft"
    ENERGY = "energy"
    LLR = "llr"
    SOFT_HARD_GAP = "soft-hard-gap"
    OVERFITTING = "overfitting"
    EVALUATION_COLLAPSE = "evaluation-collapse"
    SAME_CODES = "same-codes"
    TOKEN_DRIFT = "token-drift"
    DOMINATING_TERM = "dominating-term"


class Check(NamedTuple):
    """A symptom, and what finds it: a line, or None where all is well or nothing is known."""

    symptom: Symptom
    find: Callable[[EpochRecord, Recipe], str | None]


def symptoms(record: EpochRecord, recipe: Recipe) -> dict[Symptom, str]:
    """What an epoch shows, each in one line; where it diverged that alone, since all else follows."""
    diverged = _not_finite(record, recipe)
    if diverged is not None:
        return {Symptom.NOT_FINITE: diverged}
    found = {check.symptom: check.find(record, recipe) for check in CHECKS}
    return {symptom: text for symptom, text in found.items() if text is not None}


def alarms(record: EpochRecord, recipe: Recipe) -> list[str]:
    """What is out of its range in an epoch, in words; empty when all is well.

    While the temperature still falls a soft assignment is no alarm.
    """
    return list(symptoms(record, recipe).values())


def annealing(record: EpochRecord, recipe: Recipe) -> bool:
    """Whether the temperature of an epoch is still on its way to the floor."""
    return record.vq_temp > recipe.schedule.temp_freeze_floor


def beyond_chance(first: float, second: float, samples: int | None) -> bool:
    """Whether two accuracies on so many samples differ by more than two standard errors.

    The errors are those of independent sets; on the same samples they are smaller, so this errs towards silence.
    """
    if samples is None:
        return True
    return abs(first - second) > 2.0 * math.sqrt((first * (1.0 - first) + second * (1.0 - second)) / samples)


def _not_finite(record: EpochRecord, recipe: Recipe) -> str | None:
    wrong = [name for name, value in record.losses.items() if not math.isfinite(value)]
    return f"{', '.join(wrong)} is not finite: training has diverged; lower optimizer.learning_rate" if wrong else None


def _code_entropy(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.validation_collapse is None:
        return None
    found, ln_k = record.validation_collapse.vq_entropy, math.log(recipe.link.codewords)
    if recipe.alarms.preset == "published":
        low = found < PUBLISHED_VQ_ENTROPY
        return f"VQ entropy {found:.2f} is below {PUBLISHED_VQ_ENTROPY}" if low else None
    share = recipe.alarms.usage_entropy
    if found >= share * ln_k:
        return None
    return (
        f"codeword usage entropy {found:.2f} is under {_part(share)} of ln K = {ln_k:.2f}: few codewords carry all; "
        "raise loss.lambda_entropy"
    )


def _codes_unused(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.validation_collapse is None or recipe.alarms.preset == "published":
        return None
    used = record.validation_collapse.codes_used
    if used >= recipe.alarms.codes_used:
        return None
    return f"only {used:.0%} of the codewords are used; raise quantizer.restart_threshold"


def _symbol_entropy(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.validation_collapse is None:
        return None
    found, ln_m = record.validation_collapse.symbol_entropy, math.log(recipe.link.order)
    if recipe.alarms.preset == "published":
        low = found < PUBLISHED_SYMBOL_ENTROPY
        return f"symbol entropy {found:.2f} is below {PUBLISHED_SYMBOL_ENTROPY}" if low else None
    share = recipe.alarms.usage_entropy
    if found >= share * ln_m:
        return None
    return (
        f"symbol usage entropy {found:.2f} is under {_part(share)} of ln M = {ln_m:.2f}: few points carry all; "
        "raise loss.lambda_entropy"
    )


def _too_soft(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.validation_collapse is None or recipe.alarms.preset == "published" or annealing(record, recipe):
        return None
    found, high = record.validation_collapse.h_assign, recipe.alarms.h_assign_high
    if found <= high:
        return None
    return (
        f"assignment entropy {found:.2f} is above {high:g} nat: the surrogate is too soft "
        "to speak for the hard path; raise loss.lambda_assignment"
    )


def _energy(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.validation_collapse is None or recipe.alarms.preset == "published":
        return None
    found = record.validation_collapse.es_db
    if found <= recipe.alarms.energy_db:
        return None
    return (
        f"symbols carry {found:.2f} dB more energy than the constellation's mean: accuracy is "
        "flattered by as much; raise loss.lambda_energy"
    )


def _llr(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.validation_collapse is None:
        return None
    found, mean = record.validation_collapse.llr_ratio, record.validation_collapse.mean_abs_llr
    if recipe.alarms.preset == "published":
        high = mean > PUBLISHED_MEAN_ABS_LLR
        return f"mean |LLR| {mean:.2f} is above {PUBLISHED_MEAN_ABS_LLR:g}" if high else None
    factor = recipe.alarms.llr_factor
    if 1.0 / factor <= found <= factor:
        return None
    return f"mean |LLR| is {found:.2f} of its theory value: check the noise variance told to the receiver"


def _soft_hard_gap(record: EpochRecord, recipe: Recipe) -> str | None:
    soft, hard, limit = record.soft_mean, record.hard_mean, recipe.alarms.soft_hard_gap
    if soft is None or hard is None or not beyond_chance(soft, hard, record.validation_samples):
        return None
    gap = 100.0 * (soft - hard)
    if gap > limit:
        return (
            f"soft is {gap:.1f} points above hard: what is deployed is not what was trained; "
            "raise loss.lambda_consistency"
        )
    # Before alignment a surrogate that is behind costs the deployed path nothing.
    if gap < -limit and record.hard_forward:
        return f"hard is {-gap:.1f} points above soft: the surrogate does not speak for the hard path; lower its temperature"
    return None


def _overfitting(record: EpochRecord, recipe: Recipe) -> str | None:
    ratio, training, limits = record.overfitting, record.losses.get("task"), recipe.alarms
    validation = record.validation_task_hard if record.hard_forward else record.validation_task_soft
    if ratio is None or training is None or validation is None:
        return None
    if validation <= limits.overfitting_ratio * max(training, limits.learned_task_loss):
        return None
    return (
        f"task loss {validation:.3f} in validation is {ratio:.1f} times training's {training:.3f}, above "
        f"{limits.overfitting_ratio:g}: it learns the training set by heart; raise optimizer.weight_decay"
    )


def _evaluation_collapse(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.train_collapse is None or record.validation_collapse is None:
        return None
    training, found, share = (
        record.train_collapse.perplexity,
        record.validation_collapse.perplexity,
        recipe.alarms.perplexity_ratio,
    )
    if found >= share * training:
        return None
    return (
        f"perplexity {found:.1f} in evaluation is under {_part(share)} of {training:.1f} in training: "
        "the codebook collapses in evaluation; hardpath diagnose --deep shows where"
    )


def _same_codes(record: EpochRecord, recipe: Recipe) -> str | None:
    found = None if record.validation_collapse is None else record.validation_collapse.same_codes
    if found is None or found < recipe.alarms.same_codes:
        return None
    return (
        f"{found:.0%} of the token positions send the same codeword for {ALMOST_ALL:.0%} of the samples or more: "
        "they say nothing; raise loss.lambda_entropy"
    )


def _token_drift(record: EpochRecord, recipe: Recipe) -> str | None:
    if record.token_drift is None or record.token_drift.frechet <= recipe.alarms.token_drift:
        return None
    drift = record.token_drift
    return (
        f"tokens in evaluation are {drift.frechet:.2f} training deviations from those in training (their mean by "
        f"{drift.mean_shift:.2f}), above {recipe.alarms.token_drift:g}: the encoder does another thing in evaluation"
    )


def _dominating_term(record: EpochRecord, recipe: Recipe) -> str | None:
    shares = {name: share for name, share in (record.loss_shares or {}).items() if name != "task"}
    if not shares or record.losses["task"] < recipe.alarms.learned_task_loss:
        return None
    name, share = max(shares.items(), key=lambda item: item[1])
    if share <= recipe.alarms.term_share:
        return None
    return f"{name} is {share:.0%} of the loss, the task {(record.loss_shares or {})['task']:.0%}; lower its weight"


def _part(share: float) -> str:
    return "half" if share == 0.5 else f"{share:.0%}"


CHECKS: Final = (
    Check(Symptom.NOT_FINITE, _not_finite),
    Check(Symptom.CODE_ENTROPY, _code_entropy),
    Check(Symptom.CODES_UNUSED, _codes_unused),
    Check(Symptom.SYMBOL_ENTROPY, _symbol_entropy),
    Check(Symptom.TOO_SOFT, _too_soft),
    Check(Symptom.ENERGY, _energy),
    Check(Symptom.LLR, _llr),
    Check(Symptom.SOFT_HARD_GAP, _soft_hard_gap),
    Check(Symptom.OVERFITTING, _overfitting),
    Check(Symptom.EVALUATION_COLLAPSE, _evaluation_collapse),
    Check(Symptom.SAME_CODES, _same_codes),
    Check(Symptom.TOKEN_DRIFT, _token_drift),
    Check(Symptom.DOMINATING_TERM, _dominating_term),
)
