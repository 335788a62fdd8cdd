import shutil
import sys

import numpy as np
import onnx
import pytest

from link.bundle import load_bundle, sha256
from link.errors import ArgumentError, BundleError, MissingExtra
from link.interface import TensorSpec
from link.runtime import Receiver, Transmitter
from link.tensors import as_tensor, check_inputs

SPECS = (
    TensorSpec(name="image", dtype="float32", shape=("batch", 2), low=0.0, high=1.0),
    TensorSpec(name="tokens", dtype="int64", shape=("batch", 3), low=0, high=9),
)
GOOD = {"image": [[0.0, 1.0], [0.5, 0.5]], "tokens": [[1, 2, 3], [4, 5, 6]]}


@pytest.fixture(scope="module")
def transmitter(bundle):
    return Transmitter(bundle)


@pytest.fixture(scope="module")
def receiver(bundle):
    return Receiver(bundle)


def test_inputs_come_out_in_the_graphs_dtypes():
    feed = check_inputs(SPECS, GOOD)
    assert {name: value.dtype.name for name, value in feed.items()} == {"image": "float32", "tokens": "int64"}
    assert all(value.flags.c_contiguous for value in feed.values())
    np.testing.assert_array_equal(feed["tokens"], GOOD["tokens"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sound": [1.0]}, "inputs.sound is unknown; this bundle takes image, tokens"),
        ({"image": None}, "inputs.image is missing"),
        ({"image": [[0.0, 1.0, 0.5]]}, r"inputs.image must have shape \(batch, 2\), got \(1, 3\)"),
        ({"image": [0.0, 1.0]}, r"inputs.image must have shape \(batch, 2\), got \(2\)"),
        ({"image": np.zeros((0, 2))}, r"inputs.image must hold at least one sample, got shape \(0, 2\)"),
        ({"image": [[0.0], [0.0, 1.0]]}, "inputs.image must be an array with rows of equal length"),
        ({"image": [["a", "b"]]}, "inputs.image must hold numbers, got dtype <U1"),
        ({"image": np.zeros((2, 2), dtype=complex)}, "inputs.image must hold numbers, got dtype complex128"),
        ({"image": [[0.0, np.nan], [0.0, 0.0]]}, "inputs.image must be finite in float32, got NaN or infinity"),
        ({"image": [[0.0, np.inf], [0.0, 0.0]]}, "inputs.image must be finite in float32"),
        ({"image": [[0.0, 1e300], [0.0, 0.0]]}, "inputs.image must be finite in float32"),
        ({"image": [[0.0, 1.5], [0.0, 0.0]]}, r"inputs.image must be in \[0, 1\], got \[0, 1.5\]"),
        ({"tokens": [[1, 2, 3]]}, r"inputs.tokens must have shape \(2, 3\), got \(1, 3\)"),
        (
            {"tokens": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]},
            r"inputs.tokens must hold integers \(int64\), got dtype float64",
        ),
        ({"tokens": [[1, 2, 10], [1, 2, 3]]}, r"inputs.tokens must be in \[0, 9\], got \[1, 10\]"),
        ({"tokens": [[1, 2, 2**64], [1, 2, 3]]}, "inputs.tokens must hold numbers, got dtype object"),
        ({"tokens": np.full((2, 3), 2**63, dtype=np.uint64)}, "inputs.tokens does not fit into int64"),
    ],
)
def test_a_wrong_input_is_named_with_what_it_must_be(change, message):
    inputs = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ArgumentError, match=message) as caught:
        check_inputs(SPECS, inputs)
    assert caught.value.field.startswith("inputs.")


def test_a_tensor_is_converted_only_where_nothing_is_lost():
    assert as_tensor("bits", [[1, 0]], "uint8", (None, 2)).dtype == np.uint8
    with pytest.raises(ArgumentError, match="bits does not fit into uint8"):
        as_tensor("bits", [[-1, 0]], "uint8", (None, 2))
    assert np.isinf(as_tensor("no", [[np.inf, 1e300]], "float32", (None, 2), finite=False)).all()


def good_reception(batch=2):
    return {"symbols": np.zeros((batch, 3, 2)), "no": np.full((batch, 3), 0.1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": np.zeros((2, 4, 2))}, r"symbols must have shape \(batch, 3, 2\), got \(2, 4, 2\)"),
        ({"symbols": np.full((2, 3, 2), np.nan)}, "symbols must be finite"),
        ({"no": np.full((1, 3), 0.1)}, r"no must have shape \(2, 3\), got \(1, 3\)"),
        ({"no": np.full((2, 3), 1e-7)}, "no must be at least 1e-06"),
        ({"no": np.full((2, 3), -1.0)}, "no must be at least 1e-06"),
        ({"no": np.full((2, 3), np.nan)}, "no must be at least 1e-06"),
        ({"mode": [0, 1]}, r"mode must be in \[0, 1\)"),
        ({"mode": [0]}, r"mode must have shape \(2\), got \(1\)"),
        ({"mode": [0.0, 0.0]}, "mode must hold integers"),
        ({"llr_in": np.zeros((2, 8))}, r"llr_in must have shape \(2, 9\), got \(2, 8\)"),
        ({"llr_in": np.full((2, 9), np.inf)}, "llr_in must be finite"),
    ],
)
def test_a_wrong_reception_is_named_with_what_it_must_be(change, message, receiver):
    with pytest.raises(ArgumentError, match=message) as caught:
        receiver(**{**good_reception(), **change})
    assert caught.value.field in change


