"""What a run over a radio found, counted as it goes on."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from link.constellation import bits_per_symbol
from link.montecarlo import ClusterSums, Proportion, cluster_sums
from link.radio.channel import Drop
from link.radio.modem.demodulator import ReceivedFrame
from link.radio.modem.frame import MODES, as_pairs, decide
from link.radio.operation.frame_log import LlrDigest
from link.radio.operation.traffic import Decided

_MOMENTS_MAX: Final = 1 << 14
"""Of the history: beyond it two neighbours become one."""
_SHOWN_SYMBOLS: Final = 1 << 14
"""Of the constellation: the last ones."""


class RunFigures(BaseModel):
    """Counts and means of a run.

    Attributes
    ----------
    seconds : float
    exchanges, frames, lost, crc_failed, headers_lost, other_versions, gaps, clipped, reconnects : int
        Frames are those sent; `lost` of them were not found, `crc_failed` came, but not whole.
    samples, symbols, payload_symbols : int
        Sent: all samples, all symbols of the frames, and those that carry payload.
    snr_db : float or None
        Es/N0 behind the equaliser, by the mean of the noise variances, dB. This, EVM, CFO and clock are of the frames
        received, None where none was.
    evm : float or None
        Root mean square.
    cfo : float or None
        Mean carrier frequency offset, cycles a sample.
    clock_ppm : float or None
        Mean of what the receiver's clock is faster by.
    papr_db : float or None
        Largest peak over mean power of a burst.
    bits, bit_errors : int
        Of received payloads of a known constellation, by hard decisions; a lost frame has none, and counts as lost.
    ber : Proportion or None
        With the interval over frames.
    decisions, correct : int or None
    accuracy : Proportion or None
        Of a bundle's decisions, those about lost frames among them, with the interval over samples.
    bits_per_symbol, bits_per_frame_symbol : float or None
        Sent, by the symbols of the payload, and by all symbols of the frames: their ratio is the frame's overhead. None
        where the constellation is not known.
    air_bits_s : float or None
        The latter at the front end's sample rate, where it has one.
    frames_s, samples_s : float
        Sent, a second of the run.
    llr_sha256 : str
        Over the LLRs of all frames received, float32, in the order of arrival; a replay's is the same.
    decisions_sha256 : str or None
        Over a bundle's decisions, int64, likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float
    exchanges: int
    frames: int
    lost: int
    crc_failed: int
    headers_lost: int
    other_versions: int
    gaps: int
    clipped: int
    reconnects: int
    samples: int
    symbols: int
    payload_symbols: int
    snr_db: float | None
    evm: float | None
    cfo: float | None
    clock_ppm: float | None
    papr_db: float | None
    bits: int
    bit_errors: int
    ber: Proportion | None
    decisions: int | None
    correct: int | None
    accuracy: Proportion | None
    bits_per_symbol: float | None
    bits_per_frame_symbol: float | None
    air_bits_s: float | None
    frames_s: float
    samples_s: float
    llr_sha256: str
    decisions_sha256: str | None


class Moment(NamedTuple):
    """Exchanges next to each other, as one point in time.

    Attributes
    ----------
    seconds : float
        Since the run began.
    frames, lost : int
    snr_db, cfo, clock_ppm, evm : float
        Means over the frames received; NaN where none was.
    """

    seconds: float
    frames: int
    lost: int
    snr_db: float
    cfo: float
    clock_ppm: float
    evm: float

    @classmethod
    def of(cls, seconds: float, drop: Drop) -> Moment:
        """Of one exchange."""
        frames = list(drop.frames.values())
        sent = len(drop.burst.headers)
        if not frames:
            return cls(seconds, sent, sent, *(math.nan,) * 4)
        return cls(
            seconds,
            sent,
            sent - len(frames),
            _db(np.mean([frame.no.mean() for frame in frames])),
            float(np.mean([frame.cfo for frame in frames])),
            1e6 * float(np.mean([frame.clock for frame in frames])),
            math.sqrt(float(np.mean([frame.evm**2 for frame in frames]))),
        )


def _db(no: Any) -> float:
    return float(-10.0 * np.log10(no))


