"""From samples to frames.

    samples ──> preambles ──> each frame: channel, equaliser, header ──> clock, over all frames
                                    │
                                    └──> channel again, header and preamble known ──> equaliser ──> phase at the pilots
                                                                                      ──> payload, noise variance, CRC

A frame is lost where no preamble or no header was found. What a frame says of its payload is never guessed: a lost frame is
no frame at all, and whoever sent it knows which numbers are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from link.constellation import max_log_llr
from link.radio.detection import Detection, Detector
from link.radio.equalizer import (
    Equaliser,
    Response,
    Span,
    equalise,
    estimate_impaired,
    estimate_response,
    mmse_equaliser,
    one_tap_equaliser,
)
from link.radio.frame import (
    MODES,
    PILOT,
    VERSION,
    FrameSpec,
    Header,
    Layout,
    add_repeats,
    as_pairs,
    decide,
    layout,
    nearest_points,
    payload_crc,
    preamble,
    read_headers,
    turns,
    write_header,
)
from link.radio.frontend import Samples
from link.radio.noise import estimate_no
from link.radio.pulse import Pulse
from link.radio.sampling import half_symbols
from link.radio.tracking import arrival_shift, pilot_frequency, smooth_phase, timing_slope
from link.snr import NO_MIN

_EQUALISER_MORE: Final = Span(3, 5)
"""Symbols that the equaliser reaches beyond the channel's response."""
_CLOCK_CORRECTED: Final = 20e-6
"""Clock offset of a lone frame above which it is corrected; of several frames in a row it is known better, and always is."""
_CLOCK_STEPS: Final = 3
_CLOCK_MAX: Final = 1e-3
_UNIT_PILOTS: Final = 8
"""Pilots that the equaliser's own gain is worth."""
_MEAN_MAX: Final = 16.0
"""Mean of a recording, in standard deviations of that of white noise, above which it is an offset."""


class ReceiverSpec(BaseModel):
    """What the receiver does. The switches are for seeing what each of its parts is good for.

    Attributes
    ----------
    echoes_before, echoes_behind : int
        Symbols before and behind the strongest path that the channel's response is estimated over.
    correct_cfo, track_phase, equalise, correct_clock : bool
        Without equaliser, one tap at the best instant.
    clock_ppm : float
        What the receiver's clock is known to be faster by, as a calibration finds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    echoes_before: Annotated[int, Field(ge=2, le=16)] = 5
    echoes_behind: Annotated[int, Field(ge=2, le=64)] = 9
    correct_cfo: bool = True
    track_phase: bool = True
    equalise: bool = True
    correct_clock: bool = True
    clock_ppm: Annotated[float, Field(ge=-1000.0, le=1000.0)] = 0.0


class ReceivedFrame(NamedTuple):
    """A frame whose header was read.

    Attributes
    ----------
    header : Header
    payload : (length,) complex128
        Equalised symbols, Es = 1, unbiased.
    no : float
        Their noise variance, residual interference included.
    crc_ok : bool or None
        Whether the payload's bits came through whole; None where its constellation is not known.
    start : float
        Sample in which its first symbol stands.
    symbols : int
        Of the frame, from its preamble on.
    cfo : float
        Carrier frequency offset, cycles a sample.
    clock : float
        By how much the receiver's clock is faster, as a ratio less 1.
    gain : float
        Amplitude at the matched filter of a symbol of Es = 1.
    evm : float
        Root mean square error of the payload's symbols from the nearest points, over the constellation's RMS; where that is
        not known, sqrt(no).
    """

    header: Header
    payload: NDArray[np.complex128]
    no: float
    crc_ok: bool | None
    start: float
    symbols: int
    cfo: float
    clock: float
    gain: float
    evm: float

    @property
    def order(self) -> int | None:
        """Of the payload's constellation."""
        return self.header.order

    @property
    def snr_db(self) -> float:
        """Es/N0 behind the equaliser, dB."""
        return float(-10.0 * np.log10(self.no))

    @property
    def llr(self) -> NDArray[np.float32] | None:
        """Max-log LLRs of the payload's bits, (length, bits a symbol), MSB first; None where its constellation is not known."""
        if self.header.order is None:
            return None
        no = np.full(len(self.payload), self.no)
        return np.asarray(max_log_llr(as_pairs(self.payload), no, self.header.order), dtype=np.float32)


class Reception(NamedTuple):
    """What a run of samples held.

    Attributes
    ----------
    frames : list of ReceivedFrame
        In the order of arrival.
    detected : int
        Preambles, those of frames whose header could not be read among them.
    headers_lost : int
        Headers whose CRC was wrong.
    other_versions : int
        Headers of another version of the frame, which are not read any further.
    """

    frames: list[ReceivedFrame]
    detected: int
    headers_lost: int
    other_versions: int


@dataclass
class _Found:
    """A frame on its way through the receiver."""

    detection: Detection
    response: Response
    header: Header


