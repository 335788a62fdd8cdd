"""Both questions of one input; of the rows, every third is asked its kind."""

import importlib
from typing import ClassVar

import numpy as np

from train.questions import QuestionHeads
from train.tasks import Data, Split

_signs, _kinds = (importlib.import_module(f"train.tasks.{name}") for name in ("signs", "kinds"))


class Sign(_signs.Signs):
    name = "signs-and-kinds"


class Kind(_kinds.Kinds):
    name = "signs-and-kinds"


class SignsAndKinds(_signs.Signs):
    name = "signs-and-kinds"
    questions: ClassVar = {"sign": Sign(), "kind": Kind()}
    classes = tuple(f"{name}/{which}" for name, question in questions.items() for which in question.classes)

    def load(self, folder):
        sign, kind = (question.load(folder) for question in self.questions.values())
        first = len(self.questions["sign"].classes)

        def both(one, other):
            asked = np.arange(len(one)) % 3 == 2
            return Split(one.inputs, np.where(asked, other.labels + first, one.labels))

        return Data(*(both(getattr(sign, part), getattr(kind, part)) for part in ("train", "validation", "test")))

    def head(self, tokens, dim):
        heads = [question.head(tokens, dim) for question in self.questions.values()]
        return QuestionHeads(heads, [len(question.classes) for question in self.questions.values()])


TASK = SignsAndKinds()
