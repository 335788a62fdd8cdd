"""One case of a link over GNU Radio: frames of random payload, and what came of them.

payloads ──modem──> samples ──ZMQ──> GNU Radio ──ZMQ──> samples ──modem──> bits, LLRs, noise variance ──> counts
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.radio.flowgraph import Flowgraph, Stage
from link.bits import label_bits
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.radio.channel import RadioChannel
from link.radio.modem.frame import as_complex, as_pairs
from link.radio.modem.options import ModemOptions
from link.radio.spec import RadioSpec
from link.randomness import Draws, Stream

PAYLOAD_SYMBOLS: Final = 1024
BINS: Final = 20
"""Of the probability that an LLR claims, all of one width."""


class Case(NamedTuple):
    """What became of a case's frames.

    Attributes
    ----------
    frames, found : int
        Sent, and received.
    bit_errors, bits : int
        Of the frames that were received.
    squared_error : float
        Sum of |y - x|^2 over payload symbols.
    told : float
        Sum of the noise variances told for them.
    claimed, ones, counts : (BINS,) float64
        By the probability that the LLR claims: its sum, how many bits were one, how many there were.
    clocks_ppm, cfos : list of float
        Of each frame received.
    crc_ok : int
    """

    frames: int
    found: int
    bit_errors: int
    bits: int
    squared_error: float
    told: float
    claimed: NDArray[np.float64]
    ones: NDArray[np.float64]
    counts: NDArray[np.float64]
    clocks_ppm: list[float]
    cfos: list[float]
    crc_ok: int

    @property
    def ber(self) -> float:
        """Bit error rate of the frames received."""
        return self.bit_errors / self.bits if self.bits else float("nan")

    @property
    def told_db(self) -> float:
        """What the receiver is told of the noise, over what there is, dB."""
        return float(10.0 * np.log10(self.told / self.squared_error))

    @property
    def sinr_db(self) -> float:
        """Es over the mean square error of the payload, dB."""
        return float(-10.0 * np.log10(self.squared_error / (self.bits / self._width)))

    @property
    def _width(self) -> int:
        return round(self.bits / (self.found * PAYLOAD_SYMBOLS))

    @property
    def miscalibration(self) -> float:
        """Mean over bits of |share of ones - probability claimed|, bin by bin."""
        return float(np.sum(np.abs(self.ones - self.claimed)) / np.sum(self.counts))


def random_payloads(frames: int, order: int, seed: int) -> tuple[list[NDArray[np.complex128]], NDArray[np.uint8]]:
    """Payloads of fair bits, and the bits, (frames, symbols, m)."""
    width = bits_per_symbol(order)
    bits = Draws(seed, np.arange(frames)).bits(Stream.BITS, 0, PAYLOAD_SYMBOLS * width)
    bits = bits.reshape(frames, PAYLOAD_SYMBOLS, width)
    return list(as_complex(map_bits(bits.astype(np.float64)))), bits


def run_case(
    stages: Sequence[Stage],
    *,
    frames: int,
    order: int = 16,
    modem: ModemOptions | None = None,
    seed: int = 0,
    frames_a_burst: int = 50,
) -> Case:
    """Send frames through GNU Radio and count."""
    payloads, bits = random_payloads(frames, order, seed)
    with Flowgraph(stages) as graph:
        frontend = {"kind": "zmq", **graph.options}
        spec = RadioSpec(frontend=frontend, modem=modem or ModemOptions(), tail_samples=2048, timeout_s=10.0)
        with RadioChannel(spec) as radio:
            return count(radio, payloads, bits, order, frames_a_burst)


def count(
    radio: RadioChannel,
    payloads: list[NDArray[np.complex128]],
    bits: NDArray[np.uint8],
    order: int,
    frames_a_burst: int,
) -> Case:
    """Send payloads over a radio, and count."""
    found = errors = judged = crc_ok = 0
    squared = told = 0.0
    claimed, ones, counts = (np.zeros(BINS) for _ in range(3))
    clocks: list[float] = []
    cfos: list[float] = []
    for first in range(0, len(payloads), frames_a_burst):
        part = payloads[first : first + frames_a_burst]
        drop = radio.drop(part, None, Draws(0, np.array([first])))
        for place, frame in drop.frames.items():
            sent, x = bits[first + place], part[place]
            llr = max_log_llr(as_pairs(frame.payload), frame.no, order)
            found += 1
            crc_ok += bool(frame.crc_ok)
            errors += int(np.count_nonzero((llr > 0) != sent))
            judged += sent.size
            squared += float(np.sum(np.abs(frame.payload - x) ** 2))
            told += float(frame.no.sum())
            probability = expit(llr.ravel())
            which = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
            claimed += np.bincount(which, probability, BINS)
            ones += np.bincount(which, sent.ravel(), BINS)
            counts += np.bincount(which, minlength=BINS)
            clocks.append(frame.clock * 1e6)
            cfos.append(frame.cfo)
    return Case(len(payloads), found, errors, judged, squared, told, claimed, ones, counts, clocks, cfos, crc_ok)


def labels(order: int) -> NDArray[np.uint8]:
    """Bits of each point, (order, m)."""
    return label_bits(np.arange(order), bits_per_symbol(order))
