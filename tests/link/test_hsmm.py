"""The recursions against all paths, one by one, for which probabilities are products of the model's definition."""

import itertools

import numpy as np
import pytest
import torch

from link.durations import categorical, log_mean, negative_binomial
from link.errors import ArgumentError
from link.hsmm import Hsmm, forward_backward, log_conditional, log_evidence, log_joint
from link.log_space import log_softmax
from link.smoother import FixedLagSmoother
from link.viterbi import Segment, segments, viterbi

STARTS = ("boundary", "middle")
HORIZON = 300
IMPOSSIBLE = -np.inf


def random_model(seed, classes=3, longest=3, start="boundary", tail=True, holes=False):
    """A model; with holes, some of its probabilities are 0."""
    generator = np.random.default_rng(seed)
    initial, transition = generator.normal(size=classes), generator.normal(size=(classes, classes))
    logits = generator.normal(size=(classes, longest))
    if holes:
        initial[0] = transition[0, -1] = logits[0, 0] = logits[-1, -1] = IMPOSSIBLE
    np.fill_diagonal(transition, IMPOSSIBLE)
    stay = np.log(generator.uniform(0.2, 0.8, classes)) if tail else None
    return Hsmm.of(log_softmax(initial), log_softmax(transition), categorical(logits, stay), start)


def random_emissions(seed, *shape):
    return np.random.default_rng(seed + 1000).normal(size=shape)


class Enumeration:
    """All paths of a recording and their probabilities, P(path, windows)."""

    def __init__(self, model, emissions, start):
        self.windows, self.classes = emissions.shape
        weights, stay = np.exp(model.duration), np.exp(model.tail)[:, None]
        beyond = weights[:, -1:] * (1.0 - stay) * stay ** np.arange(HORIZON)
        exactly = np.concatenate([weights[:, :-1], beyond], axis=1)
        at_least = self._at_least(exactly)
        left = at_least / at_least.sum(axis=1, keepdims=True)
        self.later = exactly, at_least
        self.first = (exactly, at_least) if start == "boundary" else (left, self._at_least(left))
        self.model, self.emissions = model, np.exp(emissions)
        self.paths = list(itertools.product(range(self.classes), repeat=self.windows))
        self.probabilities = np.array([self.probability(path) for path in self.paths])

    @staticmethod
    def _at_least(exactly):
        return np.cumsum(exactly[:, ::-1], axis=1)[:, ::-1]

    def probability(self, path):
        stays = [(label, len(list(group))) for label, group in itertools.groupby(path)]
        found = np.exp(self.model.initial[path[0]]) * self.emissions[range(self.windows), path].prod()
        for i, (label, length) in enumerate(stays):
            law = self.first if i == 0 else self.later
            found *= law[int(i == len(stays) - 1)][label, length - 1]
            if i:
                found *= np.exp(self.model.transition[stays[i - 1][0], label])
        return found

    def marginals(self):
        found = np.zeros((self.windows, self.classes))
        for path, probability in zip(self.paths, self.probabilities, strict=True):
            found[range(self.windows), path] += probability
        return found / self.probabilities.sum()

    def best(self):
        """The most likely path, and of equal ones that of the first lowest label, shortest stay, and so on."""

        def rank(pair):
            return -round(np.log(pair[1]) if pair[1] else IMPOSSIBLE, 9), [
                (segment.label, segment.duration) for segment in segments(pair[0])
            ]

        return min(zip(self.paths, self.probabilities, strict=True), key=rank)


CASES = [
    pytest.param(seed, longest, start, tail, holes, id=f"{longest} rows, {start}, tail {tail}, holes {holes}")
    for seed, (longest, start, tail, holes) in enumerate(
        itertools.product((1, 2, 4), STARTS, (True, False), (True, False))
    )
    if not (longest == 1 and holes)
]


def case(seed, longest, start, tail, holes, windows=6):
    model = random_model(seed, longest=longest, start=start, tail=tail, holes=holes)
    emissions = random_emissions(seed, windows, 3)
    if holes:
        emissions[2, 1] = emissions[4, 0] = IMPOSSIBLE
    return model, emissions, Enumeration(model, emissions, start)


