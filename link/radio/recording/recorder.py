"""Everything that a front end receives, kept as a SigMF recording.

    recv ──> samples to NAME.sigmf-data ──> caller
             what is known of them to NAME.sigmf-meta

However the process ends, the two files are a valid recording of what was received: see `link.radio.recording.writer`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError, RadioError, RecordingError, require_range
from link.provenance import code_version
from link.radio.frontend import Block, Capabilities, FrontEnd, Samples, SimulatedFrontEnd
from link.radio.recording.file import ARCHIVE, DATA, META, sigmf_package
from link.radio.recording.metadata import add_lost
from link.radio.recording.writer import Value, Writer, as_json
from link.randomness import Draws

NAMESPACE: Final = "hardpath"
EXTENSION_VERSION: Final = "1.0.0"
_YEARS_31_NS: Final = 10**18
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Recorder(SimulatedFrontEnd):
    """A front end that passes everything through to another and records what is received.

    Opened again after it was closed it goes on with its recording, with a gap where it was closed. A gap, and each call of
    `at`, begins a capture: `hardpath:lost` says how many samples are missing in front of it, `core:global_index` the index
    in the stream while that is known, `hardpath:time_ns` the device's time. `core:datetime` is the device's time where its
    clock counts from 1970, or else the time at which the samples came.

    Parameters
    ----------
    frontend : FrontEnd
        Where samples go to and come from; opened and closed with the recorder.
    path : Path
        The recording, with or without an ending of SigMF; or a folder that is there, in which it is named by the time.
    datatype : {"cf32_le", "ci16_le"}
        How samples are kept: as they are, or in 16 bits each for I and Q.
    full_scale : float
        Of ci16_le: what 32,768 steps stand for, kept as `hardpath:full_scale`. Beyond it samples are clipped.
    frequency_hz : float or None
        Of the carrier, where it is known.
    radio : mapping
        Settings that a replay needs; kept as `hardpath:radio`.
    seed : int or None
        Of the payload; kept as `hardpath:seed`.
    description : str

    Attributes
    ----------
    meta_file, data_file : Path
    clipped : int
        Values of I and Q that were clipped or were no numbers, of ci16_le; kept as `hardpath:clipped`.

    Raises
    ------
    ArgumentError
        If `radio` cannot be written as JSON, or `datatype` or `full_scale` is out of range.
    DriverUnavailable
        If `sigmf` is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from link.radio.frontends.loopback import Loopback
    >>> with TemporaryDirectory() as folder, Recorder(Loopback(), Path(folder) / "first") as recorder:
    ...     recorder.send(np.ones(3, dtype=np.complex64), 0.1), len(recorder.recv(8, 0.1).samples), recorder.samples
    (3, 3, 3)
    """

    def __init__(
        self,
        frontend: FrontEnd,
        path: Path | str,
        *,
        datatype: Literal["cf32_le", "ci16_le"] = "cf32_le",
        full_scale: float = 1.0,
        frequency_hz: float | None = None,
        radio: Mapping[str, Any] = _NOTHING,
        seed: int | None = None,
        description: str = "",
    ) -> None:
        if datatype not in ("cf32_le", "ci16_le"):
            raise ArgumentError("datatype", f"must be cf32_le or ci16_le, got {datatype!r}")
        require_range("full_scale", full_scale, 1e-12, 1e12)
        base = Path(path)
        if base.is_dir():
            base = base / f"hardpath-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        elif base.suffix in (META, DATA, ARCHIVE):
            base = base.with_suffix("")
        self.meta_file = base.with_name(base.name + META)
        self.data_file = base.with_name(base.name + DATA)
        self.clipped = 0
        self._frontend = frontend
        self._full_scale = full_scale if datatype == "ci16_le" else None
        self._capture_facts = {} if frequency_hz is None else {"core:frequency": frequency_hz}
        self._lost: int | None = 0  # since the last sample
        self._lost_in_all: int | None = 0
        self._fresh: dict[str, Value] | None = {}  # what the next capture says; None where none is due
        self._writer = Writer(self.meta_file, self.data_file, 8 if self._full_scale is None else 4)
        fields = {
            "core:datatype": datatype,
            "core:version": sigmf_package().__specification__,
            "core:recorder": f"hardpath {code_version()}",
            "core:description": description or None,
            "core:extensions": [{"name": NAMESPACE, "version": EXTENSION_VERSION, "optional": True}],
            "hardpath:version": code_version(),
            "hardpath:seed": seed,
            "hardpath:radio": as_json("radio", radio),
            "hardpath:full_scale": self._full_scale,
        }
        self._writer.fields = {name: value for name, value in fields.items() if value is not None}

    @property
    def samples(self) -> int:
        """Samples recorded so far: the index that the next one gets."""
        return self._writer.samples

    @property
    def capabilities(self) -> Capabilities:
        return self._frontend.capabilities

    def open(self) -> None:
        """Open the front end and begin the recording.

        Raises
        ------
        RecordingError
            If there is a recording of that name, or it cannot be written.
        RadioError
            As the front end does.
        """
        if self._writer.is_open:
            return
        self._frontend.open()
        try:
            self._writer.fields |= self._device()
            self._writer.open()
        except BaseException:
            self._frontend.close()
            raise
        self._lost = None if self.samples else 0

    def send(self, samples: Samples, timeout_s: float) -> int:
        return self._frontend.send(samples, timeout_s)

    def recv(self, most: int, timeout_s: float) -> Block:
        """Take samples, which are recorded before they are given.

        Raises
        ------
        RecordingError
            If they cannot be written, as on a full disk; what was recorded before stays, and nothing more is taken.
        RadioError
            As the front end does.
        """
        if self._writer.failure is not None:
            raise RecordingError(self._writer.failure)
        if not self._writer.is_open:
            raise RadioError(f"the recorder is not open: {self.data_file}")
        block = self._frontend.recv(most, timeout_s)
        self._lost = add_lost(self._lost, block.lost)
        if len(block.samples):
            if self._lost != 0 or self._fresh is not None:
                self._begin_capture(block.time_ns)
            self._writer.write(self._encode(block.samples))
        self._writer.tell()
        return block

    def at(self, snr_db: float, draws: Draws) -> None:
        """Pass it through; what comes next is a capture of its own, which says `hardpath:snr_db`."""
        if not isinstance(self._frontend, SimulatedFrontEnd):
            raise RadioError("the noise of a device cannot be set")
        self._frontend.at(snr_db, draws)
        self._fresh = {"hardpath:snr_db": float(snr_db)}

    def annotate(
        self,
        sample_start: int,
        sample_count: int,
        *,
        label: str = "",
        comment: str = "",
        fields: Mapping[str, Value] = _NOTHING,
    ) -> None:
        """Say something of samples that were recorded.

        Parameters
        ----------
        sample_start, sample_count : int
            Index of the first one, counted as `samples` counts, and how many.
        label, comment : str
            In short, of 20 characters at most, and in full.
        fields : mapping
            More, each kept as `hardpath:NAME`; infinities and NaN as null.

        Raises
        ------
        ArgumentError
            If these samples were not recorded, or a value cannot be kept.
        RecordingError
            If the recording is closed, or cannot be written.
        """
        require_range("sample_start", sample_start, 0, self.samples)
        require_range("sample_count", sample_count, 0, self.samples - sample_start)
        self._annotate(int(sample_start), int(sample_count), label, comment, fields)
        self._writer.tell()

    def close(self) -> None:
        try:
            self._frontend.close()
        finally:
            if self._writer.is_open and self._lost != 0:
                self._annotate_gap()
            if self.clipped:
                self._writer.fields["hardpath:clipped"] = self.clipped
            self._writer.complete()

    def facts(self) -> dict[str, str | float | int | bool]:
        return {**self._frontend.facts(), "recording": str(self.meta_file)}

    def _device(self) -> dict[str, Any]:
        """What the open front end says of itself."""
        facts, rate = self._frontend.facts(), self._frontend.capabilities.sample_rate_hz
        said: dict[str, Any] = {} if rate is None else {"core:sample_rate": rate}
        if facts:
            said["core:hw"] = ", ".join(f"{name}: {value}" for name, value in facts.items())
            said["hardpath:facts"] = as_json("facts", facts)
        return said

    def _begin_capture(self, time_ns: int | None) -> None:
        """Say that what comes next does not follow on what came before."""
        self._lost_in_all = add_lost(self._lost_in_all, self._lost)
        # A clock that reads less than 31 years may count from when the device was started.
        utc = time_ns if time_ns is not None and time_ns > _YEARS_31_NS else time.time_ns()
        capture: dict[str, Value] = {"core:datetime": _iso(utc), **self._capture_facts}
        if self._lost_in_all is not None:
            capture["core:global_index"] = self.samples + self._lost_in_all
        capture["hardpath:lost"] = self._lost
        if time_ns is not None:
            capture["hardpath:time_ns"] = int(time_ns)
        if self._lost != 0:
            self._annotate_gap()
        self._writer.capture(capture | (self._fresh or {}))
        self._fresh, self._lost = None, 0

    def _annotate_gap(self) -> None:
        missing = "samples, nobody knows how many, are" if self._lost is None else f"{self._lost} samples are"
        self._annotate(self.samples, 0, "gap", f"{missing} missing in front of this one", {"lost": self._lost})

    def _annotate(self, start: int, count: int, label: str, comment: str, fields: Mapping[str, Value]) -> None:
        said: dict[str, Value] = {"core:label": label} if label else {}
        said |= {"core:comment": comment} if comment else {}
        said |= {f"{NAMESPACE}:{name.removeprefix(f'{NAMESPACE}:')}": value for name, value in fields.items()}
        self._writer.annotate(start, count, said)

    def _encode(self, samples: Samples) -> memoryview:
        values: NDArray[Any] = np.ascontiguousarray(samples, dtype="<c8").view("<f4")
        if self._full_scale is not None:
            steps = np.rint(values * np.float32(32768 / self._full_scale))
            kept = np.nan_to_num(np.clip(steps, -32768, 32767), nan=0.0)
            self.clipped += int(np.count_nonzero(kept != steps))
            values = kept.astype("<i2")
        return values.data.cast("B")


def _iso(time_ns: int) -> str:
    """UTC to the nanosecond, as SigMF writes it."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
