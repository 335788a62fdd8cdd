"""A SigMF recording that grows, and is valid at every moment.

Samples are handed to the operating system at once, and the metadata is replaced as a whole. A capture is in the metadata
before its samples are in the data. An annotation follows at once, or as soon as rewriting takes no more than a hundredth of
the time: what a killed process loses are those of the last moments. `core:sha512` is written when the recording is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import time
from bisect import insort
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from link.errors import ArgumentError, RecordingError
from link.radio.recording.file import validate

Value: TypeAlias = str | float | int | bool | None

_SHARE: Final = 0.01
_ROOM: Final = 1 << 16  # bytes

_log = logging.getLogger(__name__)


class Writer:
    """Two files: the data, appended to, and the metadata.

    Parameters
    ----------
    meta_file, data_file : Path
    sample_bytes : int
        Of a sample in the data.

    Attributes
    ----------
    fields : dict
        The global object of the metadata; may be changed until `open` and before `complete`.
    samples : int
        Written so far.
    failure : str or None
        Why nothing more can be written.
    """

    def __init__(self, meta_file: Path, data_file: Path, sample_bytes: int) -> None:
        self.meta_file = meta_file
        self.data_file = data_file
        self.fields: dict[str, Any] = {}
        self.samples = 0
        self.failure: str | None = None
        self._sample_bytes = sample_bytes
        self._captures: list[str] = []
        self._annotations: list[tuple[int, int, str]] = []
        self._stream: io.FileIO | None = None
        self._hash: Any = hashlib.sha512()
        self._begun = False
        self._due_at = 0.0
        self._told = True

    @property
    def is_open(self) -> bool:
        """Whether it takes samples and annotations."""
        return self._stream is not None

    def open(self) -> None:
        """Begin the recording, or go on with it after it was completed.

        Raises
        ------
        RecordingError
            If there is another one of that name, if it cannot be written, or if SigMF has no such metadata.
        """
        try:
            if self._begun:
                self.fields.pop("core:sha512", None)
                self._stream = io.FileIO(self.data_file, "ab")
                self._rewrite()
            else:
                self._begin()
        except OSError as error:
            raise RecordingError(f"{error.filename or self.data_file}: {_reason(error)}") from None
        self.failure = None

    def write(self, octets: memoryview) -> None:
        """Append whole samples.

        Raises
        ------
        RecordingError
            If they cannot be written, as on a full disk; what was written stays, and the recording is complete.
        """
        stream = self._taking()
        done = 0
        try:
            while done < len(octets):
                count = stream.write(octets[done:])
                if self._hash is not None:
                    self._hash.update(octets[done : done + count])
                done += count
            self.samples += done // self._sample_bytes
        except OSError as error:
            self._mend(stream)
            self._fail(error)
        except BaseException:  # Ctrl-C: what follows must not stand at the wrong index
            self._mend(stream)
            raise

    def capture(self, said: Mapping[str, Any]) -> None:
        """Let a capture begin with the next sample.

        Raises
        ------
        RecordingError
            If it cannot be written.
        """
        self._taking()
        self._captures.append(json.dumps({"core:sample_start": self.samples, **said}))
        self._told = False
        self.tell(now=True)

    def annotate(self, start: int, count: int, said: Mapping[str, Any]) -> None:
        """Keep an annotation; `tell` brings it to disk.

        Raises
        ------
        ArgumentError
            If a value cannot be kept.
        RecordingError
            If the recording is complete.
        """
        self._taking()
        text = json.dumps(as_json("fields", {"core:sample_start": start, "core:sample_count": count, **said}))
        insort(self._annotations, (start, len(self._annotations), text))
        self._told = False

    def tell(self, *, now: bool = False) -> None:
        """Bring the metadata up to date, where that is due or must be.

        Raises
        ------
        RecordingError
            If it cannot be written.
        """
        if not self._told and (now or time.monotonic() >= self._due_at):
            try:
                self._rewrite()
            except OSError as error:
                self._fail(error)

    def complete(self) -> None:
        """Close the files, with a checksum; what cannot be written is told in the log."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            with stream:
                if self._hash is not None and os.fstat(stream.fileno()).st_size == self.samples * self._sample_bytes:
                    self.fields["core:sha512"] = self._hash.hexdigest()
                os.fsync(stream.fileno())
            self._rewrite(sync=True)
        except OSError as error:
            _log.error("%s: %s; the recording ends with what was written before", self.meta_file, _reason(error))

    def _begin(self) -> None:
        why = validate(json.loads(self._text()))
        if why is not None:
            raise RecordingError(f"{self.meta_file}: SigMF has no such metadata: {why}")
        self.meta_file.parent.mkdir(parents=True, exist_ok=True)
        if self.meta_file.exists():
            raise RecordingError(f"{self.meta_file}: there is a recording of that name; use another")
        try:
            stream = io.FileIO(self.data_file, "xb")
        except FileExistsError:
            raise RecordingError(f"{self.data_file}: there is a recording of that name; use another") from None
        try:
            self._rewrite()
        except BaseException:
            stream.close()
            self.data_file.unlink()
            raise
        self._stream, self._begun = stream, True

    def _taking(self) -> io.FileIO:
        if self._stream is None:
            raise RecordingError(self.failure or f"{self.meta_file}: the recording is not open")
        return self._stream

    def _mend(self, stream: io.FileIO) -> None:
        """After a write that was cut: whole samples stay. Their checksum is not known."""
        self.samples = os.fstat(stream.fileno()).st_size // self._sample_bytes
        stream.seek(stream.truncate(self.samples * self._sample_bytes))
        self._hash = None

    def _fail(self, error: OSError) -> NoReturn:
        self.failure = (
            f"{error.filename or self.data_file}: {_reason(error)}; the {self.samples} samples before it are kept"
        )
        self._told = False
        self.complete()
        raise RecordingError(self.failure) from None

    def _rewrite(self, *, sync: bool = False) -> None:
        """Replace the metadata as a whole."""
        start = time.monotonic()
        text = self._text().encode()
        draft = self.meta_file.with_name(f".{self.meta_file.name}.part")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as stream:
                stream.write(text)
                stream.truncate()
                if sync:
                    os.fsync(stream.fileno())
            draft.replace(self.meta_file)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        if not sync:
            # Room for the next metadata: a disk full of samples still takes what is said of them.
            with suppress(OSError):
                draft.write_bytes(bytes(len(text) * 5 // 4 + _ROOM))
        self._told = True
        now = time.monotonic()
        self._due_at = now + (now - start) / _SHARE

    def _text(self) -> str:
        """The metadata: an annotation a line, each encoded once."""
        captures, annotations = (
            "[\n  " + ",\n  ".join(lines) + "\n ]" if lines else "[]"
            for lines in (self._captures, [text for _, _, text in self._annotations])
        )
        fields = json.dumps(self.fields, indent=1).replace("\n", "\n ")
        return f'{{\n "global": {fields},\n "captures": {captures},\n "annotations": {annotations}\n}}\n'


def as_json(field: str, value: Any) -> Any:
    """A value as JSON has it: NumPy's numbers as plain ones, those that are no numbers as None.

    Raises
    ------
    ArgumentError
        If JSON has no such value.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): as_json(f"{field}.{name}", part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(field, part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ArgumentError(field, f"must be of numbers, texts, lists and tables, got {type(value).__name__}")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
