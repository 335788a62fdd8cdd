"""Handwritten digits: 1,797 scans of 8 x 8 pixels that come with scikit-learn (Alpaydin and Kaynak 1998, UCI)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from link.interface import TensorSpec
from link.randomness import Draws, Stream
from train.tasks import Data, Split

SPLIT_SEED: Final = 20_000
_SIDE: Final = 8
_WHITE: Final = 16.0
_NOISE: Final = 0.1
_SHIFTS: Final = np.array([[1, 1], [0, 1], [2, 1], [1, 0], [1, 2]])
_CHANNELS: Final = 16
_WIDTH: Final = 256


class Digits:
    """Ten classes; 60 % of the rows train, 20 % validate, 20 % test, stratified, the split's seed fixed."""

    name = "digits"
    classes = tuple(str(digit) for digit in range(10))
    inputs = (
        TensorSpec(
            name="image",
            dtype="float32",
            shape=("batch", _SIDE, _SIDE),
            low=0.0,
            high=_WHITE,
            description="Scan of a digit, row by row from the top; 0 is paper, 16 is ink.",
        ),
    )

    def load(self, folder: Path | None) -> Data:
        """The embedded scans; `folder` is not used."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, _SIDE, _SIDE).astype(np.float32)
        rows = np.arange(len(labels))
        rest, test = train_test_split(rows, test_size=360, stratify=labels, random_state=SPLIT_SEED)
        train, validation = train_test_split(rest, test_size=359, stratify=labels[rest], random_state=SPLIT_SEED)

        def split(chosen: NDArray[np.int64]) -> Split:
            return Split({"image": images[chosen]}, labels[chosen].astype(np.int64))

        return Data(split(np.sort(train)), split(np.sort(validation)), split(np.sort(test)))

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Shift by one pixel up, down, left, right or not at all, and add Gaussian noise of a tenth of the range."""
        images = inputs["image"]
        steps = _SHIFTS[np.floor(draws.uniforms(Stream.AUGMENTATION, 0, 1)[:, 0] * len(_SHIFTS)).astype(np.int64)]
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
        pixels = np.arange(_SIDE)
        rows = np.arange(len(images))[:, None, None]
        shifted = padded[rows, (steps[:, :1] + pixels)[:, :, None], (steps[:, 1:] + pixels)[:, None, :]]
        noise = draws.normals(Stream.AUGMENTATION, 1, _SIDE * _SIDE // 2).reshape(images.shape)
        return {"image": np.clip(shifted + _NOISE * _WHITE * noise, 0.0, _WHITE).astype(np.float32)}

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """Two convolutions on the pixels, scaled to [-1, 1], and a hidden layer."""
        return Encoder(tokens, dim)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """One hidden layer on all tokens."""
        return nn.Sequential(
            nn.Flatten(1), nn.Linear(tokens * dim, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, len(self.classes))
        )


class Encoder(nn.Module):
    """(B, 8, 8) pixels to (B, tokens, dim)."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        self.layers = nn.Sequential(
            nn.Conv2d(1, _CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(_CHANNELS, 2 * _CHANNELS, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(1),
            nn.Linear(2 * _CHANNELS * (_SIDE // 2) ** 2, _WIDTH),
            nn.GELU(),
            nn.Linear(_WIDTH, tokens * dim),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Tokens of each image."""
        pixels = image.unsqueeze(1) * (2.0 / _WHITE) - 1.0
        return self.layers(pixels).unflatten(-1, self.shape)  # type: ignore[no-any-return]


TASK: Final = Digits()