@pytest.mark.parametrize(("seed", "longest", "start", "tail", "holes"), CASES)
def test_marginals_and_evidence_are_those_of_all_paths(seed, longest, start, tail, holes):
    model, emissions, paths = case(seed, longest, start, tail, holes)
    found = forward_backward(model, emissions)
    np.testing.assert_allclose(np.exp(found.log_marginals), paths.marginals(), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(found.log_evidence, np.log(paths.probabilities.sum()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_evidence(model, emissions), found.log_evidence, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("seed", "longest", "start", "tail", "holes"), CASES)
def test_the_joint_probability_of_every_path_is_its_product(seed, longest, start, tail, holes):
    model, emissions, paths = case(seed, longest, start, tail, holes)
    every = np.broadcast_to(emissions, (len(paths.paths), *emissions.shape))
    joint = log_joint(model, every, np.array(paths.paths))
    np.testing.assert_allclose(np.exp(joint), paths.probabilities, rtol=1e-11, atol=0.0)
    assert ((joint == IMPOSSIBLE) == (paths.probabilities == 0.0)).all()


@pytest.mark.parametrize(("seed", "longest", "start", "tail", "holes"), CASES)
def test_the_path_of_viterbi_is_the_most_likely_of_all(seed, longest, start, tail, holes):
    model, emissions, paths = case(seed, longest, start, tail, holes)
    found = viterbi(model, emissions)
    path, probability = paths.best()
    assert found.labels.dtype == np.int64
    assert tuple(found.labels.tolist()) == path
    np.testing.assert_allclose(found.log_probability, np.log(probability), rtol=1e-12)
    np.testing.assert_allclose(found.log_probability, log_joint(model, emissions, found.labels), rtol=1e-12)


@pytest.mark.parametrize("start", STARTS)
def test_a_recording_of_one_behaviour_may_lie_in_the_middle_of_it(start):
    for windows in (1, 2, 5):
        model, emissions = random_model(4, longest=3, start=start), np.zeros((windows, 3))
        emissions[:, 2] = 20.0
        paths = Enumeration(model, emissions, start)
        found = viterbi(model, emissions)
        assert found.labels.tolist() == [2] * windows
        np.testing.assert_allclose(found.log_probability, np.log(paths.best()[1]), rtol=1e-13)


@pytest.mark.parametrize("start", STARTS)
def test_windows_without_a_label_are_summed_over(start):
    model, emissions, paths = case(3, 3, start, True, False)
    labels = np.array([-1, 1, -1, -1, 2, -1])
    matching = [all(label in (-1, own) for label, own in zip(labels, path, strict=True)) for path in paths.paths]
    np.testing.assert_allclose(log_joint(model, emissions, labels), np.log(paths.probabilities[matching].sum()))
    conditional = paths.probabilities[matching].sum() / paths.probabilities.sum()
    np.testing.assert_allclose(np.exp(log_conditional(model, emissions, labels)), conditional)


def test_a_small_case_by_hand():
    """Behaviour 0 lasts 2 windows, 1 lasts 1 or 2; they alternate. So 0010 and 0011 are as likely as each other."""
    swap = np.array([[IMPOSSIBLE, 0.0], [0.0, IMPOSSIBLE]])
    durations = categorical(np.array([[IMPOSSIBLE, 0.0], [0.0, 0.0]]))
    model = Hsmm.of(np.array([0.0, IMPOSSIBLE]), swap, durations)
    emissions = np.zeros((4, 2))
    emissions[3] = np.log([0.25, 0.75])
    found = forward_backward(model, emissions)
    np.testing.assert_allclose(np.exp(found.log_marginals), [[1, 0], [1, 0], [0, 1], [0.25, 0.75]], atol=1e-15)
    np.testing.assert_allclose(np.exp(found.log_evidence), 0.5)
    best = viterbi(model, emissions)
    assert best.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(np.exp(best.log_probability), 0.375)
    # In the middle of a behaviour 0, 1 or 2 of its windows are left, equally likely; then 001, 010 or 011.
    middle = Hsmm.of(np.array([0.0, IMPOSSIBLE]), swap, durations, "middle")
    found = forward_backward(middle, np.zeros((3, 2)))
    np.testing.assert_allclose(np.exp(found.log_marginals), [[1, 0], [0.5, 0.5], [0.25, 0.75]], atol=1e-15)


@pytest.mark.parametrize("longest", [1, 2, 7])
def test_geometric_durations_make_a_hidden_markov_model(longest):
    model, windows = random_model(5, classes=4), 30
    mean = np.array([1.2, 2.0, 5.0, 20.0])
    durations = negative_binomial(mean, np.ones(4), longest)
    emissions = random_emissions(5, windows, 4)
    stay = (1.0 - 1.0 / mean)[:, None]
    step = (1.0 - stay) * np.exp(random_model(5, classes=4).transition) + np.diag(stay[:, 0])
    weights = np.exp(emissions)
    forward, backward = [np.exp(model.initial) * weights[0]], [np.ones(4)]
    for weight in weights[1:]:
        forward.append(forward[-1] @ step * weight)
    for weight in weights[:0:-1]:
        backward.append(step @ (weight * backward[-1]))
    joint = np.stack(forward) * np.stack(backward[::-1])
    for start in STARTS:  # what has no memory does not know whether it has just begun
        found = forward_backward(Hsmm.of(model.initial, model.transition, durations, start), emissions)
        np.testing.assert_allclose(np.exp(found.log_marginals), joint / joint.sum(axis=1, keepdims=True), rtol=1e-10)
        np.testing.assert_allclose(found.log_evidence, np.log(forward[-1].sum()), rtol=1e-12)


def test_the_equilibrium_goes_on_in_the_middle_of_its_behaviours():
    model = random_model(6, classes=4, longest=5)
    transition = np.exp(model.transition)
    visits = np.linalg.lstsq(np.vstack([transition.T - np.eye(4), np.ones(4)]), np.eye(5)[4], rcond=None)[0]
    initial = np.log(visits) + log_mean(model.durations)
    stationary = Hsmm.of(log_softmax(initial), model.transition, model.durations, "middle")
    found = np.exp(forward_backward(stationary, np.zeros((25, 4))).log_marginals)
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), rtol=1e-12)


