"""Transceivers with the defects of published systems, for the ablation; `train.defects` says what each of them was.

    codebook   no-scale, ema-zero-size, ema-without-n,         soft symbols   soft-points, then batch-power
               restart-keeps-sums                              receiver       leak
    noise      batch-averaged-noise, noise-per-dimension

`deployed` gives the clean transceiver with the same weights: what is exported. Everything else that asks the model meets the
defects, training's evaluation included, as it did in the published systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from link.bits import group
from link.constellation import bits_per_symbol, map_bits
from link.errors import ArgumentError
from train.mode_codec import Sent
from train.quantizer import Quantizer
from train.recipe import LinkRecipe, QuantizerRecipe
from train.transceiver import Heard, Transceiver

OF_THE_CODEBOOK: Final = frozenset({"no-scale", "ema-zero-size", "ema-without-n", "restart-keeps-sums"})

_LAPLACE: Final = 1e-5
_SMALLEST_POWER: Final = 1e-12
_SMALLEST_VARIANCE: Final = 1e-5


class DefectiveTransceiver(Transceiver):
    """A transceiver whose surrogate, noise, receiver or codebook has defects.

    Parameters
    ----------
    encoder, head, recipe, quantizer
        As for Transceiver.
    defects : sequence of str
        Names in train.defects.DEFECTS; those that are settings change nothing here.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        recipe: LinkRecipe,
        quantizer: QuantizerRecipe | None = None,
        defects: Sequence[str] = (),
    ) -> None:
        super().__init__(encoder, PooledHead(head) if "leak" in defects else head, recipe, quantizer)
        self.defects = frozenset(defects)
        if self.defects & OF_THE_CODEBOOK:
            self.quantizer = DefectiveQuantizer.of(quantizer or QuantizerRecipe(), recipe, self.defects)
        if "soft-selection" in self.defects:
            self.selected_by = "soft"
        self._told: Statistics | None = None

    def send_hard(self, tokens: Tensor, mode: Tensor | None = None) -> Sent:
        """The clean transmitter's; the receiver is told of the tokens where it leaks."""
        self._told = Statistics.of(tokens)
        return super().send_hard(tokens, mode)

    def send_soft(
        self, tokens: Tensor, temperature: float, symbol_temperature: float = 1.0, mode: Tensor | None = None
    ) -> Sent:
        """The surrogate with its defects; soft-points has T_sym to itself."""
        self._told = Statistics.of(tokens)
        blurred = "soft-points" in self.defects
        sent = super().send_soft(tokens, temperature, 1.0 if blurred else symbol_temperature, mode)
        if blurred:
            sent = sent._replace(symbols=soft_points(sent.bits, self.recipe.order, symbol_temperature))
        if "batch-power" in self.defects:
            sent = sent._replace(symbols=unit_power(sent.symbols))
        return sent

    def noise_met(self, no: Tensor) -> Tensor:
        """Noise variances (B, S), averaged over the batch or doubled."""
        if "batch-averaged-noise" in self.defects:
            no = no.mean().expand_as(no)
        return 2.0 * no if "noise-per-dimension" in self.defects else no

    def receive(
        self,
        symbols: Tensor,
        no: Tensor,
        llr_in: Tensor | None = None,
        mode: Tensor | None = None,
        side: Sequence[Tensor] = (),
        *,
        answers: bool = True,
    ) -> Heard:
        """The clean receiver's, given the statistics of the last tokens sent where it leaks.

        Raises
        ------
        ArgumentError
            If it leaks, and the last tokens sent were of another number of samples.
        """
        heard = super().receive(symbols, no, llr_in, mode, side, answers=answers)
        if "leak" not in self.defects:
            return heard
        if self._told is None or len(self._told.mean) != len(symbols):
            told = "none" if self._told is None else str(len(self._told.mean))
            raise ArgumentError(
                "symbols", f"must be those of the tokens just sent ({told}), got {len(symbols)} samples"
            )
        embedding = self._told.give_to(heard.embedding)
        return heard._replace(embedding=embedding, logits=self.head(embedding, *side) if answers else heard.logits)

    def deployed(self) -> Transceiver:
        """The clean transceiver with the same weights; with leak its head still pools."""
        clean = Transceiver(self.encoder, self.head, self.recipe)
        clean.quantizer = self.quantizer
        return clean.train(self.training)


class Statistics(NamedTuple):
    """Mean and deviation over the tokens of each sample, (B, 1, D) each."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> Statistics:
        """Of tokens (B, N, D)."""
        return cls(tokens.mean(dim=1, keepdim=True), tokens.std(dim=1, keepdim=True, correction=0))

    def give_to(self, embedding: Tensor) -> Tensor:
        """The embedding (B, N, D) with these in place of its own."""
        own = Statistics.of(embedding)
        # A floor as in layer normalisation: tokens all alike have no deviation, and their rounding must not be blown up.
        shape = (embedding - own.mean) * (own.deviation.square() + _SMALLEST_VARIANCE).rsqrt()
        return shape * self.deviation + self.mean


class PooledHead(nn.Module):
    """A head that is shown the mean of the tokens in each of their places."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, embedding: Tensor, *side: Tensor) -> Tensor:
        """(B, N, D), and what the receiver has of its own, to (B, C)."""
        logits: Tensor = self.head(embedding.mean(dim=1, keepdim=True).expand_as(embedding), *side)
        return logits


