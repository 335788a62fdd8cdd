"""What lies on the Hugging Face hub: encoders by their name there, data sets by a short one.

What was fetched once is taken from the hub's cache on this machine without asking again: quick, the same every time, and
good without a network. What was not is asked for once before it is fetched, since the hub's own client tries for a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from link.errors import ArgumentError, HardpathError, MissingExtra, ServerError
from link.sentences import SentenceParts, Sentences, sentences_of
from link.texts import TextRows

Found = TypeVar("Found")
_PATIENCE_S: Final = 5.0
_FLAGS: Final = {"encoder": "--encoder"}


class Source(NamedTuple):
    """Where a data set lies on the hub, and what its columns and parts are called there."""

    path: str
    text: str
    label: str
    test: str


# The labels of SST-2's test part are not public: its validation part is what everybody reports.
SOURCES: Final = {
    "sst2": Source("stanfordnlp/sst2", "sentence", "label", "validation"),
    "ag_news": Source("fancyzhx/ag_news", "text", "label", "test"),
}


def names_a_folder(name: str) -> bool:
    """Whether an encoder's name means a folder, there or not, rather than something on the hub.

    It does where there is such a folder, where it begins with `.`, `~` or `/`, where it has more parts than the two that
    names on the hub have, and where the first of two parts is a folder here.

    Examples
    --------
    >>> names_a_folder("./encoder"), names_a_folder("runs/text/encoder"), names_a_folder("no-such-owner/model")
    (True, True, False)
    """
    parts = name.split("/")
    return name.startswith((".", "~", "/")) or len(parts) > 2 or Path(name if len(parts) == 1 else parts[0]).is_dir()


def from_hub(name: str, role: str, fetch: Callable[[bool], Found]) -> Found:
    """What `fetch` makes of something on the hub; it is told whether to look on this machine alone.

    Parameters
    ----------
    name : str
    role : str
        `dataset`, or the option of a task that names a model: `encoder`, for instance.
    fetch : callable

    Raises
    ------
    ServerError
        If it is not on this machine, and the hub cannot be reached.
    ArgumentError
        If the hub has no such thing.
    """
    try:
        return fetch(True)
    except Exception:  # not here, or not all of it: the libraries' exceptions share no base class
        _ask_for(name, role)
    return fetch(False)


def _ask_for(name: str, role: str) -> None:
    """One question to the hub, without the retries of its client."""
    from huggingface_hub import HfApi, errors

    kind, option = ("dataset", "--data") if role == "dataset" else ("model", _FLAGS.get(role, f"task_options.{role}"))
    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_PATIENCE_S)
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ArgumentError(
            role, f"{name!r} is no folder here and nothing that the hub has; name a folder with {option}"
        ) from None
    except Exception as error:  # the network's, the proxy's and the hub's own share no base class
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ServerError(
            f"{role} {name!r} is not on this machine and the hub cannot be reached ({reason}); name a folder with {option}"
        ) from None


def fetch_rows(name: str) -> tuple[TextRows, TextRows]:
    """Training and test part of a data set.

    Raises
    ------
    MissingExtra
        If the `datasets` package is not installed.
    ServerError
        If the hub cannot be reached and the data set is not in its cache.
    ArgumentError
        If the data set cannot be loaded.
    """
    source = SOURCES[name]
    found = _fetch(source.path)
    return _rows(found["train"], source), _rows(found[source.test], source)


def fetch_sentences(name: str, column: str, *, skip_bad: bool = False) -> SentenceParts:
    """Training, validation and test part of a data set, a sentence a row; None where it has no such part.

    Parameters
    ----------
    name : str
        Of a data set on the hub.
    column : str
        Of its sentences.
    skip_bad : bool
        As for link.sentences.read_sentences.

    Raises
    ------
    MissingExtra, ServerError
        As `fetch_rows` does.
    ArgumentError
        If the data set cannot be loaded, has no such column of strings, or holds what is no sentence.
    """
    found = _fetch(name)

    def read(*names: str) -> Sentences | None:
        part = next((part for part in names if part in found), None)
        if part is None:
            return None
        rows = found[part]
        if column not in rows.column_names:
            there = ", ".join(rows.column_names)
            raise ArgumentError("column", f"must be one of {there}, the columns of {name}, got {column!r}")
        texts = rows[column]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ArgumentError("column", f"must be one of strings, got {column!r} of {name}, which has others")
        lines = (
            (text or "").encode(errors="surrogatepass") for text in texts
        )  # a value that is missing is an empty line
        return sentences_of(f"{name}, {part}", lines, skip_bad=skip_bad)

    train = read("train")
    if train is None:
        raise ArgumentError("dataset", f"{name} has no part named train: name a folder with --data")
    return SentenceParts(train, read("validation", "valid", "val", "dev"), read("test"))


def _fetch(path: str) -> Any:
    """A data set's parts, by name."""
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("datasets", "hub") from None

    def fetch(here: bool) -> Any:
        if here and not (Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir():
            raise LookupError(path)
        return datasets.load_dataset(path)

    try:
        return from_hub(path, "dataset", fetch)
    except HardpathError:
        raise
    except Exception as error:  # the hub's own, the network's and the file system's share no base class
        raise ArgumentError("dataset", f"{path} cannot be fetched ({error}); name a folder with --data") from None


def _rows(part: Any, source: Source) -> TextRows:
    names = part.features[source.label].names
    labels = tuple(names[label] for label in part[source.label])
    return TextRows(source.path, tuple(part[source.text]), labels, tuple(range(1, len(labels) + 1)))
