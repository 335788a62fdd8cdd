"""The objective of a step over the link: one pass through both paths, its named terms, and their weighted sum.

    tokens ─┬─ soft ─> x_soft ─> + noise ─> receive ─> soft_heard ─┐
            └─ hard ─> x_hard ─> + noise ─> receive ─> hard_heard ─┴─> the answer is of the path that the phase sends

Both paths meet the same noise. While alignment hardens, the answer is a third one, of symbols between the two. The loss is
the sum of sign * weight * value over `TERMS`, the task's own with weight 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from link.bits import group
from link.channel.awgn import add_noise
from link.constellation import bits_per_symbol, symbol_energy
from train import losses
from train.recipe import LossRecipe
from train.schedule import EpochPlan
from train.transceiver import Heard, Sent, Transceiver, straight_through


class Pass(NamedTuple):
    """One batch, sent and heard.

    Attributes
    ----------
    tokens : (B, N, D) float32
    labels : (B,) int64
    soft, hard : Sent
    bits : (B, L) float32
        The hard path's, with the gradient of the soft one's.
    soft_heard, hard_heard : Heard
        Both through the same noise.
    answer : Heard
        Of what the phase sends: soft symbols, hard ones, or (1 - a) soft + a hard.
    """

    tokens: Tensor
    labels: Tensor
    soft: Sent
    hard: Sent
    bits: Tensor
    soft_heard: Heard
    hard_heard: Heard
    answer: Heard

    @property
    def correct(self) -> int:
        """Rows that were answered with their label."""
        return int((self.answer.logits.argmax(dim=-1) == self.labels).sum())


def send(
    model: Transceiver,
    tokens: Tensor,
    labels: Tensor,
    no: Tensor,
    normals: Tensor,
    settings: EpochPlan,
    *,
    teach_hard: bool = False,
) -> Pass:
    """Send tokens (B, N, D) soft and hard through the same noise.

    Parameters
    ----------
    no : (B, S) float32
        Noise variance per complex symbol, linear.
    normals : (B, S, 2) float32
        Standard normals, scaled by `no`.
    teach_hard : bool
        Whether the hard path carries a gradient even where it is not the answer.
    """
    soft, hard = model.send_soft(tokens, settings.vq_temp, settings.symbol_temp), model.send_hard(tokens)
    no = model.noise_met(no)
    # Hard forward, soft backward: the constellation point is sent, the gradient is the mean symbol's.
    symbols = straight_through(hard.symbols, soft.symbols)
    bits = straight_through(hard.bits, soft.bits)
    hardness = settings.hardness if settings.hard_forward else 0.0
    soft_heard = model.receive(add_noise(soft.symbols, no, normals), no)
    with torch.set_grad_enabled(hardness == 1.0 or teach_hard):
        hard_heard = model.receive(add_noise(symbols, no, normals), no)
    if hardness in (0.0, 1.0):
        answer = hard_heard if hardness else soft_heard
    else:
        mixed = (1.0 - hardness) * soft.symbols + hardness * symbols
        answer = model.receive(add_noise(mixed, no, normals), no)
    return Pass(tokens, labels, soft, hard, bits, soft_heard, hard_heard, answer)


class Term(NamedTuple):
    """One term of the loss.

    Attributes
    ----------
    name : str
        As recorded.
    weight : str
        Key in the recipe's [loss]; empty for the task's own term, whose weight is 1.
    value : callable
        The unweighted term of a pass.
    sign : float
        1 where the term is lowered, -1 where it is raised.
    alignment_only : bool
        Whether it is 0 but in alignment.
    optional : bool
        Whether it is left out, of the records too, where its weight is 0.
    """

    name: str
    weight: str
    value: Callable[[Transceiver, Pass], Tensor]
    sign: float = 1.0
    alignment_only: bool = False
    optional: bool = False

    def factor(self, weights: LossRecipe) -> float:
        """What the value is multiplied by in the loss."""
        return self.sign * (getattr(weights, self.weight) if self.weight else 1.0)


TERMS: Final = (
    Term("task", "", lambda model, sent: losses.task_loss(sent.answer.logits, sent.labels)),
    Term(
        "commitment",
        "lambda_vq",
        lambda model, sent: losses.commitment_loss(sent.tokens, model.quantizer.codewords_of(sent.hard.indices)),
    ),
    Term("assignment", "lambda_assignment", lambda model, sent: losses.assignment_entropy(sent.soft.probabilities)),
    Term("usage", "lambda_entropy", lambda model, sent: losses.usage_entropy(sent.soft.probabilities), sign=-1.0),
    Term(
        "consistency",
        "lambda_consistency",
        lambda model, sent: losses.consistency_loss(sent.soft_heard.embedding, sent.hard_heard.embedding),
        alignment_only=True,
    ),
    Term(
        "energy",
        "lambda_energy",
        lambda model, sent: losses.excess_energy(symbol_energy(group(sent.bits, bits_per_symbol(model.recipe.order)))),
    ),
    Term(
        "consistency_vq",
        "lambda_consistency_vq",
        lambda model, sent: losses.consistency_loss(
            sent.soft.probabilities @ model.quantizer.codebook, model.quantizer.codewords_of(sent.hard.indices)
        ),
        alignment_only=True,
        optional=True,
    ),
    Term(
        "consistency_symbols",
        "lambda_consistency_symbols",
        lambda model, sent: losses.consistency_loss(sent.soft.symbols, sent.hard.symbols),
        alignment_only=True,
        optional=True,
    ),
    Term(
        "vec",
        "lambda_vec",
        lambda model, sent: losses.reconstruction_loss(sent.answer.embedding, sent.tokens),
        optional=True,
    ),
    Term(
        "kl",
        "lambda_kl",
        lambda model, sent: losses.answer_divergence(sent.soft_heard.logits, sent.hard_heard.logits),
        optional=True,
    ),
)


@dataclass(frozen=True)
class Terms:
    """The unweighted terms of one step by name."""

    values: Mapping[str, Tensor]

    def total(self, weights: LossRecipe) -> Tensor:
        """The loss: the weighted sum of the terms."""
        parts = [term.factor(weights) * self.values[term.name] for term in TERMS if term.name in self.values]
        return sum(parts[1:], parts[0])


def terms_of(model: Transceiver, sent: Pass, settings: EpochPlan, weights: LossRecipe) -> Terms:
    """The terms of a pass that have a weight, and those that are watched without one."""
    return Terms(
        {
            term.name: torch.zeros(()) if term.alignment_only and not settings.hard_forward else term.value(model, sent)
            for term in TERMS
            if term.factor(weights) or not term.optional
        }
    )
