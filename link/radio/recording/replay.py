"""A recording through the receiver again: the same runs of samples, hence the same frames, LLRs and decisions.

replay          frame by frame, of any recording
receive_again   of one whose exchanges are marked, beside what was sent: bit errors, and a bundle's decisions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from link.errors import RecordingError
from link.radio.channel import Drop, RadioChannel
from link.radio.exchange import Capture
from link.radio.frontends import loopback
from link.radio.modem.demodulator import ReceivedFrame
from link.radio.modem.frame import SEQUENCES
from link.radio.modem.modem import Modem
from link.radio.modem.options import ModemOptions
from link.radio.operation.figures import RunTally
from link.radio.operation.frame_log import FrameLog
from link.radio.operation.traffic import BundleTraffic, Traffic, TrafficSpec
from link.radio.recording.file import Recording
from link.radio.recording.marks import MarkedExchange, exchanges, read_samples
from link.radio.spec import RadioSpec
from link.randomness import Draws


class ReplayedFrame(NamedTuple):
    """A frame of a recording.

    Attributes
    ----------
    start : float
        Sample of the recording in which its first symbol stands.
    received : ReceivedFrame
    """

    start: float
    received: ReceivedFrame


class ReplayedExchange(NamedTuple):
    """What the receiver finds in an exchange of a recording.

    Attributes
    ----------
    exchange : MarkedExchange
    frames : list of ReplayedFrame
        In the order of arrival. Of a marked exchange those that were sent in it, each once, as the live receiver takes them.
    headers_lost, other_versions : int
        See link.radio.modem.receiver.Reception.
    """

    exchange: MarkedExchange
    frames: list[ReplayedFrame]
    headers_lost: int
    other_versions: int

    @property
    def lost(self) -> int | None:
        """Frames that were sent and not found; None where nobody knows how many were sent."""
        sent = self.exchange.frames
        return None if sent is None else sent - len(self.frames)


def replay(recording: Recording, modem: Modem, *, marks: bool = True) -> Iterator[ReplayedExchange]:
    """Every frame of a recording.

    Parameters
    ----------
    recording : Recording
    modem : Modem
    marks : bool
        See link.radio.recording.marks.exchanges.

    Raises
    ------
    RecordingError
        If a mark cannot be.
    """
    for exchange in exchanges(recording, marks=marks):
        frames: list[ReplayedFrame] = []
        seen: set[int] = set()
        headers_lost, others = 0, 0
        for run in exchange.runs:
            reception = modem.receive(read_samples(recording, run))
            headers_lost += reception.headers_lost
            others += reception.other_versions
            for frame in reception.frames:
                if exchange.frames is not None and exchange.first_sequence is not None:
                    place = (frame.header.sequence - exchange.first_sequence) % SEQUENCES
                    if place >= exchange.frames or place in seen:
                        continue
                    seen.add(place)
                frames.append(ReplayedFrame(run.start + frame.start, frame))
        yield ReplayedExchange(exchange, frames, headers_lost, others)


def modem_options(recording: Recording, radio: RadioSpec | None) -> ModemOptions:
    """The modem that a recording was made with: of `radio` where it is given, of the metadata otherwise.

    Raises
    ------
    RecordingError
        If neither says.
    """
    if radio is not None:
        return radio.modem
    said = (recording.radio or {}).get("modem")
    if said is None:
        raise RecordingError(f"{recording.file}: its metadata has no settings of a modem: give a radio's file")
    try:
        return ModemOptions.model_validate(said)
    except (ValidationError, ValueError):
        raise RecordingError(
            f"{recording.file}: its metadata's settings of the modem are of no modem here: give a radio's file"
        ) from None


def unmarked_behind(recording: Recording) -> int:
    """Samples behind the last exchange: of one that was broken off."""
    runs = [run for exchange in exchanges(recording) for run in exchange.runs]
    return recording.samples - max((run.start + run.length for run in runs), default=0)


def sent_in(recording: Recording) -> TrafficSpec | None:
    """What was sent when a recording was made; None where it does not say.

    Raises
    ------
    RecordingError
        If it says what cannot be.
    """
    said = (recording.radio or {}).get("run")
    if said is None:
        return None
    try:
        return TrafficSpec.model_validate(said)
    except (ValidationError, ValueError):
        raise RecordingError(f"{recording.file}: its metadata describes a run of another version") from None


def receive_again(
    recording: Recording, options: ModemOptions, traffic: Traffic, log: FrameLog, tally: RunTally
) -> None:
    """Receive what `traffic` sent when a recording was made.

    Parameters
    ----------
    recording : Recording
        With marks.
    options : ModemOptions
    traffic : Traffic
        As it was then.
    log : FrameLog
        Keeps the frames, and the decisions of a bundle.
    tally : RunTally
        Counts them.

    Raises
    ------
    RecordingError
        If the recording has no marks, or other frames were sent in it.
    """

    def watch(drop: Drop) -> None:
        tally(drop)
        runs = radio.current.runs
        for place, frame in drop.frames.items():
            log.add(radio.current.number, runs[drop.runs[place]].start + frame.start, frame)

    radio = RecordedRadio(recording, options, watch)
    number = 0
    while (most := radio.next_frames) is not None:
        try:
            result = traffic.send(radio, number, most)
        except EOFError:  # the run was broken off between a batch and its headers
            return
        number += 1
        if result is not None:
            log.decide(result.decoded.decisions)
            tally.decided_for(result.decoded.decisions)
        if isinstance(traffic, BundleTraffic):
            tally.decided = traffic.decided


class RecordedRadio(RadioChannel):
    """What a radio received, received again: the drops of a recording in the order in which they were made.

    Parameters
    ----------
    recording : Recording
        With marks.
    options : ModemOptions

    Raises
    ------
    RecordingError
        If it has no marks. A drop raises it where other frames were sent in its exchange, and EOFError behind the last.
    """

    def __init__(
        self, recording: Recording, options: ModemOptions, watch: Callable[[Drop], None] | None = None
    ) -> None:
        super().__init__(RadioSpec(frontend=loopback.Spec(), modem=options), watch=watch)
        self.name = f"recording {Path(recording.file).name}"
        self._recording = recording
        self._exchanges = exchanges(recording)
        if self._exchanges[0].number is None:
            raise RecordingError(
                f"{recording.file}: it has no marks of exchanges, and nobody knows what was sent in it"
            )
        self._next = 0

    @property
    def current(self) -> MarkedExchange:
        """The exchange of the last drop."""
        return self._exchanges[self._next - 1]

    @property
    def next_frames(self) -> int | None:
        """How many frames were sent in the next exchange; None behind the last."""
        return self._exchanges[self._next].frames if self._next < len(self._exchanges) else None

    def _drop(self, payloads: list[NDArray[np.complex128]], snr_db: float | None, draws: Draws) -> Drop:
        if self._next == len(self._exchanges):
            raise EOFError
        exchange = self._exchanges[self._next]
        if exchange.frames != len(payloads):
            raise RecordingError(
                f"{self._recording.file}: exchange {exchange.number} has {exchange.frames} frames, and this data makes "
                f"{len(payloads)}: it was recorded with other data, or another bundle"
            )
        self._next += 1
        burst = self.modem.send(payloads, exchange.first_sequence or 0)
        runs = [read_samples(self._recording, run) for run in exchange.runs]
        return self._read(burst, payloads, Capture(runs, exchange.gaps, 0, exchange.clipped))
