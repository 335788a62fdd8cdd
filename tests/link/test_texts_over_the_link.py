"""Raw texts through the deployed chain: the same bits as the integers that they become."""

import json
import logging
import shutil
import sys

import numpy as np
import pytest

from link.bundle import MANIFEST_NAME, load_bundle, read_manifest
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError, BundleError, MissingExtra
from link.randomness import Draws
from link.runtime import Transmitter
from link.sweep import SweepSpec, sweep

TEXTS = ["a fine film", "dull", "one \U0001f600", "a dull film and a fine one"]


@pytest.fixture(scope="module")
def text_folder(exported_bundle, with_tokenizer):
    return with_tokenizer(exported_bundle)


@pytest.fixture(scope="module")
def link(text_folder):
    return Link(load_bundle(text_folder))


@pytest.fixture(scope="module")
def integers(link):
    encoded = link.bundle.tokenizer()(TEXTS)
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}


@pytest.fixture
def edit(text_folder, tmp_path):
    """Function that applies an edit to the JSON of a copy's manifest and returns the copy."""
    folder = tmp_path / "bundle"
    shutil.copytree(text_folder, folder)

    def apply(change):
        raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        change(raw)
        (folder / MANIFEST_NAME).write_text(json.dumps(raw), encoding="utf-8")
        return folder

    return apply


def assert_same(left, right):
    for expected, found in zip(left, right, strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("texts", [TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object)])
def test_texts_send_the_bits_of_the_integers_that_they_become(link, integers, texts):
    assert_same(link.transmitter(integers), link.transmitter({"text": texts}))


def test_texts_get_the_answers_of_the_integers_that_they_become(link, integers):
    ways = [
        link.transmit(inputs, build_channel("awgn"), 3.0, Draws(5, np.arange(len(TEXTS))))
        for inputs in (integers, {"text": TEXTS})
    ]
    for part in ("sent", "decoded"):
        assert_same(getattr(ways[0], part), getattr(ways[1], part))
    np.testing.assert_array_equal(ways[0].received.y, ways[1].received.y, strict=True)
    # The comparison can fail: the texts are told apart.
    assert len(np.unique(ways[0].sent.bits, axis=0)) == len(TEXTS)


def test_a_sweep_of_texts_is_that_of_their_integers(link, integers):
    spec = SweepSpec(snr_db=(0.0, 6.0), draws=2)
    labels = [0, 1, 2, 0]
    assert sweep(link, {"text": TEXTS}, labels, spec) == sweep(link, integers, labels, spec)


def test_a_text_that_is_cut_sends_its_beginning_and_this_is_said(link, caplog):
    with caplog.at_level(logging.WARNING):
        sent = link.transmitter({"text": TEXTS})
    assert [record.getMessage() for record in caplog.records] == ["1 of 4 texts have more than 6 tokens: cut"]
    beginning = link.transmitter({"text": ["a dull film and"]})
    np.testing.assert_array_equal(sent.bits[3], beginning.bits[0])
    assert link.transmitter.read({"text": TEXTS}).cut.tolist() == [False, False, False, True]
    caplog.clear()
    link.transmitter({"text": TEXTS[:3]})
    assert caplog.records == []


def test_integers_were_never_cut(link, integers):
    assert link.transmitter.read(integers).cut is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs.text is missing"),
        ({"sound": [1.0]}, "inputs.sound is unknown; this bundle takes text"),
        ({"text": ["a", ""]}, "inputs.text[1] is empty"),
        ({"text": ["a", 1]}, "inputs.text[1] must be a string, got int"),
        ({"text": "a film"}, "inputs.text must be a list of texts, got a single one: put it into a list"),
        ({"text": []}, "inputs.text must hold at least one text"),
        ({"text": ["a"], "sound": [1.0]}, "inputs.sound is unknown; this bundle takes text"),
        ({"text": ["a"], "input_ids": [[0] * 6]}, "inputs.input_ids must be absent where inputs.text is given"),
        ({"input_ids": [[0] * 6]}, "inputs.attention_mask is missing"),
        (
            {"input_ids": [[1] * 6] * 3, "attention_mask": [[1] * 6, [0, 0, 1, 0, 0, 0], [0] * 6]},
            "inputs.attention_mask must have a token in each row, got none in row 2",
        ),
        ({"input_ids": [[10] * 6], "attention_mask": [[1] * 6]}, "inputs.input_ids must be in [0, 9], got [10, 10]"),
    ],
)
def test_wrong_inputs_of_a_bundle_that_takes_texts_are_named(link, inputs, message):
    with pytest.raises(ArgumentError) as refused:
        link.transmitter(inputs)
    assert str(refused.value) == message


