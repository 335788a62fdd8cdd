"""Pieces decided one after another, each given those before it.

    received ─> states of all positions ──────┐
    pieces so far, moved one position on ─> + ┴─> blocks that look back ─> scores ─> the best hypotheses ─┐
           └──────────────────────────────────────────────────────────────────────────────────────────────┘

Of what was received a transformer says which piece may stand at each position, whatever stands beside it. Here each position
is also given the pieces before it, so the probabilities of a sentence's pieces multiply to its own (Sutskever et al. 2014,
arXiv:1409.3215), and the likeliest sentence is searched for with a beam; a beam of 1 is greedy. In training the right pieces
are given, all positions at once. Deployed it is a loop over one step, which keeps keys and values of the positions behind:
python's, or in a graph that is exported the runtime's own (ONNX Loop).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from train.answers import Answered
from train.pieces import END_ID
from train.transformer import ABSENT, Block

_NEVER = -1e9
"""Log probability of what must not be searched: less than any sentence's, and a number still when more is added."""


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
    memory : (layers, 2, B, W, heads, T, H / heads) float32
        Keys and values.
    """

    place: Tensor
    pieces: Tensor
    score: Tensor
    total: Tensor
    states: Tensor
    memory: Tensor


class AutoregressiveDecoder(nn.Module):
    """States of what was received (B, T, H) to scores of the pieces (B, T, V).

    Parameters
    ----------
    pieces : int
        V.
    width, heads, layers : int
        H, attention heads of a block, blocks.
    beam : int
        W, hypotheses that are kept, at most V.
    """

    def __init__(self, pieces: int, width: int, heads: int, layers: int, beam: int = 1) -> None:
        super().__init__()
        self.beam = beam
        self.embedding = nn.Embedding(pieces, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, pieces)

    def forward(self, received: Tensor, present: Tensor, told: Tensor | None = None) -> Tensor:
        """Scores of the pieces at each position given those before: `told` (B, T), or where absent those that it decides.

        Where it decides, the piece decided is the highest, also where the beam passed over a higher one: they change places.
        Behind an end, and where a position is not `present`, (B, T), it decides nothing but the end.
        """
        if told is not None:
            return self._scores(self._taught(received, told))
        found = self._search(received, present)
        return foremost(self._scores(found.states[:, 0]), found.pieces[:, 0])

    def decide(self, received: Tensor, present: Tensor) -> Answered:
        """The pieces that it decides, and the log probability of each given those before."""
        found = self._search(received, present)
        return Answered(found.pieces[:, 0], found.score[:, 0])

    def _scores(self, states: Tensor) -> Tensor:
        scores: Tensor = self.out(self.norm(states))
        return scores

    def _taught(self, received: Tensor, told: Tensor) -> Tensor:
        before = torch.cat([torch.full_like(told[:, :1], END_ID), told[:, :-1].clamp_min(0)], dim=1)
        places = torch.arange(received.shape[1], device=received.device)
        ahead = (places[None, :] > places[:, None]).to(received.dtype)[None, None] * ABSENT
        states: Tensor = received + self.embedding(before)
        for block in self.blocks:
            states = block(states, ahead)
        return states

    def _search(self, received: Tensor, present: Tensor) -> _Search:
        rows, length, width = received.shape
        heads = cast(Block, self.blocks[0]).heads
        first = torch.arange(self.beam, device=received.device) == 0
        start = _Search(
            torch.zeros((), dtype=torch.int64, device=received.device),
            torch.full((rows, self.beam, length), END_ID, device=received.device),
            received.new_zeros(rows, self.beam, length),
            torch.where(first, 0.0, _NEVER).to(received.dtype).expand(rows, -1).clone(),
            received.new_zeros(rows, self.beam, length, width),
            received.new_zeros(len(self.blocks), 2, rows, self.beam, heads, length, width // heads),
        )
        last = (present.any(dim=0) * torch.arange(1, length + 1, device=received.device)).amax(dim=0)

        def going(place: Tensor, pieces: Tensor, *_: Tensor) -> Tensor:
            return place < last

        def step(*search: Tensor) -> tuple[Tensor, ...]:
            return self._step(received, present, _Search(*search))

        if torch.compiler.is_compiling():
            return _Search(*while_loop(going, step, tuple(start)))  # type: ignore[no-untyped-call]
        search: tuple[Tensor, ...] = start
        while going(*search):
            search = step(*search)
        return _Search(*search)

    def _step(self, received: Tensor, present: Tensor, search: _Search) -> _Search:
        """Every hypothesis one piece longer, and the best of them kept."""
        places = torch.arange(received.shape[1], device=received.device)
        here = places == search.place
        ahead = (places > search.place).to(received.dtype)[None, :] * ABSENT
        # The piece before: the end, where there is none yet.
        before = torch.where(places == search.place - 1, search.pieces, 0).sum(dim=-1)
        first = search.place == 0
        over = ~(present & here).any(dim=-1, keepdim=True)
        ended = over | (before == END_ID) & ~first
        before = torch.where(first, END_ID, before)
        state = torch.where(here[:, None], received, 0.0).sum(dim=1)[:, None] + self.embedding(before)
        layers = []
        for number, block in enumerate(self.blocks):
            state, layer = cast(Block, block).step(state, search.memory[number], here, ahead)
            layers.append(layer)
        memory = torch.stack(layers)
        states = torch.where(here[:, None], state[..., None, :], search.states)
        log_p = self._scores(state).log_softmax(dim=-1)
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
