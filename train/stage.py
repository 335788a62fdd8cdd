"""What is trained at the moment: all of the model, or all but a backbone that is frozen.

While it is frozen the states of an encoder's backbone are computed once (`train.features`), and the model, the task and the
data that the loop sees are those behind it. Unfreezing puts the backbone in front again. Pretrained models inside an encoder
or a head (`train.backbones`) stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.errors import RecipeError
from train import checkpoint as checkpoints
from train.backbones import Thaw, backbones_of, weights_apart
from train.encoders import hidden_size
from train.features import FrozenEncoder, FrozenTask, Progress, crop, frozen_data
from train.precision import train_in_bfloat16
from train.recipe import Recipe
from train.tasks import BackbonesTask, Data, PretrainedEncoder, PretrainedTask, Task
from train.transmitter import Transmitter, install


class Stage:
    """Model, task and data as the loop sees them.

    Parameters
    ----------
    recipe : Recipe
    task : Task
    data : Data
    on_encoding : callable, optional
        See train.features.Progress.
    device : torch.device, optional
        Where the model is; the CPU where absent. Data stay on the CPU.
    transmitter : Transmitter, optional
        What is kept as it is, where a head alone is trained.

    Attributes
    ----------
    model : Transceiver
    task : Task
    data : Data
    frozen : bool
        Whether there are backbones whose weights checkpoints leave out.
    backbone_sha256 : str or None
        Of these weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        data: Data,
        on_encoding: Progress | None = None,
        device: torch.device | None = None,
        transmitter: Transmitter | None = None,
    ) -> None:
        self.model = checkpoints.build_transceiver(recipe, task).to(device or torch.device("cpu"))
        self._kept = transmitter is not None
        if transmitter is not None:
            install(self.model, transmitter)
        self.task = task
        self.data = data
        self.frozen = False
        self.backbone_sha256: str | None = None
        self._whole_task, self._whole_data = task, data
        self._encoder: PretrainedEncoder | None = None
        self._kept_in: Path | None = None
        self._optimizer_recipe = recipe.optimizer
        self._warmup_epochs = recipe.schedule.warmup_epochs
        self._held: list[nn.Parameter] = []
        self._low_precision = recipe.optimizer.precision == "bfloat16"
        if self._low_precision:
            train_in_bfloat16(self.model.encoder)
            train_in_bfloat16(self.model.head)
        if hasattr(self.model.encoder, "backbone"):
            self._encoder = cast(PretrainedEncoder, self.model.encoder)
            weights = None if self._kept else cast(PretrainedTask, task).pretrained()
            if weights is not None:
                self._encoder.backbone.load_state_dict(weights)
            self._thaw = Thaw(recipe.optimizer, [(recipe.optimizer.unfreeze_epoch, self._encoder.backbone)])
            self._freeze(recipe, on_encoding)
        else:
            self._thaw = Thaw(recipe.optimizer, self._start_inside())

    def train(self) -> None:
        """Put what is trained into training mode; what is kept works as it is deployed."""
        self.model.train(not self._kept)
        self.model.head.train()
        if self._held:
            self.model.encoder.eval()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained from the start, by learning rate."""
        recipe = self._optimizer_recipe
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if recipe.head_learning_rate is None:
            return [{"params": trained, "rate": recipe.learning_rate}]
        head = set(self.model.head.parameters())
        others = [parameter for parameter in trained if parameter not in head]
        own = [parameter for parameter in trained if parameter in head]
        groups = [(others, recipe.learning_rate), (own, recipe.head_learning_rate)]
        return [{"params": parameters, "rate": rate} for parameters, rate in groups if parameters]

    def freeze_vision(self, epoch: int) -> None:
        """Let the part of the encoder that looks at images be trained in this epoch, or stay as it is.

        Raises
        ------
        RecipeError
            If the recipe asks for it, and the encoder has none.
        """
        epochs = self._optimizer_recipe.freeze_vision_epochs
        if not epochs or self._kept:
            return
        vision = getattr(self.model.encoder, "vision", None)
        if vision is None:
            raise RecipeError("optimizer.freeze_vision_epochs must be 0: this task's encoder has no vision to freeze")
        if not backbones_of(vision):  # of a pretrained one it is the backbone, which is thawed
            vision.requires_grad_(epoch > epochs)

    def freeze_encoder(self, epoch: int) -> None:
        """Keep the encoder as it is in the first epochs over the link, where the recipe asks for it, or let go of it."""
        first = self._warmup_epochs + 1
        frozen = first <= epoch < first + self._optimizer_recipe.freeze_encoder_epochs
        if frozen and not self._held and not self._kept:
            self._held = [parameter for parameter in self.model.encoder.parameters() if parameter.requires_grad]
        for parameter in self._held:
            parameter.requires_grad_(not frozen)
        if not frozen:
            self._held = []

    def rows(self, inputs: Sequence[Any], chosen: NDArray[np.int64]) -> list[Tensor]:
        """Some rows of the inputs, without columns that none of them uses."""
        batch = [tensor[chosen] for tensor in inputs]
        return batch if self._encoder is None or self.frozen else crop(batch)

    def keep_backbone(self, folder: Path) -> None:
        """Write the frozen backbones into the run's folder, where its checkpoints look for them."""
        if self.frozen and self._kept_in != folder:
            checkpoints.save_backbone(folder, self._frozen_weights())
            self._kept_in = folder

    def thaw(self, epoch: int) -> list[tuple[float, list[nn.Parameter]]]:
        """Parameters of backbones that are trained from this epoch on, or an earlier one, and were not before.

        With the first of them an encoder's backbone stands in front of the model again. Learning rate and parameters of each
        layer, from the top down.
        """
        recipe = self._optimizer_recipe
        if not recipe.encoder_learning_rate or epoch < recipe.unfreeze_epoch:
            return []
        if self.frozen and self._encoder is not None:
            self.model.encoder = cast(nn.Module, self._encoder).requires_grad_(False)
            self._encoder.neck.requires_grad_(True)
            self.task, self.data = self._whole_task, self._whole_data
            self.frozen, self.backbone_sha256 = False, None
        return self._thaw.until(epoch)

    def _start_inside(self) -> list[tuple[int, nn.Module]]:
        """Load the pretrained models inside encoder and head; each of them, and the first epoch in which it is trained."""
        recipe = self._optimizer_recipe
        backbones = backbones_of(self.model)
        for name, backbone in backbones.items():
            if not self._kept or name.startswith("head."):
                cast(BackbonesTask, self.task).load_backbone(backbone)
            backbone.requires_grad_(False)
            backbone.apart = self._kept or not recipe.encoder_learning_rate
        self.frozen = any(backbone.apart for backbone in backbones.values())
        if self.frozen:
            self.backbone_sha256 = checkpoints.weights_sha256(self._frozen_weights())
        waits = {name: recipe.freeze_vision_epochs if name.startswith("encoder.vision.") else 0 for name in backbones}
        return [(max(recipe.unfreeze_epoch, 1 + waits[name]), backbone) for name, backbone in backbones.items()]

    def _frozen_weights(self) -> Mapping[str, Tensor]:
        """By their names in the model, or in an encoder's own backbone."""
        return weights_apart(self.model) if self._encoder is None else self._encoder.backbone.state_dict()

    def _freeze(self, recipe: Recipe, on_encoding: Progress | None) -> None:
        assert self._encoder is not None
        self.frozen = True
        self.model.encoder = FrozenEncoder(self._encoder.neck)
        if self._low_precision:
            train_in_bfloat16(self.model.encoder)
        if recipe.optimizer.encoder_learning_rate and recipe.optimizer.unfreeze_epoch == 1 and not self._kept:
            return  # never used frozen: nothing to compute
        backbone = self._encoder.backbone.eval()
        self.backbone_sha256 = checkpoints.weights_sha256(backbone.state_dict())
        self.data = frozen_data(self.task, self.data, self._encoder, progress=on_encoding)
        self.task = FrozenTask(self.task, hidden_size(backbone))
