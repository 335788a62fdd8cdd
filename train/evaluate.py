"""Accuracy of the soft and the hard path at one and the same noise, in torch, with what tells a collapse."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from link.channel.awgn import add_noise
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db
from train.collapse import CollapseMetrics, CollapseMonitor
from train.losses import task_loss
from train.recipe import ChannelRecipe
from train.tasks import Split, Task
from train.transceiver import Transceiver


class Evaluation(NamedTuple):
    """Accuracies by Es/N0 in dB, and over all of them the hard path's task loss, nats, and the collapse metrics."""

    hard: dict[float, float]
    soft: dict[float, float]
    hard_loss: float
    collapse: CollapseMetrics

    @property
    def mean_hard(self) -> float:
        """Hard accuracy averaged over the grid: what `best` is chosen by."""
        return float(np.mean(list(self.hard.values())))

    @property
    def mean_soft(self) -> float:
        """Soft accuracy averaged over the grid."""
        return float(np.mean(list(self.soft.values())))


def tensors(task: Task, split: Split) -> list[Tensor]:
    """The split's inputs in the order of the task's specification."""
    return [torch.from_numpy(np.ascontiguousarray(split.inputs[spec.name])) for spec in task.inputs]


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
) -> Evaluation:
    """Send a split over AWGN at each SNR of the recipe, soft and hard through the same noise.

    Parameters
    ----------
    temperature, symbol_temperature : float
        T of the soft assignment and of the soft bits; the hard path does not depend on them.
    seed : int
        Of the noise, which is the same in every call.
    """
    model.eval()
    labels = torch.from_numpy(split.labels)
    tokens = model.encode(*tensors(task, split))
    soft, hard = model.send_soft(tokens, temperature, symbol_temperature), model.send_hard(tokens)
    monitor = CollapseMonitor(model.recipe)
    accuracy: dict[str, dict[float, float]] = {"hard": {}, "soft": {}}
    hard_loss = 0.0
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
            hard_loss += float(task_loss(hard_heard.logits, labels))
            monitor.add(soft, hard, soft_heard, hard_heard, np.full(len(split), snr_db))
        for path, value in correct.items():
            accuracy[path][snr_db] = value / channel.eval_draws
    hard_loss /= len(channel.eval_snr_db) * channel.eval_draws
    return Evaluation(accuracy["hard"], accuracy["soft"], hard_loss, monitor.result())
