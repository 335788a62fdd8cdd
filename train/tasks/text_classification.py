"""Classes of texts: any table of texts and labels, any transformers encoder.

The data are a folder (`--data`) with one table a part, as TSV, CSV or JSON lines: `train.*`, and `test.*` or `dev.*` (also
named `validation.*` or `val.*`). A table belongs to a part whose name it bears, alone (`train.tsv`) or with `_`, `-` or `.`
and more behind it (`train_subset.csv`), in small letters or capitals; a `.txt` must bear it alone, since `train_notes.txt`
are notes. Other files are left alone, and two tables of one part are refused. A part may be absent: validation rows are then
held out of the training rows by whole sentence (`train.holdout`), and test rows too. `classes.txt`, one name a line, is
needed only where labels are numbers from 1. Without `--data`, `task_options.dataset` names a data set of the hub.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from link.errors import ArgumentError
from link.interface import TensorSpec, text_inputs
from link.randomness import Draws
from link.table import refuse_line
from link.texts import SUFFIXES, TextRows, read_lines, read_texts
from link.tokenizer import Tokenizer
from train.encoders import (
    TextEncoder,
    build_tokenizer,
    learn_tokenizer,
    load_config,
    load_tokenizer,
    load_weights,
    require_length,
    scratch_config,
)
from train.holdout import hold_out, part_of
from train.hub import fetch_rows
from train.tasks import TOKENIZER_FACT, Data, Split

SCRATCH: Final = "scratch"
TRANSMITTER_OPTIONS: Final = ("encoder", "max_length")
TRANSMITTER_FACTS: Final = (TOKENIZER_FACT, "encoder")
SKIP_BAD: Final = "skip_bad_rows"
HOLDOUT_SEED: Final = 20_000
_LOGGER: Final = logging.getLogger(__name__)
_PARTS: Final = {"train": ("train",), "validation": ("dev", "validation", "val"), "test": ("test",)}
_WIDTH: Final = 256
_VOCABULARY: Final = 8_000
_SHOWN: Final = 8
_HELD_OUT_MAX: Final = 1000
_HELD_OUT_SHARE: Final = 10


class Options(BaseModel):
    """Options of the task.

    Attributes
    ----------
    encoder : str
        Name on the hub, or folder, of a transformers encoder; `scratch` is a small one that is trained from nothing.
    max_length : int
        Tokens of a text, special ones included; what is longer is cut.
    dataset : str
        Data set of the hub, where no folder is named.
    validation_rows, test_rows : int
        Held out of the training rows where the folder has no such part; where absent, a tenth of them, at most 1000.
    skip_bad_rows : bool
        Whether rows of a folder that cannot be used, or have a label that is no class, are left out and counted, in place
        of ending with the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: Annotated[str, Field(min_length=1)] = "roberta-base"
    max_length: Annotated[int, Field(ge=4, le=512)] = 64
    dataset: Literal["sst2", "ag_news"] | None = None
    validation_rows: Annotated[int, Field(ge=1)] | None = None
    test_rows: Annotated[int, Field(ge=1)] | None = None
    skip_bad_rows: bool = False


class Parts(NamedTuple):
    """The tables of a data set, by part; None where a part is absent."""

    train: TextRows
    validation: TextRows | None = None
    test: TextRows | None = None


def find(options: Options, folder: Path | None) -> dict[str, Any]:
    """Class names, tokenizer and architecture of the encoder."""
    train = read_parts(options, folder).train
    return {"classes": classes_in(folder, train), **find_encoder(options, train.texts)}


def find_encoder(options: Options, texts: Sequence[str]) -> dict[str, Any]:
    """Tokenizer and architecture of the encoder; the tokenizer of a small one is learned from the texts."""
    if options.encoder == SCRATCH:
        tokenizer = learn_tokenizer(texts, _VOCABULARY)
        config = scratch_config(tokenizer, options.max_length)
    else:
        tokenizer, config = load_tokenizer(options.encoder), load_config(options.encoder)
    return {TOKENIZER_FACT: tokenizer, "encoder": config}


def classes_in(folder: Path | None, train: TextRows) -> list[str]:
    """Class names of classes.txt, or the labels of the training table."""
    return _names_in(folder) or _classes_of(train)


def build(options: Options, facts: Mapping[str, Any]) -> TextClassification:
    """The task from its facts."""
    return TextClassification(options, facts)


