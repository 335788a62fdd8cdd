"""A receiver with inputs of its own: trained, exported, swept and verified (test_leak.py: nothing leaks)."""

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError
from link.randomness import Draws
from link.semantic import clean_decisions
from link.sequential import Verdict
from link.sweep import SweepSpec, sweep
from train.checkpoint import load
from train.evaluate import decide_without_link, evaluate
from train.measure import measure
from train.questions import QuestionHeads
from train.recipe import ChannelRecipe
from train.tasks import Split, load_task
from train.verify import VerifySettings, verify

SNR_DB = 12.0
TASKS = ("asked", "asked-at-both-ends")


@pytest.fixture(scope="module", params=TASKS)
def task(request, extra_tasks):
    return load_task(request.param)


@pytest.fixture(scope="module")
def split(task):
    return task.load(None).validation


@pytest.fixture(scope="module")
def run(task, asked_runs):
    return asked_runs(task.name)


@pytest.fixture(scope="module")
def bundle(run, export_run):
    return load_bundle(export_run(run))


@pytest.fixture(scope="module")
def link(bundle):
    return Link(bundle)


def side_of(split):
    return {name: split.inputs[name] for name in ("question", "weight")}


def test_the_manifest_names_what_the_receiver_has_of_its_own(link, task):
    manifest = link.manifest
    assert manifest.task.receiver_inputs == ("question", "weight")
    assert manifest.side_inputs == task.receiver_inputs == manifest.receiver.inputs[4:]
    both = task.name == "asked-at-both-ends"
    assert manifest.input_names == ("signal", "question", "weight")
    assert [spec.name for spec in manifest.task_inputs] == (["signal", "question"] if both else ["signal"])


def test_a_receiver_without_any_says_nothing_of_it(signs_bundle):
    assert "receiver_inputs" not in (signs_bundle / "manifest.json").read_text(encoding="utf-8")
    assert load_bundle(signs_bundle).manifest.side_inputs == ()


def test_the_answers_follow_the_question_of_the_receiver(link, split):
    """The same receptions, asked something else: answers of that question's own kind."""
    sent = link.encode(split.inputs, SNR_DB)
    draws = Draws(3, np.arange(len(split)))
    kinds = []
    for question in range(3):
        asked = side_of(split) | {"question": np.full(len(split), question)}
        kinds.append(link.carry(sent, Awgn(), SNR_DB, draws, asked).decoded.decisions // 2)
    assert [float(kind.mean()) for kind in kinds] == pytest.approx([0.0, 0.0, 1.0], abs=0.05)


def test_most_answers_are_right_and_all_ways_to_count_them_agree(link, run, task, split):
    described, model = load(run)
    spec = SweepSpec(snr_db=(6.0,), seed=described.recipe.seed, draws=2)
    swept = sweep(link, split.inputs, split.labels, spec).points[0].accuracy.value
    channel = ChannelRecipe(eval_snr_db=(6.0,), eval_draws=2)
    found = evaluate(model, task, split, channel, temperature=0.7, seed=spec.seed)
    (hard, *_) = measure(model, task, split, snr_db=(6.0,), draws=2, seed=spec.seed)
    assert found.hard[6.0] == swept == hard.accuracy.value > 0.9
    assert (clean_decisions(link, split.inputs) == decide_without_link(model, task, split)).mean() > 0.95


def test_workers_and_chunks_of_a_sweep_keep_each_sample_beside_its_side_inputs(link, split):
    spec = SweepSpec(snr_db=(0.0,), draws=2)
    whole = sweep(link, split.inputs, split.labels, spec)
    assert sweep(link, split.inputs, split.labels, spec, chunk_rows=7) == whole
    assert sweep(link, split.inputs, split.labels, spec, workers=2) == whole
    turned = dict(split.inputs) | {"question": split.inputs["question"][::-1].copy()}
    assert sweep(link, turned, split.labels, spec).points[0].accuracy.value < whole.points[0].accuracy.value - 0.2


def test_a_sample_is_answered_alike_in_any_batch(link, split):
    answers = link.receiver(np.zeros((9, 3, 2)), np.full((9, 3), np.inf), inputs=side_of_first(split, 9)).logits
    for row in range(9):
        own = {name: values[row : row + 1] for name, values in side_of(split).items()}
        alone = link.receiver(np.zeros((1, 3, 2)), np.full((1, 3), np.inf), inputs=own).logits
        np.testing.assert_allclose(alone[0], answers[row], atol=1e-5)


def side_of_first(split, count):
    return {name: values[:count] for name, values in side_of(split).items()}


def test_bundle_and_checkpoint_are_verified_by_all_stages(bundle, run, split):
    settings = VerifySettings(snr_db=(12.0,), margin=0.2, max_draws=40)
    found = verify(bundle, run, split.inputs, split.labels, settings)
    assert found.verdict is Verdict.EQUIVALENT, found.summary
    assert found.receiver.receptions > 0


def test_a_receiver_that_mixes_up_its_own_inputs_is_found(bundle, run, split, monkeypatch):
    """The comparison of receivers sees what each has of its own."""
    from link import runtime

    original = runtime.Receiver.run

    def asks_something_else(self, tensors):
        return original(self, {**tensors, "question": (tensors["question"] + 1) % 3})

    monkeypatch.setattr(runtime.Receiver, "run", asks_something_else)
    found = verify(bundle, run, split.inputs, split.labels, VerifySettings(snr_db=(12.0,), margin=0.2, max_draws=40))
    assert found.verdict is Verdict.DIFFERENT
    assert any("logits" in text for text in found.receiver.findings)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"question": None}, "inputs.question", "is missing"),
        ({"question": [0, 3]}, "inputs.question", r"must be in \[0, 2\], got \[0, 3\]"),
        ({"question": [0, 1, 2]}, "inputs.question", r"must have shape \(2\), got \(3\)"),
        ({"weight": [[0.5, np.nan]] * 2}, "inputs.weight", "must be finite"),
        ({"answer": [1, 2]}, "inputs.answer", "is unknown; this bundle takes question, weight"),
    ],
)
def test_a_wrong_input_of_the_receiver_is_named(link, change, field, message):
    inputs = {"question": [0, 1], "weight": [[0.5, 0.5]] * 2} | change
    inputs = {name: value for name, value in inputs.items() if value is not None}
    with pytest.raises(ArgumentError, match=message) as refused:
        link.receiver(np.zeros((2, 3, 2)), np.ones((2, 3)), inputs=inputs)
    assert refused.value.field == field


