import json
import os
import re

import numpy as np
import pytest

from link.bundle import MANIFEST_NAME, load_bundle, read_manifest, sha256
from link.errors import BundleError


def refusal(folder):
    """The one line with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_good_bundle_loads_and_its_sizes_are_those_of_its_mode(bundle):
    manifest = bundle.manifest
    assert (manifest.num_tokens, manifest.num_bits, manifest.num_symbols) == (3, 9, 3)
    assert manifest.modes[0].index_bits == 3
    assert bundle.file(manifest.receiver).name == "receiver.onnx"


def test_a_manifest_survives_the_way_to_json_and_back(bundle):
    assert type(bundle.manifest).model_validate_json(bundle.manifest.model_dump_json()) == bundle.manifest


def test_a_bundle_of_several_modes_has_the_sizes_of_the_largest(modes_bundle, routed_bundle):
    fixed, routed = (load_bundle(folder).manifest for folder in (modes_bundle, routed_bundle))
    assert [(m.tokens, m.num_bits, m.num_symbols) for m in fixed.modes] == [(3, 9, 3), (3, 9, 5), (2, 4, 2)]
    assert (fixed.num_tokens, fixed.num_bits, fixed.num_symbols) == (3, 9, 5)
    assert (fixed.routed, routed.routed) == (False, True)
    assert [spec.name for spec in routed.transmitter.inputs] == ["latent", "snr_db"]
    assert [spec.name for spec in routed.task_inputs] == [spec.name for spec in fixed.task_inputs] == ["latent"]


def test_a_manifest_of_a_time_without_headers_has_none(bundle_folder, edit_manifest):
    folder = edit_manifest(lambda raw: raw.pop("header"))
    assert load_bundle(folder).manifest.header is None
    assert not load_bundle(folder).manifest.routed


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    assert refusal(tmp_path).endswith("is no bundle: it has no manifest.json")
    assert "it has no manifest.json" in refusal(tmp_path / "absent")


@pytest.mark.parametrize("name", ["transmitter.onnx", "receiver.onnx"])
def test_a_missing_graph_is_named(bundle_folder, name):
    (bundle_folder / name).unlink()
    assert refusal(bundle_folder).endswith(f"{name} is missing; export the bundle again")


@pytest.mark.parametrize("name", ["transmitter.onnx", "receiver.onnx"])
def test_a_truncated_graph_is_named(bundle_folder, name):
    file = bundle_folder / name
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{name} is not the file that manifest.json describes (sha256 differs)" in refusal(bundle_folder)


def test_one_changed_bit_of_a_graph_is_found(bundle_folder):
    file = bundle_folder / "receiver.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert "sha256 differs" in refusal(bundle_folder)


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 1', b"\xff\xfe"])
def test_a_manifest_that_is_no_json_cannot_be_read(bundle_folder, content):
    (bundle_folder / MANIFEST_NAME).write_bytes(content)
    assert "manifest.json cannot be read: " in refusal(bundle_folder)


@pytest.mark.parametrize("content", ["[]", "7", "null", "{}"])
def test_json_that_is_no_manifest_has_no_schema_version(bundle_folder, content):
    (bundle_folder / MANIFEST_NAME).write_text(content, encoding="utf-8")
    assert "schema_version is None, this hardpath reads 1" in refusal(bundle_folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused(edit_manifest, version):
    folder = edit_manifest(lambda raw: raw.update(schema_version=version))
    assert f"schema_version is {version!r}, this hardpath reads 1" in refusal(folder)


def mode(raw):
    return raw["modes"][0]


EDITS = {
    "an unknown key": (lambda raw: raw.update(colour="red"), "colour: Extra inputs are not permitted"),
    "an unknown key deep inside": (lambda raw: raw["llr"].update(scale=2), "llr.scale: Extra inputs are not permitted"),
    "a missing field": (lambda raw: raw.pop("llr"), "llr: Field required"),
    "no mode": (lambda raw: raw.update(modes=[]), "modes: a bundle has 1 to 32, got 0"),
    "two modes and no header": (lambda raw: raw["modes"].append(mode(raw)), "header must be given for 2 modes"),
    "a header and one mode": (lambda raw: raw.update(header={}), "header must be absent for 1 mode"),
    "more modes than a header can name": (
        lambda raw: raw.update(modes=[mode(raw)] * 33, header={}),
        "modes: a bundle has 1 to 32, got 33",
    ),
    "an unknown header code": (
        lambda raw: raw.update(modes=[mode(raw)] * 2, header={"code": "repetition"}),
        "header.code: Input should be 'rm-1-3', 'rm-1-4' or 'rm-1-5'",
    ),
    "a frame of more samples than a header can hold": (
        lambda raw: raw.update(modes=[mode(raw)] * 2, header={"frame_samples": 65}),
        "header.frame_samples: Input should be less than or equal to 64",
    ),
    "a threshold that no block passes": (
        lambda raw: raw.update(modes=[mode(raw)] * 2, header={"threshold": 1.0}),
        "header.threshold: Input should be less than 1",
    ),
    "a router with a vector for its estimate": (
        lambda raw: raw["transmitter"]["inputs"].append({"name": "snr_db", "dtype": "float32", "shape": ["batch", 1]}),
        "transmitter.inputs: snr_db is float32 (batch, 1) where Es/N0 in dB is float32 (batch)",
    ),
    "a choice of modes by fractions": (
        lambda raw: (
            raw.update(modes=[mode(raw)] * 2, header={}),
            raw["transmitter"]["inputs"].append({"name": "mode_in", "dtype": "float32", "shape": ["batch"]}),
        ),
        "transmitter.inputs: mode_in is float32 (batch) where a mode is int64 (batch)",
    ),
    "nothing to send": (
        lambda raw: raw["transmitter"].update(inputs=[{"name": "snr_db", "dtype": "float32", "shape": ["batch"]}]),
        "transmitter.inputs: must hold an input of the task beside snr_db",
    ),
    "a default mode that is not there": (lambda raw: raw.update(default_mode=1), "default_mode must be below 1, got 1"),
    "a label twice": (lambda raw: mode(raw)["labels"].__setitem__(0, 1), "labels must be a permutation of 0 to 7"),
    "a label too large": (lambda raw: mode(raw)["labels"].__setitem__(7, 8), "labels must be a permutation of 0 to 7"),
    "a label too few": (lambda raw: mode(raw)["labels"].pop(), "labels must be a permutation of 0 to 7"),
    "codewords beyond memory": (
        lambda raw: mode(raw).update(codewords=2**60),
        "modes.0.codewords: Input should be less than or equal to 4096",
    ),
    "codewords of no label width": (
        lambda raw: mode(raw).update(codewords=6),
        "codewords must be a power of two, got 6",
    ),
    "an order that is no QAM": (
        lambda raw: mode(raw).update(order=32),
        "order must be one of 4, 16, 64, 256, 1024, 4096",
    ),
    "a prior that does not sum to one": (
        lambda raw: mode(raw)["log_prior"].__setitem__(0, -0.1),
        "log_prior must hold one log probability a codeword, summing to 1",
    ),
    "a prior above one": (
        lambda raw: mode(raw)["log_prior"].__setitem__(0, 1e4),
        "log_prior.0: Input should be less than",
    ),
    "no tokens": (lambda raw: mode(raw).update(tokens=0), "modes.0.tokens: Input should be greater than or equal to 1"),
    "an LLR clip of zero": (lambda raw: raw["llr"].update(clip=0), "llr.clip: Input should be greater than 0"),
    "the other sign of the LLR": (
        lambda raw: raw["llr"].update(convention="ln P(b=0)/P(b=1)"),
        "llr.convention: Input should be",
    ),
    "a hash of the wrong length": (
        lambda raw: raw["receiver"].update(sha256="ab"),
        "receiver.sha256: String should match",
    ),
    "an unknown dtype": (
        lambda raw: raw["receiver"]["inputs"][0].update(dtype="float16"),
        "receiver.inputs.0.dtype: Input should be 'float32'",
    ),
    "more tokens than the graphs have": (
        lambda raw: mode(raw).update(tokens=4),
        "transmitter.outputs: bits is uint8 (batch, 9) where modes and task mean uint8 (batch, 12)",
    ),
    "another order than the graphs'": (
        lambda raw: mode(raw).update(order=4),
        "transmitter.outputs: symbols is float32 (batch, 3, 2) where modes and task mean float32 (batch, 5, 2)",
    ),
    "another number of classes": (
        lambda raw: raw["task"]["classes"].append("d"),
        "receiver.outputs: logits is float32 (batch, 3) where modes and task mean float32 (batch, 4)",
    ),
    "a receiver that wants more": (
        lambda raw: raw["receiver"]["inputs"].append({"name": "mean", "dtype": "float32", "shape": ["batch"]}),
        "receiver.inputs: mean is float32 (batch) where modes and task mean absent",
    ),
    "a transmitter without bits": (
        lambda raw: raw["transmitter"]["outputs"].pop(2),
        "transmitter.outputs: bits is absent where modes and task mean uint8 (batch, 9)",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_with(edit, edit_manifest):
    change, message = EDITS[edit]
    assert message in refusal(edit_manifest(change))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(bundle_folder, value):
    file = bundle_folder / MANIFEST_NAME
    file.write_text(re.sub(r'"clip":\s*40.0', f'"clip": {value}', file.read_text(encoding="utf-8")), encoding="utf-8")
    assert "manifest.json: " in refusal(bundle_folder)


@pytest.mark.parametrize("name", ["../receiver.onnx", "sub/../../receiver.onnx", "/etc/hostname"])
def test_a_path_outside_of_the_folder_is_refused(edit_manifest, tmp_path, name):
    folder = edit_manifest(lambda raw: raw["receiver"].update(file=name))
    (folder / "sub").mkdir()
    (tmp_path / "receiver.onnx").write_bytes((folder / "receiver.onnx").read_bytes())
    assert refusal(folder).endswith(f"{name!r} lies outside the bundle")


def test_a_link_that_leads_outside_of_the_folder_is_refused(bundle_folder, tmp_path):
    (bundle_folder / "receiver.onnx").rename(tmp_path / "receiver.onnx")
    (bundle_folder / "receiver.onnx").symlink_to(tmp_path / "receiver.onnx")
    assert refusal(bundle_folder).endswith("'receiver.onnx' lies outside the bundle")


def test_a_loop_of_links_is_refused(bundle_folder):
    (bundle_folder / "receiver.onnx").unlink()
    (bundle_folder / "receiver.onnx").symlink_to(bundle_folder / "receiver.onnx")
    assert refusal(bundle_folder).endswith("receiver.onnx cannot be read: Too many levels of symbolic links")


@pytest.mark.parametrize("name", ["", "a\0b", "two\nlines", "x" * 256])
def test_a_name_that_no_file_should_have_is_refused(edit_manifest, name):
    assert "receiver.file: String should match pattern" in refusal(
        edit_manifest(lambda raw: raw["receiver"].update(file=name))
    )


def test_a_folder_in_place_of_a_graph_cannot_be_read(edit_manifest):
    assert refusal(edit_manifest(lambda raw: raw["receiver"].update(file="."))).endswith(
        ". cannot be read: Is a directory"
    )


def test_the_manifest_cannot_be_changed_once_loaded(bundle):
    with pytest.raises(ValueError, match="frozen"):
        bundle.manifest.name = "other"


def test_the_manifest_alone_can_be_read_without_its_graphs(exported_bundle, tmp_path):
    (tmp_path / MANIFEST_NAME).write_bytes((exported_bundle / MANIFEST_NAME).read_bytes())
    assert read_manifest(tmp_path).name == "ring"


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_the_prior_in_the_manifest_is_a_distribution(exported_bundle):
    raw = json.loads((exported_bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    assert np.exp(mode(raw)["log_prior"]).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("name", [MANIFEST_NAME, "transmitter.onnx"])
def test_a_pipe_in_place_of_a_file_is_refused_before_it_is_opened(bundle_folder, name):
    (bundle_folder / name).unlink()
    os.mkfifo(bundle_folder / name)
    assert refusal(bundle_folder).endswith(f"{name} is no file but a pipe or a device; export the bundle again")
