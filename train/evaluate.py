"""Accuracy of the soft and the hard path at one and the same noise, in torch, with what tells a collapse.

A split is sent in chunks of rows, since a text encoder's activations for all of it would not fit: a row's noise bears the
row's own address, so the chunks change no decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.channel.awgn import add_noise
from link.errors import ArgumentError
from link.header import HeaderOutcome
from link.manifest import HeaderSpec
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db
from train.answers import follows
from train.collapse import CollapseMetrics, CollapseMonitor, TokenStatistics
from train.losses import task_loss
from train.mode_codec import Sent
from train.processes import Processes
from train.questions import asked, taught
from train.recipe import ChannelRecipe, LinkRecipe
from train.routing import carried, receive_routed
from train.tasks import Split, Task, receiver_inputs_of
from train.transceiver import Heard, Transceiver
from train.usage import Usage, shuffled

CHUNK_ROWS: Final = 256


class Evaluation(NamedTuple):
    """Accuracies by Es/N0 in dB, and over all of them the task loss in nats, the collapse metrics and the tokens.

    Attributes
    ----------
    bits, symbols : float
        Of a sample, on average over samples and grid; the header's share is in the symbols.
    mode_shares, usage
        As in EpochRecord; empty where there is one mode.
    headers_lost, headers_wrong : float or None
        Share of the samples.
    code_counts : mapping of codewords to tuple of int
        Times that each codeword of each codebook was sent, over grid and draws.
    """

    hard: dict[float, float]
    soft: dict[float, float]
    hard_loss: float
    soft_loss: float
    collapse: CollapseMetrics
    tokens: TokenStatistics
    bits: float
    symbols: float
    mode_shares: tuple[float, ...] = ()
    usage: Mapping[int, Usage] = MappingProxyType({})
    headers_lost: float | None = None
    headers_wrong: float | None = None
    code_counts: Mapping[int, tuple[int, ...]] = MappingProxyType({})

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


def side_tensors(task: Task, split: Split) -> list[Tensor]:
    """What the receiver has of its own of a split's rows, in the order of the task's specification."""
    inputs = [split.inputs[spec.name] for spec in receiver_inputs_of(task)]
    return [torch.from_numpy(np.ascontiguousarray(rows)) for rows in inputs]


@torch.no_grad()
def encode(model: Transceiver, inputs: Sequence[Rows], processes: Processes | None = None) -> Tensor:
    """Tokens (n, N, D) of all rows, some at a time, each process encoding its share."""
    processes = processes or Processes()
    rows, tokens = len(inputs[0]), []
    for first in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - first)
        own = first + processes.share(count)
        tokens.append(processes.gather(model.encode(*(tensor[own].to(model.device) for tensor in inputs)), count))
    return torch.cat(tokens)


@torch.no_grad()
def decide_without_link(
    model: Transceiver, task: Task, split: Split, processes: Processes | None = None
) -> NDArray[np.int64]:
    """Decisions, as the labels, of encoder and head with nothing between them; within the question that a row is asked."""
    model.eval()
    decisions = []
    for _, part in chunks(split):
        side = [rows.to(model.device) for rows in side_tensors(task, part)]
        logits = model.head(encode(model, tensors(task, part), processes), *side)
        found = asked(model.head, logits, torch.from_numpy(part.labels).to(model.device)).argmax(dim=-1)
        decisions.append(found.cpu().numpy())
    return np.concatenate(decisions)


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


class Carriage(NamedTuple):
    """What rows are sent and decoded in at one SNR: the modes (B,), of the deployed choice, and their headers' outcome."""

    mode: Tensor
    header: HeaderOutcome


def modes_at(model: Transceiver, tokens: Tensor, snr_db: float) -> Tensor | None:
    """The deployed choice of modes for tokens (B, N, D) at an SNR that the transmitter knows; None where there is one."""
    if not model.recipe.modes:
        return None
    return model.mode_of(tokens, torch.full((len(tokens),), snr_db, dtype=tokens.dtype, device=tokens.device))


