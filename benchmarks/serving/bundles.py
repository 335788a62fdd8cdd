"""Bundles whose cost is that of one MLP, with a real chain behind it: x -> MLP -> nearest codewords -> bits -> QAM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.bits import group, label_bits, ungroup
from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.codebook import lookup, nearest, posterior_logits, softmax
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.errors import BundleError
from link.interface import TensorSpec, receiver_inputs, receiver_outputs, transmitter_outputs
from link.manifest import GraphSpec, LlrSpec, Manifest, Mode, Provenance, TaskSpec
from train.export import export_graph

INPUT: Final = "x"
_CODEWORDS: Final = 8
_ORDER: Final = 16
_CLASSES: Final = 10
_CLIP: Final = 20.0
_LIMIT: Final = 4.0
_SEED: Final = 11


class Size(NamedTuple):
    """An MLP, and how many tokens its output is.

    Attributes
    ----------
    name : str
        Of the bundle.
    widths : tuple of int
        Input, hidden layers, output.
    tokens : int
        What the output is divided into.
    """

    name: str
    widths: tuple[int, ...]
    tokens: int

    def rows(self, count: int) -> NDArray[np.float32]:
        """Inputs (count, widths[0]) that the bundle takes; always the same."""
        x = np.random.default_rng(_SEED).normal(size=(count, self.widths[0]))
        return np.clip(x, -_LIMIT, _LIMIT).astype(np.float32)


SMALL: Final = Size("small", (64, 256, 256, 10), tokens=5)
LARGE: Final = Size("large", (3072, 1024, 1024, 512), tokens=32)
SLOW: Final = Size("slow", (64, 2048, 2048, 2048, 10), tokens=5)
"""Some 1,100 million operations for 64 samples: 5 ms and more on one core, and few bytes to carry."""


def made(size: Size, folder: Path) -> Path:
    """The bundle of that size in `folder`, written unless it is there."""
    bundle = folder / size.name
    try:
        if load_bundle(bundle).manifest.provenance.recipe == {"widths": list(size.widths), "tokens": size.tokens}:
            return bundle
    except BundleError:
        bundle.mkdir(parents=True, exist_ok=True)
    _write(size, bundle)
    return bundle


def _write(size: Size, folder: Path) -> None:
    mode = Mode(
        tokens=size.tokens,
        codewords=_CODEWORDS,
        order=_ORDER,
        labels=tuple(index ^ (index >> 1) for index in range(_CODEWORDS)),
        log_prior=(-float(np.log(_CODEWORDS)),) * _CODEWORDS,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(_SEED)
        transmitter, receiver = _Transmitter(size, mode), _Receiver(size, mode)
    x = TensorSpec(name=INPUT, dtype="float32", shape=("batch", size.widths[0]), low=-_LIMIT, high=_LIMIT)
    received = {
        "symbols": torch.zeros(3, mode.num_symbols, 2),
        "no": torch.ones(3, mode.num_symbols),
        "mode": torch.zeros(3, dtype=torch.int64),
        "llr_in": torch.zeros(3, mode.num_bits),
    }
    manifest = Manifest(
        name=size.name,
        task=TaskSpec(name="classes", classes=tuple(str(number) for number in range(_CLASSES))),
        modes=(mode,),
        llr=LlrSpec(demapper="max-log", clip=_CLIP),
        transmitter=_graph(
            transmitter,
            {INPUT: torch.zeros(3, size.widths[0])},
            (x,),
            transmitter_outputs([mode]),
            folder / "transmitter.onnx",
        ),
        receiver=_graph(
            receiver, received, receiver_inputs([mode]), receiver_outputs([mode], _CLASSES), folder / "receiver.onnx"
        ),
        provenance=Provenance(
            recipe={"widths": list(size.widths), "tokens": size.tokens},
            seed=_SEED,
            epoch=1,
            phase="align",
            temperature=0.7,
            assignment_scale=1.0,
            checkpoint_sha256="0" * 64,
            code_version="0",
            libraries={"python": sys.version.split()[0]},
            accuracy={},
        ),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    takes: tuple[TensorSpec, ...],
    gives: tuple[TensorSpec, ...],
    file: Path,
) -> GraphSpec:
    export_graph(module, inputs, gives, file)
    return GraphSpec(file=file.name, sha256=sha256(file), inputs=takes, outputs=gives)


class _Transmitter(nn.Module):
    def __init__(self, size: Size, mode: Mode) -> None:
        super().__init__()
        self.mlp = _mlp(size.widths)
        self.mode, self.shape = mode, (-1, size.tokens, size.widths[-1] // size.tokens)
        self.register_buffer("codebook", _codebook(size))
        self.register_buffer("table", _table(mode))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        indices = nearest(self.mlp(x).reshape(self.shape), self.codebook)
        bits = lookup(self.table, indices).reshape(-1, self.mode.num_bits)
        zeros = torch.zeros_like(indices[:, 0])
        symbols = map_bits(group(bits, bits_per_symbol(_ORDER)))
        return (
            zeros,
            indices,
            bits.to(torch.uint8),
            zeros + self.mode.num_bits,
            symbols,
            zeros + self.mode.num_symbols,
        )


class _Receiver(nn.Module):
    def __init__(self, size: Size, mode: Mode) -> None:
        super().__init__()
        self.mode, self.width = mode, size.widths[-1]
        self.head = nn.Linear(size.widths[-1], _CLASSES)
        self.register_buffer("codebook", _codebook(size))
        self.register_buffer("table", _table(mode))
        self.register_buffer("log_prior", torch.tensor(mode.log_prior))

    def forward(self, symbols: Tensor, no: Tensor, mode: Tensor, llr_in: Tensor) -> tuple[Tensor, ...]:
        llr = (ungroup(max_log_llr(symbols, no, _ORDER), self.mode.num_bits) + llr_in).clamp(-_CLIP, _CLIP)
        bits = llr.reshape(-1, self.mode.tokens, self.mode.index_bits)
        scores = posterior_logits(bits, self.table, self.log_prior)
        tokens = softmax(scores) @ self.codebook
        return llr, scores.argmax(dim=-1), self.head(tokens.reshape(-1, self.width))


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for taken, given in pairwise(widths):
        layers += [nn.Linear(taken, given), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _codebook(size: Size) -> Tensor:
    random = np.random.default_rng(_SEED)
    codewords = 0.05 * random.normal(size=(_CODEWORDS, size.widths[-1] // size.tokens))
    return torch.from_numpy(codewords.astype(np.float32))


def _table(mode: Mode) -> Tensor:
    return torch.from_numpy(label_bits(mode.labels, mode.index_bits).astype(np.float32))
