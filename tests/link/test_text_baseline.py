import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from link import text_baseline
from link.bits import label_bits, labels_from_bits
from link.errors import ArgumentError
from link.sweep import SweepSpec
from link.text_baseline import ITERATIONS, sweep_coded_text, sweep_uncoded_text
from link.text_frame import TextFrame, sentence_budgets
from link.text_quality import TextStatistics
from link.text_source import Deflate, WordCode
from link.theory import ber_awgn

WORDS = [f"{start}{end}" for start in ("ba", "do", "fi", "gu", "ke") for end in ("lo", "mi", "na", "pe", "ru", "sta")]


def sentences(count, seed, low=4, high=12):
    draw = np.random.default_rng(seed)
    return tuple(" ".join(draw.choice(WORDS, draw.integers(low, high))) for _ in range(count))


TRAINING, TEXTS = sentences(400, 0), sentences(60, 1)
SOURCE = WordCode(TRAINING, 0)


def spec_of(*snr_db, **fields):
    return SweepSpec(snr_db=snr_db, **fields)


def values(point):
    return [bound.value for bound in point.bleu]


@pytest.mark.parametrize("source", [SOURCE, WordCode(TRAINING), Deflate(TRAINING)], ids=lambda source: source.name)
@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_sentences_arrive_to_the_letter_where_the_rate_is_low(source, channel):
    (point,) = sweep_coded_text(source, TEXTS, spec_of(25.0, channel=channel), symbols_per_word=9.5)
    assert values(point) == [1.0] * 4
    assert (point.exact.value, point.word_accuracy.value, point.frames_lost, point.frames) == (1.0, 1.0, 0, 1)
    words = sum(len(text.split()) for text in TEXTS)
    assert (point.sentences, point.words, point.draws) == (60, words, 1)
    assert point.symbols_per_word == pytest.approx(9.5, abs=0.5 / words)
    assert point.bits_per_word == len(source.encode(TEXTS)) / words


def test_frames_are_lost_where_the_rate_is_above_capacity_and_their_sentences_with_them():
    spec = spec_of(-3.0, 9.0, draws=3)
    low, high = sweep_coded_text(SOURCE, TEXTS, spec, symbols_per_word=5.0, frame_sentences=15)
    assert (low.frames, low.frames_lost, high.frames_lost) == (12, 12, 0)
    assert low.bleu[0].high < 0.7
    assert low.exact.value < 0.3 < high.exact.value == 1.0
    assert low.bleu[0].low < low.bleu[0].value < low.bleu[0].high


def test_a_sweep_counts_what_single_draws_answer():
    spec = spec_of(5.0, draws=3, seed=5, channel="rayleigh")
    given = {"symbols_per_word": 5.0, "orders": (4,), "frame_sentences": 20}
    (point,) = sweep_coded_text(SOURCE, TEXTS, spec, **given)
    assert 0 < point.frames_lost < point.frames == 9
    lost, counted, right, words = 0, TextStatistics(), 0, 0
    budgets = sentence_budgets(np.array([len(text.split()) for text in TEXTS]), 5.0)
    for draw in range(3):
        for rows in np.arange(60).reshape(3, 20):
            meant = [TEXTS[row] for row in rows]
            frame = TextFrame(rows, budgets[rows], (), SOURCE.encode(meant))
            code = frame.code(4, ITERATIONS)
            x = frame.modulate(4, code)
            heard = frame.receive(x, 4, code, spec.build_channel(), 5.0, seed=5, draws=draw + 1)
            answers = SOURCE.decode(code.decode(heard.llr[draw:])[0], 20)
            lost += answers != tuple(meant)
            counted = counted.plus(TextStatistics.of(answers, meant))
            for answer, text in zip(answers, meant, strict=True):
                right += sum(a == b for a, b in zip(answer.split(), text.split(), strict=False))
                words += len(text.split())
    assert point.frames_lost == lost
    assert values(point) == [counted.bleu(order) for order in range(1, 5)]
    assert point.exact.value == counted.exact / 180
    assert point.word_accuracy.value == right / words


