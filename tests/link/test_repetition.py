import math

import numpy as np
import pytest
from scipy.stats import binom

from link.bits import label_bits
from link.channel import build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from link.repetition import repeats, repetition_ber, repetition_link, sweep_repetition
from link.sweep import SweepSpec

FALSE_ALARM = 1e-6
RECEPTIONS = 40_000


def received(num_classes, num_symbols, channel, snr_db, seed=0):
    sent = np.arange(RECEPTIONS) % num_classes
    draws = Draws(seed, np.arange(RECEPTIONS))
    return sent, repetition_link(sent, num_classes, num_symbols, build_channel(channel), snr_db, draws)


def between(count, trials, chance):
    return binom.ppf(FALSE_ALARM / 2, trials, chance) <= count <= binom.isf(FALSE_ALARM / 2, trials, chance)


@pytest.mark.parametrize(("num_classes", "num_symbols"), [(2, 3), (4, 4), (8, 4), (16, 7), (16, 2)])
@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 4.0])
def test_each_bit_and_each_class_fails_as_often_as_the_closed_form_says(num_classes, num_symbols, snr_db):
    sent, answers = received(num_classes, num_symbols, "awgn", snr_db)
    width = (num_classes - 1).bit_length()
    times = repeats(num_classes, num_symbols)
    rates = repetition_ber(snr_db, times)
    wrong = (label_bits(sent, width) != label_bits(answers, width)).sum(axis=0)
    # All numbers of a power of two are classes, so the bits are decided one by one.
    for count, rate in zip(wrong, rates, strict=True):
        assert between(count, RECEPTIONS, rate)
    assert between((sent == answers).sum(), RECEPTIONS, np.prod(1 - rates))


def test_the_closed_form_is_the_tail_of_the_normal_distribution():
    assert repetition_ber(3.0, 5) == pytest.approx(0.5 * math.erfc(math.sqrt(5 * 10**0.3 / 2)), rel=1e-13)


def test_two_looks_at_fast_fading_have_the_error_rate_of_diversity_two():
    """Maximum-ratio combining: Proakis and Salehi, "Digital Communications" (5th ed.), section 13.4, with L = 2."""
    snr_db = 8.0
    sent, answers = received(4, 2, "rayleigh-fast", snr_db)
    snr = 10 ** (snr_db / 10) / 2  # a bit of QPSK has half the symbol's power
    mu = math.sqrt(snr / (1 + snr))
    rate = ((1 - mu) / 2) ** 2 * (1 + 2 * (1 + mu) / 2)
    for bit in range(2):
        wrong = (label_bits(sent, 2) != label_bits(answers, 2))[:, bit].sum()
        assert between(wrong, RECEPTIONS, rate)


def test_a_number_that_no_class_has_is_never_answered_and_helps_the_class_it_was_near():
    sent, answers = received(5, 3, "awgn", -3.0)
    assert set(answers) == set(range(5))
    # 4 = 100 is the only class that starts with 1: receptions near 101, 110 and 111 may still be decided for it.
    right = (answers[sent == 4] == 4).sum()
    bit_by_bit = np.prod(1 - repetition_ber(-3.0, repeats(5, 3)))
    assert right > binom.isf(FALSE_ALARM, (sent == 4).sum(), bit_by_bit)


def test_bits_are_repeated_as_evenly_as_they_can_be():
    for num_classes in (2, 3, 10, 100):
        for num_symbols in (7, 8, 32):
            times = repeats(num_classes, num_symbols)
            assert times.sum() == 2 * num_symbols
            assert times.max() - times.min() <= 1


def test_a_reception_does_not_depend_on_its_companions():
    sent, answers = received(10, 5, "rayleigh", 3.0)
    some = np.array([17, 3, 999])
    alone = repetition_link(sent[some], 10, 5, build_channel("rayleigh"), 3.0, Draws(0, some))
    assert (alone == answers[some]).all()


def test_without_noise_the_baseline_is_as_accurate_as_the_model():
    labels = np.random.default_rng(0).integers(0, 10, 300)
    decisions = np.where(np.arange(300) % 10 == 0, (labels + 1) % 10, labels)
    spec = SweepSpec(snr_db=(40.0, -20.0), draws=5)
    clean, noisy = sweep_repetition(decisions, labels, spec, num_classes=10, num_symbols=8)
    assert clean.accuracy.value == clean.accuracy_noise.value == 0.9
    assert (clean.samples, clean.draws, clean.decisions, clean.correct) == (300, 5, 1500, 1350)
    assert (clean.symbols, clean.symbols_per_sample, clean.bits_per_sample) == (12_000, 8.0, 16.0)
    # What the model got wrong is wrong in every draw: the samples are what the interval has to count.
    assert clean.accuracy.high - clean.accuracy.low > 2 * (clean.accuracy_noise.high - clean.accuracy_noise.low)
    assert noisy.accuracy.value < 0.5


def test_a_sweep_counts_what_the_link_answers():
    labels = np.arange(50) % 6
    spec = SweepSpec(snr_db=(-2.0,), seed=9, draws=3, channel="rayleigh")
    (point,) = sweep_repetition(labels, labels, spec, num_classes=6, num_symbols=4)
    correct = sum(
        (repetition_link(labels, 6, 4, spec.build_channel(), -2.0, Draws(9, np.arange(50), draw)) == labels).sum()
        for draw in range(3)
    )
    assert point.correct == correct
    assert 0 < correct < 150


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (([0, 10], 10, 8), "decisions"),
        (([-1], 10, 8), "decisions"),
        (([0.5], 10, 8), "decisions"),
        (([0], 1, 8), "num_classes"),
        (([0], 10, 1), "num_symbols"),
    ],
)
def test_what_cannot_be_sent_is_refused(arguments, field):
    with pytest.raises(ArgumentError) as error:
        repetition_link(*arguments, build_channel("awgn"), 0.0, Draws(0, np.arange(len(arguments[0]))))
    assert error.value.field == field
