"""Soft against hard: whether the surrogate that was trained and the path that is deployed answer alike.

At each SNR both paths send every sample through the same noise, draw after draw, until `link.sequential` has decided whether
the hard path is worse than the soft one by the margin. The soft path is the checkpoint's surrogate and receiver in torch;
the hard path is the two exported graphs. Soft symbols carry less energy than hard ones against the same noise and are not
renormalised, so at low SNR the hard path may be the better one; `h_assign` and the two energies say how soft they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.channel.awgn import add_noise
from link.channel.base import erase_unsent
from link.manifest import HeaderSpec
from link.randomness import Draws, Stream
from link.runtime import Receiver, Transmission
from link.sequential import DifferenceTest, Verdict
from link.snr import NO_MIN, millidecibels, no_from_esn0_db
from link.truth import UNJUDGED
from train.agreement import ROWS, Frozen, parts
from train.losses import assignment_entropy, entropy
from train.routing import carried
from train.transceiver import Transceiver


class PointResult(Frozen):
    """Soft against hard at one SNR.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    draws, decisions : int
        Times that all samples were sent, and decisions of each path.
    acc_soft, acc_hard, delta : float
        delta = acc_soft - acc_hard.
    low, high : float
        Confidence interval for delta, over channel noise for these samples, valid although the draws were stopped.
    soft_only, hard_only : int
        Decisions that one path alone got right.
    verdict, two_sided : Verdict
        Of delta < margin, and of |delta| < margin.
    """

    snr_db: float
    draws: int
    decisions: int
    acc_soft: float
    acc_hard: float
    delta: float
    low: float
    high: float
    soft_only: int
    hard_only: int
    verdict: Verdict
    two_sided: Verdict


class Surrogate(Frozen):
    """How soft the soft path is.

    Attributes
    ----------
    temperature : float
    h_assign : float
        Mean entropy of the assignment, nats.
    soft_es_db, hard_es_db : float
        Mean energy of the symbols that each path sends for these samples, dB relative to 1, the mean over the constellation.
        The hard path's is not 0 where the codewords' usage prefers inner or outer points.
    """

    temperature: float
    h_assign: float
    soft_es_db: float
    hard_es_db: float


class Paths(NamedTuple):
    """Both paths, encoded once.

    Attributes
    ----------
    model : Transceiver
        Decodes what the surrogate sent.
    soft_symbols : (n, S, 2) float32
    receiver : Receiver
        Decodes what was sent hard.
    sent : Transmission
    labels : (n,) or (n, T) int64
    header : HeaderSpec, optional
        Where there are several modes. Both paths are sent in the modes of the hard one, and their headers share one fate.
    side : mapping of name to (n, ...) array
        What the receiver has of its own, in the order of its inputs.
    """

    model: Transceiver
    soft_symbols: NDArray[np.float32]
    receiver: Receiver
    sent: Transmission
    labels: NDArray[np.int64]
    header: HeaderSpec | None = None
    side: Mapping[str, NDArray[Any]] = MappingProxyType({})

    @torch.no_grad()
    def correct(self, snr_db: float, seed: int, draw: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether the soft and the hard path decide each label correctly on one draw of noise, in its shape each."""
        rows, length = self.sent.symbols.shape[:2]
        no = max(no_from_esn0_db(snr_db), NO_MIN)
        draws = Draws(seed, np.arange(rows), draw)
        normals = draws.normals(Stream.NOISE, millidecibels(snr_db), length)
        decoded, taken = self.sent.mode, None
        if self.header is not None:
            mode, rates = self.sent.mode, self.model.recipe.rates
            outcome = carried(self.model, self.header, torch.from_numpy(mode), snr_db, draws)
            sizes = np.array([rate.num_symbols for rate in rates])
            decoded = outcome.mode
            taken = np.where(outcome.lost, 0, np.minimum(sizes[mode], sizes[decoded]))
        soft, hard = np.empty(self.labels.shape, dtype=bool), np.empty(self.labels.shape, dtype=bool)
        for part in parts(rows, max(1, ROWS // (self.labels.size // rows))):
            y_soft, y_hard = (
                add_noise(x[part], no, normals[part]).astype(np.float32) for x in (self.soft_symbols, self.sent.symbols)
            )
            variances = np.full(y_hard.shape[:-1], no, dtype=np.float32)
            mode_in = None
            if taken is not None:
                y_soft, _ = erase_unsent(y_soft, variances, taken[part])
                y_hard, variances = erase_unsent(y_hard, variances, taken[part])
                mode_in = torch.from_numpy(decoded[part])
            side = {name: values[part] for name, values in self.side.items()}
            own = [torch.from_numpy(values) for values in side.values()]
            heard = self.model.receive(torch.from_numpy(y_soft), torch.from_numpy(variances), mode=mode_in, side=own)
            soft[part] = heard.logits.argmax(dim=-1).numpy() == self.labels[part]
            answer = self.receiver(y_hard, variances, decoded[part], inputs=side)
            hard[part] = answer.decisions == self.labels[part]
        return soft, hard


@torch.no_grad()
def surrogate(
    model: Transceiver,
    inputs: Sequence[Tensor],
    temperature: float,
    hard_symbols: NDArray[np.float32],
    symbol_temperature: float = 1.0,
    mode: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], Surrogate]:
    """The soft path's symbols (n, S, 2), in given modes where there are several, and how soft they are."""
    rows = len(inputs[0])
    symbols, mean_entropy = [], 0.0
    tokens = np.array([rate.tokens for rate in model.recipe.rates])[np.zeros(rows, np.int64) if mode is None else mode]
    for part in parts(rows):
        modes = None if mode is None else torch.from_numpy(mode[part])
        encoded = model.encode(*(tensor[part] for tensor in inputs))
        sent = model.send_soft(encoded, temperature, symbol_temperature, modes)
        symbols.append(sent.symbols.numpy())
        if mode is None:
            mean_entropy += float(assignment_entropy(sent.probabilities)) * len(sent.symbols) / rows
        else:  # what pads a sample to the tokens of the largest mode has no entropy
            mean_entropy += float(entropy(sent.probabilities).sum()) / float(tokens.sum())
    soft_symbols = np.concatenate(symbols)
    count = soft_symbols.shape[0] * soft_symbols.shape[1]
    if mode is not None:
        count = int(np.array([rate.num_symbols for rate in model.recipe.rates])[mode].sum())
    return soft_symbols, Surrogate(
        temperature=temperature,
        h_assign=mean_entropy,
        soft_es_db=_energy_db(soft_symbols, count),
        hard_es_db=_energy_db(hard_symbols, count),
    )


def compare_at(
    paths: Paths,
    snr_db: float,
    test: DifferenceTest,
    seed: int,
    max_draws: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> PointResult:
    """Draw noise at one SNR until the test is settled or the draws run out.

    Parameters
    ----------
    paths : Paths
    snr_db : float
        Es/N0, dB.
    test : DifferenceTest
        Fresh.
    seed : int
    max_draws : int
    progress : callable
        Told the share of the draws that is spent.
    """
    correct = np.zeros(2, dtype=np.int64)
    while not test.settled and test.draws < max_draws:
        soft, hard = paths.correct(snr_db, seed, test.draws)
        test.update(soft, hard)
        correct += (int(soft.sum()), int(hard.sum()))
        progress(test.draws / max_draws)
    decisions = test.draws * int(np.count_nonzero(paths.labels != UNJUDGED))
    acc_soft, acc_hard = (float(count) / decisions for count in correct)
    interval = test.interval()
    return PointResult(
        snr_db=snr_db,
        draws=test.draws,
        decisions=decisions,
        acc_soft=acc_soft,
        acc_hard=acc_hard,
        delta=acc_soft - acc_hard,
        low=float(interval.low),
        high=float(interval.high),
        soft_only=int(np.asarray(test.counts.plus)),
        hard_only=int(np.asarray(test.counts.minus)),
        verdict=test.verdict,
        two_sided=test.two_sided,
    )


def _energy_db(symbols: NDArray[np.float32], count: int) -> float:
    """Mean |x|^2 of so many symbols in dB; the floor stands for symbols that are all 0."""
    return 10.0 * math.log10(max(float(np.square(symbols, dtype=np.float64).sum()) / count, 1e-30))
