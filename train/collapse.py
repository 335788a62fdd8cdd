"""The metrics that tell a collapse before the accuracy does. All entropies in nats; `train.alarms` judges them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from link.bits import group
from link.constellation import bits_per_symbol
from link.theory import mean_abs_llr
from train.losses import assignment_entropy, consistency_loss, entropy
from train.recipe import LinkRecipe, LossRecipe
from train.transceiver import Heard, Sent

ALMOST_ALL: Final = 0.95
"""A token position sends the same codeword for all samples where it does so for this share of them."""

_WEIGHT_KEYS: Final = {"commitment": "lambda_vq", "usage": "lambda_entropy"}
"""Terms whose weight does not bear their name."""


@dataclass(frozen=True)
class CollapseMetrics:
    """How healthy the digital path is, over one epoch of training or one evaluation.

    Attributes
    ----------
    vq_entropy : float
        Entropy of the codewords' usage by argmax; at most ln K.
    h_assign : float
        Mean entropy of the soft assignment of a token; 0 is hard.
    symbol_entropy : float
        Entropy of the hard symbols' usage; at most ln M.
    mean_abs_llr : float
        Mean |LLR| of the hard path as demapped, before any clipping.
    llr_ratio : float
        mean_abs_llr over its theory value for that order, demapper and those SNRs, with equally likely bits.
    codes_used : float
        Share of the codewords used at least once.
    perplexity : float
        exp(vq_entropy).
    consistency : float
        ||H_soft - H_hard||^2 a dimension.
    es_db : float
        Mean energy of the hard symbols, dB; 0 is the mean of the constellation, to which Es/N0 refers.
    same_codes : float, optional
        Share of the token positions that sent one codeword for ALMOST_ALL of the samples; absent from older runs.
    """

    vq_entropy: float
    h_assign: float
    symbol_entropy: float
    mean_abs_llr: float
    llr_ratio: float
    codes_used: float
    perplexity: float
    consistency: float
    es_db: float
    same_codes: float | None = None


@dataclass(frozen=True)
class Usage:
    """How a set of tokens uses the codebook: exp of the usage entropy, and shares as in CollapseMetrics."""

    perplexity: float
    codes_used: float
    same_codes: float


@dataclass(frozen=True)
class TokenStatistics:
    """Mean and variance of each token position and dimension, N * D of each, position by position."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclass(frozen=True)
class TokenDrift:
    """How far the encoder's tokens in evaluation are from those in training, in training deviations.

    Attributes
    ----------
    mean_shift : float
        ||mu' - mu|| / ||sigma||, the norms over all positions and dimensions: 1 is one training deviation.
    frechet : float
        sqrt(||mu' - mu||^2 + ||sigma' - sigma||^2) / ||sigma||: the Frechet distance of two Gaussians with diagonal
        covariance (Dowson and Landau 1982, J. Multivariate Analysis 12, eq. 16), in the same unit. Tokens that lose all
        their spread without moving are 1 away; so are tokens whose spread doubles.
    """

    mean_shift: float
    frechet: float


def code_usage(indices: Tensor, codewords: int) -> Usage:
    """Usage of the codebook by indices (B, N) int64.

    Examples
    --------
    >>> found = code_usage(torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]]), 8)
    >>> round(found.perplexity, 6), found.codes_used, found.same_codes
    (4.0, 0.625, 0.5)
    """
    return _usage(_position_counts(indices, codewords))


def token_statistics(tokens: Tensor) -> TokenStatistics:
    """Mean and variance of tokens (B, N, D) over B."""
    values = tokens.detach().double().reshape(len(tokens), -1)
    variance = values.var(dim=0, correction=0)
    return TokenStatistics(tuple(values.mean(dim=0).tolist()), tuple(variance.tolist()))


def token_drift(training: TokenStatistics, evaluation: TokenStatistics) -> TokenDrift:
    """Distance of the evaluation's tokens from training's; free of scale, and 0 for the same tokens.

    Examples
    --------
    >>> token_drift(TokenStatistics((0.0, 0.0), (1.0, 1.0)), TokenStatistics((1.0, 1.0), (1.0, 1.0)))
    TokenDrift(mean_shift=1.0, frechet=1.0)
    """
    shift = np.subtract(evaluation.mean, training.mean)
    spread = np.sqrt(evaluation.variance) - np.sqrt(training.variance)
    # An encoder that says one thing only has no deviation to measure by: any movement is then beyond every threshold.
    unit = max(float(np.sum(training.variance)), 1e-12)
    moved = float(shift @ shift)
    return TokenDrift(math.sqrt(moved / unit), math.sqrt((moved + float(spread @ spread)) / unit))


