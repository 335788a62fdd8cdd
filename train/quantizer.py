"""The learned codebook: k-means start, bias-corrected EMA, dead-code restart of size and sum.

Each step moves the running mean of every codeword's tokens (van den Oord et al. 2017, appendix A.1). With n_k tokens of sum
m_k in a batch of n,

    size_k <- a size_k + (1 - a) n_k / n      sum_k <- a sum_k + (1 - a) m_k / n      c_k = sum_k / size_k

Both start from zero or from k-means *together*, so their ratio is unbiased from the first step on (the correction 1 - a^t
cancels), a codeword without tokens stays where it is, and a restart sets both. Two published quantisers started size at 0
with sum at the weights (unused codewords blow up), or left n_k out (every codeword collapses); tests hold against each.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from link.bits import label_bits
from link.codebook import lookup, nearest, soft_assignment
from link.labeling import binary_switching, pca_gray
from link.randomness import Draws, Stream
from train.losses import assignment_entropy

_SMALLEST_SIZE = 1e-7


class Quantizer(nn.Module):
    """K codewords of D dimensions, their labels, and what the receiver may know of their usage.

    Everything is a buffer: gradients move the encoder, statistics move the codebook.

    Parameters
    ----------
    codewords : int
        K, a power of two.
    dim : int
        D.
    ema_decay : float
        a in the formulas above, a step.
    """

    codebook: Tensor
    labels: Tensor
    label_bits: Tensor
    log_prior: Tensor
    scale: Tensor
    ema_size: Tensor
    ema_sum: Tensor

    def __init__(self, codewords: int, dim: int, ema_decay: float = 0.99) -> None:
        super().__init__()
        self.codewords = codewords
        self.index_bits = (codewords - 1).bit_length()
        self.ema_decay = ema_decay
        self.register_buffer("codebook", torch.zeros(codewords, dim))
        self.register_buffer("labels", torch.zeros(codewords, dtype=torch.int64))
        self.register_buffer("label_bits", torch.zeros(codewords, self.index_bits))
        self.register_buffer("log_prior", torch.full((codewords,), -math.log(codewords)))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("ema_size", torch.zeros(codewords))
        self.register_buffer("ema_sum", torch.zeros(codewords, dim))
        self.set_labels(np.arange(codewords))

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
            Of k-means++.
        """
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        # From three threads on, they add their sums in the order in which they finish.
        with threadpool_limits(1):
            clusters = KMeans(self.codewords, n_init=4, random_state=seed % 2**32).fit(tokens.double().cpu().numpy())
        usage = np.bincount(clusters.labels_, minlength=self.codewords) / len(tokens)
        self.codebook.copy_(torch.from_numpy(clusters.cluster_centers_))
        self.ema_size.copy_(torch.from_numpy(usage))
        self.ema_sum.copy_(self.codebook * self.ema_size[:, None])
        centers = self.codebook.double().cpu().numpy()
        self.set_labels(binary_switching(centers, usage, pca_gray(centers), bit_error_rates))
        self.scale.fill_(_scale_for_entropy(tokens, self.codebook, temperature, target_entropy))
        self.refresh_prior()

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """Move each codeword towards the mean of the tokens that chose it.

        Parameters
        ----------
        tokens : (n, D) float32
        indices : (n,) int64
        """
        chosen = nn.functional.one_hot(indices, self.codewords).to(tokens.dtype)
        share = (1.0 - self.ema_decay) / len(tokens)
        self.ema_size.mul_(self.ema_decay).add_(chosen.sum(dim=0), alpha=share)
        self.ema_sum.mul_(self.ema_decay).add_(chosen.T @ tokens, alpha=share)
        alive = self.ema_size > _SMALLEST_SIZE
        means = self.ema_sum / self.ema_size.clamp_min(_SMALLEST_SIZE)[:, None]
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

    @torch.no_grad()
    def refresh_prior(self) -> None:
        """Set the receiver's prior to the codewords' running usage, smoothed by half a count in a thousand."""
        usage = self.ema_size.double() / self.ema_size.double().sum()
        smoothed = (usage + 5e-4) / (1.0 + 5e-4 * self.codewords)
        self.log_prior.copy_(smoothed.log())

    def set_labels(self, labels: np.ndarray) -> None:
        """Set the label of each codeword, a permutation of 0 to K - 1."""
        self.labels.copy_(torch.from_numpy(np.asarray(labels, dtype=np.int64)))
        self.label_bits.copy_(torch.from_numpy(label_bits(labels, self.index_bits).astype(np.float32)))


def _scale_for_entropy(tokens: Tensor, codebook: Tensor, temperature: float, target: float) -> float:
    """The scale at which the mean assignment entropy is `target`, by bisection: the entropy falls with the scale."""
    low, high = -12.0, 12.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        soft = soft_assignment(tokens.double(), codebook.double(), math.exp(middle), temperature)
        entropy = float(assignment_entropy(soft))
        low, high = (middle, high) if entropy > target else (low, middle)
    return math.exp(0.5 * (low + high))
