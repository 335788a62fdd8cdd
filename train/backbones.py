"""Pretrained models inside an encoder or a head: which they are, what is frozen, and what is trained from which epoch on.

    model ─┬─ encoder.vision.backbone            `vision_model`      trained no earlier than freeze_vision_epochs are over
           ├─ encoder.reason.question.backbone   `question_model`
           └─ head.reason.question.backbone      `question_model`    a receiver has weights of its own

Frozen for good (`optimizer.encoder_learning_rate` 0), their weights lie once in the run's folder, not in each checkpoint.
Their states are not kept on disk, as those of a text's encoder are (train.features): they look at every batch anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn

from train.encoders import build_backbone, layers_of
from train.recipe import OptimizerRecipe


class Backbone(nn.Module):
    """A transformers model that works in training as it is deployed: nothing dropped, running statistics as they are.

    Parameters
    ----------
    role : str
        Option of the task that names it.
    config : mapping
        Its architecture.
    model : nn.Module, optional
        What was built of it, where that is a part alone.

    Attributes
    ----------
    apart : bool
        Whether its weights are frozen for good, and kept apart from checkpoints.

    Raises
    ------
    RecipeError
        If transformers cannot build it.
    """

    def __init__(self, role: str, config: Mapping[str, Any], model: nn.Module | None = None) -> None:
        super().__init__()
        self.role = role
        self.config = config
        self.model = (build_backbone(config) if model is None else model).eval()
        self.apart = False

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode, whatever is asked for; gradients flow all the same."""
        return super().train(False)


def backbones_of(module: nn.Module) -> dict[str, Backbone]:
    """The pretrained models inside a module, by their names there; none in most."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Backbone)}


def weights_apart(module: nn.Module) -> dict[str, Tensor]:
    """Weights of the pretrained models that are kept apart from checkpoints, by their names in the module."""
    prefixes = tuple(f"{name}." for name, backbone in backbones_of(module).items() if backbone.apart)
    return {name: tensor for name, tensor in module.state_dict().items() if name.startswith(prefixes)}


class Thaw:
    """The layers of backbones that are trained from some epoch on, from the top down.

    Parameters
    ----------
    recipe : OptimizerRecipe
    backbones : sequence of (int, nn.Module)
        Each with its first epoch.
    """

    def __init__(self, recipe: OptimizerRecipe, backbones: Sequence[tuple[int, nn.Module]]) -> None:
        self._recipe = recipe
        self._backbones = [(first, layers_of(backbone)) for first, backbone in backbones]
        self._epoch = 0

    def until(self, epoch: int) -> list[tuple[float, list[nn.Parameter]]]:
        """Rate and parameters of each layer that is trained from this epoch on, or an earlier one, and was not before.

        They come in the same order whether each epoch is asked for or the last one alone: an optimiser's state goes by it.
        """
        added = []
        for now in range(self._epoch + 1, epoch + 1):
            for first, layers in self._backbones:
                added += [
                    (self._recipe.encoder_learning_rate * self._recipe.layer_decay**depth, layers[depth])
                    for depth in range(self._reached(first, layers, now - 1), self._reached(first, layers, now))
                    if layers[depth]
                ]
        self._epoch = max(self._epoch, epoch)
        for _, parameters in added:
            for parameter in parameters:
                parameter.requires_grad_(True)
        return added

    def _reached(self, first: int, layers: Sequence[object], epoch: int) -> int:
        """Layers that are trained in an epoch; those of no layer come with the lowest."""
        if not self._recipe.encoder_learning_rate or epoch < first:
            return 0
        step = self._recipe.unfreeze_layers
        reached = step * (epoch - first + 1)
        return len(layers) if not step or reached >= len(layers) - 1 else reached
