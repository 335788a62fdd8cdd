"""Tasks: one file each, with its data, its encoder, its head and its metric. Nothing else knows a task's name.

To add one, write `train/tasks/NAME.py` with a module attribute `TASK` that satisfies `Task`, and a recipe that names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from link.errors import RecipeError
from link.manifest import TensorSpec
from link.randomness import Draws


@dataclass(frozen=True)
class Split:
    """Rows of one part of a data set.

    Attributes
    ----------
    inputs : mapping of name to (n, ...) array
    labels : (n,) int64
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A data set in three parts that share no row."""

    train: Split
    validation: Split
    test: Split


class Task(Protocol):
    """What is sent, and what is asked of it."""

    name: str
    classes: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]

    def load(self, folder: Path | None) -> Data:
        """The data; from `folder` where the task needs files."""
        ...

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """The training inputs of one epoch, each row a function of itself and its draws."""
        ...

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """A module from the inputs, in the order of `inputs`, to (B, tokens, dim)."""
        ...

    def head(self, tokens: int, dim: int) -> nn.Module:
        """A module from (B, tokens, dim) to (B, classes)."""
        ...


def task_names() -> list[str]:
    """Names of the tasks that come with hardpath."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_task(name: str) -> Task:
    """The task of that name.

    Raises
    ------
    RecipeError
        If there is none.
    """
    if name not in task_names():
        raise RecipeError(f"task must be one of {', '.join(task_names())}, got {name!r}")
    return cast(Task, importlib.import_module(f"{__name__}.{name}").TASK)