def test_what_lasts_longer_than_the_table_is_in_its_tail():
    model = random_model(7, longest=30)
    labels = np.full(60, 1)
    expected = model.initial[1] + model.duration[1, -1] + 30 * model.tail[1]
    np.testing.assert_allclose(log_joint(model, np.zeros((60, 3)), labels), expected, rtol=1e-12)
    closed = random_model(7, longest=30, tail=False)
    assert log_joint(closed, np.zeros((60, 3)), labels) == IMPOSSIBLE
    assert np.isfinite(log_joint(closed, np.zeros((60, 3)), np.repeat([0, 1], 30)))


def test_impossible_windows_have_no_evidence_and_no_marginals():
    model, emissions = random_model(8, longest=2, tail=False), np.zeros((4, 3))
    emissions[:, 1:] = IMPOSSIBLE
    found = forward_backward(model, emissions)
    assert found.log_evidence == log_evidence(model, emissions) == IMPOSSIBLE
    assert log_conditional(model, emissions, np.zeros(4, dtype=int)) == IMPOSSIBLE
    assert (found.log_marginals == IMPOSSIBLE).all()
    best = viterbi(model, emissions)
    assert best.labels.tolist() == [0, 0, 0, 0]
    assert best.log_probability == IMPOSSIBLE
    smoother = FixedLagSmoother(model)
    assert [bool(np.isfinite(smoother.push(emission)).any()) for emission in emissions] == [True, True, False, False]
    assert smoother.log_evidence == IMPOSSIBLE


def test_ties_go_to_the_lowest_label_first():
    for seed in range(10):
        generator = np.random.default_rng(seed)
        uniform = np.full((4, 4), -np.log(3.0))
        np.fill_diagonal(uniform, IMPOSSIBLE)
        durations = categorical(np.tile(generator.normal(size=3), (4, 1)), np.full(4, np.log(0.3)))
        model = Hsmm.of(np.full(4, -np.log(4.0)), uniform, durations)
        emissions = np.repeat(generator.normal(size=(5, 2)), 2, axis=1)
        expected, _ = Enumeration(model, emissions, "boundary").best()
        for found in (
            viterbi(model, emissions),
            viterbi(Hsmm(*map(torch.from_numpy, model)), torch.from_numpy(emissions)),
        ):
            assert tuple(found.labels.tolist()) == expected


def test_a_padded_batch_is_each_recording_alone():
    model = random_model(9, longest=4, start="middle")
    emissions, lengths = random_emissions(9, 4, 8, 3), [8, 1, 5, 3]
    present = np.arange(8) < np.array(lengths)[:, None]
    emissions[~present] *= 9.0
    labels = np.random.default_rng(9).integers(0, 3, (4, 8))
    found = forward_backward(model, emissions, present)
    conditional, joint = (
        log_conditional(model, emissions, labels, present),
        log_joint(model, emissions, labels, present),
    )
    for row, length in enumerate(lengths):
        alone, own = forward_backward(model, emissions[row, :length]), labels[row, :length]
        np.testing.assert_allclose(found.log_marginals[row, :length], alone.log_marginals, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.log_marginals[row, length:], alone.log_marginals[-1:].repeat(8 - length, 0))
        np.testing.assert_allclose(found.log_evidence[row], alone.log_evidence, rtol=1e-12)
        np.testing.assert_allclose(joint[row], log_joint(model, emissions[row, :length], own), rtol=1e-12)
        np.testing.assert_allclose(conditional[row], log_conditional(model, emissions[row, :length], own), rtol=1e-11)


def test_leading_dimensions_are_a_batch():
    model, emissions = random_model(10), random_emissions(10, 2, 3, 5, 3)
    found, best = forward_backward(model, emissions), viterbi(model, emissions)
    assert found.log_evidence.shape == (2, 3)
    for place in np.ndindex(2, 3):
        alone = forward_backward(model, emissions[place])
        np.testing.assert_allclose(found.log_marginals[place], alone.log_marginals, rtol=1e-12, atol=1e-12)
        assert best.labels[place].tolist() == viterbi(model, emissions[place]).labels.tolist()


