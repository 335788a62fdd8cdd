"""Bundles of several modes, and any room's small bundle made to take texts; graphs as small as they can be."""

import json
import logging
import shutil
import signal
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import tokenizers
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from link.bits import group, label_bits, ungroup
from link.bundle import MANIFEST_NAME, sha256
from link.codebook import lookup, nearest, posterior_logits, softmax
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.interface import TensorSpec, mode_input, receiver_inputs, receiver_outputs, transmitter_outputs
from link.manifest import GraphSpec, HeaderSpec, LlrSpec, Manifest, Mode, Provenance, TaskSpec

# 9 bits in 3 symbols, the same 9 bits in 5 robust ones, and 4 bits in 2: tokens, bits and symbols all differ.
SIZES = ((3, 8, 16), (3, 8, 4), (2, 4, 4))
TOKENS, CLASSES, DIM, CLIP = 3, 3, 2, 40.0
DEFAULT_MODE = 1
# At -3 dB the exact rates of such a header are 3 % lost and 5 % wrong a block.
HEADER = HeaderSpec(repeats=1, frame_samples=4, threshold=0.6)
DIRECTIONS = np.stack([np.cos(2 * np.pi * np.arange(3) / 3), np.sin(2 * np.pi * np.arange(3) / 3)]).astype(np.float32)


def ring(codewords):
    angles = 2.0 * np.pi * np.arange(codewords) / codewords
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


def mode_spec(tokens, codewords, order):
    weights = np.arange(1.0, codewords + 1.0)
    return Mode(
        tokens=tokens,
        codewords=codewords,
        order=order,
        labels=tuple(int(i ^ (i >> 1)) for i in range(codewords)),
        log_prior=tuple(np.log(weights / weights.sum()).tolist()),
    )


MODES = tuple(mode_spec(*size) for size in SIZES)


def table(mode):
    return torch.from_numpy(label_bits(mode.labels, mode.index_bits).astype(np.float32))


def choose(mode, choices):
    """Each row's entry of the list that its mode names, all padded with zeros to one size."""
    width = max(choice.shape[1] for choice in choices)
    chosen = None
    for number, choice in enumerate(choices):
        missing = torch.zeros(*choice.shape[:1], width - choice.shape[1], *choice.shape[2:], dtype=choice.dtype)
        padded = torch.cat([choice, missing], dim=1)
        where = (mode == number).reshape(-1, *[1] * (padded.dim() - 1))
        chosen = padded if chosen is None else torch.where(where, padded, chosen)
    return chosen


class Transmitter(nn.Module):
    """The radius of a sample's first token names its mode: below 1, below 2, and from there."""

    def forward(self, latent):
        return self.send(latent, self.ring_of(latent))

    def ring_of(self, latent):
        power = (latent[:, 0] ** 2).sum(dim=-1)
        return (power >= 1.0).to(torch.int64) + (power >= 4.0).to(torch.int64)

    def send(self, latent, mode):
        indices = [nearest(latent[:, : size[0]], torch.from_numpy(ring(size[1]))) for size in SIZES]
        bits = [lookup(table(m), i).reshape(-1, m.num_bits) for m, i in zip(MODES, indices, strict=True)]
        symbols = [map_bits(group(b, bits_per_symbol(m.order))) for m, b in zip(MODES, bits, strict=True)]
        num_bits, num_symbols = (
            lookup(torch.tensor([getattr(m, name) for m in MODES]), mode) for name in ("num_bits", "num_symbols")
        )
        return (
            mode,
            choose(mode, indices),
            choose(mode, bits).to(torch.uint8),
            num_bits,
            choose(mode, symbols),
            num_symbols,
        )


class RoutedTransmitter(Transmitter):
    """Mode 0 from 8 dB, 1 from 0 dB, 2 below; a sample of the outermost ring takes the one below."""

    def forward(self, latent, snr_db):
        lower = (snr_db < 8.0).to(torch.int64) + (snr_db < 0.0).to(torch.int64)
        outer = (self.ring_of(latent) == 2).to(torch.int64)
        return self.send(latent, torch.clip(lower + outer, 0, 2))


class SteeredTransmitter(RoutedTransmitter):
    """The same, where nobody asks for another mode."""

    def forward(self, latent, snr_db, mode_in):
        own = super().forward(latent, snr_db)[0]
        return self.send(latent, torch.where(mode_in < 0, own, mode_in))


