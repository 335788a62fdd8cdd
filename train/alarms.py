"""What is out of its range in one epoch, in one line each. `train.diagnosis` looks at a whole run.

The checks are a table: a symptom and a function that finds it. Their thresholds are the recipe's, section [alarms].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from train import latent_alarms
from train.collapse import weight_key
from train.recipe import Recipe
from train.record import EpochRecord, batch_usage
from train.usage import ALMOST_ALL

PUBLISHED_VQ_ENTROPY: Final = 2.5
PUBLISHED_SYMBOL_ENTROPY: Final = 1.5
PUBLISHED_MEAN_ABS_LLR: Final = 8.0

WANDERS: Final = 0.25
"""Least perplexity of a batch, as a share of the epoch's or of the batch's rows: of rows that differ it is above a half."""

_MORE_USAGE: Final = "raise loss.lambda_entropy"


class Symptom(StrEnum):
    """What one epoch can show."""

    NOT_FINITE = "not-finite"
    CODE_ENTROPY = "code-entropy"
    CODES_UNUSED = "codes-unused"
    CODES_WANDER = "codes-wander"
    SYMBOL_ENTROPY = "symbol-entropy"
    TOO_SOFT = "too-soft"
    ENERGY = "energy"
    LLR = "llr"
    SOFT_ABOVE_HARD = "soft-above-hard"
    HARD_ABOVE_SOFT = "hard-above-soft"
    OVERFITTING = "overfitting"
    EVALUATION_COLLAPSE = "evaluation-collapse"
    SAME_CODES = "same-codes"
    TOKEN_DRIFT = "token-drift"
    DOMINATING_TERM = "dominating-term"
    ONE_MODE = "one-mode"
    LATENT_COLLAPSE = "latent-collapse"
    LATENT_UNHELD = "latent-unheld"
    LATENT_FREE = "latent-free"
    TEACHER_SILENT = "teacher-silent"


class Alarm(NamedTuple):
    """What is wrong, and what mends it."""

    text: str
    mend: str

    def __str__(self) -> str:
        return f"{self.text}; {self.mend}"


class Check(NamedTuple):
    """A symptom, and what finds it: an alarm, or None where all is well or nothing is known."""

    symptom: Symptom
    find: Callable[[EpochRecord, Recipe], Alarm | None]


def symptoms(record: EpochRecord, recipe: Recipe) -> dict[Symptom, Alarm]:
    """What an epoch shows; where it diverged that alone, since all else follows."""
    diverged = _not_finite(record, recipe)
    if diverged is not None:
        return {Symptom.NOT_FINITE: diverged}
    found = {check.symptom: check.find(record, recipe) for check in CHECKS}
    return {symptom: alarm for symptom, alarm in found.items() if alarm is not None}


def alarms(record: EpochRecord, recipe: Recipe) -> list[str]:
    """What is out of its range in an epoch, in words; empty when all is well.

    While the temperature still falls a soft assignment is no alarm.
    """
    return [str(alarm) for alarm in symptoms(record, recipe).values()]


def annealing(record: EpochRecord, recipe: Recipe) -> bool:
    """Whether the temperature of an epoch is still on its way to the floor."""
    return record.vq_temp > recipe.schedule.temp_freeze_floor


def can_be_told_apart(first: float, second: float, samples: int | None) -> bool:
    """Whether two accuracies on so many samples differ by more than two standard errors.

    The errors are those of independent sets; on the same samples they are smaller, so this errs towards silence.
    """
    if samples is None:
        return True
    return abs(first - second) > 2.0 * math.sqrt((first * (1.0 - first) + second * (1.0 - second)) / samples)


def _not_finite(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    wrong = [name for name, value in record.losses.items() if not math.isfinite(value)]
    if not wrong:
        return None
    return Alarm(f"{', '.join(wrong)} is not finite: training has diverged", "lower optimizer.learning_rate")


def _code_entropy(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.validation_collapse is None:
        return None
    metrics = record.validation_collapse
    found, ln_k = metrics.vq_entropy, math.log(metrics.codewords or recipe.link.codewords)
    if recipe.alarms.preset == "published":
        low = found < PUBLISHED_VQ_ENTROPY
        return Alarm(f"VQ entropy {found:.2f} is below {PUBLISHED_VQ_ENTROPY}", _MORE_USAGE) if low else None
    share = recipe.alarms.usage_entropy
    if found >= share * ln_k:
        return None
    return Alarm(
        f"codeword usage entropy {found:.2f} is under {_part(share)} of ln K = {ln_k:.2f}: few codewords carry all",
        _MORE_USAGE,
    )


def _codes_unused(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.validation_collapse is None or recipe.alarms.preset == "published":
        return None
    used = record.validation_collapse.codes_used
    if used >= recipe.alarms.codes_used:
        return None
    return Alarm(f"only {used:.0%} of the codewords are used", "raise quantizer.restart_threshold")


def _codes_wander(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    """A collapse that the epoch's figures hide: few codewords at a time, and others in each batch."""
    metrics = record.train_collapse
    if metrics is None or metrics.batches is None:
        return None
    found, rows = metrics.batches.perplexity.mean, metrics.batches.rows
    if found >= WANDERS * min(metrics.perplexity, rows):
        return None
    return Alarm(
        f"perplexity {found:.1f} in a batch of training of {rows} rows, {metrics.perplexity:.1f} over the epoch: few "
        "codewords are in use, and others in each batch",
        "raise quantizer.ema_decay",
    )