def test_the_least_noise_variance_is_taken(receiver):
    assert np.isfinite(receiver(np.zeros((1, 3, 2)), np.full((1, 3), 1e-6)).logits).all()


def test_an_erased_sample_falls_back_on_the_prior_and_on_llrs_from_elsewhere(receiver):
    erased = {"symbols": np.zeros((1, 3, 2)), "no": np.full((1, 3), np.inf)}
    heard = receiver(**erased)
    assert (heard.llr == 0.0).all()
    assert (heard.indices_hat == np.argmax(receiver.manifest.modes[0].log_prior)).all()
    hard_bits = np.array([[0, 1, 1, 0, 0, 0, 1, 1, 0]])
    heard = receiver(**erased, llr_in=20.0 * (2.0 * hard_bits - 1.0))
    labels = receiver.manifest.modes[0].labels
    assert [labels[index] for index in heard.indices_hat[0]] == [0b011, 0b000, 0b110]


def test_decisions_are_the_highest_logit_and_the_lowest_index_on_ties(receiver):
    heard = receiver(**good_reception())._replace(logits=np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 1.0]], dtype=np.float32))
    assert heard.decisions.tolist() == [1, 0]


def test_the_transmitter_sends_the_codewords_of_its_table(transmitter):
    angles = 2.0 * np.pi * np.array([[0, 3, 7], [1, 1, 4]]) / 8.0
    sent = transmitter({"latent": np.stack([np.cos(angles), np.sin(angles)], axis=-1)})
    assert sent.indices.tolist() == [[0, 3, 7], [1, 1, 4]]
    assert sent.num_bits.tolist() == [9, 9]
    assert sent.num_symbols.tolist() == [3, 3]
    assert sent.bits[0].tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 0]
    assert sent.bits.dtype == np.uint8
    assert sent.symbols.dtype == np.float32


def rehash(folder, edit_manifest, name):
    return edit_manifest(lambda raw: raw[name].update(sha256=sha256(folder / f"{name}.onnx")))


def test_a_graph_that_is_none_is_refused_in_one_line(bundle_folder, edit_manifest):
    (bundle_folder / "receiver.onnx").write_bytes(b"no graph")
    bundle = load_bundle(rehash(bundle_folder, edit_manifest, "receiver"))
    with pytest.raises(BundleError, match=r"receiver\.onnx is no graph that ONNX Runtime can load: ") as caught:
        Receiver(bundle)
    assert "\n" not in str(caught.value)


def test_a_graph_with_another_interface_is_refused(bundle_folder, edit_manifest):
    shutil.copy(bundle_folder / "transmitter.onnx", bundle_folder / "receiver.onnx")
    bundle = load_bundle(rehash(bundle_folder, edit_manifest, "receiver"))
    with pytest.raises(BundleError, match=r"inputs of receiver\.onnx are not those of the manifest: missing .*llr_in"):
        Receiver(bundle)


def test_a_missing_runtime_is_named_with_the_extra_that_brings_it(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingExtra, match=r"onnxruntime is not installed; install it with: pip install 'hardpath\[cpu\]'"
    ):
        Transmitter(bundle)


@pytest.fixture(scope="module")
def routed(routed_bundle):
    return Transmitter(load_bundle(routed_bundle))


def test_each_sample_is_sent_in_its_own_mode(modes_bundle, latents_of):
    transmitter = Transmitter(load_bundle(modes_bundle))
    sent = transmitter(latents_of([0, 1, 2, 1]).inputs)
    assert sent.mode.tolist() == [0, 1, 2, 1]
    assert sent.num_bits.tolist() == [9, 9, 4, 9]
    assert sent.num_symbols.tolist() == [3, 5, 2, 5]
    assert not sent.symbols[0, 3:].any()
    assert not sent.bits[2, 4:].any()
    assert sent.indices[2, 2] == 0


@pytest.mark.parametrize(
    ("snr_db", "modes"),
    [
        (20.0, [0, 0, 1]),
        (8.0, [0, 0, 1]),
        (np.float32(0.0), [1, 1, 2]),
        (-6, [2, 2, 2]),
        ([9.0, -1.0, 9.0], [0, 2, 1]),
        (-30.0, [2, 2, 2]),
        (60.0, [0, 0, 1]),
    ],
)
def test_a_router_chooses_by_the_estimate_of_the_transmitter(routed, latents_of, snr_db, modes):
    assert routed(latents_of([0, 1, 2]).inputs, snr_db).mode.tolist() == modes


