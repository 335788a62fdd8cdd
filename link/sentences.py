"""Plain files of sentences: one a line, UTF-8, as corpora are published.

    train.txt  val.txt  test.txt                               a folder of parts; what is absent is the caller's to hold out
    train.en.gz  val.en.gz  test_2016.en.gz  train.de.gz ...   the same in several languages, of which one is asked for
    sentences.txt                                              a file by itself: training sentences

A part is named train, test, or one of dev, val, valid and validation, in small letters or capitals. A name with a language
at its end may say more between them, behind `_`, `-` or `.`; a plain `.txt` must bear the part's name alone, since
`train_notes.txt` are notes. `.gz` may follow on any. Line ends of all systems, a byte order mark, and blank lines at the end
of a file are no part of its sentences. Any other line that is no sentence is refused by its number, or passed over and
counted where that is asked for.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from link.errors import ArgumentError
from link.table import read_bytes, refuse_line

MAX_CHARACTERS: Final = 10_000
"""Of a sentence: a longer line is a text whose line ends were lost."""

_MAX_BYTES: Final = 2**30
_PARTS: Final = {"train": "train", "validation": "dev|val|valid|validation", "test": "test"}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Sentences:
    """What a file holds, line by line.

    Attributes
    ----------
    file : str
        As messages name it.
    texts : tuple of n str
        Without white space at their ends; none is empty.
    lines : tuple of n int
        Line of the file where each stands, counted from 1.
    skipped : int
        Lines passed over, blank ones at the end not among them.
    first_skipped : str or None
        The first of them and why, as "line 7: is empty".
    """

    file: str
    texts: tuple[str, ...]
    lines: tuple[int, ...]
    skipped: int = 0
    first_skipped: str | None = None

    def __len__(self) -> int:
        return len(self.texts)


class SentenceParts(NamedTuple):
    """The files of a corpus, by part; None where a part is absent."""

    train: Sentences
    validation: Sentences | None = None
    test: Sentences | None = None


def read_sentences(file: Path | str, *, skip_bad: bool = False, max_characters: int = MAX_CHARACTERS) -> Sentences:
    r"""Read one sentence a line.

    Parameters
    ----------
    file : Path or str
        UTF-8, with or without a byte order mark; compressed by gzip where its name ends in `.gz`.
    skip_bad : bool
        Whether to pass over lines that are no sentence, and count them, rather than refuse the file.
    max_characters : int
        Of the longest sentence.

    Raises
    ------
    ArgumentError
        If the file cannot be read or holds no sentence; or, unless they are skipped, a line is empty, no UTF-8, too long or
        holds a NUL (it is named by its number).

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "train.txt"
    >>> _ = file.write_bytes(b"A man runs.\r\n\r\nTwo dogs.\r\n")
    >>> found = read_sentences(file, skip_bad=True)
    >>> found.texts, found.lines, found.skipped, found.first_skipped
    (('A man runs.', 'Two dogs.'), (1, 3), 1, 'line 2: is empty')
    """
    content = _content(Path(file))
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ArgumentError("data", f"{file} is UTF-16: save it as UTF-8")
    # Of bytes, splitlines knows the line ends of the three systems and nothing else.
    lines = content.removeprefix(_BYTE_ORDER_MARK).rstrip().splitlines()
    return sentences_of(str(file), lines, skip_bad=skip_bad, max_characters=max_characters)


def sentences_of(
    name: str, lines: Iterable[bytes], *, skip_bad: bool = False, max_characters: int = MAX_CHARACTERS
) -> Sentences:
    """The sentences of lines in UTF-8, wherever they come from; `name` is what messages call it.

    Raises
    ------
    ArgumentError
        As `read_sentences` does.
    """
    texts: list[str] = []
    places: list[int] = []
    refused: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        text, reason = _sentence(line, max_characters)
        if reason is None:
            texts.append(text)
            places.append(number)
        elif skip_bad:
            refused.append((number, reason))
        else:
            refuse_line(name, number, reason)
    first = f"line {refused[0][0]}: {refused[0][1]}" if refused else None
    if not texts:
        raise ArgumentError("data", f"{name} holds no sentence{f' ({first})' if first else ''}")
    return Sentences(name, tuple(texts), tuple(places), len(refused), first)


def read_sentence_parts(
    data: Path | str, *, language: str | None = None, test: str | None = None, skip_bad: bool = False
) -> SentenceParts:
    """Read the parts of a corpus.

    Parameters
    ----------
    data : Path or str
        A folder as above, or a file, which is all training sentences.
    language : str, optional
        The last part of the names before `.txt` and `.gz`, as `en` for `train.en.gz`; absent for `train.txt`.
    test : str, optional
        Name of the test file before its language, as `test_2016_flickr`, where there are several.
    skip_bad : bool
        See `read_sentences`.

    Raises
    ------
    ArgumentError
        If there is no file of a training part, a part has two, `test` names none, or a file cannot be read.
    """
    folder = Path(data)
    if not folder.is_dir():
        return SentenceParts(read_sentences(folder, skip_bad=skip_bad))
    found: dict[str, Sentences] = {}
    for part in _PARTS:
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and _is_of(file.name, part, language)]
        if part == "test" and test is not None:
            there = [_stem(file.name, language) or "" for file in files]
            files = [file for file, stem in zip(files, there, strict=True) if stem == test]
            if not files:
                raise ArgumentError("test", f"must be one of {', '.join(there) or 'none'} in {folder}, got {test!r}")
        if len(files) > 1:
            remedy = "name one by `test`, or keep one" if part == "test" and test is None else "keep one"
            raise ArgumentError("data", f"{folder} has two {part} files, {files[0].name} and {files[1].name}: {remedy}")
        for file in files:
            found[part] = read_sentences(file, skip_bad=skip_bad)
    if "train" not in found:
        raise ArgumentError("data", _no_training(folder, language))
    return SentenceParts(**found)


def _sentence(line: bytes, max_characters: int) -> tuple[str, str | None]:
    """The sentence of a line, and why it is none."""
    try:
        text = line.decode().strip()
    except UnicodeDecodeError as error:
        return "", f"is no UTF-8 (byte 0x{line[error.start]:02x})"
    if not text:
        return "", "is empty"
    if "\0" in text:
        return "", "holds a NUL character"
    if len(text) > max_characters:
        return "", f"has {len(text)} characters, where a sentence has at most {max_characters}: put one sentence a line"
    return text, None


def _content(file: Path) -> bytes:
    """Of a file, decompressed."""
    if file.suffix.lower() != ".gz":
        return read_bytes(file)
    try:
        with gzip.open(file) as opened:
            content = opened.read(_MAX_BYTES + 1)
    except gzip.BadGzipFile as error:
        reason = "is no gzip file" if "Not a gzip" in str(error) else "is a damaged gzip file"
        raise ArgumentError("data", f"{file} {reason}") from None
    except EOFError:
        raise ArgumentError("data", f"{file} is a gzip file that was cut short") from None
    except zlib.error:
        raise ArgumentError("data", f"{file} is a damaged gzip file") from None
    except FileNotFoundError:
        raise ArgumentError("data", f"{file} does not exist") from None
    except OSError as error:
        raise ArgumentError("data", f"{file} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ArgumentError("data", f"{file} holds more than {_MAX_BYTES >> 20} MiB: split it")
    return content


def _stem(name: str, language: str | None) -> str | None:
    """A name without compression, `.txt` and language; None where it lacks the language asked for, or a suffix at all."""
    bare = re.sub(r"\.gz$", "", name, flags=re.IGNORECASE)
    stem = re.sub(r"\.txt$", "", bare, flags=re.IGNORECASE)
    if language is None:
        return stem if stem != bare else None
    ending = f".{language}"
    return stem[: -len(ending)] if stem.lower().endswith(ending.lower()) else None


def _is_of(name: str, part: str, language: str | None) -> bool:
    """Whether a file's name says that it is of a part, and in the language asked for."""
    stem = _stem(name, language)
    more = "" if language is None else "([_.-].*)?"
    return stem is not None and re.fullmatch(f"({_PARTS[part]}){more}", stem, flags=re.IGNORECASE) is not None


def _no_training(folder: Path, language: str | None) -> str:
    """What is missing, and the languages that are there."""
    if language is not None:
        return f"{folder} has no train file in {language!r}: train.{language}, train.{language}.gz"
    names = (file.name.removesuffix(".gz") for file in folder.iterdir())
    there = sorted({match[1] for name in names if (match := re.fullmatch(r"train(?:[_.-].*)?\.([a-z]{2})", name))})
    hint = f"; name its language, one of {', '.join(there)}" if there else ""
    return f"{folder} has no train file: train.txt, train.txt.gz{hint}"
