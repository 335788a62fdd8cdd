"""A task whose receiver is asked something of its own: two signs are sent, and the question says which of them matters."""

import numpy as np
import torch
from torch import nn

from link.interface import TensorSpec
from link.randomness import Draws, Stream
from train.tasks import Data, Split

_WIDTH = 6
QUESTIONS = 3


class Asked:
    """Questions 0 and 1: the sign of either half. Question 2: whether they are equal; its answers are its own."""

    name = "asked"
    classes = ("minus", "plus", "different", "same")
    inputs = (TensorSpec(name="signal", dtype="float32", shape=("batch", _WIDTH), low=-10.0, high=10.0),)
    receiver_inputs = (
        TensorSpec(name="question", dtype="int64", shape=("batch",), low=0.0, high=QUESTIONS - 1.0),
        TensorSpec(name="weight", dtype="float32", shape=("batch", 2), low=0.0, high=1.0),
    )

    def load(self, folder):
        draws = Draws(50_000, np.arange(620))
        signs = draws.bits(Stream.SPLIT, 0, 2).astype(np.int64)
        question = np.floor(QUESTIONS * draws.uniforms(Stream.SPLIT, 1, 1)[:, 0]).astype(np.int64)
        noise = 0.3 * draws.normals(Stream.SPLIT, 2, _WIDTH // 2).reshape(-1, _WIDTH)
        signal = np.clip(2.0 * np.repeat(signs, _WIDTH // 2, axis=1) - 1.0 + noise, -10.0, 10.0).astype(np.float32)
        same = 2 + (signs[:, 0] == signs[:, 1])
        labels = np.choose(question, [signs[:, 0], signs[:, 1], same])
        weight = draws.uniforms(Stream.SPLIT, 3, 2).astype(np.float32)  # says nothing

        def split(start, end):
            inputs = {"signal": signal, "question": question, "weight": weight}
            return Split({name: values[start:end] for name, values in inputs.items()}, labels[start:end])

        return Data(split(0, 240), split(240, 600), split(600, 620))

    def augment(self, inputs, draws):
        return inputs

    def encoder(self, tokens, dim):
        return Encoder(tokens, dim)

    def head(self, tokens, dim):
        return Head(tokens, dim, len(self.classes))


class Encoder(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.shape = (tokens, dim)
        self.layers = nn.Sequential(nn.Linear(_WIDTH, 32), nn.GELU(), nn.Linear(32, tokens * dim))

    def forward(self, signal):
        return self.layers(signal).unflatten(-1, self.shape)


class Head(nn.Module):
    def __init__(self, tokens, dim, classes):
        super().__init__()
        self.question = nn.Embedding(QUESTIONS, 8)
        self.layers = nn.Sequential(nn.Linear(tokens * dim + 10, 32), nn.GELU(), nn.Linear(32, classes))

    def forward(self, embedding, question, weight):
        return self.layers(torch.cat([embedding.flatten(1), self.question(question), weight], dim=-1))


TASK = Asked()
