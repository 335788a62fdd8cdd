"""One mode of a transceiver: the first of the tokens, its codebook, its constellation, there and back.

tokens z ─┬─ hard: argmax ──> bits ─┐                     y, no ─> LLR (+ llr_in), clip ─> posterior ─> mean embedding
└─ soft: softmax ─> P(b) ─┴─> group ─> map ─> x
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from link.bits import group, ungroup
from link.codebook import posterior_logits, softmax
from link.constellation import app_llr, bits_per_symbol, map_bits, max_log_llr
from train.codebook import Codebook
from train.recipe import LinkRecipe


class Sent(NamedTuple):
    """What the transmitter makes of tokens; where modes differ in size, 0 past a mode's own.

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


class Codec(Protocol):
    """What one mode does, whatever else there is."""

    @property
    def recipe(self) -> LinkRecipe: ...
    @property
    def quantizer(self) -> Codebook: ...


class ModeCodec:
    """One mode of a transceiver: a codebook, a constellation, and the first of the tokens.

    Parameters
    ----------
    recipe : LinkRecipe
        Of the mode alone.
    quantizer : Codebook
    positions : int
        Tokens that the head takes.
    """

    def __init__(self, recipe: LinkRecipe, quantizer: Codebook, positions: int) -> None:
        self.recipe = recipe
        self.quantizer = quantizer
        self._positions = positions

    def send_hard(self, tokens: Tensor) -> Sent:
        """Argmax, bits, constellation points of the first of (B, N, D) tokens."""
        indices = self.quantizer.hard(tokens[:, : self.recipe.tokens])
        chosen = functional.one_hot(indices, self.recipe.codewords).to(tokens.dtype)
        return self._send(indices, chosen, self.quantizer.bits_of(indices))

    def send_soft(self, tokens: Tensor, temperature: float, symbol_temperature: float = 1.0) -> Sent:
        """Softmax, probabilities of bits, mean symbols of the first of (B, N, D) tokens."""
        probabilities = self.quantizer.soft(tokens[:, : self.recipe.tokens], temperature)
        bits = tempered(probabilities @ self.quantizer.label_bits, symbol_temperature)
        return self._send(probabilities.detach().argmax(dim=-1), probabilities, bits)

    def log_posterior(self, llr: Tensor) -> Tensor:
        """Unnormalised log posterior of the codewords, (B, L) to (B, n, K)."""
        per_token = llr.reshape(-1, self.recipe.tokens, self.recipe.index_bits)
        found: Tensor = posterior_logits(per_token, self.quantizer.label_bits, self.quantizer.log_prior)
        return found

    def decode(self, symbols: Tensor, no: Tensor, llr_in: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channel LLRs, LLRs, codewords and embedding (B, N, D) from symbols (B, S, 2), those past the mode's ignored."""
        link = self.recipe
        demap = app_llr if link.demapper == "app" else max_log_llr
        received = demap(symbols[:, : link.num_symbols], no[:, : link.num_symbols], link.order)
        channel_llr = ungroup(received, link.num_bits)
        llr = channel_llr if llr_in is None else channel_llr + llr_in[:, : link.num_bits]
        llr = llr.clamp(-link.llr_clip, link.llr_clip)
        log_posterior = self.log_posterior(llr)
        embedding = softmax(log_posterior) @ self.quantizer.codebook
        if link.tokens < self._positions:
            unsent = softmax(self.quantizer.log_prior) @ self.quantizer.codebook
            missing = unsent.expand(embedding.shape[0], self._positions - link.tokens, link.dim)
            embedding = torch.cat([embedding, missing], dim=1)
        return channel_llr, llr, log_posterior.argmax(dim=-1), embedding

    def _send(self, indices: Tensor, probabilities: Tensor, token_bits: Tensor) -> Sent:
        bits = token_bits.reshape(-1, self.recipe.num_bits)
        symbols = map_bits(group(bits, bits_per_symbol(self.recipe.order)))
        return Sent(indices, probabilities, bits, symbols)


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
