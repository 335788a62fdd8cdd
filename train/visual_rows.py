"""Tables of questions about images: image, question, answer.

easy-VQA    {train,test}_questions.json, rows [question, answer, image], beside {train,test}_images.zip or a folder of
that name; or train/questions.json beside train/images/, as its repository has them
CSV         columns image, question, answer (TSV and JSON lines too), and a folder of images
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from link.errors import ArgumentError
from link.randomness import permutation
from link.table import ABSENT, check_characters, column_key, decode, is_utf8, read_bytes, read_table, refuse_line, sift

HOLDOUT_SEED: Final = 20_000
_HELD_OUT_MAX: Final = 1000
_HELD_OUT_SHARE: Final = 10
_LOGGER: Final = logging.getLogger(__name__)
_COLUMNS: Final = {
    "image": (
        "image",
        "image_path",
        "image_name",
        "image_id",
        "img",
        "img_path",
        "img_id",
        "file",
        "filename",
        "file_name",
    ),
    "question": ("question", "questions", "text"),
    "answer": ("answer", "answers", "label"),
}


class VisualRow(NamedTuple):
    """A question about an image.

    Attributes
    ----------
    image, question, answer : str
        The image by its name; all composed (NFC), so that what looks alike is alike.
    line : int
        Of the file, from 1; of a list in JSON the number of the row.
    """

    image: str
    question: str
    answer: str
    line: int


@dataclass(frozen=True)
class VisualRows:
    """The rows of a table, and where their images are."""

    file: str
    images: Path
    rows: tuple[VisualRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, keep: Sequence[bool]) -> VisualRows:
        """Some of the rows."""
        return VisualRows(self.file, self.images, tuple(row for row, kept in zip(self.rows, keep, strict=True) if kept))


class Parts(NamedTuple):
    """Training rows, and test rows where they are a table of their own."""

    train: VisualRows
    test: VisualRows | None


def read_published(folder: Path, *, skip_bad: bool = False) -> Parts:
    """The tables of a folder as easy-VQA publishes it.

    Raises
    ------
    ArgumentError
        If it is no such folder, or a row is broken.
    """
    train = _published_part(folder, "train", skip_bad)
    if train is None:
        raise ArgumentError(
            "data",
            f"{folder} has neither train_questions.json nor train/questions.json: name a table of your own with "
            "task_options.csv_path and task_options.image_folder",
        )
    return Parts(train, _published_part(folder, "test", skip_bad))


def read_rows(file: Path, images: Path, *, skip_bad: bool = False) -> VisualRows:
    """The rows of a table with a header.

    Parameters
    ----------
    skip_bad : bool
        Whether rows that are broken are counted and left out, in place of refusing the first.

    Raises
    ------
    ArgumentError
        If the file cannot be read, lacks a column, or a row is broken.
    """
    table = read_table(file, {name for names in _COLUMNS.values() for name in names}, lenient=skip_bad)
    names = [column_key(name) for name in table.names or ()]
    places = {}
    for role, known in _COLUMNS.items():
        place = next((names.index(name) for name in known if name in names), None)
        if place is None:
            there = ", ".join(table.names or ()) or "no header"
            raise ArgumentError(
                "data",
                f"{file} needs columns image, question and answer, and lacks {role}; it has {there}",
            )
        places[role] = place

    def cells(row: Sequence[object]) -> list[object]:
        return [row[places[role]] for role in _COLUMNS]

    rows = [(line, cells(row)) for line, row in table.rows]
    return _rows(str(file), images, rows, table.ragged, skip_bad=skip_bad)


def without_bad(rows: VisualRows, find: Callable[[VisualRow], str | None], *, skip_bad: bool) -> VisualRows:
    """The rows that nothing is wrong with.

    Parameters
    ----------
    find : callable
        What is wrong with a row, in words; None where nothing is.
    skip_bad : bool
        Whether the others are counted and left out, which is said once, in place of refusing the first.

    Raises
    ------
    ArgumentError
        If a row is wrong and not to be skipped, or none is left.
    """
    reasons = [find(row) for row in rows.rows]
    wrong = [(row.line, reason) for row, reason in zip(rows.rows, reasons, strict=True) if reason is not None]
    return _report(rows.take([reason is None for reason in reasons]), wrong, len(rows), skip_bad)


def _published_part(folder: Path, part: str, skip_bad: bool) -> VisualRows | None:
    for questions, places in (
        (folder / f"{part}_questions.json", (folder / f"{part}_images", folder / f"{part}_images.zip")),
        (folder / part / "questions.json", (folder / part / "images", folder / part / "images.zip")),
    ):
        if questions.is_file():
            images = next((place for place in places if place.exists()), None)
            if images is None:
                raise ArgumentError(
                    "data", f"{folder} lacks {places[0].name}/ and {places[1].name}, of {questions.name}"
                )
            return _rows(str(questions), images, list(enumerate(_json_rows(questions), start=1)), skip_bad=skip_bad)
    return None


def _json_rows(file: Path) -> list[list[object]]:
    """Rows as image, question, answer."""
    try:
        content = json.loads(decode(str(file), read_bytes(file)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError("data", f"{file} is no JSON: {error}") from None
    if not isinstance(content, list) or not content:
        raise ArgumentError("data", f"{file} must be a list of rows [question, answer, image]")
    return [
        [row[2], row[0], row[1]] if isinstance(row, list) and len(row) == 3 else [ABSENT, ABSENT, ABSENT]
        for row in content
    ]


def _rows(
    file: str,
    images: Path,
    cells: list[tuple[int, list[object]]],
    broken: Sequence[tuple[int, str]] = (),
    *,
    skip_bad: bool,
) -> VisualRows:
    found, wrong = sift(file, cells, lambda line, row: _checked(file, line, row), skip_bad=skip_bad)
    wrong = sorted([*broken, *wrong])
    return _report(VisualRows(file, images, tuple(found)), wrong, len(cells) + len(broken), skip_bad)


def _checked(file: str, line: int, row: list[object]) -> VisualRow:
    texts = []
    for role, cell in zip(_COLUMNS, row, strict=True):
        if cell is ABSENT or isinstance(cell, bool) or not isinstance(cell, str | int):
            refuse_line(file, line, f"has no {role}")
        if not is_utf8(str(cell)):
            refuse_line(file, line, f"the {role} is no UTF-8")
        text = unicodedata.normalize("NFC", str(cell).strip())
        if not text:
            refuse_line(file, line, f"the {role} is empty")
        check_characters(file, line, text)
        texts.append(text)
    image, question, answer = texts
    return VisualRow(image, question, answer, line)


def _report(rows: VisualRows, wrong: list[tuple[int, str]], total: int, skip_bad: bool) -> VisualRows:
    if wrong and not skip_bad:
        refuse_line(rows.file, *wrong[0])
    if wrong:
        line, reason = wrong[0]
        _LOGGER.warning(
            "%s: %d of %d rows are left out; the first, line %d: %s", rows.file, len(wrong), total, line, reason
        )
    if not len(rows):
        raise ArgumentError("data", f"{rows.file} has no row that can be used")
    return rows


def hold_out(rows: VisualRows, asked: int | None, part: str) -> tuple[VisualRows, VisualRows]:
    """Rows without those of some images, and these; which images is a matter of their number and order alone.

    How many is said where nobody asked for a number.

    Raises
    ------
    ArgumentError
        If there are too few images.
    """
    names = list(dict.fromkeys(row.image for row in rows.rows))
    count = asked or min(_HELD_OUT_MAX, max(1, len(names) // _HELD_OUT_SHARE))
    if count >= len(names):
        raise ArgumentError("data", f"{rows.file} has {len(names)} images, too few to hold {count} out for {part}")
    if asked is None:
        _LOGGER.warning("%s: %d of %d images are held out for %s", rows.file, count, len(names), part)
    held = {names[place] for place in permutation(HOLDOUT_SEED, len(names))[:count]}
    apart = [row.image in held for row in rows.rows]
    return rows.take([not away for away in apart]), rows.take(apart)


def images_of(rows: VisualRows) -> set[Path]:
    """The images that rows ask about, as files."""
    folder = rows.images.resolve()
    return {folder / row.image for row in rows.rows}


def kinds_of(rows: Sequence[VisualRow], classes: Sequence[str]) -> list[int]:
    """A number for each answer, the same for those that are alternatives: some question has had both.

    Examples
    --------
    >>> rows = [("a", "red?", "yes"), ("b", "red?", "no"), ("a", "what?", "box"), ("b", "what?", "can")]
    >>> kinds_of([VisualRow(*row, line) for line, row in enumerate(rows, start=1)], ["box", "can", "no", "yes"])
    [0, 0, 2, 2]
    """
    had: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        had[row.question].add(row.answer)
    kind = {answer: place for place, answer in enumerate(classes)}
    for answers in had.values():
        merged = {kind[answer] for answer in answers}
        if len(merged) > 1:
            kind = {answer: min(merged) if own in merged else own for answer, own in kind.items()}
    return [kind[answer] for answer in classes]
