"""Data sets of the Hugging Face hub, by a short name, as texts and labels."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from link.errors import ArgumentError, MissingExtra
from link.texts import TextRows


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


def fetch_rows(name: str) -> tuple[TextRows, TextRows]:
    """Training and test part of a data set.

    Raises
    ------
    MissingExtra
        If the `datasets` package is not installed.
    ArgumentError
        If the hub cannot be reached and the data set is not in its cache.
    """
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("datasets", "hub") from None
    source = SOURCES[name]
    try:
        found = datasets.load_dataset(source.path)
    except Exception as error:  # the hub's own, the network's and the file system's share no base class
        raise ArgumentError(
            "dataset", f"{source.path} cannot be fetched ({error}); name a folder with --data"
        ) from None
    return _rows(found["train"], source), _rows(found[source.test], source)


def _rows(part: Any, source: Source) -> TextRows:
    names = part.features[source.label].names
    labels = tuple(names[label] for label in part[source.label])
    return TextRows(source.path, tuple(part[source.text]), labels, tuple(range(1, len(labels) + 1)))
