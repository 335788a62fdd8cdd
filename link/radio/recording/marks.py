"""Where exchanges and frames stand in a recording.

    captures      gaps, and where the noise was set                        by the recorder
    annotations   "exchange": a run of samples that the receiver was given at once
                  "frame": sequence, mode, length, CFO, clock, SNR, EVM and CRC of what it found there

A receiver's answer depends on the whole run that it is given: its mean is removed, and its clock found between frames. So
the runs of the live exchanges are marked, and a replay gives its receiver the same ones. What lies between them was let go
of in front of an exchange, or is of one that was broken off; a recording without marks is taken by its gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from link.errors import RecordingError
from link.radio.channel import Drop
from link.radio.frontend import EMPTY, Samples
from link.radio.modem.demodulator import ReceivedFrame
from link.radio.recording.file import Recording
from link.radio.recording.recorder import NAMESPACE, Recorder

EXCHANGE: Final = "exchange"
FRAME: Final = "frame"
_INTEGERS: Final = ("exchange", "run", "first_sequence", "frames", "gaps", "clipped")


class Span(NamedTuple):
    """Samples of a recording in a row.

    Attributes
    ----------
    start, length : int
        Index of the first one, and how many.
    """

    start: int
    length: int


class MarkedExchange(NamedTuple):
    """An exchange in a recording.

    Attributes
    ----------
    number : int or None
        Counted from 0; None for a stretch between two gaps of a recording without marks.
    runs : tuple of Span
        What the receiver is given at once, in this order.
    first_sequence, frames : int or None
        Number of the first frame that was sent, and how many were; None where nobody knows.
    gaps, clipped : int
        See link.radio.exchange.Capture.
    """

    number: int | None
    runs: tuple[Span, ...]
    first_sequence: int | None = None
    frames: int | None = None
    gaps: int = 0
    clipped: int = 0


class Marker:
    """Marks each exchange and its frames in the recording that is being made; `RadioChannel` calls it.

    Parameters
    ----------
    recorder : Recorder
        The channel's front end.
    samples_per_symbol : int
    """

    def __init__(self, recorder: Recorder, samples_per_symbol: int) -> None:
        self._recorder = recorder
        self._samples_per_symbol = samples_per_symbol
        self._number = 0

    def __call__(self, drop: Drop) -> None:
        """Mark an exchange whose samples are the last ones recorded.

        Raises
        ------
        RecordingError
            If it cannot be written.
        """
        lengths = [len(run) for run in drop.capture.runs]
        starts = (self._recorder.samples - sum(lengths) + np.cumsum([0, *lengths])[:-1]).tolist()
        sent = {
            "exchange": self._number,
            "first_sequence": drop.burst.headers[0].sequence if drop.burst.headers else 0,
            "frames": len(drop.burst.headers),
            "gaps": drop.capture.gaps,
            "clipped": drop.capture.clipped,
        }
        for run, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            self._recorder.annotate(start, length, label=EXCHANGE, fields={**sent, "run": run})
        if not lengths:
            self._recorder.annotate(self._recorder.samples, 0, label=EXCHANGE, fields={**sent, "run": 0})
        for place, frame in sorted(drop.frames.items()):
            run = drop.runs[place]
            first = max(0, round(frame.start))
            count = min(round(frame.symbols * self._samples_per_symbol), lengths[run] - first)
            self._recorder.annotate(
                starts[run] + first,
                count,
                label=FRAME,
                fields={"exchange": self._number, **frame_fields(frame)},
            )
        self._number += 1


def frame_fields(frame: ReceivedFrame) -> dict[str, int | float | bool | None]:
    """What is said of a frame: header, carrier and clock offset, quality."""
    return {
        "version": frame.header.version,
        "mode": frame.header.mode,
        "sequence": frame.header.sequence,
        "length": frame.header.length,
        "cfo": frame.cfo,
        "clock_ppm": 1e6 * frame.clock,
        "snr_db": frame.snr_db,
        "evm": frame.evm,
        "crc_ok": frame.crc_ok,
    }


def exchanges(recording: Recording, *, marks: bool = True) -> list[MarkedExchange]:
    """What to give a receiver, in order.

    Parameters
    ----------
    recording : Recording
    marks : bool
        Without them the recording is taken by its gaps, as one without marks always is.

    Raises
    ------
    RecordingError
        If a mark cannot be.
    """
    found = list(_marked(recording)) if marks else []
    return found or list(_by_gaps(recording))


def _marked(recording: Recording) -> Iterator[MarkedExchange]:
    by_number: dict[int, list[tuple[int, Span, tuple[int, ...]]]] = {}
    for annotation in recording.annotations:
        if annotation.get("core:label") == EXCHANGE and f"{NAMESPACE}:exchange" in annotation:
            number, run, *said = (_integer(recording, annotation, f"{NAMESPACE}:{name}") for name in _INTEGERS)
            span = Span(*(_integer(recording, annotation, f"core:sample_{name}") for name in ("start", "count")))
            if span.start + span.length > recording.samples:
                raise RecordingError(
                    f"{recording.file}: exchange {number} ends at sample {span.start + span.length}, "
                    f"but the data at {recording.samples}: it was cut"
                )
            by_number.setdefault(number, []).append((run, span, tuple(said)))
    for number, marks in sorted(by_number.items()):
        marks.sort()
        first, frames, gaps, clipped = marks[0][2]
        runs = tuple(span for _, span, _ in marks if span.length)
        yield MarkedExchange(number, runs, first, frames, gaps, clipped)


def _integer(recording: Recording, annotation: Mapping[str, Any], name: str) -> int:
    value = annotation.get(name)
    if type(value) is not int or value < 0:
        raise RecordingError(f"{recording.file}: {name} of an exchange must be a whole number from 0, got {value!r}")
    return value


def _by_gaps(recording: Recording) -> Iterator[MarkedExchange]:
    spans: list[Span] = []
    for segment in recording.segments:
        if spans and segment.lost == 0:
            spans[-1] = Span(spans[-1].start, spans[-1].length + segment.length)
        else:
            spans.append(Span(segment.start, segment.length))
    for span in spans:
        yield MarkedExchange(None, (span,))


def read_samples(recording: Recording, span: Span) -> Samples:
    """Samples of a recording, copied."""
    parts = [EMPTY]
    for segment in recording.segments:
        first = max(span.start, segment.start)
        count = min(span.start + span.length, segment.start + segment.length) - first
        if count > 0:
            byte = segment.byte + (first - segment.start) * recording.sample_bytes
            parts.append(recording.read(byte, count))
    return np.concatenate(parts)
