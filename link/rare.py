"""Bit error rates too small to count: importance sampling of the noise of uncoded QAM over AWGN.

Noise is drawn where it does harm, and each error counts by how much likelier it was drawn than it is. In each dimension the
rate is a mean over the amplitudes a sent and the noise v, in deviations of the noise,

    BER = E_p[share of wrong bits],    p(a, v) = phi(v) / L          L amplitudes of a dimension

and samples come from a mixture q of Gaussians that each go with one amplitude: for each a one without a shift, so that no
weight p / q exceeds 1 / DEFENSIVE whatever the receiver does, and one shifted to the nearest point on either side at which
the receiver decides any bit wrongly. Those are the dominating points of large deviations: near them nearly all errors lie
(Bucklew 2004, "Introduction to Rare Event Simulation", chapter 5; Sadowsky and Bucklew 1990, IEEE Trans. Inf. Theory
36(3)). Each component gets a fixed number of the samples of a block, and its samples are weighted by the density of
all of them, the balance heuristic of multiple importance sampling (Veach and Guibas 1995, "Optimally combining sampling
techniques for Monte Carlo rendering"; Owen and Zhou 2000, "Safe and effective importance sampling", JASA 95). So

    BER_hat = mean of p(a, v) / q(a, v) [share of wrong bits]

is unbiased wherever the components are put; where they are put decides its variance alone. Wrong bits are those of
link.constellation's demappers in double precision, told the noise variance that the receiver is told. So this simulates a
receiver and evaluates no formula, and holds where none is known: for the exact demapper that is told a wrong variance.

The variance of a sample over BER^2 grows as 1.25 t for a threshold that lies t deviations away, and for plain counting as
1 / BER: 10 % at a BER of 1e-9 takes some milliseconds. Components and counts are the same for all blocks of a point, so
blocks are independent and alike, and any of them can be run again alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp, ndtri

from link.bits import label_bits
from link.constellation import app_llr, bits_per_symbol, map_bits, max_log_llr, unit_amplitude
from link.errors import ArgumentError, require_range
from link.montecarlo import CONFIDENCE, Proportion
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db, told_no

Demapper: TypeAlias = Literal["max-log", "app"]

BLOCK_SYMBOLS: Final = 16_384
"""Symbols of a block, each of two samples: one a dimension."""
DEFENSIVE: Final = 0.1
"""Share of the samples whose noise is not shifted."""
BER_MIN: Final = 1e-290
"""Rates below it are refused: float64 ends at 1e-308, and variances are small against their rates."""

# Share of the samples that go to all shifted components alike; the others go by what errors each stands for.
_EVEN: Final = 0.1
_DEMAPPERS: Final = {"max-log": max_log_llr, "app": app_llr}
# Decisions are looked at every 1/64 of d, from d beyond the outermost amplitudes; then edges are bisected to rounding.
_SCAN_STEPS: Final = 64
_BISECTIONS: Final = 60


class RareSums(NamedTuple):
    """What one block found, or several together.

    Attributes
    ----------
    symbols : int
        Symbols drawn.
    log_scale : float
        Natural logarithm of the unit of the weights below, the same for all blocks of a point; keeps them near 1.
    weighted : float
        Sum over samples of weight x share of wrong bits.
    squares : float
        Sum of the squares of those.
    plain : float
        Sum of weight x share^2: what plain counting would find as its mean square, in units of log_scale.
    """

    symbols: int
    log_scale: float
    weighted: float
    squares: float
    plain: float


class RareEstimate(NamedTuple):
    """A bit error rate by importance sampling.

    Attributes
    ----------
    ber : Proportion
        Mean over samples, and mean -+ z standard errors, as if samples were drawn from the mixture one by one; that their
        counts are fixed can only lower the variance.
    symbols : int
        Symbols drawn.
    effective_errors : float
        (sum of weights)^2 / sum of squared weights over errors: how many errors of equal weight would vary as much.
    equivalent_symbols : float
        Symbols of plain counting that would give the same standard error; the gain is this over `symbols`.
    """

    ber: Proportion
    symbols: int
    effective_errors: float
    equivalent_symbols: float

    @property
    def gain(self) -> float:
        """Symbols of plain counting that one symbol stands for."""
        return self.equivalent_symbols / self.symbols

    @property
    def rel_half_width(self) -> float:
        """Half the interval's width over the value; inf where no error was drawn."""
        return (self.ber.high - self.ber.value) / self.ber.value if self.ber.value else math.inf


