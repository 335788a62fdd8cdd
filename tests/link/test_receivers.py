"""A bundle of several receivers: each checked like the first, and one of them looked at."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, BundleError, ResultsError
from link.randomness import Draws
from link.sweep import SweepSpec, sweep

LATENT = np.random.default_rng(3).normal(size=(40, 3, 2)).astype(np.float32)


def first_two_classes(file, out):
    """The same receiver, but for its last class."""
    model = onnx.load(file)
    for node in model.graph.node:
        node.output[:] = ["every" if name == "logits" else name for name in node.output]
        node.input[:] = ["every" if name == "logits" else name for name in node.input]
    bounds = {"first": [0], "last": [2], "axis": [1]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in bounds.items())
    model.graph.node.append(helper.make_node("Slice", ["every", *bounds], ["logits"]))
    shape = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    outputs = [shape if output.name == "logits" else output for output in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.save(model, out)


@pytest.fixture(scope="module")
def several(exported_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "bundle"
    shutil.copytree(exported_bundle, folder)
    first_two_classes(folder / "receiver.onnx", folder / "receiver-pair.onnx")
    raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    graph = json.loads(json.dumps(raw["receiver"]))
    graph |= {"file": "receiver-pair.onnx", "sha256": sha256(folder / "receiver-pair.onnx")}
    next(output for output in graph["outputs"] if output["name"] == "logits")["shape"] = ["batch", 2]
    task = {"name": "ring", "classes": ["left", "right"], "question": "side"}
    provenance = raw["provenance"] | {"seed": 5}
    raw["receiver_name"] = "ring"
    raw["receivers"] = [{"name": "pair", "task": task, "graph": graph, "provenance": provenance}]
    (folder / MANIFEST_NAME).write_text(json.dumps(raw), encoding="utf-8")
    return folder


@pytest.fixture
def edited(several, tmp_path):
    def edit(change):
        folder = tmp_path / "bundle"
        shutil.copytree(several, folder)
        raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        change(raw)
        (folder / MANIFEST_NAME).write_text(json.dumps(raw), encoding="utf-8")
        return folder

    return edit


def test_a_bundle_of_a_time_with_one_receiver_loads_as_it_did(bundle_folder, edit_manifest):
    def forget(raw):
        raw.pop("receivers")
        raw.pop("receiver_name")
        raw["task"].pop("question")

    manifest = load_bundle(edit_manifest(forget)).manifest
    assert (manifest.receivers, manifest.receiver_names, manifest.task.question) == ((), ("receiver",), None)


def test_the_first_receiver_is_looked_at_unless_another_is_named(several):
    first, other = load_bundle(several).manifest, load_bundle(several, "pair").manifest
    assert (first.receiver.file, first.task.classes, first.provenance.seed) == ("receiver.onnx", ("a", "b", "c"), 0)
    assert (other.receiver.file, other.task.classes, other.provenance.seed) == (
        "receiver-pair.onnx",
        ("left", "right"),
        5,
    )
    assert (first.receiver_names, other.receiver_names) == (("ring", "pair"), ("pair", "ring"))
    assert other.transmitter == first.transmitter
    assert other.for_receiver("ring") == first
    assert type(other).model_validate_json(other.model_dump_json()) == other


def test_an_unknown_receiver_is_answered_with_the_known_ones(several, bundle):
    with pytest.raises(ArgumentError, match=r"^receiver must be one of pair, ring, got 'rong'$"):
        load_bundle(several, "rong")
    with pytest.raises(ArgumentError, match=r"^receiver must be one of receiver, got 'pair'$"):
        bundle.for_receiver("pair")


def test_each_receiver_hears_the_same_and_answers_its_own_task(several):
    found = [
        Link(load_bundle(several, name)).transmit({"latent": LATENT}, Awgn(), 6.0, Draws(1, np.arange(40)))
        for name in ("ring", "pair")
    ]
    for part, field in (("sent", "bits"), ("received", "y"), ("decoded", "llr"), ("decoded", "indices_hat")):
        assert np.array_equal(*(getattr(getattr(result, part), field) for result in found))
    assert np.array_equal(found[1].decoded.logits, found[0].decoded.logits[:, :2])
    assert set(found[1].decoded.decisions) == {0, 1}


def test_a_sweep_of_one_receiver_goes_on_with_no_other(several, tmp_path):
    spec, labels = SweepSpec(snr_db=(6.0,)), np.arange(40) % 2
    sweep(Link(load_bundle(several, "pair")), {"latent": LATENT}, labels, spec, out=tmp_path)
    with pytest.raises(ResultsError):
        sweep(Link(load_bundle(several, "ring")), {"latent": LATENT}, labels, spec, out=tmp_path)
    with pytest.raises(ArgumentError, match=r"^labels"):
        sweep(Link(load_bundle(several, "pair")), {"latent": LATENT}, labels + 1, spec)


def test_a_changed_graph_of_any_receiver_is_found(several, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(several, folder)
    file = folder / "receiver-pair.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    for name in (None, "ring", "pair"):
        with pytest.raises(BundleError, match=r"receiver-pair\.onnx is not the file that manifest"):
            load_bundle(folder, name)
    file.unlink()
    with pytest.raises(BundleError, match=r"receiver-pair\.onnx is missing"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["receivers"][0].update(name="ring"), "receivers: each has a name of its own, got ring, ring"),
        (lambda raw: raw["receivers"][0].update(name="a b"), "receivers.0.name: String should match pattern"),
        (lambda raw: raw["receivers"][0]["graph"].update(file="../receiver.onnx"), "lies outside the bundle"),
        (
            lambda raw: raw["receivers"][0]["task"].update(classes=["left", "right", "up"]),
            "pair.outputs: logits is float32 (batch, 2) where modes and task mean float32 (batch, 3)",
        ),
        (
            lambda raw: raw["receivers"][0]["graph"]["inputs"].pop(0),
            "pair.inputs: symbols is absent where modes and task mean float32 (batch, 3, 2)",
        ),
    ],
)
def test_a_further_receiver_is_held_to_the_same_contract(edited, change, message):
    with pytest.raises(BundleError) as caught:
        load_bundle(edited(change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
