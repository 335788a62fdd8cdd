"""The bundle is the model: in every batch, through the deployed chain, and only after it was found so."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import train.export as export_module
import train.mode_codec as mode_codec_module
from link.bits import label_bits
from link.bundle import load_bundle, sha256
from link.chain import Link
from link.channel import Awgn
from link.constellation import app_llr, map_bits, points
from link.errors import BundleError, CheckpointError
from link.randomness import Draws
from train import bundle_check
from train.bundle_check import BATCH_SIZES, check_bundle
from train.checkpoint import FILE_NAME, load, read
from train.checkpoint import save as save_checkpoint
from train.export import export
from train.graphs import TransmitterGraph
from train.run import train
from train.tasks import load_task
from train.transceiver import Transceiver


@pytest.fixture(scope="module")
def signs_validation(extra_tasks):
    return load_task("signs").load(None).validation


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_bundle_says_where_it_comes_from(digits_bundle, digits_run, digits_recipe):
    manifest = load_bundle(digits_bundle).manifest
    best = read(digits_run / "best")
    provenance = manifest.provenance
    assert (manifest.name, manifest.task.name, manifest.task.classes) == ("digits", "digits", tuple("0123456789"))
    assert provenance.checkpoint_sha256 == sha256(digits_run / "best" / FILE_NAME)
    assert (provenance.epoch, provenance.phase, provenance.temperature) == (best.epoch, best.phase.value, best.vq_temp)
    assert provenance.accuracy == best.hard_accuracy
    assert provenance.recipe == digits_recipe.model_dump(mode="json")
    assert provenance.libraries["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_labels_and_prior_of_the_manifest_are_those_of_the_graphs(digits_link, digits_data):
    (mode,) = digits_link.manifest.modes
    sent = digits_link.transmitter(digits_data.test.inputs)
    spelled = label_bits(np.array(mode.labels), 3)[sent.indices]
    assert np.array_equal(sent.bits, spelled.reshape(len(sent.bits), 24))
    heard = digits_link.receiver(np.zeros((1, 6, 2)), np.full((1, 6), np.inf))
    assert (heard.indices_hat == int(np.argmax(mode.log_prior))).all()


def test_symbols_of_the_graph_are_the_constellation_points_of_its_bits(digits_link, digits_data):
    sent = digits_link.transmitter(digits_data.test.inputs)
    numbers = sent.bits.reshape(-1, 6, 4).astype(np.int64) @ np.array([8, 4, 2, 1])
    np.testing.assert_allclose(sent.symbols, points(16)[numbers], rtol=1e-6)
    assert (sent.mode == 0).all()
    assert (sent.num_bits == 24).all()
    assert (sent.num_symbols == 6).all()


def test_graphs_are_single_files_whose_batch_is_their_only_dynamic_dimension(digits_bundle):
    for name in ("transmitter.onnx", "receiver.onnx"):
        model = onnx.load(digits_bundle / name, load_external_data=False)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        for tensor in (*model.graph.input, *model.graph.output):
            first, *rest = tensor.type.tensor_type.shape.dim
            assert first.dim_param == "batch"
            assert all(dimension.dim_value > 0 for dimension in rest)
    assert {file.name for file in digits_bundle.iterdir()} == {"manifest.json", "receiver.onnx", "transmitter.onnx"}


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_bits_and_decisions_are_the_same_in_every_batch(digits_link, digits_data, size):
    """Rows shuffled and cut into batches; each keeps its own number, and so its own noise."""
    inputs = digits_data.test.inputs["image"]
    rows = np.arange(len(inputs))
    whole = digits_link.transmit({"image": inputs}, Awgn(), 3.0, Draws(5, rows))
    shuffled = np.random.default_rng(size).permutation(rows)
    for start in range(0, len(rows), size):
        chosen = shuffled[start : start + size]
        part = digits_link.transmit({"image": inputs[chosen]}, Awgn(), 3.0, Draws(5, chosen))
        assert np.array_equal(part.sent.indices, whole.sent.indices[chosen])
        assert np.array_equal(part.sent.bits, whole.sent.bits[chosen])
        assert np.array_equal(part.sent.symbols, whole.sent.symbols[chosen])
        assert np.array_equal(part.received.y, whole.received.y[chosen])
        assert np.array_equal(part.decoded.indices_hat, whole.decoded.indices_hat[chosen])
        assert np.array_equal(part.decoded.decisions, whole.decoded.decisions[chosen])


def test_torch_and_the_bundle_answer_alike(digits_link, digits_model, digits_data):
    images = digits_data.test.inputs["image"]
    with torch.no_grad():
        indices = TransmitterGraph(digits_model)(torch.from_numpy(images))[1].numpy()
    found = digits_link.transmit({"image": images}, Awgn(), 6.0, Draws(2, np.arange(len(images))))
    assert (indices == found.sent.indices).mean() > 1.0 - 1e-3
    with torch.no_grad():
        heard = digits_model.receive(torch.from_numpy(found.received.y), torch.from_numpy(found.received.no))
    np.testing.assert_allclose(found.decoded.logits, heard.logits.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.decoded.llr, heard.llr.numpy(), atol=1e-3)


def test_a_checkpoint_of_warm_up_is_refused(signs_recipe, tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(signs_recipe, tmp_path / "run", on_epoch=stop)
    with pytest.raises(BundleError, match="saved in warm-up, before it had a codebook; train on"):
        export(tmp_path / "run" / "last", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_run_that_is_none_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export(tmp_path, tmp_path / "bundle")


@pytest.mark.parametrize(
    "content",
    [
        {"notes.txt": "mine"},
        {},
        {"manifest.json": '{"name": "a web app", "icons": []}', "index.html": "mine"},
        {"manifest.json": "[]"},
        {"manifest.json": "no JSON"},
    ],
    ids=["notes", "empty", "another manifest", "a list", "no json"],
)
def test_a_folder_that_is_no_bundle_is_not_overwritten(signs_run, tmp_path, content):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    with pytest.raises(BundleError, match="exists and is no bundle; name another place"):
        export(signs_run, folder)
    assert {name: text.decode() for name, text in files_of(folder).items()} == content
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_is_not_overwritten(signs_run, tmp_path):
    file = tmp_path / "bundle"
    file.write_text("mine")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        export(signs_run, file)
    assert file.read_text() == "mine"


def test_an_older_bundle_is_replaced_as_a_whole_by_the_checkpoint_and_name_asked_for(signs_run, signs_bundle, tmp_path):
    folder = Path(shutil.copytree(signs_bundle, tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["name"] == "signs"
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 0}))
    (folder / "verification.json").write_text("of the first")
    checkpoint, model = load(signs_run / "last")
    model.head[1].bias.data.fill_(7.0)
    save_checkpoint(tmp_path / "changed", checkpoint, model)

    assert export(tmp_path / "changed", folder, name="second").name == "second"
    assert {file.name for file in folder.iterdir()} == {"manifest.json", "receiver.onnx", "transmitter.onnx"}
    assert sorted(tmp_path.iterdir()) == [folder, tmp_path / "changed"]
    link = Link(load_bundle(folder))
    assert (link.manifest.name, link.manifest.provenance.epoch) == ("second", 5)
    with torch.no_grad():
        expected = model.receive(torch.zeros(1, 3, 2), torch.full((1, 3), torch.inf)).logits.numpy()
    found = link.receiver(np.zeros((1, 3, 2)), np.full((1, 3), np.inf)).logits
    np.testing.assert_allclose(found, expected, atol=1e-5)


def quiet_map_bits(bits):
    """A hundredth less amplitude."""
    return 0.99 * map_bits(bits)


def per_dimension_llr(y, no, order):
    """3 dB off: the variance a dimension taken for that of a complex sample."""
    return app_llr(y, 0.5 * no, order)


@pytest.mark.parametrize(
    ("name", "mutant", "complaint"),
    [
        ("map_bits", quiet_map_bits, "symbols of transmitter.onnx and torch differ"),
        ("app_llr", per_dimension_llr, "llr of receiver.onnx and torch differ"),
    ],
)
def test_a_function_changed_in_the_graphs_alone_is_caught_and_the_old_bundle_stays(
    signs_run, signs_bundle, monkeypatch, name, mutant, complaint
):
    before = files_of(signs_bundle)
    write_bundle = export_module.write_bundle

    def write_mutated(*arguments, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(mode_codec_module, name, mutant)
            return write_bundle(*arguments, **settings)

    monkeypatch.setattr(export_module, "write_bundle", write_mutated)
    with pytest.raises(BundleError, match=complaint):
        export(signs_run, signs_bundle)
    assert files_of(signs_bundle) == before
    assert list(signs_bundle.parent.iterdir()) == [signs_bundle]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda model: model.quantizer.codebook.neg_(), "choose the same codeword in only"),
        (lambda model: model.quantizer.set_labels(model.quantizer.labels.numpy()[::-1].copy()), "bits of transmitter"),
        (lambda model: model.quantizer.log_prior.copy_(torch.tensor([0.0, -9.0, -9.0, -9.0])), "of receiver.onnx"),
        (lambda model: model.head[1].weight.data.mul_(1.1), "logits of receiver.onnx"),
    ],
    ids=["codebook", "labels", "prior", "head"],
)
def test_a_bundle_of_another_model_is_caught(signs_bundle, signs_validation, signs_model, change, complaint):
    check_bundle(signs_bundle, signs_model, load_task("signs"), signs_validation)
    change(signs_model)
    with pytest.raises(BundleError, match=complaint):
        check_bundle(signs_bundle, signs_model, load_task("signs"), signs_validation)


def test_a_graph_says_nothing_of_the_machine_that_traced_it(signs_bundle):
    for name in ("transmitter.onnx", "receiver.onnx"):
        content = (signs_bundle / name).read_bytes()
        assert b"stack_trace" not in content
        assert str(Path(__file__).parents[2]).encode() not in content


def test_indices_found_are_compared_too(signs_bundle, signs_validation, signs_model, monkeypatch):
    receive = Transceiver.receive

    def shifted(self, *arguments, **named):
        heard = receive(self, *arguments, **named)
        return heard._replace(indices_hat=(heard.indices_hat + 1) % 4)

    monkeypatch.setattr(Transceiver, "receive", shifted)
    with pytest.raises(BundleError, match=r"receiver\.onnx and torch find the same codeword in only"):
        check_bundle(signs_bundle, signs_model, load_task("signs"), signs_validation)


def test_a_transmitter_that_looks_at_its_batch_is_caught(signs_run, tmp_path, monkeypatch):
    encode = Transceiver.encode

    def centred(self, *inputs):
        tokens = encode(self, *inputs)
        return tokens - tokens.mean(dim=0, keepdim=True)

    monkeypatch.setattr(Transceiver, "encode", centred)
    with pytest.raises(BundleError, match="are sent as other bits in batches of 1 than all at once"):
        export(signs_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_the_receiver_graph_takes_symbols_noise_mode_and_llrs_and_nothing_else(digits_bundle):
    session = onnxruntime.InferenceSession(str(digits_bundle / "receiver.onnx"), providers=["CPUExecutionProvider"])
    assert [tensor.name for tensor in session.get_inputs()] == ["symbols", "no", "mode", "llr_in"]


class Exchanging:
    """A link whose transmitter sends some of the tokens as the next codeword."""

    def __init__(self, link, tokens):
        self.manifest = link.manifest
        self._transmitter = link.transmitter
        self._tokens = tokens

    def transmitter(self, *arguments):
        sent = self._transmitter(*arguments)
        indices = sent.indices.copy()
        indices.reshape(-1)[: self._tokens] ^= 1
        return sent._replace(indices=indices)


def test_a_tie_or_two_of_few_tokens_is_no_other_graph_and_three_are(digits_bundle, digits_model):
    images = load_task("digits").load(None).validation.inputs["image"][:120]
    link, inputs = Link(load_bundle(digits_bundle)), {"image": images}
    for tokens in range(3):
        bundle_check._check_transmitter(Exchanging(link, tokens), digits_model, inputs, None)
    with pytest.raises(BundleError, match=r"only 99\.69% of the tokens"):
        bundle_check._check_transmitter(Exchanging(link, 3), digits_model, inputs, None)
