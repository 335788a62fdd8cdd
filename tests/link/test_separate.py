import numpy as np
import pytest
from scipy.stats import binom

from link.baseline import frames_of, send_labels
from link.channel import build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from link.repetition import Repetition, repetition_ber, sweep_repetition, sweep_uncoded, uncoded
from link.separate import Separate, sweep_separate
from link.sweep import SweepSpec


def labels_of(frames, samples, num_classes, seed=0):
    return np.random.default_rng(seed).integers(0, num_classes, (frames, samples))


@pytest.mark.parametrize(
    ("num_classes", "num_symbols", "samples"),
    [
        (10, 8, 128),  # rate 1/4
        (10, 8, 5),
        (10, 40, 30),  # rate 1/20: four times a code of rate 1/5
        (10, 3, 60),  # rate 2/3
        (2, 1, 40),
        (1000, 40, 400),  # 4000 bits: no lower than 1/3
    ],
)
def test_what_was_sent_is_decided_where_there_is_no_noise_to_speak_of(num_classes, num_symbols, samples):
    labels = labels_of(2, samples, num_classes)
    draws = Draws(0, np.arange(labels.size))
    decided, pilots = send_labels(labels, Separate(num_classes, num_symbols), build_channel("awgn"), 30.0, draws)
    np.testing.assert_array_equal(decided, labels)
    assert pilots == 0


def test_the_code_is_the_longest_that_fits_and_its_bits_are_repeated_evenly():
    assert (Separate(10, 8).code(128).k, Separate(10, 8).code(128).n) == (512, 2048)
    scheme = Separate(10, 40)
    code = scheme.code(30)
    assert (code.k, code.n) == (120, 600)
    labels = labels_of(3, 30, 10)
    sent = scheme.encode(labels)
    assert sent.shape == (3, 30, 80)
    in_order = sent.swapaxes(1, 2).reshape(3, 4, 600)
    assert (in_order == in_order[:, :1]).all()
    for heard in range(4):  # one repeat in four is enough, whichever it is
        llr = np.zeros((3, 4, 600))
        llr[:, heard] = 20.0 * (2.0 * in_order[:, heard] - 1.0)
        np.testing.assert_array_equal(scheme.decode(llr.reshape(3, 80, 30).swapaxes(1, 2)), labels)


def test_a_codeword_is_dealt_out_to_the_samples_of_its_frame_bit_by_bit():
    """A sample of which nothing is heard costs each stretch of the codeword alike, and the others make up for it."""
    scheme = Separate(10, 8)
    labels = labels_of(1, 64, 10)
    llr = 20.0 * (2.0 * scheme.encode(labels) - 1.0)
    llr[0, 5:20] = 0.0
    np.testing.assert_array_equal(scheme.decode(llr), labels)


def test_it_has_a_threshold_where_repetition_has_a_slope():
    labels = labels_of(1, 512, 10)[0]
    spec = SweepSpec(snr_db=(-9.0, 0.0), draws=2)
    low, high = sweep_separate(labels, labels, spec, num_classes=10, num_symbols=8)
    low_repeated, high_repeated = sweep_repetition(labels, labels, spec, num_classes=10, num_symbols=8)
    assert high.correct == 1024 > high_repeated.correct
    assert low.accuracy.high < low_repeated.accuracy.low
    for coded, repeated in ((low, low_repeated), (high, high_repeated)):
        assert coded.symbols == repeated.symbols == 8 * 1024
        assert coded.bits_per_sample == repeated.bits_per_sample == 16.0


def test_without_noise_the_baseline_is_as_accurate_as_the_model():
    labels = labels_of(1, 300, 10)[0]
    decisions = np.where(np.arange(300) % 10 == 0, (labels + 1) % 10, labels)
    spec = SweepSpec(snr_db=(40.0,), draws=2)
    (point,) = sweep_separate(decisions, labels, spec, num_classes=10, num_symbols=8, frame_samples=40)
    assert (point.samples, point.draws, point.decisions, point.correct) == (300, 2, 600, 540)
    assert point.accuracy.value == point.accuracy_noise.value == 0.9


