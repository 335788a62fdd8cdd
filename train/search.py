"""The likeliest text, piece after piece: a beam search over the steps of a decoder.

    pieces so far ─> step of a decoder ─> state ─> scores ─> the best hypotheses ─┐
         └────────────────────────────────────────────────────────────────────────┘

The probabilities of a sentence's pieces, each given those before it, multiply to its own (Sutskever et al. 2014,
arXiv:1409.3215), so the likeliest sentence is searched for with a beam; a beam of 1 is greedy. In training the right pieces
are given, all positions at once. Deployed it is a loop over one step, which keeps keys and values of the positions behind:
python's, or in a graph that is exported the runtime's own (ONNX Loop). What a step is, its decoder says: one that is trained
from nothing in `train.autoregressive`, one by its name in `train.seq2seq`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from train.answers import Answered
from train.pieces import END_ID

_NEVER = -1e9
"""Log probability of what must not be searched: less than any sentence's, and a number still when more is added."""


class Begun(NamedTuple):
    """What a decoder has before its first step.

    Attributes
    ----------
    context : tuple of Tensor
        What all of its steps look at.
    memory : (layers, 2, B, W, heads, S, H / heads) float32
        Keys and values that its steps add to.
    """

    context: tuple[Tensor, ...]
    memory: Tensor


class _Search(NamedTuple):
    """How far the search is.

    Attributes
    ----------
    place : () int64
        The position that is decided next.
    pieces : (B, W, T) int64
        Of each hypothesis, the best first; the end from there on.
    score : (B, W, T) float32
        Log probability of each piece, nats.
    total : (B, W) float32
        Of each hypothesis.
    states : (B, W, T, H) float32
        What each piece was decided by.
    memory : (layers, 2, B, W, heads, S, H / heads) float32
        Keys and values.
    """

    place: Tensor
    pieces: Tensor
    score: Tensor
    total: Tensor
    states: Tensor
    memory: Tensor


class StepDecoder(nn.Module):
    """States of what was received (B, T, H) to scores of the pieces (B, T, V), each given those before it.

    Parameters
    ----------
    beam : int
        W, hypotheses that are kept, at most V.
    """

    def __init__(self, beam: int) -> None:
        super().__init__()
        self.beam = beam

    @abstractmethod
    def scores(self, states: Tensor) -> Tensor:
        """Scores (..., V) of states (..., H)."""

    @abstractmethod
    def taught(self, received: Tensor, present: Tensor, told: Tensor) -> Tensor:
        """States (B, T, H) of all positions, those before each told, (B, T); a piece below 0 says nothing."""

    @abstractmethod
    def begin(self, received: Tensor, present: Tensor) -> Begun:
        """What its steps need of received states (B, T, H), where they are `present`, (B, T)."""

    @abstractmethod
    def step(self, context: tuple[Tensor, ...], before: Tensor, place: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """State (B, W, H) of each hypothesis at a place, () int64, and the memory with it in.

        `before`, (B, W), is the piece before: the end, where there is none yet.
        """

    def forward(self, received: Tensor, present: Tensor, told: Tensor | None = None) -> Tensor:
        """Scores of the pieces at each position given those before: `told` (B, T), or where absent those that it decides.

        Where it decides, the piece decided is the highest, also where the beam passed over a higher one: they change places.
        Behind an end, and where a position is not `present`, (B, T), it decides nothing but the end.
        """
        if told is not None:
            return self.scores(self.taught(received, present, told))
        found = self._search(received, present)
        return foremost(self.scores(found.states[:, 0]), found.pieces[:, 0])

    def decide(self, received: Tensor, present: Tensor) -> Answered:
        """The pieces that it decides, and the log probability of each given those before."""
        found = self._search(received, present)
        return Answered(found.pieces[:, 0], found.score[:, 0])

    def _search(self, received: Tensor, present: Tensor) -> _Search:
        rows, length, width = received.shape
        first = torch.arange(self.beam, device=received.device) == 0
        begun = self.begin(received, present)
        start = _Search(
            torch.zeros((), dtype=torch.int64, device=received.device),
            torch.full((rows, self.beam, length), END_ID, device=received.device),
            received.new_zeros(rows, self.beam, length),
            torch.where(first, 0.0, _NEVER).to(received.dtype).expand(rows, -1).clone(),
            received.new_zeros(rows, self.beam, length, width),
            begun.memory,
        )
        last = (present.any(dim=0) * torch.arange(1, length + 1, device=received.device)).amax(dim=0)

        def going(place: Tensor, pieces: Tensor, *_: Tensor) -> Tensor:
            return place < last

        def step(*search: Tensor) -> tuple[Tensor, ...]:
            return self._step(begun.context, present, _Search(*search))

        if torch.compiler.is_compiling():
            return _Search(*while_loop(going, step, tuple(start)))  # type: ignore[no-untyped-call]
        search: tuple[Tensor, ...] = start
        while going(*search):
            search = step(*search)
        return _Search(*search)

    def _step(self, context: tuple[Tensor, ...], present: Tensor, search: _Search) -> _Search:
        """Every hypothesis one piece longer, and the best of them kept."""
        places = torch.arange(present.shape[1], device=present.device)
        here = places == search.place
        before = torch.where(places == search.place - 1, search.pieces, 0).sum(dim=-1)
        first = search.place == 0
        over = ~(present & here).any(dim=-1, keepdim=True)
        ended = over | (before == END_ID) & ~first
        state, memory = self.step(context, torch.where(first, END_ID, before), search.place, search.memory)
        states = torch.where(here[:, None], state[..., None, :], search.states)
        log_p = self.scores(state).log_softmax(dim=-1)
        only_end = torch.where(torch.arange(log_p.shape[-1], device=log_p.device) == END_ID, 0.0, _NEVER).to(
            log_p.dtype
        )
        best, piece = torch.where(ended[..., None], only_end, log_p).topk(self.beam, dim=-1)
        total, chosen = (search.total[..., None] + best).flatten(1).topk(self.beam, dim=-1)
        kept = chosen // self.beam
        pieces, score = (
            torch.where(here, new.flatten(1).gather(1, chosen)[..., None], _taken(old, kept))
            for new, old in ((piece, search.pieces), (best, search.score))
        )
        return _Search(search.place + 1, pieces, score, total, _taken(states, kept), _taken(memory, kept, dim=2))


def _taken(tensor: Tensor, kept: Tensor, dim: int = 0) -> Tensor:
    """Of hypotheses (..., B, W, ...), B at `dim`, those that are `kept`, (B, W)."""
    if tensor.shape[dim + 1] == 1:
        return tensor
    index = kept.reshape(*[1] * dim, *kept.shape, *[1] * (tensor.dim() - dim - 2))
    return tensor.gather(dim + 1, index.expand_as(tensor))


def foremost(scores: Tensor, pieces: Tensor) -> Tensor:
    """Scores (..., V) where each of `pieces`, (...), has changed places with the highest.

    Examples
    --------
    >>> foremost(torch.tensor([[0.5, 0.125, 0.375], [0.5, 0.125, 0.375]]), torch.tensor([2, 0])).tolist()
    [[0.375, 0.125, 0.5], [0.5, 0.125, 0.375]]
    """
    own = scores.gather(-1, pieces[..., None])
    highest, place = scores.max(dim=-1, keepdim=True)
    return scores.scatter(-1, place, own).scatter(-1, pieces[..., None], highest)