def test_an_estimate_beyond_the_graphs_range_is_its_nearest_end(routed, latents_of, monkeypatch):
    fed = []
    session = routed._session
    monkeypatch.setattr(routed, "_session", type("", (), {"run": lambda _, n, f: fed.append(f) or session.run(n, f)})())
    routed(latents_of([0, 1, 2]).inputs, [-30.0, 7.0, 60.0])
    assert fed[0]["snr_db"].tolist() == [-20.0, 7.0, 30.0]
    assert fed[0]["snr_db"].dtype == np.float32


@pytest.mark.parametrize(
    ("snr_db", "message"),
    [
        (None, "snr_db is missing: this bundle's router chooses by Es/N0"),
        (61.0, r"snr_db must be in \[-30, 60\], got \[61, 61\]"),
        (np.nan, r"snr_db must be in \[-30, 60\], got \[nan, nan\]"),
        ([1.0, 2.0], r"snr_db must have shape \(3\), got \(2\)"),
        ([[1.0, 2.0, 3.0]], r"snr_db must have shape \(3\), got \(1, 3\)"),
        ("high", "snr_db must hold numbers"),
    ],
)
def test_a_wrong_estimate_is_named(routed, latents_of, snr_db, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        routed(latents_of([0, 1, 2]).inputs, snr_db)
    assert caught.value.field == "snr_db"


def test_an_estimate_that_nothing_looks_at_is_refused(transmitter):
    with pytest.raises(ArgumentError, match="snr_db must be absent: this bundle's transmitter does not look"):
        transmitter({"latent": np.zeros((1, 3, 2))}, 6.0)


def test_the_estimate_is_no_input_of_the_task(routed, latents_of):
    with pytest.raises(ArgumentError, match=r"inputs\.snr_db is unknown; this bundle takes latent"):
        routed({**latents_of([0]).inputs, "snr_db": [1.0]}, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": [3]}, r"mode of transmitter\.onnx is not in \[0, 3\)"),
        ({"mode": [-1]}, r"mode of transmitter\.onnx is not in \[0, 3\)"),
        ({"mode": [0]}, r"num_bits of transmitter\.onnx is not that of the mode"),
        ({"num_symbols": [3]}, r"num_symbols of transmitter\.onnx is not that of the mode"),
        ({"indices": [[1, 1, 1]]}, r"indices of transmitter\.onnx is not 0 past the end of the mode"),
        ({"bits": [[0] * 8 + [1]]}, r"bits of transmitter\.onnx is not 0 past the end of the mode"),
        ({"symbols": np.ones((1, 5, 2))}, r"symbols of transmitter\.onnx is not 0 past the end of the mode"),
    ],
)
def test_a_graph_that_sends_what_no_mode_has_is_refused(modes_bundle, latents_of, monkeypatch, change, message):
    transmitter = Transmitter(load_bundle(modes_bundle))
    inputs = latents_of([2]).inputs
    good = transmitter(inputs)._asdict()
    spoilt = {**good, **{name: np.array(value, dtype=good[name].dtype) for name, value in change.items()}}
    monkeypatch.setattr(transmitter, "_session", type("", (), {"run": lambda *_: list(spoilt.values())})())
    with pytest.raises(BundleError, match=message):
        transmitter(inputs)


def test_a_receiver_decodes_each_sample_in_the_mode_it_is_told(modes_bundle, latents_of):
    bundle = load_bundle(modes_bundle)
    sent = Transmitter(bundle)(latents_of([0, 1, 2, 0]).inputs)
    receiver = Receiver(bundle)
    no = np.full(sent.symbols.shape[:2], 1e-3)
    heard = receiver(sent.symbols, no, sent.mode)
    np.testing.assert_array_equal(heard.indices_hat, sent.indices)
    default = receiver(sent.symbols, no)
    np.testing.assert_array_equal(default.llr, receiver(sent.symbols, no, [1, 1, 1, 1]).llr)
    with pytest.raises(ArgumentError, match=r"mode must be in \[0, 3\)"):
        receiver(sent.symbols, no, [0, 1, 2, 3])


@pytest.mark.parametrize("here", [True, False])
def test_weights_in_files_of_their_own_are_refused(bundle_folder, edit_manifest, monkeypatch, here):
    """They would be loaded without a hash, from the bundle's folder or from where the process happens to be."""
    file = bundle_folder / "receiver.onnx"
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=60)
    edit_manifest(lambda raw: raw["receiver"].update(sha256=sha256(file)))
    if here:
        monkeypatch.chdir(bundle_folder)
    message = r"receiver\.onnx keeps weights in files of their own, which no hash covers: save it as one file$"
    with pytest.raises(BundleError, match=message):
        Receiver(load_bundle(bundle_folder))
