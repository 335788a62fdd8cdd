"""One run a folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from link.errors import ResultsError

LOCK_NAME: Final = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if need be, while the block runs.

    Raises
    ------
    ResultsError
        If another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK_NAME).open("a")
    except OSError as error:
        raise ResultsError(f"{folder} cannot be used for results: {error.strerror}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResultsError(f"another run is using {folder}; wait for it, or name another folder") from None
        yield
