"""Questions about images: what the transmitter sees is sent as a few reasoning tokens, and the receiver answers.

    image, [question] ─> encoder ─> 6 tokens ─> bottleneck ─> bits ─> link ─> head ─> answer
                                                             [question] ──────┘

The data are a folder (`--data`) as easy-VQA publishes it (train.visual_rows), or, with `task_options.csv_path`, a table with
the columns image, question and answer, in UTF-8 and any language, beside `task_options.image_folder`; where they are
not there, they are looked for in the folder as they lay. Rows without a table of their own are held out of the
training rows by image, so that no picture that is asked about was trained on; a test table of one's own that asks about
such pictures is used as it is, which is said.

The head sees what the link delivers and, where `task_options.question` says so, the question; nothing else of the image.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from link.errors import ArgumentError, RecipeError
from link.interface import TensorSpec, text_inputs
from link.randomness import Draws, Stream
from link.tokenizer import Tokenizer
from train.backbones import Backbone
from train.encoders import build_tokenizer, learn_tokenizer, load_config, load_tokenizer, require_length
from train.images import ImageStore, decode_image
from train.tasks import TOKENIZER_FACT, Data, Split
from train.vision import SIDE_STEP, WORDS, AnswerHead, QuestionEncoder, ReasoningEncoder, VisionEncoder
from train.visual_backbones import (
    QUESTION_ROLE,
    VISION_ROLE,
    PretrainedQuestion,
    PretrainedVision,
    VisionModel,
    find_vision_model,
    load_backbone,
)
from train.visual_rows import (
    Parts,
    VisualRow,
    VisualRows,
    hold_out,
    images_of,
    kinds_of,
    read_published,
    read_rows,
    without_bad,
)

TRANSMITTER_OPTIONS: Final = ("question", "image_size", "max_length", VISION_ROLE, QUESTION_ROLE)
TRANSMITTER_FACTS: Final = (TOKENIZER_FACT, "vocabulary", VISION_ROLE, QUESTION_ROLE)
SKIP_BAD: Final = "skip_bad_rows"
_LOGGER: Final = logging.getLogger(__name__)
_VOCABULARY: Final = 8_000
_RULE_CONFIDENCE: Final = 0.9


class Options(BaseModel):
    """Options of the task.

    Attributes
    ----------
    question : str
        Which end knows the question: `transmitter` (the tokens carry the answer), `receiver` (they carry the image, and any
        question can be asked of it later) or `both`.
    csv_path, image_folder : str, optional
        Table and images of one's own, in the folder of the data or anywhere.
    test_csv_path, test_image_folder : str, optional
        The same of test rows, which are held out where there is no such table.
    vision_model : str, optional
        Name on the hub, or folder, of a transformers vision model (ViT, CLIP, ResNet, ...) that looks at the images; where
        absent a small one is trained from nothing. It is frozen where optimizer.encoder_learning_rate is 0; else it is
        trained with that rate, behind optimizer.freeze_vision_epochs and from optimizer.unfreeze_epoch on.
    question_model : str, optional
        The same of a transformers text encoder that reads the questions, with its own tokenizer, at each end that knows
        them; trained from optimizer.unfreeze_epoch on. The two ends have weights of their own.
    image_size : int
        Pixels of a side; other images are resized to it. Beside `vision_model` that model's own, and may be left out. Each
        row holds its image, also where several ask of one: 150 kB at 224 x 224.
    max_length : int
        Tokens of a question, special ones included; what is longer is cut.
    flip : bool
        Whether images are mirrored in training, where no question asks for left and right.
    validation_images, test_images : int
        Held out of the training images where there is no such table; where absent a tenth of them, at most 1000.
    skip_bad_rows : bool
        Whether rows without an image that can be read, or with an answer that training does not have, are counted and left
        out, in place of ending with the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Literal["transmitter", "receiver", "both"] = "both"
    csv_path: str | None = None
    image_folder: str | None = None
    test_csv_path: str | None = None
    test_image_folder: str | None = None
    vision_model: Annotated[str, Field(min_length=1)] | None = None
    question_model: Annotated[str, Field(min_length=1)] | None = None
    image_size: Annotated[int, Field(ge=SIDE_STEP, le=512, multiple_of=SIDE_STEP)] = 64
    max_length: Annotated[int, Field(ge=4, le=512)] = 24
    flip: bool = False
    validation_images: Annotated[int, Field(ge=1)] | None = None
    test_images: Annotated[int, Field(ge=1)] | None = None
    skip_bad_rows: bool = False

    @model_validator(mode="after")
    def _check(self) -> Options:
        if (self.csv_path is None) != (self.image_folder is None):
            raise ValueError("csv_path and image_folder are given together, or not at all")
        if self.test_csv_path is not None and self.csv_path is None:
            raise ValueError("test_csv_path is given beside csv_path")
        if self.test_image_folder is not None and self.test_csv_path is None:
            raise ValueError("test_image_folder is given beside test_csv_path")
        return self