def _symbol_entropy(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.validation_collapse is None:
        return None
    metrics = record.validation_collapse
    found, ln_m = metrics.symbol_entropy, math.log(metrics.order or recipe.link.order)
    if recipe.alarms.preset == "published":
        low = found < PUBLISHED_SYMBOL_ENTROPY
        return Alarm(f"symbol entropy {found:.2f} is below {PUBLISHED_SYMBOL_ENTROPY}", _MORE_USAGE) if low else None
    share = recipe.alarms.usage_entropy
    if found >= share * ln_m:
        return None
    return Alarm(
        f"symbol usage entropy {found:.2f} is under {_part(share)} of ln M = {ln_m:.2f}: few points carry all",
        _MORE_USAGE,
    )


def _too_soft(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.validation_collapse is None or recipe.alarms.preset == "published" or annealing(record, recipe):
        return None
    found, high = record.validation_collapse.h_assign, recipe.alarms.h_assign_high
    if found <= high:
        return None
    return Alarm(
        f"assignment entropy {found:.2f} is above {high:g} nat: the surrogate is too soft to speak for the hard path",
        "raise loss.lambda_assignment",
    )


def _energy(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.validation_collapse is None or recipe.alarms.preset == "published":
        return None
    found = record.validation_collapse.es_db
    if found <= recipe.alarms.energy_db:
        return None
    return Alarm(
        f"symbols carry {found:.2f} dB more energy than the constellation's mean: accuracy is flattered by as much",
        "raise loss.lambda_energy",
    )


def _llr(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.validation_collapse is None:
        return None
    found, mean = record.validation_collapse.llr_ratio, record.validation_collapse.mean_abs_llr
    mend = "check the noise variance told to the receiver"
    if recipe.alarms.preset == "published":
        high = mean > PUBLISHED_MEAN_ABS_LLR
        return Alarm(f"mean |LLR| {mean:.2f} is above {PUBLISHED_MEAN_ABS_LLR:g}", mend) if high else None
    factor = recipe.alarms.llr_factor
    if 1.0 / factor <= found <= factor:
        return None
    return Alarm(f"mean |LLR| is {found:.2f} of its theory value", mend)


def _soft_above_hard(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    gap = _gap(record)
    if gap is None or gap <= recipe.alarms.soft_hard_gap:
        return None
    return Alarm(
        f"soft is {gap:.1f} points above hard: what is deployed is not what was trained",
        "raise loss.lambda_consistency",
    )


def _hard_above_soft(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    """Only in alignment: before it, a surrogate that is behind costs the deployed path nothing."""
    gap = _gap(record)
    if gap is None or gap >= -recipe.alarms.soft_hard_gap or not record.hard_forward:
        return None
    return Alarm(
        f"hard is {-gap:.1f} points above soft: the surrogate does not speak for the hard path",
        "lower quantizer.target_assignment_entropy",
    )


def _gap(record: EpochRecord) -> float | None:
    """Soft less hard accuracy, points, where so many samples can tell it from 0."""
    soft, hard = record.soft_mean, record.hard_mean
    if soft is None or hard is None or not can_be_told_apart(soft, hard, record.validation_samples):
        return None
    return 100.0 * (soft - hard)


def _overfitting(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    ratio, training, limits = record.overfitting, record.losses.get("task"), recipe.alarms
    validation = record.validation_task_hard if record.hard_forward else record.validation_task_soft
    if ratio is None or training is None or validation is None:
        return None
    if validation <= limits.overfitting_ratio * max(training, limits.learned_task_loss):
        return None
    return Alarm(
        f"task loss {validation:.3f} in validation is {ratio:.1f} times training's {training:.3f}, above "
        f"{limits.overfitting_ratio:g}: the training set is learned by heart",
        "raise optimizer.weight_decay" if record.bottleneck is None else latent_alarms.IN_ORDER,
    )


def _evaluation_collapse(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    if record.train_collapse is None or record.validation_collapse is None:
        return None
    if record.train_collapse.codewords != record.validation_collapse.codewords:
        return None  # of two codebooks
    of_batches = batch_usage(record)
    if of_batches:  # of as many rows each; an epoch of training has more than an evaluation
        training, found = of_batches["perplexity_training"], of_batches["perplexity_validation"]
    else:
        training, found = record.train_collapse.perplexity, record.validation_collapse.perplexity
    share = recipe.alarms.perplexity_ratio
    if found >= share * training:
        return None
    of_a_batch = " of a batch" if of_batches else ""
    return Alarm(
        f"perplexity {found:.1f}{of_a_batch} in evaluation is under {_part(share)} of {training:.1f} in training: the "
        "codebook collapses in evaluation",
        "hardpath diagnose --deep shows where",
    )


def _same_codes(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    found = None if record.validation_collapse is None else record.validation_collapse.same_codes
    if found is None or found < recipe.alarms.same_codes:
        return None
    return Alarm(
        f"{found:.0%} of the token positions send the same codeword for {ALMOST_ALL:.0%} of the samples or more: "
        "they say nothing",
        _MORE_USAGE,
    )


def _token_drift(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    drift, limit = record.token_drift, recipe.alarms.token_drift
    if drift is None or drift.frechet <= limit:
        return None
    return Alarm(
        f"tokens in evaluation are {drift.frechet:.2f} training deviations from those in training (their mean "
        f"{drift.mean_shift:.2f}), above {limit:g}: the encoder does another thing in evaluation",
        "hardpath diagnose --deep shows where",
    )


def _dominating_term(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    shares = {name: share for name, share in (record.loss_shares or {}).items() if name != "task"}
    if not shares or record.losses["task"] < recipe.alarms.learned_task_loss:
        return None
    name, share = max(shares.items(), key=lambda item: item[1])
    if share <= recipe.alarms.term_share:
        return None
    return Alarm(f"{name} is {share:.0%} of the loss: the task has little say", f"lower {weight_key(name)}")


def _one_mode(record: EpochRecord, recipe: Recipe) -> Alarm | None:
    """Only where a balance was asked for: an SNR range that one mode serves best needs no other."""
    shares = record.mode_shares
    if not shares or recipe.loss.lambda_lb == 0.0 or max(shares) < ALMOST_ALL:
        return None
    mode = shares.index(max(shares))
    return Alarm(
        f"{shares[mode]:.0%} of the samples are sent in mode {mode}: the router does not choose",
        "raise loss.lambda_lb" if recipe.loss.lambda_sym == 0.0 else "lower loss.lambda_sym, or raise loss.lambda_lb",
    )


def _latent(
    find: Callable[[EpochRecord, Recipe], latent_alarms.Found | None],
) -> Callable[[EpochRecord, Recipe], Alarm | None]:
    """A check of train.latent_alarms as one of this table."""

    def check(record: EpochRecord, recipe: Recipe) -> Alarm | None:
        found = find(record, recipe)
        return None if found is None else Alarm(*found)

    return check


def _part(share: float) -> str:
    return "half" if share == 0.5 else f"{share:.0%}"


CHECKS: Final = (
    Check(Symptom.NOT_FINITE, _not_finite),
    Check(Symptom.CODE_ENTROPY, _code_entropy),
    Check(Symptom.CODES_UNUSED, _codes_unused),
    Check(Symptom.CODES_WANDER, _codes_wander),
    Check(Symptom.SYMBOL_ENTROPY, _symbol_entropy),
    Check(Symptom.TOO_SOFT, _too_soft),
    Check(Symptom.ENERGY, _energy),
    Check(Symptom.LLR, _llr),
    Check(Symptom.SOFT_ABOVE_HARD, _soft_above_hard),
    Check(Symptom.HARD_ABOVE_SOFT, _hard_above_soft),
    Check(Symptom.OVERFITTING, _overfitting),
    Check(Symptom.EVALUATION_COLLAPSE, _evaluation_collapse),
    Check(Symptom.SAME_CODES, _same_codes),
    Check(Symptom.TOKEN_DRIFT, _token_drift),
    Check(Symptom.DOMINATING_TERM, _dominating_term),
    Check(Symptom.ONE_MODE, _one_mode),
    Check(Symptom.LATENT_COLLAPSE, _latent(latent_alarms.collapsed)),
    Check(Symptom.LATENT_UNHELD, _latent(latent_alarms.unheld)),
    Check(Symptom.LATENT_FREE, _latent(latent_alarms.free)),
    Check(Symptom.TEACHER_SILENT, _latent(latent_alarms.silent_teacher)),
)
