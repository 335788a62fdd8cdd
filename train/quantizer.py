"""The learned codebook: k-means start, bias-corrected EMA, dead-code restart of size and sum.

Each step moves the running mean of every codeword's tokens (van den Oord et al. 2017, appendix A.1). With n_k tokens of sum
m_k in a batch of n,

    size_k <- a size_k + (1 - a) n_k / n      sum_k <- a sum_k + (1 - a) m_k / n      c_k = sum_k / size_k

Both start from zero or from k-means *together*, so their ratio is unbiased from the first step on (the correction 1 - a^t
cancels), a codeword without tokens stays where it is, and a restart sets both. Two published quantisers started size at 0
with sum at the weights (unused codewords blow up), or left n out where they smoothed the sizes (every codeword collapses);
tests hold against each.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from link.errors import ArgumentError
from link.randomness import Draws, Stream
from train.codebook import PLACES, Codebook, Labelling, LabelSearch
from train.fsq import FiniteScalarQuantizer
from train.recipe import QuantizerRecipe

Metric = Literal["euclidean", "cosine"]
Placement = Literal["k-means", "tokens", "random"]

_SMALLEST_SIZE = 1e-7
_SMALLEST_LENGTH = 1e-6


class Quantizer(Codebook):
    """A codebook that follows the tokens.

    Parameters
    ----------
    codewords, dim, labelling, label_search
        As for every codebook.
    ema_decay : float
        a in the formulas above, a step.
    metric : str
        `cosine` puts tokens and codewords on the sphere of radius sqrt(D), where d^2 = 2 D (1 - cos), for argmax and softmax
        alike. That is the length of a token normalised by its deviation, so that a weight in the loss means the same in
        either metric.
    placement : str
        Where the codewords start: k-means++ and Lloyd over the tokens, K of the tokens, or standard normals that know
        nothing of the tokens.
    """

    ema_sum: Tensor

    def __init__(
        self,
        codewords: int,
        dim: int,
        ema_decay: float = 0.99,
        *,
        metric: Metric = "euclidean",
        placement: Placement = "k-means",
        labelling: Labelling = "searched",
        label_search: LabelSearch = "start",
    ) -> None:
        super().__init__(codewords, dim, ema_decay, labelling=labelling, label_search=label_search)
        self.metric = metric
        self.placement = placement
        self.register_buffer("ema_sum", torch.zeros(codewords, dim))

    def tokens(self, features: Tensor) -> Tensor:
        """Where the encoder's (..., D) features may lie: normalised by mean and deviation, or by length."""
        return self._on_sphere(features) if self.metric == "cosine" else super().tokens(features)

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """Move each codeword towards the mean of the tokens that chose it.

        Parameters
        ----------
        tokens : (n, D) float32
        indices : (n,) int64
        """
        super().update(tokens, indices)
        chosen = functional.one_hot(indices, self.codewords).to(tokens.dtype)
        self.ema_sum.mul_(self.ema_decay).add_(chosen.T @ tokens, alpha=(1.0 - self.ema_decay) / len(tokens))
        alive = self.ema_size > _SMALLEST_SIZE
        means = self.ema_sum / self.ema_size.clamp_min(_SMALLEST_SIZE)[:, None]
        if self.metric == "cosine":
            # Tokens that cancel have no direction to go to.
            alive &= means.norm(dim=-1) > _SMALLEST_LENGTH
            means = self._on_sphere(means)
        self.codebook.copy_(torch.where(alive[:, None], means, self.codebook))

    @torch.no_grad()
    def restart(self, tokens: Tensor, threshold: float, *, seed: int, draw: int) -> int:
        """Move codewords used less than `threshold` of their fair share onto random tokens; how many were moved.

        Size and sum are set together: a codeword that kept its old size would be dragged back by it.
        """
        fair = float(self.ema_size.sum()) / self.codewords
        dead = torch.nonzero(self.ema_size < threshold * fair)[:, 0]
        if len(dead) == 0:
            return 0
        keys = Draws(seed, np.arange(len(tokens)), draw).uniforms(Stream.RESTART, 0, 1)[:, 0]
        order = np.argsort(keys, kind="stable")[: len(dead)]
        dead = dead[: len(order)]
        chosen = tokens[torch.from_numpy(order).to(tokens.device)]
        self.codebook[dead] = chosen
        self.ema_size[dead] = fair
        self.ema_sum[dead] = chosen * fair
        return len(dead)

    def _place(self, tokens: Tensor, seed: int) -> NDArray[np.float64]:
        if self.placement != "random" and len(tokens) < self.codewords:
            raise ArgumentError(
                "codewords", f"must be at most the {len(tokens)} tokens to start at, got {self.codewords}"
            )
        if self.placement == "k-means":
            return self._place_by_k_means(tokens, seed)
        if self.placement == "tokens":
            keys = Draws(seed, np.arange(len(tokens))).uniforms(Stream.INITIALISATION, PLACES, 1)[:, 0]
            self.codebook.copy_(tokens[torch.from_numpy(np.argsort(keys, kind="stable")[: self.codewords])])
        else:
            normals = Draws(seed, np.arange(self.codewords)).normals(Stream.INITIALISATION, PLACES, -(-self.dim // 2))
            places = torch.from_numpy(normals.reshape(self.codewords, -1)[:, : self.dim])
            self.codebook.copy_(self._on_sphere(places) if self.metric == "cosine" else places)
        return self._usage(tokens)

    def _place_by_k_means(self, tokens: Tensor, seed: int) -> NDArray[np.float64]:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        # From three threads on, they add their sums in the order in which they finish.
        with threadpool_limits(1):
            clusters = KMeans(self.codewords, n_init=4, random_state=seed % 2**32).fit(tokens.double().cpu().numpy())
        self.codebook.copy_(torch.from_numpy(clusters.cluster_centers_))
        if self.metric == "cosine":
            self.codebook.copy_(self._on_sphere(self.codebook))
        usage: NDArray[np.float64] = np.bincount(clusters.labels_, minlength=self.codewords) / len(tokens)
        return usage

    def _gather(self) -> None:
        self.ema_sum.copy_(self.codebook * self.ema_size[:, None])

    def _on_sphere(self, vectors: Tensor) -> Tensor:
        scaled: Tensor = functional.normalize(vectors, dim=-1) * self.dim**0.5
        return scaled


def build_quantizer(recipe: QuantizerRecipe, codewords: int, dim: int) -> Codebook:
    """The untrained codebook of a recipe: K `codewords` of `dim` dimensions.

    Raises
    ------
    ArgumentError
        If `fsq_levels` do not make K points, or have more axes than `dim`.
    """
    if recipe.kind == "fsq":
        return FiniteScalarQuantizer(
            codewords,
            dim,
            recipe.ema_decay,
            levels=recipe.fsq_levels,
            labelling=recipe.labelling,
            label_search=recipe.label_search,
        )
    return Quantizer(
        codewords,
        dim,
        recipe.ema_decay,
        metric=recipe.metric,
        placement=recipe.start,
        labelling=recipe.labelling,
        label_search=recipe.label_search,
    )
