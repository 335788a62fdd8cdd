"""Neighbouring pieces decided together: a chain over the best candidates of each position.

    scores of all pieces ─> k best at each position ─> + how well neighbours go together ─> forward, backward ─> scores

What a transformer says of each position it says of that position alone: where two spellings of a word are likely, it may
answer the beginning of one and the end of the other. A chain adds a score for each pair of neighbours, of low rank, and asks
either how likely each candidate is over all sequences (`marginal`: the sum-product recursions of Bahl, Cocke, Jelinek and
Raviv 1974, IEEE Trans. Inf. Theory 20, which minimise the error rate of pieces), or which candidate the best sequence has
(`viterbi`: the same with the maximum in place of the sum, so a beam of k that forgets nothing). The conditional random field
behind a parallel decoder is that of Sun et al. 2019 (arXiv:1910.11555); here it is trained by the likelihood of each piece,
its marginal, and so by the loss that every task has.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor, nn

from link.codebook import lookup

Search = Literal["marginal", "viterbi"]

_SPREAD: Final = 0.1
"""Of what the scores of pairs start from: next to nothing."""


class Chain(nn.Module):
    """Scores (B, T, V), each position's by itself, to those in which neighbours have their say.

    Parameters
    ----------
    pieces : int
        V.
    candidates : int
        k, in [2, V]; others keep the share that they have.
    rank : int
        Of the scores of pairs.
    search : str
        `marginal` or `viterbi`; in training marginal in either.
    """

    def __init__(self, pieces: int, candidates: int, rank: int, search: Search) -> None:
        super().__init__()
        self.candidates = candidates
        self.search = search
        self.left = nn.Parameter(_SPREAD * torch.randn(pieces, rank))
        self.right = nn.Parameter(_SPREAD * torch.randn(pieces, rank))

    def forward(self, scores: Tensor, present: Tensor) -> Tensor:
        """Log probabilities of the pieces; a position that is not `present`, (B, T), says nothing of its neighbours."""
        log_p = scores.log_softmax(dim=-1)
        own, pieces = log_p.topk(self.candidates, dim=-1)
        left, right = lookup(self.left, pieces[:, :-1]), lookup(self.right, pieces[:, 1:])
        pairs = left @ right.transpose(-1, -2)
        both = present[:, :-1] & present[:, 1:]
        together = chain_scores(own, pairs * both[..., None, None], self.search if not self.training else "marginal")
        mass = own.logsumexp(dim=-1, keepdim=True)
        return log_p.scatter(-1, pieces, mass + together.log_softmax(dim=-1))


def chain_scores(own: Tensor, pairs: Tensor, search: Search) -> Tensor:
    """Score of each candidate in the sequences that hold it: the log of their sum, or the best of them.

    Parameters
    ----------
    own : (B, T, k) float32
        Log scores of each position's candidates.
    pairs : (B, T - 1, k, k) float32
        Of a position's candidate with the next one's.
    search : str

    Returns
    -------
    (B, T, k) float32
        Up to a constant of each sequence.
    """

    def over(terms: Tensor, dim: int) -> Tensor:
        return terms.logsumexp(dim=dim) if search == "marginal" else terms.amax(dim=dim)

    length = own.shape[1]
    ahead, behind = [own[:, 0]], [torch.zeros_like(own[:, 0])]
    for place in range(1, length):
        ahead.append(own[:, place] + over(ahead[-1][:, :, None] + pairs[:, place - 1], 1))
    for place in range(length - 1, 0, -1):
        behind.append(over(pairs[:, place - 1] + (own[:, place] + behind[-1])[:, None, :], 2))
    return torch.stack(ahead, dim=1) + torch.stack(behind[::-1], dim=1)
