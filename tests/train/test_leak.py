"""Nothing passes the channel but symbols: with the reception of another sample, the answers say nothing of one's own label.

Test statistic: Pearson's chi-squared of answers against labels. Its distribution under independence comes from permuting
the labels, so that p is uniform where nothing leaks, whatever the receiver makes of its input.
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
    expected = expected / table.sum(axis=(-2, -1), keepdims=True)
    terms = np.divide((table - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0)
    return terms.sum(axis=(-2, -1))


def p_value(answers, labels, seed=7):
    """Share of permutations of the labels that depend on the answers as much as the labels themselves do."""
    generator = np.random.default_rng(seed)
    classes = int(max(answers.max(), labels.max())) + 1

    def statistic(of_labels):
        cells = answers * classes + of_labels
        offsets = np.arange(len(cells))[:, None] * classes**2
        counts = np.bincount((cells + offsets).ravel(), minlength=len(cells) * classes**2)
        return chi_squared(counts.reshape(-1, classes, classes).astype(np.float64))

    found = statistic(labels[None])[0]
    reached = 0
    for _ in range(10):
        shuffled = generator.permuted(np.tile(labels, (PERMUTATIONS // 10, 1)), axis=1)
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


def test_p_is_small_for_dependence_and_not_for_independence():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 300)
    assert p_value(generator.integers(0, 4, 300), labels) >= P_MIN
    slight = np.where(generator.random(300) < 0.25, labels, generator.integers(0, 4, 300))
    assert p_value(slight, labels) < P_MIN


def test_chi_squared_recomputed_by_hand():
    # Expected counts are 4, 4, 4, 4.
    assert chi_squared(np.array([[6.0, 2.0], [2.0, 6.0]])) == 4.0