def rare_ber(
    order: int,
    snr_db: float,
    demapper: Demapper = "max-log",
    no_offset_db: float = 0.0,
    *,
    rel_half_width: float = 0.1,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    blocks_max: int = 10_000,
) -> RareEstimate:
    """Simulate until the interval is narrow enough.

    Parameters
    ----------
    order : int
        QAM order.
    snr_db : float
        Es/N0, dB, in [-30, 60].
    demapper : {"max-log", "app"}
    no_offset_db : float
        The noise variance that the demapper is told lies above the true one by this, dB, in [-30, 30].
    rel_half_width : float
        Half the interval's width over the value, to be reached at the end of a whole block; in [1e-4, 1].
    confidence : float
        In (0, 1). A rule that looks at the variance so far keeps it in the limit of narrow intervals (Chow and Robbins 1965,
        "On the asymptotic theory of fixed-width sequential confidence intervals for the mean", Ann. Math. Stat. 36).
    seed : int
        In [0, 2**63).
    blocks_max : int
        Ends a point that needs more, with the interval it has.

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the error rate below 1e-290.

    Examples
    --------
    >>> estimate = rare_ber(16, 22.5)
    >>> f"{estimate.ber.value:.2e} in [{estimate.ber.low:.2e}, {estimate.ber.high:.2e}]", estimate.symbols
    ('9.02e-10 in [8.74e-10, 9.29e-10]', 16384)
    """
    require_range("rel_half_width", rel_half_width, 1e-4, 1.0)
    require_range("blocks_max", blocks_max, 1, 2**32)
    sums: list[RareSums] = []
    while True:
        sums.append(rare_block(order, snr_db, demapper, no_offset_db, seed, len(sums)))
        estimate = rare_estimate(sums, confidence)
        if estimate.rel_half_width <= rel_half_width or len(sums) >= blocks_max:
            return estimate


def rare_block(order: int, snr_db: float, demapper: Demapper, no_offset_db: float, seed: int, block: int) -> RareSums:
    """One block of a point: the same numbers whenever and wherever it is run.

    Parameters
    ----------
    order, snr_db, demapper, no_offset_db, seed
        As for `rare_ber`.
    block : int
        In [0, 2**32).

    Examples
    --------
    >>> rare_block(4, 12.6, "max-log", 0.0, 7, 3) == rare_block(4, 12.6, "max-log", 0.0, 7, 3)
    True
    """
    plan = _plan(order, snr_db, demapper, no_offset_db)
    draws = Draws(seed, np.array([block]))
    normals = draws.normals(Stream.RARE, millidecibels(snr_db), BLOCK_SYMBOLS).reshape(-1)
    noise = plan.shift + normals
    decided = plan.receiver.decide(plan.receiver.amplitudes[plan.sent] + plan.deviation * noise)
    share = np.mean(decided != plan.receiver.labels[plan.sent], axis=-1)
    # phi(v - m) / phi(v) = exp(m v - m^2 / 2): no difference of large squares.
    mixture = plan.log_shares[plan.sent] + plan.shifts[plan.sent] * noise[:, None]
    weighted = np.exp(-np.logaddexp.reduce(mixture, axis=1) - plan.log_scale) * share
    return RareSums(
        symbols=BLOCK_SYMBOLS,
        log_scale=plan.log_scale,
        weighted=math.fsum(weighted),
        squares=math.fsum(weighted * weighted),
        plain=math.fsum(weighted * share),
    )


def rare_estimate(blocks: Sequence[RareSums], confidence: float = CONFIDENCE) -> RareEstimate:
    """Put blocks of one point together, in any order.

    Raises
    ------
    ArgumentError
        If there is none, or they are of several points.
    """
    points = len({sums.log_scale for sums in blocks})
    if points != 1:
        raise ArgumentError("blocks", f"must be one or more of one point, got {len(blocks)} of {points}")
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", f"must be in (0, 1), got {confidence:g}")
    symbols, log_scale = sum(sums.symbols for sums in blocks), blocks[0].log_scale
    weighted, squares, plain = (
        math.fsum(column)
        for column in zip(*((sums.weighted, sums.squares, sums.plain) for sums in blocks), strict=True)
    )
    samples, scale = 2 * symbols, math.exp(log_scale)
    mean = weighted / samples
    # Of the mean, in units of the scale squared.
    variance = (squares / samples - mean * mean) / (samples - 1)
    half = float(ndtri(0.5 + 0.5 * confidence)) * math.sqrt(variance)
    return RareEstimate(
        ber=Proportion(value=scale * mean, low=scale * max(0.0, mean - half), high=min(1.0, scale * (mean + half))),
        symbols=symbols,
        effective_errors=weighted * weighted / squares if squares else 0.0,
        equivalent_symbols=0.5 * (plain / samples - scale * mean * mean) / (scale * variance) if variance else 0.0,
    )


