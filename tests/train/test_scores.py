"""Scores of decisions against another library's, and the interval of a gain against what it must cover."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from train.scores import gain_in_f1, macro_f1, scores


def decided(seed, rows=500, classes=6, right=0.7):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    wrong = random.integers(0, classes, rows)
    return labels, np.where(random.random(rows) < right, labels, wrong)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_macro_f1_are_scikit_learns(seed):
    labels, decisions = decided(seed)
    probabilities = np.eye(6)[decisions] * 0.9 + 0.1 / 6
    found = scores(probabilities, labels)
    assert found.accuracy == pytest.approx(accuracy_score(labels, decisions), abs=1e-12)
    assert found.macro_f1 == pytest.approx(f1_score(labels, decisions, average="macro"), abs=1e-12)


def test_a_class_that_is_decided_and_never_there_counts_and_one_that_is_neither_does_not():
    labels, decisions = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    assert macro_f1(decisions, labels, 5) == pytest.approx((1.0 + 2 / 3 + 0.0) / 3)


def test_calibration_error_is_0_where_confidence_is_the_share_of_right_answers():
    confidence = np.repeat([0.6, 0.9], 1000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.concatenate([np.arange(1000) >= 600, np.arange(1000) >= 900]).astype(np.int64)
    assert scores(probabilities, labels).calibration_error == pytest.approx(0.0, abs=1e-12)
    assert scores(probabilities, 1 - labels).calibration_error == pytest.approx((0.2 + 0.8) / 2)


def test_a_certain_and_wrong_answer_is_wholly_uncalibrated():
    assert scores(np.array([[1.0, 0.0]]), np.array([1])).calibration_error == 1.0


def test_the_gain_is_that_of_the_scores_and_its_interval_is_of_whole_recordings():
    labels, worse = decided(1, rows=600)
    _, better = decided(2, rows=600)
    better = np.where(np.arange(600) % 3 == 0, labels, worse)
    recording = np.repeat(np.arange(60), 10)
    gain, low, high = gain_in_f1(better, worse, labels, recording, 6)
    expected = f1_score(labels, better, average="macro") - f1_score(labels, worse, average="macro")
    assert gain == pytest.approx(expected, abs=1e-12)
    assert low < gain < high
    # Every recording five times over is five times as many windows and no more recordings.
    times = [np.tile(values, 5) for values in (better, worse, labels, recording)]
    assert gain_in_f1(*times, 6)[1:] == pytest.approx((low, high), abs=1e-12)
    # As many windows in more recordings tell more.
    apart = gain_in_f1(*times[:3], np.repeat(np.arange(300), 10), 6)
    assert apart[2] - apart[1] < 0.6 * (high - low)


def test_decisions_do_not_gain_on_themselves():
    labels, decisions = decided(4)
    assert gain_in_f1(decisions, decisions, labels, np.arange(500) // 7, 6) == (0.0, 0.0, 0.0)