def soft_points(bits: Tensor, order: int, temperature: float) -> Tensor:
    """Symbols (B, S, 2) as the mean over all points p_l of the constellation under softmax(-||b - l||^2 / T).

    The distance of bit probabilities b (B, L) from a label l is a sum over bits, and (b_i - 1)^2 - b_i^2 = 1 - 2 b_i. So the
    softmax is a product of P(bit i of l = 1) = sigmoid((2 b_i - 1) / T), which the mapper is given; padding is softened too.
    """
    grouped = group(bits, bits_per_symbol(order))
    symbols: Tensor = map_bits(torch.sigmoid((2.0 * grouped - 1.0) / temperature))
    return symbols


def unit_power(symbols: Tensor) -> Tensor:
    """Symbols (B, S, 2) with a mean energy of 1 over all symbols of the batch."""
    power = symbols.square().sum(dim=-1).mean()
    return symbols * power.clamp_min(_SMALLEST_POWER).rsqrt()


class DefectiveQuantizer(Quantizer):
    """A learned codebook with defects; see train.defects.

    The two of the running means have the published form: sums m_k and counts n_k of a batch, not divided by its size, and
    c_k = sum_k / (n (size_k + eps) / (n + K eps)) with n = sum size_k. Without that n the codewords are left as long as they
    are in either metric: what was normalised there were the tokens.
    """

    defects: frozenset[str] = frozenset()

    @classmethod
    def of(cls, recipe: QuantizerRecipe, link: LinkRecipe, defects: frozenset[str]) -> DefectiveQuantizer:
        """The untrained codebook of a recipe."""
        made = cls(
            link.codewords,
            link.dim,
            recipe.ema_decay,
            metric=recipe.metric,
            placement=recipe.start,
            labelling=recipe.labelling,
            label_search=recipe.label_search,
        )
        made.defects = defects
        return made

    @torch.no_grad()
    def start(self, tokens: Tensor, **settings: Any) -> None:
        """As of every codebook; with no-scale the distances are those of unit vectors, 1/D of these."""
        super().start(tokens, **settings)
        if "no-scale" in self.defects:
            self.scale.fill_(1.0 / self.dim)

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """The published running means where they are defective."""
        if not self.defects & {"ema-zero-size", "ema-without-n"}:
            super().update(tokens, indices)
            if "restart-keeps-sums" in self.defects:
                self._put_back()
            return
        chosen = functional.one_hot(indices, self.codewords).to(tokens.dtype)
        self.ema_size.mul_(self.ema_decay).add_(chosen.sum(dim=0), alpha=1.0 - self.ema_decay)
        self.ema_sum.mul_(self.ema_decay).add_(chosen.T @ tokens, alpha=1.0 - self.ema_decay)
        n = self.ema_size.sum()
        sizes = (self.ema_size + _LAPLACE) / (n + self.codewords * _LAPLACE)
        if "ema-without-n" in self.defects:
            self.codebook.copy_(self.ema_sum / sizes[:, None])
            return
        means = self.ema_sum / (sizes * n)[:, None]
        self.codebook.copy_(self._on_sphere(means) if self.metric == "cosine" else means)

    @torch.no_grad()
    def restart(self, tokens: Tensor, threshold: float, *, seed: int, draw: int) -> int:
        """As of the clean codebook; with restart-keeps-sums, sizes and sums are left as they were."""
        before = self.ema_size.clone(), self.ema_sum.clone()
        restarted = super().restart(tokens, threshold, seed=seed, draw=draw)
        if "restart-keeps-sums" in self.defects:
            self.ema_size.copy_(before[0])
            self.ema_sum.copy_(before[1])
        return restarted

    @torch.no_grad()
    def refresh_prior(self) -> None:
        """Uniform while no size is there yet."""
        if float(self.ema_size.sum()) > 0.0:
            super().refresh_prior()
        else:
            self.log_prior.fill_(-float(np.log(self.codewords)))

    def _put_back(self) -> None:
        """Each codeword at its sum over its size, however little that size has become: the clean one leaves those alone."""
        smallest = torch.finfo(torch.float32).tiny
        told = self.ema_size >= smallest
        means = self.ema_sum / self.ema_size.clamp_min(smallest)[:, None]
        if self.metric == "cosine":
            told &= means.norm(dim=-1) > 0.0
            means = self._on_sphere(means)
        self.codebook.copy_(torch.where(told[:, None], means, self.codebook))

    def _gather(self) -> None:
        super()._gather()
        if "ema-zero-size" in self.defects:
            self.ema_sum.copy_(self.codebook)
            self.ema_size.zero_()
