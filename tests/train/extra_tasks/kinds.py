"""Another question of what the task of signs sends: which of the five kinds it was."""

import importlib

from torch import nn

from train.tasks import Data, Split

_signs = importlib.import_module("train.tasks.signs")


class Kinds(_signs.Signs):
    name = "kinds"
    classes = ("zero", "one", "two", "three", "four")

    def load(self, folder):
        data = super().load(folder)
        return Data(*(Split(part.inputs, part.inputs["kind"]) for part in (data.train, data.validation, data.test)))

    def head(self, tokens, dim):
        return nn.Sequential(nn.Flatten(1), nn.Linear(tokens * dim, len(self.classes)))


TASK = Kinds()
