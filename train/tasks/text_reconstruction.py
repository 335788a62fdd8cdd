"""Sentences, rebuilt piece by piece from what the link delivers.

    sentence ─> pieces ─> transformer ─> m latent tokens a piece ─> link ─> transformer ─> a piece a position ─> sentence

A sentence is spelt in pieces of a byte-pair vocabulary, which can spell whatever is UTF-8, and an end. Each piece has latent
tokens of its own, so the rate follows the length (`train.lengths`); the end has none, it stands where nothing was sent. The
receiver looks at all that arrived, and names the pieces one after another or all at once. In place of a vocabulary and
transformers of its own it may have those of a transformers encoder-decoder, BART say, by its name (train.seq2seq).

The data are a folder (`--data`) of plain files, one sentence a line, as `link.sentences` reads them: `train.*`, and `test.*`
or `val.*`; without `--data`, `task_options.dataset` names a data set of the hub. A part that is absent is held out of the
training sentences, and what stands in the test part is not trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from link.errors import ArgumentError, RecipeError
from link.interface import TensorSpec, text_inputs
from link.manifest import TextSpec
from link.randomness import Draws, permutation
from link.sentences import read_sentence_parts
from link.tokenizer import Tokenizer
from link.truth import UNJUDGED
from train.answers import Answered
from train.autoregressive import AutoregressiveDecoder
from train.backbones import Backbone
from train.chain import Chain
from train.encoders import build_tokenizer, require_length
from train.hub import fetch_sentences
from train.pieces import END_ID, build_pieces, learn_pieces
from train.search import StepDecoder
from train.seq2seq import Seq2SeqDecoder, Seq2SeqReader, load_seq2seq
from train.seq2seq_files import SEQ2SEQ_ROLE, Seq2SeqModel, find_seq2seq
from train.tasks import TOKENIZER_FACT, Data, Split
from train.transformer import Transformer, longest

_OF_AN_ENCODER: Final = ("vocabulary", "width", "heads", "encoder_layers")
_OF_A_DECODER: Final = ("causal_layers", "candidates", "pair_rank")
TRANSMITTER_OPTIONS: Final = ("max_length", "tokens_a_piece", *_OF_AN_ENCODER, SEQ2SEQ_ROLE)
TRANSMITTER_FACTS: Final = (TOKENIZER_FACT, SEQ2SEQ_ROLE)
SKIP_BAD: Final = "skip_bad_lines"
HOLDOUT_SEED: Final = 20_000
_HELD_OUT_MAX: Final = 1000
_HELD_OUT_SHARE: Final = 10
_SURE: Final = 8.0
"""How much likelier than another piece the end is where nothing was sent, to begin with: nats."""
_LOGGER: Final = logging.getLogger(__name__)


class Options(BaseModel):
    """Options of the task.

    Attributes
    ----------
    dataset, column : str
        Data set of the hub, where no folder is named, and its column of sentences.
    language : str, optional
        The last part of the files' names before `.txt` and `.gz`, as `en` of `train.en.gz`.
    test : str, optional
        Which test file, by its name before its language, where there are several.
    skip_bad_lines : bool
        Whether lines that are no sentence are left out and counted; else the first of them is refused.
    max_length : int
        Pieces of a sentence, its end included; what is longer is cut.
    tokens_a_piece : int
        Latent tokens of each.
    seq2seq_model : str, optional
        Name on the hub, or folder, of a transformers encoder-decoder (BART, T5, ...), whose vocabulary, encoder and decoder
        take the place of those that are learned. They are frozen where optimizer.encoder_learning_rate is 0; else they are
        trained with that rate from optimizer.unfreeze_epoch on. The two ends have weights of their own.
    vocabulary : int
        Pieces that are learned from the training sentences; 256 of them are the bytes.
    width, heads : int
        Of both transformers.
    encoder_layers, decoder_layers : int
    decoder : str
        How pieces are decided: each given those before it, `autoregressive` (train.autoregressive); all at once, each by
        itself, `parallel`, or with its neighbours, `marginal` or `viterbi` (train.chain).
    causal_layers, beam : int
        Of an autoregressive decoder: its layers, and the hypotheses that it keeps; 1 is greedy.
    candidates, pair_rank : int
        Of a decoder that looks at neighbours: pieces a position that it weighs, and the rank of their pairs' scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str | None = None
    column: str = "text"
    language: str | None = None
    test: str | None = None
    skip_bad_lines: bool = False
    max_length: Annotated[int, Field(ge=2, le=512)] = 36
    tokens_a_piece: Annotated[int, Field(ge=1, le=64)] = 5
    seq2seq_model: Annotated[str, Field(min_length=1)] | None = None
    vocabulary: Annotated[int, Field(ge=300, le=65536)] = 4000
    width: Annotated[int, Field(ge=8, le=4096)] = 128
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    encoder_layers: Annotated[int, Field(ge=1, le=24)] = 2
    decoder_layers: Annotated[int, Field(ge=1, le=24)] = 2
    decoder: Literal["autoregressive", "parallel", "marginal", "viterbi"] = "autoregressive"
    causal_layers: Annotated[int, Field(ge=1, le=24)] = 2
    beam: Annotated[int, Field(ge=1, le=64)] = 1
    candidates: Annotated[int, Field(ge=2, le=256)] = 8
    pair_rank: Annotated[int, Field(ge=1, le=512)] = 32

    @model_validator(mode="after")
    def _check(self) -> Options:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")
        if self.beam > 1 and self.decoder != "autoregressive":
            raise ValueError(f"beam must be 1 where the decoder is {self.decoder}, got {self.beam}")
        if self.seq2seq_model is not None:
            if self.decoder != "autoregressive":
                raise ValueError(f"decoder must be autoregressive beside seq2seq_model, got {self.decoder}")
            for key in (*_OF_AN_ENCODER, *_OF_A_DECODER):
                if key in self.model_fields_set:
                    raise ValueError(f"{key} must be absent beside seq2seq_model, got {getattr(self, key)}")
        return self