class TextClassification:
    """Texts, cut and padded to a fixed length, to one of the classes that the labels name.

    Parameters
    ----------
    options : Options
    facts : mapping
        As `find` returns them.
    """

    name = "text-classification"

    def __init__(self, options: Options, facts: Mapping[str, Any]) -> None:
        self.options = options
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.config: Mapping[str, Any] = facts["encoder"]
        # A bundle's provenance keeps all facts but this one, and what needs no tokenizer does without.
        self.tokenizer_json: str = facts.get(TOKENIZER_FACT, "")
        require_length(self.config, options.max_length)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Cuts and pads a text to `max_length` tokens."""
        return build_tokenizer(self.tokenizer_json, self.options.max_length, self.config)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Token numbers of each text, and a mask of those that are there."""
        return text_inputs(self.options.max_length, int(self.config["vocab_size"]))

    def load(self, folder: Path | None) -> Data:
        """The tables of `folder`, or of the data set that the options name."""
        parts, first = self._parts(folder)
        train, test = self._test_apart(parts)
        validation = parts.validation
        if validation is None:
            train, validation = _hold_out(train, self.options.validation_rows, "validation")
        return Data(*(self._split(rows, first) for rows in (train, validation, test)))

    def test_texts(self, folder: Path | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The test rows as raw strings, and their labels (n,)."""
        parts, first = self._parts(folder)
        _, test = self._test_apart(parts)
        return test.texts, class_indices(test, self.classes, numbered=first is not None, first=first)

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Texts are not augmented."""
        return inputs

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """A transformer, and queries that read tokens from its states."""
        return TextEncoder(self.config, tokens, dim)

    def pretrained(self) -> Mapping[str, Tensor] | None:
        """Weights that the backbone starts from; None where it is trained from nothing."""
        return None if self.options.encoder == SCRATCH else load_weights(self.options.encoder, self.config)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """One hidden layer on all tokens."""
        return nn.Sequential(
            nn.Flatten(1), nn.Linear(tokens * dim, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, len(self.classes))
        )

    def _parts(self, folder: Path | None) -> tuple[Parts, int | None]:
        """The tables less what is left out, which is said, and the first class's number; None where labels are names."""
        parts = read_parts(self.options, folder)
        first = None if _names_in(folder) is None else _first_number(parts)
        if self.options.skip_bad_rows:
            known = (rows and of_known_classes(rows, self.classes, first) for rows in parts)
            parts = Parts._make(known)
        for rows in parts:
            if rows is not None and rows.skipped:
                lines = len(rows) + rows.skipped
                _LOGGER.warning(
                    "%s: %d of %d lines are left out; the first, %s", rows.file, rows.skipped, lines, rows.first_skipped
                )
        return parts, first

    def _test_apart(self, parts: Parts) -> tuple[TextRows, TextRows]:
        """Training rows, validation still among them where it is held out, and test rows."""
        if parts.test is None:
            return _hold_out(parts.train, self.options.test_rows, "test")
        left = ~part_of(parts.train.texts, parts.test.texts)
        if not left.any():
            raise ArgumentError(
                "data", f"every row of {parts.train.file} stands in {parts.test.file} too: none is left"
            )
        return _take(parts.train, left), parts.test

    def _split(self, rows: TextRows, first: int | None) -> Split:
        """Rows as the model takes them; `first` as for class_indices, None where labels are names alone."""
        encoded = self.tokenizer(rows.texts)
        if encoded.cut.any():
            _LOGGER.warning(
                "%s: %d of %d texts are longer than %d tokens and are cut there",
                rows.file,
                encoded.cut.sum(),
                len(rows),
                self.options.max_length,
            )
        if encoded.unknown.any():
            _LOGGER.warning(
                "%s: %d of %d texts have no token that the encoder knows", rows.file, encoded.unknown.sum(), len(rows)
            )
        inputs = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
        return Split(inputs, class_indices(rows, self.classes, numbered=first is not None, first=first))


def read_parts(options: Options, folder: Path | None) -> Parts:
    """The tables of a folder, or of the hub's data set.

    Raises
    ------
    ArgumentError
        If there is no training table, a part has two, or one has no labels.
    """
    if folder is None:
        if options.dataset is None:
            raise ArgumentError(
                "data",
                "must name a folder with train.tsv, .csv or .jsonl (--data); a recipe may name a data set of the hub "
                "instead (task_options.dataset)",
            )
        train, test = fetch_rows(options.dataset)
        return Parts(train, None, test)
    if not folder.is_dir():
        raise ArgumentError("data", f"{folder} is no folder: name one with the tables in it")
    found: dict[str, TextRows] = {}
    for part in _PARTS:
        files = [file for file in sorted(folder.iterdir()) if part_of_file(file.name) == part]
        if len(files) > 1:
            raise ArgumentError(
                "data", f"{folder} has two {part} tables, {files[0].name} and {files[1].name}: keep one"
            )
        for file in files:
            found[part] = _labelled(read_texts(file, skip_bad=options.skip_bad_rows))
    if "train" not in found:
        raise ArgumentError("data", f"{folder} has no train table: train{', train'.join(SUFFIXES)}")
    # Where only one more part is there, it is the one to measure on, and is touched once.
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return Parts(**found)


def part_of_file(name: str) -> str | None:
    """The part that a file's name says its table is; None where it says none.

    Examples
    --------
    >>> part_of_file("Train-00.TSV"), part_of_file("val.txt"), part_of_file("test.csv")
    ('train', 'validation', 'test')
    >>> part_of_file("train_notes.txt"), part_of_file("development.csv"), part_of_file("train.md")
    (None, None, None)
    """
    stem, dot, suffix = name.lower().rpartition(".")
    for part, names in _PARTS.items():
        more = "" if suffix == "txt" else "([_.-].*)?"
        if dot + suffix in SUFFIXES and re.fullmatch(f"({'|'.join(names)}){more}", stem):
            return part
    return None


def class_indices(
    rows: TextRows, classes: Sequence[str], *, numbered: bool, first: int | None = None
) -> NDArray[np.int64]:
    """Place of each row's label among the classes, (n,).

    Parameters
    ----------
    numbered : bool
        Whether the labels of a table may also be the classes' numbers, from 1 or from 0.
    first : int, optional
        Number of the first class; where absent, 0 if a row has it, else 1.

    Raises
    ------
    ArgumentError
        If a label is none of them; names its line.
    """
    places, there = _places_of(rows, classes, first, numbered=numbered)
    for label, line in zip(rows.labels or (), rows.lines, strict=True):
        if label not in places:
            raise ArgumentError("data", f"{rows.file}, line {line}: label {label!r} is no class; {there}")
    return np.array([places[label] for label in rows.labels or ()], dtype=np.int64)


def of_known_classes(rows: TextRows, classes: Sequence[str], first: int | None) -> TextRows:
    """The rows whose labels `class_indices` knows, `first` being None where they are names alone; the others passed over.

    Raises
    ------
    ArgumentError
        If no row is left, or numbers may count from 0 or from 1.
    """
    places, there = _places_of(rows, classes, first, numbered=first is not None)
    labels = rows.labels or ()
    if first == 0 and str(len(classes)) in labels and "0" in places and "0" not in classes:
        raise ArgumentError("data", f"{rows.file} has label {len(classes)}, and a table label 0: {there}")
    wrong = [
        (line, f"label {label!r} is no class; {there}")
        for label, line in zip(labels, rows.lines, strict=True)
        if label not in places
    ]
    return rows.without(wrong) if wrong else rows


def _places_of(
    rows: TextRows, classes: Sequence[str], first: int | None, *, numbered: bool
) -> tuple[dict[str, int], str]:
    """Place of each label that is a class, and in words which there are."""
    places = {name: place for place, name in enumerate(classes)}
    labels = set(rows.labels or ())
    shown = ", ".join(list(places)[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
    if not numbered or not labels or labels & places.keys():
        return places, f"there are {shown}"
    start = first if first is not None else 0 if "0" in labels else 1
    there = f"classes.txt has {shown}, numbered from {start} to {start + len(classes) - 1}"
    return {str(place + start): place for place in range(len(classes))}, there


def _first_number(parts: Parts) -> int:
    """What numbers of classes count from: 0 where any part has one, else 1."""
    return 0 if any(rows is not None and rows.labels is not None and "0" in rows.labels for rows in parts) else 1


def _labelled(rows: TextRows) -> TextRows:
    if rows.labels is None:
        raise ArgumentError("data", f"{rows.file} has no column of labels")
    return rows


def _names_in(folder: Path | None) -> list[str] | None:
    """Class names of classes.txt, where there is one."""
    file = None if folder is None else folder / "classes.txt"
    if file is None or not file.is_file():
        return None
    names = read_lines(file)
    for line, name in enumerate(names, start=1):
        if name in names[: line - 1]:
            refuse_line(
                str(file), line, f"{name!r} stands in line {names.index(name) + 1} already: name each class once"
            )
    if len(names) < 2:
        raise ArgumentError("data", f"{file} must name two classes or more, one a line, got {names[0]!r} alone")
    return list(names)


def _classes_of(rows: TextRows) -> list[str]:
    """The labels of a table, in the order of numbers where they are numbers, else of letters."""
    names = set(rows.labels or ())
    if len(names) < 2:
        raise ArgumentError("data", f"{rows.file} must have two classes or more, got {', '.join(names) or 'none'}")
    return sorted(names, key=(lambda name: (int(name), name)) if all(map(_is_number, names)) else str)


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _hold_out(rows: TextRows, asked: int | None, part: str) -> tuple[TextRows, TextRows]:
    """Training rows without those held out, and those; how many is said where nobody asked for a number."""
    count = asked or min(_HELD_OUT_MAX, max(1, len(rows) // _HELD_OUT_SHARE))
    parts = hold_out(rows.texts, count, HOLDOUT_SEED)
    if len(parts.held) < count or len(parts.train) < count:
        least = "add rows" if count == 1 else f"lower task_options.{part}_rows"
        raise ArgumentError("data", f"{rows.file} has too few different rows to hold {count} out for {part}: {least}")
    if asked is None:
        _LOGGER.warning("%s: %d of %d rows are held out for %s", rows.file, count, len(rows), part)
    return _take(rows, parts.train), _take(rows, parts.held)


def _take(rows: TextRows, chosen: NDArray[Any]) -> TextRows:
    numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
    labels = rows.labels or ()
    return TextRows(
        rows.file,
        tuple(rows.texts[row] for row in numbers),
        tuple(labels[row] for row in numbers),
        tuple(rows.lines[row] for row in numbers),
    )
