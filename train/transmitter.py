"""A transmitter that is kept as it is, and a head trained on what is received of it: a task that it never saw.

    run A   encoder, codebook, labels, prior, router: kept ─> symbols ─> noise ─> posterior mean ─┬─ head of run A
                                                                                                  └─ head of run B: trained

Run B sends hard from its first epoch, by the weights of run A's checkpoint: no warm-up without a link, no running means, no
restarts, and of the loss only what reaches a head. Its checkpoint holds the transmitter too, so that it can be exported by
itself, and says by hash which it was: receivers of one transmitter can share a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from link.errors import CheckpointError, RecipeError
from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint, Origin
from train.recipe import LossRecipe, Recipe
from train.schedule import EpochPlan, Phase
from train.tasks import transmitter_options

_HEAD: Final = "head."
_SECTIONS: Final = ("link", "quantizer", "router", "header", "bottleneck")


class Transmitter(NamedTuple):
    """What a run is trained behind.

    Attributes
    ----------
    checkpoint : Checkpoint
        That it was taken from.
    weights : mapping of name to Tensor
        Of all but the head, a frozen backbone's among them.
    origin : Origin
    """

    checkpoint: Checkpoint
    weights: Mapping[str, Tensor]
    origin: Origin

    def plan(self, epoch: int) -> EpochPlan:
        """Each epoch is of alignment, at the temperatures of the checkpoint; its soft path is only looked at."""
        found = self.checkpoint
        return EpochPlan(
            epoch,
            Phase.ALIGNMENT,
            found.vq_temp,
            hard_forward=True,
            restarts=False,
            symbol_temp=found.symbol_temp,
        )

    @staticmethod
    def weights_of(loss: LossRecipe) -> LossRecipe:
        """The weights of the terms that reach a head: the task's, which is 1, and that of the KL between the answers."""
        others = [key for key in LossRecipe.model_fields if key not in ("lambda_kl", "warmup")]
        return loss.model_copy(update=dict.fromkeys(others, 0.0))


def load_transmitter(path: Path) -> Transmitter:
    """The transmitter of a checkpoint, or of a run (its best).

    Raises
    ------
    CheckpointError
        If it cannot be read, or has no codebook yet.
    RecipeError
        If it was trained with defects, which are no part of what is deployed.
    """
    found, model = checkpoints.load(path)
    if not found.hard_accuracy:
        raise CheckpointError(f"{path} was saved in warm-up, before it had a codebook; train on")
    if found.recipe.defects:
        raise RecipeError(f"the transmitter in {path} was trained with defects ({', '.join(found.recipe.defects)})")
    weights = transmitter_weights(model)
    origin = Origin(path=str(path.resolve()), sha256=checkpoints.weights_sha256(weights))
    return Transmitter(found, weights, origin)


def transmitter_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors, but for those of its head."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_HEAD)}


def transmitter_sha256(model: nn.Module) -> str:
    """Hash of all that decides what is sent, and of what a receiver knows of it: tables, codebooks, prior."""
    return checkpoints.weights_sha256(transmitter_weights(model))


def require_same(recipe: Recipe, transmitter: Transmitter) -> None:
    """Refuse a recipe whose transmitter is another one.

    Raises
    ------
    RecipeError
        If the sections of the link or the options of the encoder differ, or the recipe has defects.
    """
    if recipe.defects:
        raise RecipeError("defects are of a transmitter that is trained; leave them out behind one that is kept")
    other = transmitter.checkpoint.recipe
    there, here = (_described(found) for found in (other, recipe))
    for key in (*there, *(key for key in here if key not in there)):
        if there.get(key) != here.get(key):
            raise RecipeError(
                f"the transmitter in {transmitter.origin.path} has {key} {there.get(key)!r}, the recipe "
                f"{here.get(key)!r}: set the same"
            )


def require_transmitter(found: Checkpoint, transmitter: Transmitter | None, folder: Path) -> None:
    """Refuse to go on in `folder` behind another transmitter than the run began with.

    Raises
    ------
    CheckpointError
        If they differ.
    """
    before, now = found.transmitter, None if transmitter is None else transmitter.origin
    if (before and before.sha256) == (now and now.sha256):
        return
    if before is None:
        raise CheckpointError(f"{folder} was trained with its own transmitter; name another folder with --out")
    raise CheckpointError(
        f"{folder} was trained behind the transmitter of {before.path}, {'and none' if now is None else 'another'} is "
        "named with --transmitter; name that one, or another folder with --out"
    )


def install(model: nn.Module, transmitter: Transmitter) -> None:
    """Give a model the transmitter's weights, and let nothing but its head be trained.

    Raises
    ------
    RecipeError
        If they do not fit.
    """
    own = transmitter_weights(model)
    kept = transmitter.weights
    shapes = {name: tensor.shape for name, tensor in own.items()}
    if shapes != {name: tensor.shape for name, tensor in kept.items()}:
        raise RecipeError(
            f"the transmitter in {transmitter.origin.path} does not fit the recipe's task: another encoder"
        )
    model.load_state_dict({**model.state_dict(), **kept})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(_HEAD))


def _described(recipe: Recipe) -> dict[str, Any]:
    """Sections of the link and options of the encoder, key by key."""
    values = recipe.model_dump(include=set(_SECTIONS))
    sections = {f"{section}.{key}": value for section in _SECTIONS for key, value in values[section].items()}
    return sections | {f"task_options.{key}": value for key, value in transmitter_options(recipe).items()}