def test_frames_that_are_lost_together_widen_the_interval():
    """A dozen frames, of which some are lost: the intervals are of a dozen trials, and not of hundreds."""
    labels = labels_of(1, 384, 10)[0]
    spec = SweepSpec(snr_db=(-3.2,), draws=4)
    (point,) = sweep_separate(labels, labels, spec, num_classes=10, num_symbols=8, frame_samples=128)
    assert 0.3 < point.accuracy.value < 0.98
    (alone,) = sweep_repetition(labels, labels, spec, num_classes=10, num_symbols=8)
    width = point.accuracy_noise.high - point.accuracy_noise.low
    assert width > 4 * (alone.accuracy_noise.high - alone.accuracy_noise.low)
    assert point.accuracy.low <= point.accuracy_noise.low < point.accuracy_noise.high <= point.accuracy.high


def test_a_sweep_counts_what_single_frames_answer():
    labels = labels_of(1, 70, 10)[0]
    spec = SweepSpec(snr_db=(-2.0,), seed=9, draws=3, channel="rayleigh", csi="ls", pilots=2)
    (point,) = sweep_separate(labels, labels, spec, num_classes=10, num_symbols=4, frame_samples=30)
    correct = 0
    for draw in range(3):
        for rows in (np.arange(35), np.arange(35, 70)):
            draws = Draws(9, rows, draw)
            decided, _ = send_labels(labels[rows][None], Separate(10, 4), spec.build_channel(), -2.0, draws)
            correct += (decided[0] == labels[rows]).sum()
    assert point.correct == correct
    assert 0 < correct < 210
    assert (point.symbols_per_sample, point.symbols) == (6.0, 6 * 210)


@pytest.mark.parametrize("samples", [1, 5, 59, 60, 61, 119, 120, 5000])
def test_every_sample_is_in_one_frame_and_no_frame_is_short(samples):
    frames = [frame for alike in frames_of(samples, 60) for frame in alike.tolist()]
    assert [row for frame in frames for row in frame] == list(range(samples))
    sizes = [len(frame) for frame in frames]
    assert min(sizes) >= min(samples, 60)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) < 120


@pytest.mark.parametrize("num_classes", [2, 4, 16])
def test_uncoded_labels_fail_as_the_closed_form_says(num_classes):
    labels = np.arange(30_000) % num_classes
    spec = SweepSpec(snr_db=(4.0,))
    (point,) = sweep_uncoded(labels, labels, spec, num_classes=num_classes)
    right = np.prod(1.0 - repetition_ber(4.0, uncoded(num_classes).times))
    assert binom.ppf(5e-7, 30_000, right) <= point.correct <= binom.isf(5e-7, 30_000, right)
    assert point.symbols_per_sample == -(-int(np.log2(num_classes)) // 2)


def test_as_many_symbols_as_bits_need_is_repetition_without_repeats():
    assert uncoded(16).times.tolist() == [1, 1, 1, 1]
    assert Repetition(16, 4).times.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_samples": 2}, r"frame_samples must be in \[3, 2112\] for 4 bits a sample, got 2"),
        ({"frame_samples": 0}, "frame_samples must be at least 1, got 0"),
        ({"num_symbols": 2}, "num_symbols must be at least 3 for 4 bits a sample in an LDPC code, got 2"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"iterations": 0}, r"iterations must be in \[1, 1000\], got 0"),
    ],
)
def test_what_cannot_be_coded_is_refused(arguments, message):
    given = {"num_classes": 10, "num_symbols": 8, "frame_samples": 4, **arguments}
    labels = np.zeros(given["frame_samples"] or 4, dtype=np.int64)
    with pytest.raises(ArgumentError, match=message):
        sweep_separate(labels, labels, SweepSpec(snr_db=(0.0,)), **given)