def test_a_receiver_without_any_refuses_what_it_is_given(signs_bundle):
    receiver = Link(load_bundle(signs_bundle)).receiver
    with pytest.raises(ArgumentError, match=r"inputs\.question is unknown"):
        receiver(np.zeros((1, 3, 2)), np.ones((1, 3)), inputs={"question": [0]})


def test_a_transmission_names_what_is_missing_at_either_end(link, split):
    for name in ("signal", "question", "weight"):
        inputs = {key: values[:2] for key, values in split.inputs.items() if key != name}
        with pytest.raises(ArgumentError, match=rf"inputs\.{name} is missing"):
            link.transmit(inputs, Awgn(), SNR_DB, Draws(0, np.arange(2)))


def test_heads_of_several_questions_and_a_pooled_one_pass_side_inputs_on(task):
    from train.defective import PooledHead

    head = task.head(3, 4)
    embedding, side = torch.ones(2, 3, 4), [torch.tensor([0, 2]), torch.ones(2, 2)]
    expected = head(embedding, *side)
    torch.testing.assert_close(QuestionHeads([head, head], [4, 4])(embedding, *side), torch.cat([expected] * 2, dim=-1))
    torch.testing.assert_close(PooledHead(head)(embedding, *side), expected)


def test_evaluation_reads_the_side_inputs_of_its_own_rows(run, task, split):
    """Chunks of a split: a chunk that took another's questions would answer otherwise."""
    _, model = load(run)
    channel = ChannelRecipe(eval_snr_db=(6.0,), eval_draws=1)
    whole, cut = (
        evaluate(model, task, split, channel, temperature=0.7, seed=0, chunk_rows=size) for size in (len(split), 50)
    )
    assert whole.hard == cut.hard
    turned = Split(dict(split.inputs) | {"question": split.inputs["question"][::-1].copy()}, split.labels)
    assert evaluate(model, task, turned, channel, temperature=0.7, seed=0).hard[6.0] < whole.hard[6.0] - 0.2
