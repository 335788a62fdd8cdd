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
from train.mode_codec import Sent
from train.recipe import LinkRecipe, LossRecipe
from train.transceiver import Heard, heard_of_mode, sent_of_mode
from train.usage import BatchMonitor, BatchUsage, Usage, position_counts, usage_of

_WEIGHT_KEYS: Final = {"commitment": "lambda_vq", "usage": "lambda_entropy"}
"""Terms whose weight does not bear their name."""

_LATENT_KEYS: Final = {
    "latent_kl": "kl_weight",
    "latent_orthogonality": "orthogonality",
    "latent_diversity": "diversity",
    "latent_teacher": "teacher_weight",
}
"""Terms of a bottleneck, and their weights."""


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
    codewords, order : int, optional
        Where there are several modes: size of the codebook that vq_entropy, codes_used, perplexity and same_codes are of,
        and of the constellation that symbol_entropy is of, each the worst used of all. Averages are over all rows.
    batches : BatchUsage, optional
        Of single batches, of as many rows in training as in evaluation; absent where there are several modes, among which
        each batch is divided otherwise, and from older runs.
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
    codewords: int | None = None
    order: int | None = None
    batches: BatchUsage | None = None


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
    """Collects the counts behind the metrics, batch by batch.

    Parameters
    ----------
    recipe : LinkRecipe
    batch_rows : int, optional
        Rows over which the usage of single batches is taken; it is not where absent.
    """

    def __init__(self, recipe: LinkRecipe, batch_rows: int | None = None) -> None:
        self._recipe = recipe
        self._modes = [recipe.mode(number) for number in range(len(recipe.rates))]
        self._codeword_counts = {
            size: torch.zeros(recipe.tokens, size, dtype=torch.float64) for size in recipe.codebook_sizes
        }
        self._symbol_counts = {mode.order: torch.zeros(mode.order) for mode in self._modes}
        self._sums = dict.fromkeys(("h_assign", "mean_abs_llr", "theory_llr", "consistency", "energy"), 0.0)
        self._rows = 0
        self._mode_rows = np.zeros(len(self._modes), dtype=np.int64)
        self._token_rows = 0
        self._token_sum = np.zeros(recipe.tokens * recipe.dim)
        self._token_squares = np.zeros(recipe.tokens * recipe.dim)
        several = len(self._modes) > 1
        self._batches = None if several or batch_rows is None else BatchMonitor(recipe.codewords, batch_rows)

    @torch.no_grad()
    def add_tokens(self, tokens: Tensor) -> None:
        """Count what the encoder made of one batch, (B, N, D)."""
        values: NDArray[np.float64] = tokens.detach().double().cpu().numpy().reshape(len(tokens), -1)
        self._token_rows += len(values)
        self._token_sum += values.sum(axis=0)
        self._token_squares += np.square(values).sum(axis=0)

    def add_batch(self, indices: Tensor) -> None:
        """Count the usage of one batch by itself, by the indices (B, N) that it sent; not where there are several modes."""
        if self._batches is not None:
            self._batches.add(indices)

    @torch.no_grad()
    def add(
        self,
        soft: Sent,
        hard: Sent,
        soft_heard: Heard,
        hard_heard: Heard,
        snr_db: np.ndarray,
        mode: Tensor | None = None,
        right: Tensor | None = None,
    ) -> None:
        """Count one batch.

        Parameters
        ----------
        snr_db : (B,) float
            Es/N0 of each row.
        mode : (B,) int64, optional
            Where there are several.
        right : (B,) bool, optional
            Rows that are decoded in the mode they were sent in; no others are looked at.
        """
        if mode is None or right is None:
            self._add(0, soft, hard, soft_heard, hard_heard, snr_db)
            return
        for number, link in enumerate(self._modes):
            self._mode_rows[number] += int((mode == number).sum())
            rows = torch.nonzero((mode == number) & right)[:, 0]
            if len(rows):
                self._add(
                    number,
                    sent_of_mode(soft, link, rows),
                    sent_of_mode(hard, link, rows),
                    heard_of_mode(soft_heard, link, rows),
                    heard_of_mode(hard_heard, link, rows),
                    snr_db[rows.cpu().numpy()],
                )

    def _add(
        self, number: int, soft: Sent, hard: Sent, soft_heard: Heard, hard_heard: Heard, snr_db: np.ndarray
    ) -> None:
        """Count rows of one mode."""
        recipe = self._modes[number]
        rows = len(hard.indices)
        self._codeword_counts[recipe.codewords][: recipe.tokens] += position_counts(hard.indices, recipe.codewords)
        bits = group(hard.bits, bits_per_symbol(recipe.order)).to(torch.int64)
        weights = 2 ** torch.arange(bits.shape[-1] - 1, -1, -1, device=bits.device)
        symbols = (bits * weights).sum(dim=-1).flatten()
        self._symbol_counts[recipe.order] += functional.one_hot(symbols, recipe.order).sum(dim=0).cpu()
        reference = _theory(recipe.order, recipe.demapper)
        self._sums["h_assign"] += rows * float(assignment_entropy(soft.probabilities))
        self._sums["mean_abs_llr"] += rows * float(hard_heard.channel_llr.abs().mean())
        self._sums["theory_llr"] += float(np.sum(reference(snr_db)))
        self._sums["consistency"] += rows * float(consistency_loss(soft_heard.embedding, hard_heard.embedding))
        self._sums["energy"] += rows * float(hard.symbols.square().sum(dim=-1).mean())
        self._rows += rows

    def result(self) -> CollapseMetrics:
        """The metrics of all that was added."""
        usages = self.usage()
        size, usage = min(usages.items(), key=lambda item: math.log(item[1].perplexity) / math.log(item[0]))
        entropies = {
            order: float(entropy(counts / counts.sum()))
            for order, counts in self._symbol_counts.items()
            if counts.any()
        }
        order, symbol_entropy = min(entropies.items(), key=lambda item: item[1] / math.log(item[0]))
        several = len(self._modes) > 1
        return CollapseMetrics(
            vq_entropy=math.log(usage.perplexity),
            h_assign=self._sums["h_assign"] / self._rows,
            symbol_entropy=symbol_entropy,
            mean_abs_llr=self._sums["mean_abs_llr"] / self._rows,
            llr_ratio=self._sums["mean_abs_llr"] / self._sums["theory_llr"],
            codes_used=usage.codes_used,
            perplexity=usage.perplexity,
            consistency=self._sums["consistency"] / self._rows,
            es_db=10.0 * math.log10(self._sums["energy"] / self._rows),
            same_codes=usage.same_codes,
            codewords=size if several else None,
            order=order if several else None,
            batches=None if self._batches is None else self._batches.result(),
        )

    def usage(self) -> dict[int, Usage]:
        """Usage of each codebook that was used at all, by its number of codewords."""
        return {size: usage_of(counts) for size, counts in self._codeword_counts.items() if counts.any()}

    def code_counts(self) -> dict[int, tuple[int, ...]]:
        """How often each codeword of each codebook that was used at all was sent, by its number of codewords."""
        counts = {size: found.sum(dim=0).long() for size, found in self._codeword_counts.items() if found.any()}
        return {size: tuple(found.tolist()) for size, found in counts.items()}

    def mode_shares(self) -> tuple[float, ...]:
        """Share of the rows that were sent in each mode; empty where there is one."""
        if len(self._modes) == 1:
            return ()
        return tuple((self._mode_rows / max(int(self._mode_rows.sum()), 1)).tolist())

    def token_statistics(self) -> TokenStatistics:
        """Mean and variance of all tokens that were added."""
        mean = self._token_sum / self._token_rows
        variance = np.maximum(self._token_squares / self._token_rows - mean**2, 0.0)
        return TokenStatistics(tuple(mean.tolist()), tuple(variance.tolist()))


