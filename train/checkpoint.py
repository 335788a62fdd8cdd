"""Checkpoints: one safetensors file each, loaded without executing code.

    run/  best/model.safetensors     the epoch of highest hard accuracy on the validation set
          last/model.safetensors     the last finished epoch, with the optimiser's state: training goes on from here
          backbone.safetensors       weights of backbones that stayed frozen, once for all checkpoints of the run

What is not a tensor (recipe, epoch, phase, temperatures, accuracies) is JSON in the file's metadata, so that one atomic
rename replaces all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from link.errors import CheckpointError
from train.backbones import backbones_of, weights_apart
from train.bottleneck import Bottleneck
from train.defective import DefectiveTransceiver
from train.recipe import Recipe
from train.router import Router
from train.schedule import Phase
from train.tasks import Data, Task, load_task
from train.transceiver import Transceiver

FILE_NAME: Final = "model.safetensors"
BACKBONE_NAME: Final = "backbone.safetensors"
FORMAT_VERSION: Final = 1
_METADATA_KEY: Final = "hardpath"
_MODEL: Final = "model."
_OPTIMIZER: Final = "optimizer."


class Origin(BaseModel):
    """The transmitter that a head was trained behind: where it was found, and the hash of its weights and tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str


class Checkpoint(BaseModel):
    """What a checkpoint says of itself.

    Attributes
    ----------
    vq_temp, symbol_temp : float
        Temperatures of the surrogate in that epoch; symbol_temp 1 is off.
    hard_accuracy, soft_accuracy : mapping of Es/N0 in dB, as text, to accuracy
        On the validation set, with the recipe's fixed noise; empty before the link is there.
    best_epoch, best_accuracy : int, float
        Best epoch so far, by hard accuracy averaged over the grid.
    facts : mapping
        What the task knew of its data (train.tasks.task_facts).
    backbone_sha256 : str or None
        Of the frozen backbones' weights, which lie in the run's folder; None where the checkpoint holds all weights.
    ended : str, optional
        Why the run ended with this epoch although the recipe has more; None where it did not.
    labels_sha256 : str
        Of the label table (`Codebook.labels_sha256`); empty where none was recorded.
    data_sha256 : str
        Of the training and validation rows (`Data.sha256`); empty where none was recorded.
    transmitter : Origin, optional
        Where all but the head was taken from another run, and kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    recipe: Recipe
    epoch: int
    phase: Phase
    vq_temp: float
    symbol_temp: float = 1.0
    hard_accuracy: dict[str, float]
    soft_accuracy: dict[str, float]
    best_epoch: int
    best_accuracy: float
    code_version: str
    facts: dict[str, Any] = Field(default={}, repr=False)
    backbone_sha256: str | None = None
    ended: str | None = None
    labels_sha256: str = ""
    data_sha256: str = ""
    transmitter: Origin | None = None

    @property
    def mean_hard_accuracy(self) -> float:
        """Hard accuracy averaged over the recipe's SNR grid."""
        return sum(self.hard_accuracy.values()) / max(len(self.hard_accuracy), 1)

    @property
    def finished(self) -> bool:
        """Whether the run has nothing left to train after this epoch."""
        return self.ended is not None or self.epoch >= self.recipe.schedule.epochs


def build_transceiver(recipe: Recipe, task: Task | None = None) -> Transceiver:
    """The recipe's untrained model, its weights drawn from the recipe's seed; those of a backbone as its library draws them.

    The global generator of torch is left as it was.
    """
    task = task or load_task(recipe.task, recipe.task_options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)  # for layers that _initialise does not know
        encoder = task.encoder(recipe.link.tokens, recipe.link.dim)
        head = task.head(recipe.link.tokens, recipe.link.dim)
        routed = recipe.router.enabled and bool(recipe.link.modes)
        router = Router(recipe.router, len(recipe.link.rates), recipe.channel.train_snr_db) if routed else None
        bottleneck = Bottleneck(recipe.link.dim) if recipe.bottleneck.enabled else None
        model = (
            DefectiveTransceiver(encoder, head, recipe.link, recipe.quantizer, recipe.defects)
            if recipe.defects
            else Transceiver(encoder, head, recipe.link, recipe.quantizer, router, bottleneck)
        )
    _initialise(model, torch.Generator().manual_seed(recipe.seed))
    if model.router is not None:
        model.router.start()
    return model


def task_of(checkpoint: Checkpoint) -> Task:
    """The task that a checkpoint was trained for."""
    return load_task(checkpoint.recipe.task, checkpoint.recipe.task_options, checkpoint.facts)