def find(options: Options, folder: Path | None) -> dict[str, Any]:
    """The tokenizer, learned from the training sentences, or that of the model that is named, and what to know of it."""
    if options.seq2seq_model is not None:
        model, tokenizer = find_seq2seq(options.seq2seq_model)
        return {TOKENIZER_FACT: tokenizer, SEQ2SEQ_ROLE: model.model_dump(mode="json")}
    return {TOKENIZER_FACT: learn_pieces(read_texts(options, folder).train, options.vocabulary)}


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
        self.model = None if options.seq2seq_model is None else Seq2SeqModel.model_validate(facts[SEQ2SEQ_ROLE])
        if self.model is not None:
            require_length(self.model.config, options.max_length, more=len(self.model.before))
            sizes = {"vocabulary": self.model.pieces, "width": self.model.width, "heads": self.model.heads}
            self.options = options.model_copy(update=sizes)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Spells a sentence in `max_length` pieces."""
        if self.model is not None:
            return build_tokenizer(self.tokenizer_json, self.options.max_length, self.model.config)
        return build_pieces(self.tokenizer_json, self.options.max_length)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Numbers of a sentence's pieces, and a mask of those that are there."""
        return text_inputs(self.options.max_length, self.options.vocabulary)

    @property
    def text(self) -> TextSpec:
        """A piece a position, and the end behind the last."""
        return TextSpec(positions=self.options.max_length, pieces=self.options.vocabulary, end_id=END_ID)

    def load(self, folder: Path | None) -> Data:
        """The sentences of `folder`."""
        texts = read_texts(self.options, folder)
        return Data(*(self._split(getattr(texts, part), part) for part in ("train", "validation", "test")))

    def test_texts(self, folder: Path | None) -> tuple[tuple[str, ...], NDArray[Any]]:
        """The test sentences, which are their own right answers."""
        texts = read_texts(self.options, folder).test
        return texts, np.array(texts, dtype=object)

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Sentences are not augmented."""
        return inputs

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """A transformer over the pieces, and latent tokens of each."""
        self._require(tokens)
        return Encoder(self.options, dim, self.model)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """A transformer over the positions, and scores of all pieces at each."""
        self._require(tokens)
        return Decoder(self.options, dim, self.model)

    def load_backbone(self, backbone: Backbone) -> None:
        """Give encoder or decoder of the model that is named the weights that they start from."""
        assert self.model is not None
        load_seq2seq(backbone, self.model, str(self.options.seq2seq_model))

    def _require(self, tokens: int) -> None:
        """Raise RecipeError unless the longest mode holds the longest sentence, and no more."""
        options = self.options
        if tokens != options.max_length * options.tokens_a_piece:
            raise RecipeError(
                f"link.lengths must end at {options.max_length * options.tokens_a_piece}, task_options.max_length times "
                f"tokens_a_piece, got {tokens}"
            )

    def _split(self, sentences: Sequence[str], part: str) -> Split:
        encoded = self.tokenizer(sentences)
        if encoded.cut.any():
            _LOGGER.warning(
                "%s: %d of %d sentences have more than %d pieces and are cut there",
                part,
                encoded.cut.sum(),
                len(sentences),
                self.options.max_length,
            )
        labels = np.where(encoded.attention_mask == 1, encoded.input_ids, UNJUDGED)
        return Split({"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}, labels)


class Encoder(nn.Module):
    """Pieces (B, T) and their mask to (B, N, D), zeros from a sentence's end on."""

    def __init__(self, options: Options, dim: int, model: Seq2SeqModel | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.reader: nn.Module | None = None
        if model is None:
            self.embedding = nn.Embedding(options.vocabulary, options.width)
            self.transformer = Transformer(options.width, options.heads, options.encoder_layers, options.max_length)
        else:
            self.reader = Seq2SeqReader(model)
        self.out = nn.Linear(options.width, options.tokens_a_piece * dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Latent tokens of each sentence."""
        length = input_ids.shape[1]
        present = (attention_mask != 0) & (input_ids != END_ID)
        used = longest(present)
        pieces, present = input_ids[:, :used], present[:, :used]
        read = (
            self.transformer(self.embedding(pieces), present) if self.reader is None else self.reader(pieces, present)
        )
        states = self.out(read) * present[..., None]
        padded = functional.pad(states, (0, 0, 0, length - used))
        return padded.reshape(padded.shape[0], -1, self.dim)


class Decoder(nn.Module):
    """(B, N, D), zeros past what was sent, to scores (B, T, V)."""

    def __init__(self, options: Options, dim: int, model: Seq2SeqModel | None = None) -> None:
        super().__init__()
        self.tokens_a_piece = options.tokens_a_piece
        self.into = nn.Linear(options.tokens_a_piece * dim, options.width)
        self.transformer = Transformer(options.width, options.heads, options.decoder_layers, options.max_length)
        self.unsent = nn.Parameter(_SURE * functional.one_hot(torch.tensor(END_ID), options.vocabulary).float())
        self.out = build_search(options) if model is None else Seq2SeqDecoder(model, options.beam)

    @property
    def told(self) -> bool:
        """Whether pieces are decided given those before, which are told in training."""
        return isinstance(self.out, StepDecoder)

    def forward(self, embedding: Tensor, told: Tensor | None = None) -> Tensor:
        """Scores of the pieces at each position; of those that nothing was sent for, the end's is the highest."""
        states, sent = self._states(embedding)
        scores = self.out(states, sent) if told is None else self.out(states, sent, told[:, : states.shape[1]])
        scores = torch.where(sent[..., None], scores, self.unsent)
        missing = self._positions(embedding) - scores.shape[1]
        unseen = self.unsent.expand(scores.shape[0], missing, -1)
        return torch.cat([scores, unseen], dim=1) if missing else scores

    def decide(self, embedding: Tensor) -> Answered:
        """The pieces that an autoregressive decoder decides, (B, T), and the log probability of each."""
        states, sent = self._states(embedding)
        pieces, score = cast(StepDecoder, self.out).decide(states, sent)
        missing = (0, self._positions(embedding) - pieces.shape[1])
        pieces, score, sent = (
            functional.pad(found, missing, value=value)
            for found, value in ((pieces, END_ID), (score, 0.0), (sent, False))
        )
        return Answered(pieces, torch.where(sent, score, self.unsent.log_softmax(dim=-1)[END_ID]))

    def _positions(self, embedding: Tensor) -> int:
        return embedding.shape[1] // self.tokens_a_piece

    def _states(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """States of positions (B, T, H) up to the last that something was sent for in any row, and where it was, (B, T)."""
        received = embedding.reshape(embedding.shape[0], self._positions(embedding), -1)
        present = (received != 0.0).any(dim=-1)
        used = longest(present)
        sent = present[:, :used]
        return self.transformer(self.into(received[:, :used]), sent) * sent[..., None], sent


class Parallel(nn.Module):
    """States (B, T, H) to scores of the pieces (B, T, V), each position by itself or beside its neighbours."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.scores = nn.Linear(options.width, options.vocabulary)
        self.chain = None
        if options.decoder in ("marginal", "viterbi"):
            self.chain = Chain(options.vocabulary, options.candidates, options.pair_rank, options.decoder)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """Scores at each position; those that are not `present`, (B, T), say nothing of their neighbours."""
        scores: Tensor = self.scores(states)
        return scores if self.chain is None else self.chain(scores, present)


def build_search(options: Options) -> nn.Module:
    """What makes pieces of states."""
    if options.decoder == "autoregressive":
        return AutoregressiveDecoder(
            options.vocabulary, options.width, options.heads, options.causal_layers, options.beam
        )
    return Parallel(options)


class Texts(NamedTuple):
    """Sentences by part."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def read_texts(options: Options, folder: Path | None) -> Texts:
    """The sentences of a folder, no part with a sentence of another.

    Raises
    ------
    ArgumentError
        If no data are named, they cannot be read or hold what is no sentence, or nothing is left to train on.
    """
    if folder is not None:
        found = read_sentence_parts(
            folder, language=options.language, test=options.test, skip_bad=options.skip_bad_lines
        )
    elif options.dataset is not None:
        found = fetch_sentences(options.dataset, options.column, skip_bad=options.skip_bad_lines)
    else:
        raise ArgumentError(
            "data",
            "must name a folder with train.txt, one sentence a line (--data); or task_options.dataset a data set of the hub",
        )
    for part in filter(None, found):
        if part.skipped:
            lines = len(part) + part.skipped
            _LOGGER.warning(
                "%s: %d of %d lines are left out; the first, %s", part.file, part.skipped, lines, part.first_skipped
            )
    train, validation, test = (() if part is None else part.texts for part in found)
    if found.test is None:
        train, test = _hold_out(train, "test", found.train.file)
    if found.validation is None:
        train, validation = _hold_out(train, "validation", found.train.file)
    tested = set(test)
    validation = tuple(text for text in validation if text not in tested)
    measured = tested.union(validation)
    train = tuple(text for text in train if text not in measured)
    if not train or not validation:
        where = "the validation part" if train else found.train.file
        raise ArgumentError("data", f"every sentence of {where} stands in another part too: none is left")
    return Texts(train, validation, test)


def _hold_out(texts: tuple[str, ...], part: str, file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count = min(_HELD_OUT_MAX, max(1, len(texts) // _HELD_OUT_SHARE))
    order = permutation(HOLDOUT_SEED, len(texts))
    if len(texts) < 2:
        raise ArgumentError("data", f"{file} has too few sentences to hold any out for {part}: add some")
    _LOGGER.warning("%s: %d of %d sentences are held out for %s", file, count, len(texts), part)
    held, left = np.sort(order[:count]), np.sort(order[count:])
    return tuple(texts[row] for row in left), tuple(texts[row] for row in held)