def test_a_bundle_without_a_tokenizer_takes_no_texts(bundle):
    assert bundle.tokenizer() is None
    with pytest.raises(ArgumentError, match=r"inputs\.text is unknown; this bundle takes latent"):
        Transmitter(bundle)({"text": ["a"]})


def test_a_manifest_without_a_tokenizer_still_loads(exported_bundle, text_folder):
    assert "tokenizer" in (text_folder / MANIFEST_NAME).read_text(encoding="utf-8")
    assert read_manifest(exported_bundle).tokenizer is None


def test_without_the_package_integers_are_sent_and_texts_name_the_extra(text_folder, integers, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    transmitter = Transmitter(load_bundle(text_folder))
    assert len(transmitter(integers).bits) == len(TEXTS)
    with pytest.raises(MissingExtra, match=r"'hardpath\[text\]'"):
        transmitter({"text": TEXTS})


def spec(raw):
    return raw["tokenizer"]


EDITS = {
    "another hash": (
        lambda raw: spec(raw).update(sha256="0" * 64),
        "tokenizer.json is not the file that manifest.json",
    ),
    "a file that is not there": (lambda raw: spec(raw).update(file="vocab.json"), "vocab.json is missing"),
    "a file outside": (lambda raw: spec(raw).update(file="../tokenizer.json"), "'../tokenizer.json' lies outside"),
    "another length": (
        lambda raw: spec(raw).update(length=7),
        "transmitter.inputs: input_ids is int64 (batch, 6) where the tokenizer means int64 (batch, 7)",
    ),
    "an input that the graph has not": (
        lambda raw: spec(raw).update(attention_mask="mask"),
        "transmitter.inputs: mask is absent where the tokenizer means int64 (batch, 6)",
    ),
    "one input for both": (
        lambda raw: spec(raw).update(attention_mask="input_ids"),
        "tokenizer: text, input_ids, input_ids must be three names, the first no input",
    ),
    "a text called like an input": (
        lambda raw: spec(raw).update(text="input_ids"),
        "tokenizer: input_ids, input_ids, attention_mask must be three names, the first no input",
    ),
    "no length": (lambda raw: spec(raw).pop("length"), "tokenizer.length: Field required"),
    "an unknown key": (lambda raw: spec(raw).update(lower=True), "tokenizer.lower: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_tokenizer_at_odds_with_its_bundle_is_refused(case, edit):
    change, message = EDITS[case]
    with pytest.raises(BundleError) as refused:
        load_bundle(edit(change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_padding_s_number_must_be_that_of_its_token(edit):
    bundle = load_bundle(edit(lambda raw: spec(raw).update(pad_id=1)))
    with pytest.raises(BundleError, match=r"pad_id must be that of '\[PAD\]' in .*, 0, got 1; export the bundle again"):
        Transmitter(bundle)


def test_texts_that_say_nothing_to_the_model_are_counted_once(text_folder, caplog):
    transmitter = Transmitter(load_bundle(text_folder))
    with caplog.at_level("WARNING"):
        transmitter.tensors({"text": ["a film", "\u4f60", "\U0001f600"]})
    assert [record.message for record in caplog.records] == ["2 of 3 texts have no token that the model knows"]
