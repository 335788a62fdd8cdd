"""A small bundle with a real chain in it, and a server that holds it."""

import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import torch
from torch import nn

from link.bits import group, label_bits, num_symbols, ungroup
from link.bundle import load_bundle, sha256
from link.chain import Link
from link.codebook import lookup, nearest, posterior_logits, softmax
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.interface import TensorSpec, receiver_inputs, receiver_outputs, transmitter_outputs
from link.manifest import LlrSpec, Manifest, Mode, TaskSpec, TextSpec, TokenizerSpec
from serve.client import Client
from serve.client.admin import AdminClient
from serve.client.retries import Retries
from serve.config.schema import ServerConfig
from serve.pb.hardpath.v1.link_pb2_grpc import LinkServiceStub
from serve.server import Server

TOKENS, CODEWORDS, DIMENSIONS, ORDER, CLASSES, CLIP = 5, 8, 2, 16, 3, 20.0
BITS = TOKENS * 3
SYMBOLS = num_symbols(BITS, bits_per_symbol(ORDER))
LABELS = (0, 1, 3, 2, 6, 7, 5, 4)
_WORDS = 10
FIRST_PIECE = 2  # of ten words, the first eight of which are [PAD], [UNK], [CLS], [SEP], ...


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


class TinyAsked(TinyReceiver):
    """The same, with a text of the receiver's own: its words add to the scores."""

    def __init__(self, codebook, head):
        super().__init__(codebook, head)
        words = np.random.default_rng(8).normal(size=(_WORDS, CLASSES))
        self.register_buffer("words", torch.from_numpy(words.astype(np.float32)))

    def forward(self, symbols, no, mode, llr_in, input_ids, attention_mask):
        llr, indices_hat, logits = super().forward(symbols, no, mode, llr_in)
        return llr, indices_hat, logits + (self.words[input_ids] * attention_mask[..., None]).sum(dim=1)


class TinySpeller(TinyReceiver):
    """Symbols to a piece a token: the codeword's number and what stands before it among the words."""

    def forward(self, symbols, no, mode, llr_in):
        llr, indices_hat, _ = super().forward(symbols, no, mode, llr_in)
        log_posterior = posterior_logits(llr.reshape(-1, TOKENS, 3), self.table, self.log_prior)
        return llr, indices_hat, indices_hat + FIRST_PIECE, log_posterior.log_softmax(dim=-1).max(dim=-1).values


