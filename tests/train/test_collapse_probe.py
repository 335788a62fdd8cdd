"""What becomes of a codebook in evaluation, on codecs that are well and on some that are made ill, and the words for it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from link.randomness import permutation
from train import checkpoint as checkpoints
from train import collapse_probe
from train.collapse import TokenDrift
from train.collapse_answers import answers
from train.collapse_probe import FrozenEncoder, probe_collapse
from train.diagnosis import diagnose, read_run
from train.evaluate import noise
from train.objective import send
from train.probe import probe
from train.recipe import AlarmRecipe
from train.schedule import EpochPlan, Phase
from train.tasks import load_task
from train.transceiver import Transceiver

QUESTIONS = (
    "Does usage collapse at once when evaluation starts, or gradually over its batches?",
    "Are the same one or two codewords used for all samples?",
    "Do the encoder's features change their distribution between training and evaluation?",
    "Is the straight-through gradient detached in evaluation, and does it reach the encoder in training?",
    "Does it go away with the modules in training mode?",
    "What would a frozen encoder change?",
)


@pytest.fixture(scope="module")
def measured(signs_run):
    return probe(signs_run)


def examine(folder, spoil=lambda model: None):
    """The probe of the last checkpoint, its model spoilt."""
    found, model = checkpoints.load(folder / "last")
    spoil(model)
    task = load_task("signs")
    return probe_collapse((found, model), checkpoints.load(folder / "best"), task, task.load(None))


def said(measured, found, limits=None):
    """Answers by topic, as if `found` had been measured."""
    changed = measured.model_copy(update={"collapse": found})
    return {answer.topic: answer for answer in answers(changed, limits or AlarmRecipe())}


def test_a_healthy_run_answers_every_question_well(signs_run, measured):
    found = diagnose(signs_run, replace(read_run(signs_run), probe=measured))
    assert tuple(answer.question for answer in found.answers) == QUESTIONS
    assert all(answer.well for answer in found.answers)
    by_topic = {answer.topic: answer.answer for answer in found.answers}
    assert by_topic["course"] == "no collapse"
    assert by_topic["same-codes"] == by_topic["drift"] == "no"
    assert by_topic["gradient"] == "yes; it reaches it"
    assert by_topic["training-mode"] == "no difference to speak of"
    text = found.text()
    for answer in found.answers:
        assert f"   {answer.question}\n      {answer.answer}: {answer.evidence}" in text
    assert "nan" not in text
    assert len(found.model_dump(mode="json")["answers"]) == 6


def test_without_deep_nothing_is_answered(signs_run):
    found = diagnose(signs_run, read_run(signs_run))
    assert found.answers == ()
    assert "The codebook in evaluation" not in found.text()


class Spoilt(nn.Module):
    """An encoder whose output in evaluation becomes one point, behind so many batches."""

    def __init__(self, inner, batches):
        super().__init__()
        self.inner = inner
        self.left = batches

    def forward(self, signal, kind):
        tokens = self.inner(signal, kind)
        if self.training:
            return tokens
        self.left -= 1
        return (
            tokens if self.left >= 0 else torch.arange(tokens[0].numel()).view(tokens[0].shape).expand_as(tokens) + 0.0
        )


def spoil_after(batches):
    def spoil(model):
        model.encoder = Spoilt(model.encoder, batches)

    return spoil


def test_a_codebook_that_collapses_where_evaluation_starts_is_told(signs_run, measured):
    found = examine(signs_run, spoil_after(0))
    assert found.course.training > 3.0
    assert found.course.first == found.course.last == found.course.so_far_last
    assert found.course.first < 1.01  # three positions that send one codeword
    told = said(measured, found)
    assert told["course"].answer == "at once"
    assert told["same-codes"].answer == "yes"
    assert found.favourites.alone == 1.0
    assert told["drift"].answer.startswith("yes")
    assert not any(told[topic].well for topic in ("course", "same-codes", "drift"))


def test_a_codebook_that_collapses_as_evaluation_goes_on_is_told_from_one_that_does_at_once(signs_run, measured):
    found = examine(signs_run, spoil_after(3))
    course = found.course
    assert course.batches == 6
    assert course.first > 3.0
    assert course.middle == course.last < 1.01
    assert course.so_far_first > course.so_far_last > 1.5
    assert said(measured, found)["course"].answer == "gradually"


def test_one_codeword_in_training_and_evaluation_is_no_collapse_of_evaluation(signs_run, measured):
    def spoil(model):
        model.quantizer.codebook[1:] = 100.0

    found = examine(signs_run, spoil)
    told = said(measured, found)["course"]
    assert told.answer == "no, but few codewords are used in training already"
    assert not told.well


def test_two_codewords_are_all_that_a_codebook_of_two_has(measured):
    found = measured.collapse
    two = found.model_copy(
        update={
            "favourites": found.favourites.model_copy(update={"validation": 1.0}),
            "course": found.course.model_copy(update={"reachable": 2}),
        }
    )
    assert said(measured, two)["same-codes"].answer == "no"


def test_the_training_side_is_augmented_and_in_training_mode(signs_run, monkeypatch):
    """An augmentation that turns the signal about drifts, and is named as what does it."""
    task = load_task("signs")
    plain = examine(signs_run)
    augment = task.augment

    def turned(inputs, draws):
        given = augment(inputs, draws)
        return {"signal": -np.abs(given["signal"]), "kind": given["kind"]}

    monkeypatch.setattr(task, "augment", turned)
    found = examine(signs_run)
    assert plain.drift.tokens.frechet < 0.3 < 0.5 < found.drift.tokens.frechet
    assert found.drift.by_augmentation.frechet > 5 * plain.drift.by_augmentation.frechet
    assert said(probe(signs_run), found)["drift"].answer == "yes, most by the augmentation"


def test_features_are_what_the_encoder_gives_before_tokens_are_normalised(signs_run):
    """Twice as long features in training are the same tokens, but for what the normalisation adds to their variance."""

    class Louder(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, signal, kind):
            return self.inner(signal, kind) * (2.0 if self.training else 1.0)

    def spoil(model):
        model.encoder = Louder(model.encoder)

    plain, found = examine(signs_run), examine(signs_run, spoil)
    assert found.drift.tokens.frechet == pytest.approx(plain.drift.tokens.frechet, abs=0.01)
    assert found.drift.features.frechet > plain.drift.features.frechet + 0.3


@pytest.mark.parametrize("gradient", ["surrogate", "straight-through"])
def test_the_gradient_is_that_of_a_step_of_alignment(make_signs_recipe, train_run, gradient):
    run = train_run(make_signs_recipe(quantizer__gradient=gradient))
    found, model = checkpoints.load(run / "last")
    task = load_task("signs")
    part = task.load(None).train
    chosen = np.arange(32) * 200 // 32
    features = model.encoder(*(torch.from_numpy(part.inputs[spec.name][chosen]) for spec in task.inputs)).detach()
    features.requires_grad_()
    snr_db = float(np.mean(found.recipe.channel.train_snr_db))
    met = noise(found.recipe.seed, slice(0, 32), 0, snr_db, 3)
    settings = EpochPlan(5, Phase.ALIGNMENT, found.vq_temp, hard_forward=True, restarts=False)
    labels = torch.from_numpy(part.labels[chosen])
    tokens, past_link = model.quantizer.tokens(features), gradient == "straight-through"
    sent = send(model, tokens, labels, met.no, met.normals, settings, past_link=past_link)
    loss = nn.functional.cross_entropy(sent.answer.logits, labels)
    (expected,) = torch.autograd.grad(loss, features)
    flow = examine(run).gradient
    assert flow.straight_through == pytest.approx(float(expected.norm()), rel=1e-4)
    assert flow.reached == 1.0
    assert flow.surrogate > 0.0
    assert flow.without_link > 0.0
    assert not flow.graph_in_evaluation


def test_a_link_that_lets_no_gradient_back_is_named(signs_run, monkeypatch):
    given = Transceiver.send_soft

    def detached(self, *arguments):
        return given(self, *arguments)._replace(symbols=given(self, *arguments).symbols.detach())

    monkeypatch.setattr(Transceiver, "send_soft", detached)
    found = diagnose(signs_run, replace(read_run(signs_run), probe=probe(signs_run)))
    told = {answer.topic: answer for answer in found.answers}["gradient"]
    assert (told.answer, told.well) == ("yes; it does not reach it: the link holds it up", False)
    wrong = {finding.name: finding for finding in found.findings if finding.kind == "wrong"}
    assert "none comes back over the link to the encoder; without a link its norm is" in wrong["gradient"].evidence


def test_a_dead_head_is_told_from_a_dead_link(signs_run, measured):
    def spoil(model):
        for parameter in model.head.parameters():
            parameter.detach().zero_()

    found = examine(signs_run, spoil)
    assert found.gradient.reached == found.gradient.without_link == 0.0
    assert said(measured, found)["gradient"].answer.endswith("nor would it without a link: the head passes none")


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_an_evaluation_that_builds_a_graph_is_named(signs_run, measured, monkeypatch):
    monkeypatch.setattr(collapse_probe, "evaluate", collapse_probe.evaluate.__wrapped__)
    found = examine(signs_run)
    assert found.gradient.graph_in_evaluation
    assert said(measured, found)["gradient"].answer.startswith("no: evaluation builds a graph; ")


def test_what_a_frozen_encoder_leaves_is_what_the_codebook_moves(signs_run):
    """The last codebook's codewords in another order: every token changes its codeword, and the encoder none."""
    found, model = checkpoints.load(signs_run / "last")
    earlier = found.model_copy(update={"epoch": found.epoch - 1})
    task = load_task("signs")
    data = task.load(None)
    _, other = checkpoints.load(signs_run / "last")
    other.quantizer.codebook.copy_(other.quantizer.codebook[[1, 2, 3, 0]])
    moved = probe_collapse((found, other), (earlier, model), task, data).frozen
    assert moved == FrozenEncoder(
        first=4, last=5, drift=TokenDrift(0.0, 0.0), changed=1.0, codebook_alone=1.0, encoder_alone=0.0
    )
    _, turned = checkpoints.load(signs_run / "last")
    turned.encoder.layers[-1].weight.detach().neg_()
    turned.encoder.layers[-1].bias.detach().neg_()
    moved = probe_collapse((found, turned), (earlier, model), task, data).frozen
    assert moved.codebook_alone == 0.0
    assert moved.changed == moved.encoder_alone > 0.5
    assert moved.drift.frechet > 0.0  # these tokens lie about 0: turned round they are hardly distributed otherwise