class RunTally:
    """Counts the drops of a run; `RadioChannel` calls it.

    Parameters
    ----------
    samples_per_symbol : int
    tail_samples : int
        Sent behind each burst.
    now : callable
        Seconds, by a clock that is never set.

    Attributes
    ----------
    order : int or None
        Of the last frame's constellation.
    decided : Decided or None
        To be set by whoever decides.
    reconnects : int
        Likewise.
    sample_rate_hz : float or None
        Likewise.
    """

    def __init__(self, samples_per_symbol: int, tail_samples: int, now: Callable[[], float] = time.monotonic) -> None:
        self.order: int | None = None
        self.decided: Decided | None = None
        self.reconnects = 0
        self.sample_rate_hz: float | None = None
        self._samples_per_symbol = samples_per_symbol
        self._tail = tail_samples
        self._now = now
        self._begun = now()
        self._counts = dict.fromkeys(
            (
                "exchanges", "frames", "lost", "crc_failed", "headers_lost", "other_versions", "gaps", "clipped",
                "samples", "symbols", "payload_symbols",
            ),
            0,
        )  # fmt: skip
        self._sent_bits: int | None = 0
        self._sums = np.zeros(4)  # of no, evm^2, cfo and clock
        self._papr_db: float | None = None
        self._errors = ClusterSums()
        self._llr = LlrDigest()
        self._decisions: Any = None
        self._moments: list[Moment] = []
        self._shown: deque[NDArray[np.float64]] = deque()

    def __call__(self, drop: Drop) -> None:
        """Count a drop."""
        frames = list(drop.frames.values())
        counts = self._counts
        counts["exchanges"] += 1
        counts["frames"] += len(drop.burst.headers)
        counts["lost"] += len(drop.burst.headers) - len(frames)
        counts["crc_failed"] += sum(frame.crc_ok is False for frame in frames)
        counts["headers_lost"] += drop.headers_lost
        counts["other_versions"] += drop.other_versions
        counts["gaps"] += drop.capture.gaps
        counts["clipped"] += drop.capture.clipped
        counts["samples"] += len(drop.burst.samples) + self._tail
        counts["symbols"] += drop.burst.symbols
        counts["payload_symbols"] += sum(header.length for header in drop.burst.headers)
        for header in drop.burst.headers:
            order = MODES[header.mode]
            if order is None or self._sent_bits is None:
                self._sent_bits = None
            else:
                self._sent_bits += header.length * bits_per_symbol(order)
        papr = drop.burst.papr_db
        self._papr_db = papr if self._papr_db is None else max(papr, self._papr_db)
        for place, frame in drop.frames.items():
            self._frame(frame, drop.payloads[place])
        self._remember(Moment.of(self._now() - self._begun, drop))

    def decided_for(self, decisions: NDArray[np.int64]) -> None:
        """Keep what a bundle decided of an exchange."""
        if self._decisions is None:
            self._decisions = hashlib.sha256()
        self._decisions.update(decisions.astype("<i8").tobytes())

    @property
    def frames(self) -> int:
        """Sent so far."""
        return self._counts["frames"]

    @property
    def moments(self) -> list[Moment]:
        """The run's history; on a long one several exchanges are a moment."""
        return self._moments

    @property
    def constellation(self) -> NDArray[np.float64]:
        """The last symbols received of the constellation `order`, (n, 2)."""
        return np.concatenate(list(self._shown)) if self._shown else np.zeros((0, 2))

    @property
    def figures(self) -> RunFigures:
        """What was found so far."""
        counts, seconds = self._counts, self._now() - self._begun
        received = counts["frames"] - counts["lost"]
        no, squared_evm, cfo, clock = self._sums / received if received else (None,) * 4
        bits, decided = self._sent_bits, self.decided
        per_symbol = bits / counts["payload_symbols"] if bits else None
        per_frame_symbol = bits / counts["symbols"] if bits else None
        rate = self.sample_rate_hz
        return RunFigures(
            seconds=seconds,
            **counts,
            reconnects=self.reconnects,
            snr_db=None if no is None else _db(no),
            evm=None if squared_evm is None else math.sqrt(squared_evm),
            cfo=None if cfo is None else float(cfo),
            clock_ppm=None if clock is None else 1e6 * float(clock),
            papr_db=self._papr_db,
            bits=self._errors.trials,
            bit_errors=self._errors.successes,
            ber=self._errors.proportion() if self._errors.trials else None,
            decisions=None if decided is None else decided.decisions,
            correct=None if decided is None else decided.correct,
            accuracy=None if decided is None else decided.accuracy,
            bits_per_symbol=per_symbol,
            bits_per_frame_symbol=per_frame_symbol,
            air_bits_s=None
            if rate is None or per_frame_symbol is None
            else per_frame_symbol * rate / self._samples_per_symbol,
            frames_s=counts["frames"] / seconds if seconds else 0.0,
            samples_s=counts["samples"] / seconds if seconds else 0.0,
            llr_sha256=self._llr.hex,
            decisions_sha256=None if self._decisions is None else self._decisions.hexdigest(),
        )

    def _frame(self, frame: ReceivedFrame, sent: NDArray[np.complex128]) -> None:
        self._sums += frame.no.mean(), frame.evm**2, frame.cfo, frame.clock
        self._llr.add(frame)
        if frame.order is None:
            return
        wrong = np.count_nonzero(decide(frame.payload, frame.order) != decide(sent, frame.order))
        bits = len(sent) * bits_per_symbol(frame.order)
        self._errors = self._errors.plus(cluster_sums([wrong], [bits]))
        if frame.order != self.order:
            self.order = frame.order
            self._shown.clear()
        self._shown.append(as_pairs(frame.payload))
        while sum(map(len, self._shown)) - len(self._shown[0]) >= _SHOWN_SYMBOLS:
            self._shown.popleft()

    def _remember(self, moment: Moment) -> None:
        self._moments.append(moment)
        if len(self._moments) > _MOMENTS_MAX:
            self._moments = [_joined(*pair) for pair in zip(self._moments[::2], self._moments[1::2], strict=False)]


def _joined(first: Moment, second: Moment) -> Moment:
    """Two moments as one: means weighted by the frames received."""
    values = np.array([first[3:], second[3:]])
    weights = np.array([first.frames - first.lost, second.frames - second.lost], dtype=float)
    total = weights.sum()
    means = np.nansum(values * weights[:, None], axis=0) / total if total else np.full(4, math.nan)
    return Moment(second.seconds, first.frames + second.frames, first.lost + second.lost, *means.tolist())
