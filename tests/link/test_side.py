"""Side inputs of a receiver through the deployed chain, a text among them; and manifests that get them wrong."""

import json
import shutil

import numpy as np
import pytest
import torch

from link.bits import label_bits, ungroup
from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.chain import Link
from link.channel import Awgn
from link.codebook import posterior_logits, softmax
from link.constellation import max_log_llr
from link.errors import ArgumentError, BundleError
from link.interface import TensorSpec, receiver_inputs, receiver_outputs
from link.manifest import Manifest
from link.randomness import Draws
from link.semantic import clean_decisions

LENGTH, WORDS = 6, 10
IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", LENGTH), low=0, high=WORDS - 1)
MASK = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", LENGTH), low=0, high=1)
TEXTS = ["a fine film", "dull", "a dull film and a fine one", "one"]


class Receiver(torch.nn.Module):
    """Adds to each class what the words of a text say for it."""

    def __init__(self, mode, clip, classes):
        super().__init__()
        self.mode, self.clip, self.classes = mode, clip, classes
        table = torch.from_numpy(np.random.default_rng(2).normal(size=(WORDS, classes)).astype(np.float32))
        self.register_buffer("words", table)
        self.register_buffer("table", torch.from_numpy(label_bits(mode.labels, mode.index_bits).astype(np.float32)))

    def forward(self, symbols, no, mode, llr_in, input_ids, attention_mask):
        own = self.mode
        llr = (ungroup(max_log_llr(symbols, no, own.order), own.num_bits) + llr_in).clamp(-self.clip, self.clip)
        prior = torch.tensor(own.log_prior, dtype=torch.float32)
        scores = posterior_logits(llr.reshape(-1, own.tokens, own.index_bits), self.table, prior)
        asked = (self.words[input_ids] * attention_mask[..., None]).sum(dim=1)
        return llr, scores.argmax(dim=-1), softmax(scores)[..., : self.classes].sum(dim=1) + asked