def loss_shares(
    terms: Mapping[str, float], loss: LossRecipe, link: LinkRecipe, beside: Mapping[str, float] | None = None
) -> dict[str, float]:
    """What each weighted term contributes to the loss: absolute shares that sum to 1.

    The usage entropy is raised, and enters by what it lacks of ln K: the loss less a constant, with the same gradient. As it
    stands it would be the largest term of every healthy run, where it pulls least. Of several codebooks it is the mean.

    Parameters
    ----------
    terms : mapping of name to float
        Unweighted terms of an epoch; the total, `loss`, is passed over.
    loss : LossRecipe
        The weights in force.
    beside : mapping of name to float, optional
        Weighted terms that are not the link's: those of a bottleneck.

    Examples
    --------
    >>> link = LinkRecipe(tokens=2, codewords=4, dim=4, order=4)
    >>> loss_shares({"task": 0.75, "commitment": 0.5}, LossRecipe(lambda_vq=0.5), link)
    {'task': 0.75, 'commitment': 0.25}
    """
    parts = {}
    most = sum(map(math.log, link.codebook_sizes)) / len(link.codebook_sizes)
    for name, value in terms.items():
        if name == "loss":
            continue
        weight = 1.0 if name == "task" else float(getattr(loss, weight_key(name).removeprefix("loss.")))
        parts[name] = weight * abs(most - value if name == "usage" else value)
    parts |= {name: abs(value) for name, value in (beside or {}).items()}
    total = sum(parts.values())
    return {name: part / total if total else 0.0 for name, part in parts.items()}


def weight_key(term: str) -> str:
    """The recipe's key of a term's weight.

    Examples
    --------
    >>> weight_key("commitment"), weight_key("energy")
    ('loss.lambda_vq', 'loss.lambda_energy')
    """
    if term in _LATENT_KEYS:
        return f"bottleneck.{_LATENT_KEYS[term]}"
    return f"loss.{_WEIGHT_KEYS.get(term, f'lambda_{term}')}"


@cache
def _theory(order: int, demapper: Literal["max-log", "app"]) -> Callable[[np.ndarray], np.ndarray]:
    """Mean |LLR| against Es/N0 in dB, its logarithm interpolated from a table."""
    grid = np.arange(-30.0, 60.5, 0.5)
    values = np.log(mean_abs_llr(order, grid, demapper=demapper))
    return lambda snr_db: np.exp(np.interp(snr_db, grid, values))