def save(
    folder: Path, checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write a checkpoint into `folder`, replacing the one there in one step; what is kept apart is left out."""
    apart = weights_apart(model)
    tensors = {_MODEL + name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in apart}
    if optimizer is not None:
        for index, parameter in enumerate(_parameters(optimizer)):
            # What no gradient has reached yet, as a router before it learns, stands where AdamW begins.
            state = optimizer.state.get(parameter) or {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            tensors |= {f"{_OPTIMIZER}{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (FILE_NAME + ".tmp")
    save_file(tensors, temporary, metadata={_METADATA_KEY: checkpoint.model_dump_json()})
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(folder / FILE_NAME)


def checkpoint_file(path: Path | str) -> Path:
    """The file of a checkpoint named by file, by its folder, or by the run (its best).

    Raises
    ------
    CheckpointError
        If there is none.
    """
    given = Path(path)
    for candidate in (given, given / FILE_NAME, given / "best" / FILE_NAME):
        if candidate.is_file():
            return candidate
    raise CheckpointError(f"{given} holds no checkpoint ({FILE_NAME}); name a run, its best/ or last/, or the file")


def read(path: Path | str) -> Checkpoint:
    """Read what a checkpoint says of itself, without its tensors.

    Raises
    ------
    CheckpointError
        If there is none, or it cannot be read.
    """
    file = checkpoint_file(path)
    try:
        with safe_open(file, framework="pt") as stream:
            metadata = stream.metadata() or {}
        values = json.loads(metadata[_METADATA_KEY])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file} is no checkpoint of hardpath, or is cut short: {error}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: format_version is {version!r}, this hardpath reads {FORMAT_VERSION}; train again"
        )
    try:
        return Checkpoint.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def last_of_run(folder: Path) -> Checkpoint | None:
    """The last finished epoch of a run; None where no run has begun there."""
    file = folder / "last" / FILE_NAME
    return read(file) if file.is_file() else None


def require_recipe(found: Checkpoint, recipe: Recipe, folder: Path) -> None:
    """Refuse to go on with a run of another recipe in `folder`.

    Raises
    ------
    CheckpointError
        If the recipes differ; names the first keys that do.
    """
    differences = recipe_differences(found.recipe, recipe)
    if differences:
        raise CheckpointError(
            f"{folder} holds a run of another recipe ({'; '.join(differences[:3])}); name another folder with --out"
        )


def require_data(found: Checkpoint, data: Data, folder: Path) -> None:
    """Refuse to go on with a run in `folder` on other rows than it began with.

    Raises
    ------
    CheckpointError
        If training or validation rows differ.
    """
    if found.data_sha256 and found.data_sha256 != data.sha256:
        raise CheckpointError(
            f"{folder} was trained on other rows than the data have now; put them back, or name another folder with --out"
        )


def load(path: Path | str) -> tuple[Checkpoint, Transceiver]:
    """Read a checkpoint and its model, in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is none, it cannot be read, or its tensors do not fit its recipe.
    """
    checkpoint = read(path)
    model = build_transceiver(checkpoint.recipe, task_of(checkpoint))
    restore_model(model, _tensors(path) | _frozen_tensors(path, checkpoint, model))
    return checkpoint, model.eval()


def resume(path: Path | str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Restore model and optimiser to where the checkpoint left them."""
    checkpoint = read(path)
    tensors = _tensors(path)
    restore_model(model, tensors)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, key = name.removeprefix(_OPTIMIZER).split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    whole = all(
        state.get(index, {}).keys() >= {"step", "exp_avg", "exp_avg_sq"}
        and state[index]["exp_avg"].shape == state[index]["exp_avg_sq"].shape == parameter.shape
        for index, parameter in enumerate(_parameters(optimizer))
    )
    if not whole:
        raise CheckpointError(
            f"{path} lacks the optimiser's state: training cannot go on from it; train into another folder"
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return checkpoint


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The optimiser's parameters in the order of its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the model's tensors, but for those that are kept apart from checkpoints.

    Raises
    ------
    CheckpointError
        If they do not fit.
    """
    weights = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
    try:
        model.load_state_dict(weights_apart(model) | weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint's tensors do not fit its recipe: {str(error).splitlines()[-1].strip()}"
        ) from None


def save_backbone(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Keep the frozen backbones of a run beside its checkpoints; a file that holds something else is written anew."""
    file = folder / BACKBONE_NAME
    try:
        if file.is_file() and weights_sha256(load_file(file)) == weights_sha256(weights):
            return
    except (OSError, SafetensorError):  # cut short, say: all of it is at hand
        pass
    folder.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
    temporary.replace(file)


def _frozen_tensors(path: Path | str, checkpoint: Checkpoint, model: nn.Module) -> dict[str, Tensor]:
    """Weights of the frozen backbones, named as those of the model; an encoder's own backbone is alone in its file."""
    if checkpoint.backbone_sha256 is None:
        return {}
    file = checkpoint_file(path).parent.parent / BACKBONE_NAME
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}): a checkpoint with a frozen backbone needs it two folders above itself"
        ) from None
    if weights_sha256(weights) != checkpoint.backbone_sha256:
        raise CheckpointError(f"{file} holds another backbone than the one that {path} was trained with")
    place = _MODEL if backbones_of(model) else _MODEL + "encoder.backbone."
    return {place + name: tensor for name, tensor in weights.items()}


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(path: Path | str) -> dict[str, Tensor]:
    file = checkpoint_file(path)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of linear and convolutional layers as torch does (He et al. 2015), but from `generator`.

    Backbones keep the initialisation of their own library.
    """
    backbones = [*backbones_of(model).values(), getattr(model.encoder, "backbone", None)]
    own = {module for backbone in backbones if backbone is not None for module in backbone.modules()}
    for module in (module for module in model.modules() if module not in own):
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def recipe_differences(left: Recipe, right: Recipe) -> list[str]:
    """Keys in which two recipes differ, with both values."""
    return [
        f"{key}: {before!r} there, {after!r} now"
        for key, before, after in _pairs(left.model_dump(), right.model_dump())
        if before != after
    ]


def _pairs(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    pairs = []
    for key, value in left.items():
        if isinstance(value, dict):
            pairs += _pairs(value, right[key], f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value, right[key]))
    return pairs
