"""Accuracy of the soft and the hard path at one and the same noise, in torch, with what tells a collapse.

A split is sent in chunks of rows, since a text encoder's activations for all of it would not fit: a row's noise bears the
row's own address, so the chunks change no decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.channel.awgn import add_noise
from link.errors import ArgumentError
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db
from train.collapse import CollapseMetrics, CollapseMonitor, TokenStatistics
from train.losses import task_loss
from train.recipe import ChannelRecipe
from train.tasks import Split, Task
from train.transceiver import Heard, Sent, Transceiver

CHUNK_ROWS: Final = 256


class Evaluation(NamedTuple):
    """Accuracies by Es/N0 in dB, and over all of them the task loss in nats, the collapse metrics and the tokens."""

    hard: dict[float, float]
    soft: dict[float, float]
    hard_loss: float
    soft_loss: float
    collapse: CollapseMetrics
    tokens: TokenStatistics

    @property
    def mean_hard(self) -> float:
        """Hard accuracy averaged over the grid: what `best` is chosen by."""
        return float(np.mean(list(self.hard.values())))

    @property
    def mean_soft(self) -> float:
        """Soft accuracy averaged over the grid."""
        return float(np.mean(list(self.soft.values())))


class Rows(Protocol):
    """Rows of one input: a tensor, or what gives a tensor of some of them (train.features.States)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


class Noise(NamedTuple):
    """What a chunk's symbols meet in one draw at one SNR: unit normals (B, S, 2) and the noise variance (B, S)."""

    normals: Tensor
    no: Tensor


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


def chunks(split: Split, size: int = CHUNK_ROWS) -> Iterator[tuple[slice, Split]]:
    """The split's rows, `size` at a time: where they stand in it, and the rows."""
    if size < 1:
        raise ArgumentError("size", f"must be at least 1 row, got {size}")
    for start in range(0, len(split), size):
        part = slice(start, min(start + size, len(split)))
        yield part, Split({name: value[part] for name, value in split.inputs.items()}, split.labels[part])


def noise(seed: int, rows: slice, draw: int, snr_db: float, symbols: int) -> Noise:
    """The noise of some rows of a split in one draw at one SNR, by its address."""
    draws = Draws(seed, np.arange(rows.start, rows.stop), draw)
    normals = draws.normals(Stream.NOISE, millidecibels(snr_db), symbols).astype(np.float32)
    return Noise(torch.from_numpy(normals), torch.full(normals.shape[:-1], no_from_esn0_db(snr_db)))


def hear(model: Transceiver, sent: Sent, met: Noise) -> Heard:
    """What the receiver makes of what was sent, through that noise."""
    return model.receive(add_noise(sent.symbols, met.no, met.normals), met.no)


@torch.no_grad()
def evaluate(
    model: Transceiver,
    task: Task,
    split: Split,
    channel: ChannelRecipe,
    *,
    temperature: float,
    symbol_temperature: float = 1.0,
    seed: int,
    chunk_rows: int = CHUNK_ROWS,
) -> Evaluation:
    """Send a split over AWGN at each SNR of the recipe, soft and hard through the same noise.

    Parameters
    ----------
    temperature, symbol_temperature : float
        T of the soft assignment and of the soft bits; the hard path does not depend on them.
    seed : int
        Of the noise, which is the same in every call.
    chunk_rows : int
        Rows sent at a time. Accuracies do not depend on it; means of floats do in their last digits.
    """
    model.eval()
    monitor = CollapseMonitor(model.recipe)
    correct = {path: dict.fromkeys(channel.eval_snr_db, 0) for path in ("hard", "soft")}
    lost = {"hard": 0.0, "soft": 0.0}
    for rows, part in chunks(split, chunk_rows):
        labels = torch.from_numpy(part.labels)
        tokens = encode(model, tensors(task, part))
        monitor.add_tokens(tokens)
        soft, hard = model.send_soft(tokens, temperature, symbol_temperature), model.send_hard(tokens)
        for snr_db in channel.eval_snr_db:
            for draw in range(channel.eval_draws):
                met = noise(seed, rows, draw, snr_db, hard.symbols.shape[1])
                heard = {"soft": hear(model, soft, met), "hard": hear(model, hard, met)}
                for path, answer in heard.items():
                    correct[path][snr_db] += int((answer.logits.argmax(dim=-1) == labels).sum())
                    lost[path] += len(part) * float(task_loss(answer.logits, labels))
                monitor.add(soft, hard, heard["soft"], heard["hard"], np.full(len(part), snr_db))
    sent = len(split) * channel.eval_draws
    accuracy = {path: {snr_db: count / sent for snr_db, count in counts.items()} for path, counts in correct.items()}
    decisions = sent * len(channel.eval_snr_db)
    return Evaluation(
        accuracy["hard"],
        accuracy["soft"],
        lost["hard"] / decisions,
        lost["soft"] / decisions,
        monitor.result(),
        monitor.token_statistics(),
    )
