"""From samples to frames.

    samples ──> preambles ──> each frame's header ──> clock, over all frames ──> each frame's payload

A frame is lost where no preamble or no header was found. What a frame says of its payload is never guessed: a lost frame is
no frame at all, and whoever sent it knows which numbers are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from link.radio.frontend import Samples
from link.radio.modem.demodulator import Demodulator, Head, ReceivedFrame
from link.radio.modem.detection import Detection, Detector, ambiguities
from link.radio.modem.frame import MODES, SEQUENCES, VERSION, FrameSpec, Header, read_headers
from link.radio.modem.options import ReceiverSpec
from link.radio.modem.pulse import Pulse
from link.radio.modem.tracking import arrival_shift

_CLOCK_CORRECTED: Final = 20e-6
"""Clock offset of a lone frame above which it is corrected; of several frames in a row it is known better, and always is."""
_CLOCK_SURE: Final = 3.0
"""Standard deviations from which it is no chance: a short frame tells little of the clock, and needs none."""
_CLOCK_STEPS: Final = 3
_CLOCK_MAX: Final = 1e-3
_CLOCK_FRAMES: Final = 3
"""Frames from which their distances tell the clock."""
_LARGEST: Final = 1e12
"""Of I and Q, above which is nothing that was received; powers, and sums of them, are far from the end of float32."""
_MEAN_MAX: Final = 16.0
"""Mean of a recording, in standard deviations of that of white noise, above which it is an offset."""


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


class _Found(NamedTuple):
    """A frame whose header was read."""

    detection: Detection
    head: Head
    header: Header


class FrameReceiver:
    """Finds frames in samples and reads them.

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
        self._demodulator = Demodulator(frame, pulse, spec)

    def receive(self, samples: Samples) -> Reception:
        """Every frame in a run of samples without gaps."""
        samples = _without_mean(_usable(samples))
        detections = self._detector.find(samples)
        found, lost, other = [], 0, 0
        for detection, first in zip(detections, self._read_heads(samples, detections), strict=True):
            item = first or self._read_elsewhere(samples, detection)
            if item is not None and item.header.version != VERSION:
                other += 1
            elif item is None or not self._believable(item.header) or not self._whole(samples, item):
                lost += 1
            else:
                found.append(item)
        clock, sure = self._clock(found)
        frames = [self._read_payload(samples, item, clock, sure) for item in found]
        return Reception(frames, len(detections), lost, other)

    def _read_heads(self, samples: Samples, detections: Sequence[Detection]) -> list[_Found | None]:
        """Frames at each of some places; None where no header can be read."""
        heads = [self._demodulator.read_head(samples, detection) for detection in detections]
        headers = read_headers(np.stack([head.llr for head in heads])) if heads else []
        return [
            None if header is None else _Found(detection, head, header)
            for detection, head, header in zip(detections, heads, headers, strict=True)
        ]

    def _read_elsewhere(self, samples: Samples, detection: Detection) -> _Found | None:
        """The frame where it is beyond the carrier offsets that were looked for, and so seemed to be somewhere else."""
        if not self.spec.correct_cfo:
            return None
        others = ambiguities(detection, self.frame, self.pulse)
        return next((item for item in self._read_heads(samples, others) if item is not None), None)

    def _believable(self, header: Header) -> bool:
        return header.mode < len(MODES) and header.length <= self.frame.payload_symbols

    def _whole(self, samples: Samples, item: _Found) -> bool:
        """Whether the samples hold all of the frame."""
        symbols = self.frame.preamble_symbols + self.frame.body_symbols(item.header.length)
        return item.detection.start + symbols * self.pulse.samples_per_symbol <= len(samples)

    def _clock(self, found: Sequence[_Found]) -> tuple[float, bool]:
        """The clock's offset from how far frames are apart that were sent one behind the other; whether it is known so."""
        given = self.spec.clock_ppm * 1e-6
        if not self.spec.correct_clock:
            return 0.0, True
        if len(found) < _CLOCK_FRAMES:
            return given, False
        reference = found[0].head.response.taps
        step = self.pulse.samples_per_symbol
        arrivals = [
            item.detection.start + arrival_shift(item.head.response.taps, reference) * step / 2 * (1.0 + given)
            for item in found
        ]
        sent, seen = 0.0, 0.0
        for before, item, first, second in zip(found, found[1:], arrivals, arrivals[1:], strict=False):
            apart = self.frame.frame_symbols(before.header.length) * step
            in_a_row = (item.header.sequence - before.header.sequence) % SEQUENCES == 1
            if in_a_row and abs((second - first) / apart - 1.0) < _CLOCK_MAX:
                sent += apart
                seen += second - first
        if not sent:
            return given, False
        return seen / sent - 1.0, True

    def _read_payload(self, samples: Samples, item: _Found, clock: float, sure: bool) -> ReceivedFrame:
        body = self._demodulator.read_body(samples, *item, clock)
        for _ in range(_CLOCK_STEPS if self.spec.correct_clock and not sure else 0):
            slope, deviation = body.slope
            if abs(slope) < max(_CLOCK_CORRECTED, _CLOCK_SURE * deviation) or abs(clock - slope) > _CLOCK_MAX:
                break
            clock -= slope
            body = self._demodulator.read_body(samples, *item, clock)
        return body.frame


def _usable(samples: Samples) -> Samples:
    """Samples, with zeros for those that are no numbers, or whose power is none, as some recordings hold."""
    parts = np.ascontiguousarray(samples).view(np.float32)
    if parts.max(initial=0.0) < _LARGEST and parts.min(initial=0.0) > -_LARGEST:  # never of a NaN; copies nothing
        return samples
    usable = (np.abs(samples.real) < _LARGEST) & (np.abs(samples.imag) < _LARGEST)
    return np.where(usable, samples, 0).astype(np.complex64)


def _without_mean(samples: Samples) -> Samples:
    """Samples less their mean, where that is more than chance would have it: a receiver's offset."""
    if not len(samples):
        return samples
    mean = samples.mean()
    power = float(np.mean(np.abs(samples) ** 2))
    return np.asarray(samples - mean) if abs(mean) ** 2 * len(samples) > _MEAN_MAX**2 * power else samples