class Receiver(nn.Module):
    """Posterior mean of each token, summed; the class is the direction nearest to the sum."""

    def forward(self, symbols, no, mode, llr_in):
        llrs, indices, logits = [], [], []
        for m in MODES:
            demapped = max_log_llr(symbols[:, : m.num_symbols], no[:, : m.num_symbols], m.order)
            llr = (ungroup(demapped, m.num_bits) + llr_in[:, : m.num_bits]).clamp(-CLIP, CLIP)
            prior = torch.tensor(m.log_prior)
            scores = posterior_logits(llr.reshape(-1, m.tokens, m.index_bits), table(m), prior)
            llrs.append(llr)
            indices.append(scores.argmax(dim=-1))
            logits.append(
                (softmax(scores) @ torch.from_numpy(ring(m.codewords))).sum(dim=1) @ torch.from_numpy(DIRECTIONS)
            )
        return choose(mode, llrs), choose(mode, indices), choose(mode, logits)


def tensor(name, dtype, *shape, **limits):
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *shape), **limits)


SNR_DB = tensor("snr_db", "float32", low=-20.0, high=30.0, description="Es/N0 as the transmitter has it, dB")
SENT = transmitter_outputs(MODES)
HEARD = receiver_inputs(MODES)
FOUND = receiver_outputs(MODES, CLASSES)


def export(module, inputs, outputs, file):
    """Trace a module into a graph of a bundle, and describe it."""
    examples = [torch.ones(3, *spec.shape[1:], dtype=getattr(torch, spec.dtype)) for spec in inputs]
    trace(module, examples, [spec.name for spec in inputs], [spec.name for spec in outputs], file)
    return GraphSpec(file=file.name, sha256=sha256(file), inputs=inputs, outputs=outputs)


def trace(module, examples, input_names, output_names, file):
    """Trace a module into an ONNX file with a dynamic batch dimension."""
    with warnings.catch_warnings():  # the exporter's own deprecations are not this test's
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(examples),
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in examples),
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    program.save(str(file), external_data=False)


