"""Texts and their labels from the files that people have: TSV, CSV, JSON lines, or one text a line.

    file ──> rows of cells, each with its line ──> which column is which ──> texts, labels

    .tsv .tab              tab between cells, a quote is a character like any other
    .csv                   comma (semicolon or tab where the header shows it), quotes as in RFC 4180, line breaks inside them
    .jsonl .ndjson .json   one JSON object, list or string a line
    .txt                   as .tsv where the first line has a tab; else one text a line

`link.columns` says which column is which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from link.columns import LABEL_NAMES, TEXT_NAMES, text_and_label
from link.errors import ArgumentError
from link.table import (
    ABSENT,
    SUFFIXES,
    Table,
    check_characters,
    column_key,
    decode,
    is_integer,
    is_utf8,
    lines_of,
    read_bytes,
    read_table,
    refuse_line,
    shortened,
    sift,
)

__all__ = [
    "SUFFIXES",
    "TextRows",
    "class_names",
    "class_numbers",
    "lines_in",
    "of_known_classes",
    "read_lines",
    "read_texts",
]

_SHOWN: Final = 8


@dataclass(frozen=True)
class TextRows:
    """What a file holds, row by row.

    Attributes
    ----------
    file : str
        As messages name it.
    texts : tuple of n str
        Without white space at their ends; none is empty.
    labels : tuple of n str, optional
        None where the file has no column of labels.
    lines : tuple of n int
        Line of the file where each row begins, counted from 1.
    wrong : tuple of (int, str)
        Lines that were passed over, and what is wrong with each.
    """

    file: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    lines: tuple[int, ...]
    wrong: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def skipped(self) -> int:
        """How many were passed over."""
        return len(self.wrong)

    @property
    def first_skipped(self) -> str | None:
        """The first of them and why, as "line 7: the text is empty"."""
        return f"line {self.wrong[0][0]}: {self.wrong[0][1]}" if self.wrong else None

    def without(self, wrong: Sequence[tuple[int, str]]) -> TextRows:
        """The rows less those of some lines, each with what is wrong with it; ArgumentError if none is left."""
        lines = dict(wrong)
        cells = zip(self.lines, self.texts, self.labels or [""] * len(self), strict=True)
        kept = [row for row in cells if row[0] not in lines]
        return _rows(self.file, kept, [*self.wrong, *wrong], labelled=self.labels is not None)


def read_texts(
    file: Path | str, *, text_column: str | None = None, label_column: str | None = None, skip_bad: bool = False
) -> TextRows:
    r"""Read texts and, where there are any, labels.

    Parameters
    ----------
    file : Path or str
        UTF-8, with or without a byte order mark; the suffix tells the format.
    text_column, label_column : str, optional
        Name of the column in the header (the key in JSON lines), or its number counted from 1. Found where absent.
    skip_bad : bool
        Whether to pass over rows that are broken, and keep account of them, rather than refuse the file.

    Raises
    ------
    ArgumentError
        If the file cannot be read, holds no row that can be used, the columns stay in doubt, or, unless they are skipped, a
        line is broken (it is named by its number).

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "films.tsv"
    >>> _ = file.write_text("label\tsentence\n1\ta fine film\n0\tdull\n")
    >>> found = read_texts(file)
    >>> found.texts, found.labels, found.lines
    (('a fine film', 'dull'), ('1', '0'), (2, 3))
    """
    given = [name for name in (text_column, label_column) if name is not None]
    table = read_table(
        Path(file),
        LABEL_NAMES | TEXT_NAMES | {column_key(name) for name in given if not is_integer(name)},
        lenient=skip_bad,
    )
    text, label = text_and_label(table, text_column, label_column)

    def read(line: int, row: Sequence[Any]) -> tuple[int, str, str]:
        return line, _text(table, line, text, row), "" if label is None else _label(table, line, label, row[label])

    rows, wrong = sift(table.file, table.rows, read, skip_bad=skip_bad)
    return _rows(table.file, rows, [*table.ragged, *wrong], labelled=label is not None)


def read_lines(file: Path | str, content: bytes | None = None, *, field: str = "data") -> tuple[str, ...]:
    """One text a line, blank lines at the end left out; parameters and errors as for `lines_in`."""
    return lines_in(file, content, field=field).texts


def lines_in(
    file: Path | str, content: bytes | None = None, *, field: str = "data", skip_bad: bool = False
) -> TextRows:
    """One text a line, without labels, blank lines at the end left out.

    Parameters
    ----------
    file : Path or str
        Where to read, or where messages say that `content` came from.
    content : bytes, optional
        UTF-8; read from `file` where absent.
    field : str
        What messages call the argument.
    skip_bad : bool
        As for `read_texts`.

    Raises
    ------
    ArgumentError
        If there is no line that can be used; or, unless they are skipped, a line is empty, no UTF-8, or holds a NUL (it is
        named by its number).
    """
    text = decode(str(file), read_bytes(Path(file), field) if content is None else content, field, lenient=skip_bad)
    if not text.strip():
        raise ArgumentError(field, f"{file} holds no text")

    def read(line: int, text: str) -> tuple[int, str, str]:
        if not text.strip():
            refuse_line(str(file), line, "is empty", field)
        if not is_utf8(text):
            refuse_line(str(file), line, "is no UTF-8", field)
        check_characters(str(file), line, text, field)
        return line, text.strip(), ""

    rows, wrong = sift(str(file), lines_of(text.rstrip()), read, skip_bad=skip_bad)
    return _rows(str(file), rows, wrong, labelled=False, field=field)


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes that labels name, in an order of their own: by value where all are integers, else by code point.

    Examples
    --------
    >>> class_names(["10", "9", "10"]), class_names(["World", "Sports", "World"])
    (('9', '10'), ('Sports', 'World'))
    """
    distinct = set(labels)
    if all(is_integer(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def class_numbers(rows: TextRows, classes: Sequence[str], *, names: Sequence[str] | None = None) -> list[int]:
    """Class of each row, as a place in `classes`: by name, or by its number from 0 where names are no numbers.

    Parameters
    ----------
    rows : TextRows
        With labels.
    classes : sequence of C str
    names : sequence of str, optional
        What labels 1, 2, ... stand for, where the labels are such numbers (a file classes.txt beside the data).

    Raises
    ------
    ArgumentError
        If there are no labels, or one is no class: it is named with its line. Numbers without a 0 among them are refused
        where classes have names: they may count from 1.

    Examples
    --------
    >>> rows = TextRows("a.csv", ("goal", "shares"), ("2", "3"), (1, 2))
    >>> class_numbers(rows, ("Business", "Sports"), names=("World", "Sports", "Business"))
    [1, 0]
    """
    place = _places(rows, classes, names)
    for line, label in zip(rows.lines, rows.labels or (), strict=True):
        if label not in place:
            refuse_line(rows.file, line, _no_class(label, classes))
    return [place[label] for label in rows.labels or ()]


def of_known_classes(rows: TextRows, classes: Sequence[str], *, names: Sequence[str] | None = None) -> TextRows:
    """The rows whose labels `class_numbers` knows; the others are passed over.

    Raises
    ------
    ArgumentError
        If there are no labels, none is a class, or numbers may count from 0 or from 1.

    Examples
    --------
    >>> rows = of_known_classes(TextRows("a.csv", ("goal", "?"), ("Sports", "Spots"), (1, 2)), ("Business", "Sports"))
    >>> rows.texts, rows.wrong
    (('goal',), ((2, "class 'Spots' is none of the 2 known: Business, Sports"),))
    """
    place = _places(rows, classes, names)
    if {"0", str(len(place))} <= set(rows.labels or ()) and "0" in place and "0" not in classes:
        raise ArgumentError(
            "data", f"{rows.file} has labels 0 and {len(place)} of {len(place)} classes: the first number is in doubt"
        )
    cells = zip(rows.lines, rows.labels or (), strict=True)
    return rows.without([(line, _no_class(label, classes)) for line, label in cells if label not in place])


def _rows(
    file: str,
    rows: Sequence[tuple[int, str, str]],
    wrong: Sequence[tuple[int, str]],
    *,
    labelled: bool,
    field: str = "data",
) -> TextRows:
    """Of lines, texts and labels, and of what was passed over."""
    if not rows:
        line, reason = min(wrong)
        raise ArgumentError(field, f"{file} has no row that can be used; the first, line {line}: {reason}")
    lines, texts, labels = zip(*rows, strict=True)
    return TextRows(file, texts, labels if labelled else None, lines, tuple(sorted(wrong)))


def _places(rows: TextRows, classes: Sequence[str], names: Sequence[str] | None) -> dict[str, int]:
    """Places among the classes of those labels of the rows that are one."""
    if rows.labels is None:
        raise ArgumentError("data", f"{rows.file} has no column of labels: name one `label` in a header line")
    place = {name: index for index, name in enumerate(classes)}
    labels = set(rows.labels)
    numbers = {label for label in labels if is_integer(label)}
    if labels & place.keys() or any(map(is_integer, classes)):
        return place
    if names is not None and numbers and all(1 <= int(label) <= len(names) for label in numbers):
        return {label: place[name] for label in numbers if (name := names[int(label) - 1]) in place}
    return {str(index): index for index in range(len(classes))} if "0" in labels else place


def _no_class(label: str, classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
    return f"class {label!r} is none of the {len(classes)} known: {shown}"


def _text(table: Table, line: int, columns: Sequence[int], row: Sequence[Any]) -> str:
    for index in columns:
        if row[index] is ABSENT or not isinstance(row[index], str):
            what = "is absent" if row[index] is ABSENT else f"must be a string, got {shortened(json.dumps(row[index]))}"
            refuse_line(table.file, line, f"{_named(table, index, 'text')} {what}")
    text = " ".join(cell for index in columns if (cell := row[index].strip()))
    if not text:
        refuse_line(table.file, line, "the text is empty")
    if not is_utf8(text):
        refuse_line(table.file, line, "the text is no UTF-8")
    check_characters(table.file, line, text)
    return text


def _label(table: Table, line: int, index: int, cell: Any) -> str:
    if isinstance(cell, bool):
        cell = str(cell).lower()
    elif isinstance(cell, int):
        cell = str(cell)
    if not isinstance(cell, str):
        what = "is absent" if cell is ABSENT else f"must be a string or an integer, got {shortened(json.dumps(cell))}"
        refuse_line(table.file, line, f"{_named(table, index, 'label')} {what}")
    if not cell.strip():
        refuse_line(table.file, line, "the label is empty")
    if not is_utf8(cell):
        refuse_line(table.file, line, "the label is no UTF-8")
    check_characters(table.file, line, cell)
    return cell.strip()


def _named(table: Table, index: int, role: str) -> str:
    return f"the {role}" if table.names is None else repr(table.names[index])
