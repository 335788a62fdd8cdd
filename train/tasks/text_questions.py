"""Several questions of one text: sentiment and intent, say, each with tables of its own, of what one transmitter sends.

The data are a folder (`--data`) with a sub-folder a question, each as text-classification takes it: `train.*`, and `test.*`
or `dev.*`. Its name is the question's. A row stands in the tables of one question and is asked that one; questions of more
rows have more say in the loss, and in which epoch is the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from link.errors import ArgumentError
from train.questions import QuestionHeads
from train.tasks import Data, Split
from train.tasks import text_classification as single

TRANSMITTER_OPTIONS: Final = single.TRANSMITTER_OPTIONS
TRANSMITTER_FACTS: Final = single.TRANSMITTER_FACTS
SKIP_BAD: Final = single.SKIP_BAD
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class Options(BaseModel):
    """Options of the task; those of text-classification, for all questions alike.

    Attributes
    ----------
    questions : tuple of str
        Which of the sub-folders, in which order: the first is the bundle's first receiver. All, by name, where empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: Annotated[str, Field(min_length=1)] = "roberta-base"
    max_length: Annotated[int, Field(ge=4, le=512)] = 64
    questions: tuple[Annotated[str, Field(pattern=_NAME)], ...] = ()
    validation_rows: Annotated[int, Field(ge=1)] | None = None
    test_rows: Annotated[int, Field(ge=1)] | None = None
    skip_bad_rows: bool = False

    @model_validator(mode="after")
    def _check(self) -> Options:
        if len(set(self.questions)) < len(self.questions):
            raise ValueError(f"questions must name each question once, got {', '.join(self.questions)}")
        if len(self.questions) == 1:
            raise ValueError(
                f"questions must name two or more; for {self.questions[0]} alone there is text-classification"
            )
        return self

    @property
    def of_each(self) -> single.Options:
        """Those of one question."""
        return single.Options.model_validate(self.model_dump(exclude={"questions"}))


def find(options: Options, folder: Path | None) -> dict[str, Any]:
    """Questions with their classes, tokenizer and architecture of the encoder."""
    questions: list[dict[str, Any]] = []
    texts: list[str] = []
    for name in question_names(options, folder):
        own = _folder_of(name, folder)
        train = single.read_parts(options.of_each, own).train
        questions.append({"name": name, "classes": single.classes_in(own, train)})
        texts += train.texts
    return {"questions": questions, **single.find_encoder(options.of_each, texts)}


def build(options: Options, facts: Mapping[str, Any]) -> TextQuestions:
    """The task from its facts."""
    return TextQuestions(options, facts)


class Question(single.TextClassification):
    """One question by itself: its rows, its classes, its head.

    Parameters
    ----------
    options : Options
    facts : mapping
        As `find` returns them.
    question : str
    """

    name = "text-questions"

    def __init__(self, options: Options, facts: Mapping[str, Any], question: str) -> None:
        (classes,) = (found["classes"] for found in facts["questions"] if found["name"] == question)
        super().__init__(options.of_each, {**facts, "classes": classes})
        self.question = question

    def load(self, folder: Path | None) -> Data:
        """The tables of the question's sub-folder."""
        return super().load(_folder_of(self.question, folder))

    def test_texts(self, folder: Path | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The question's test rows as raw strings, and their labels (n,)."""
        return super().test_texts(_folder_of(self.question, folder))


class TextQuestions(single.TextClassification):
    """Texts, each asked one of several questions; the classes of all stand side by side, as QUESTION/CLASS.

    Parameters
    ----------
    options : Options
    facts : mapping
        As `find` returns them.

    Attributes
    ----------
    questions : dict of name to Question
        Each by itself.
    """

    name = "text-questions"

    def __init__(self, options: Options, facts: Mapping[str, Any]) -> None:
        pairs = [(found["name"], name) for found in facts["questions"] for name in found["classes"]]
        super().__init__(options.of_each, {**facts, "classes": [f"{question}/{name}" for question, name in pairs]})
        self.questions = {found["name"]: Question(options, facts, found["name"]) for found in facts["questions"]}

    def load(self, folder: Path | None) -> Data:
        """The rows of all questions, one question after another."""
        data = [question.load(folder) for question in self.questions.values()]
        return Data(*(self._joined([getattr(part, name) for part in data]) for name in ("train", "validation", "test")))

    def test_texts(self, folder: Path | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The test rows of all questions as raw strings, and their labels (n,)."""
        found = [question.test_texts(folder) for question in self.questions.values()]
        labels = [own + first for (_, own), first in zip(found, self._firsts, strict=True)]
        return tuple(text for texts, _ in found for text in texts), np.concatenate(labels)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """A head a question."""
        questions = self.questions.values()
        heads = [question.head(tokens, dim) for question in questions]
        return QuestionHeads(heads, [len(question.classes) for question in questions])

    @property
    def _firsts(self) -> list[int]:
        """Place of each question's first class."""
        sizes = [len(question.classes) for question in self.questions.values()]
        return [0, *np.cumsum(sizes[:-1]).tolist()]

    def _joined(self, splits: list[Split]) -> Split:
        inputs = {name: np.concatenate([split.inputs[name] for split in splits]) for name in splits[0].inputs}
        labels = [split.labels + first for split, first in zip(splits, self._firsts, strict=True)]
        return Split(inputs, np.concatenate(labels))


def question_names(options: Options, folder: Path | None) -> tuple[str, ...]:
    """The questions that a folder holds tables for, or those of them that the options name.

    Raises
    ------
    ArgumentError
        If there are fewer than two, or one is missing or cannot bear its name.
    """
    if folder is None:
        raise ArgumentError("data", "must name a folder with a sub-folder of tables for each question (--data)")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in options.questions:
        if name not in found:
            raise ArgumentError("data", f"{folder} has no sub-folder {name}; it has {', '.join(found) or 'none'}")
    names = options.questions or tuple(found)
    if len(names) < 2:
        raise ArgumentError(
            "data",
            f"{folder} must have a sub-folder for each of two questions or more, got {', '.join(names) or 'none'}",
        )
    try:
        return Options(questions=names).questions
    except ValueError:
        raise ArgumentError(
            "data", f"{folder}: names of questions are of letters, digits, - and _, got {', '.join(names)}"
        ) from None


def _folder_of(question: str, folder: Path | None) -> Path:
    if folder is None:
        raise ArgumentError("data", "must name a folder with a sub-folder of tables for each question (--data)")
    return folder / question