@pytest.mark.parametrize("lag", [0, 1, 3, 20])
def test_a_window_is_answered_as_all_windows_until_then_have_it(lag):
    model, emissions = random_model(11, longest=4, start="middle", holes=True), random_emissions(11, 12, 3)
    smoother = FixedLagSmoother(model, lag)
    for _ in range(2):  # the second recording knows nothing of the first
        assert smoother.log_evidence == 0.0
        answers = []
        for t, emission in enumerate(emissions):
            answer = smoother.push(emission)
            until = forward_backward(model, emissions[: t + 1])
            np.testing.assert_allclose(smoother.log_evidence, until.log_evidence, rtol=1e-12)
            assert (answer is None) == (t < lag)
            if answer is not None:
                np.testing.assert_array_equal(answer, until.log_marginals[t - lag])
                answers.append(answer)
        rest = smoother.flush()
        np.testing.assert_array_equal(np.stack(rest), until.log_marginals[len(answers) :]) if lag else None
        assert len(answers) + len(rest) == 12
    assert smoother.flush() == []


def test_the_segments_of_a_path_are_its_stays():
    assert segments([2]) == (Segment(2, 0, 1),)
    assert segments([1, 1, 0, 1]) == (Segment(1, 0, 2), Segment(0, 2, 1), Segment(1, 3, 1))
    assert segments(np.zeros(0, dtype=int)) == ()


def good():
    return {name: table.copy() for name, table in random_model(12)._asdict().items()}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("initial", lambda x: x[:1], "initial must hold at least 2 classes, got shape (1,)"),
        ("initial", lambda x: x + 0.1, "initial must be logs of probabilities that sum to 1 in each row"),
        ("transition", lambda x: x[:2], "transition must have shape (3, 3), got (2, 3)"),
        ("transition", lambda x: x * np.nan, "transition must be logs of probabilities that sum to 1 in each row"),
        (
            "transition",
            lambda x: np.full((3, 3), -np.log(3.0)),
            "transition must have a diagonal of -inf: durations say how long a behaviour lasts",
        ),
        ("duration", lambda x: x[0], "duration must have shape (3, 1), got (3,)"),
        ("duration", lambda x: x[:, :0], "duration must have shape (3, 0), got (3, 0)"),
        ("duration", lambda x: x - 0.1, "duration must be logs of probabilities that sum to 1 in each row"),
        ("tail", lambda x: x * 0.0, "tail must be logs of probabilities below 1"),
        ("tail", lambda x: x[:2], "tail must have shape (3,), got (2,)"),
        ("first", lambda x: x[:, :2], "first must have shape (3, 3), got (3, 2)"),
        ("first", lambda x: x * 2.0, "first must be logs of probabilities that sum to 1 in each row"),
    ],
)
def test_tables_of_no_model_are_refused(name, change, message):
    tables = good()
    tables[name] = change(tables[name])
    with pytest.raises(ArgumentError) as error:
        Hsmm(**tables).check()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, e: forward_backward(m, e[:, :2]), "emissions must have shape (..., windows, 3), got (5, 2)"),
        (lambda m, e: viterbi(m, e[:0]), "emissions must have shape (..., windows, 3), got (0, 3)"),
        (lambda m, e: log_evidence(m, e * np.nan), "emissions must be finite or -inf, got NaN or +inf"),
        (lambda m, e: viterbi(m, e + np.inf), "emissions must be finite or -inf, got NaN or +inf"),
        (lambda m, e: FixedLagSmoother(m).push(e[0, :2]), "emissions must have shape (..., windows, 3), got (1, 2)"),
        (lambda m, e: FixedLagSmoother(m, -1), "lag must be at least 0, got -1"),
        (lambda m, e: forward_backward(m, e, np.ones(4, bool)), "present must have shape (5,), got (4,)"),
        (
            lambda m, e: forward_backward(m, e, np.arange(5) > 0),
            "present must be the first windows of each recording, at least one",
        ),
        (
            lambda m, e: forward_backward(m, e, np.arange(5) != 2),
            "present must be the first windows of each recording, at least one",
        ),
        (lambda m, e: log_joint(m, e, np.zeros(4, int)), "labels must have shape (5,), got (4,)"),
        (lambda m, e: log_conditional(m, e, np.full(5, 3)), "labels must be below 3, got 3"),
        (
            lambda m, e: Hsmm.of(m.initial, m.transition, categorical(m.duration), "end"),
            "start must be boundary or middle, got end",
        ),
        (lambda m, e: segments([0.5]), "labels must be integers of one recording, got float64 of shape (1,)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ArgumentError) as error:
        call(random_model(13), np.zeros((5, 3)))
    assert str(error.value) == message
