"""Several questions of one input: each row is asked its own, and a bundle has a receiver for each."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, CheckpointError
from link.randomness import Draws
from link.sequential import Verdict
from train.checkpoint import load, task_of
from train.evaluate import evaluate, tensors
from train.objective import send, terms_of
from train.questions import ask, asked, chance, within_question
from train.record import read_metrics
from train.schedule import EpochPlan, Phase
from train.tasks import load_task, questions_of, task_of_manifest
from train.verify import VerifySettings, verify

LOGITS = torch.tensor([[3.0, 1.0, 9.0, 8.0, 7.0], [9.0, 8.0, 1.0, 2.0, 3.0], [0.0, 5.0, 6.0, 7.0, 8.0]])
LABELS = torch.tensor([1, 2, 0])
SIZES = (2, 3)


@pytest.fixture(scope="module")
def data(extra_tasks):
    return load_task("signs-and-kinds").load(None)


def test_a_row_is_decided_among_the_classes_of_its_own_question():
    assert within_question(LOGITS, LABELS, SIZES).argmax(dim=-1).tolist() == [0, 4, 1]
    assert within_question(LOGITS, LABELS, ()) is LOGITS


def test_the_loss_of_a_row_is_that_of_its_questions_head_alone():
    wanted = [
        functional.cross_entropy(LOGITS[:1, :2], torch.tensor([1])),
        functional.cross_entropy(LOGITS[1:2, 2:], torch.tensor([0])),
        functional.cross_entropy(LOGITS[2:, :2], torch.tensor([0])),
    ]
    logits = LOGITS.clone().requires_grad_()
    found = functional.cross_entropy(within_question(logits, LABELS, SIZES), LABELS, reduction="none")
    torch.testing.assert_close(found, torch.stack(wanted))
    found.sum().backward()
    assert torch.equal(logits.grad == 0, torch.tensor([[0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]).bool())


def test_chance_is_the_most_frequent_class_of_each_question():
    assert chance(np.array([0, 0, 1, 2, 3, 3, 4, 4, 4]), (2, 3)) == 5 / 9
    assert chance(np.array([0, 0, 0]), (2, 3)) == 1.0


def test_training_and_measuring_ask_each_row_its_own_question(questions_run, data):
    """Recomputed head by head: neither the loss nor an accuracy mixes the questions."""
    described, model = load(questions_run)
    recipe, split = described.recipe, data.validation
    inputs, labels = tensors(load_task("signs-and-kinds"), split), torch.from_numpy(split.labels)
    no, normals = torch.full((len(split), 6), 1e-6), torch.zeros(len(split), 6, 2)
    settings = EpochPlan(5, Phase.ALIGNMENT, 0.7, hard_forward=True, restarts=False)
    with torch.no_grad():
        sent = send(model, model.encode(*inputs), labels, no, normals, settings)
        terms = terms_of(model, sent, settings, recipe.loss)
        logits = [head(sent.answer.embedding) for head in model.head.heads]
    kind = labels >= 4
    losses = [
        functional.cross_entropy(logits[0][~kind], labels[~kind], reduction="sum"),
        functional.cross_entropy(logits[1][kind], labels[kind] - 4, reduction="sum"),
    ]
    torch.testing.assert_close(terms.values["task"], sum(losses) / len(split))
    answers = torch.where(kind, 4 + logits[1].argmax(dim=-1), logits[0].argmax(dim=-1))
    assert sent.correct == int((answers == labels).sum())
    # 60 dB is the noise of next to none above.
    channel = recipe.channel.model_copy(update={"eval_snr_db": (60.0,), "eval_draws": 1})
    found = evaluate(model, load_task("signs-and-kinds"), split, channel, temperature=0.7, seed=0)
    assert found.hard[60.0] == pytest.approx(sent.correct / len(split), abs=2 / len(split))
    assert found.hard_loss == pytest.approx(float(terms.values["task"]), rel=1e-2)


def test_both_questions_are_learned_over_one_bit_stream(questions_run, questions_bundle, data):
    record = read_metrics(questions_run)[-1]
    assert record.hard_mean > record.chance + 0.3
    for name, split in (("sign", load_task("signs")), ("kind", load_task("kinds"))):
        rows = split.load(None).validation
        link = Link(load_bundle(questions_bundle, name))
        decided = link.transmit(rows.inputs, Awgn(), 15.0, Draws(1, np.arange(len(rows)))).decoded.decisions
        assert (decided == rows.labels).mean() > np.bincount(rows.labels).max() / len(rows) + 0.3


def test_a_bundle_has_a_receiver_for_each_question_and_one_transmitter(questions_run, questions_bundle):
    manifest = load_bundle(questions_bundle).manifest
    assert manifest.receiver_names == ("sign", "kind")
    assert {file.name for file in questions_bundle.iterdir()} == {
        "manifest.json",
        "transmitter.onnx",
        "receiver.onnx",
        "receiver-kind.onnx",
    }
    other = load_bundle(questions_bundle, "kind").manifest
    assert other.task.classes == load_task("kinds").classes
    assert (other.task.question, manifest.task.question) == ("kind", "sign")
    assert other.transmitter == manifest.transmitter
    assert other.provenance == manifest.provenance
    assert task_of_manifest(other).classes == other.task.classes


@pytest.mark.parametrize("name", ["sign", "kind"])
def test_each_receiver_is_its_head_on_the_same_embedding(questions_run, questions_bundle, data, name):
    model = load(questions_run)[1]
    link = Link(load_bundle(questions_bundle, name))
    found = link.transmit(data.test.inputs, Awgn(), 6.0, Draws(2, np.arange(len(data.test))))
    with torch.no_grad():
        heard = model.receive(torch.from_numpy(found.received.y), torch.from_numpy(found.received.no))
    first, last = (0, 4) if name == "sign" else (4, 9)
    np.testing.assert_allclose(found.decoded.logits, heard.logits[:, first:last].numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["sign", "kind"])
def test_each_receiver_is_verified_against_its_own_question(questions_run, questions_bundle, name):
    rows = load_task({"sign": "signs", "kind": "kinds"}[name]).load(None).validation
    settings = VerifySettings(snr_db=(12.0,), margin=0.2, max_draws=40)
    found = verify(load_bundle(questions_bundle, name), questions_run, rows.inputs, rows.labels, settings)
    assert (found.verdict, found.notes) == (Verdict.EQUIVALENT, ())
    assert found.receiver_sha256 == load_bundle(questions_bundle, name).manifest.receiver.sha256


def test_a_receiver_that_answers_another_question_is_found_different(questions_run, questions_bundle):
    swapped = load_bundle(questions_bundle, "kind")
    task = swapped.manifest.task.model_copy(update={"question": "sign"})
    wrong = type(swapped)(swapped.path, swapped.manifest.model_copy(update={"task": task}))
    rows = load_task("kinds").load(None).validation
    found = verify(wrong, questions_run, rows.inputs, rows.labels, VerifySettings(snr_db=(12.0,)))
    assert found.verdict is Verdict.DIFFERENT
    assert "classes" in found.manifest.findings[0]


def test_a_question_that_the_checkpoint_lacks_is_refused(questions_run, signs_run):
    described, model = load(questions_run)
    with pytest.raises(CheckpointError, match="no question 'colour': its questions are sign, kind"):
        ask(model, task_of(described), "colour")
    described, model = load(signs_run)
    with pytest.raises(CheckpointError, match="no question 'sign': it has one question, without a name"):
        ask(model, task_of(described), "sign")
    assert questions_of(task_of(described)) == {}


def test_asking_one_question_leaves_the_model_of_all_as_it_was(questions_run):
    described, model = load(questions_run)
    alone, task = ask(model, task_of(described), "kind")
    assert alone.head is model.head.heads[1]
    assert task.classes == load_task("kinds").classes
    assert asked(alone.head, LOGITS, LABELS) is LOGITS
    assert len(list(model.head.heads)) == 2


def test_an_unknown_receiver_is_answered_with_the_known_ones(questions_bundle):
    with pytest.raises(ArgumentError, match="receiver must be one of kind, sign, got 'colour'"):
        load_bundle(questions_bundle, "colour")
