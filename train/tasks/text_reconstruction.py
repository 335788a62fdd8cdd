"""Sentences, rebuilt word by word from what the link delivers.

    sentence ─> pieces ─> transformer ─> m latent tokens a piece ─> link ─> transformer ─> a piece a position ─> sentence

A sentence is spelt in pieces of a byte-pair vocabulary, which spells whatever is UTF-8, and an end. Each piece has latent tokens
of its own, so the rate follows the length (`train.lengths`), and all pieces are read at once: whose place a piece has is known,
so nothing is gained by reading one after another (docs/log.md has the comparison).

The data are a folder (`--data`) with one sentence a line: `train.*`, `val.*`, `test.*`.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from link.errors import ArgumentError, RecipeError
from link.interface import TensorSpec
from link.randomness import Draws
from link.tokenizer import Tokenizer
from train.losses import UNJUDGED
from train.pieces import END, PAD_ID, PAD_TOKEN, build_pieces, learn_pieces
from train.tasks import TOKENIZER_FACT, Data, Split
from train.transformer import Transformer, longest

TRANSMITTER_OPTIONS: Final = ("max_length", "width", "heads", "encoder_layers")
TRANSMITTER_FACTS: Final = (TOKENIZER_FACT,)


class Options(BaseModel):
    """Options of the task.

    Attributes
    ----------
    max_length : int
        Pieces of a sentence, its end included; what is longer is cut.
    vocabulary : int
        Pieces that are learned from the training sentences; 256 of them are the bytes.
    width, heads : int
        Of both transformers.
    encoder_layers, decoder_layers : int
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: Annotated[int, Field(ge=2, le=512)] = 36
    vocabulary: Annotated[int, Field(ge=300, le=65536)] = 4000
    width: Annotated[int, Field(ge=8, le=4096)] = 128
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    encoder_layers: Annotated[int, Field(ge=1, le=24)] = 2
    decoder_layers: Annotated[int, Field(ge=1, le=24)] = 2


def find(options: Options, folder: Path | None) -> dict[str, Any]:
    """The tokenizer, learned from the training sentences."""
    return {TOKENIZER_FACT: learn_pieces(_sentences(folder, "train"), options.vocabulary)}


def build(options: Options, facts: Mapping[str, Any]) -> TextReconstruction:
    """The task from its facts."""
    return TextReconstruction(options, facts)


class TextReconstruction:
    """Sentences of at most `max_length` pieces, each of which is to be named at the other end.

    Parameters
    ----------
    options : Options
    facts : mapping
        As `find` returns them.
    """

    name = "text-reconstruction"
    classes: tuple[str, ...] = ()

    def __init__(self, options: Options, facts: Mapping[str, Any]) -> None:
        self.options = options
        self.tokenizer_json: str = facts.get(TOKENIZER_FACT, "")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Spells a sentence in `max_length` pieces."""
        return build_pieces(self.tokenizer_json, self.options.max_length)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Numbers of a sentence's pieces, and a mask of those that are there."""
        shape = ("batch", self.options.max_length)
        return (
            TensorSpec(
                name="input_ids",
                dtype="int64",
                shape=shape,
                low=0,
                high=self.options.vocabulary - 1,
                description="Pieces of a sentence, its end included, padded to the full length.",
            ),
            TensorSpec(
                name="attention_mask", dtype="int64", shape=shape, low=0, high=1, description="1 where a piece is, else 0."
            ),
        )

    def load(self, folder: Path | None) -> Data:
        """The sentences of `folder`."""
        return Data(*(self._split(_sentences(folder, part)) for part in ("train", "val", "test")))

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Sentences are not augmented."""
        return inputs

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """A transformer over the pieces, and latent tokens of each."""
        return Encoder(self.options, self._tokens_a_piece(tokens), dim)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """A transformer over the positions, and scores of all pieces at each."""
        return Decoder(self.options, self._tokens_a_piece(tokens), dim)

    def _tokens_a_piece(self, tokens: int) -> int:
        a_piece, left = divmod(tokens, self.options.max_length)
        if left or not a_piece:
            raise RecipeError(
                f"link: the most tokens must be a multiple of task_options.max_length {self.options.max_length}, got {tokens}"
            )
        return a_piece

    def _split(self, sentences: list[str]) -> Split:
        encoded = self.tokenizer(sentences)
        labels = np.where(encoded.attention_mask == 1, encoded.input_ids, UNJUDGED)
        return Split({"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}, labels)


class Encoder(nn.Module):
    """Pieces (B, T) and their mask to (B, N, D), zeros past a sentence's end."""

    def __init__(self, options: Options, tokens_a_piece: int, dim: int) -> None:
        super().__init__()
        self.shape = (tokens_a_piece, dim)
        self.embedding = nn.Embedding(options.vocabulary, options.width)
        self.transformer = Transformer(options.width, options.heads, options.encoder_layers, options.max_length)
        self.out = nn.Linear(options.width, tokens_a_piece * dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Latent tokens of each sentence."""
        length = input_ids.shape[1]
        present = attention_mask != 0
        used = longest(present)
        present = present[:, :used]
        states = self.out(self.transformer(self.embedding(input_ids[:, :used]), present)) * present[..., None]
        tokens: Tensor = functional.pad(states, (0, 0, 0, length - used)).unflatten(-1, self.shape).flatten(1, 2)
        return tokens


class Decoder(nn.Module):
    """(B, N, D), zeros past what was sent, to scores (B, T, V)."""

    def __init__(self, options: Options, tokens_a_piece: int, dim: int) -> None:
        super().__init__()
        self.tokens_a_piece = tokens_a_piece
        self.into = nn.Linear(tokens_a_piece * dim, options.width)
        self.transformer = Transformer(options.width, options.heads, options.decoder_layers, options.max_length)
        self.out = nn.Linear(options.width, options.vocabulary)

    def forward(self, embedding: Tensor) -> Tensor:
        """Scores of the pieces at each position."""
        received = embedding.unflatten(1, (-1, self.tokens_a_piece)).flatten(2)
        length = received.shape[1]
        present = (received != 0.0).any(dim=-1)
        used = longest(present)
        states = self.transformer(self.into(received[:, :used]), present[:, :used])
        scores: Tensor = functional.pad(self.out(states), (0, 0, 0, length - used))
        return scores


def _sentences(folder: Path | None, part: str) -> list[str]:
    if folder is None:
        raise ArgumentError("data", "must name a folder with train.*, val.* and test.*, one sentence a line (--data)")
    (file,) = [found for found in folder.iterdir() if found.name.startswith(part) and ".en" in found.name]
    raw = gzip.open(file, "rb").read() if file.suffix == ".gz" else file.read_bytes()
    return [line.strip() for line in raw.decode("utf-8").splitlines() if line.strip()]
