"""Which columns of a table are the text, and which is the label.

A header is a first line that names a column in one of the ways below. It tells label and text; without one the label is
the column with the fewest distinct values, and all others, joined by a space, are the text. What stays in doubt is refused
with a line that says what to name: a guess would train on the wrong column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NoReturn

from link.errors import ArgumentError
from link.table import Table, column_key, is_integer, refuse_line

LABEL_NAMES: Final = frozenset(
    ("label", "labels", "class", "class_name", "class_index", "intent", "category", "target", "sentiment", "topic")
)
# fmt: off
TEXT_NAMES: Final = frozenset((
    "text", "texts", "sentence", "sentence1", "sentence2", "content", "title", "description", "review", "question",
    "utterance", "query", "phrase", "document", "headline", "body", "message", "tweet", "comment",
))
# fmt: on
ID_NAMES: Final = frozenset(("", "id", "idx", "index", "guid", "unnamed:_0"))
"""Columns that number the rows: neither label nor text. Upper case, spaces and hyphens in names do not matter."""


def text_and_label(table: Table, text_column: str | None, label_column: str | None) -> tuple[list[int], int | None]:
    """Places of the text and of the label: as given, as named, and else by what is left.

    Raises
    ------
    ArgumentError
        If a column that is given is not there, or it stays in doubt which is which.
    """
    known = [column_key(name) for name in table.names or ("other",) * table.width]
    label = _place(table, "label_column", label_column)
    text = [index for index in [_place(table, "text_column", text_column)] if index is not None]
    if label in text:
        raise ArgumentError("label_column", f"must be another column than text_column, got {label_column!r} for both")
    if label is None:
        named = [index for index in range(table.width) if known[index] in LABEL_NAMES and index not in text]
        named = [index for index in named if known[index] == "label"] or named
        if len(named) > 1:
            _refuse_columns(table)
        label = named[0] if named else None
    text = text or [index for index in range(table.width) if known[index] in TEXT_NAMES and index != label]
    left = [i for i in range(table.width) if known[i] not in ID_NAMES and i not in text and i != label]
    if text and (label is not None or len(left) <= 1):
        return text, left[0] if label is None and left else label
    if not text and table.names is None:
        if label is None and table.width > 1:
            label = _fewest(table, left)
            _refuse_unknown_header(table, label)
        return _without_numbers(table, [index for index in left if index != label]), label
    if not text and label is None and len(left) == 2:
        label = _fewest(table, left)
    left = [index for index in left if index != label]
    if text or len(left) != 1:
        _refuse_columns(table)
    return left, label


def _place(table: Table, field: str, column: str | None) -> int | None:
    """Place of a column that is given by its name or by its number from 1."""
    if column is None:
        return None
    names = table.names or ()
    if column in names:
        return names.index(column)
    if column_key(column) in map(column_key, names):
        return [column_key(name) for name in names].index(column_key(column))
    if is_integer(column) and 1 <= int(column) <= table.width:
        return int(column) - 1
    there = f"its columns are {', '.join(names)}" if names else f"it has {table.width} columns and no header"
    raise ArgumentError(field, f"must name a column of {table.file}, got {column!r}; {there}")


def _fewest(table: Table, columns: Sequence[int]) -> int:
    counts = sorted((table.distinct(index), index) for index in columns)
    if counts[0][0] == counts[1][0]:
        _refuse_columns(table)
    return counts[0][1]


def _refuse_unknown_header(table: Table, label: int) -> None:
    """A first line whose label is the odd one out is a header in words that are not known here."""
    first, *others = table.column(label)
    alone = first not in others and min(Counter(others).values(), default=1) > 1
    if alone or (others and not is_integer(first) and all(map(is_integer, others))):
        refuse_line(
            table.file,
            table.rows[0][0],
            f"looks like a header (no other row has {first!r}) but names no column that is known; name them text and label, "
            "or give text_column and label_column",
        )


def _without_numbers(table: Table, columns: list[int]) -> list[int]:
    """Columns that are text: one of different integers is the rows' number, one of equal integers may be another label."""
    if len(columns) == 1:
        return columns
    numeric = [index for index in columns if all(map(is_integer, table.column(index)))]
    text = [index for index in columns if index not in numeric]
    if not text or any(table.distinct(index) < len(table.rows) for index in numeric):
        _refuse_columns(table)
    return text


def _refuse_columns(table: Table) -> NoReturn:
    names = "without a header" if table.names is None else f"named {', '.join(table.names)}"
    raise ArgumentError(
        "data",
        f"{table.file}: cannot tell label and text among {table.width} columns {names}: name them text and label in a "
        "header line, or give text_column and label_column",
    )
