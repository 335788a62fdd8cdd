"""What a call asks, in pieces that the server takes, and where a batch may be cut.

A sample stands alone and its noise has an address, so a batch in pieces gives what it gives as one: pieces end at the
borders of frames where a header is shared (`Header.frame_samples`), and each says which samples it holds (`sample_offset`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import Message

from link.errors import ArgumentError
from serve.messages.tensor import MESSAGE_BYTES
from serve.results import ModelInfo

Result = TypeVar("Result")

_LABEL_BYTES: Final = 64
"""Of one decision in a reply: its class, the name of it, its probability; short of what a long name takes."""
_PIECE_BYTES: Final = 32
"""Of one position of an answered text: its piece, the log of its probability, and what it spells."""
_MARGIN: Final = 0.5
"""Share of the largest message that a piece is planned to fill: the plan does not know every byte."""


class Piece(NamedTuple):
    """One request of a job, and the rows of the caller's batch that it holds."""

    request: Message
    first: int
    last: int


class Part(NamedTuple):
    """One answer of a job, and which model gave it: its digest, empty where the server does not say."""

    result: Any
    digest: str = ""


class Job(NamedTuple, Generic[Result]):
    """What a call asks.

    Attributes
    ----------
    method : str
        Of LinkService.
    model : str
        Name of the model; empty where the server holds one.
    rows, number : int
        Samples and pieces in all.
    pieces : callable
        The requests, made one by one, each time anew.
    read : callable
        What one reply holds.
    join : callable
        The results of all pieces, in their order, as one.
    """

    method: str
    model: str
    rows: int
    number: int
    pieces: Callable[[], Iterator[Piece]]
    read: Callable[[Any], Part]
    join: Callable[[Sequence[Any]], Result]


def split(
    method: str,
    model: str,
    info: ModelInfo,
    arrays: Mapping[str, Any],
    request: Callable[[slice], Message],
    read: Callable[[Any], Part],
    join: Callable[[Sequence[Any]], Result],
    *,
    reply_bytes: int,
    offset: int = 0,
) -> Job[Result]:
    """A batch in as few requests as the server takes.

    Parameters
    ----------
    method, model, read, join
        As in Job.
    info : ModelInfo
    arrays : mapping of name to (B, ...) array or list of B str
        What is sent.
    request : callable
        The request for these rows.
    reply_bytes : int
        Size of the reply a row, about.
    offset : int
        Number of the first row's sample.
    """
    rows = count(arrays)
    header = info.manifest.header if method == "Transmit" else None
    frame = 1 if header is None else header.frame_samples
    row_bytes = max(1, reply_bytes, sum(_bytes(array) // max(1, _count(array)) for array in arrays.values()))
    room = int(_MARGIN * MESSAGE_BYTES)
    if rows and row_bytes > room:
        raise ArgumentError("x", f"must take at most {room} bytes a sample, got {row_bytes}")
    borders = borders_of(rows, offset, min(info.max_batch or rows, room // row_bytes), frame)

    def pieces() -> Iterator[Piece]:
        for first, last in itertools.pairwise(borders):
            yield Piece(request(slice(first, last)), first, last)

    return Job(method, model, rows, len(borders) - 1, pieces, read, join)


def borders_of(rows: int, offset: int, most: int, frame: int) -> list[int]:
    """Where a batch is cut: pieces of nearly one size, none larger than `most`, all but the last ending with a frame.

    Parameters
    ----------
    rows : int
    offset : int
        Number of the first row's sample.
    most : int
        Most rows in a piece.
    frame : int
        Samples whose numbers share the quotient by it are not parted.

    Examples
    --------
    >>> borders_of(10, 0, 4, 1)
    [0, 4, 8, 10]
    >>> borders_of(10, 3, 6, 4)
    [0, 1, 5, 9, 10]

    Raises
    ------
    ArgumentError
        If a frame has more samples than a piece may hold.
    """
    if rows <= most:
        return [0, rows]
    if most < frame:
        raise ArgumentError(
            "x", f"must hold at most {most} samples: a frame of this model has {frame}, and is sent whole"
        )
    size = math.ceil(rows / math.ceil(rows / (most // frame * frame)) / frame) * frame
    first = size - offset % frame
    return [0, *range(first, rows, size), rows]


def cut(array: Any, rows: slice) -> Any:
    """These rows of it."""
    return array if _is_number(array) else array[rows]  # a number alone is for the server to refuse


def count(arrays: Mapping[str, Any]) -> int:
    """Rows of a batch."""
    return max(map(_count, arrays.values()), default=0)


def _count(array: Any) -> int:
    return 0 if _is_number(array) else len(array)


def _is_number(array: Any) -> bool:
    return isinstance(array, np.ndarray) and not array.ndim


def _bytes(array: Any) -> int:
    return array.nbytes if isinstance(array, np.ndarray) else sum(4 * len(str(text)) + 8 for text in array)


def sent_bytes(info: ModelInfo) -> int:
    """Of one row of pb.Transmission in a reply."""
    return 8 * most(info, "tokens") + most(info, "num_bits") + 8 * most(info, "num_symbols") + 16


def found_bytes(info: ModelInfo, include_llr: bool) -> int:
    """Of one row of pb.Reception in a reply."""
    task = info.manifest.task
    longest = max((4 * len(name) for name in task.classes), default=0)
    llr = 4 * most(info, "num_bits") if include_llr else 0
    return (
        (8 * len(task.classes) + _PIECE_BYTES * task.positions + 8 * most(info, "tokens"))
        + llr
        + longest
        + _LABEL_BYTES
    )


def most(info: ModelInfo, name: str) -> int:
    """The largest of the modes' values."""
    return max(int(getattr(mode, name)) for mode in info.manifest.modes)
