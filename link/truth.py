"""What the right answers are: a class a sample, or a text, judged piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError
from link.manifest import TaskSpec
from link.tensors import as_tensor

if TYPE_CHECKING:
    from link.tokenizer import Tokenizer

UNJUDGED: Final = -1
"""Label of a position that is not judged."""


def check_classes(field: str, values: ArrayLike, samples: int | None, classes: int) -> NDArray[np.int64]:
    """Class numbers as (samples,) int64.

    Raises
    ------
    ArgumentError
        If they have another shape or are not in [0, classes).
    """
    numbers: NDArray[np.int64] = as_tensor(field, values, "int64", (samples,))
    if not ((numbers >= 0) & (numbers < classes)).all():
        raise ArgumentError(field, f"must be in [0, {classes}), got [{numbers.min()}, {numbers.max()}]")
    return numbers


class Truth(NamedTuple):
    """The right answers of n samples.

    Attributes
    ----------
    labels : (n,) or (n, T) int64
        Classes; or pieces, UNJUDGED past the end of a text.
    texts : tuple of n str, optional
        Where texts are answered, and given as such: what was meant, cut nowhere.
    """

    labels: NDArray[np.int64]
    texts: tuple[str, ...] | None = None


def read_truth(
    field: str, values: ArrayLike | Sequence[str], samples: int, task: TaskSpec, tokenizer: Tokenizer | None
) -> Truth:
    """Right answers as they are given: numbers, or texts where texts are answered.

    Parameters
    ----------
    tokenizer : Tokenizer or None
        The bundle's, which spells texts in pieces.

    Raises
    ------
    ArgumentError
        As `check_labels`; or if there are not so many texts, or one is empty.
    """
    given = values if isinstance(values, Sequence) else np.asarray(values)
    if task.text is None or tokenizer is None or not len(given) or not isinstance(given[0], str):
        return Truth(check_labels(field, values, samples, task))
    if len(given) != samples:
        raise ArgumentError(field, f"must hold {samples} texts, got {len(given)}")
    spelt = tokenizer(given, field=field)
    pieces = np.where(spelt.attention_mask == 1, spelt.input_ids, UNJUDGED)
    return Truth(check_labels(field, pieces, samples, task), tuple(str(text) for text in given))


def up_to_the_end(pieces: NDArray[np.int64], task: TaskSpec) -> NDArray[np.int64]:
    """Answered pieces (n, T) as labels: UNJUDGED past the first that is the end."""
    assert task.text is not None
    ended = np.cumsum(pieces == task.text.end_id, axis=1) - (pieces == task.text.end_id)
    return np.where(ended > 0, UNJUDGED, pieces)


def check_labels(field: str, values: ArrayLike, samples: int | None, task: TaskSpec) -> NDArray[np.int64]:
    """The right answers of a task's samples, (samples,) int64; (samples, T) where it answers a text.

    Raises
    ------
    ArgumentError
        If they have another shape or are out of range, or a text has no position that is judged; that is named by its row.
    """
    if task.text is None:
        return check_classes(field, values, samples, len(task.classes))
    pieces: NDArray[np.int64] = as_tensor(field, values, "int64", (samples, task.positions))
    if not ((pieces >= UNJUDGED) & (pieces < task.choices)).all():
        raise ArgumentError(
            field, f"must be in [0, {task.choices}), or {UNJUDGED}, got [{pieces.min()}, {pieces.max()}]"
        )
    for row in np.flatnonzero((pieces == UNJUDGED).all(axis=1)).tolist():
        raise ArgumentError(f"{field}[{row}]", "has no position that is judged")
    return pieces
