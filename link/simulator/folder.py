"""The folder that holds what a sweep found beside what was asked.

    out/  spec.json        the question: spec and provenance, written first
          blocks.jsonl     what each block gave, durable as it comes (link.simulator.journal): all else follows from it
          points.jsonl     one line a finished point, in the order of the grid
          results.json     {"points", "provenance", "spec"}, when the sweep ends, however it ends
          results.csv      the points as a table; results.parquet the same, where pyarrow is installed

An interrupted sweep loses the task it was in and nothing else: the next one with the same question goes on behind it. A
point that was not simulated is absent.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast, get_args, get_origin

from pydantic import BaseModel

from link.errors import ResultsError
from link.montecarlo import Proportion
from link.simulator.journal import JOURNAL_NAME, Journal

SPEC_NAME: Final = "spec.json"
POINTS_NAME: Final = "points.jsonl"
RESULTS_NAME: Final = "results.json"
TABLE_NAME: Final = "results.csv"
PARQUET_NAME: Final = "results.parquet"

_log = logging.getLogger(__name__)


class Result(Protocol):
    """A sweep's result, as a pydantic model."""

    @property
    def points(self) -> Sequence[BaseModel]: ...
    def model_dump_json(self, *, indent: int) -> str: ...


class ResultsFolder:
    """A folder that one question owns.

    Parameters
    ----------
    path : Path
        Made where it does not exist.
    question : mapping of str to BaseModel
        What is asked and of what. A folder of another question is refused.
    block_type : type
        See link.simulator.Workload.

    Attributes
    ----------
    journal : Journal

    Raises
    ------
    ResultsError
        If the folder answers another question, or what it holds cannot be read.
    """

    def __init__(self, path: Path, question: Mapping[str, BaseModel], block_type: type[Any]) -> None:
        self.path = path
        self._shown: list[BaseModel] = []
        self.journal = Journal(path, block_type)
        asked = {name: model.model_dump(mode="json") for name, model in sorted(question.items())}
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / SPEC_NAME).exists():
                self._refuse_another(asked)
                self._refuse_without(JOURNAL_NAME, there=[SPEC_NAME])
            else:
                journal = self.journal.file.exists() and self.journal.file.stat().st_size > 0
                self._refuse_without(SPEC_NAME, there=[JOURNAL_NAME] * journal + [POINTS_NAME])
                self.journal.file.touch()
                self._replace(SPEC_NAME, json.dumps(asked, indent=2) + "\n")
        except OSError as error:
            raise ResultsError(f"{path}: cannot be used for results: {error.strerror or error}") from None

    def show(self, points: Sequence[BaseModel]) -> None:
        """Write points.jsonl: the points that have ended so far. Those that follow on what is there are appended."""
        more = len(self._shown)
        follow_on = 0 < more <= len(points) and all(old is new for old, new in zip(self._shown, points, strict=False))
        lines = "".join(point.model_dump_json() + "\n" for point in points[more if follow_on else 0 :])
        if follow_on:
            with (self.path / POINTS_NAME).open("a", encoding="utf-8", newline="") as stream:
                stream.write(lines)
        else:
            self._replace(POINTS_NAME, lines)
        self._shown = list(points)

    def close(self, result: Result) -> None:
        """Write the points and the result, as JSON and as tables."""
        self._shown = []
        self.show(result.points)
        self._replace(RESULTS_NAME, result.model_dump_json(indent=2) + "\n")
        rows = [_columns(point) for point in result.points]
        self._replace(TABLE_NAME, _csv(rows))
        self._write_parquet(result, rows)

    def _refuse_without(self, missing: str, there: Sequence[str]) -> None:
        for name in there:
            if (self.path / name).exists() and not (self.path / missing).exists():
                raise ResultsError(f"{self.path}: has {name}, but no {missing} beside it; use another folder")

    def _refuse_another(self, asked: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.path / SPEC_NAME).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{self.path}: {SPEC_NAME} cannot be read: {error}") from None
        except RecursionError:
            raise ResultsError(f"{self.path}: {SPEC_NAME} cannot be read: it is nested too deeply") from None
        if not (isinstance(found, dict) and found.keys() == asked.keys()):
            raise ResultsError(
                f"{self.path}: holds another sweep, or none ({SPEC_NAME} is of another form); use another folder"
            )
        there, here = _flatten(found), _flatten(asked)
        differing = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
        if differing:
            what = "; ".join(
                f"{key} is {_short(there.get(key))} there, {_short(here.get(key))} here" for key in differing
            )
            raise ResultsError(f"{self.path}: holds another sweep ({what}); use another folder")

    def _write_parquet(self, result: Result, rows: Sequence[Mapping[str, Any]]) -> None:
        """The points with the types of their fields, whatever they hold; the question is the table's metadata."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            _log.warning("pyarrow is not installed, so there is no %s: pip install 'hardpath[sweep]'", PARQUET_NAME)
            return
        types = {
            int: pyarrow.int64(),
            float: pyarrow.float64(),
            str: pyarrow.string(),
            tuple: pyarrow.list_(pyarrow.int64()),
        }
        (point, _) = get_args(cast("type[BaseModel]", type(result)).model_fields["points"].annotation)
        question = {name: getattr(result, name).model_dump_json() for name in ("provenance", "spec")}
        schema = pyarrow.schema([(name, types[kind]) for name, kind in _column_types(point)], metadata=question)
        draft = self.path / f".{PARQUET_NAME}.part"
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), draft)
        draft.replace(self.path / PARQUET_NAME)

    def _replace(self, name: str, text: str) -> None:
        """Write a file so that a crash leaves the old one or the new one, never half of one."""
        draft = self.path / f".{name}.part"
        with draft.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self.path / name)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: " ".join(map(str, v)) if isinstance(v, list) else v for name, v in row.items()})
    return stream.getvalue()


def _column_types(point: type[BaseModel]) -> Iterator[tuple[str, type]]:
    """Columns of a kind of points and the Python types of their cells, as `_columns` fills them."""
    for name, field in point.model_fields.items():
        kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
        if get_origin(field.annotation) is tuple:
            yield name, tuple
        elif Proportion in kinds:
            yield from ((f"{name}{end}", float) for end in ("", "_low", "_high"))
        elif issubclass(kinds[0], BaseModel):
            yield from ((f"{name}_{inner}", kind) for inner, kind in _column_types(kinds[0]))
        else:
            yield name, str if issubclass(kinds[0], str) else kinds[0]


def _columns(point: BaseModel) -> dict[str, Any]:
    """One row: a proportion becomes three columns, name, name_low and name_high; what is absent is empty."""
    row: dict[str, Any] = dict.fromkeys(name for name, _ in _column_types(type(point)))
    for name in type(point).model_fields:
        value = getattr(point, name)
        if isinstance(value, Proportion):
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        elif isinstance(value, BaseModel):
            row |= {f"{name}_{inner}": cell for inner, cell in _columns(value).items()}
        elif value is not None:
            row[name] = list(value) if isinstance(value, tuple) else value
    return row


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _flatten(item, f"{prefix}.{key}" if prefix else key)
    return leaves


def _short(value: Any) -> str:
    """A value for an error message: a hash by its head."""
    text = "absent" if value is None else str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text
