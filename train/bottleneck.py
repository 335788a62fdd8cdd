"""The variational bottleneck: a token's mean and log variance, what is drawn in training, and the terms that hold it narrow.

    KL        -1/2 (1 + ln v - m^2 - v) a dimension, of N(m, v) from N(0, 1) (Kingma, Welling 2014, arXiv:1312.6114, app. B);
              as a bound on what passes it is that of Alemi et al. 2017 (arXiv:1612.00410)
    free      max(KL - free bits, 0) of each token (after Kingma et al. 2016, arXiv:1606.04934, app. C.8)

A KL that is averaged over D dimensions is 1/D of the token's, and so must be the free bits that are taken from it: 0.1 of a
mean over 256 dimensions frees 25.6 nats a token. Whatever the reduction, figures are recorded in nats a token too.

The KL is that of N(m, v), as published, while a temperature T draws from N(m, T^2 v): below 1 tokens carry more than that.
What is drawn meets quantiser and link as the mean would. Penalties look at the tokens as drawn, before any latent is lost.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.randomness import Draws, Stream
from train.variational import BottleneckRecipe

_NORMALS: Final = 1
_LOST: Final = 2
VALIDATION: Final = 3
"""Points of the stream of training noise; 0 is the channel's."""
_LOG_VARIANCE: Final = (-10.0, 4.0)
"""What an exponent cannot run away from."""


class Posterior(NamedTuple):
    """What a sample's tokens are drawn from.

    Attributes
    ----------
    mean, log_variance : (B, N, D) float32
    """

    mean: Tensor
    log_variance: Tensor

    def draw(self, normals: Tensor, temperature: float) -> Tensor:
        """Tokens (B, N, D): mean + temperature * deviation * normals."""
        return self.mean + temperature * (0.5 * self.log_variance).exp() * normals

    def kl(self) -> Tensor:
        """KL divergence from the prior, (B, N, D) nats a dimension."""
        found: Tensor = 0.5 * (self.mean.square() + self.log_variance.exp() - 1.0 - self.log_variance)
        return found


class Bottleneck(nn.Module):
    """Features (B, N, D), normalised, to the posterior of each token.

    Tokens are normalised behind it, so nothing but the KL holds the means down. Features of one length keep them from
    running away while its weight is still 0.

    Parameters
    ----------
    dim : int
        D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, dim)
        self.log_variance = nn.Linear(dim, dim)

    def forward(self, features: Tensor) -> Posterior:
        """The posterior; the log variance within limits that no healthy run reaches."""
        features = nn.functional.layer_norm(features, features.shape[-1:])
        return Posterior(self.mean(features), self.log_variance(features).clamp(*_LOG_VARIANCE))


class LatentNoise(NamedTuple):
    """What the tokens of some rows meet in the bottleneck.

    Attributes
    ----------
    normals : (B, N, D) float32
    lost : (B,) bool
        Rows whose whole latent is lost (image dropout).
    """

    normals: Tensor
    lost: Tensor

    @classmethod
    def of(cls, draws: Draws, recipe: BottleneckRecipe, tokens: int, dim: int) -> LatentNoise:
        """Of all rows of an epoch, by their addresses."""
        lost = draws.uniforms(Stream.TRAINING_NOISE, _LOST, 1)[:, 0] < recipe.image_dropout
        return cls(torch.from_numpy(latent_normals(draws, _NORMALS, tokens, dim)), torch.from_numpy(lost))

    def rows(self, chosen: NDArray[np.int64], device: torch.device) -> LatentNoise:
        """Of some rows."""
        return LatentNoise(self.normals[chosen].to(device), self.lost[chosen].to(device))


class Latent(NamedTuple):
    """What a batch is in the bottleneck.

    Attributes
    ----------
    posterior : Posterior
    drawn : (B, N, D) float32
        Tokens before they are normalised for the quantiser, and before any is lost.
    lost : (B,) bool
    """

    posterior: Posterior
    drawn: Tensor
    lost: Tensor


def reduced(kl: Tensor, reduction: str) -> Tensor:
    """KL (B, N) of each token from that of its dimensions (B, N, D)."""
    return kl.mean(dim=-1) if reduction == "mean" else kl.sum(dim=-1)


def free_bits(kl: Tensor, free: float) -> tuple[Tensor, Tensor]:
    """Mean KL of tokens (B, N), and of what is above the free bits of each.

    Examples
    --------
    >>> [value.item() for value in free_bits(torch.tensor([[0.0, 0.5], [1.0, 2.5]]), 0.5)]
    [1.0, 0.625]
    """
    return kl.mean(), (kl - free).clamp_min(0.0).mean()


def orthogonality(tokens: Tensor) -> Tensor:
    """Mean squared cosine between different tokens (B, N, D) of a sample; 0 where all stand at right angles, or N is 1."""
    count = tokens.shape[1]
    unit = nn.functional.normalize(tokens, dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    off = 1.0 - torch.eye(count, device=tokens.device)
    return (cosines.square() * off).sum() / max(len(tokens) * count * (count - 1), 1)


def lack_of_diversity(tokens: Tensor) -> Tensor:
    """Mean over positions and dimensions of what a deviation over the batch lacks of 1, the prior's; 0 from there on.

    Tokens (B, N, D) that are alike in all samples say nothing (the variance term of Bardes et al. 2022, arXiv:2105.04906).
    """
    deviation = (tokens.var(dim=0, correction=0) + 1e-4).sqrt()
    return (1.0 - deviation).clamp_min(0.0).mean()


def rule_divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """KL(taught || answers) of probabilities and logits (B, C), nats, mean over samples."""
    own = (taught * taught.clamp_min(torch.finfo(taught.dtype).tiny).log()).sum(dim=-1)
    return (own - (taught * logits.log_softmax(dim=-1)).sum(dim=-1)).mean()


def latent_normals(draws: Draws, point: int, tokens: int, dim: int) -> NDArray[np.float32]:
    """Standard normals (rows, N, D)."""
    found = draws.normals(Stream.TRAINING_NOISE, point, -(-tokens * dim // 2))
    return np.asarray(found.reshape(len(found), -1)[:, : tokens * dim].reshape(-1, tokens, dim), dtype=np.float32)