def test_the_answer_says_what_freezing_saves_and_where_nothing_moved_that_nothing_was_measured(signs_run, measured):
    found = measured.collapse
    drift = TokenDrift(0.1, 0.2)
    frozen = FrozenEncoder(first=7, last=9, drift=drift, changed=0.4, codebook_alone=0.1, encoder_alone=0.35)
    told = said(measured, found.model_copy(update={"frozen": frozen}))["frozen-encoder"]
    assert told.answer == "30% fewer tokens that change their codeword"
    assert told.evidence.startswith("from epoch 7 to 9 40% of the tokens change their codeword, 10% with the codebook")
    same = frozen.model_copy(update={"codebook_alone": 0.5})
    assert said(measured, found.model_copy(update={"frozen": same}))["frozen-encoder"].answer == "nothing"
    assert said(measured, found.model_copy(update={"frozen": None}))["frozen-encoder"].answer == "not measured"


def test_best_and_last_of_one_epoch_have_nothing_to_freeze_between(signs_run, tmp_path):
    shutil.copytree(signs_run, tmp_path / "run")
    shutil.copy(signs_run / "last" / checkpoints.FILE_NAME, tmp_path / "run" / "best")
    assert probe(tmp_path / "run").collapse.frozen is None


def test_several_modes_are_probed_too(routed_run):
    found = probe(routed_run).collapse
    assert found.gradient.straight_through > 0.0
    assert found.course.training > 1.0


