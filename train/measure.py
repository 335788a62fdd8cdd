"""Accuracy of a checkpoint in torch, path by path and temperature by temperature, with counts and intervals.

hard    argmax: T has no part in it, so it is measured once
soft    softmax(-s d^2 / T), through the same noise, at each T; beside it how soft it is and what energy it sends
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from link.codebook import lookup
from link.errors import ArgumentError, require_range
from link.manifest import HeaderSpec
from link.montecarlo import Proportion, clustered_proportion
from link.snr import millidecibels
from link.truth import UNJUDGED
from train.evaluate import CHUNK_ROWS, carry, chunks, encode, hear, modes_at, noise, side_tensors, tensors, whole_frames
from train.losses import assignment_entropy, entropy
from train.mode_codec import Sent
from train.questions import asked
from train.recipe import LinkRecipe
from train.tasks import Split, Task
from train.transceiver import Transceiver

Path = Literal["hard", "soft"]

TEMPERATURES = (1.0, 0.7, 0.5, 0.1)


class Point(BaseModel):
    """One path at one temperature and one SNR.

    Attributes
    ----------
    temperature : float or None
        T of the soft assignment; None for the hard path, which has none.
    snr_db : float
        Es/N0, dB.
    accuracy : Proportion
        Over samples and noise, with the sample as the independent unit.
    correct, decisions : int
    h_assign : float
        Mean entropy of the assignment, nats; 0 for the hard path.
    es_db : float
        Mean energy of the symbols sent, dB above the constellation's; mean symbols carry less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    temperature: float | None
    snr_db: float
    accuracy: Proportion
    correct: int
    decisions: int
    h_assign: float
    es_db: float


class _Surrogate(NamedTuple):
    path: Path
    temperature: float | None

    def send(self, model: Transceiver, tokens: Tensor, tied: bool, mode: Tensor | None) -> Sent:
        if self.temperature is None:
            return model.send_hard(tokens, mode)
        return model.send_soft(tokens, self.temperature, self.temperature if tied else 1.0, mode)


class _Count:
    """What one path at one temperature sends and gets right, row by row."""

    def __init__(self, rows: int, snr_db: Sequence[float]) -> None:
        self.correct: dict[float, NDArray[np.int64]] = {point: np.zeros(rows, dtype=np.int64) for point in snr_db}
        self.entropy = 0.0
        self.energy = 0.0

    def add(self, sent: Sent, link: LinkRecipe, mode: Tensor | None, rows: float) -> None:
        """Entropy and energy of one chunk, which counts as so many rows; each row by its own tokens and symbols."""
        if mode is None:
            self.entropy += rows * float(assignment_entropy(sent.probabilities))
            self.energy += rows * float(sent.symbols.square().sum(dim=-1).mean())
            return
        tokens, symbols = (
            lookup(torch.tensor([float(getattr(rate, name)) for rate in link.rates]), mode)
            for name in ("tokens", "num_symbols")
        )
        self.entropy += rows * float((entropy(sent.probabilities).sum(dim=-1) / tokens).mean())
        self.energy += rows * float((sent.symbols.square().sum(dim=(1, 2)) / symbols).mean())


