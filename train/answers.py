"""A head's scores as the answer that a receiver gives: a class with the scores of all, or a piece at each position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn


class Answered(NamedTuple):
    """What a receiver says.

    Attributes
    ----------
    decisions : (B,) or (B, T) int64
        Classes, or pieces: the highest score, the lowest index on ties.
    score : (B, C) or (B, T) float32
        Scores of the classes; of pieces the log probability of each that is answered, nats, since all of them would be many.
    """

    decisions: Tensor
    score: Tensor


class Deciding(Protocol):
    """A head whose pieces follow from those before."""

    def decide(self, embedding: Tensor, *side: Tensor) -> Answered:
        """The pieces (B, T), and the log probability of each given those before, nats."""


def follows(head: nn.Module) -> bool:
    """Whether each piece that a head answers follows from those before it: in training it is told the right ones."""
    return bool(getattr(head, "told", False))


def answer(head: nn.Module, embedding: Tensor, side: Sequence[Tensor] = ()) -> Answered:
    """What a receiver says of what it received, (B, N, D), and of what it has of its own.

    A head whose pieces follow from one another says itself which it decides (`decide`): the likeliest text is not made of
    the likeliest pieces.
    """
    if follows(head):
        return cast(Deciding, head).decide(embedding, *side)
    return answered(head(embedding, *side))


def answered(logits: Tensor) -> Answered:
    """The answer of scores (B, C) or (B, T, C)."""
    if logits.dim() == 2:
        return Answered(logits.argmax(dim=-1), logits)
    return Answered(logits.argmax(dim=-1), logits.log_softmax(dim=-1).max(dim=-1).values)


def score_of(logits: Tensor, decisions: Tensor) -> Tensor:
    """Log probability of given decisions by scores (..., C), nats, as (...)."""
    return logits.log_softmax(dim=-1).gather(-1, decisions[..., None])[..., 0]