@dataclass(frozen=True)
class _Receiver:
    """One dimension's amplitudes and the decisions of the demapper.

    Attributes
    ----------
    labels : (L, k) uint8
    amplitudes : (L,) float64
        Of the labels, in their order.
    """

    order: int
    demapper: Demapper
    told: float
    labels: NDArray[np.uint8]
    amplitudes: NDArray[np.float64]

    def decide(self, y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Bits decided for, (n, k), from n received values, an even number."""
        symbols = y.reshape(-1, 2)
        llr = _DEMAPPERS[self.demapper](symbols, np.full(len(symbols), self.told), self.order)
        return np.asarray(np.swapaxes(llr.reshape(len(symbols), -1, 2), 1, 2).reshape(len(y), -1) > 0.0)

    def nearest_errors(self) -> NDArray[np.float64]:
        """Distance from each amplitude to the nearest wrong decision below and above, (L, 2); inf where there is none."""
        levels, step = len(self.amplitudes), unit_amplitude(self.order) / _SCAN_STEPS
        steps = np.arange(-(levels + 1.0) * _SCAN_STEPS, (levels + 1.0) * _SCAN_STEPS)
        wrong = (self.decide(steps * step) != self.labels[:, None, :]).any(axis=-1)
        away = steps - np.rint(self.amplitudes[:, None] / step)
        distances = np.empty((levels, 2))
        for side, direction in enumerate((-1.0, 1.0)):
            outer = np.where(wrong & (direction * away >= 0.0), direction * away, np.inf).min(axis=1) * step
            found, inner = np.isfinite(outer), np.maximum(outer - step, 0.0)
            for _ in range(_BISECTIONS):
                middle = np.where(found, (inner + outer) / 2.0, 0.0)
                beyond = (self.decide(self.amplitudes + direction * middle) != self.labels).any(axis=-1)
                inner, outer = np.where(beyond, inner, middle), np.where(beyond, middle, outer)
            distances[:, side] = np.where(found, outer, np.inf)
        return distances


@dataclass(frozen=True)
class _Plan:
    """Where the noise of a point is drawn; n = 2 BLOCK_SYMBOLS samples a block, three components an amplitude.

    Attributes
    ----------
    deviation : float
        Of the noise of one dimension.
    sent : (n,) int64
        Label of each sample.
    shift : (n,) float64
        Mean of its noise, in deviations, as those below.
    shifts, log_shares : (L, 3) float64
        Of the components: mean m, and the logarithm of L times their share of the samples, less m^2 / 2.
    log_scale : float
        Logarithm of about the error rate.
    """

    receiver: _Receiver
    deviation: float
    sent: NDArray[np.int64]
    shift: NDArray[np.float64]
    shifts: NDArray[np.float64]
    log_shares: NDArray[np.float64]
    log_scale: float


@lru_cache(maxsize=16)
def _plan(order: int, snr_db: float, demapper: Demapper, no_offset_db: float) -> _Plan:
    if demapper not in _DEMAPPERS:
        raise ArgumentError("demapper", f"must be max-log or app, got {demapper!r}")
    k = bits_per_symbol(order) // 2
    no = no_from_esn0_db(snr_db)
    deviation, levels = math.sqrt(no / 2.0), 2**k
    labels = label_bits(np.arange(levels), k)
    amplitudes = map_bits(np.repeat(labels, 2, axis=1)[:, None, :].astype(np.float64))[:, 0, 0]
    receiver = _Receiver(order, demapper, told_no(no, no_offset_db), labels, amplitudes)
    distances = receiver.nearest_errors() / deviation
    log_tails = log_ndtr(-distances)
    log_scale = float(logsumexp(log_tails)) - math.log(levels * k)
    if not log_scale >= math.log(BER_MIN):
        raise ArgumentError(
            "snr_db",
            f"must leave an error rate of at least {BER_MIN:g}, got {snr_db:g}: 10^{log_scale / math.log(10.0):.0f}",
        )
    shifted = np.exp(log_tails - logsumexp(log_tails))
    there = np.isfinite(distances)
    wanted = np.empty((levels, 3))
    wanted[:, 0] = DEFENSIVE / levels
    wanted[:, 1:] = (1.0 - DEFENSIVE - _EVEN) * shifted + _EVEN * there / there.sum()
    shifts = np.zeros((levels, 3))
    shifts[:, 1:] = np.where(there, distances, 0.0) * [-1.0, 1.0]
    samples = 2 * BLOCK_SYMBOLS
    counts = np.diff(np.rint(np.cumsum(wanted.ravel()) * samples), prepend=0.0).astype(np.int64)
    with np.errstate(divide="ignore"):
        log_shares = np.log(levels * counts / samples).reshape(levels, 3) - 0.5 * shifts**2
    component = np.repeat(np.arange(3 * levels), counts)
    return _Plan(receiver, deviation, component // 3, shifts.ravel()[component], shifts, log_shares, log_scale)
