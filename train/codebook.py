"""What every codebook has: codewords, their labels, and what the receiver may know of their usage.

    features ─> tokens ─> hard: nearest codeword ──────────> index ─> label bits
                       └> soft: softmax(-scale d^2 / T) ──> probabilities of codewords

Kinds differ in where a token may lie, in how the codewords are placed and in what moves them afterwards: `train.quantizer`
learns them, `train.fsq` keeps them on a lattice. Assignment, labels and prior are the same code, and it is link's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from link.bits import label_bits
from link.codebook import lookup, nearest, soft_assignment
from link.labeling import binary_switching, pca_gray
from link.randomness import Draws, Stream
from train.losses import assignment_entropy

Labelling = Literal["searched", "pca-gray", "axis-gray", "identity", "random"]
Moment = Literal["start", "restart", "alignment"]
LabelSearch = Literal["start", "alignment", "both", "restarts"]

# Points of Stream.INITIALISATION.
PLACES = 0
_LABELS = 1

_MOMENTS: Final[Mapping[LabelSearch, tuple[Moment, ...]]] = {
    "start": ("start",),
    "alignment": ("alignment",),
    "both": ("start", "alignment"),
    "restarts": ("start", "restart"),
}


class Codebook(nn.Module):
    """K codewords of D dimensions, their labels, and their usage.

    Everything is a buffer: gradients move the encoder, statistics move the codebook.

    Parameters
    ----------
    codewords : int
        K, a power of two.
    dim : int
        D.
    ema_decay : float
        a of the running usage, size_k <- a size_k + (1 - a) n_k / n, a step.
    labelling : str
        Where labels come from; `searched` is the Binary Switching Algorithm, and begins at Gray labels.
    label_search : str
        When they are searched: at the start, where alignment begins, both, or at the start and wherever codewords restart.
    """

    codebook: Tensor
    labels: Tensor
    label_bits: Tensor
    log_prior: Tensor
    scale: Tensor
    ema_size: Tensor

    def __init__(
        self,
        codewords: int,
        dim: int,
        ema_decay: float = 0.99,
        *,
        labelling: Labelling = "searched",
        label_search: LabelSearch = "start",
    ) -> None:
        super().__init__()
        self.codewords = codewords
        self.dim = dim
        self.index_bits = (codewords - 1).bit_length()
        self.ema_decay = ema_decay
        self.labelling = labelling
        self.label_search = label_search
        self.register_buffer("codebook", torch.zeros(codewords, dim))
        self.register_buffer("labels", torch.zeros(codewords, dtype=torch.int64))
        self.register_buffer("label_bits", torch.zeros(codewords, self.index_bits))
        self.register_buffer("log_prior", torch.full((codewords,), -math.log(codewords)))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("ema_size", torch.zeros(codewords))
        self.set_labels(np.arange(codewords))

    def tokens(self, features: Tensor) -> Tensor:
        """Where the encoder's (..., D) features may lie: each normalised by its own mean and deviation."""
        return functional.layer_norm(features, (self.dim,))

    def hard(self, tokens: Tensor) -> Tensor:
        """Index of each token's nearest codeword: (..., D) to (...) int64."""
        indices: Tensor = nearest(tokens, self.codebook)
        return indices

    def soft(self, tokens: Tensor, temperature: float) -> Tensor:
        """Probabilities of the codewords, softmax(-scale d^2 / T): (..., D) to (..., K)."""
        probabilities: Tensor = soft_assignment(tokens, self.codebook, float(self.scale), temperature)
        return probabilities

    def codewords_of(self, indices: Tensor) -> Tensor:
        """Codewords of (...) indices, (..., D)."""
        rows: Tensor = lookup(self.codebook, indices)
        return rows

    def bits_of(self, indices: Tensor) -> Tensor:
        """Label bits of (...) indices as floats in {0, 1}, (..., k)."""
        rows: Tensor = lookup(self.label_bits, indices)
        return rows

    @torch.no_grad()
    def start(
        self, tokens: Tensor, *, temperature: float, target_entropy: float, bit_error_rates: np.ndarray, seed: int
    ) -> None:
        """Set codebook, labels and scale from the tokens of the training set.

        Parameters
        ----------
        tokens : (n, D) float32
        temperature : float
            T at which the scale makes the mean assignment entropy `target_entropy`, in nats.
        bit_error_rates : (k,) float
            Of each bit of a label, for the search for labels.
        seed : int
            Of what is drawn: places, labels.
        """
        usage = self._place(tokens, seed)
        self.ema_size.copy_(torch.from_numpy(usage))
        self._gather()
        self.set_labels(self._first_labels(seed))
        self._search("start", usage, bit_error_rates)
        self.scale.fill_(_scale_for_entropy(tokens, self.codebook, temperature, target_entropy))
        self.refresh_prior()

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """Count the usage of one training step.

        Parameters
        ----------
        tokens : (n, D) float32
        indices : (n,) int64
        """
        chosen = functional.one_hot(indices, self.codewords).to(tokens.dtype)
        self.ema_size.mul_(self.ema_decay).add_(chosen.sum(dim=0), alpha=(1.0 - self.ema_decay) / len(tokens))

    @torch.no_grad()
    def restart(self, tokens: Tensor, threshold: float, *, seed: int, draw: int) -> int:
        """Move codewords used less than `threshold` of their fair share onto random tokens; how many were moved."""
        return 0

    @torch.no_grad()
    def refresh_prior(self) -> None:
        """Set the receiver's prior to the codewords' running usage, smoothed by half a count in a thousand."""
        usage = self.ema_size.double() / self.ema_size.double().sum()
        smoothed = (usage + 5e-4) / (1.0 + 5e-4 * self.codewords)
        self.log_prior.copy_(smoothed.log())

    @torch.no_grad()
    def search_labels(self, moment: Moment, bit_error_rates: np.ndarray) -> None:
        """Search on from the present labels, for codebook and usage as they are.

        Nothing where the labels are not searched, or not at this moment. Never to labels of a higher cost
        (`binary_switching`).
        """
        self._search(moment, self.ema_size.double().cpu().numpy(), bit_error_rates)

    def set_labels(self, labels: np.ndarray) -> None:
        """Set the label of each codeword, a permutation of 0 to K - 1."""
        self.labels.copy_(torch.from_numpy(np.asarray(labels, dtype=np.int64)))
        self.label_bits.copy_(torch.from_numpy(label_bits(labels, self.index_bits).astype(np.float32)))

    @property
    def labels_sha256(self) -> str:
        """sha256 of the label table, K little-endian int64: the labels that a receiver must hold."""
        return hashlib.sha256(self.labels.cpu().numpy().astype("<i8").tobytes()).hexdigest()

    def _place(self, tokens: Tensor, seed: int) -> NDArray[np.float64]:
        """Set the codebook from (n, D) tokens; the share of them that each codeword has, (K,)."""
        raise NotImplementedError

    def _gather(self) -> None:
        """Set what goes with the size of each codeword."""

    def _usage(self, tokens: Tensor) -> NDArray[np.float64]:
        return np.bincount(self.hard(tokens).cpu().numpy(), minlength=self.codewords) / len(tokens)

    def _first_labels(self, seed: int) -> NDArray[np.int64]:
        if self.labelling == "identity":
            return np.arange(self.codewords)
        if self.labelling == "random":
            keys = Draws(seed, np.arange(self.codewords)).uniforms(Stream.INITIALISATION, _LABELS, 1)[:, 0]
            return np.argsort(keys, kind="stable")
        return self._gray_labels()

    def _gray_labels(self) -> NDArray[np.int64]:
        return pca_gray(self.codebook.double().cpu().numpy())

    def _search(self, moment: Moment, usage: NDArray[np.float64], bit_error_rates: np.ndarray) -> None:
        if self.labelling == "searched" and moment in _MOMENTS[self.label_search]:
            codewords = self.codebook.double().cpu().numpy()
            self.set_labels(binary_switching(codewords, usage, self.labels.cpu().numpy(), bit_error_rates))


def _scale_for_entropy(tokens: Tensor, codebook: Tensor, temperature: float, target: float) -> float:
    """The scale at which the mean assignment entropy is `target`, by bisection: the entropy falls with the scale."""
    low, high = -12.0, 12.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        soft = soft_assignment(tokens.double(), codebook.double(), math.exp(middle), temperature)
        entropy = float(assignment_entropy(soft))
        low, high = (middle, high) if entropy > target else (low, middle)
    return math.exp(0.5 * (low + high))
