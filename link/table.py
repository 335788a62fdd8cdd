"""Rows of cells from a text file: TSV, CSV or JSON lines, each row with the line where it begins.

A broken line is refused by its number, and no row is dropped: what cannot be read whole is not read in part.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from link.errors import ArgumentError

SUFFIXES: Final = (".tsv", ".tab", ".csv", ".jsonl", ".ndjson", ".json", ".txt")
"""Files that `read_table` takes."""

ABSENT: Final = object()
"""The cell of a JSON object that lacks a key which the first object has."""

_HEADER_WORDS: Final = 3
_Cells = TypeVar("_Cells")
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Table:
    """Rows of equal length and, where the file says them, the names of their cells.

    Where it was read leniently, `ragged` are lines that are no rows like the others, and why.
    """

    file: str
    names: tuple[str, ...] | None
    rows: tuple[tuple[int, Sequence[Any]], ...]
    ragged: tuple[tuple[int, str], ...] = ()

    def column(self, index: int) -> list[str]:
        """Cells of a column."""
        return [str(row[index]).strip() for _, row in self.rows]

    def distinct(self, index: int) -> int:
        """How many different cells a column has."""
        return len(set(self.column(index)))

    @property
    def width(self) -> int:
        """Cells of a row."""
        return len(self.rows[0][1])


def read_table(path: Path, header_words: Collection[str], *, lenient: bool = False, of_numbers: bool = False) -> Table:
    """Read a file by its suffix.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a byte order mark.
    header_words : collection of str
        Names of columns, as `column_key` writes them: a first line that holds one, in a column where no other row has the
        same, is a header.
    lenient : bool
        Whether bytes that are no UTF-8 are left to the caller, who finds them in a row's cells (`is_utf8`), and so are
        lines that are no rows: of another length than the first, or no JSON (`Table.ragged`).
    of_numbers : bool
        Whether a CSV has numbers in its rows, so that a first line of nothing but names is a header, whatever they are.

    Raises
    ------
    ArgumentError
        If the file cannot be read, is empty, names two columns alike, or a line is broken.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ArgumentError("data", f"{path} must end in one of {', '.join(SUFFIXES)}")
    file, content = str(path), decode(str(path), read_bytes(path), lenient=lenient)
    if suffix in (".jsonl", ".ndjson", ".json"):
        table = _json_table(file, content, lenient=lenient)
    elif suffix == ".csv":
        rows = list(_csv_rows(file, content, header_words, of_numbers=of_numbers))
        remark = " (a cell with the separator in it needs quotes)"
        table = _delimited_table(file, rows, header_words, remark, lenient=lenient, of_numbers=of_numbers)
    elif suffix == ".txt" and "\t" not in content.partition("\n")[0]:
        table = Table(file, None, tuple((line, (text,)) for line, text in lines_of(content) if text.strip()))
    else:
        cells = [(line, text.split("\t")) for line, text in lines_of(content) if text.strip()]
        table = _delimited_table(file, cells, header_words, "", lenient=lenient)
    if not table.rows:
        raise ArgumentError("data", f"{file} holds no rows")
    return table


def column_key(name: str) -> str:
    """A column's name without what people write differently.

    Examples
    --------
    >>> column_key(" Class Index")
    'class_index'
    """
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def is_integer(text: str) -> bool:
    """Whether a cell is a whole number."""
    return re.fullmatch(r"[+-]?[0-9]{1,18}", text) is not None


def _delimited_table(
    file: str,
    lines: list[tuple[int, list[str]]],
    header_words: Collection[str],
    remark: str,
    *,
    lenient: bool,
    of_numbers: bool = False,
) -> Table:
    width = len(lines[0][1]) if lines else 0
    rows, ragged = [], []
    for line, row in lines:
        if len(row) == width:
            rows.append((line, row))
            continue
        columns = f"{len(row)} column{'s' * (len(row) != 1)}"
        reason = f"has {columns} where line {lines[0][0]} has {width}{remark}"
        if not lenient:
            refuse_line(file, line, reason)
        ragged.append((line, reason))
    if not rows or not _is_header([row for _, row in rows], header_words, of_numbers=of_numbers):
        return Table(file, None, tuple(rows), tuple(ragged))
    line, names = rows[0][0], tuple(name.strip() for name in rows[0][1])
    alike = next((key for key, count in Counter(map(column_key, names)).items() if key and count > 1), None)
    if alike is not None:
        twice = [name for name in names if column_key(name) == alike]
        refuse_line(file, line, f"names two columns alike, {twice[0]} and {twice[1]}: give each a name of its own")
    return Table(file, names, tuple(rows[1:]), tuple(ragged))


def _is_header(rows: list[list[str]], header_words: Collection[str], *, of_numbers: bool) -> bool:
    """Whether the first row names a column, and with a word that no other row of that column has; or names all columns."""
    first = rows[0]
    if of_numbers and all(_is_name(cell) for cell in first):
        return True
    if any(len(cell.split()) > _HEADER_WORDS for cell in first):
        return False
    named = [index for index, cell in enumerate(first) if column_key(cell) in header_words]
    return any(all(row[index] != first[index] for row in rows[1:]) for index in named)


