"""What answers rest on: with the latent gone, no more than the question; and the figures that say how much that is."""

import itertools

import numpy as np
import pytest
import torch

from link.errors import ArgumentError
from train.checkpoint import load
from train.intervention import (
    answer_groups,
    decide,
    derangement,
    groups_of,
    independent_accuracy,
    intervene,
    most_frequent,
    question_prior,
    require_intervention,
)
from train.tasks import Split, load_task


@pytest.fixture(scope="module")
def task(extra_tasks):
    return load_task("asked")


@pytest.fixture(scope="module")
def data(task):
    """Without what is different in every row, so that questions are the same in many."""
    whole = task.load(None)
    parts = [
        Split({**part.inputs, "weight": np.zeros_like(part.inputs["weight"])}, part.labels)
        for part in (whole.train, whole.validation)
    ]
    return parts


@pytest.fixture(scope="module")
def model(asked_runs):
    return load(asked_runs("asked"))[1]


@pytest.fixture(scope="module")
def found(model, task, data):
    measured = intervene(model, task, *data, ("none", "zero", "noise", "swap"), snr_db=12.0, seed=1)
    return {one.kind: one for one in measured}


def test_untouched_the_answers_are_the_labels_and_beat_both_priors(found):
    one = found["none"]
    assert one.accuracy.value > 0.9
    assert one.accuracy.low > max(one.question_prior, one.independent)
    # Two or three answers to each question, about as often.
    assert 0.4 < one.question_prior < 0.6


@pytest.mark.parametrize("kind", ["zero", "noise", "swap"])
def test_without_its_latent_a_sample_is_answered_by_chance(found, kind):
    one = found[kind]
    assert one.accuracy.low <= one.independent <= one.accuracy.high
    assert one.accuracy.value < found["none"].accuracy.low


def test_without_any_latent_one_question_has_one_answer(model, task, data):
    split = data[1]
    groups = groups_of(task, split)
    answers = decide(model, task, split, "zero", groups.image, snr_db=12.0, seed=1)
    for question in range(3):
        assert len(set(answers[split.inputs["question"] == question])) == 1
    assert len(set(answers)) > 1


def test_a_receiver_that_leaks_is_above_chance_by_more_than_its_interval(model, task, data, monkeypatch):
    """Its own label in one row of three, whatever was received."""
    import train.intervention as intervention

    original, split = intervention.decide, data[1]

    def leaky(*arguments, **settings):
        answers = original(*arguments, **settings)
        return np.where(np.arange(len(answers)) % 3 == 0, split.labels, answers)

    monkeypatch.setattr(intervention, "decide", leaky)
    (one,) = intervene(model, task, *data, ("swap",), snr_db=12.0, seed=1)
    assert one.accuracy.low > one.independent


def test_accuracies_are_those_of_the_link_where_nothing_is_done(model, task, data, found):
    from train.measure import measure

    (point,) = measure(model, task, data[1], snr_db=(12.0,), draws=1, paths=("hard",), seed=1)
    assert point.accuracy.value == found["none"].accuracy.value


def test_every_row_gets_the_latent_of_another_image():
    generator = np.random.default_rng(0)
    for images in (2, 3, 40):
        image = generator.permutation(np.concatenate([np.arange(images), generator.integers(0, images, 90)]))
        other = derangement(image, seed=3)
        assert (image[other] != image).all()
        # One image is exchanged for one.
        assert all(len(set(image[other][image == own])) == 1 for own in range(images))
    with pytest.raises(ArgumentError, match="swap must have samples of two inputs or more"):
        derangement(np.zeros(4, dtype=np.int64), seed=3)


def test_independent_accuracy_is_the_mean_over_all_exchanges_within_a_question():
    question = np.array([0, 0, 0, 1, 1, 1])
    answers, labels = np.array([0, 1, 1, 2, 2, 3]), np.array([1, 1, 0, 3, 2, 2])
    every = [
        (answers == np.concatenate([labels[list(first)], labels[list(second)]])).mean()
        for first in itertools.permutations(range(3))
        for second in itertools.permutations(range(3, 6))
    ]
    assert independent_accuracy(question, answers, labels) == pytest.approx(np.mean(every))


def test_the_question_prior_is_learned_from_training_rows_alone(task):
    def split(questions, labels):
        count = len(questions)
        inputs = {
            "signal": np.zeros((count, 6), np.float32),
            "question": np.array(questions),
            "weight": np.zeros((count, 2), np.float32),
        }
        return Split(inputs, np.array(labels))

    train, asked = split([0, 0, 0, 1, 1], [1, 1, 0, 3, 3]), split([0, 1, 2], [0, 2, 2])
    # Question 2 was never asked in training: the answer most frequent there, the lowest of two as frequent.
    assert question_prior(task, train, asked, 4).tolist() == [1, 3, 1]


def test_rows_are_grouped_by_what_either_end_has_alone(task, data):
    groups = groups_of(task, data[1])
    same = groups.question[:, None] == groups.question
    asked = data[1].inputs["question"]
    np.testing.assert_array_equal(same, asked[:, None] == asked)
    assert len(np.unique(groups.image)) == len(data[1])
    both = load_task("asked-at-both-ends")
    np.testing.assert_array_equal(groups_of(both, data[1]).image, groups.image)


def test_answers_are_grouped_by_kind_where_the_task_knows_kinds(task):
    class Kinds:
        classes = task.classes
        kinds = np.array([0, 0, 2, 2])

    labels = np.array([0, 3, 1, 2, 2])
    assert [(name, rows.tolist()) for name, rows in answer_groups(Kinds(), labels)] == [
        ("all", [0, 1, 2, 3, 4]),
        ("minus/plus", [0, 2]),
        ("different/same", [1, 3, 4]),
    ]
    assert [name for name, _ in answer_groups(task, labels)] == ["all"]


def test_the_most_frequent_label_of_a_group_is_its_oracle():
    groups, labels = np.array([1, 0, 1, 1, 0]), np.array([2, 0, 2, 1, 3])
    assert most_frequent(groups, labels).tolist() == [2, 0, 2, 2, 0]


def test_a_link_of_several_modes_is_refused(routed_run, task):
    routed = load(routed_run)[1]
    signs = load_task("signs")
    data = signs.load(None)
    with pytest.raises(ArgumentError, match="must be absent for a link of several modes"):
        intervene(routed, signs, data.train, data.validation, ("zero",), snr_db=12.0, seed=0)


def test_a_task_that_answers_texts_is_refused(model):
    texts = load_task("text-reconstruction")
    with pytest.raises(ArgumentError, match="must be absent: text-reconstruction answers texts"):
        require_intervention(model, texts)


def test_where_nothing_is_asked_of_an_image_it_has_no_prior_of_its_own(signs_run):
    signs = load_task("signs")
    data = signs.load(None)
    (one,) = intervene(load(signs_run)[1], signs, data.train, data.validation, ("zero",), snr_db=12.0, seed=0)
    frequent = np.bincount(data.train.labels).argmax()
    assert one.question_prior == float((data.validation.labels == frequent).mean())
    assert one.image_prior is None


def test_noise_has_the_power_that_reaches_the_receiver():
    from train.intervention import _met

    symbols = torch.zeros(4000, 3, 2)
    y, no = _met(symbols, "noise", slice(0, 4000), 3.0, 0)
    assert float(no[0, 0]) == pytest.approx(10**-0.3)
    # 12,000 symbols: four standard errors of a mean of exponential powers.
    assert float(y.square().sum(dim=-1).mean()) == pytest.approx(1.0 + 10**-0.3, rel=4 / 12_000**0.5)