def test_the_order_is_the_best_of_those_that_fit():
    spec = spec_of(4.0, 12.0)
    given = {"symbols_per_word": 3.2, "frame_sentences": 30}
    chosen = sweep_coded_text(SOURCE, TEXTS, spec, orders=(4, 16, 64), **given)
    alone = [sweep_coded_text(SOURCE, TEXTS, spec, orders=(order,), **given) for order in (16, 64)]
    with pytest.raises(
        ArgumentError, match=r"symbols_per_word must be more: by words, order 0 a frame has 1\.9\d* bits a symbol"
    ):
        sweep_coded_text(SOURCE, TEXTS, spec, orders=(4,), **given)
    for point, *others in zip(chosen, *alone, strict=True):
        assert point in others
        assert point.bleu[0].value == max(other.bleu[0].value for other in others)
    assert chosen[1].order == 16  # nothing is lost


def test_where_not_all_words_fit_the_first_of_each_sentence_are_sent():
    """Of ten words five: all that is answered is right, and BLEU is the brevity penalty exp(1 - 10/5) for every order."""
    texts = sentences(40, 3, low=10, high=11)
    point, above = sweep_coded_text(SOURCE, texts, spec_of(3.0, 12.0), symbols_per_word=4.0, shares=(0.5, 1.0))
    assert (point.share, above.share) == (0.5, 1.0)
    assert values(point) == pytest.approx([np.exp(-1.0)] * 4)
    assert (point.word_accuracy.value, point.exact.value, point.frames_lost) == (0.5, 0.0, 0)
    assert point.symbols_per_word == above.symbols_per_word == 4.0
    assert point.bits_per_word < 0.6 * above.bits_per_word


def test_what_no_channel_could_carry_or_nothing_could_better_is_not_tried(monkeypatch):
    tried = []
    send = text_baseline._send_mode

    def watch(mode, source, texts, words, spec, points, iterations):
        tried.extend((mode.order, mode.share, snr_db) for snr_db in points)
        return send(mode, source, texts, words, spec, points, iterations)

    monkeypatch.setattr(text_baseline, "_send_mode", watch)
    spec = spec_of(-9.0, 2.0, 9.0)
    points = sweep_coded_text(SOURCE, TEXTS, spec, symbols_per_word=4.0, orders=(4, 16, 4), shares=(1.0, 0.5, 1.0))
    # 5 bits a word are 1.3 bits a symbol, and half of that; 1.25 times the capacity is 0.2, 1.7 and 4.
    assert sorted(tried) == [(4, 0.5, -9.0), (4, 0.5, 2.0), (4, 1.0, 2.0), (4, 1.0, 9.0), (16, 1.0, 2.0)]
    assert [(point.order, point.share, point.snr_db) for point in points] == [
        (4, 0.5, -9.0),
        (4, 0.5, 2.0),
        (4, 1.0, 9.0),
    ]


def test_pilots_are_counted():
    spec = spec_of(20.0, channel="rayleigh", csi="lmmse", pilots=2, draws=2)
    words = sum(len(text.split()) for text in TEXTS)
    (coded,) = sweep_coded_text(SOURCE, TEXTS, spec, symbols_per_word=8.0)
    assert coded.symbols_per_word == 8.0 + 2 * 60 / words
    (uncoded,) = sweep_uncoded_text(TEXTS, spec)
    assert uncoded.symbols_per_word == (4 * sum(map(len, TEXTS)) + 2 * 60) / words


