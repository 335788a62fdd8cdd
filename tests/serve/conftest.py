"""A small bundle with a real chain in it, and a server that holds it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from link.bits import group, label_bits, num_symbols, ungroup
from link.bundle import load_bundle, sha256
from link.chain import Link
from link.codebook import lookup, nearest, posterior_logits, softmax
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.manifest import GraphSpec, LlrSpec, Manifest, Mode, Provenance, TaskSpec, TensorSpec
from serve.client import Client
from serve.server import Server

TOKENS, CODEWORDS, DIMENSIONS, ORDER, CLASSES, CLIP = 5, 8, 2, 16, 3, 20.0
BITS = TOKENS * 3
SYMBOLS = num_symbols(BITS, bits_per_symbol(ORDER))
LABELS = (0, 1, 3, 2, 6, 7, 5, 4)


class TinyTransmitter(nn.Module):
    """Image to symbols; one token from each of the first rows of the image."""

    def __init__(self, codebook, projection):
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.register_buffer("projection", projection)
        self.register_buffer("table", torch.from_numpy(label_bits(LABELS, 3).astype(np.float32)))

    def forward(self, image):
        tokens = (image[:, :TOKENS, :] - 8.0) @ self.projection
        indices = nearest(tokens, self.codebook)
        bits = lookup(self.table, indices).reshape(-1, BITS)
        zeros = torch.zeros_like(indices[:, 0])
        symbols = map_bits(group(bits, bits_per_symbol(ORDER)))
        return zeros, indices, bits.to(torch.uint8), zeros + BITS, symbols, zeros + SYMBOLS


class TinyReceiver(nn.Module):
    """Symbols to the scores of three classes."""

    def __init__(self, codebook, head):
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.register_buffer("head", head)
        self.register_buffer("table", torch.from_numpy(label_bits(LABELS, 3).astype(np.float32)))
        self.register_buffer("log_prior", torch.full((CODEWORDS,), -float(np.log(CODEWORDS))))

    def forward(self, symbols, no, mode, llr_in):
        llr = ungroup(max_log_llr(symbols, no, ORDER), BITS) + llr_in
        llr = llr.clamp(-CLIP, CLIP)
        log_posterior = posterior_logits(llr.reshape(-1, TOKENS, 3), self.table, self.log_prior)
        tokens = softmax(log_posterior) @ self.codebook
        return llr, log_posterior.argmax(dim=-1), tokens.reshape(-1, TOKENS * DIMENSIONS) @ self.head


def spec(name, dtype, *shape, **ranges):
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *shape), **ranges)


TRANSMITTER_INPUTS = (spec("image", "float32", 8, 8, low=0.0, high=16.0, description="pixels of a digit"),)
TRANSMITTER_OUTPUTS = (
    spec("mode", "int64"),
    spec("indices", "int64", TOKENS),
    spec("bits", "uint8", BITS),
    spec("num_bits", "int64"),
    spec("symbols", "float32", SYMBOLS, 2),
    spec("num_symbols", "int64"),
)
RECEIVER_INPUTS = (
    spec("symbols", "float32", SYMBOLS, 2),
    spec("no", "float32", SYMBOLS),
    spec("mode", "int64"),
    spec("llr_in", "float32", BITS),
)
RECEIVER_OUTPUTS = (
    spec("llr", "float32", BITS),
    spec("indices_hat", "int64", TOKENS),
    spec("logits", "float32", CLASSES),
)


def export(module, inputs, outputs, file):
    examples = tuple(torch.ones(3, *tensor.shape[1:], dtype=getattr(torch, tensor.dtype)) for tensor in inputs)
    with warnings.catch_warnings():  # the exporter's own deprecations are not this test's
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            examples,
            input_names=[tensor.name for tensor in inputs],
            output_names=[tensor.name for tensor in outputs],
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs),
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    program.save(str(file), external_data=False)
    return GraphSpec(file=file.name, sha256=sha256(file), inputs=inputs, outputs=outputs)


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    random = np.random.default_rng(5)
    codebook = torch.from_numpy(random.normal(size=(CODEWORDS, DIMENSIONS)).astype(np.float32))
    projection = torch.from_numpy((random.normal(size=(8, DIMENSIONS)) / 8.0).astype(np.float32))
    head = torch.from_numpy(random.normal(size=(TOKENS * DIMENSIONS, CLASSES)).astype(np.float32))
    manifest = Manifest(
        name="tiny",
        task=TaskSpec(name="shapes", classes=("disc", "ring", "star")),
        modes=(
            Mode(
                tokens=TOKENS,
                codewords=CODEWORDS,
                order=ORDER,
                labels=LABELS,
                log_prior=(-float(np.log(CODEWORDS)),) * CODEWORDS,
            ),
        ),
        llr=LlrSpec(demapper="max-log", clip=CLIP),
        transmitter=export(
            TinyTransmitter(codebook, projection), TRANSMITTER_INPUTS, TRANSMITTER_OUTPUTS, folder / "transmitter.onnx"
        ),
        receiver=export(TinyReceiver(codebook, head), RECEIVER_INPUTS, RECEIVER_OUTPUTS, folder / "receiver.onnx"),
        provenance=Provenance(
            recipe={"name": "tiny"},
            seed=5,
            epoch=0,
            phase="freeze",
            temperature=0.7,
            assignment_scale=1.0,
            checkpoint_sha256="0" * 64,
            code_version="0.1.0",
            libraries={},
            accuracy={"12.0": 0.5},
        ),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder


@pytest.fixture(scope="session")
def link(bundle_path):
    return Link(load_bundle(bundle_path))


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(6).uniform(0.0, 16.0, size=(7, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def server(bundle_path):
    with Server(bundle_path, port=0, max_batch=64) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="session")
def text_bundle_path(bundle_path, with_tokenizer) -> Path:
    return with_tokenizer(bundle_path)


@pytest.fixture(scope="session")
def text_link(text_bundle_path):
    return Link(load_bundle(text_bundle_path))


@pytest.fixture(scope="session")
def text_server(text_bundle_path):
    with Server(text_bundle_path, port=0, max_batch=64) as running:
        yield running


@pytest.fixture(scope="session")
def text_client(text_server):
    with Client(text_server.address) as connected:
        yield connected
