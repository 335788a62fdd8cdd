"""A task of two inputs, an embedding and four classes, in one file: the sign of a sum, and the parity of a kind."""

import numpy as np
import torch
from torch import nn

from link.interface import TensorSpec
from link.randomness import Draws, Stream
from train.tasks import Data, Split

_WIDTH = 6
_KINDS = 5


class Signs:
    name = "signs"
    classes = ("minus-even", "minus-odd", "plus-even", "plus-odd")
    inputs = (
        TensorSpec(name="signal", dtype="float32", shape=("batch", _WIDTH), low=-10.0, high=10.0),
        TensorSpec(name="kind", dtype="int64", shape=("batch",), low=0.0, high=_KINDS - 1.0),
    )

    def load(self, folder):
        draws = Draws(40_000, np.arange(480))
        sign = draws.bits(Stream.SPLIT, 0, 1)[:, 0].astype(np.int64)
        kind = np.floor(_KINDS * draws.uniforms(Stream.SPLIT, 1, 1)[:, 0]).astype(np.int64)
        noise = 0.5 * draws.normals(Stream.SPLIT, 2, _WIDTH // 2).reshape(-1, _WIDTH)
        signal = np.clip(2.0 * sign[:, None] - 1.0 + noise, -10.0, 10.0).astype(np.float32)
        labels = 2 * sign + kind % 2

        def split(start, end):
            return Split({"signal": signal[start:end], "kind": kind[start:end]}, labels[start:end])

        return Data(split(0, 200), split(200, 470), split(470, 480))

    def augment(self, inputs, draws):
        noise = draws.normals(Stream.AUGMENTATION, 0, _WIDTH // 2).reshape(-1, _WIDTH)
        signal = np.clip(inputs["signal"] + 0.1 * noise, -10.0, 10.0).astype(np.float32)
        return {"signal": signal, "kind": inputs["kind"]}

    def encoder(self, tokens, dim):
        return Encoder(tokens, dim)

    def head(self, tokens, dim):
        return nn.Sequential(nn.Flatten(1), nn.Linear(tokens * dim, len(self.classes)))


class Encoder(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.shape = (tokens, dim)
        self.kinds = nn.Embedding(_KINDS, 4)
        self.layers = nn.Sequential(nn.Linear(_WIDTH + 4, 32), nn.GELU(), nn.Linear(32, tokens * dim))

    def forward(self, signal, kind):
        return self.layers(torch.cat([signal, self.kinds(kind)], dim=-1)).unflatten(-1, self.shape)


TASK = Signs()
