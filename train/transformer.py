"""A small transformer, to be trained from nothing: blocks of self-attention whose positions may be absent.

Layer norm in front of each part (Xiong et al. 2020, arXiv:2002.04745), so that no learning rate has to be warmed up. No
dropout: it would draw from torch's global generator, and a run that is resumed would not go on as it had begun.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_EXPANSION: Final = 4
# Large enough to be nothing after a softmax, small enough for half precision.
ABSENT: Final = -1e4


class Block(nn.Module):
    """Self-attention over the positions that are there, and a hidden layer: (B, T, H) to (B, T, H).

    Parameters
    ----------
    width : int
        H.
    heads : int
        A divisor of H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.hidden = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, _EXPANSION * width), nn.GELU(), nn.Linear(_EXPANSION * width, width)
        )

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """New states; `bias` (B, 1, 1, T) is added to the scores of the positions."""
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.into(self.norm(states)).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        states = states + self.out(attended.transpose(1, 2).flatten(2))
        return states + self.hidden(states)  # type: ignore[no-any-return]

    def step(self, state: Tensor, memory: Tensor, here: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """One position alone, where the others' keys and values are known.

        Parameters
        ----------
        state : (..., H) float32
        memory : (2, ..., heads, T, H / heads) float32
            Keys and values.
        here : (T,) bool
            Where the position's own belong.
        bias : (1, T) float32
            Added to the scores of the positions.

        Returns
        -------
        tuple of Tensor
            New state, and the memory with the position in it.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, 1, -1)) for part in self.into(self.norm(state)).chunk(3, dim=-1)
        )
        memory = torch.where(here[:, None], torch.stack([key, value]), memory)
        keys, values = memory
        shares = (query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5 + bias).softmax(dim=-1)
        state = state + self.out((shares @ values).flatten(-3))
        return state + self.hidden(state), memory


class Transformer(nn.Module):
    """Blocks over positions with learned embeddings of their own, and a last norm: (B, T, H) to (B, T, H).

    Parameters
    ----------
    width, heads, layers : int
        H, attention heads of a block, blocks.
    length : int
        Most positions.
    """

    def __init__(self, width: int, heads: int, layers: int, length: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """States that look at those of the positions that are `present`, (B, T) bool; T at most `length`."""
        bias = (~present).to(states.dtype)[:, None, None, :] * ABSENT
        states = states + self.position[: states.shape[1]]
        for block in self.blocks:
            states = block(states, bias)
        return self.norm(states)  # type: ignore[no-any-return]


def longest(present: Tensor) -> int:
    """Positions up to the last that is present in a row of (B, T), at least 1; all of them in a graph that is exported."""
    if torch.compiler.is_compiling():
        return present.shape[1]
    used = torch.nonzero(present.any(dim=0))
    return int(used[-1]) + 1 if len(used) else 1