PROVENANCE = Provenance(
    recipe={},
    seed=0,
    epoch=1,
    phase="align",
    temperature=0.7,
    assignment_scale=1.0,
    checkpoint_sha256="0" * 64,
    code_version="0",
    libraries={"python": sys.version.split()[0]},
    accuracy={},
)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard():
    """A shell lets what it starts in the background ignore Ctrl-C, and so would the commands that tests interrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def root_level_stays():
    """A command that a test runs in this process sets how much is logged, and so what the next test finds in its log."""
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


@pytest.fixture(scope="session")
def trace_onnx():
    return trace


@pytest.fixture(scope="session")
def export_graph():
    return export


@pytest.fixture(scope="session")
def provenance():
    """Of a bundle that nobody trained."""
    return PROVENANCE


def write_bundle(folder, transmitter, inputs, receiver):
    shutil.copy(receiver / "receiver.onnx", folder)
    manifest = Manifest(
        name="rings",
        task=TaskSpec(name="rings", classes=("a", "b", "c")),
        modes=MODES,
        default_mode=DEFAULT_MODE,
        header=HEADER,
        llr=LlrSpec(demapper="max-log", clip=CLIP),
        transmitter=export(transmitter, inputs, SENT, folder / "transmitter.onnx"),
        receiver=GraphSpec(file="receiver.onnx", sha256=sha256(folder / "receiver.onnx"), inputs=HEARD, outputs=FOUND),
        provenance=PROVENANCE,
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return folder


LATENT = tensor("latent", "float32", TOKENS, DIM, low=-10.0, high=10.0)


@pytest.fixture(scope="session")
def modes_receiver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("receiver")
    export(Receiver(), HEARD, FOUND, folder / "receiver.onnx")
    return folder


@pytest.fixture(scope="session")
def modes_bundle(tmp_path_factory, modes_receiver):
    """Folder of a bundle of three modes, which the sample chooses; of a time when nobody could ask for a mode."""
    return write_bundle(tmp_path_factory.mktemp("modes"), Transmitter(), (LATENT,), modes_receiver)


@pytest.fixture(scope="session")
def routed_bundle(tmp_path_factory, modes_receiver):
    """Folder of a bundle of three modes, which sample and SNR choose; of a time when nobody could ask for a mode."""
    return write_bundle(tmp_path_factory.mktemp("routed"), RoutedTransmitter(), (LATENT, SNR_DB), modes_receiver)


@pytest.fixture(scope="session")
def steered_bundle(tmp_path_factory, modes_receiver):
    """Folder of a bundle of three modes, which sample and SNR choose where a request does not."""
    inputs = (LATENT, SNR_DB, mode_input(len(MODES)))
    return write_bundle(tmp_path_factory.mktemp("steered"), SteeredTransmitter(), inputs, modes_receiver)


@pytest.fixture(scope="session")
def latents_of():
    """Function from the modes wanted, (B,), to samples that choose them, and their classes."""

    def make(modes, seed=0):
        modes = np.asarray(modes)
        angles = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, size=(len(modes), TOKENS))
        unit = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        radius = np.ones((len(modes), TOKENS, 1))
        radius[:, 0, 0] = 0.5 + modes
        labels = np.argmax(unit.sum(axis=1) @ DIRECTIONS, axis=-1)
        return SimpleNamespace(inputs={"latent": (radius * unit).astype(np.float32)}, labels=labels)

    return make


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fine", "film", "and", "dull", "one")
TEXT_LENGTH = 6


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A tokenizer.json: whole words between [CLS] and [SEP]."""
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(WORDS[:4]))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    )
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@pytest.fixture(scope="session")
def with_tokenizer(tmp_path_factory, tokenizer_file):
    """Function from the folder of a bundle whose first input is of floats to that of one with texts in its place."""

    def make(bundle):
        folder = tmp_path_factory.mktemp("texts") / "bundle"
        shutil.copytree(bundle, folder)
        shutil.copy(tokenizer_file, folder / "tokenizer.json")
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        graph = manifest["transmitter"]
        first, *others = graph["inputs"]
        put_words_before(folder / "transmitter.onnx", first)
        names = {"input_ids": len(WORDS) - 1, "attention_mask": 1}
        graph["inputs"] = [
            {"name": name, "dtype": "int64", "shape": ["batch", TEXT_LENGTH], "low": 0, "high": high}
            for name, high in names.items()
        ] + others
        graph["sha256"] = sha256(folder / "transmitter.onnx")
        manifest["tokenizer"] = {
            "sha256": sha256(folder / "tokenizer.json"),
            "length": TEXT_LENGTH,
            "pad_id": 0,
            "pad_token": "[PAD]",
        }
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return make


def put_words_before(file, spec):
    """Give a transmitter a layer that turns words into its input: the sum of a vector a word, around the range's middle."""
    transmitter = onnx.load(str(file))
    shape = spec["shape"][1:]
    low, high = (-10.0 if spec["low"] is None else spec["low"]), (10.0 if spec["high"] is None else spec["high"])
    table = np.random.default_rng(4).uniform(low - high, high - low, size=(len(WORDS), int(np.prod(shape)))) / 2.0
    constants = {
        "words_table": table.astype(np.float32),
        "words_axis": np.array([1], dtype=np.int64),
        "words_last": np.array([2], dtype=np.int64),
        "words_shape": np.array([-1, *shape], dtype=np.int64),
        "words_middle": np.float32((low + high) / 2.0),
        "words_low": np.float32(low),
        "words_high": np.float32(high),
    }
    nodes = [
        helper.make_node("Gather", ["words_table", "input_ids"], ["words_each"]),
        helper.make_node("Cast", ["attention_mask"], ["words_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["words_mask", "words_last"], ["words_mask_3"]),
        helper.make_node("Mul", ["words_each", "words_mask_3"], ["words_masked"]),
        helper.make_node("ReduceSum", ["words_masked", "words_axis"], ["words_sum"], keepdims=0),
        helper.make_node("Add", ["words_sum", "words_middle"], ["words_moved"]),
        helper.make_node("Clip", ["words_moved", "words_low", "words_high"], ["words_clipped"]),
        helper.make_node("Reshape", ["words_clipped", "words_shape"], ["words_out"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", TEXT_LENGTH])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("words_out", TensorProto.FLOAT, ["batch", *shape])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    words = helper.make_model(
        helper.make_graph(nodes, "words", inputs, [output], initializers),
        opset_imports=transmitter.opset_import,
        ir_version=transmitter.ir_version,
    )
    onnx.save(onnx.compose.merge_models(words, transmitter, io_map=[("words_out", spec["name"])]), str(file))
