"""The batches of an epoch: which rows, in which order, and the noise that each of them meets, every draw by its address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.randomness import Draws, Stream, permutation
from link.truth import UNJUDGED
from train.bottleneck import LatentNoise
from train.evaluate import side_tensors, tensors
from train.processes import Processes
from train.recipe import Recipe
from train.routing import ModeChoice, RoutingNoise
from train.stage import Stage
from train.tasks import Split


class Batch(NamedTuple):
    """Rows of one step and the noise that each of them meets.

    Attributes
    ----------
    inputs : list of (b, ...) tensors
        Of the rows that this process encodes: all B where there is one (train.processes).
    side : list of (B, ...) tensors
        What the receiver has of its own.
    labels : (B,) or (B, T) int64
    normals : (B, S, 2) float32
        Standard normals.
    snr_db : (B,) float64
        Es/N0, dB.
    routing : RoutingNoise or None
        None where there is one mode.
    latent : LatentNoise or None
        None where there is no bottleneck.
    """

    inputs: list[Tensor]
    side: list[Tensor]
    labels: Tensor
    normals: Tensor
    snr_db: NDArray[np.float64]
    routing: RoutingNoise | None
    latent: LatentNoise | None = None

    @property
    def decisions(self) -> int:
        """Positions of its rows that are judged."""
        return int((self.labels != UNJUDGED).sum())

    @property
    def no(self) -> Tensor:
        """Noise variance of each symbol, (B, S)."""
        variance = torch.from_numpy((10.0 ** (-self.snr_db / 10.0)).astype(np.float32))
        return variance.to(self.normals.device)[:, None].expand(self.normals.shape[:-1])


class Batches:
    """The training rows, batch by batch.

    Parameters
    ----------
    recipe : Recipe
    stage : Stage
        Gives the rows as the model takes them now.
    mode_choice : ModeChoice, optional
        Required where there are several modes.
    processes : Processes, optional
        Those that share the rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        mode_choice: ModeChoice | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._recipe = recipe
        self._stage = stage
        self._mode_choice = mode_choice
        self._processes = processes or Processes()
        self.per_epoch = -(-len(stage.data.train) // recipe.optimizer.batch_size)

    @property
    def rows_compared(self) -> int:
        """Rows of a batch that both training and evaluation have, so that the usage of either's batches means the same."""
        data = self._stage.data
        return min(self._recipe.optimizer.batch_size, len(data.train), len(data.validation))

    def of(self, epoch: int) -> Iterator[tuple[int, Batch]]:
        """The epoch's steps, counted over the whole run, and their batches."""
        recipe, split = self._recipe, self._stage.data.train
        rows = len(split)
        draws = Draws(recipe.seed, np.arange(rows), epoch)
        augmented = Split(self._stage.task.augment(split.inputs, draws), split.labels)
        inputs, side = tensors(self._stage.task, augmented), side_tensors(self._stage.task, augmented)
        labels = torch.from_numpy(split.labels)
        noise = draws.normals(Stream.TRAINING_NOISE, 0, recipe.link.num_symbols).astype(np.float32)
        low, high = recipe.channel.train_snr_db
        snr_db = low + (high - low) * draws.uniforms(Stream.TRAINING_SNR, 0, 1)[:, 0]
        routing = None if self._mode_choice is None else self._mode_choice.noise(draws)
        link, latent = recipe.link, None
        if recipe.bottleneck.enabled:
            latent = LatentNoise.of(draws, recipe.bottleneck, link.tokens, link.dim)
        order = permutation(recipe.seed, rows, epoch)
        size = recipe.optimizer.batch_size
        device = self._processes.device
        for index in range(self.per_epoch):
            chosen = order[index * size : (index + 1) * size]
            own = chosen[self._processes.share(len(chosen))]
            yield (
                (epoch - 1) * self.per_epoch + index,
                Batch(
                    [tensor.to(device) for tensor in self._stage.rows(inputs, own)],
                    [tensor[chosen].to(device) for tensor in side],
                    labels[chosen].to(device),
                    torch.from_numpy(noise[chosen]).to(device),
                    snr_db[chosen],
                    None if routing is None else routing.rows(chosen),
                    None if latent is None else latent.rows(chosen, device),
                ),
            )
