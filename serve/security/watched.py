"""Files that are read again when they change: what they were, and what they hold."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final, NamedTuple

FILE_BYTES_MAX: Final = 2**20


class Unusable(Exception):
    """A file that cannot be used; one line says why."""


class FileState(NamedTuple):
    """What changes when a file is written, or another one takes its name; zeros where there is none."""

    modified_ns: int
    number: int
    size: int
    mode: int


def state_of(file: Path) -> FileState:
    """The state of a file, behind links, as of now."""
    try:
        found = file.stat()
    except OSError:
        return FileState(0, 0, 0, 0)
    return FileState(found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode)


def read_file(file: Path) -> bytes:
    """What a small file holds.

    Raises
    ------
    Unusable
        If it cannot be read, is no regular file (a pipe would block its reader), or holds more than 1 MiB.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise Unusable(f"{file} is no regular file")
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Unusable(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise Unusable(f"{file} holds more than {FILE_BYTES_MAX} bytes")
    return content