def test_a_probe_leaves_both_models_as_they_are(signs_run, same_tensors):
    loaded = [checkpoints.load(signs_run / name) for name in ("last", "best")]
    task = load_task("signs")
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for _, model in loaded]
    state = torch.random.get_rng_state()
    probe_collapse(*loaded, task, task.load(None))
    assert all(same_tensors(old, model.state_dict()) for old, (_, model) in zip(before, loaded, strict=True))
    assert not any(parameter.grad is not None for _, model in loaded for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batches_are_of_shuffled_rows(signs_run, measured):
    """As in training; the order is that of the run's seed."""
    found, model = checkpoints.load(signs_run / "last")
    task = load_task("signs")
    data = task.load(None)
    order = permutation(found.recipe.seed, 200)
    chosen = (np.arange(200) * 270 // 200)[order[:32]]
    with torch.no_grad():
        tokens = model.encode(*(torch.from_numpy(data.validation.inputs[spec.name][chosen]) for spec in task.inputs))
    counts = torch.bincount(model.quantizer.hard(tokens).flatten(), minlength=4).double()
    shares = counts[counts > 0] / counts.sum()
    assert measured.collapse.course.first == pytest.approx(float(torch.exp(-(shares @ shares.log()))), rel=1e-6)
    assert (measured.collapse.course.rows, measured.collapse.course.batches) == (32, 6)