MODE = Mode(
    tokens=TOKENS, codewords=CODEWORDS, order=ORDER, labels=LABELS, log_prior=(-float(np.log(CODEWORDS)),) * CODEWORDS
)
IMAGE = TensorSpec(
    name="image", dtype="float32", shape=("batch", 8, 8), low=0.0, high=16.0, description="pixels of a digit"
)


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory, export_graph, provenance) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    random = np.random.default_rng(5)
    codebook = torch.from_numpy(random.normal(size=(CODEWORDS, DIMENSIONS)).astype(np.float32))
    projection = torch.from_numpy((random.normal(size=(8, DIMENSIONS)) / 8.0).astype(np.float32))
    head = torch.from_numpy(random.normal(size=(TOKENS * DIMENSIONS, CLASSES)).astype(np.float32))
    manifest = Manifest(
        name="tiny",
        task=TaskSpec(name="shapes", classes=("disc", "ring", "star")),
        modes=(MODE,),
        llr=LlrSpec(demapper="max-log", clip=CLIP),
        transmitter=export_graph(
            TinyTransmitter(codebook, projection), (IMAGE,), transmitter_outputs([MODE]), folder / "transmitter.onnx"
        ),
        receiver=export_graph(
            TinyReceiver(codebook, head),
            receiver_inputs([MODE]),
            receiver_outputs([MODE], CLASSES),
            folder / "receiver.onnx",
        ),
        provenance=provenance,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder


@pytest.fixture(scope="session")
def asked_bundle_path(bundle_path, tokenizer_file, export_graph, tmp_path_factory) -> Path:
    """The same transmitter, and a receiver that is asked a question of its own: a text of six tokens."""
    folder = tmp_path_factory.mktemp("asked") / "bundle"
    shutil.copytree(bundle_path, folder)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")
    side = tuple(
        TensorSpec(name=name, dtype="int64", shape=("batch", 6), low=0, high=high)
        for name, high in (("input_ids", _WORDS - 1), ("attention_mask", 1))
    )
    random = np.random.default_rng(9)
    codebook, head = (
        torch.from_numpy(random.normal(size=size).astype(np.float32))
        for size in ((CODEWORDS, DIMENSIONS), (TOKENS * DIMENSIONS, CLASSES))
    )
    graph = export_graph(
        TinyAsked(codebook, head),
        receiver_inputs([MODE], side),
        receiver_outputs([MODE], CLASSES),
        folder / "receiver.onnx",
    )
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    named = tuple(spec.name for spec in side)
    asked = manifest.model_copy(
        update={
            "name": "asked",
            "task": manifest.task.model_copy(update={"receiver_inputs": named}),
            "receiver": graph,
            "tokenizer": TokenizerSpec(sha256=sha256(folder / "tokenizer.json"), length=6, pad_id=0, pad_token="[PAD]"),
        }
    )
    (folder / "manifest.json").write_text(asked.model_dump_json())
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
def speller_path(text_bundle_path, tmp_path_factory, export_graph) -> Path:
    """A bundle that takes texts and answers texts."""
    folder = tmp_path_factory.mktemp("speller") / "bundle"
    shutil.copytree(text_bundle_path, folder)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text(encoding="utf-8"))
    codebook = torch.zeros(CODEWORDS, DIMENSIONS)
    graph = export_graph(
        TinySpeller(codebook, torch.zeros(TOKENS * DIMENSIONS, CLASSES)),
        receiver_inputs([MODE]),
        receiver_outputs([MODE], 0, TOKENS),
        folder / "receiver.onnx",
    )
    task = TaskSpec(name="words", classes=(), text=TextSpec(positions=TOKENS, pieces=10, end_id=3))
    changed = manifest.model_copy(update={"name": "speller", "task": task, "receiver": graph})
    (folder / "manifest.json").write_text(changed.model_dump_json(), encoding="utf-8")
    return folder


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


class Held:
    """A transmitter that waits in the middle of its runs until it is let go, on a worker."""

    def __init__(self, server, operations=("link",)):
        model = server.engine.model()
        for operation in operations:
            model._batchers[operation]._quick_s = 0.0  # no run of it is made on the event loop
        transmitter = model.link.transmitter
        self.run, self.entered, self.go = transmitter.run, threading.Event(), threading.Event()
        transmitter.run = self

    def __call__(self, *arguments):
        self.entered.set()
        assert self.go.wait(20)
        return self.run(*arguments)


@pytest.fixture(scope="session")
def hold():
    return Held


def until(condition):
    """Wait for what comes by itself."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.005)


@pytest.fixture(scope="session", name="until")
def until_fixture():
    return until


@contextmanager
def several(bundles, **sections):
    """A server of its own; `counted` gives the counters of an operation."""
    config = ServerConfig(bundles=tuple(bundles), listen={"port": 0}, **sections)
    with Server(config=config) as server, grpc.insecure_channel(server.address) as channel:
        admin = AdminClient(channel, server.address)

        def counted(operation="link"):
            name = f"tiny.{operation}"
            return next((found for found in admin.statistics().operations if found.name == name), None)

        yield SimpleNamespace(
            server=server,
            engine=server.engine,
            address=server.address,
            channel=channel,
            stub=LinkServiceStub(channel),
            admin=admin,
            counted=counted,
        )


@pytest.fixture(scope="session", name="several")
def several_fixture():
    return several


@pytest.fixture(scope="session")
def serving():
    return lambda bundle, **sections: several([bundle], **sections)


@pytest.fixture(scope="session")
def with_radio(several, tmp_path_factory):
    """Function from what a radio's file says, and sections of a configuration, to a server with it and a client."""
    from link.radio.spec import load_radio  # takes a while

    @contextmanager
    def run(bundle, text, wait_s=20.0, **sections):
        file = tmp_path_factory.mktemp("radio") / "radio.toml"
        file.write_text(text)
        with (
            several([bundle], radio={"file": file, "wait_s": wait_s}, **sections) as server,
            Client(server.address, retries=Retries(attempts=1), timeout_s=20.0) as client,
        ):
            yield SimpleNamespace(**vars(server), client=client, radio=server.engine.means.radio, spec=load_radio(file))

    return run
