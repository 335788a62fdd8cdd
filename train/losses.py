"""One function a term of the loss. All are means, so that a weight means the same at any batch size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the answers, nats."""
    return functional.cross_entropy(logits, labels)


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
