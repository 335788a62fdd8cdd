"""Accuracy of the soft and the hard path at one and the same noise, in torch, with what tells a collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.channel.awgn import add_noise
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db
from train.collapse import CollapseMetrics, CollapseMonitor
from train.recipe import ChannelRecipe
from train.tasks import Split, Task
from train.transceiver import Transceiver


class Evaluation(NamedTuple):
    """Accuracies by Es/N0 in dB, and the collapse metrics over all of them."""

    hard: dict[float, float]
    soft: dict[float, float]
    collapse: CollapseMetrics

    @property
    def mean_hard(self) -> float:
        """Hard accuracy averaged over the grid: what `best` is chosen by."""
        return float(np.mean(list(self.hard.values())))

    @property
    def mean_soft(self) -> float:
        """Soft accuracy averaged over the grid."""
        return float(np.mean(list(self.soft.values())))


CHUNK_ROWS: Final = 256
"""Rows that are encoded at once: bounds memory."""


class Rows(Protocol):
    """Rows of one input: a tensor, or what gives a tensor of some of them (train.features.States)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


def tensors(task: Task, split: Split) -> list[Rows]:
    """The split's inputs in the order of the task's specification."""
    inputs = [split.inputs[spec.name] for spec in task.inputs]
    return [torch.from_numpy(np.ascontiguousarray(rows)) if isinstance(rows, np.ndarray) else rows for rows in inputs]


@torch.no_grad()
def encode(model: Transceiver, inputs: Sequence[Rows]) -> Tensor:
    """Tokens (n, N, D) of all rows, some at a time."""
    rows = len(inputs[0])
    parts = [slice(first, first + CHUNK_ROWS) for first in range(0, rows, CHUNK_ROWS)]
    return torch.cat([model.encode(*(tensor[part] for tensor in inputs)) for part in parts])


@torch.no_grad()
def decide_without_link(model: Transceiver, task: Task, split: Split) -> NDArray[np.int64]:
    """Decisions (n,) of encoder and head, with nothing between them."""
    model.eval()
    decisions: NDArray[np.int64] = model.head(encode(model, tensors(task, split))).argmax(dim=-1).numpy()
    return decisions


@torch.no_grad()
def evaluate(
    model: Transceiver, task: Task, split: Split, channel: ChannelRecipe, *, temperature: float, seed: int
) -> Evaluation:
    """Send a split over AWGN at each SNR of the recipe, soft and hard through the same noise.

    Parameters
    ----------
    temperature : float
        T of the soft assignment; the hard path does not depend on it.
    seed : int
        Of the noise, which is the same in every call.
    """
    model.eval()
    labels = torch.from_numpy(split.labels)
    tokens = encode(model, tensors(task, split))
    soft, hard = model.send_soft(tokens, temperature), model.send_hard(tokens)
    monitor = CollapseMonitor(model.recipe)
    accuracy: dict[str, dict[float, float]] = {"hard": {}, "soft": {}}
    for snr_db in channel.eval_snr_db:
        no = torch.full(hard.symbols.shape[:-1], no_from_esn0_db(snr_db))
        correct = {"hard": 0.0, "soft": 0.0}
        for draw in range(channel.eval_draws):
            draws = Draws(seed, np.arange(len(split)), draw)
            noise = draws.normals(Stream.NOISE, millidecibels(snr_db), hard.symbols.shape[1])
            normals = torch.from_numpy(noise.astype(np.float32))
            soft_heard = model.receive(add_noise(soft.symbols, no, normals), no)
            hard_heard = model.receive(add_noise(hard.symbols, no, normals), no)
            correct["soft"] += float((soft_heard.logits.argmax(dim=-1) == labels).double().mean())
            correct["hard"] += float((hard_heard.logits.argmax(dim=-1) == labels).double().mean())
            monitor.add(soft, hard, soft_heard, hard_heard, np.full(len(split), snr_db))
        for path, value in correct.items():
            accuracy[path][snr_db] = value / channel.eval_draws
    return Evaluation(accuracy["hard"], accuracy["soft"], monitor.result())
