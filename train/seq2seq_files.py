"""What is read of an encoder-decoder's files: its architecture, its tokenizer, and what it begins and ends a text with.

Numbers: the model's end and the piece that bears END_ID change places, once, when the model is taken: here in its tokenizer
and its architecture, and in the rows of its weights where these are loaded (train.seq2seq). Nothing else knows the old ones.

Families: BART, mBART, Pegasus, T5 and mT5 are what it was tried with. Others are refused by their name: a cache that they
use otherwise, or positions that follow from the numbers of pieces, would go unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from link.errors import RecipeError
from train.encoders import import_transformers, load_pretrained, load_tokenizer, read_library
from train.pieces import END_ID

SEQ2SEQ_ROLE: Final = "seq2seq_model"
FAMILIES: Final = ("bart", "mbart", "mt5", "pegasus", "t5")
_NUMBERS: Final = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "forced_eos_token_id", "pad_token_id")
_REQUIRED: Final = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
_HEAD_WIDTH: Final = 64
_ANY_TEXT: Final = "a"


class Seq2SeqModel(BaseModel):
    """What a checkpoint keeps of an encoder-decoder, so that it can be built without its files; in the numbers used here.

    Attributes
    ----------
    config : mapping
        Its architecture.
    own_end : int
        The number that its end has in its files.
    before : tuple of int
        Pieces that stand before a sentence.
    start : int
        The piece that its decoder begins with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]
    own_end: int
    before: tuple[int, ...]
    start: int

    @property
    def pieces(self) -> int:
        """V: pieces that it knows."""
        return int(self.config["vocab_size"])

    @property
    def width(self) -> int:
        """H: size of its states."""
        return int(self.config["d_model"])

    @property
    def heads(self) -> int:
        """Attention heads of a transformer as wide as its states: of 64 each, or one."""
        return self.width // _HEAD_WIDTH if self.width % _HEAD_WIDTH == 0 else 1


class Seq2SeqFiles(NamedTuple):
    """An encoder-decoder and its tokenizer.json, in the numbers used here; behind a sentence it puts an end, and no more."""

    model: Seq2SeqModel
    tokenizer: str


def find_seq2seq(name: str) -> Seq2SeqFiles:
    """What must be known of an encoder-decoder, by its name on the hub or from a folder in the format of transformers.

    Raises
    ------
    RecipeError
        If there is none, it is of no family that is known here, or its tokenizer is not of the fast kind or does not end a
        text with one end.
    MissingExtra
        If transformers is not installed.
    """
    found = load_pretrained(name, import_transformers().AutoConfig, SEQ2SEQ_ROLE)
    config: dict[str, Any] = json.loads(found.to_json_string(use_diff=False))
    kind = config.get("model_type")
    if not config.get("is_encoder_decoder"):
        raise RecipeError(f"{SEQ2SEQ_ROLE} {name!r} is no encoder-decoder: its config.json describes a {kind}")
    if kind not in FAMILIES:
        known = f"{', '.join(FAMILIES[:-1])} or {FAMILIES[-1]}"
        raise RecipeError(f"{SEQ2SEQ_ROLE} {name!r} must be a {known}, its config.json describes a {kind}")
    for key in _REQUIRED:
        if not isinstance(config.get(key), int):
            raise RecipeError(
                f"{SEQ2SEQ_ROLE} {name!r} cannot be used: {key} in its config.json is {config.get(key)!r}"
            )
    end = int(config["eos_token_id"])
    tokenizer = load_tokenizer(name, SEQ2SEQ_ROLE)
    before = _before(name, tokenizer, end)
    model = Seq2SeqModel(
        config={**config, **{key: _swapped(config[key], end) for key in _NUMBERS if isinstance(config.get(key), int)}},
        own_end=end,
        before=tuple(_swapped(number, end) for number in before),
        start=_swapped(config["decoder_start_token_id"], end),
    )
    return Seq2SeqFiles(model, _renumbered(tokenizer, end))


def _before(name: str, tokenizer: str, end: int) -> list[int]:
    """Special tokens that a tokenizer puts before a text, by number.

    Raises
    ------
    RecipeError
        If it puts anything but an end behind it.
    """
    library = read_library(tokenizer)
    library.no_padding()
    library.no_truncation()
    spelt = library.encode(_ANY_TEXT)
    own = [place for place, special in enumerate(spelt.special_tokens_mask) if not special]
    behind = spelt.tokens[own[-1] + 1 :] if own else []
    if behind != [library.id_to_token(end)]:
        raise RecipeError(
            f"{SEQ2SEQ_ROLE} {name!r} cannot be used: behind a text its tokenizer puts {' '.join(behind) or 'nothing'}, "
            f"not one end, token {end}"
        )
    return list(spelt.ids[: own[0]])


def _renumbered(tokenizer: str, end: int) -> str:
    """tokenizer.json whose end bears END_ID, and stands behind each text; nothing stands before it."""
    from tokenizers import processors

    values: dict[str, Any] = json.loads(tokenizer)
    names = {number: read_library(tokenizer).id_to_token(number) for number in (end, END_ID)}
    values["model"] = _renumbered_model(values["model"], names, end)
    added = [{**token, "id": _swapped(token["id"], end)} for token in values["added_tokens"]]
    values["added_tokens"] = sorted(added, key=lambda token: token["id"])
    values |= {"post_processor": None, "padding": None, "truncation": None}
    library = read_library(json.dumps(values, ensure_ascii=False))
    library.post_processor = processors.TemplateProcessing(
        single=["$A", names[end]], special_tokens=[(names[end], END_ID)]
    )
    text: str = library.to_str()
    return text


def _renumbered_model(model: Mapping[str, Any], names: Mapping[int, str | None], end: int) -> dict[str, Any]:
    """The model of a tokenizer.json, two of its tokens in each other's place."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # numbers are places
        vocabulary = vocabulary.copy()
        vocabulary[end], vocabulary[END_ID] = vocabulary[END_ID], vocabulary[end]
        return {**model, "vocab": vocabulary, "unk_id": _swapped(model["unk_id"], end)}
    new = {name: _swapped(number, end) for number, name in names.items() if name is not None}
    return {**model, "vocab": {**vocabulary, **new}}


def _swapped(number: int, end: int) -> int:
    """A token's number, the end's and END_ID in each other's place."""
    return {end: END_ID, END_ID: end}.get(number, number)
