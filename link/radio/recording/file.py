"""SigMF recordings on disk.

Opened with tolerance: what departs from the specification and does not hinder a replay is told in the log.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from link.errors import DriverUnavailable, RecordingError
from link.radio.frontend import Samples
from link.radio.recording.metadata import Metadata, Segment, annotation_end, component_type, segments

META: Final = ".sigmf-meta"
DATA: Final = ".sigmf-data"
ARCHIVE: Final = ".sigmf"
INSTALL: Final = "pip install 'hardpath[sigmf]'"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording, its data mapped into memory.

    Attributes
    ----------
    file : Path
        Its metadata, or the archive.
    datatype : str
        How the data holds a sample, as SigMF names it.
    samples : int
    segments : tuple of Segment
    octets : (bytes,) uint8
        The data as it stands.
    full_scale : float
        What the integers' largest magnitude stands for; 1 in recordings of other programs.
    sample_rate_hz, frequency_hz : float or None
        None where the metadata does not say.
    radio : dict or None
        Settings of the modem, of a recording made by hardpath.
    seed : int or None
        Of the payload, likewise.
    annotations : list of dict
        As they stand in the metadata.
    recorder, hardware : str or None
    """

    file: Path
    datatype: str
    samples: int
    segments: tuple[Segment, ...]
    octets: NDArray[np.uint8]
    full_scale: float
    sample_rate_hz: float | None
    frequency_hz: float | None
    radio: dict[str, Any] | None
    seed: int | None
    annotations: list[dict[str, Any]]
    recorder: str | None
    hardware: str | None

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample in the data."""
        return 2 * component_type(self.datatype).itemsize

    def time_ns(self, segment: Segment, index: int) -> int | None:
        """When a sample of a segment was taken; None where the metadata does not say, or only of the segment's first."""
        if segment.time_ns is None or (index and self.sample_rate_hz is None):
            return None
        return segment.time_ns + (round(index * 1e9 / self.sample_rate_hz) if self.sample_rate_hz else 0)

    def read(self, byte: int, count: int) -> Samples:
        """So many samples from a byte on, as complex64.

        cf32_le is given as it stands, not copied and read-only. Integers of b bits are divided by 2^(b-1), after the middle
        of their range is taken off unsigned ones, and multiplied by `full_scale`.
        """
        component = component_type(self.datatype)
        part: NDArray[Any] = self.octets[byte : byte + 2 * component.itemsize * count].view(component)
        if component.kind == "f":
            with np.errstate(over="ignore"):  # what float32 does not hold is infinite there
                return part.view(f"{component.byteorder}c{2 * component.itemsize}").astype(np.complex64, copy=False)
        half = 1 << (8 * component.itemsize - 1)
        wide: NDArray[Any] = part.astype(np.float64 if component.itemsize > 2 else np.float32)
        if component.kind == "u":
            wide = wide - half
        return (wide * (self.full_scale / half)).astype(np.float32, copy=False).view(np.complex64)


def validate(metadata: dict[str, Any]) -> str | None:
    """Where metadata departs from the specification, as the `sigmf` package sees it; None where it does not.

    Raises
    ------
    DriverUnavailable
        If the package is not installed.
    """
    checker = sigmf_package("sigmf.validate")
    try:
        with warnings.catch_warnings(record=True) as told:  # of extensions that are used and not declared
            warnings.simplefilter("always")
            checker.validate(metadata)
    except checker.jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message}"[:200]
    return str(told[0].message).split(". ")[0] if told else None


