"""A recording, played back: the samples that came from the air, as often as needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from link.errors import RadioError
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples
from link.radio.recording.file import INSTALL, Recording, read_recording, sigmf_package


class Spec(FrontEndSpec):
    """What to play back."""

    kind: ClassVar[str] = "sigmf"
    needs: ClassVar[str | None] = INSTALL

    file: Path = Field(description="recording: .sigmf-meta, .sigmf-data, both without the ending, or a .sigmf archive")
    checksum: bool = Field(True, description="compare the data with its checksum first: about 2 s a gigabyte")

    def build(self) -> Replay:
        sigmf_package()
        return Replay(self.file, checksum=self.checksum)

    def probe(self) -> list[dict[str, Any]]:
        sigmf_package()
        return []


class Replay(FrontEnd):
    """Samples of a recording, in order, each once, as fast as they are taken.

    Those of cf32_le come bit for bit and are not copied: the file is mapped into memory, so it must not be cut while it is
    played. Gaps of the stream that was recorded are said where they were. At the end `exhausted` is true and `recv` gives
    empty blocks at once, for nothing more will come; opened again, it starts anew.

    Parameters
    ----------
    file : Path
        As for `read_recording`.
    checksum : bool
        As for `read_recording`.

    Attributes
    ----------
    recording : Recording or None
        What is played, once it is open.
    """

    def __init__(self, file: Path, *, checksum: bool = True) -> None:
        self.recording: Recording | None = None
        self._file = file
        self._checksum = checksum
        self._index = 0
        self._taken = 0

    @property
    def capabilities(self) -> Capabilities:
        recording = self.recording
        return Capabilities(
            sends=False,
            sample_rate_hz=None if recording is None else recording.sample_rate_hz,
            timestamps=recording is not None and any(s.time_ns is not None for s in recording.segments),
            exclusive=False,
        )

    @property
    def exhausted(self) -> bool:
        """Whether all samples were taken; false while it is not open."""
        return self.recording is not None and self._index == len(self.recording.segments)

    def open(self) -> None:
        """Read the metadata and map the data; `RecordingError` if it cannot be used."""
        if self.recording is None:
            self.recording = read_recording(self._file, checksum=self._checksum)
            self._index = self._taken = 0

    def send(self, samples: Samples, timeout_s: float) -> int:
        raise RadioError(f"nothing can be sent to a recording: {self._file}")

    def recv(self, most: int, timeout_s: float) -> Block:
        if self.recording is None:
            raise RadioError(f"the recording is not open: {self._file}")
        if self.exhausted or most < 1:
            return Block()
        segment, taken = self.recording.segments[self._index], self._taken
        count = min(most, segment.length - taken)
        samples = self.recording.read(segment.byte + taken * self.recording.sample_bytes, count)
        self._taken += count
        if self._taken == segment.length:
            self._index, self._taken = self._index + 1, 0
        return Block(samples, 0 if taken else segment.lost, self.recording.time_ns(segment, taken))

    def close(self) -> None:
        self.recording = None

    def facts(self) -> dict[str, str | float | int | bool]:
        recording = self.recording
        if recording is None:
            return {}
        known: dict[str, str | float | None] = {
            "file": str(recording.file),
            "datatype": recording.datatype,
            "samples": recording.samples,
            "gaps": sum(segment.lost != 0 for segment in recording.segments),
            "frequency_hz": recording.frequency_hz,
            "recorder": recording.recorder,
            "hardware": recording.hardware,
        }
        return {name: value for name, value in known.items() if value is not None}
