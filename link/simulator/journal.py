"""Finished blocks on disk: one line a task, appended and synced, in whatever order they come.

    {"snr_db": 6.0, "first": 12, "blocks": {"bit_errors": [..], ..}, "crc32": "8c5f00d1"}

A line ends with the checksum of what stands before it, so a digit that a disk or an editor changed is found. The last line
may have been cut by a crash: it is dropped, and its blocks are run again. Anything else that cannot be read, or is of other
types than a block, is refused, and left as it is.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from link.errors import ResultsError
from link.simulator.block import Task
from link.snr import millidecibels

JOURNAL_NAME: Final = "blocks.jsonl"
_TAIL: Final = ', "crc32": "'

_STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

_log = logging.getLogger(__name__)


class _Entry(BaseModel):
    """A line without its checksum."""

    model_config = _STRICT

    snr_db: float
    first: Annotated[int, Field(ge=0)]
    blocks: dict[str, Annotated[list[Any], Field(min_length=1)]]


class Journal:
    """blocks.jsonl of a results folder.

    Parameters
    ----------
    folder : Path
    block_type : type
        NamedTuple of what a block gives.
    """

    def __init__(self, folder: Path, block_type: type[Any]) -> None:
        self.file = folder / JOURNAL_NAME
        self._type = block_type
        self._blocks: TypeAdapter[list[Any]] = TypeAdapter(list[block_type], config=_STRICT)  # type: ignore[valid-type]

    def append(self, task: Task, blocks: Sequence[Any]) -> None:
        """Put a task on disk, past the operating system's buffers."""
        with self.file.open("ab") as stream:
            stream.write(_line(task, blocks, self._type._fields))
            stream.flush()
            os.fsync(stream.fileno())

    def read(self, expected: Container[int], *, repair: bool = True) -> list[tuple[Task, list[Any]]]:
        """Tasks in the order of the file.

        Parameters
        ----------
        expected : container of int
            The grid's points, in millidecibels.
        repair : bool
            Drop a last line that was cut short. A reader that does not hold the folder's lock leaves it: what looks cut may
            be a line that a sweep is writing.

        Raises
        ------
        ResultsError
            If a line cannot be read, is of another point, or holds a block that was there before.
        """
        content = self.file.read_bytes() if self.file.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        seen: set[tuple[int, int]] = set()
        found = []
        for number, line in enumerate(complete.splitlines(), start=1):
            task, blocks = self._parse(number, line)
            point = millidecibels(task.snr_db)
            if point not in expected:
                raise self._refused(number, f"{task.snr_db:g} dB is not in the grid")
            for block in range(task.first, task.first + task.size):
                if (point, block) in seen:
                    raise self._refused(number, f"block {block} at {task.snr_db:g} dB is there twice")
                seen.add((point, block))
            found.append((task, blocks))
        if repair and len(complete) < len(content):
            # Only now: a file that is refused is left as it was found.
            _log.warning("%s: the last line was cut short by a crash; dropped, its blocks are run again", self.file)
            os.truncate(self.file, len(complete))
        return found

    def _parse(self, number: int, line: bytes) -> tuple[Task, list[Any]]:
        head, tail, checksum = line.rpartition(_TAIL.encode())
        if not tail or checksum != f'{zlib.crc32(head):08x}"}}'.encode():
            raise self._refused(number, "its checksum is wrong")
        try:
            entry = _Entry.model_validate(json.loads(head + b"}"))
            if tuple(entry.blocks) != self._type._fields:
                raise ValueError("its columns are those of another sweep")
            rows = zip(*entry.blocks.values(), strict=True)
            blocks = self._blocks.validate_python([tuple(map(_as_tuple, row)) for row in rows])
            task = Task(entry.snr_db, entry.first, len(blocks))
            millidecibels(task.snr_db)
        except ValidationError as error:
            first = error.errors()[0]
            raise self._refused(number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except RecursionError:
            raise self._refused(number, "it is nested too deeply") from None
        except ValueError as error:
            raise self._refused(number, str(error)) from None
        return task, blocks

    def _refused(self, number: int, why: str) -> ResultsError:
        return ResultsError(f"{self.file}: line {number} cannot be read: {why}; use another folder")


def _line(task: Task, blocks: Sequence[Any], fields: tuple[str, ...]) -> bytes:
    columns = {name: [getattr(block, name) for block in blocks] for name in fields}
    entry = {"snr_db": task.snr_db, "first": task.first, "blocks": columns}
    head = json.dumps(entry, allow_nan=False).removesuffix("}")
    return f'{head}{_TAIL}{zlib.crc32(head.encode()):08x}"}}\n'.encode()


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
