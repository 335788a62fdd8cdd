"""Modes that are lengths of one another: a sample is sent in the shortest one that holds it.

    3 tokens  ─> │z1 z2 z3│ 0  0  0  0  0 │      mode 0:  4 tokens, z1 z2 z3 and one that fills up
    6 tokens  ─> │z1 z2 z3  z4 z5 z6│ 0  0│      mode 1:  6 tokens

Tokens past a sample's own end are zero vectors: nothing that is normalised is one. Modes of one codebook and one
constellation, whose bits fill their symbols, send the beginning of what the longest one sends, so all of them are computed
once, as the longest, and cut; at the receiver what was not sent is erased.
(Where a router chooses among such modes, what was not sent is the prior's mean, as in all modes.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from link.codebook import lookup
from link.constellation import bits_per_symbol
from train.modes import LinkRecipe


def nested(link: LinkRecipe) -> bool:
    """Whether there are several modes, and each sends the beginning of what the longest one does.

    Examples
    --------
    >>> sizes = [{"tokens": 2, "codewords": 4, "order": 4}, {"tokens": 4, "codewords": 4, "order": 4}]
    >>> nested(LinkRecipe(dim=4, modes=sizes)), nested(LinkRecipe(dim=4, tokens=2, codewords=4, order=4))
    (True, False)
    """
    first, *others = link.rates
    return bool(others) and all(
        (rate.codewords, rate.order) == (first.codewords, first.order)
        and rate.num_bits % bits_per_symbol(rate.order) == 0
        for rate in link.rates
    )


def own(tokens: Tensor) -> Tensor:
    """Those of (B, N, D) tokens that are a sample's own, (M, D): all that are not zero."""
    return tokens[(tokens != 0.0).any(dim=-1)]


def shortest(tokens: Tensor, link: LinkRecipe) -> Tensor:
    """The shortest mode that holds the last of each sample's own tokens, (B, N, D) to (B,) int64; modes ascend."""
    lengths = torch.tensor([rate.tokens for rate in link.rates], device=tokens.device)
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    last = ((tokens != 0.0).any(dim=-1) * places).amax(dim=-1)
    return (last[:, None] > lengths[:-1]).sum(dim=-1)


def within(mode: Tensor, link: LinkRecipe, name: str) -> Tensor:
    """Which places of an array are of a row's mode (B,), (B, n) bool; `name` is a size of a mode, n the largest of all."""
    sizes = torch.tensor([getattr(rate, name) for rate in link.rates], device=mode.device)
    places = torch.arange(max(getattr(rate, name) for rate in link.rates), device=mode.device)
    inside: Tensor = places < lookup(sizes, mode)[:, None]
    return inside
