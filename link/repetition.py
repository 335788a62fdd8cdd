"""The baseline that a semantic link has to beat: decide at the transmitter, send the decision.

    decision ──> ceil(log2 K) bits ──repeat──> QPSK ──> channel ──> LLRs ──sum──> class
                 class number, MSB first       same symbols, same channel,        largest posterior
                                               same noise as the semantic link    among the K classes

It spends exactly the semantic link's symbols, and the channel is the very object (noise, and pilots where gains are
estimated, addressed by the same seed, sample, draw and SNR), so the two curves differ in what was sent and in nothing else.
The transmitter must run the whole model, and the receiver learns the class and nothing more: that is what it gives up.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import ndtr

from link.bits import group, label_bits, ungroup
from link.channel import Channel
from link.codebook import posterior_logits
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.errors import ArgumentError
from link.grid import SweepSpec
from link.montecarlo import Proportion
from link.randomness import Draws
from link.sweep import accuracies, check_classes, receptions

ORDER: Final = 4
"""QPSK: of all square QAM the one whose bits share no power, and whose max-log LLRs are exact."""

_CHUNK_ROWS: Final = 4096


class RepetitionPoint(BaseModel):
    """What one SNR gave; fields as in link.results.SweepPoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    snr_db: float
    samples: int
    draws: int
    decisions: int
    correct: int
    accuracy: Proportion
    accuracy_noise: Proportion
    symbols: int
    symbols_per_sample: float
    bits_per_sample: float


def repetition_link(
    decisions: ArrayLike, num_classes: int, num_symbols: int, channel: Channel, snr_db: float, draws: Draws
) -> NDArray[np.int64]:
    """Send class numbers by repetition and decide softly.

    Parameters
    ----------
    decisions : (B,) int
        Class decided at the transmitter, in [0, num_classes).
    num_classes : int
        At least 2.
    num_symbols : int
        QPSK symbols a sample; 2 * num_symbols channel bits, at least ceil(log2 num_classes).
    channel : Channel
    snr_db : float
        Es/N0, dB.
    draws : Draws
        One sample number a row.

    Returns
    -------
    (B,) int64
        The class with the largest posterior under a uniform prior; the lowest on ties. Numbers that no class has are never
        answered, although their bits could be received.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """
    bits_of_class, position = _code(num_classes, num_symbols)
    sent = check_classes("decisions", decisions, None, num_classes)
    x = map_bits(group(bits_of_class[sent][:, position].astype(np.float32), bits_per_symbol(ORDER)))
    received = channel(x, np.full(len(sent), num_symbols, dtype=np.int64), snr_db, draws)
    llr = ungroup(max_log_llr(received.y.astype(np.float64), received.no.astype(np.float64), ORDER), len(position))
    # Repeats of a bit fail independently given the channel, so their LLRs add up.
    combined = llr @ (position[:, None] == np.arange(bits_of_class.shape[1])).astype(np.float64)
    scores = posterior_logits(combined, bits_of_class.astype(np.float64), np.zeros(num_classes))
    answers: NDArray[np.int64] = np.argmax(scores, axis=-1).astype(np.int64)
    return answers


def repeats(num_classes: int, num_symbols: int) -> NDArray[np.int64]:
    """How often each bit of a class number is sent, (ceil(log2 num_classes),): no two differ by more than one.

    Examples
    --------
    >>> repeats(10, 7)
    array([4, 4, 3, 3])
    """
    bits_of_class, position = _code(num_classes, num_symbols)
    return np.bincount(position, minlength=bits_of_class.shape[1]).astype(np.int64)


def repetition_ber(esn0_db: ArrayLike, times: ArrayLike) -> NDArray[np.float64]:
    """Error rate of a bit that is sent `times` over QPSK and AWGN, and combined softly: Q(sqrt(times Es/N0)).

    A QPSK bit has amplitude sqrt(1/2) in noise of variance N0/2; the sum of r looks has r times the amplitude and r times
    the variance.

    Examples
    --------
    >>> repetition_ber(0.0, [1, 4]).round(4)
    array([0.1587, 0.0228])
    """
    esn0 = 10.0 ** (np.asarray(esn0_db, dtype=np.float64) / 10.0)
    return np.asarray(ndtr(-np.sqrt(np.asarray(times, dtype=np.float64) * esn0)))


def sweep_repetition(
    decisions: ArrayLike, labels: ArrayLike, spec: SweepSpec, *, num_classes: int, num_symbols: int
) -> tuple[RepetitionPoint, ...]:
    """The baseline at each point of a sweep, to lay beside it.

    Parameters
    ----------
    decisions : (n,) int
        What the model decides at the transmitter, in [0, num_classes).
    labels : (n,) int
        The right classes; rows as in the sweep, since a row is a sample's number.
    spec : SweepSpec
        The sweep's own.
    num_classes, num_symbols : int
        See `repetition_link`; give the semantic link's symbols a sample.

    Returns
    -------
    tuple of RepetitionPoint
        In the order of the grid.
    """
    decided = check_classes("decisions", decisions, None, num_classes)
    truth = check_classes("labels", labels, len(decided), num_classes)
    channel = spec.build_channel()
    sent_symbols = num_symbols + spec.pilot_symbols(num_symbols)
    points = []
    for snr_db in spec.snr_db:
        correct = np.empty(len(truth) * spec.draws, np.bool_)
        for place, sample, draw in receptions(len(truth), spec.draws, _CHUNK_ROWS):
            answers = repetition_link(
                decided[sample], num_classes, num_symbols, channel, snr_db, Draws(spec.seed, sample, draw)
            )
            correct[place] = answers == truth[sample]
        accuracy, accuracy_noise = accuracies(correct.reshape(spec.draws, len(truth)), spec)
        points.append(
            RepetitionPoint(
                snr_db=snr_db,
                samples=len(truth),
                draws=spec.draws,
                decisions=correct.size,
                correct=int(correct.sum()),
                accuracy=accuracy,
                accuracy_noise=accuracy_noise,
                symbols=sent_symbols * correct.size,
                symbols_per_sample=float(sent_symbols),
                bits_per_sample=float(num_symbols * bits_per_symbol(ORDER)),
            )
        )
    return tuple(points)


def _code(num_classes: int, num_symbols: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bits of each class number, (K, k), and which of the k each channel bit repeats, (2 num_symbols,).

    The k bits take turns, so that the repeats of one lie as far apart as they can: in other symbols, and in other fades.
    """
    if num_classes < 2:
        raise ArgumentError("num_classes", f"must be at least 2, got {num_classes}")
    width = (num_classes - 1).bit_length()
    capacity = num_symbols * bits_per_symbol(ORDER)
    if capacity < width:
        raise ArgumentError(
            "num_symbols", f"must be at least {-(-width // 2)} to carry {num_classes} classes, got {num_symbols}"
        )
    return label_bits(np.arange(num_classes), width), np.arange(capacity, dtype=np.int64) % width
