"""Verification of a good bundle, of wrong manifests, and of paths that differ; test_mutations.py has the wrong graphs."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from link.bundle import Bundle, load_bundle, sha256
from link.errors import ArgumentError, BundleError
from link.manifest import Manifest
from link.runtime import Receiver, Transmitter
from link.sequential import DifferenceTest, Verdict
from train import checkpoint as checkpoints
from train.equivalence import Paths
from train.verify import Verification, VerifySettings, render, verify

SHORT = VerifySettings(snr_db=(0.0, 12.0), margin=0.05, max_draws=30)
SAMPLES = 120


class Trained(NamedTuple):
    """A short run, its bundle, and samples to verify them with."""

    run: Path
    bundle: Bundle
    inputs: dict
    labels: np.ndarray


@pytest.fixture(scope="session")
def trained(digits_run, digits_bundle, digits_data):
    split = digits_data.test
    inputs = {name: value[:SAMPLES] for name, value in split.inputs.items()}
    return Trained(digits_run, load_bundle(digits_bundle), inputs, split.labels[:SAMPLES])


@pytest.fixture
def check(trained):
    """Function that verifies a bundle against the checkpoint of the good one."""

    def run(bundle=None, *, checkpoint=None, settings=SHORT, **options):
        return verify(
            bundle or trained.bundle, checkpoint or trained.run, trained.inputs, trained.labels, settings, **options
        )

    return run


class Server:
    """What a client of a server offers, without one."""

    def __init__(self, bundle):
        self.encode = Transmitter(bundle)
        self._receiver = Receiver(bundle)

    def decode(self, symbols, no, *, llr_in=None, include_llr=False):
        answer = self._receiver(symbols, no, llr_in=llr_in)
        return answer if include_llr else answer._replace(llr=None)


def test_a_good_bundle_is_equivalent(check):
    found = check()
    assert found.verdict is Verdict.EQUIVALENT
    assert found.exit_code == 0
    assert (found.manifest.findings, found.transmitter.findings, found.receiver.findings) == ((), (), ())
    assert [point.snr_db for point in found.points] == [0.0, 12.0]
    assert found.summary.startswith("equivalent: the same decisions in all implementations")


def test_a_good_server_is_compared_too(check, trained):
    found = check(remote=Server(trained.bundle))
    assert found.verdict is Verdict.EQUIVALENT
    assert found.transmitter.implementations == found.receiver.implementations == ("onnx", "server")


def test_constants_that_kept_their_names_are_read_from_the_graphs(check):
    constants = check().manifest.constants
    assert "transmitter.onnx: quantizer.label_bits" in constants
    assert {"receiver.onnx: quantizer.codebook", "receiver.onnx: quantizer.log_prior"} <= set(constants)
    # The weights of encoder and head keep their names too.
    assert sum(name.startswith("transmitter.onnx: encoder.") for name in constants) >= 2
    assert sum(name.startswith("receiver.onnx: head.") for name in constants) >= 2


def test_the_surrogate_is_the_checkpoints_at_its_own_temperature(check, trained):
    described, model = checkpoints.load(trained.run)
    (spec,) = trained.bundle.manifest.transmitter.inputs
    with torch.no_grad():
        tokens = model.encode(torch.from_numpy(trained.inputs[spec.name]))
        distances = (tokens[..., None, :] - model.quantizer.codebook).square().sum(dim=-1)
        probabilities = torch.softmax(-float(model.quantizer.scale) * distances / described.vq_temp, dim=-1)
    found = check().surrogate
    assert found.temperature == described.vq_temp
    assert found.h_assign == pytest.approx(float(torch.special.entr(probabilities).sum(dim=-1).mean()), rel=1e-4)


def test_the_surrogate_has_the_checkpoints_symbol_temperature(check, trained, tmp_path):
    """Harder bits carry more energy, at the same assignment."""
    described, model = checkpoints.load(trained.run)
    checkpoints.save(tmp_path, described.model_copy(update={"symbol_temp": 0.3}), model)
    plain, harder = check().surrogate, check(checkpoint=tmp_path).surrogate
    assert harder.h_assign == plain.h_assign
    assert plain.soft_es_db + 0.1 < harder.soft_es_db < plain.hard_es_db + 0.1


def test_a_weight_changed_in_a_graph_is_found_however_little(check, trained, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(trained.bundle.path, folder)
    graph = onnx.load(folder / "receiver.onnx")
    weight = next(item for item in graph.graph.initializer if item.name.startswith("transceiver.head."))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += np.float32(1e-6) * max(1.0, abs(values.flat[0]))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(graph, folder / "receiver.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["receiver"]["sha256"] = sha256(folder / "receiver.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = check(load_bundle(folder))
    assert found.verdict is Verdict.DIFFERENT
    assert "is not the checkpoint's" in found.summary


def test_tolerances_are_those_of_float32(check):
    found = check()
    assert found.transmitter.latent_error < 1e-4
    assert found.receiver.llr_tolerance < 1e-3
    assert found.receiver.logit_tolerance < 1e-2


def test_verification_survives_json(check):
    found = check()
    assert Verification.model_validate_json(found.model_dump_json()) == found


def test_two_runs_find_the_same(check):
    assert check() == check()


def test_the_text_has_a_row_a_point_and_ends_with_the_verdict_and_its_notes(check):
    found = check()
    text = render(found)
    rows = [line.split() for line in text.splitlines()]
    for point in found.points:
        assert [f"{point.snr_db:g}", f"{point.acc_soft:.4f}", f"{point.acc_hard:.4f}"] in [row[:3] for row in rows]
    assert text.splitlines()[-1 - len(found.notes)] == found.summary


def test_progress_rises_to_one(check):
    told = []
    check(progress=lambda what, fraction: told.append(fraction))
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_server_that_leaves_out_the_llrs_is_different(check, trained):
    class Silent(Server):
        def decode(self, symbols, no, *, llr_in=None, include_llr=False):
            return super().decode(symbols, no, llr_in=llr_in)

    found = check(remote=Silent(trained.bundle))
    assert "receiver, server: llr is missing" in found.summary


@pytest.mark.parametrize(
    ("field", "change", "says"),
    [
        ("labels", lambda mode: {"labels": mode["labels"][::-1]}, "labels"),
        ("log_prior", lambda mode: {"log_prior": mode["log_prior"][::-1]}, "log_prior"),
    ],
)
def test_a_manifest_with_another_table_is_different(check, trained, tmp_path, field, change, says):
    raw = trained.bundle.manifest.model_dump(mode="json")
    raw["modes"][0] |= change(raw["modes"][0])
    found = check(Bundle(trained.bundle.path, Manifest.model_validate(raw)))
    assert found.verdict is Verdict.DIFFERENT
    assert f"entries of {says} are not the checkpoint's" in found.summary


@pytest.mark.parametrize(("field", "value"), [("clip", 29.0), ("demapper", "max-log")])
def test_a_manifest_with_another_demapper_or_clip_is_different(check, trained, field, value):
    raw = trained.bundle.manifest.model_dump(mode="json")
    raw["llr"][field] = value
    found = check(Bundle(trained.bundle.path, Manifest.model_validate(raw)))
    assert found.summary.startswith(f"different: manifest: {field} is {value!r}")


def test_a_bundle_of_another_shape_is_different_and_nothing_else_is_compared(check, trained):
    raw = trained.bundle.manifest.model_dump(mode="json")
    raw["task"]["name"] = "letters"
    found = check(Bundle(trained.bundle.path, Manifest.model_validate(raw)))
    assert found.summary == "different: manifest: task is 'letters', the checkpoint's is 'digits'"
    assert (found.transmitter, found.receiver, found.surrogate) == (None, None, None)
    assert render(found).endswith(found.summary)


def test_a_hard_path_that_is_worse_is_different_and_told_where(check, monkeypatch):
    correct = Paths.correct

    def worse_at_12_db(self, snr_db, seed, draw):
        soft, hard = correct(self, snr_db, seed, draw)
        return soft, hard & (np.arange(len(hard)) % 4 > 0) if snr_db == 12.0 else hard

    monkeypatch.setattr(Paths, "correct", worse_at_12_db)
    found = check()
    assert (found.verdict, found.exit_code) == (Verdict.DIFFERENT, 1)
    assert found.summary.startswith(
        "different: at 12 dB the hard path is less accurate than the soft one by more than 5 points"
    )


def test_every_point_shares_alpha_with_the_others(check, monkeypatch):
    asked = []

    class Recorded(DifferenceTest):
        def __init__(self, *arguments):
            asked.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr("train.verify.DifferenceTest", Recorded)
    check(settings=VerifySettings(snr_db=(0.0, 6.0, 12.0), margin=0.05, alpha=0.1, max_draws=1))
    assert asked == [(0.05, 0.1, 3, None)] * 3


def test_draws_that_run_out_leave_it_undecided(check):
    found = check(settings=VerifySettings(snr_db=(6.0,), margin=0.001, max_draws=1))
    assert (found.verdict, found.exit_code) == (Verdict.UNDECIDED, 3)
    assert found.summary.startswith("undecided: at 6 dB 1 draws do not settle")


def test_a_surrogate_that_is_hard_already_is_said_to_prove_nothing(check, trained, tmp_path):
    described, model = checkpoints.load(trained.run)
    checkpoints.save(tmp_path, described.model_copy(update={"vq_temp": 1e-3}), model)
    found = check(checkpoint=tmp_path)
    assert found.surrogate.h_assign < 0.1
    assert found.verdict is Verdict.EQUIVALENT
    assert "hard already" in found.summary
    assert "proves nothing" in found.summary
    assert found.notes == ("the bundle was exported from another checkpoint file, by the hash in its manifest",)


def test_a_hard_path_that_is_better_by_the_margin_is_equivalent_with_a_note(check, monkeypatch):
    correct = Paths.correct

    def soft_worse(self, snr_db, seed, draw):
        soft, hard = correct(self, snr_db, seed, draw)
        return soft & (np.arange(len(soft)) % 4 > 0), hard

    monkeypatch.setattr(Paths, "correct", soft_worse)
    found = check()
    assert (found.verdict, found.two_sided) == (Verdict.EQUIVALENT, Verdict.DIFFERENT)
    assert "more accurate than the soft one" in found.notes[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0.0}, "margin"),
        ({"alpha": 0.9}, "alpha"),
        ({"max_draws": 0}, "max_draws"),
        ({"snr_db": (99.0,)}, r"snr_db must be in \[-30, 60\], got 99"),
        ({"snr_db": (6.0, 6.0)}, "snr_db must hold each point once"),
        ({"snr_db": ()}, "snr_db"),
    ],
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(ArgumentError, match=message):
        VerifySettings(**fields)


def test_labels_out_of_range_are_named(trained):
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 10\)"):
        verify(trained.bundle, trained.run, trained.inputs, trained.labels + 5)
    with pytest.raises(ArgumentError, match="labels must have shape"):
        verify(trained.bundle, trained.run, trained.inputs, trained.labels[:-1])


def test_a_graph_that_cannot_be_loaded_is_a_broken_bundle(check, trained, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(trained.bundle.path, folder)
    (folder / "receiver.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError):
        check(Bundle(folder, trained.bundle.manifest))