@torch.no_grad()
def measure(
    model: Transceiver,
    task: Task,
    split: Split,
    *,
    snr_db: Sequence[float],
    draws: int,
    temperatures: Sequence[float] = TEMPERATURES,
    paths: Sequence[Path] = ("hard", "soft"),
    tied: bool = False,
    seed: int = 0,
    header: HeaderSpec | None = None,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """Send a split over AWGN at each SNR, by each path, all through the same noise.

    Parameters
    ----------
    snr_db : sequence of float
        Es/N0, dB; no two the same to 0.001 dB.
    draws : int
        Times that the split is sent at each SNR, each with its own noise.
    temperatures : sequence of float
        T of the soft path.
    tied : bool
        Whether the temperature of the soft bits is T too, as where the schedule's symbol_temp is tied; else they have none.
    seed : int
        Of the noise, which is that of `train.evaluate.evaluate` and of a sweep.
    header : HeaderSpec, optional
        Where there are several modes; HeaderSpec's own values where absent.
    chunk_rows : int
        Rows sent at a time, of whole frames where there is a header; no count depends on it.
    progress : callable, optional
        Called with the rows done and all rows.

    Returns
    -------
    list of Point
        The hard path first, then the soft one by temperature as asked for; each over the grid as asked for.

    Raises
    ------
    ArgumentError
        If a temperature, an SNR, the number of draws or of rows is out of its range.
    """
    _check(split, snr_db, draws, temperatures, paths)
    model.eval()
    surrogates = [_Surrogate("hard", None)] if "hard" in paths else []
    surrogates += [_Surrogate("soft", temperature) for temperature in temperatures if "soft" in paths]
    counts = {surrogate: _Count(len(split), snr_db) for surrogate in surrogates}
    spec = header or HeaderSpec()
    for rows, part in chunks(split, whole_frames(model, spec, chunk_rows)):
        labels = torch.from_numpy(part.labels)
        tokens, side = encode(model, tensors(task, part)), side_tensors(task, part)
        sent: dict[_Surrogate, Sent] = {}
        share = len(part) if model.router is None else len(part) / len(snr_db)
        for point in snr_db:
            mode = modes_at(model, tokens, point)
            if not sent or model.router is not None:
                for surrogate, count in counts.items():
                    sent[surrogate] = surrogate.send(model, tokens, tied, mode)
                    count.add(sent[surrogate], model.recipe, mode, share)
            for draw in range(draws):
                met = noise(seed, rows, draw, point, model.recipe.num_symbols)
                carriage = carry(model, spec, mode, point, seed, rows, draw)
                for surrogate, count in counts.items():
                    heard = hear(model, sent[surrogate], met, carriage, side)
                    answers = asked(model.head, heard.logits, labels).argmax(dim=-1)
                    right = (answers == labels).reshape(len(labels), -1)
                    count.correct[point][rows] += right.sum(dim=-1).numpy()
        if progress is not None:
            progress(rows.stop, len(split))
    judged = (split.labels != UNJUDGED).reshape(len(split), -1).sum(axis=1)
    return [
        Point(
            path=surrogate.path,
            temperature=surrogate.temperature,
            snr_db=point,
            accuracy=clustered_proportion(correct, draws * judged),
            correct=int(correct.sum()),
            decisions=split.decisions * draws,
            h_assign=count.entropy / len(split),
            es_db=10.0 * math.log10(count.energy / len(split)),
        )
        for surrogate, count in counts.items()
        for point, correct in count.correct.items()
    ]


def mean_accuracy(points: Sequence[Point], path: Path, temperature: float | None = None) -> float:
    """Accuracy of one path averaged over the grid."""
    return float(
        np.mean([point.accuracy.value for point in points if (point.path, point.temperature) == (path, temperature)])
    )


def parse_temperatures(text: str) -> tuple[float, ...]:
    """Temperatures with commas between.

    Examples
    --------
    >>> parse_temperatures("1,0.7,0.1")
    (1.0, 0.7, 0.1)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError("temperature", f"must be numbers with commas between (1,0.7,0.1), got {text!r}") from None


def _check(
    split: Split, snr_db: Sequence[float], draws: int, temperatures: Sequence[float], paths: Sequence[Path]
) -> None:
    if not len(split):
        raise ArgumentError("split", "must hold at least one sample")
    if not snr_db or len({millidecibels(point) for point in snr_db}) != len(snr_db):
        raise ArgumentError("snr_db", f"must hold each point once (to 0.001 dB), got {list(snr_db)}")
    for point in snr_db:
        require_range("snr_db", point, -30.0, 60.0)
    if draws < 1:
        raise ArgumentError("draws", f"must be at least 1, got {draws}")
    for temperature in temperatures:
        require_range("temperature", temperature, 1e-6, 1e6)
    if "soft" in paths and (not temperatures or len(set(temperatures)) != len(temperatures)):
        raise ArgumentError("temperature", f"must name each temperature once, got {list(temperatures)}")
