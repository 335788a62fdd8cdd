"""Small modules that look at an image, read a question, and answer: trained from nothing.

    image ─> convolutions ─> mean and maximum over the picture ─> v ─┐
                                                                     ├─> scaled and shifted by the question ─> N tokens
    question ─> words with their neighbours ─> mean and maximum ─> q ┘

The image comes first: what is seen is worked out before the question chooses among it, by a scale and a shift of each
feature (FiLM, Perez et al. 2018, arXiv:1709.07871). The answer head asks in the same way what arrived.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

SIDE_STEP: Final = 8
"""An image's side is a multiple of this."""
_PATCHES: Final = 24
_SHAPES: Final = 48
_SEEN: Final = 2 * _SHAPES
_WORDS: Final = 64
_WIDTH: Final = 128


class VisionEncoder(nn.Module):
    """(B, S, S, 3) uint8 pixels to (B, 96): patches of 8 x 8 that overlap by half, what neighbours make, where it is most.

    Patches at once cost half of what a stack of small strided convolutions does, and tell small shapes apart better.
    """

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
        self.words = nn.Embedding(vocabulary, _WORDS)
        self.neighbours = nn.Conv1d(_WORDS, _WORDS, 3, padding=1)
        self.out = nn.Linear(2 * _WORDS, _WORDS)

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
    vocabulary : int or None
        None where no question is asked.
    """

    def __init__(self, features: int, out: int, vocabulary: int | None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(features, _WIDTH), nn.GELU())
        self.question = None if vocabulary is None else QuestionEncoder(vocabulary)
        self.film = None if vocabulary is None else nn.Linear(_WORDS, 2 * _WIDTH)
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
    vocabulary : int or None
        None where the transmitter knows no question.
    """

    def __init__(self, tokens: int, dim: int, vocabulary: int | None) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        self.vision = VisionEncoder()
        self.reason = Asked(_SEEN, tokens * dim, vocabulary)

    def forward(self, image: Tensor, *question: Tensor) -> Tensor:
        """Tokens of each image."""
        found: Tensor = self.reason(self.vision(image), *question)
        return found.reshape(-1, *self.shape)


class AnswerHead(nn.Module):
    """What the link delivers (B, N, D), and a question where the receiver knows it, to answers (B, C).

    Parameters
    ----------
    tokens, dim, answers : int
    vocabulary : int or None
        None where the receiver knows no question.
    """

    def __init__(self, tokens: int, dim: int, answers: int, vocabulary: int | None) -> None:
        super().__init__()
        self.reason = Asked(tokens * dim, answers, vocabulary)

    def forward(self, embedding: Tensor, *question: Tensor) -> Tensor:
        """Scores of the answers."""
        found: Tensor = self.reason(embedding.flatten(1), *question)
        return found