def find(options: Options, folder: Path | None) -> dict[str, Any]:
    """The answers that there are and what they are alternatives to, and the tokenizer of the questions."""
    train = read_parts(options, folder).train.rows
    classes = sorted({row.answer for row in train})
    if len(classes) < 2:
        raise ArgumentError("data", f"there must be two answers or more, got {', '.join(classes)} alone")
    return {
        "classes": classes,
        "kinds": kinds_of(train, classes),
        **_find_question_model(options, [row.question for row in train]),
        **(
            {}
            if options.vision_model is None
            else {VISION_ROLE: find_vision_model(options.vision_model).model_dump(mode="json")}
        ),
    }


def _find_question_model(options: Options, questions: Sequence[str]) -> dict[str, Any]:
    """Tokenizer of the questions, how many numbers it has, and the architecture of what reads them where it has a name."""
    if options.question_model is None:
        tokenizer = learn_tokenizer(questions, _VOCABULARY, accents=True)
        made = build_tokenizer(tokenizer, options.max_length, {"vocab_size": 2**31, "pad_token_id": 0})
        return {TOKENIZER_FACT: tokenizer, "vocabulary": made.highest_id + 1}
    config = load_config(options.question_model, QUESTION_ROLE)
    tokenizer = load_tokenizer(options.question_model, QUESTION_ROLE)
    return {TOKENIZER_FACT: tokenizer, "vocabulary": int(config["vocab_size"]), QUESTION_ROLE: config}


def build(options: Options, facts: Mapping[str, Any]) -> VisualQuestions:
    """The task from its facts."""
    return VisualQuestions(options, facts)


