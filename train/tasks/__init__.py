"""Tasks: one file each, with its data, its encoder, its head and its metric. Nothing else knows a task's name.

To add one, write `train/tasks/NAME.py` and a recipe that names it. The file holds either `TASK`, an object that satisfies
`Task`, or, where the task depends on options of the recipe or on the data (its classes, a tokenizer), a class `Options` (a
frozen pydantic model of `task_options`) and two functions:

    find(options, folder) -> facts     read what must be known of the data; facts are JSON, and travel in the checkpoint
    build(options, facts) -> Task      the task, from a checkpoint as from a folder

`TRANSMITTER_OPTIONS` and `TRANSMITTER_FACTS`, where such a file has them, name the options and facts that the encoder
depends on: behind a transmitter that is kept they are that transmitter's (train.transmitter). `SKIP_BAD` names the option by
which rows that cannot be used are counted and left out, where it has one; `OF_RECORDINGS` is True where rows are cut out of
recordings, and follow on one another in time: such a task has `recordings` too. A task that asks several questions of one
input has `questions`, and a head of theirs (train.questions). A task whose receiver has something of its own, that never
passes the channel, has `receiver_inputs`, and a head that takes them (link.side).
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from link.errors import ArgumentError, RecipeError
from link.interface import TensorSpec
from link.manifest import Manifest, TextSpec
from link.randomness import Draws
from link.tokenizer import Tokenizer
from link.truth import UNJUDGED
from train.backbones import Backbone
from train.recipe import Recipe, nearest_key

TOKENIZER_FACT: Final = "tokenizer"
"""The fact that is a tokenizer.json: a bundle carries it as a file."""


@dataclass(frozen=True)
class Split:
    """Rows of one part of a data set.

    Attributes
    ----------
    inputs : mapping of name to (n, ...) array
        At both ends of the link.
    labels : (n,) or (n, T) int64
        The right class of each row, or of each of its T positions; UNJUDGED where a position has none.
    sequence : (n,) int64, optional
        The same number for rows that follow on one another in time, which stand together and in order; None where rows are
        apart.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]
    sequence: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def decisions(self) -> int:
        """Positions that are judged: rows, where each has one label."""
        return int(np.count_nonzero(self.labels != UNJUDGED))


@dataclass(frozen=True)
class Data:
    """A data set in three parts that share no row."""

    train: Split
    validation: Split
    test: Split

    @property
    def sha256(self) -> str:
        """Hash of the training and validation rows, inputs and labels: what a run learns from and is chosen by."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation):
            for name, array in (*sorted(split.inputs.items()), ("labels", split.labels)):
                digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Task(Protocol):
    """What is sent, and what is asked of it.

    Attributes
    ----------
    name : str
    classes : tuple of str
    inputs : tuple of TensorSpec
        Of the encoder, and so of transmitter.onnx.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

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
        """A module from (B, tokens, dim) to (B, classes), or (B, T, classes) where labels are of positions."""
        ...


class SideTask(Task, Protocol):
    """A task whose receiver has inputs of its own; its head's forward takes them behind the embedding, in their order.

    Attributes
    ----------
    receiver_inputs : tuple of TensorSpec
        Side inputs of the receiver. One that bears the name of an input of the encoder is that input, had at both ends.
    """

    @property
    def receiver_inputs(self) -> tuple[TensorSpec, ...]: ...


class QuestionsTask(Task, Protocol):
    """A task of several questions, whose head is a train.questions.QuestionHeads.

    Attributes
    ----------
    questions : mapping of name to Task
        In the order of the classes: each question with its own rows, classes and head, and the encoder that all share.
    """

    @property
    def questions(self) -> Mapping[str, Task]: ...


class TextTask(Task, Protocol):
    """A task whose inputs are made of raw text.

    Attributes
    ----------
    tokenizer : Tokenizer
        Makes the inputs of raw strings.
    tokenizer_json : str
        The same as a file; it travels in the bundle.
    """

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def tokenizer_json(self) -> str: ...

    def test_texts(self, folder: Path | None) -> tuple[tuple[str, ...], NDArray[Any]]:
        """The test rows as raw strings, and their labels (n,), or the right texts where texts are answered."""
        ...


class SampleTask(Task, Protocol):
    """A task whose inputs are made of raw text and of other things too."""

    def test_samples(self, folder: Path | None) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """The test rows as a caller gives them, texts as raw strings, and their labels (n,)."""
        ...


class WholeRecording(NamedTuple):
    """What a sensor said, as it is sent: one sample of the link after another, none left out.

    Attributes
    ----------
    name, subject : str
    starts_s : (n,) float64
        When each begins, in seconds.
    inputs : dict of name to (n, ...) array
    labels : (n,) str
        Classes; empty where none is known.
    told : str
        What it is, for those who read along.
    """

    name: str
    subject: str
    starts_s: NDArray[np.float64]
    inputs: dict[str, NDArray[Any]]
    labels: NDArray[np.str_]
    told: str


class RecordingTask(Task, Protocol):
    """A task whose rows are cut out of recordings."""

    def recordings(self, path: Path) -> list[WholeRecording]:
        """The recordings of a path, whoever they are of and whether labelled or not."""
        ...


class AnswersText(Protocol):
    """A task that answers a text: pieces of its tokenizer, whose labels are (n, T), and whose classes are none."""

    @property
    def text(self) -> TextSpec: ...


