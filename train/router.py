"""The router: which mode a sample is sent in, from what its transmitter knows.

    Es/N0 as estimated ─────────────────────┐
    tokens ─> features (where it has them) ─┴─> hidden layer ─> logits (B, R) ─┬─ training: Gumbel softmax
                                                                              └─ deployed: argmax, the lowest on ties

By Es/N0 alone all samples that meet one SNR take one mode, and a header of one block serves the whole frame. With features
of the sample a frame's modes differ, and its header names each of them: link.header has what that costs.

In training the mode is drawn as argmax(logits + g), g standard Gumbel noise, which is a draw of softmax(logits) (Maddison et
al. 2017, arXiv:1611.00712); the gradient is that of softmax((logits + g) / tau) (Jang et al. 2017, arXiv:1611.01144, section
2.2, straight through).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from link.codebook import scores, softmax
from train.codebook import Codebook
from train.losses import entropy
from train.modes import RouterRecipe

FEATURES: Final = 5
_GAIN: Final = 4.0
"""Of the logits over the last layer: a router has fewer steps to learn in than the codec, at the codec's learning rate."""
_SMALLEST: Final = 1e-6


class Choice(NamedTuple):
    """Modes drawn for a batch.

    Attributes
    ----------
    mode : (B,) int64
    gate : (B, R) float32
        One-hot of `mode`, with the gradient of the Gumbel softmax.
    probabilities : (B, R) float32
        softmax(logits).
    """

    mode: Tensor
    gate: Tensor
    probabilities: Tensor


class Router(nn.Module):
    """Logits of the modes.

    Parameters
    ----------
    recipe : RouterRecipe
    modes : int
        R.
    snr_db : (float, float)
        Least and greatest Es/N0 of training, dB: an estimate outside counts as the nearer end.
    """

    def __init__(self, recipe: RouterRecipe, modes: int, snr_db: tuple[float, float]) -> None:
        super().__init__()
        self.sees_sample = recipe.inputs == "snr+sample"
        self.snr_db = snr_db
        self.hidden = nn.Linear(1 + FEATURES * self.sees_sample, recipe.hidden)
        self.out = nn.Linear(recipe.hidden, modes)

    @torch.no_grad()
    def start(self) -> None:
        """Begin with all modes equally likely, at every SNR."""
        self.out.weight.zero_()
        self.out.bias.zero_()

    def forward(self, snr_db: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits (B, R) for estimates (B,) in dB, and features (B, FEATURES) where the router sees them."""
        low, high = self.snr_db
        middle, half = 0.5 * (low + high), max(0.5 * (high - low), _SMALLEST)
        seen = ((snr_db.clamp(low, high) - middle) / half)[:, None]
        if self.sees_sample:
            assert features is not None
            seen = torch.cat([seen, features], dim=-1)
        logits: Tensor = _GAIN * self.out(functional.gelu(self.hidden(2.0 * seen)))
        return logits


def sample_features(tokens: Tensor, codebook: Codebook, temperature: float = 1.0) -> Tensor:
    """What tokens (B, N, D) tell of their sample, (B, FEATURES), each of the order of 1.

    Log norm of their mean, entropy of their assignment as a share of ln K, variance over positions, L1 over L2, and distance
    to their codewords. They carry no gradient: a codec is not to be bent for its router's sake.
    """
    tokens = tokens.detach()
    flat = tokens.flatten(1)
    mean = tokens.mean(dim=1)
    # Not Codebook.soft, whose scale is a number and cannot be traced.
    assigned = softmax(scores(tokens, codebook.codebook) * (codebook.scale.to(tokens.dtype) / temperature))
    error = (tokens - assigned @ codebook.codebook).square().mean(dim=(1, 2))
    norm = mean.square().sum(dim=-1).clamp_min(_SMALLEST)
    return torch.stack(
        [
            0.5 * norm.log(),
            entropy(assigned).mean(dim=-1) / math.log(codebook.codewords),
            (tokens - mean[:, None]).square().mean(dim=(1, 2)),
            flat.abs().mean(dim=-1) / flat.square().mean(dim=-1).clamp_min(_SMALLEST).sqrt(),
            error,
        ],
        dim=-1,
    )


def choose(logits: Tensor, gumbel: Tensor, temperature: float) -> Choice:
    """Draw modes by the Gumbel softmax, straight through.

    Parameters
    ----------
    logits : (B, R) float32
    gumbel : (B, R) float32
        Standard Gumbel noise.
    temperature : float
    """
    noisy = logits + gumbel
    mode = noisy.argmax(dim=-1)
    soft = torch.softmax(noisy / temperature, dim=-1)
    hard = functional.one_hot(mode, logits.shape[-1]).to(soft.dtype)
    return Choice(mode, hard.detach() + (soft - soft.detach()), torch.softmax(logits, dim=-1))
