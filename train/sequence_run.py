"""The sequence stage of a run: learned behind its best checkpoint, kept beside it, found again.

    best/model.safetensors ─> receptions of the training recordings ─> stage ─> best/sequence.safetensors

A file names the checkpoint that it was learned behind by its hash: behind another one it is learned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from link.bundle import sha256
from link.codebook import posterior
from link.errors import ArgumentError, RecipeError
from link.randomness import Draws, Stream
from link.snr import NO_MIN
from train import checkpoint as checkpoints
from train.evaluate import encode, tensors
from train.recipe import Recipe
from train.sequence import Recordings, SequenceStage, learn_stage, padded
from train.tasks import Split, Task, of_recordings
from train.transceiver import Transceiver

FILE_NAME: Final = "sequence.safetensors"
LONGEST: Final = 64
"""Windows of a piece of a recording that a stage sees at once."""
_EPOCHS_OF_STAGES: Final = 2**20
"""Where the noise of stages is drawn, beside that of the codec's epochs."""


class Received(NamedTuple):
    """What a receiver made of rows: logits (n, C) float32, and codes (n, N, V) or (n, F) float32."""

    logits: Tensor
    codes: Tensor

    def recordings(self, split: Split) -> Recordings:
        """The same, recording by recording."""
        assert split.sequence is not None
        return Recordings(
            padded(self.logits, split.sequence, LONGEST),
            padded(self.codes, split.sequence, LONGEST),
            padded(torch.from_numpy(split.labels), split.sequence, LONGEST, fill=-1),
        )


@torch.no_grad()
def receive_training(model: Transceiver, tokens: Tensor, split: Split, recipe: Recipe, epoch: int | None) -> Received:
    """What the receiver makes of training tokens (n, N, D) in an epoch of a stage, each recording at an Es/N0 of its own.

    Without an epoch there is no noise.
    """
    assert split.sequence is not None
    link, rows = model.recipe, np.arange(len(tokens))
    variance = np.full(len(tokens), NO_MIN, dtype=np.float32)
    normals = np.zeros((len(tokens), link.num_symbols, 2), dtype=np.float32)
    if epoch is not None:
        low, high = recipe.channel.train_snr_db
        _, of_recording = np.unique(split.sequence, return_inverse=True)
        draw = _EPOCHS_OF_STAGES + epoch
        uniforms = Draws(recipe.seed, np.arange(of_recording.max() + 1), draw).uniforms(Stream.TRAINING_SNR, 0, 1)
        snr_db = low + (high - low) * uniforms[of_recording, 0]
        variance = (10.0 ** (-snr_db / 10.0)).astype(np.float32)
        normals = Draws(recipe.seed, rows, draw).normals(Stream.TRAINING_NOISE, 0, link.num_symbols).astype(np.float32)
    parts = []
    mode = model.modes[0].quantizer
    for chosen in _chunks(len(tokens)):
        symbols = model.send_hard(tokens[chosen]).symbols
        no = torch.from_numpy(variance[chosen])[:, None].expand(symbols.shape[:-1])
        y = symbols + torch.from_numpy(normals[chosen]) * (no / 2.0).sqrt()[..., None]
        heard = model.receive(y, no)
        llr = heard.llr.reshape(len(y), link.tokens, -1)
        codes = posterior(llr, mode.label_bits, torch.zeros_like(mode.log_prior))
        parts.append(Received(heard.logits, codes))
    return Received(*(torch.cat(values) for values in zip(*parts, strict=True)))


def learn_behind(
    stage: SequenceStage,
    model: Transceiver,
    tokens: Tensor,
    split: Split,
    recipe: Recipe,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Learn a stage on what the deployed receiver makes of training tokens (n, N, D), without noise and with it."""

    def received(epoch: int | None) -> Recordings:
        return receive_training(model, tokens, split, recipe, epoch).recordings(split)

    learn_stage(stage, received(None), received, recipe.seed, on_epoch)


def require_recordings(recipe: Recipe) -> None:
    """Raise RecipeError where a recipe has a stage that cannot be learned: of rows that stand apart, or of several modes."""
    if not recipe.sequence.parts:
        return
    if not of_recordings(recipe.task):
        raise RecipeError(f"sequence.parts must be empty: rows of the task {recipe.task} do not follow on one another")
    if recipe.link.modes:
        raise RecipeError(
            "sequence.parts must be empty: its codes are those of one mode, and [[link.modes]] has several"
        )
    try:
        SequenceStage(recipe.sequence, 2, (1, 2))
    except ArgumentError as error:
        raise RecipeError(f"sequence.{error}") from None


def learn_sequence(
    folder: Path, *, data_folder: Path | None = None, on_epoch: Callable[[int, float], None] = lambda epoch, loss: None
) -> SequenceStage | None:
    """The stage of a run's best checkpoint, learned where it is not there yet; None where its recipe has none.

    Parameters
    ----------
    folder : Path
        Of a run that is finished.
    on_epoch : callable
        Told of each epoch of the stage and its loss, nats a window.

    """
    found, model = checkpoints.load(folder / "best")
    recipe = found.recipe
    if not recipe.sequence.parts:
        return None
    kept = load_sequence(folder / "best")
    if kept is not None:
        return kept
    task = checkpoints.task_of(found)
    split = task.load(data_folder).train
    stage = _blank(recipe, task, model)
    learn_behind(stage, model.eval(), encode(model, tensors(task, split)), split, recipe, on_epoch)
    draft = folder / "best" / f".{FILE_NAME}.part"
    behind = {"checkpoint": sha256(checkpoints.checkpoint_file(folder / "best"))}
    save_file({name: value.contiguous() for name, value in stage.state_dict().items()}, draft, metadata=behind)
    draft.replace(draft.with_name(FILE_NAME))
    return stage


def load_sequence(path: Path) -> SequenceStage | None:
    """The stage that was learned behind a checkpoint, or a run's best; None where there is none."""
    checkpoint = checkpoints.checkpoint_file(path)
    try:
        with safe_open(checkpoint.with_name(FILE_NAME), framework="pt") as stream:
            if (stream.metadata() or {}).get("checkpoint") != sha256(checkpoint):
                return None
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    found, model = checkpoints.load(path)
    stage = _blank(found.recipe, checkpoints.task_of(found), model)
    stage.load_state_dict(state)
    return stage


def _blank(recipe: Recipe, task: Task, model: Transceiver) -> SequenceStage:
    link = model.recipe
    return SequenceStage(recipe.sequence, len(task.classes), (link.tokens, link.codewords))


def _chunks(rows: int, size: int = 4096) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, rows, size))