class VisualQuestions:
    """Images and questions, to one of the answers of the training rows.

    Parameters
    ----------
    options : Options
    facts : mapping
        As `find` returns them.

    Attributes
    ----------
    kinds : (C,) int64
        The same number for answers that are alternatives, see `kinds_of`.
    rules : (C, C) float64
        By right answer, what the rules say: nine tenths of it, and one tenth shared by the answers of its kind, those that
        some question of the training rows has had in its place.
    """

    name = "visual-questions"

    def __init__(self, options: Options, facts: Mapping[str, Any]) -> None:
        self.options = options
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.vocabulary = int(facts["vocabulary"])
        self.kinds: NDArray[np.int64] = np.array(facts["kinds"], dtype=np.int64)
        self.vision = None if options.vision_model is None else VisionModel.model_validate(facts[VISION_ROLE])
        self.question_config: Mapping[str, Any] | None = facts.get(QUESTION_ROLE)
        self.image_size = options.image_size if self.vision is None else self.vision.image_size
        if "image_size" in options.model_fields_set and options.image_size != self.image_size:
            raise RecipeError(
                f"task_options.image_size must be {self.image_size}, that of vision_model {options.vision_model!r}, or "
                f"absent, got {options.image_size}"
            )
        if self.question_config is not None:
            require_length(self.question_config, options.max_length)
        # A bundle's provenance keeps all facts but this one, and what needs no tokenizer does without.
        self.tokenizer_json: str = facts.get(TOKENIZER_FACT, "")

    @cached_property
    def rules(self) -> NDArray[np.float64]:
        alike = (self.kinds[:, None] == self.kinds) & ~np.eye(len(self.classes), dtype=np.bool_)
        others = alike.sum(axis=1, keepdims=True)
        shared = (1.0 - _RULE_CONFIDENCE) * alike / np.maximum(others, 1)
        return np.asarray(shared + np.diag(np.where(others[:, 0] > 0, _RULE_CONFIDENCE, 1.0)))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Cuts and pads a question to `max_length` tokens."""
        config = self.question_config or {"vocab_size": self.vocabulary, "pad_token_id": 0}
        return build_tokenizer(self.tokenizer_json, self.options.max_length, config)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The image, and the question where the transmitter knows it."""
        side = self.image_size
        image = TensorSpec(
            name="image",
            dtype="uint8",
            shape=("batch", side, side, 3),
            low=0,
            high=255,
            description="Pixels row by row from the top, red, green and blue.",
        )
        return (image,) if self.options.question == "receiver" else (image, *self._question)

    @property
    def receiver_inputs(self) -> tuple[TensorSpec, ...]:
        """The question, where the receiver knows it."""
        return () if self.options.question == "transmitter" else self._question

    def load(self, folder: Path | None) -> Data:
        """The rows of `folder`."""
        train, validation, test = self._parts(folder)
        return Data(*(self._split(rows) for rows in (train, validation, test)))

    def test_samples(self, folder: Path | None) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """The test rows as a caller gives them, questions as texts, and their labels (n,)."""
        rows, images = self._with_images(self._parts(folder)[-1])
        questions = np.array([row.question for row in rows.rows], dtype=object)
        return {"text": questions, "image": images}, self._labels(rows)

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Half of the images mirrored, where the options say so."""
        if not self.options.flip:
            return inputs
        mirrored = np.flatnonzero(draws.uniforms(Stream.AUGMENTATION, 0, 1)[:, 0] < 0.5)
        image = inputs["image"].copy()
        image[mirrored] = image[mirrored, :, ::-1]
        return {**inputs, "image": image}

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """What looks at the image, and the question after it."""
        vision = VisionEncoder() if self.vision is None else PretrainedVision(self.vision)
        return ReasoningEncoder(tokens, dim, vision, None if self.options.question == "receiver" else self._reader)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """What was received, and the question beside it."""
        reader = None if self.options.question == "transmitter" else self._reader
        return AnswerHead(tokens, dim, len(self.classes), reader)

    def load_backbone(self, backbone: Backbone) -> None:
        """Give a pretrained model inside encoder or head the weights that it starts from."""
        load_backbone(backbone, str(getattr(self.options, backbone.role)))

    def _reader(self) -> nn.Module:
        """What reads a question."""
        if self.question_config is None:
            return QuestionEncoder(self.vocabulary)
        return PretrainedQuestion(self.question_config, WORDS)

    @property
    def _question(self) -> tuple[TensorSpec, ...]:
        return text_inputs(self.options.max_length, self.vocabulary)

    def _parts(self, folder: Path | None) -> tuple[VisualRows, VisualRows, VisualRows]:
        """Training, validation and test rows, all with answers that are known."""
        options = self.options
        parts = read_parts(options, folder)
        train, test = parts
        if test is None:
            train, test = hold_out(train, options.test_images, "test")
        elif shared := images_of(train) & images_of(test):
            _LOGGER.warning(
                "%s: %d of %d images are in the training rows too: what is measured is no answer about new images",
                test.file,
                len(shared),
                len(images_of(test)),
            )
        train, validation = hold_out(train, options.validation_images, "validation")
        known = set(self.classes)

        def unknown(row: VisualRow) -> str | None:
            return (
                None
                if row.answer in known
                else f"answer {row.answer!r} is none of the {len(known)} of the training rows"
            )

        return (*(without_bad(rows, unknown, skip_bad=options.skip_bad_rows) for rows in (train, validation, test)),)  # type: ignore[return-value]

    def _split(self, rows: VisualRows) -> Split:
        rows, images = self._with_images(rows)
        encoded = self.tokenizer([row.question for row in rows.rows])
        for which, what in (
            (encoded.cut, f"are longer than {self.options.max_length} tokens and are cut there"),
            (encoded.unknown, "have no token that training knows"),
        ):
            if which.any():
                _LOGGER.warning("%s: %d of %d questions %s", rows.file, which.sum(), len(rows), what)
        inputs: dict[str, NDArray[Any]] = {
            "image": images,
            "input_ids": encoded.input_ids,
            "attention_mask": encoded.attention_mask,
        }
        return Split(inputs, self._labels(rows))

    def _with_images(self, rows: VisualRows) -> tuple[VisualRows, NDArray[np.uint8]]:
        """Rows whose images can be read, and the image of each."""
        found: dict[str, NDArray[np.uint8]] = {}
        broken: dict[str, str] = {}
        with ImageStore(rows.images) as store:
            for name in dict.fromkeys(row.image for row in rows.rows):
                try:
                    found[name] = decode_image(store.read(name), f"{store.path}: {name}", self.image_size)
                except ArgumentError as error:
                    broken[name] = error.message
        rows = without_bad(rows, lambda row: broken.get(row.image), skip_bad=self.options.skip_bad_rows)
        return rows, np.stack([found[row.image] for row in rows.rows])

    def _labels(self, rows: VisualRows) -> NDArray[np.int64]:
        places = {answer: place for place, answer in enumerate(self.classes)}
        return np.array([places[row.answer] for row in rows.rows], dtype=np.int64)


def read_parts(options: Options, folder: Path | None) -> Parts:
    """The tables that the options name, or those of the folder.

    Raises
    ------
    ArgumentError
        If there is no folder, one is given that nothing is read of, or a table is not there or cannot be used.
    """
    if options.csv_path is None or options.image_folder is None:
        if folder is None:
            raise ArgumentError("data", "must name a folder as easy-VQA publishes it, or of one's own tables (--data)")
        if not folder.is_dir():
            raise ArgumentError("data", f"{folder} is no folder: name one with the questions and images in it")
        return read_published(folder, skip_bad=options.skip_bad_rows)
    named = (options.csv_path, options.image_folder, options.test_csv_path, options.test_image_folder)
    own = [Path(name) for name in named if name is not None]
    moved = _moved([path for path in own if path.is_absolute()])
    if folder is None and moved:
        there = " and ".join(map(str, moved.values()))
        raise ArgumentError(
            "csv_path",
            f"{next(iter(moved))} does not exist: where the files are elsewhere, name a folder with {there} in it (--data, "
            "of call --inputs)",
        )
    if folder is not None and not moved and all(path.is_absolute() for path in own):
        raise ArgumentError("data", f"{folder} is not read: the rows are those of {options.csv_path}; leave out --data")

    def found(name: str) -> Path:
        return (folder or Path()) / moved.get(Path(name), Path(name))

    images = found(options.image_folder)
    train = read_rows(found(options.csv_path), images, skip_bad=options.skip_bad_rows)
    if options.test_csv_path is None:
        return Parts(train, None)
    if options.test_image_folder is not None:
        images = found(options.test_image_folder)
    return Parts(train, read_rows(found(options.test_csv_path), images, skip_bad=options.skip_bad_rows))


def _moved(files: Sequence[Path]) -> dict[Path, Path]:
    """Of files of which one is not there: each as it lay below the folder that held them all."""
    if all(file.exists() for file in files):
        return {}
    above = os.path.commonpath(files)
    return {file: file.relative_to(above) for file in files}
