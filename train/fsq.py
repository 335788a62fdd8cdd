"""Finite scalar quantisation (Mentzer et al. 2023, arXiv:2309.15505): the control that has no codebook to collapse.

A token is d axes bounded by tanh, and each axis is rounded to one of L_i even steps from end to end. The codewords are the
K = L_1 ... L_d points of that lattice, listed once, so that argmax, softmax and posterior mean over codewords are those of
every other codebook: the nearest point of a lattice is the rounding of its axes.

    axis of L levels   r (2 l / (L - 1) - 1), l = 0 ... L - 1, tokens at r tanh(feature)      r = sqrt(D / d)

Levels are symmetric about 0 as in Parker et al. 2024 (arXiv:2411.19842, section 3.2); for even L that is the lattice of
Mentzer et al. but for a shift, which an encoder's bias makes. With levels in powers of two each axis has bits of its own, in
Gray code along it: the labels of points next to each other differ in one bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from link.errors import ArgumentError
from train.codebook import Codebook, Labelling, LabelSearch


class FiniteScalarQuantizer(Codebook):
    """A fixed lattice on the first d of D dimensions; the others are 0.

    Training moves nothing but the usage, which is the receiver's prior. Corners of the lattice have the length sqrt(D) of a
    token normalised by its deviation.

    Parameters
    ----------
    codewords, dim, ema_decay, label_search
        As for every codebook.
    levels : sequence of int
        L_i, powers of two of product K, at most D of them; 4 an axis, and one axis of 2 where bits are left, if empty.
    labelling : str
        `axis-gray` is the Gray code of each axis; `searched` begins there.

    Raises
    ------
    ArgumentError
        If the levels are none of K points in D dimensions.
    """

    def __init__(
        self,
        codewords: int,
        dim: int,
        ema_decay: float = 0.99,
        *,
        levels: Sequence[int] = (),
        labelling: Labelling = "axis-gray",
        label_search: LabelSearch = "start",
    ) -> None:
        super().__init__(codewords, dim, ema_decay, labelling=labelling, label_search=label_search)
        self.levels = tuple(levels) or default_levels(codewords)
        if math.prod(self.levels) != codewords or any(count < 2 or count & (count - 1) for count in self.levels):
            raise ArgumentError("fsq_levels", f"must be powers of two of product {codewords}, got {list(self.levels)}")
        if len(self.levels) > dim:
            raise ArgumentError("fsq_levels", f"must have at most the {dim} axes of a token, got {len(self.levels)}")
        self.radius = (dim / len(self.levels)) ** 0.5
        steps = np.array(self.levels) - 1
        points = self.radius * (2.0 * _coordinates(self.levels) / steps - 1.0)
        self.codebook[:, : len(self.levels)] = torch.from_numpy(points)

    def tokens(self, features: Tensor) -> Tensor:
        """The first d of (..., D) features, each bounded by tanh; (..., D), the others 0."""
        axes = len(self.levels)
        return functional.pad(self.radius * torch.tanh(features[..., :axes]), (0, self.dim - axes))

    def _place(self, tokens: Tensor, seed: int) -> NDArray[np.float64]:
        return self._usage(tokens)

    def _gray_labels(self) -> NDArray[np.int64]:
        if self.labelling == "pca-gray":
            return super()._gray_labels()
        labels = np.zeros(self.codewords, dtype=np.int64)
        for level, count in zip(_coordinates(self.levels).T, self.levels, strict=True):
            labels = labels * count + (level ^ (level >> 1))
        return labels


def default_levels(codewords: int) -> tuple[int, ...]:
    """4 levels an axis, and a last axis of 2 where a bit is left.

    Examples
    --------
    >>> default_levels(8), default_levels(256)
    ((4, 2), (4, 4, 4, 4))
    """
    bits = (codewords - 1).bit_length()
    return (4,) * (bits // 2) + (2,) * (bits % 2)


def _coordinates(levels: tuple[int, ...]) -> NDArray[np.int64]:
    """Level on each axis of the points 0 to K - 1, (K, d); the last axis runs fastest."""
    return np.stack(np.unravel_index(np.arange(math.prod(levels)), levels), axis=-1)
