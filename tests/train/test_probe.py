"""What a probe measures of a run's checkpoints, and the rules that live on it."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from train import checkpoint as checkpoints
from train.diagnosis import diagnose, read_run
from train.probe import probe
from train.record import METRICS_NAME
from train.run import train as train_recipe
from train.tasks import load_task
from train.transceiver import Transceiver


@pytest.fixture(scope="module")
def measured(signs_run):
    return probe(signs_run)


def wrong(folder):
    found = diagnose(folder, replace(read_run(folder), probe=probe(folder)))
    return {finding.name: finding for finding in found.findings if finding.kind == "wrong"}


def test_a_healthy_run_measures_as_it_recorded(signs_run, measured):
    for found in (measured.best, measured.last):
        kept = checkpoints.read(signs_run / found.name)
        assert (found.epoch, found.recorded_hard) == (kept.epoch, kept.mean_hard_accuracy)
        assert found.hard == pytest.approx(kept.hard_accuracy)
        assert found.soft == pytest.approx(kept.soft_accuracy)
        assert found.changed == ()
        # No module of the task acts otherwise in training.
        assert found.modes.training_as_trained == found.modes.training_as_evaluated
        assert found.mode_drift.frechet == 0.0
        assert 0.0 < found.set_drift.frechet < 0.3
        assert found.modes.rows == 200
    assert wrong(signs_run) == {}


def test_a_deep_diagnosis_says_what_was_measured(signs_run, measured):
    found = diagnose(signs_run, replace(read_run(signs_run), probe=measured))
    text = found.text()
    assert found.healthy
    assert f"hard {measured.last.hard_mean:.4f}; soft" in text
    for part in ("at T=1,", "at T=0.7,", "at T=0.5,", "at T=0.1", "evaluation changes no weight and no buffer"):
        assert part in text
    assert found.last_hard == measured.last.hard_mean


def test_probing_leaves_the_run_as_it_was(signs_run):
    before = {file: file.read_bytes() for file in signs_run.rglob("*") if file.is_file()}
    state = torch.random.get_rng_state()
    probe(signs_run)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {file: file.read_bytes() for file in signs_run.rglob("*") if file.is_file()} == before


def test_best_and_last_of_one_epoch_are_measured_once(signs_run, tmp_path):
    shutil.copytree(signs_run, tmp_path / "run")
    shutil.copy(signs_run / "last" / checkpoints.FILE_NAME, tmp_path / "run" / "best")
    found = probe(tmp_path / "run")
    assert (found.best.name, found.last.name) == ("best", "last")
    assert found.best.points == found.last.points


def test_a_run_without_a_link_has_nothing_to_measure(make_signs_recipe, tmp_path):
    def stop(record):
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_recipe(make_signs_recipe(), tmp_path, on_epoch=stop)
    assert probe(tmp_path) is None
    assert diagnose(tmp_path, read_run(tmp_path)).healthy


class Normalised(nn.Module):
    """An encoder whose output is normalised over the batch, its running statistics never moved."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.norm = nn.BatchNorm1d(12, momentum=0.0)

    def forward(self, signal, kind):
        tokens = self.inner(signal, kind)
        return self.norm(tokens.flatten(1) + 30.0 * torch.arange(12)).view(tokens.shape)


class Counting(nn.Module):
    """An encoder that counts its calls, in evaluation too."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, signal, kind):
        self.calls += 1.0
        return self.inner(signal, kind)


def sabotaged(recipe, folder, monkeypatch, wrapper):
    task = load_task("signs")
    encoder = task.encoder
    monkeypatch.setattr(task, "encoder", lambda tokens, dim: wrapper(encoder(tokens, dim)), raising=True)
    train_recipe(recipe, folder)


def test_batch_statistics_that_evaluation_does_not_have_are_named(signs_recipe, tmp_path, monkeypatch):
    sabotaged(signs_recipe, tmp_path, monkeypatch, Normalised)
    found = wrong(tmp_path)
    assert "modes-differ" in found
    assert "the same 200 rows give tokens" in found["modes-differ"].evidence
    assert "BatchNorm" in found["modes-differ"].steps[0].text


def test_an_evaluation_that_changes_a_buffer_is_named(signs_recipe, tmp_path, monkeypatch):
    sabotaged(signs_recipe, tmp_path, monkeypatch, Counting)
    found = wrong(tmp_path)
    assert set(found) == {"evaluation-changes-state"}
    assert found["evaluation-changes-state"].evidence == "evaluating changed encoder.calls"


def test_a_surrogate_that_differs_in_more_than_the_assignment_is_named(signs_run, monkeypatch):
    """Soft symbols turned by a quarter: no temperature makes them the points that are sent."""
    send = Transceiver.send_soft

    def turned(self, tokens, *temperatures):
        sent = send(self, tokens, *temperatures)
        return sent._replace(symbols=torch.stack([-sent.symbols[..., 1], sent.symbols[..., 0]], dim=-1))

    monkeypatch.setattr(Transceiver, "send_soft", turned)
    found = wrong(signs_run)
    assert "at T=0.1, where the assignment is hard" in found["surrogate-is-another"].evidence


def test_other_data_than_that_of_training_are_named(signs_run, monkeypatch):
    task = load_task("signs")
    data = task.load(None)
    shifted = replace(data.validation, labels=(data.validation.labels + 1) % 4)
    monkeypatch.setattr(task, "load", lambda folder: replace(data, validation=shifted))
    found = wrong(signs_run)
    assert "last (epoch 5) recorded hard" in found["not-reproduced"].evidence


def test_the_measured_collapse_stands_in_for_the_recorded_one(signs_run, tmp_path):
    """Metrics that tell of a healthy epoch, and a checkpoint whose codewords are one."""
    shutil.copytree(signs_run, tmp_path / "run")
    found, model = checkpoints.load(tmp_path / "run" / "last")
    model.quantizer.codebook[1:] = 100.0
    checkpoints.save(tmp_path / "run" / "last", found, model)
    assert diagnose(tmp_path, read_run(tmp_path / "run")).healthy
    names = set(wrong(tmp_path / "run"))
    assert {"accuracy-collapse", "codes-unused", "code-entropy", "same-codes", "not-reproduced"} <= names
    assert (tmp_path / "run" / METRICS_NAME).read_bytes() == (signs_run / METRICS_NAME).read_bytes()