def hear(
    model: Transceiver, sent: Sent, met: Noise, carriage: Carriage | None = None, side: Sequence[Tensor] = ()
) -> Heard:
    """What the receiver makes of what was sent, through that noise; `carriage` where there are several modes."""
    no = met.no.to(model.device)
    y = add_noise(sent.symbols, no, met.normals.to(model.device))
    if carriage is None:
        return model.receive(y, no, side=side)
    decoded, lost = (
        torch.from_numpy(values).to(model.device) for values in (carriage.header.mode, carriage.header.lost)
    )
    return receive_routed(model, y, no, carriage.mode, decoded, lost, side)


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
    header: HeaderSpec | None = None,
    chunk_rows: int = CHUNK_ROWS,
    batch_rows: int | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Send a split over AWGN at each SNR of the recipe, soft and hard through the same noise, and in the same modes.

    Parameters
    ----------
    temperature, symbol_temperature : float
        T of the soft assignment and of the soft bits; the hard path does not depend on them.
    seed : int
        Of the noise, which is the same in every call.
    header : HeaderSpec, optional
        Where there are several modes; HeaderSpec's own values where absent.
    chunk_rows : int
        Rows sent at a time, of whole frames where there is a header. Accuracies do not depend on it; means of floats do in
        their last digits.
    batch_rows : int, optional
        Rows over which the usage of single batches is taken, in an order of the seed's; it is not where absent.
    processes : Processes, optional
        Those that share the rows: each of them gets the whole result.
    """
    model.eval()
    monitor = CollapseMonitor(model.recipe, batch_rows)
    several = bool(model.recipe.modes)
    indices: list[Tensor] = []
    correct = {path: dict.fromkeys(channel.eval_snr_db, 0) for path in ("hard", "soft")}
    lost = {"hard": 0.0, "soft": 0.0}
    spec = header or HeaderSpec()
    rate = _Rate()
    for rows, part in chunks(split, whole_frames(model, spec, chunk_rows)):
        labels = torch.from_numpy(part.labels).to(model.device)
        side = [rows_of.to(model.device) for rows_of in side_tensors(task, part)]
        tokens = encode(model, tensors(task, part), processes)
        monitor.add_tokens(tokens)
        sent = None
        for snr_db in channel.eval_snr_db:
            mode = modes_at(model, tokens, snr_db)
            if sent is None or model.router is not None:
                sent = model.send_soft(tokens, temperature, symbol_temperature, mode), model.send_hard(tokens, mode)
                if batch_rows is not None and not several:
                    indices.append(sent[1].indices)
            soft, hard = sent
            for draw in range(channel.eval_draws):
                met = noise(seed, rows, draw, snr_db, hard.symbols.shape[1])
                carriage = carry(model, spec, mode, snr_db, seed, rows, draw)
                heard = {
                    path: hear(model, sent_by, met, carriage, side)
                    for path, sent_by in (("soft", soft), ("hard", hard))
                }
                for path, answer in heard.items():
                    logits = asked(model.head, answer.logits, labels)
                    correct[path][snr_db] += int((logits.argmax(dim=-1) == labels).sum())
                    # The loss is that of training, which tells a head the pieces before each where it asks for them.
                    told = taught(model.head, answer.embedding, side, labels) if follows(model.head) else logits
                    lost[path] += part.decisions * float(task_loss(told, labels))
                right = None if carriage is None else torch.from_numpy(carriage.header.right).to(model.device)
                monitor.add(soft, hard, heard["soft"], heard["hard"], np.full(len(part), snr_db), mode, right)
                rate.add(model.recipe, len(part), carriage)
    for batch in shuffled(torch.cat(indices), batch_rows, seed) if batch_rows is not None and indices else ():
        monitor.add_batch(batch)
    times = split.decisions * channel.eval_draws
    accuracy = {path: {snr_db: count / times for snr_db, count in counts.items()} for path, counts in correct.items()}
    decisions = times * len(channel.eval_snr_db)
    receptions = len(split) * channel.eval_draws * len(channel.eval_snr_db)
    return Evaluation(
        accuracy["hard"],
        accuracy["soft"],
        lost["hard"] / decisions,
        lost["soft"] / decisions,
        monitor.result(),
        monitor.token_statistics(),
        bits=rate.bits / receptions,
        symbols=rate.symbols / receptions,
        mode_shares=monitor.mode_shares(),
        usage=monitor.usage() if several else {},
        headers_lost=rate.lost / receptions if several else None,
        headers_wrong=rate.wrong / receptions if several else None,
        code_counts=monitor.code_counts(),
    )


def carry(
    model: Transceiver, header: HeaderSpec, mode: Tensor | None, snr_db: float, seed: int, rows: slice, draw: int
) -> Carriage | None:
    """The headers of some rows of a split in one draw at one SNR, by their address; None where there is one mode."""
    if mode is None:
        return None
    draws = Draws(seed, np.arange(rows.start, rows.stop), draw)
    return Carriage(mode, carried(model, header, mode, snr_db, draws))


def whole_frames(model: Transceiver, header: HeaderSpec, rows: int) -> int:
    """So many rows or fewer that no frame is cut, but at least one frame."""
    if not model.recipe.modes or rows < 1:
        return rows
    return max(rows - rows % header.frame_samples, header.frame_samples)


class _Rate:
    """Bits, symbols and failed headers of all rows, summed."""

    def __init__(self) -> None:
        self.bits = self.symbols = 0.0
        self.lost = self.wrong = 0

    def add(self, link: LinkRecipe, rows: int, carriage: Carriage | None) -> None:
        if carriage is None:
            self.bits += rows * link.num_bits
            self.symbols += rows * link.num_symbols
            return
        counts = np.bincount(carriage.mode.cpu().numpy(), minlength=len(link.rates))
        self.bits += float(counts @ [rate.num_bits for rate in link.rates])
        self.symbols += float(counts @ [rate.num_symbols for rate in link.rates]) + float(carriage.header.symbols.sum())
        self.lost += int(carriage.header.lost.sum())
        self.wrong += int(carriage.header.wrong.sum())
