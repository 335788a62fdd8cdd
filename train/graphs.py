"""The two graphs of a bundle as torch modules: what is traced into transmitter.onnx and receiver.onnx.

A traced graph has one way for all rows, so each mode does all of them and every row takes its own mode's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from link.codebook import lookup
from train.answers import answer
from train.lengths import nested
from train.transceiver import Transceiver, padded

RECEIVED: Final = 4
"""Inputs of a receiver that the link gives: symbols, no, mode, llr_in. What it has of its own follows."""


class TransmitterGraph(nn.Module):
    """The hard transmitter with the interface of transmitter.onnx.

    Behind the task's inputs comes Es/N0 where it routes, and last the modes that are asked for where there are several.
    """

    def __init__(self, transceiver: Transceiver) -> None:
        super().__init__()
        self.transceiver = transceiver

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """mode, indices, bits, num_bits, symbols, num_symbols."""
        model = self.transceiver
        recipe = model.recipe
        if recipe.modes:
            *samples, asked = inputs
            snr_db = None if model.router is None else samples.pop()
            tokens = model.encode(*samples)
            return self.send(tokens, torch.where(asked < 0, model.mode_of(tokens, snr_db), asked))
        tokens = model.encode(*inputs)
        sent = model.send_hard(tokens)
        mode = torch.zeros_like(sent.indices[:, 0])
        return (
            mode,
            sent.indices,
            sent.bits.to(torch.uint8),
            mode + recipe.num_bits,
            sent.symbols,
            mode + recipe.num_symbols,
        )

    def send(self, tokens: Tensor, mode: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The same of tokens (B, N, D) in given modes (B,)."""
        if nested(self.transceiver.recipe):
            indices, _, bits, symbols = self.transceiver.send_hard(tokens, mode)
        else:
            every = [codec.send_hard(tokens) for codec in self.transceiver.modes]
            indices, bits, symbols = (
                _select(mode, [getattr(sent, name) for sent in every]) for name in ("indices", "bits", "symbols")
            )
        num_bits, num_symbols = (
            lookup(torch.tensor([getattr(rate, name) for rate in self.transceiver.recipe.rates]), mode)
            for name in ("num_bits", "num_symbols")
        )
        return mode, indices, bits.to(torch.uint8), num_bits, symbols, num_symbols


class ReceiverGraph(nn.Module):
    """The receiver with the interface of receiver.onnx."""

    def __init__(self, transceiver: Transceiver) -> None:
        super().__init__()
        self.transceiver = transceiver

    def forward(self, symbols: Tensor, no: Tensor, mode: Tensor, llr_in: Tensor, *side: Tensor) -> tuple[Tensor, ...]:
        """llr, indices_hat, and logits or pieces and log_prob. Where there is one mode, `mode` decides nothing."""
        recipe = self.transceiver.recipe
        if not recipe.modes or nested(recipe):
            heard = self.transceiver.receive(symbols, no, llr_in, mode, answers=False)
            return heard.llr, heard.indices_hat, *self._answer(heard.embedding, side)
        every = [codec.decode(symbols, no, llr_in)[1:] for codec in self.transceiver.modes]
        llr, indices_hat, embedding = (_select(mode, list(column)) for column in zip(*every, strict=True))
        return llr, indices_hat, *self._answer(embedding, side)

    def _answer(self, embedding: Tensor, side: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the receiver says: the scores of all classes, or a piece at each position and its log probability."""
        said = answer(self.transceiver.head, embedding, side)
        return tuple(said) if said.decisions.dim() == 2 else (said.score,)


def _select(mode: Tensor, results: Sequence[Tensor]) -> Tensor:
    """Each row's entry of the list that its mode names: what `_by_mode` does, in operations that can be exported."""
    sizes = [max(lengths) for lengths in zip(*(result.shape[1:] for result in results), strict=True)]
    first, *others = (padded(result, sizes) for result in results)
    for number, other in enumerate(others, start=1):
        first = torch.where((mode == number).reshape(-1, *[1] * (other.dim() - 1)), other, first)
    return first
