"""What the right answers are: a class a sample, or a piece at each position of a text, and which positions are judged."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError
from link.manifest import TaskSpec
from link.tensors import as_tensor

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
