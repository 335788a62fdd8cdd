"""Nothing passes the channel but symbols: with the reception of another sample, the answers say nothing of one's own label.

Test statistic: Pearson's chi-squared of answers against labels. Its distribution under independence comes from permuting
the labels, so that p is uniform where nothing leaks, whatever the receiver makes of its input.

What a receiver has of its own (link.side) it keeps, and that tells of the label by itself: which answers a question can
have at all. So there the answers must say nothing *beyond* it: given the side inputs, answers and labels are independent.
Under that hypothesis the labels of samples with equal side inputs can be exchanged, so they are permuted within these groups
alone, and the statistic is the sum of the groups': a conditional permutation test, as exact as the other where side inputs
have few values.
"""

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.randomness import Draws, permutation
from train.evaluate import tensors
from train.tasks import load_task

P_MIN = 1e-4
PERMUTATIONS = 20_000  # so that p can be as small as 1 / 20,001
SNR_DB = 12.0


def derangement(count, seed=1):
    """One cycle through all rows in random order, so that none stays: a shift would keep what neighbours share."""
    order = permutation(seed, count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def chi_squared(table):
    """Of (..., a, b) counts."""
    expected = table.sum(axis=-1, keepdims=True) * table.sum(axis=-2, keepdims=True)
    expected = expected / np.maximum(table.sum(axis=(-2, -1), keepdims=True), 1.0)
    terms = np.divide((table - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0)
    return terms.sum(axis=(-2, -1))


def p_value(answers, labels, seed=7, groups=None):
    """Share of permutations of the labels, within groups (n,) of rows, that depend on the answers as much as they do."""
    generator = np.random.default_rng(seed)
    classes = int(max(answers.max(), labels.max())) + 1
    groups = np.zeros(len(labels), dtype=np.int64) if groups is None else groups
    tables = int(groups.max()) + 1

    def statistic(of_labels):
        cells = (groups * classes + answers) * classes + of_labels
        offsets = np.arange(len(cells))[:, None] * tables * classes**2
        counts = np.bincount((cells + offsets).ravel(), minlength=len(cells) * tables * classes**2)
        return chi_squared(counts.reshape(-1, tables, classes, classes).astype(np.float64)).sum(axis=-1)

    found = statistic(labels[None])[0]
    reached, places = 0, np.argsort(groups, kind="stable")
    for _ in range(10):
        # In order of group, and at random within it: numbers from [0, 1) on top of the group's.
        order = np.argsort(groups + generator.random((PERMUTATIONS // 10, len(labels))), axis=-1)
        shuffled = np.empty_like(order)
        shuffled[:, places] = labels[order]
        reached += int((statistic(shuffled) >= found * (1.0 - 1e-12)).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


@pytest.fixture(scope="module", params=["digits", "signs", "routed", "second receiver"])
def link_and_split(request, digits_link, signs_bundle, routed_signs_bundle, questions_bundle):
    """Each task's bundle, one of several modes, and a second receiver, with rows that it was not trained on."""
    if request.param == "digits":
        return digits_link, load_task("digits").load(None).test
    if request.param == "second receiver":
        return Link(load_bundle(questions_bundle, "kind")), load_task("kinds").load(None).validation
    bundle = signs_bundle if request.param == "signs" else routed_signs_bundle
    return Link(load_bundle(bundle)), load_task("signs").load(None).validation


def decide(link, result, y, no, rows):
    """Answers to receptions, each with the header of the sample that it came from: that is part of the reception."""
    return link.receiver(y, no, None if result.header is None else result.header.mode[rows]).decisions


def receive(link, split):
    return link.transmit(split.inputs, Awgn(), SNR_DB, Draws(3, np.arange(len(split))))


def test_the_derangement_moves_every_row():
    for count in (2, 3, 360):
        other = derangement(count)
        assert sorted(other) == list(range(count))
        assert (other != np.arange(count)).all()


def test_with_the_reception_of_another_sample_the_answers_are_independent_of_the_labels(link_and_split):
    link, split = link_and_split
    other = derangement(len(split))
    result = receive(link, split)
    received = result.received
    answers = decide(link, result, received.y[other], received.no[other], other)
    # They are that sample's answers, which is what makes the test worth something.
    # Half of them: 25 standard deviations over chance for ten classes and 360 rows, 7 for four and 180.
    assert (answers == split.labels[other]).mean() > 0.5
    assert p_value(answers, split.labels) >= P_MIN


def test_with_plain_noise_the_answers_are_independent_of_the_labels(link_and_split):
    link, split = link_and_split
    result = receive(link, split)
    received = result.received
    noise = np.random.default_rng(5).normal(scale=0.5**0.5, size=received.y.shape).astype(np.float32)
    answers = decide(link, result, noise, received.no, np.arange(len(split)))
    assert len(np.unique(answers)) > 1
    assert p_value(answers, split.labels) >= P_MIN


def test_with_its_own_reception_the_answers_depend_on_the_labels(link_and_split):
    link, split = link_and_split
    assert p_value(receive(link, split).decoded.decisions, split.labels) < P_MIN


def test_the_test_finds_a_receiver_that_sees_the_mean_and_deviation_of_the_transmitters_tokens(
    digits_link, digits_model, digits_data
):
    """A published receiver normalised its embedding with them: they say the label, whatever was received."""

    def statistics(split):
        with torch.no_grad():
            tokens = digits_model.encoder(*tensors(load_task("digits"), split))
        found = torch.cat([tokens.mean(dim=-1), tokens.std(dim=-1)], dim=-1).numpy()
        return found

    # The nearest class mean of the statistics on the training set is all that this receiver looks at besides the symbols.
    known = statistics(digits_data.train)
    spread = known.std(axis=0)
    means = np.stack([known[digits_data.train.labels == digit].mean(axis=0) for digit in range(10)]) / spread

    def leaky_receiver(y, no, side):
        logits = digits_link.receiver(y, no).logits
        return (logits - ((side[:, None] / spread - means) ** 2).sum(axis=-1)).argmax(axis=-1)

    split = digits_data.test
    other = derangement(len(split))
    received = receive(digits_link, split).received
    answers = leaky_receiver(received.y[other], received.no[other], statistics(split))
    assert p_value(answers, split.labels) < P_MIN


def test_with_the_reception_of_another_sample_the_answers_say_nothing_beyond_the_receivers_question(asked_bundle):
    link, split = Link(load_bundle(asked_bundle)), load_task("asked").load(None).validation
    other, own = derangement(len(split)), link.side(split.inputs)
    received = receive(link, split).received
    answers = link.receiver(received.y[other], received.no[other], inputs=own).decisions
    # The other sample's reception is used: asked about it, they are right.
    asked_there = {name: values[other] for name, values in own.items()}
    there = link.receiver(received.y[other], received.no[other], inputs=asked_there).decisions
    assert (there == split.labels[other]).mean() > 0.9
    # The question alone makes answers and labels dependent, and within each question nothing is left of that.
    assert p_value(answers, split.labels) < P_MIN
    assert p_value(answers, split.labels, groups=own["question"]) >= P_MIN
    # One row in three that is told its own label is found there.
    told = np.where(np.arange(len(split)) % 3 == 0, split.labels, answers)
    assert p_value(told, split.labels, groups=own["question"]) < P_MIN


def test_p_within_groups_recomputed_one_permutation_at_a_time():
    """The same in plain loops, with permutations of its own: both are estimates of one p, each to 0.5 / sqrt(2000)."""
    generator = np.random.default_rng(4)
    groups = generator.integers(0, 3, 90)
    labels = 2 * (groups == 2) + generator.integers(0, 2, 90)
    answers = np.where(generator.random(90) < 0.2, labels, 2 * (groups == 2) + generator.integers(0, 2, 90))

    def statistic(of_labels):
        tables = np.zeros((3, 4, 4))
        for group, answer, label in zip(groups, answers, of_labels, strict=True):
            tables[group, answer, label] += 1
        return sum(float(chi_squared(table)) for table in tables)

    found, reached = statistic(labels), 0
    for _ in range(2000):
        shuffled = labels.copy()
        for group in range(3):
            here = np.flatnonzero(groups == group)
            shuffled[here] = labels[generator.permutation(here)]
        reached += statistic(shuffled) >= found * (1.0 - 1e-12)
    assert p_value(answers, labels, groups=groups) == pytest.approx(reached / 2000, abs=4 * 0.5 / 2000**0.5)


def test_p_is_small_for_dependence_and_not_for_independence():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 300)
    assert p_value(generator.integers(0, 4, 300), labels) >= P_MIN
    slight = np.where(generator.random(300) < 0.25, labels, generator.integers(0, 4, 300))
    assert p_value(slight, labels) < P_MIN


def test_chi_squared_recomputed_by_hand():
    # Expected counts are 4, 4, 4, 4.
    assert chi_squared(np.array([[6.0, 2.0], [2.0, 6.0]])) == 4.0
