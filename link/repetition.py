"""Label by repetition: the decided class, its bits in turn, as often as they fit into the semantic link's symbols.

    class ──> ceil(log2 K) bits ──repeat──> QPSK ──> channel ──> LLRs ──sum──> class
                                                                               largest posterior among the K classes

Each sample stands alone. With the fewest symbols that hold the bits it is the uncoded baseline. See link.baseline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from link.baseline import ORDER, BaselinePoint, label_width, send_labels, sweep_baseline
from link.bits import label_bits
from link.channel import Channel
from link.codebook import posterior_logits
from link.constellation import bits_per_symbol
from link.errors import ArgumentError
from link.grid import SweepSpec
from link.randomness import Draws
from link.truth import check_classes

RepetitionPoint = BaselinePoint
"""What one SNR gave."""


class Repetition:
    """Send the bits of a class number in turn; add up the LLRs of each and decide for the most likely class.

    Repeats of a bit lie as far apart as they can, in other symbols and in other fades. Numbers that no class has are never
    answered, although their bits could be received; on ties the lowest class is.

    Parameters
    ----------
    num_classes : int
        At least 2, equally likely.
    num_symbols : int
        QPSK symbols a sample; 2 * num_symbols channel bits, at least ceil(log2 num_classes).

    Raises
    ------
    ArgumentError
        If there are fewer than two classes, or too few symbols for their bits.
    """

    def __init__(self, num_classes: int, num_symbols: int) -> None:
        width = label_width(num_classes)
        capacity = num_symbols * bits_per_symbol(ORDER)
        if capacity < width:
            raise ArgumentError(
                "num_symbols", f"must be at least {-(-width // 2)} to carry {num_classes} classes, got {num_symbols}"
            )
        self.num_symbols = num_symbols
        self._bits_of_class = label_bits(np.arange(num_classes), width)
        self._position = np.arange(capacity, dtype=np.int64) % width

    @property
    def times(self) -> NDArray[np.int64]:
        """How often each bit of a class number is sent."""
        return np.bincount(self._position, minlength=self._bits_of_class.shape[1]).astype(np.int64)

    def encode(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._bits_of_class[labels][..., self._position]

    def decode(self, llr: NDArray[np.float64]) -> NDArray[np.int64]:
        # Repeats of a bit fail independently given the channel, so their LLRs add up.
        combined = llr @ (self._position[:, None] == np.arange(self._bits_of_class.shape[1])).astype(np.float64)
        scores = posterior_logits(combined, self._bits_of_class.astype(np.float64), np.zeros(len(self._bits_of_class)))
        return np.asarray(np.argmax(scores, axis=-1), dtype=np.int64)


def uncoded(num_classes: int) -> Repetition:
    """Each bit of a class number once, over the fewest symbols; where the last symbol has a bit to spare, the first again.

    Examples
    --------
    >>> uncoded(10).num_symbols, uncoded(5).times
    (2, array([2, 1, 1]))
    """
    return Repetition(num_classes, -(-label_width(num_classes) // bits_per_symbol(ORDER)))


def repetition_link(
    decisions: ArrayLike, num_classes: int, num_symbols: int, channel: Channel, snr_db: float, draws: Draws
) -> NDArray[np.int64]:
    """Send class numbers by repetition and decide softly.

    Parameters
    ----------
    decisions : (B,) int
        Class decided at the transmitter, in [0, num_classes).
    num_classes, num_symbols : int
        See `Repetition`.
    channel : Channel
    snr_db : float
        Es/N0, dB.
    draws : Draws
        One sample number a row.

    Returns
    -------
    (B,) int64
        The class with the largest posterior under a uniform prior; the lowest on ties.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """
    scheme = Repetition(num_classes, num_symbols)
    sent = check_classes("decisions", decisions, None, num_classes)
    return send_labels(sent[:, None], scheme, channel, snr_db, draws)[0][:, 0]


def repeats(num_classes: int, num_symbols: int) -> NDArray[np.int64]:
    """How often each bit of a class number is sent, (ceil(log2 num_classes),): no two differ by more than one.

    Examples
    --------
    >>> repeats(10, 7)
    array([4, 4, 3, 3])
    """
    return Repetition(num_classes, num_symbols).times


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
    """Label by repetition at each point of a sweep; arguments as for `repetition_link` and link.baseline.sweep_baseline."""
    return sweep_baseline(Repetition(num_classes, num_symbols), decisions, labels, spec, num_classes=num_classes)


def sweep_uncoded(
    decisions: ArrayLike, labels: ArrayLike, spec: SweepSpec, *, num_classes: int
) -> tuple[RepetitionPoint, ...]:
    """The uncoded label at each point of a sweep: what can be done with the fewest symbols."""
    return sweep_baseline(uncoded(num_classes), decisions, labels, spec, num_classes=num_classes)