def _is_name(cell: str) -> bool:
    """Whether a cell begins with a letter and is no number, as nan and inf are."""
    try:
        float(cell)
    except ValueError:
        return cell.strip()[:1].isalpha()
    return False


def _csv_rows(
    file: str, content: str, header_words: Collection[str], *, of_numbers: bool
) -> Iterator[tuple[int, list[str]]]:
    first = content.partition("\n")[0].replace('"', "")
    names_columns = partial(_is_header, header_words=header_words, of_numbers=of_numbers)
    delimiter = next((mark for mark in ";\t" if mark in first and names_columns([first.split(mark)])), ",")
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        reason = "opens a quote that is never closed" if "unexpected end" in str(error) else f"is no CSV: {error}"
        if "field larger" in str(error):
            reason = f"opens a quote that is not closed within {csv.field_size_limit()} characters"
        refuse_line(file, start, reason)


def _json_table(file: str, content: str, *, lenient: bool) -> Table:
    names: tuple[str, ...] | None = None
    rows: list[tuple[int, Sequence[Any]]] = []

    def read(line: int, text: str) -> None:
        nonlocal names
        value = _json_value(file, line, text)
        if not rows:
            names = tuple(value) if isinstance(value, dict) else None
        if isinstance(value, dict) != (names is not None):
            refuse_line(file, line, f"must be like line {rows[0][0]}, {'an object' if names else 'no object'}")
        if isinstance(value, dict):
            value = [value.get(name, ABSENT) for name in names or ()]
        elif rows and len(value) != len(rows[0][1]):
            refuse_line(file, line, f"has {len(value)} values where line {rows[0][0]} has {len(rows[0][1])}")
        rows.append((line, value))

    lines = [(line, text) for line, text in lines_of(content) if text.strip()]
    _, ragged = sift(file, lines, read, skip_bad=lenient)
    return Table(file, names, tuple(rows), tuple(ragged))


def _json_value(file: str, line: int, text: str) -> dict[str, Any] | list[Any]:
    """What a line holds, a string as a list of its own."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep or a number too long"
        refuse_line(file, line, f"is no JSON: {reason} (one object a line)")
    if not isinstance(value, dict | list | str) or value in ({}, []):
        refuse_line(file, line, f"must be an object, a list or a string, got {shortened(text)}")
    return [value] if isinstance(value, str) else value


def sift(
    file: str, lines: Iterable[tuple[int, _Cells]], read: Callable[[int, _Cells], _Row], *, skip_bad: bool
) -> tuple[list[_Row], list[tuple[int, str]]]:
    """Rows of the lines that can be read, and of the others their numbers and what is wrong.

    Parameters
    ----------
    read : callable
        Makes a row of a line's number and its cells, or raises ArgumentError.
    skip_bad : bool
        Whether to go on past a line that is refused.
    """
    rows: list[_Row] = []
    wrong: list[tuple[int, str]] = []
    for line, cells in lines:
        try:
            rows.append(read(line, cells))
        except ArgumentError as error:
            if not skip_bad:
                raise
            wrong.append((line, error.message.removeprefix(f"{file}: line {line}: ")))
    return rows, wrong


def shortened(text: str) -> str:
    """A value for a message."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_bytes(path: Path, field: str = "data") -> bytes:
    """A file's content; ArgumentError names what cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArgumentError(field, f"{path} does not exist") from None
    except OSError as error:
        raise ArgumentError(field, f"{path} cannot be read: {error.strerror}") from None


def decode(file: str, content: bytes, field: str = "data", *, lenient: bool = False) -> str:
    """UTF-8, with or without a byte order mark, as text; ArgumentError names the line that is none.

    Where it is `lenient`, bytes that are none become halves of surrogate pairs, which no text holds.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ArgumentError(field, f"{file} is UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig", errors="surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        before = len(re.findall(rb"\r\n|\r|\n", error.object[: error.start]))
        refuse_line(
            file, before + 1, f"is no UTF-8 (byte 0x{error.object[error.start]:02x}): save the file as UTF-8", field
        )


def is_utf8(text: str) -> bool:
    """Whether a cell of a table that was read leniently was UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def lines_of(content: str) -> Iterator[tuple[int, str]]:
    """Lines and their numbers from 1; the three line ends of the systems, and no other character, part them."""
    for number, line in enumerate(io.StringIO(content, newline=None), start=1):
        yield number, line.removesuffix("\n")


def check_characters(file: str, line: int, text: str, field: str = "data") -> None:
    """Refuse a text with NUL or half of a surrogate pair, which no tokenizer and no message holds."""
    if "\0" in text:
        refuse_line(file, line, "holds a NUL character", field)
    if any("\ud800" <= character <= "\udfff" for character in text):
        refuse_line(file, line, "holds half of a surrogate pair, which is no character", field)


def refuse_line(file: str, line: int, reason: str, field: str = "data") -> NoReturn:
    """Raise the ArgumentError that names a line."""
    raise ArgumentError(field, f"{file}: line {line}: {reason}")
