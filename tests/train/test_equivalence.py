"""The two paths that are compared, and when their comparison stops."""

import numpy as np
import pytest
import torch

from link.channel import Awgn
from link.randomness import Draws
from link.sequential import DifferenceTest, Verdict
from train.equivalence import Paths, compare_at, surrogate

SAMPLES = 300


@pytest.fixture(scope="module")
def samples(digits_data):
    return digits_data.test.inputs["image"][:SAMPLES], digits_data.test.labels[:SAMPLES]


def test_a_surrogate_hardened_to_the_limit_sends_the_hard_symbols(digits_model, digits_link, samples):
    images, _ = samples
    hard = digits_link.transmitter({"image": images}).symbols
    soft, measured = surrogate(digits_model, [torch.from_numpy(images)], 1e-6, hard)
    assert np.allclose(soft, hard, atol=1e-4)
    assert measured.soft_es_db == pytest.approx(measured.hard_es_db, abs=1e-3)


def test_the_hard_path_is_the_deployed_link(digits_model, digits_link, samples):
    images, labels = samples
    sent = digits_link.transmitter({"image": images})
    paths = Paths(digits_model, sent.symbols, digits_link.receiver, sent, labels)
    soft, hard = paths.correct(3.0, 7, 2)
    deployed = digits_link.carry(sent, Awgn(), 3.0, Draws(7, np.arange(SAMPLES), 2))
    assert ((deployed.decoded.decisions == labels) == hard).all()
    # The same symbols on the same noise, through torch: only rounding could tell them apart.
    assert (soft == hard).all()
    silent = paths._replace(soft_symbols=np.zeros_like(sent.symbols)).correct(3.0, 7, 2)
    assert silent[0].mean() < 0.5
    assert (silent[1] == hard).all()


def test_a_point_stops_drawing_when_it_is_settled():
    class Agreeing:
        labels = np.zeros(SAMPLES)

        def correct(self, snr_db, seed, draw):
            return np.ones(SAMPLES, dtype=bool), np.ones(SAMPLES, dtype=bool)

    point = compare_at(Agreeing(), 0.0, DifferenceTest(0.01), seed=0, max_draws=200)
    assert (point.verdict, point.two_sided) == (Verdict.EQUIVALENT, Verdict.EQUIVALENT)
    assert point.draws < 10
    assert point.decisions == point.draws * SAMPLES


def test_a_point_counts_what_each_path_got_right():
    class Disagreeing:
        labels = np.zeros(SAMPLES)

        def correct(self, snr_db, seed, draw):
            return np.arange(SAMPLES) >= 3, np.arange(SAMPLES) < SAMPLES - 6

    point = compare_at(Disagreeing(), 0.0, DifferenceTest(0.01), seed=0, max_draws=2)
    assert (point.draws, point.soft_only, point.hard_only) == (2, 12, 6)
    assert (point.acc_soft, point.acc_hard, point.delta) == pytest.approx((0.99, 0.98, 0.01))
    assert point.low < point.delta < point.high
    assert point.verdict is Verdict.UNDECIDED
