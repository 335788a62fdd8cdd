"""The trainable transmitter and receiver: torch modules around link's functions.

    inputs ─> encoder ─> normalise ─> tokens z ─┬─ hard: argmax ──> bits ─┐
                                                └─ soft: softmax ─> P(b) ─┴─> group ─> map ─> x
    y, no ─> LLR (+ llr_in), clip ─> posterior over codewords ─> mean embedding ─> head ─> logits

Hard and soft differ in the assignment and nowhere else. Power is a constant of the constellation: soft symbols carry less
energy than hard ones against the same noise and are never renormalised.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from link.bits import group, ungroup
from link.codebook import posterior_logits, softmax
from link.constellation import app_llr, bits_per_symbol, map_bits, max_log_llr
from train.quantizer import build_quantizer
from train.recipe import LinkRecipe, QuantizerRecipe


class Sent(NamedTuple):
    """What the transmitter makes of tokens.

    Attributes
    ----------
    indices : (B, N) int64
        Codewords chosen by argmax (of the hard path also where the soft one sends).
    probabilities : (B, N, K) float32
        The assignment: one-hot where hard.
    bits : (B, L) float32
        Payload bits, or P(b = 1) where soft.
    symbols : (B, S, 2) float32
        (I, Q), Es = 1; mean symbols where soft.
    """

    indices: Tensor
    probabilities: Tensor
    bits: Tensor
    symbols: Tensor


class Heard(NamedTuple):
    """What the receiver makes of symbols.

    Attributes
    ----------
    channel_llr : (B, L) float32
        ln P(b=1)/P(b=0) as demapped, neither added to nor clipped.
    llr : (B, L) float32
        ln P(b=1)/P(b=0), `llr_in` added, clipped.
    indices_hat : (B, N) int64
        Most likely codewords.
    embedding : (B, N, D) float32
        Posterior mean of the tokens.
    logits : (B, C) float32
    """

    channel_llr: Tensor
    llr: Tensor
    indices_hat: Tensor
    embedding: Tensor
    logits: Tensor


class Transceiver(nn.Module):
    """One codebook, one constellation, an encoder before and a head behind.

    Parameters
    ----------
    encoder : nn.Module
        The task's inputs, in the order of its specification, to (B, N, D).
    head : nn.Module
        (B, N, D) to (B, C).
    recipe : LinkRecipe
    quantizer : QuantizerRecipe, optional

    Attributes
    ----------
    selected_by : str
        Path whose accuracy chooses the best checkpoint.
    """

    selected_by: Literal["hard", "soft"] = "hard"

    def __init__(
        self, encoder: nn.Module, head: nn.Module, recipe: LinkRecipe, quantizer: QuantizerRecipe | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.quantizer = build_quantizer(quantizer or QuantizerRecipe(), recipe.codewords, recipe.dim)
        self.recipe = recipe

    def encode(self, *inputs: Tensor) -> Tensor:
        """Tokens (B, N, D), each normalised by itself alone."""
        return self.quantizer.tokens(self.encoder(*inputs))

    def send_hard(self, tokens: Tensor) -> Sent:
        """The deployed transmitter: argmax, bits, constellation points."""
        indices = self.quantizer.hard(tokens)
        chosen = functional.one_hot(indices, self.recipe.codewords).to(tokens.dtype)
        return self._send(indices, chosen, self.quantizer.bits_of(indices))

    def send_soft(self, tokens: Tensor, temperature: float, symbol_temperature: float = 1.0) -> Sent:
        """The surrogate: softmax, probabilities of bits, mean symbols."""
        probabilities = self.quantizer.soft(tokens, temperature)
        bits = tempered(probabilities @ self.quantizer.label_bits, symbol_temperature)
        return self._send(probabilities.detach().argmax(dim=-1), probabilities, bits)

    def receive(self, symbols: Tensor, no: Tensor, llr_in: Tensor | None = None) -> Heard:
        """Decode equalised symbols (B, S, 2) with noise variances (B, S)."""
        demap = app_llr if self.recipe.demapper == "app" else max_log_llr
        channel_llr = ungroup(demap(symbols, no, self.recipe.order), self.recipe.num_bits)
        llr = channel_llr if llr_in is None else channel_llr + llr_in
        llr = llr.clamp(-self.recipe.llr_clip, self.recipe.llr_clip)
        per_token = llr.reshape(-1, self.recipe.tokens, self.recipe.index_bits)
        log_posterior = posterior_logits(per_token, self.quantizer.label_bits, self.quantizer.log_prior)
        embedding = softmax(log_posterior) @ self.quantizer.codebook
        return Heard(channel_llr, llr, log_posterior.argmax(dim=-1), embedding, self.head(embedding))

    def noise_met(self, no: Tensor) -> Tensor:
        """Noise variances (B, S) that a training batch meets where it asks for `no`: the same."""
        return no

    def deployed(self) -> Transceiver:
        """What is exported: this transceiver."""
        return self

    def _send(self, indices: Tensor, probabilities: Tensor, token_bits: Tensor) -> Sent:
        bits = token_bits.reshape(-1, self.recipe.num_bits)
        symbols = map_bits(group(bits, bits_per_symbol(self.recipe.order)))
        return Sent(indices, probabilities, bits, symbols)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Hard forward, to the last bit; soft backward (Bengio et al. 2013, arXiv:1308.3432).

    `soft - soft` is 0 exactly, where `soft + (hard - soft)` would round.
    """
    return hard.detach() + (soft - soft.detach())


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Bit probabilities p whose logits are divided by a temperature, sigmoid(logit(p) / T); at 1 they are left alone.

    Below 1 it moves each bit towards the nearer of 0 and 1, and so each mean symbol towards a constellation point. Logits
    end at ln(1 / eps), about 16 in float32, which keeps value and slope finite.
    """
    if temperature == 1.0:
        return probabilities
    smallest = torch.finfo(probabilities.dtype).eps
    inside = probabilities.clamp(smallest, 1.0 - smallest)
    return torch.sigmoid((inside.log() - (-inside).log1p()) / temperature)


class TransmitterGraph(nn.Module):
    """The hard transmitter with the interface of transmitter.onnx."""

    def __init__(self, transceiver: Transceiver) -> None:
        super().__init__()
        self.transceiver = transceiver

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """mode, indices, bits, num_bits, symbols, num_symbols."""
        recipe = self.transceiver.recipe
        sent = self.transceiver.send_hard(self.transceiver.encode(*inputs))
        mode = torch.zeros_like(sent.indices[:, 0])
        return (
            mode,
            sent.indices,
            sent.bits.to(torch.uint8),
            mode + recipe.num_bits,
            sent.symbols,
            mode + recipe.num_symbols,
        )


class ReceiverGraph(nn.Module):
    """The receiver with the interface of receiver.onnx."""

    def __init__(self, transceiver: Transceiver) -> None:
        super().__init__()
        self.transceiver = transceiver

    def forward(self, symbols: Tensor, no: Tensor, mode: Tensor, llr_in: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """llr, indices_hat, logits. There is one mode, so `mode` decides nothing."""
        heard = self.transceiver.receive(symbols, no, llr_in)
        return heard.llr, heard.indices_hat, heard.logits