class CollapseMonitor:
    """Collects the counts behind the metrics, batch by batch."""

    def __init__(self, recipe: LinkRecipe) -> None:
        self._recipe = recipe
        self._codeword_counts = torch.zeros(recipe.tokens, recipe.codewords, dtype=torch.float64)
        self._symbol_counts = torch.zeros(recipe.order)
        self._sums = dict.fromkeys(("h_assign", "mean_abs_llr", "theory_llr", "consistency", "energy"), 0.0)
        self._rows = 0
        self._token_rows = 0
        self._token_sum = np.zeros(recipe.tokens * recipe.dim)
        self._token_squares = np.zeros(recipe.tokens * recipe.dim)

    @torch.no_grad()
    def add_tokens(self, tokens: Tensor) -> None:
        """Count what the encoder made of one batch, (B, N, D)."""
        values: NDArray[np.float64] = tokens.detach().double().cpu().numpy().reshape(len(tokens), -1)
        self._token_rows += len(values)
        self._token_sum += values.sum(axis=0)
        self._token_squares += np.square(values).sum(axis=0)

    @torch.no_grad()
    def add(self, soft: Sent, hard: Sent, soft_heard: Heard, hard_heard: Heard, snr_db: np.ndarray) -> None:
        """Count one batch; `snr_db` (B,) is the Es/N0 of each row."""
        recipe = self._recipe
        rows = len(hard.indices)
        self._codeword_counts += _position_counts(hard.indices, recipe.codewords)
        bits = group(hard.bits, bits_per_symbol(recipe.order)).to(torch.int64)
        weights = 2 ** torch.arange(bits.shape[-1] - 1, -1, -1, device=bits.device)
        symbols = (bits * weights).sum(dim=-1).flatten()
        self._symbol_counts += functional.one_hot(symbols, recipe.order).sum(dim=0).cpu()
        reference = _theory(recipe.order, recipe.demapper)
        self._sums["h_assign"] += rows * float(assignment_entropy(soft.probabilities))
        self._sums["mean_abs_llr"] += rows * float(hard_heard.channel_llr.abs().mean())
        self._sums["theory_llr"] += float(np.sum(reference(snr_db)))
        self._sums["consistency"] += rows * float(consistency_loss(soft_heard.embedding, hard_heard.embedding))
        self._sums["energy"] += rows * float(hard.symbols.square().sum(dim=-1).mean())
        self._rows += rows

    def result(self) -> CollapseMetrics:
        """The metrics of all that was added."""
        usage = _usage(self._codeword_counts)
        return CollapseMetrics(
            vq_entropy=math.log(usage.perplexity),
            h_assign=self._sums["h_assign"] / self._rows,
            symbol_entropy=float(entropy(self._symbol_counts / self._symbol_counts.sum())),
            mean_abs_llr=self._sums["mean_abs_llr"] / self._rows,
            llr_ratio=self._sums["mean_abs_llr"] / self._sums["theory_llr"],
            codes_used=usage.codes_used,
            perplexity=usage.perplexity,
            consistency=self._sums["consistency"] / self._rows,
            es_db=10.0 * math.log10(self._sums["energy"] / self._rows),
            same_codes=usage.same_codes,
        )

    def token_statistics(self) -> TokenStatistics:
        """Mean and variance of all tokens that were added."""
        mean = self._token_sum / self._token_rows
        variance = np.maximum(self._token_squares / self._token_rows - mean**2, 0.0)
        return TokenStatistics(tuple(mean.tolist()), tuple(variance.tolist()))


def loss_shares(terms: Mapping[str, float], loss: LossRecipe, link: LinkRecipe) -> dict[str, float]:
    """What each weighted term contributes to the loss: absolute shares that sum to 1.

    The usage entropy is raised, and enters by what it lacks of ln K: the loss less a constant, with the same gradient. As it
    stands it would be the largest term of every healthy run, where it pulls least.

    Parameters
    ----------
    terms : mapping of name to float
        Unweighted terms of an epoch; the total, `loss`, is passed over.
    loss : LossRecipe
        The weights in force.

    Examples
    --------
    >>> link = LinkRecipe(tokens=2, codewords=4, dim=4, order=4)
    >>> loss_shares({"task": 0.75, "commitment": 0.5}, LossRecipe(lambda_vq=0.5), link)
    {'task': 0.75, 'commitment': 0.25}
    """
    parts = {}
    for name, value in terms.items():
        if name == "loss":
            continue
        weight = 1.0 if name == "task" else float(getattr(loss, weight_key(name).removeprefix("loss.")))
        parts[name] = weight * abs(math.log(link.codewords) - value if name == "usage" else value)
    total = sum(parts.values())
    return {name: part / total if total else 0.0 for name, part in parts.items()}


def weight_key(term: str) -> str:
    """The recipe's key of a term's weight.

    Examples
    --------
    >>> weight_key("commitment"), weight_key("energy")
    ('loss.lambda_vq', 'loss.lambda_energy')
    """
    return f"loss.{_WEIGHT_KEYS.get(term, f'lambda_{term}')}"


def _position_counts(indices: Tensor, codewords: int) -> Tensor:
    """How often each token position of (B, N) sends each codeword, (N, K) float64."""
    return functional.one_hot(indices, codewords).sum(dim=0).double().cpu()


def _usage(counts: Tensor) -> Usage:
    """Usage of the codebook from the counts of each position, (N, K)."""
    total = counts.sum(dim=0)
    favourite = counts.max(dim=1).values / counts.sum(dim=1)
    return Usage(
        perplexity=math.exp(float(entropy(total / total.sum()))),
        codes_used=float((total > 0).double().mean()),
        same_codes=float((favourite >= ALMOST_ALL).double().mean()),
    )


@cache
def _theory(order: int, demapper: Literal["max-log", "app"]) -> Callable[[np.ndarray], np.ndarray]:
    """Mean |LLR| against Es/N0 in dB, its logarithm interpolated from a table."""
    grid = np.arange(-30.0, 60.5, 0.5)
    values = np.log(mean_abs_llr(order, grid, demapper=demapper))
    return lambda snr_db: np.exp(np.interp(snr_db, grid, values))