class PretrainedEncoder(Protocol):
    """An encoder in two parts: a backbone that may be pretrained, and a neck that reads tokens from its states.

    Its last input is a mask (B, T) of the places that are there; what lies behind the last of them changes nothing.
    """

    backbone: nn.Module
    neck: nn.Module

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, H) of the backbone and a mask (B, T) of those that are there: the neck's inputs."""
        ...


class PretrainedTask(Task, Protocol):
    """A task whose encoder is a PretrainedEncoder."""

    def pretrained(self) -> Mapping[str, Tensor] | None:
        """Weights of the backbone to start from, by name; None where it starts from nothing."""
        ...


class BackbonesTask(Task, Protocol):
    """A task whose encoder or head has pretrained models inside (train.backbones)."""

    def load_backbone(self, backbone: Backbone) -> None:
        """Give one of them the weights that it starts from."""
        ...


def task_names() -> list[str]:
    """Names of the tasks that come with hardpath."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load_task(name: str, options: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None) -> Task:
    """The task of that name.

    Parameters
    ----------
    name : str
    options : mapping, optional
        The recipe's task_options.
    facts : mapping, optional
        As `task_facts` found them, or a checkpoint kept them.

    Raises
    ------
    RecipeError
        If there is none, or it has no such options.
    """
    module = _module(name)
    checked = _options(name, module, options or {})
    return cast(Task, module.TASK if checked is None else module.build(checked, facts or {}))


def task_facts(recipe: Recipe, folder: Path | None) -> dict[str, Any]:
    """What the recipe's task must know of its data, as JSON; empty for most.

    Parameters
    ----------
    folder : Path or None
        The task's files, where it needs any; of a task of recordings, one file too.

    Raises
    ------
    RecipeError, ArgumentError
        If options or files are wrong.
    """
    module = _module(recipe.task)
    if folder is not None and folder.is_file() and not of_recordings(recipe.task):
        raise ArgumentError("data", f"{folder} is no folder")
    checked = _options(recipe.task, module, recipe.task_options)
    return {} if checked is None else dict(module.find(checked, folder))


def facts_behind(recipe: Recipe, facts: Mapping[str, Any], transmitter: Mapping[str, Any]) -> dict[str, Any]:
    """A task's facts, those that its encoder depends on replaced by a transmitter's."""
    names = getattr(_module(recipe.task), "TRANSMITTER_FACTS", ())
    return {**facts, **{name: transmitter[name] for name in names if name in transmitter}}


def transmitter_options(recipe: Recipe) -> dict[str, Any]:
    """The options that a recipe's encoder depends on, defaults included."""
    module = _module(recipe.task)
    checked = _options(recipe.task, module, recipe.task_options)
    return {name: getattr(checked, name) for name in getattr(module, "TRANSMITTER_OPTIONS", ())}


def task_of_manifest(manifest: Manifest, *, skip_bad: bool = False) -> Task:
    """What a bundle's receiver answers, by what its provenance keeps: without its tokenizer.

    Parameters
    ----------
    skip_bad : bool
        Whether rows that cannot be used are left out, whatever the recipe says.

    Raises
    ------
    ArgumentError
        If the task cannot leave any out.
    """
    made, options = manifest.provenance, {}
    if skip_bad:
        option = getattr(_module(manifest.task.name), "SKIP_BAD", None)
        if option is None:
            raise ArgumentError("--skip-bad", f"must be absent: the task {manifest.task.name} leaves out no rows")
        options[option] = True
    task = load_task(manifest.task.name, {**made.recipe.get("task_options", {}), **options}, made.facts)
    question = manifest.task.question
    return task if question is None else questions_of(task)[question]


def recordings_of_manifest(manifest: Manifest, path: Path) -> list[WholeRecording]:
    """The recordings of a path as a bundle's task takes them.

    Raises
    ------
    ArgumentError
        If the task has none, or one cannot be used.
    """
    if not of_recordings(manifest.task.name):
        raise ArgumentError(
            "--recording", f"must be absent: {manifest.task.name} takes samples, not recordings (--inputs)"
        )
    return cast(RecordingTask, task_of_manifest(manifest)).recordings(path)


def text_of(task: Task) -> TextSpec | None:
    """The text that a task answers; None where it is a class."""
    return cast(AnswersText, task).text if hasattr(task, "text") else None


def receiver_inputs_of(task: Task) -> tuple[TensorSpec, ...]:
    """What a task's receiver has of its own; nothing in most tasks."""
    return cast(SideTask, task).receiver_inputs if hasattr(task, "receiver_inputs") else ()


def of_recordings(name: str) -> bool:
    """Whether rows of a task of that name follow on one another in time (Split.sequence)."""
    return bool(getattr(_module(name), "OF_RECORDINGS", False))


def questions_of(task: Task) -> Mapping[str, Task]:
    """A task's questions by name; none where it has one, and no name for it."""
    return cast(QuestionsTask, task).questions if hasattr(task, "questions") else {}


def _module(name: str) -> ModuleType:
    if name not in task_names():
        raise RecipeError(f"task must be one of {', '.join(task_names())}, got {name!r}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def _options(name: str, module: ModuleType, options: Mapping[str, Any]) -> BaseModel | None:
    """The options as the task's own model checked them; None where it has none."""
    if not hasattr(module, "Options"):
        if options:
            raise RecipeError(f"task_options.{next(iter(options))} is unknown: task {name} has no options")
        return None
    try:
        return cast(BaseModel, module.Options.model_validate(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = list(module.Options.model_fields)
            raise RecipeError(f"task_options.{key} is unknown{nearest_key(key, known)}") from None
        where = f"task_options.{key}" if key else "task_options"
        raise RecipeError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
