"""Small modules that look at an image, read a question, and answer: trained from nothing.

Pretrained ones may stand in the place of those that look and read (train.visual_backbones).

    image ─> convolutions ─> mean and maximum over the picture ─> v ─┐
                                                                     ├─> scaled and shifted by the question ─> N tokens
    question ─> words with their neighbours ─> mean and maximum ─> q ┘

The image comes first: what is seen is worked out before the question chooses among it, by a scale and a shift of each
feature (FiLM, Perez et al. 2018, arXiv:1709.07871). The answer head asks in the same way what arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from train.visual_backbones import PretrainedVision

SIDE_STEP: Final = 8
"""An image's side is a multiple of this."""
_PATCHES: Final = 24
_SHAPES: Final = 48
WORDS: Final = 64
"""Features of a question."""
_WIDTH: Final = 128

Reader = Callable[[], nn.Module]
"""Makes what reads a question: a module from tokens (B, T) and their mask to (B, WORDS)."""


class VisionEncoder(nn.Module):
    """(B, S, S, 3) uint8 pixels to (B, 96): patches of 8 x 8 that overlap by half, what neighbours make, where it is most.

    Patches at once cost half of what a stack of small strided convolutions does, and tell small shapes apart better.

    Attributes
    ----------
    features : int
        Of an image: 96.
    """

    features = 2 * _SHAPES

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, _PATCHES, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(_PATCHES, _SHAPES, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """What is seen of each image."""
        first: Tensor = self.layers[0].weight  # type: ignore[assignment]
        pixels = image.permute(0, 3, 1, 2).to(first.dtype) * (2.0 / 255.0) - 1.0
        seen = self.layers(pixels).flatten(2)
        return torch.cat([seen.mean(dim=-1), seen.amax(dim=-1)], dim=-1)


class QuestionEncoder(nn.Module):
    """Tokens of a question (B, T) and their mask to (B, 64).

    Parameters
    ----------
    vocabulary : int
        Numbers that a token may have.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WORDS)
        self.neighbours = nn.Conv1d(WORDS, WORDS, 3, padding=1)
        self.out = nn.Linear(2 * WORDS, WORDS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What each question says; padding says nothing, and is no neighbour."""
        words = self.words(input_ids)
        there = attention_mask[:, None].to(words.dtype)
        read = torch.relu(self.neighbours(words.transpose(1, 2) * there)) * there
        mean = read.sum(dim=-1) / there.sum(dim=-1).clamp_min(1.0)
        found: Tensor = self.out(torch.cat([mean, read.amax(dim=-1)], dim=-1))
        return found


class Asked(nn.Module):
    """(B, features) to (B, out), scaled and shifted between two layers by a question where there is one.

    Parameters
    ----------
    features, out : int
    reader : Reader or None
        None where no question is asked.
    """

    def __init__(self, features: int, out: int, reader: Reader | None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(features, _WIDTH), nn.GELU())
        self.question = None if reader is None else reader()
        self.film = None if reader is None else nn.Linear(WORDS, 2 * _WIDTH)
        self.last = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, out))

    def forward(self, features: Tensor, *question: Tensor) -> Tensor:
        """`question` is its tokens and their mask, or nothing."""
        seen = self.first(features)
        if self.question is not None and self.film is not None:
            scale, shift = self.film(self.question(*question)).chunk(2, dim=-1)
            seen = seen * (1.0 + scale) + shift
        found: Tensor = self.last(seen)
        return found


class ReasoningEncoder(nn.Module):
    """An image, and a question where the transmitter knows it, to reasoning tokens (B, N, D).

    Parameters
    ----------
    tokens, dim : int
    vision : VisionEncoder or PretrainedVision
    reader : Reader or None
        None where the transmitter knows no question.
    """

    def __init__(self, tokens: int, dim: int, vision: VisionEncoder | PretrainedVision, reader: Reader | None) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        self.vision = vision
        self.reason = Asked(vision.features, tokens * dim, reader)

    def forward(self, image: Tensor, *question: Tensor) -> Tensor:
        """Tokens of each image."""
        found: Tensor = self.reason(self.vision(image), *question)
        return found.reshape(-1, *self.shape)


class AnswerHead(nn.Module):
    """What the link delivers (B, N, D), and a question where the receiver knows it, to answers (B, C).

    Parameters
    ----------
    tokens, dim, answers : int
    reader : Reader or None
        None where the receiver knows no question.
    """

    def __init__(self, tokens: int, dim: int, answers: int, reader: Reader | None) -> None:
        super().__init__()
        self.reason = Asked(tokens * dim, answers, reader)

    def forward(self, embedding: Tensor, *question: Tensor) -> Tensor:
        """Scores of the answers."""
        found: Tensor = self.reason(embedding.flatten(1), *question)
        return found
