"""The metrics that tell a collapse before the accuracy does, and their alarms. All entropies in nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from link.bits import group
from link.constellation import bits_per_symbol
from link.theory import mean_abs_llr
from train.losses import assignment_entropy, consistency_loss, entropy
from train.recipe import AlarmRecipe, LinkRecipe
from train.transceiver import Heard, Sent


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


class CollapseMonitor:
    """Collects the counts behind the metrics, batch by batch."""

    def __init__(self, recipe: LinkRecipe) -> None:
        self._recipe = recipe
        self._codeword_counts = torch.zeros(recipe.codewords)
        self._symbol_counts = torch.zeros(recipe.order)
        self._sums = dict.fromkeys(("h_assign", "mean_abs_llr", "theory_llr", "consistency", "energy"), 0.0)
        self._rows = 0

    @torch.no_grad()
    def add(self, soft: Sent, hard: Sent, soft_heard: Heard, hard_heard: Heard, snr_db: np.ndarray) -> None:
        """Count one batch; `snr_db` (B,) is the Es/N0 of each row."""
        recipe = self._recipe
        rows = len(hard.indices)
        self._codeword_counts += functional.one_hot(hard.indices.flatten(), recipe.codewords).sum(dim=0).cpu()
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
        vq_entropy = float(entropy(self._codeword_counts / self._codeword_counts.sum()))
        return CollapseMetrics(
            vq_entropy=vq_entropy,
            h_assign=self._sums["h_assign"] / self._rows,
            symbol_entropy=float(entropy(self._symbol_counts / self._symbol_counts.sum())),
            mean_abs_llr=self._sums["mean_abs_llr"] / self._rows,
            llr_ratio=self._sums["mean_abs_llr"] / self._sums["theory_llr"],
            codes_used=float((self._codeword_counts > 0).double().mean()),
            perplexity=math.exp(vq_entropy),
            consistency=self._sums["consistency"] / self._rows,
            es_db=10.0 * math.log10(self._sums["energy"] / self._rows),
        )


def alarms(metrics: CollapseMetrics, link: LinkRecipe, recipe: AlarmRecipe, *, annealing: bool = False) -> list[str]:
    """What is out of its range, in words; empty when all is well.

    While the temperature still falls (`annealing`) a soft assignment is no alarm.
    """
    if recipe.preset == "published":
        return _published_alarms(metrics)
    found = []
    ln_k, ln_m = math.log(link.codewords), math.log(link.order)
    if metrics.vq_entropy < 0.5 * ln_k:
        found.append(
            f"codeword usage entropy {metrics.vq_entropy:.2f} is under half of ln K = {ln_k:.2f}: few codewords carry all; "
            "raise loss.lambda_entropy"
        )
    if metrics.codes_used < 0.5:
        found.append(f"only {metrics.codes_used:.0%} of the codewords are used; raise quantizer.restart_threshold")
    if metrics.symbol_entropy < 0.5 * ln_m:
        found.append(
            f"symbol usage entropy {metrics.symbol_entropy:.2f} is under half of ln M = {ln_m:.2f}: few points carry all; "
            "raise loss.lambda_entropy"
        )
    if metrics.h_assign > 1.0 and not annealing:
        found.append(
            f"assignment entropy {metrics.h_assign:.2f} is above 1 nat: the surrogate is too soft "
            "to speak for the hard path; raise loss.lambda_assignment"
        )
    if metrics.es_db > 0.5:
        found.append(
            f"symbols carry {metrics.es_db:.2f} dB more energy than the constellation's mean: accuracy is "
            "flattered by as much; raise loss.lambda_energy"
        )
    if not 0.5 <= metrics.llr_ratio <= 2.0:
        found.append(
            f"mean |LLR| is {metrics.llr_ratio:.2f} of its theory value: check the noise variance told to the receiver"
        )
    return found


def _published_alarms(metrics: CollapseMetrics) -> list[str]:
    found = []
    if metrics.vq_entropy < 2.5:
        found.append(f"VQ entropy {metrics.vq_entropy:.2f} is below 2.5")
    if metrics.symbol_entropy < 1.5:
        found.append(f"symbol entropy {metrics.symbol_entropy:.2f} is below 1.5")
    if metrics.mean_abs_llr > 8.0:
        found.append(f"mean |LLR| {metrics.mean_abs_llr:.2f} is above 8")
    return found


@cache
def _theory(order: int, demapper: Literal["max-log", "app"]) -> Callable[[np.ndarray], np.ndarray]:
    """Mean |LLR| against Es/N0 in dB, its logarithm interpolated from a table."""
    grid = np.arange(-30.0, 60.5, 0.5)
    values = np.log(mean_abs_llr(order, grid, demapper=demapper))
    return lambda snr_db: np.exp(np.interp(snr_db, grid, values))
