"""A second opinion (Sionna) and a small bundle whose graphs are traced from link's own functions."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from hypothesis import settings

from link.bits import group, label_bits, num_symbols, ungroup
from link.bundle import MANIFEST_NAME, load_bundle
from link.codebook import lookup, nearest, posterior_logits, softmax
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.interface import TensorSpec, receiver_inputs, receiver_outputs, transmitter_outputs
from link.manifest import LlrSpec, Manifest, Mode, TaskSpec

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
MODE = Mode(tokens=TOKENS, codewords=CODEWORDS, order=ORDER, labels=LABELS, log_prior=tuple(LOG_PRIOR.tolist()))
LATENT = TensorSpec(name="latent", dtype="float32", shape=("batch", TOKENS, DIM), low=-10.0, high=10.0)


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
def exported_bundle(tmp_path_factory, export_graph, provenance):
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
    manifest = Manifest(
        name="ring",
        task=TaskSpec(name="ring", classes=("a", "b", "c")),
        modes=(MODE,),
        llr=LlrSpec(demapper="max-log", clip=LLR_CLIP),
        transmitter=export_graph(Transmitter(), (LATENT,), transmitter_outputs([MODE]), folder / "transmitter.onnx"),
        receiver=export_graph(
            Receiver(), receiver_inputs([MODE]), receiver_outputs([MODE], CLASSES), folder / "receiver.onnx"
        ),
        provenance=provenance,
    )
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