@pytest.fixture(scope="module")
def asked_folder(exported_bundle, tokenizer_file, export_graph, tmp_path_factory):
    """The ring's bundle with a receiver that is given a text of its own."""
    folder = tmp_path_factory.mktemp("asked") / "bundle"
    shutil.copytree(exported_bundle, folder)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")
    raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest = Manifest.model_validate(raw)
    (mode,), classes = manifest.modes, len(manifest.task.classes)
    graph = export_graph(
        Receiver(mode, manifest.llr.clip, classes),
        receiver_inputs([mode], (IDS, MASK)),
        receiver_outputs([mode], classes),
        folder / "receiver.onnx",
    )
    raw["receiver"] = json.loads(graph.model_dump_json())
    raw["task"]["receiver_inputs"] = ["input_ids", "attention_mask"]
    raw["tokenizer"] = {
        "sha256": sha256(folder / "tokenizer.json"),
        "length": LENGTH,
        "pad_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(raw), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def link(asked_folder):
    return Link(load_bundle(asked_folder))


@pytest.fixture(scope="module")
def latent(link):
    (spec,) = link.manifest.task_inputs
    return np.random.default_rng(1).normal(size=(len(TEXTS), *spec.sizes)).astype(np.float32)


@pytest.fixture
def edit(asked_folder, tmp_path):
    """Function that applies an edit to the JSON of a copy's manifest, and says why the copy is refused."""
    folder = tmp_path / "bundle"
    shutil.copytree(asked_folder, folder)

    def apply(change):
        raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        change(raw)
        (folder / MANIFEST_NAME).write_text(json.dumps(raw), encoding="utf-8")
        with pytest.raises(BundleError) as refused:
            Link(load_bundle(folder))
        return str(refused.value)

    return apply


def transmit(link, inputs):
    return link.transmit(inputs, Awgn(), 3.0, Draws(5, np.arange(len(TEXTS))))


def test_a_text_at_the_receiver_gives_the_answers_of_its_integers(link, latent):
    encoded = link.bundle.tokenizer()(TEXTS)
    integers = {"latent": latent, "input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
    ways = [transmit(link, inputs).decoded for inputs in (integers, {"latent": latent, "text": TEXTS})]
    np.testing.assert_array_equal(ways[0].logits, ways[1].logits)
    turned = transmit(link, {"latent": latent, "text": TEXTS[::-1]}).decoded
    np.testing.assert_array_equal(turned.llr, ways[0].llr)
    assert np.abs(turned.logits - ways[0].logits).max() > 0.1


def test_a_sample_is_given_at_both_ends_and_the_transmitter_takes_its_own(link, latent):
    assert link.manifest.input_names == ("text", "latent")
    assert [spec.name for spec in link.manifest.sample_inputs] == ["latent", "input_ids", "attention_mask"]
    inputs = {"latent": latent, "text": TEXTS}
    np.testing.assert_array_equal(link.encode(inputs, 0.0).bits, link.transmitter({"latent": latent}).bits)
    with pytest.raises(ArgumentError, match=r"inputs\.text is unknown; this bundle takes latent"):
        link.transmitter(inputs)


def test_a_receiver_alone_reads_texts(link):
    erased = np.zeros((4, 3, 2)), np.full((4, 3), np.inf)
    heard = link.receiver(*erased, inputs={"text": TEXTS})
    encoded = link.bundle.tokenizer()(TEXTS)
    words = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
    np.testing.assert_array_equal(heard.logits, link.receiver(*erased, inputs=words).logits)
    with pytest.raises(ArgumentError, match=r"inputs\.text must hold as many texts as there are samples, 4, got 3"):
        link.receiver(*erased, inputs={"text": TEXTS[:3]})
    with pytest.raises(ArgumentError, match=r"inputs\.text is missing"):
        link.receiver(*erased)
    with pytest.raises(ArgumentError, match=r"inputs\.text\[1\] is empty"):
        link.receiver(*erased, inputs={"text": ["a", " ", "b", "c"]})


def test_texts_and_samples_must_be_as_many(link, latent):
    with pytest.raises(ArgumentError, match=r"inputs\.text must hold as many texts as there are samples, 4, got 2"):
        transmit(link, {"latent": latent, "text": TEXTS[:2]})


def test_answers_without_noise_are_those_of_each_samples_own_text(link, latent):
    for order in (slice(None), slice(None, None, -1)):
        texts = TEXTS[order]
        sent = link.transmitter({"latent": latent})
        clean = link.receiver(sent.symbols, np.full(sent.symbols.shape[:2], 1e-6), inputs={"text": texts}).decisions
        assert clean_decisions(link, {"latent": latent, "text": texts}).tolist() == clean.tolist()


EDITS = {
    "an input that the task does not name": (
        lambda raw: raw["task"].update(receiver_inputs=["input_ids"]),
        "receiver.inputs: the task's own, input_ids, must stand behind those of the link, each once",
    ),
    "a name without an input": (
        lambda raw: raw["task"]["receiver_inputs"].append("why"),
        "receiver.inputs: the task's own, input_ids, attention_mask, why, must stand behind those of the link, each once",
    ),
    "side inputs in front": (
        lambda raw: raw["receiver"].update(inputs=raw["receiver"]["inputs"][::-1]),
        "receiver.inputs: the task's own, input_ids, attention_mask, must stand behind",
    ),
    "one of the link's inputs as the task's own": (
        lambda raw: raw["task"].update(receiver_inputs=["no", "input_ids", "attention_mask"]),
        "receiver.inputs: no is one of the link's, and cannot be the task's own",
    ),
    "another batch": (
        lambda raw: raw["receiver"]["inputs"][4].update(shape=[LENGTH, "batch"]),
        "receiver.inputs: input_ids must have one batch, in front, got (6, batch)",
    ),
    "another one at the transmitter": (
        lambda raw: raw["transmitter"]["inputs"].append({"name": "input_ids", "dtype": "int64", "shape": ["batch"]}),
        "receiver.inputs: input_ids is int64 (batch, 6) where the transmitter has int64 (batch)",
    ),
    "texts of another length": (
        lambda raw: raw["tokenizer"].update(length=5),
        "receiver.inputs: input_ids is int64 (batch, 6) where the tokenizer means int64 (batch, 5)",
    ),
    "an input that bears the text's name": (
        lambda raw: raw["tokenizer"].update(text="latent"),
        "tokenizer: latent, input_ids, attention_mask must be three names, the first no input",
    ),
    "a graph without them": (
        lambda raw: (raw["task"].pop("receiver_inputs"), raw["receiver"].update(inputs=raw["receiver"]["inputs"][:4])),
        "transmitter.inputs: input_ids is absent where the tokenizer means int64 (batch, 6)",
    ),
    "a graph without them, and no tokenizer": (
        lambda raw: (
            raw["task"].pop("receiver_inputs"),
            raw.pop("tokenizer"),
            raw["receiver"].update(inputs=raw["receiver"]["inputs"][:4]),
        ),
        "receiver.onnx",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_manifest_with(name, edit):
    change, message = EDITS[name]
    assert message in edit(change)
