"""Pieces decided one after another, each given those before it, by a decoder that is trained from nothing.

    received ─> states of all positions ──────┐
    pieces so far, moved one position on ─> + ┴─> blocks that look back ─> scores ─> search (train.search)

Of what was received a transformer says which piece may stand at each position, whatever stands beside it. Here each position
is also given the pieces before it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from train.pieces import END_ID
from train.search import Begun, StepDecoder
from train.transformer import ABSENT, Block


class AutoregressiveDecoder(StepDecoder):
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
        super().__init__(beam)
        self.embedding = nn.Embedding(pieces, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, pieces)

    def scores(self, states: Tensor) -> Tensor:
        """Scores (..., V) of states (..., H)."""
        scores: Tensor = self.out(self.norm(states))
        return scores

    def taught(self, received: Tensor, present: Tensor, told: Tensor) -> Tensor:
        """States (B, T, H) of all positions, those before each told, (B, T); a piece below 0 says nothing."""
        before = torch.cat([torch.full_like(told[:, :1], END_ID), told[:, :-1].clamp_min(0)], dim=1)
        places = torch.arange(received.shape[1], device=received.device)
        ahead = (places[None, :] > places[:, None]).to(received.dtype)[None, None] * ABSENT
        states: Tensor = received + self.embedding(before)
        for block in self.blocks:
            states = block(states, ahead)
        return states

    def begin(self, received: Tensor, present: Tensor) -> Begun:
        """What was received, and keys and values of no position yet."""
        rows, length, width = received.shape
        heads = cast(Block, self.blocks[0]).heads
        memory = received.new_zeros(len(self.blocks), 2, rows, self.beam, heads, length, width // heads)
        return Begun((received,), memory)

    def step(self, context: tuple[Tensor, ...], before: Tensor, place: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """State (B, W, H) of each hypothesis at a place, () int64, and the memory with it in."""
        (received,) = context
        places = torch.arange(received.shape[1], device=received.device)
        here = places == place
        ahead = (places > place).to(received.dtype)[None, :] * ABSENT
        state = torch.where(here[:, None], received, 0.0).sum(dim=1)[:, None] + self.embedding(before)
        layers = []
        for number, block in enumerate(self.blocks):
            state, layer = cast(Block, block).step(state, memory[number], here, ahead)
            layers.append(layer)
        return state, torch.stack(layers)
