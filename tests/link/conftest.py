"""A second opinion (Sionna) and a small bundle whose graphs are traced from link's own functions."""

import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import settings

from link.bits import group, label_bits, num_symbols, ungroup
from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.codebook import lookup, nearest, posterior_logits, softmax
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.manifest import GraphSpec, LlrSpec, Manifest, Mode, Provenance, TaskSpec, TensorSpec

# The same examples in every run, and no verdict on how fast the machine is.
settings.register_profile("hardpath", derandomize=True, deadline=None)
settings.load_profile("hardpath")

# 9 bits a sample over 16-QAM: three symbols, the last one with three bits of padding.
TOKENS, CODEWORDS, ORDER, DIM, CLASSES = 3, 8, 16, 2, 3
INDEX_BITS = 3
NUM_BITS = TOKENS * INDEX_BITS
NUM_SYMBOLS = num_symbols(NUM_BITS, bits_per_symbol(ORDER))
LABELS = (0, 1, 3, 2, 6, 7, 5, 4)
LLR_CLIP = 40.0
ANGLES = 2.0 * np.pi * np.arange(CODEWORDS) / CODEWORDS
CODEBOOK = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1).astype(np.float32)
LOG_PRIOR = np.log(np.arange(1.0, CODEWORDS + 1.0) / 36.0)


@pytest.fixture(scope="session")
def sionna_mapping():
    """sionna.phy.mapping, imported without the new seed that it gives torch's global generator."""
    state = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from sionna.phy import mapping
    torch.random.set_rng_state(state)
    return mapping


@pytest.fixture(scope="session")
def export_onnx():
    """Function that traces a torch module into an ONNX file with a dynamic batch dimension."""

    def export(module, inputs, input_names, output_names, file):
        batch = torch.export.Dim("batch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs),
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                dynamo=True,
                verbose=False,
            )
            program.save(str(file), external_data=False)

    return export


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory, export_onnx):
    """Folder of a valid bundle; tests change copies of it."""
    table = torch.from_numpy(label_bits(LABELS, INDEX_BITS).astype(np.float32))
    codebook = torch.from_numpy(CODEBOOK)
    log_prior = torch.from_numpy(LOG_PRIOR.astype(np.float32))

    class Transmitter(torch.nn.Module):
        def forward(self, latent):
            indices = nearest(latent, codebook)
            bits = lookup(table, indices).reshape(-1, NUM_BITS)
            symbols = map_bits(group(bits, bits_per_symbol(ORDER)))
            mode = torch.zeros_like(indices[:, 0])
            return mode, indices, bits.to(torch.uint8), mode + NUM_BITS, symbols, mode + NUM_SYMBOLS

    class Receiver(torch.nn.Module):
        def forward(self, symbols, no, mode, llr_in):
            llr = ungroup(max_log_llr(symbols, no, ORDER), NUM_BITS) + llr_in
            llr = llr.clamp(-LLR_CLIP, LLR_CLIP)
            logits = posterior_logits(llr.reshape(-1, TOKENS, INDEX_BITS), table, log_prior)
            return llr, logits.argmax(dim=-1), softmax(logits)[..., :CLASSES].sum(dim=1)

    folder = tmp_path_factory.mktemp("bundle")
    interface = graph_interface()
    samples = {
        "transmitter": (torch.zeros(3, TOKENS, DIM),),
        "receiver": (
            torch.zeros(3, NUM_SYMBOLS, 2),
            torch.ones(3, NUM_SYMBOLS),
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(3, NUM_BITS),
        ),
    }
    for name, module in (("transmitter", Transmitter()), ("receiver", Receiver())):
        inputs, outputs = interface[name]
        names = [spec.name for spec in inputs], [spec.name for spec in outputs]
        export_onnx(module, samples[name], *names, folder / f"{name}.onnx")
    manifest = make_manifest(**{name: sha256(folder / f"{name}.onnx") for name in interface})
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return folder


@pytest.fixture
def bundle_folder(exported_bundle, tmp_path):
    """A copy of the bundle that a test may break."""
    folder = tmp_path / "bundle"
    shutil.copytree(exported_bundle, folder)
    return folder


@pytest.fixture
def edit_manifest(bundle_folder):
    """Function that applies an edit to the JSON of the copy's manifest and returns the copy."""

    def edit(change):
        file = bundle_folder / MANIFEST_NAME
        raw = json.loads(file.read_text(encoding="utf-8"))
        change(raw)
        file.write_text(json.dumps(raw), encoding="utf-8")
        return bundle_folder

    return edit


@pytest.fixture(scope="session")
def bundle(exported_bundle):
    return load_bundle(exported_bundle)


def graph_interface():
    def spec(name, dtype, *shape, **limits):
        return TensorSpec(name=name, dtype=dtype, shape=("batch", *shape), **limits)

    return {
        "transmitter": (
            (spec("latent", "float32", TOKENS, DIM, low=-10.0, high=10.0),),
            (
                spec("mode", "int64"),
                spec("indices", "int64", TOKENS),
                spec("bits", "uint8", NUM_BITS),
                spec("num_bits", "int64"),
                spec("symbols", "float32", NUM_SYMBOLS, 2),
                spec("num_symbols", "int64"),
            ),
        ),
        "receiver": (
            (
                spec("symbols", "float32", NUM_SYMBOLS, 2),
                spec("no", "float32", NUM_SYMBOLS),
                spec("mode", "int64"),
                spec("llr_in", "float32", NUM_BITS),
            ),
            (
                spec("llr", "float32", NUM_BITS),
                spec("indices_hat", "int64", TOKENS),
                spec("logits", "float32", CLASSES),
            ),
        ),
    }


def make_manifest(**hashes):
    interface = graph_interface()
    graphs = {
        name: GraphSpec(file=f"{name}.onnx", sha256=hashes[name], inputs=inputs, outputs=outputs)
        for name, (inputs, outputs) in interface.items()
    }
    return Manifest(
        name="ring",
        task=TaskSpec(name="ring", classes=("a", "b", "c")),
        modes=(
            Mode(tokens=TOKENS, codewords=CODEWORDS, order=ORDER, labels=LABELS, log_prior=tuple(LOG_PRIOR.tolist())),
        ),
        llr=LlrSpec(demapper="max-log", clip=LLR_CLIP),
        provenance=Provenance(
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
        ),
        **graphs,
    )
