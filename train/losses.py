"""One function a term of the loss. All are means, so that a weight means the same at any batch size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from link.truth import UNJUDGED


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the answers (..., C) to the labels (...), nats; the mean over those that are judged."""
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=UNJUDGED)


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the answers of each row, (B, ..., C) and (B, ...) to (B,), nats; the mean over those judged."""
    each = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=UNJUDGED, reduction="none")
    judged = (labels != UNJUDGED).flatten(1).sum(dim=1) if labels.dim() > 1 else torch.ones_like(labels)
    return each.reshape(len(labels), -1).sum(dim=-1) / judged.clamp_min(1)


def commitment_loss(tokens: Tensor, codewords: Tensor) -> Tensor:
    """||z - stopgrad(c)||^2 a dimension: pulls the encoder to the codeword chosen (van den Oord et al. 2017, eq. 3)."""
    return (tokens - codewords.detach()).square().mean()


def assignment_entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of each token's soft assignment (..., K), nats: how far soft is from hard."""
    return entropy(probabilities).mean()


def usage_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the mean assignment over the batch, (B, N, K), nats, averaged over the token positions.

    Position by position: positions that each send one codeword, all different, would use the whole codebook and say nothing.
    """
    return entropy(probabilities.mean(dim=0)).mean()


def consistency_loss(soft_embedding: Tensor, hard_embedding: Tensor) -> Tensor:
    """||H_soft - stopgrad(H_hard)||^2 a dimension: pulls the surrogate to the digital path."""
    return (soft_embedding - hard_embedding.detach()).square().mean()


def reconstruction_loss(embedding: Tensor, tokens: Tensor) -> Tensor:
    """||z_hat - stopgrad(z)||^2 a dimension: what is received against what was meant.

    The tokens stay where they are: pulled to what is received, they would gather at its mean, all alike.
    """
    return (embedding - tokens.detach()).square().mean()


def answer_divergence(soft_logits: Tensor, hard_logits: Tensor) -> Tensor:
    """KL(stopgrad(P_soft) || P_hard) of the answers (B, C), nats: the soft path teaches, the hard one learns.

    The published call, `kl_div(hard.log_softmax(), soft.softmax(), "batchmean")`, has this direction: its second argument is
    the reference. It let the gradient into the teacher too, where the cheapest way to agree is to answer alike and worse;
    consistency is what moves the soft path, and this term leaves it.
    """
    teacher = soft_logits.detach().log_softmax(dim=-1)
    return (teacher.exp() * (teacher - hard_logits.log_softmax(dim=-1))).sum(dim=-1).mean()


def expected_symbols(mode_probabilities: Tensor, symbols: Tensor) -> Tensor:
    """Mean symbols of a sample whose mode is drawn with probabilities (B, R), the modes sending (R,) symbols each."""
    return (mode_probabilities @ symbols.to(mode_probabilities.device, mode_probabilities.dtype)).mean()


def load_balance(mode_probabilities: Tensor) -> Tensor:
    """R sum_r f_r P_r of mode probabilities (B, R): f_r the share of samples likeliest in mode r, P_r its mean probability.

    1 where all modes carry the same load, R where one carries all; the gradient is P's (Fedus et al. 2021, arXiv:2101.03961,
    eq. 4).
    """
    modes = mode_probabilities.shape[-1]
    chosen = functional.one_hot(mode_probabilities.argmax(dim=-1), modes).to(mode_probabilities.dtype)
    return modes * (chosen.mean(dim=0) * mode_probabilities.mean(dim=0)).sum()


def excess_energy(energies: Tensor) -> Tensor:
    """How far the mean energy of the symbols (...) is above 1, the mean of the constellation.

    A codec that prefers the outer points would buy accuracy with power that Es/N0 does not count.
    """
    return (energies.mean() - 1.0).clamp_min(0.0)


def entropy(probabilities: Tensor) -> Tensor:
    """-sum p ln p over the last axis, nats; 0 ln 0 = 0, and its slope is finite: a softmax underflows to 0 in float32."""
    logarithms = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
    summed: Tensor = (-probabilities * logarithms).sum(dim=-1)
    return summed