class FrameReceiver:
    """Finds frames in samples and equalises them.

    Parameters
    ----------
    frame : FrameSpec
    pulse : Pulse
    spec : ReceiverSpec
    """

    def __init__(self, frame: FrameSpec, pulse: Pulse, spec: ReceiverSpec) -> None:
        self.frame = frame
        self.pulse = pulse
        self.spec = spec
        self._detector = Detector(frame, pulse)
        self._span = Span(spec.echoes_before, spec.echoes_behind)
        self._reach = Span(spec.echoes_before + _EQUALISER_MORE.before, spec.echoes_behind + _EQUALISER_MORE.behind)
        shortest = layout(frame, 0)
        self._head = int(shortest.header[-1]) + 1
        self._first_known = np.concatenate([np.zeros(self._span.behind), preamble(frame)])

    def receive(self, samples: Samples) -> Reception:
        """Every frame in a run of samples without gaps."""
        samples = _without_mean(samples)
        detections = self._detector.find(samples)
        heads = [self._read_head(samples, detection) for detection in detections]
        headers = read_headers(np.stack([llr for _, llr in heads])) if heads else []
        found, lost, other = [], 0, 0
        for detection, (response, _), header in zip(detections, heads, headers, strict=True):
            if header is None:
                lost += 1
            elif header.version != VERSION:
                other += 1
            elif not self._believable(header):
                lost += 1
            elif self._whole(samples, detection, header):
                found.append(_Found(detection, response, header))
            else:
                lost += 1
        clock, sure = self._clock(found)
        frames = [self._read_payload(samples, item, clock, sure) for item in found]
        return Reception(frames, len(detections), lost, other)

    def _believable(self, header: Header) -> bool:
        return header.mode < len(MODES) and header.length <= self.frame.payload_symbols

    def _whole(self, samples: Samples, detection: Detection, header: Header) -> bool:
        """Whether the samples hold all of the frame."""
        symbols = self.frame.preamble_symbols + self.frame.body_symbols(header.length)
        return detection.start + symbols * self.pulse.samples_per_symbol <= len(samples)

    def _sampled(
        self, samples: Samples, start: float, cfo: float, symbols: int, clock: float
    ) -> NDArray[np.complex128]:
        """Half symbols from the first that the equaliser reaches to the last."""
        count = 2 * (symbols + self._reach.before + self._reach.behind + 1)
        return half_symbols(samples, self.pulse, start, cfo, -2 * self._reach.before, count, clock)

    def _equaliser(self, response: Response) -> Equaliser:
        if self.spec.equalise:
            return mmse_equaliser(response, self._span, self._reach, self.pulse)
        return one_tap_equaliser(response, self._span, self._reach)

    def _read_head(self, samples: Samples, detection: Detection) -> tuple[Response, NDArray[np.floating]]:
        """First estimate of the channel, and the LLRs of the header."""
        frame = self.frame
        cfo = detection.cfo if self.spec.correct_cfo else 0.0
        symbols = frame.preamble_symbols + self._head
        y = self._sampled(samples, detection.start, cfo, symbols, self.spec.clock_ppm * 1e-6)
        response = estimate_response(y[2 * self._reach.before :], self._first_known, self._span)
        body = equalise(y, self._equaliser(response).weights, symbols)[frame.preamble_symbols :]
        body *= np.conj(turns(frame, self._head))
        places = layout(frame, 0)
        pilots = places.pilots[places.pilots < self._head]
        seen = body[pilots] / PILOT
        error = max(float(np.mean(np.abs(seen - np.mean(seen)) ** 2)), NO_MIN)
        body *= np.exp(-1j * self._phase(seen, pilots, self._head, error))
        no = max(float(np.mean(np.abs(body[pilots] - PILOT) ** 2)), NO_MIN)
        llr = max_log_llr(as_pairs(body[places.header]), np.full(frame.header_symbols, no), 4)
        return response, add_repeats(llr, frame)

    def _phase(
        self, seen: NDArray[np.complex128], pilots: NDArray[np.int64], size: int, no: float
    ) -> NDArray[np.float64]:
        """Phase of each of `size` symbols from the pilots among them."""
        if not self.spec.track_phase:
            return np.full(size, np.angle(seen[:2].sum()))
        return np.interp(np.arange(size), pilots, smooth_phase(seen, no))

    def _clock(self, found: Sequence[_Found]) -> tuple[float, bool]:
        """The clock's offset from how far frames are apart that were sent one behind the other; whether it is known so."""
        given = self.spec.clock_ppm * 1e-6
        if not self.spec.correct_clock:
            return 0.0, True
        if len(found) < 3:
            return given, False
        reference = found[0].response.taps
        step = self.pulse.samples_per_symbol
        arrivals = [
            item.detection.start + arrival_shift(item.response.taps, reference) * step / 2 * (1.0 + given)
            for item in found
        ]
        sent, seen = 0.0, 0.0
        for before, item, first, second in zip(found, found[1:], arrivals, arrivals[1:], strict=False):
            apart = self.frame.frame_symbols(before.header.length) * step
            in_a_row = (item.header.sequence - before.header.sequence) % 65536 == 1
            if in_a_row and abs((second - first) / apart - 1.0) < _CLOCK_MAX:
                sent += apart
                seen += second - first
        if not sent:
            return given, False
        return seen / sent - 1.0, True

    def _read_payload(self, samples: Samples, item: _Found, clock: float, sure: bool) -> ReceivedFrame:
        read = self._equalised(samples, item, clock)
        for _ in range(_CLOCK_STEPS if self.spec.correct_clock and not sure else 0):
            if abs(read.slope) < _CLOCK_CORRECTED or abs(clock - read.slope) > _CLOCK_MAX:
                break
            clock -= read.slope
            read = self._equalised(samples, item, clock)
        return read.frame

    def _equalised(self, samples: Samples, item: _Found, clock: float) -> _Read:
        frame, header, detection = self.frame, item.header, item.detection
        places = layout(frame, header.length)
        ahead = frame.preamble_symbols
        body_symbols = frame.body_symbols(header.length)
        symbols = ahead + body_symbols
        turned = turns(frame, body_symbols)
        known = self._known(header, places, turned)
        cfo = detection.cfo if self.spec.correct_cfo else 0.0
        y = self._sampled(samples, detection.start, cfo, symbols, clock)
        if self.spec.correct_cfo:
            seen = equalise(y, self._equaliser(item.response).weights, symbols)[ahead + places.pilots] / (
                PILOT * turned[places.pilots]
            )
            residual = pilot_frequency(seen[:-1], frame.pilot_spacing)
            residual /= self.pulse.samples_per_symbol
            y *= self._turn(residual, len(y))
            cfo += residual
        turn = self._turn(cfo, len(y))
        own = slice(2 * self._reach.before, None)
        response, impairments = estimate_impaired(y[own], known, self._span, turn[own])
        y = y - impairments.image * np.conj(y) * turn**2 - impairments.offset * turn
        weights, modelled = self._equaliser(response)
        body = equalise(y, weights, symbols)[ahead:] * np.conj(turned)
        phase = self._phase(body[places.pilots] / PILOT, places.pilots, body_symbols, modelled)
        body *= np.exp(-1j * phase)
        late = places.pilots[places.pilots >= self._head]
        # An estimated response is stronger than the true one by its own error, which pilots behind the header saw not.
        body /= (_UNIT_PILOTS + np.sum((body[late] / PILOT).real)) / (_UNIT_PILOTS + len(late))
        check = body[places.crc]
        errors = np.concatenate([body[late] - PILOT, check - nearest_points(check, 4)])
        payload = body[places.payload]
        no = estimate_no(payload, header.order, errors, modelled)
        decided = payload if header.order is None else nearest_points(payload, header.order)
        evm = float(np.sqrt(np.mean(np.abs(payload - decided) ** 2))) if header.order else no**0.5
        crc_ok = None
        if header.order is not None:
            sent = payload_crc(payload, header.mode)
            crc_ok = bool((decide(check, 4) == decide(sent, 4)).all())
        estimate = body.copy()
        estimate[places.payload], estimate[places.pilots], estimate[places.crc] = (
            decided,
            PILOT,
            nearest_points(check, 4),
        )
        derivative = equalise(_derivative(y), weights, symbols)[ahead:] * np.conj(turned) * np.exp(-1j * phase)
        slope = timing_slope(body, estimate, derivative)
        gain = float(np.sqrt(np.sum(np.abs(response.taps) ** 2) / 2.0))
        return _Read(ReceivedFrame(header, payload, no, crc_ok, detection.start, symbols, cfo, clock, gain, evm), slope)

    def _turn(self, cfo: float, count: int) -> NDArray[np.complex128]:
        """By how much removing a carrier offset turns each half symbol."""
        half_symbols_from_start = np.arange(count) - 2 * self._reach.before
        return np.asarray(np.exp(-1j * np.pi * cfo * self.pulse.samples_per_symbol * half_symbols_from_start))

    def _known(self, header: Header, places: Layout, turned: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Symbols from the last of the guard to the header's end, all of them known by now."""
        head = np.full(self._head, PILOT)
        head[places.header] = write_header(header, self.frame)
        return np.concatenate([self._first_known, head * turned[: self._head]])


class _Read(NamedTuple):
    frame: ReceivedFrame
    slope: float


def _without_mean(samples: Samples) -> Samples:
    """Samples less their mean, where that is more than chance would have it: a receiver's offset."""
    if not len(samples):
        return samples
    mean = samples.mean()
    power = float(np.mean(np.abs(samples) ** 2))
    return np.asarray(samples - mean) if abs(mean) ** 2 * len(samples) > _MEAN_MAX**2 * power else samples


def _derivative(y: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Derivative, a symbol, of what was sampled at two samples a symbol: the ideal differentiator under a window."""
    reach = 8
    k = np.arange(1, reach + 1)
    half = 2.0 * (-1.0) ** k / k * np.cos(0.5 * np.pi * k / (reach + 1)) ** 2
    return np.asarray(np.convolve(y, np.concatenate([-half[::-1], [0.0], half]), mode="same"))