@pytest.mark.parametrize("order", [4, 16, 64])
def test_uncoded_text_has_the_rate_of_its_bytes_and_arrives_without_noise(order):
    texts = ("Người đàn ông", "a", "two dogs")
    (point,) = sweep_uncoded_text(texts, spec_of(45.0), order=order)
    width = order.bit_length() - 1
    lengths = [8 * len(text.encode()) for text in texts]
    assert point.exact.value == point.word_accuracy.value == 1.0
    assert point.symbols_per_word == sum(-(-length // width) for length in lengths) / 6
    assert point.bits_per_word == sum(lengths) / 6
    assert (point.order, point.frames, point.frames_lost) == (order, 3, 0)


def test_uncoded_sentences_fail_as_the_closed_form_says():
    """Ten bytes of QPSK are right where 80 bits are, each with probability 1 - Q(sqrt(Es/N0))."""
    texts = ("a man runs",) * 1500
    (point,) = sweep_uncoded_text(texts, spec_of(8.0, draws=2))
    right = (1.0 - ber_awgn(4, 8.0)) ** 80
    assert binom.ppf(5e-7, 3000, right) <= round(point.exact.value * 3000) <= binom.isf(5e-7, 3000, right)
    assert point.frames_lost == 3000 - round(point.exact.value * 3000)
    assert point.exact.high - point.exact.low < 0.05
    (first,) = sweep_uncoded_text(texts, spec_of(8.0))
    assert point.frames_lost != 2 * first.frames_lost  # another draw has noise of its own


def test_how_many_sentences_go_at_once_changes_nothing(monkeypatch):
    whole = sweep_uncoded_text(TEXTS, spec_of(7.0, draws=2, channel="rayleigh"))
    monkeypatch.setattr(text_baseline, "_ROWS", 7)
    assert sweep_uncoded_text(TEXTS, spec_of(7.0, draws=2, channel="rayleigh")) == whole


def test_uncoded_text_of_which_nothing_is_heard_is_garbage_and_no_error():
    (point,) = sweep_uncoded_text(TEXTS, spec_of(-20.0), order=16)
    assert point.exact.value == point.bleu[3].value == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ()}, "texts must hold at least one sentence"),
        ({"texts": ("a", " ")}, r"texts\[1\] has no word"),
        ({"symbols_per_word": 0.5}, r"symbols_per_word must be in \[1, 1000\], got 0.5"),
        ({"orders": ()}, "orders must name at least one"),
        ({"orders": (8,)}, "order must be one of 4, 16, 64, .*, got 8"),
        ({"shares": (0.5, 0.0)}, r"shares must be in \(0, 1\], got 0.5, 0"),
        ({"frame_sentences": 0}, "frame_sentences must be at least 1, got 0"),
        (
            {"texts": TEXTS * 40, "frame_sentences": 2400},
            "frame_sentences must be less: the 2400 sentences from row 0 on",
        ),
        ({"iterations": 0}, r"iterations must be in \[1, 1000\], got 0"),
    ],
)
def test_what_cannot_be_sent_is_refused(arguments, message):
    given = {"texts": TEXTS[:4], "symbols_per_word": 8.0, **arguments}
    with pytest.raises(ArgumentError, match=message):
        sweep_coded_text(SOURCE, spec=spec_of(6.0), **given)


class Numbered:
    """A source code of two bits a sentence, for four sentences that are known."""

    name = "numbered"
    known = ("one", "two two", "three", "four")

    def encode(self, texts):
        return label_bits([self.known.index(text) for text in texts], 2).ravel()

    def decode(self, bits, sentences):
        return tuple(self.known[number] for number in labels_from_bits(bits[: 2 * sentences].reshape(-1, 2)))


def test_a_frame_of_fewer_bits_than_a_code_takes_is_sent_too():
    (point,) = sweep_coded_text(Numbered(), Numbered.known, spec_of(6.0, draws=3), symbols_per_word=4.0)
    assert (point.frames, point.exact.value, point.symbols_per_word) == (3, 1.0, 4.0)


EXAMPLE = Path(__file__).parents[2] / "examples" / "text_baselines.py"


def run_example(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_the_example_prints_a_row_a_scheme_and_point(tmp_path, monkeypatch, capsys):
    for name, texts in (("train.en", TRAINING), ("test.en", TEXTS[:10])):
        (tmp_path / name).write_text("\n".join(texts))
    run_example(monkeypatch, tmp_path, "--language", "en", "--symbols-a-word", 2, "--snr", "30")
    printed = capsys.readouterr()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.out.splitlines()[2:]]
    schemes = ["words, order 1", "words, order 0", "UTF-8, uncoded", "UTF-8, uncoded"]
    assert [row[:2] for row in rows] == [[scheme, "30"] for scheme in schemes]
    assert all(row[11] == "100.0 %" and row[12][:2] == "0/" for row in rows)
    assert re.fullmatch(r"text_baselines: symbols_per_word must be more: by zlib .*; got 2\n", printed.err)


def test_the_example_says_in_one_line_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^text_baselines: data .* has no train file: train.txt, train.txt.gz$"):
        run_example(monkeypatch, tmp_path, "--symbols-a-word", 3)
