"""Keys and values of a transformers decoder in tensors of a fixed size, so that it can be stepped inside a loop of a graph.

The caches that come with transformers grow, or are written in place; a loop's body may do neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache


@dataclass
class _Layer:
    """Keys and values (B, heads, S, H / heads) of one layer."""

    keys: Tensor
    values: Tensor


class _Slots(Cache):
    """Slots of all positions, of which one is written; it is a new tensor that has it.

    Parameters
    ----------
    layers : sequence of (Tensor, Tensor)
        Keys and values of each, (B, heads, S, H / heads).
    place : () int64
        Of what is written.
    """

    def __init__(self, layers: Iterable[tuple[Tensor, Tensor]], place: Tensor) -> None:
        self.layers: list[Any] = [_Layer(*layer) for layer in layers]
        self._place = place

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, with those of one position at its place."""
        layer = self.layers[layer_idx]
        here = (torch.arange(layer.keys.shape[-2], device=key_states.device) == self._place)[:, None]
        layer.keys = torch.where(here, key_states, layer.keys)
        layer.values = torch.where(here, value_states, layer.values)
        return layer.keys, layer.values

    def get_seq_length(self, *_: Any) -> Any:
        """Positions before the one that is written."""
        return self._place


class StepCache(EncoderDecoderCache):
    """What a decoder's step looks at: positions before it, and all that was received.

    Parameters
    ----------
    memory : (layers, 2, B, heads, S, H / heads) float32
        Of positions.
    received : sequence of (B, heads, T, H / heads) float32
        Of what was received: keys and values of the first layer, of the second, and so on.
    place : () int64
        Of the step.
    """

    def __init__(self, memory: Tensor, received: Sequence[Tensor], place: Tensor) -> None:
        # Declared as caches that grow, used as any.
        self.self_attention_cache = cast(Any, _Slots([(layer[0], layer[1]) for layer in memory], place))
        self.cross_attention_cache = cast(Any, _Slots(zip(received[::2], received[1::2], strict=True), place))
        self.is_updated = dict.fromkeys(range(memory.shape[0]), True)

    @property
    def memory(self) -> Tensor:
        """Of positions, with the step's own."""
        return _stacked(self.self_attention_cache)


class FirstCache(EncoderDecoderCache):
    """What a decoder that begins makes keys and values of."""

    def __init__(self) -> None:
        super().__init__(DynamicCache(), DynamicCache())

    @property
    def memory(self) -> Tensor:
        """Of the positions that it was given, (layers, 2, B, heads, positions, H / heads)."""
        return _stacked(self.self_attention_cache)

    @property
    def received(self) -> list[Tensor]:
        """Of what was received, (B, heads, T, H / heads): keys and values of the first layer, of the second, and so on."""
        layers: list[Any] = self.cross_attention_cache.layers
        return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def _stacked(cache: Cache) -> Tensor:
    layers: list[Any] = cache.layers
    return torch.stack([torch.stack([layer.keys, layer.values]) for layer in layers])
