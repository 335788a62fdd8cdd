"""A transformers encoder-decoder by its name, in place of what a sentence is otherwise read and spelt by.

    pieces ─> its encoder ─> states ─> m latent tokens a piece ─> link ─> transformer ─> its decoder ─> piece after piece

Its encoder reads what it was trained to read, the pieces of its own before and behind a sentence among them, and its decoder
begins with what it was trained to begin with. They lie at the two ends of a link: weights that they share in their files, as
those of pieces, each has for itself.

A step is the decoder's own forward with a cache of a fixed size (train.seq2seq_cache): keys and values of the pieces so far,
and of what was received, are computed once. Measured on a model of bart-base's size, on one thread: a sentence of 32 pieces
takes 1.0 s in torch, 2.1 s where each step decodes all pieces before it anew, and in ONNX Runtime 0.5 s, 0.13 s in a batch
of eight.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from link.errors import RecipeError
from train.backbones import Backbone
from train.encoders import build_backbone, import_transformers, load_weights
from train.pieces import END_ID
from train.search import Begun, StepDecoder
from train.seq2seq_files import SEQ2SEQ_ROLE, Seq2SeqModel
from train.transformer import ABSENT

_KIND: Final = "AutoModelForSeq2SeqLM"
_TOLERANCE: Final = 1e-3
"""Of scores that are computed here and in transformers, as a share of the largest."""


class Seq2SeqReader(nn.Module):
    """Pieces (B, T), where they are `present`, (B, T), to the states (B, T, H) that a model's encoder has at each.

    Parameters
    ----------
    model : Seq2SeqModel
    """

    def __init__(self, model: Seq2SeqModel) -> None:
        super().__init__()
        self.backbone = Backbone(SEQ2SEQ_ROLE, model.config, _whole(model).get_encoder())
        self.register_buffer("before", torch.tensor(model.before, dtype=torch.int64), persistent=False)

    def forward(self, pieces: Tensor, present: Tensor) -> Tensor:
        """States of the pieces; the end stands behind the last that is present."""
        before = self.get_buffer("before").expand(pieces.shape[0], -1)
        places = torch.arange(pieces.shape[1] + 1, device=pieces.device)
        end = places == (present * places[1:]).amax(dim=1, keepdim=True)
        sentence = torch.where(end, END_ID, functional.pad(pieces, (0, 1)))
        there = torch.cat([torch.ones_like(before, dtype=torch.bool), functional.pad(present, (0, 1)) | end], dim=1)
        states: Tensor = self.backbone.model(
            input_ids=torch.cat([before, sentence], dim=1), attention_mask=_absent(there, torch.get_default_dtype())
        ).last_hidden_state
        return states[:, before.shape[1] : -1]


class Speller(nn.Module):
    """A model's decoder, and what makes scores of its states.

    Parameters
    ----------
    whole : nn.Module
        The model.
    """

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.decoder = whole.get_decoder()
        out = whole.get_output_embeddings()
        # Where they are the embeddings they bear one name: a checkpoint holds no tensor twice.
        self.out = None if out.weight is self.decoder.get_input_embeddings().weight else out
        self.register_buffer("bias", getattr(whole, "final_logits_bias", None))
        self.scale = whole.config.d_model**-0.5 if getattr(whole.config, "scale_decoder_outputs", False) else 1.0

    def forward(self, pieces: Tensor, hidden: Tensor, received: Tensor, absent: Tensor, cache: Any = None) -> Tensor:
        """States (B, L, H) of pieces (B, L); `hidden` and `absent` are added to the scores of positions."""
        states: Tensor = self.decoder(
            input_ids=pieces,
            attention_mask=hidden,
            encoder_hidden_states=received,
            encoder_attention_mask=absent,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return states

    def scores(self, states: Tensor) -> Tensor:
        """Scores (..., V) of states (..., H)."""
        weight = (self.decoder.get_input_embeddings() if self.out is None else self.out).weight
        bias: Tensor | None = self._buffers["bias"]
        scores = functional.linear(states * self.scale, weight)
        return scores if bias is None else scores + bias[0]


class Seq2SeqDecoder(StepDecoder):
    """States of what was received (B, T, H), to which a model's decoder attends, to scores of its pieces (B, T, V).

    Parameters
    ----------
    model : Seq2SeqModel
    beam : int
        W, hypotheses that are kept.
    """

    def __init__(self, model: Seq2SeqModel, beam: int = 1) -> None:
        super().__init__(beam)
        from train.seq2seq_cache import (
            FirstCache,
            StepCache,
        )  # of an optional package, which is here where the model is

        self._first_cache, self._step_cache = FirstCache, StepCache
        self.backbone = Backbone(SEQ2SEQ_ROLE, model.config, Speller(_whole(model)))
        self.register_buffer("start", torch.tensor([model.start, *model.before]), persistent=False)

    @property
    def _speller(self) -> Speller:
        assert isinstance(self.backbone.model, Speller)
        return self.backbone.model

    def scores(self, states: Tensor) -> Tensor:
        """Scores (..., V) of states (..., H)."""
        return self._speller.scores(states)

    def taught(self, received: Tensor, present: Tensor, told: Tensor) -> Tensor:
        """States (B, T, H) of all positions, those before each told, (B, T); a piece below 0 says nothing."""
        start = self.get_buffer("start").expand(told.shape[0], -1)
        pieces = torch.cat([start, told[:, :-1].clamp_min(0)], dim=1)
        states: Tensor = self._speller(pieces, _ahead(pieces, received), received, _absent(present, received.dtype))
        return states[:, start.shape[1] - 1 :]

    def begin(self, received: Tensor, present: Tensor) -> Begun:
        """Keys and values of what was received, and of what it begins with, whose last is told again in the first step."""
        start = self.get_buffer("start").expand(received.shape[0], -1)
        absent = _absent(present, received.dtype)
        cache = self._first_cache()
        self._speller(start, _ahead(start, received), received, absent, cache)
        memory = functional.pad(cache.memory, (0, 0, 0, received.shape[1] - 1))
        each = memory[:, :, :, None].expand(-1, -1, -1, self.beam, -1, -1, -1)
        return Begun(tuple(map(self._each, (received, absent, *cache.received))), each.clone())

    def step(self, context: tuple[Tensor, ...], before: Tensor, place: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """State (B, W, H) of each hypothesis at a place, () int64, and the memory with it in."""
        received, absent, *known = context
        start = self.get_buffer("start")
        slot = place + start.shape[0] - 1
        hidden = (torch.arange(memory.shape[-2], device=memory.device) > slot).to(memory.dtype) * ABSENT
        cache = self._step_cache(memory.flatten(2, 3), known, slot)
        piece = torch.where(place == 0, start[-1], before).reshape(-1, 1)
        states: Tensor = self._speller(piece, hidden[None, None, None], received, absent, cache)
        return states.reshape(*before.shape, -1), cache.memory.reshape(memory.shape)

    def _each(self, tensor: Tensor) -> Tensor:
        """Rows (B, ...), once for each hypothesis: (B W, ...)."""
        return tensor if self.beam == 1 else tensor.repeat_interleave(self.beam, dim=0)


def load_seq2seq(backbone: Backbone, model: Seq2SeqModel, name: str) -> None:
    """Give an encoder or a decoder the weights of that name.

    Raises
    ------
    RecipeError
        If there are none, some are missing or not finite, they are another model's, or transformers makes other scores of
        them.
    """
    whole = _whole(model)
    whole.load_state_dict(load_weights(name, model.config, SEQ2SEQ_ROLE, kind=_KIND))
    if isinstance(backbone.model, Speller):
        part: nn.Module = Speller(whole)
        _require_same_scores(name, whole.eval(), part)
    else:
        part = whole.get_encoder()
    _swap_rows(part, model.own_end)
    backbone.model.load_state_dict(part.state_dict())


@torch.no_grad()
def _require_same_scores(name: str, whole: Any, speller: nn.Module) -> None:
    """Raise RecipeError where a model makes other scores of its decoder's states than a Speller."""
    assert isinstance(speller, Speller)
    pieces = torch.tensor([[END_ID, 0]])
    received = whole.get_encoder()(input_ids=pieces).last_hidden_state
    wanted = whole(encoder_outputs=(received,), decoder_input_ids=pieces).logits
    absent = received.new_zeros(1, 1, 1, pieces.shape[1])
    found = speller.scores(speller(pieces, _ahead(pieces, received), received, absent))
    if not (found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max():
        version = import_transformers().__version__
        raise RecipeError(
            f"{SEQ2SEQ_ROLE} {name!r} cannot be used: transformers {version} makes other scores of its states"
        )


@torch.no_grad()
def _swap_rows(part: Any, own_end: int) -> None:
    """Let the end and the piece that bears END_ID change places in all weights that go by pieces."""
    tables = [(part.decoder if isinstance(part, Speller) else part).get_input_embeddings().weight]
    if isinstance(part, Speller):
        tables += [table for table in (getattr(part.out, "weight", None), part.bias) if table is not None]
    ends = [END_ID, own_end]
    for table in tables:
        rows = table.T if table.shape[0] == 1 else table
        rows[ends] = rows[ends[::-1]]


def _whole(model: Seq2SeqModel) -> Any:
    return build_backbone(model.config, _KIND)


def _ahead(pieces: Tensor, states: Tensor) -> Tensor:
    """What hides later positions from each, (1, 1, L, L), of the type of `states`."""
    places = torch.arange(pieces.shape[1], device=pieces.device)
    return (places > places[:, None]).to(states.dtype)[None, None] * ABSENT


def _absent(present: Tensor, dtype: torch.dtype) -> Tensor:
    """What hides positions that are not `present`, (B, T), from all: (B, 1, 1, T)."""
    return (~present).to(dtype)[:, None, None] * ABSENT
