"""What a bottleneck can show in one epoch, in the order in which to look: its KL, what is free of it, and the teacher.

The published system's figures are of a KL that is averaged over 256 dimensions: 0.03 to 0.08 is called healthy, under
0.01 collapse, above 0.15 over-regularised; free bits are called too high where nothing or less than a fifth of the KL is
left. Averages over other dimensions mean other nats: 0.01 of 256 dimensions are 2.6 nats a token, as much as 16 codewords
can tell apart. Preset `published` applies them as they stand; `fractions` compares nats a token with ln K, the most that one
of K codewords can say. Free bits that leave nothing of the KL are there no alarm: where all is free, it settles just there.
"""

from __future__ import annotations

import math
from typing import Final

from train.latent import BottleneckRecord
from train.recipe import Recipe
from train.record import EpochRecord

PUBLISHED_KL_LOW: Final = 0.01
PUBLISHED_KL_HIGH: Final = 0.15
PUBLISHED_FREE: Final = 0.8

Found = tuple[str, str]
"""What is wrong, and what mends it."""

_NARROWER: Final = "raise bottleneck.kl_weight, or lower bottleneck.free_bits"
_WIDER: Final = "lower bottleneck.kl_weight, or raise bottleneck.free_bits"
IN_ORDER: Final = "lower bottleneck.teacher_weight, then bottleneck.kl_weight, then optimizer.head_learning_rate"
"""What mends a training set that is learned by heart behind a bottleneck, in the published order."""


def collapsed(record: EpochRecord, recipe: Recipe) -> Found | None:
    """A KL so low that tokens say next to nothing; while the vision stands still it has yet to grow."""
    found = record.bottleneck
    if found is None or record.epoch <= recipe.optimizer.freeze_vision_epochs:
        return None
    if recipe.alarms.preset == "published":
        low = _per_dimension(found, recipe) < PUBLISHED_KL_LOW
        return (
            (f"raw KL {found.kl_raw:.4f} is below {PUBLISHED_KL_LOW:g} a dimension: collapse", _WIDER) if low else None
        )
    most, share = _most(recipe), recipe.alarms.latent_low
    if found.kl_nats >= share * most:
        return None
    return (
        f"tokens carry {found.kl_nats:.3f} nats, under {share:.0%} of ln K = {most:.2f}: the latent collapses",
        _WIDER,
    )


def unheld(record: EpochRecord, recipe: Recipe) -> Found | None:
    """A KL so high, at its whole weight, that it holds nothing."""
    found = record.bottleneck
    if found is None or found.kl_weight < recipe.bottleneck.kl_weight:
        return None
    if recipe.alarms.preset == "published":
        high = _per_dimension(found, recipe) > PUBLISHED_KL_HIGH
        text = f"raw KL {found.kl_raw:.4f} is above {PUBLISHED_KL_HIGH:g} a dimension: over-regularised"
        return (text, "lower bottleneck.kl_weight") if high else None
    most, factor = _most(recipe), recipe.alarms.latent_high
    if found.kl_nats <= factor * most:
        return None
    return (
        f"tokens carry {found.kl_nats:.2f} nats, above {factor:g} ln K = {factor * most:.2f}: more than codewords can say",
        _NARROWER,
    )


def free(record: EpochRecord, recipe: Recipe) -> Found | None:
    """Free bits that leave nothing, or hardly anything, to hold; of preset `published`."""
    found = record.bottleneck
    if found is None or recipe.alarms.preset != "published" or not found.kl_weight:
        return None
    if found.kl_after > 0.0 and found.penalty_reduction <= PUBLISHED_FREE:
        return None
    return (
        f"free bits take {found.penalty_reduction:.0%} of the KL ({found.free_nats:.2f} nats a token), above "
        f"{PUBLISHED_FREE:.0%}; 20 to 40 % is called healthy",
        "lower bottleneck.free_bits",
    )


def silent_teacher(record: EpochRecord, recipe: Recipe) -> Found | None:
    """A teacher that weighs something and says nothing."""
    found = record.bottleneck
    if found is None or not found.teacher_weight or found.teacher != 0.0:
        return None
    return (
        f"the teacher's loss is 0 at weight {found.teacher_weight:g}: it is not at work",
        "check the task's rules, and bottleneck.teacher_weight",
    )


def _most(recipe: Recipe) -> float:
    """Nats that a token's index can carry at most."""
    return math.log(recipe.link.codewords)


def _per_dimension(found: BottleneckRecord, recipe: Recipe) -> float:
    """The raw KL as the published figures are: a mean over dimensions."""
    return found.kl_nats / recipe.link.dim