def sigmf_package(module: str = "sigmf") -> Any:
    """The `sigmf` package, or a module of it.

    Raises
    ------
    DriverUnavailable
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise DriverUnavailable("sigmf", "sigmf", INSTALL) from None


def read_recording(path: Path | str, *, checksum: bool = True) -> Recording:
    """Open a recording.

    Parameters
    ----------
    path : Path
        Metadata, data, both without their endings, or an archive (.sigmf).
    checksum : bool
        Compare the data with the checksum in the metadata, where there is one: all of it is read, about 2 s a gigabyte.

    Raises
    ------
    DriverUnavailable
        If `sigmf` is not installed.
    RecordingError
        If it is not there, cannot be read, or is of a type that no radio can use; it names the file.
    """
    path = Path(path)
    sigmf_package()
    try:
        return _read(path, checksum)
    except OSError as error:
        raise RecordingError(f"{error.filename or path}: {error.strerror or error}") from None


class _Data(NamedTuple):
    """Where the data stands: a file, or a part of an archive."""

    file: Path
    first: int
    size: int


def _read(path: Path, checksum: bool) -> Recording:
    name = path.name.lower()
    if name.endswith(".sigmf-collection"):
        raise _refused(path, "it is a collection; name one of its recordings")
    if name.endswith((".sigmf.gz", ".sigmf.xz", ".sigmf.zip")):
        raise _refused(path, "it is compressed; unpack it first")
    base = path.with_suffix("") if path.suffix in (META, DATA, ARCHIVE) else path
    file = base.with_name(base.name + META)
    archive = base.with_name(base.name + ARCHIVE)
    if path.suffix == ARCHIVE or (path.suffix not in (META, DATA) and not file.exists() and archive.exists()):
        file = archive
        text, data = _unpack(archive)
        metadata, said = _parse(archive, text)
    else:
        if not file.exists():
            raise _refused(file, "there is no such metadata")
        if file.is_fifo():  # it would be waited for
            raise _refused(file, "it is a pipe, and no file")
        metadata, said = _parse(file, file.read_bytes())
        data = _data_beside(file, said)
    if said.globals.num_channels > 1:
        raise _refused(file, f"it has {said.globals.num_channels} channels interleaved; a radio needs one alone")
    try:
        parts = tuple(segments(said, data.size, 2 * component_type(said.globals.datatype).itemsize))
    except ValueError as error:
        raise _refused(file, str(error)) from None
    samples = sum(part.length for part in parts)
    if not samples:
        raise _refused(file, "it holds no samples")
    octets = np.memmap(data.file, dtype=np.uint8, mode="r", offset=data.first, shape=(data.size,)).view(np.ndarray)
    wanted = said.globals.sha512 if checksum else None
    if wanted and hashlib.sha512(octets.data).hexdigest() != wanted.lower():
        raise _refused(
            data.file, "its checksum is not that of the metadata: it was changed, or is of another recording"
        )
    _tell_oddities(file, metadata, said, samples)
    return Recording(
        file=file,
        datatype=said.globals.datatype.lower(),
        samples=samples,
        segments=parts,
        octets=octets,
        full_scale=said.globals.full_scale,
        sample_rate_hz=said.globals.sample_rate,
        frequency_hz=said.captures[0].frequency if said.captures else None,
        radio=said.globals.radio,
        seed=said.globals.seed,
        annotations=said.annotations,
        recorder=None if said.globals.recorder is None else str(said.globals.recorder),
        hardware=None if said.globals.hw is None else str(said.globals.hw),
    )


def _parse(file: Path, text: bytes) -> tuple[dict[str, Any], Metadata]:
    try:
        metadata = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _refused(file, f"its metadata is no JSON: {error}") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("global"), dict):
        raise _refused(file, "its metadata is not of SigMF: it has no object named global")
    try:
        return metadata, Metadata.model_validate(metadata)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _refused(file, f"its metadata cannot be used: {where}: {first['msg']}") from None


def _data_beside(file: Path, said: Metadata) -> _Data:
    name = said.globals.dataset
    if name is not None and (Path(name).name != name or name in ("", "..")):
        raise _refused(file, f"core:dataset must be a name of a file beside it, got {name!r}")
    data = file.with_suffix(DATA) if name is None else file.with_name(name)
    if not data.is_file():
        why = "it is metadata only" if said.globals.metadata_only else f"its data {data.name} is missing"
        raise _refused(file, why)
    return _Data(data, 0, data.stat().st_size)


def _unpack(archive: Path) -> tuple[bytes, _Data]:
    """Metadata of an archive and where its data stands in it; nothing is copied."""
    try:
        with tarfile.open(archive, "r:") as tar:
            members = [member for member in tar.getmembers() if member.isreg() and not member.issparse()]
            metas = [member for member in members if member.name.endswith(META)]
            if len(metas) != 1:
                many = f"it holds {len(metas)} recordings; unpack it and name one"
                raise _refused(archive, many if metas else "it holds no metadata")
            stream = tar.extractfile(metas[0])
            text = stream.read() if stream is not None else b""
    except tarfile.TarError as error:
        raise _refused(archive, f"it is no archive of SigMF: {error}") from None
    name = _parse(archive, text)[1].globals.dataset
    wanted = Path(metas[0].name).with_suffix(DATA) if name is None else Path(metas[0].name).with_name(Path(name).name)
    for member in members:
        if Path(member.name) == wanted:
            return text, _Data(archive, member.offset_data, member.size)
    raise _refused(archive, f"its data {wanted.name} is missing")


def _tell_oddities(file: Path, metadata: dict[str, Any], said: Metadata, samples: int) -> None:
    """What does not hinder a replay is told in the log."""
    why = validate(metadata)
    if why is not None:
        _log.warning("%s: departs from SigMF, and is used all the same: %s", file, why)
    if "_" not in said.globals.datatype and not said.globals.datatype.endswith("8"):
        _log.warning("%s: %s does not say its byte order; taken as little-endian", file, said.globals.datatype)
    ends = [annotation_end(annotation) for annotation in said.annotations]
    if max(ends, default=0) - said.globals.offset > samples:
        _log.warning("%s: an annotation ends at sample %d, but the data at %d", file, max(ends), samples)


def _refused(file: Path, why: str) -> RecordingError:
    return RecordingError(f"{file}: {why}")
