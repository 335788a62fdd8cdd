"""BLEU against sacrebleu's own, on texts that are like sentences and on texts that are like nothing."""

import builtins

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from scipy.stats import binom

from link import text_quality
from link.errors import ArgumentError, MissingExtra
from link.randomness import Draws, Stream
from link.text_quality import ORDERS, SMOOTHINGS, TextStatistics, bleu_scores, interval, sentence_statistics

TEXT = """A man, two men; the U.S. don't 3.5 1,000 well-known (a) dogs. runs & sits on top-of "it" 2-3 &amp; costs $5"""
WORDS = TEXT.split()
# sacrebleu's score is of some ten roundings, on a scale of 100.
ROUNDING = 1e-13
TEXTS = st.text(st.sampled_from("aB1.,-&;<>$'\"\n\t \x85éß漢"), max_size=30)
MEANT = TEXTS.filter(lambda text: text.replace("<skipped>", "").split() and text.strip("-\n\t \x85"))


def sentences(count, seed, low=1):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(low, 16))) for _ in range(count)]


def answers(references, wrong, seed):
    """Sentences with some words replaced, left out, or said twice."""
    draw = np.random.default_rng(seed)

    def change(word):
        return (
            draw.choice([word, f"{word} {word}", "", WORDS[draw.integers(len(WORDS))]])
            if draw.random() < wrong
            else word
        )

    return [" ".join(change(word) for word in text.split()) for text in references]


def of_sacrebleu(hypotheses, references, order, smoothing="exp"):
    metric = BLEU(max_ngram_order=order, smooth_method=smoothing, tokenize="13a")
    return metric.corpus_score(hypotheses, [references]).score / 100.0


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.7, 1.0])
def test_a_corpus_scores_as_sacrebleu_says(wrong, smoothing):
    references = sentences(300, seed=1)
    hypotheses = answers(references, wrong, seed=2)
    counted = TextStatistics.of(hypotheses, references)
    for order in range(1, ORDERS + 1):
        expected = of_sacrebleu(hypotheses, references, order, smoothing)
        assert counted.bleu(order, smoothing) == pytest.approx(expected, rel=ROUNDING)
    assert (counted.bleu(4) == 1.0) == (wrong == 0.0)


@given(st.lists(st.tuples(TEXTS, MEANT), min_size=1, max_size=4), st.sampled_from(SMOOTHINGS))
def test_texts_of_any_characters_score_as_sacrebleu_says(pairs, smoothing):
    hypotheses, references = map(list, zip(*pairs, strict=True))
    counted = TextStatistics.of(hypotheses, references)
    for order in range(1, ORDERS + 1):
        expected = of_sacrebleu(hypotheses, references, order, smoothing)
        assert counted.bleu(order, smoothing) == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize(
    "text", ["a-\nb", "co-\noperate\nnow ", "&quot;so&quot; <skipped>on...", ".5 5. 5.5, a.b.c -- 1-", "x\u2028y"]
)
def test_words_are_parted_as_sacrebleu_parts_them(text):
    assert text_quality._words(text) == text_quality._tokenizer()(text.rstrip()).split()


def test_a_brevity_penalty_is_paid_by_short_answers_and_none_by_long_ones():
    short = TextStatistics.of(["a b"], ["a b c d"])
    assert short.bleu(1) == pytest.approx(np.exp(1.0 - 4.0 / 2.0))
    long = TextStatistics.of(["a b c d"], ["a b"])
    assert long.bleu(1) == pytest.approx(0.5)


def test_an_order_without_a_match_is_smoothed_or_scores_nothing():
    counted = TextStatistics.of(["b a d c"], ["a b c d"])
    assert counted[:8] == (4, 0, 0, 0, 4, 3, 2, 1)
    assert counted.bleu(3) == pytest.approx((1.0 * (1 / 2 / 3) * (1 / 4 / 2)) ** (1 / 3))
    assert [counted.bleu(order, "none") for order in (1, 2)] == [1.0, 0.0]


def test_nothing_answered_or_nothing_right_scores_zero():
    for answer in ("", "x y z u v"):
        counted = TextStatistics.of([answer], ["a b c d e"])
        assert [counted.bleu(order) for order in range(1, 5)] == [0.0] * 4
    short = TextStatistics.of(["a b"], ["a b"])
    assert [short.bleu(order) for order in range(1, 5)] == [1.0, 1.0, 0.0, 0.0]


def test_a_corpus_may_be_split_in_any_way():
    references = sentences(60, seed=3)
    hypotheses = answers(references, 0.4, seed=4)
    whole = TextStatistics.of(hypotheses, references)
    for cuts in ([1], [20, 21, 55], range(1, 60)):
        parts = zip(np.split(np.array(hypotheses), cuts), np.split(np.array(references), cuts), strict=True)
        added = TextStatistics()
        for answered, meant in parts:
            added = added.plus(TextStatistics.of(answered.tolist(), meant.tolist()))
        assert added == whole
    assert whole == TextStatistics.total(sentence_statistics(hypotheses, references))


def test_exact_sentences_are_counted_to_the_letter():
    references = ["A man runs.", "A man runs.", "A man runs."]
    counted = TextStatistics.of(["A man runs. ", "A man runs .", "a man runs."], references)
    assert (counted.exact, counted.sentences) == (1, 3)
    assert counted[:10] == (11, 8, 5, 2, 12, 9, 6, 3, 12, 12)


def test_the_shortcut_of_an_exact_answer_counts_what_counting_does():
    for text in sentences(50, seed=5):
        counted = text_quality._count(text, text, text_quality._reference(text))
        assert counted[:10] == text_quality._count(text, "", text_quality._reference(text))[:10]


def test_an_interval_is_of_sums_over_units_drawn_again_with_replacement():
    references = sentences(40, seed=6, low=4)
    counts = sentence_statistics(answers(references, 0.3, seed=7), references)
    draws = Draws(11, np.arange(64))
    scores = []
    for resample in range(64):
        uniforms = Draws(11, np.array([resample])).uniforms(Stream.SHUFFLE, 1, 40)[0]
        scores.append(bleu_scores(counts[(uniforms * 40).astype(int)].sum(axis=0)))
    low, high = np.quantile(scores, (0.1, 0.9), axis=0)
    found = interval(counts, draws, 0.8)
    np.testing.assert_allclose([bound.low for bound in found], low, rtol=ROUNDING)
    np.testing.assert_allclose([bound.high for bound in found], high, rtol=ROUNDING)
    assert [bound.value for bound in found] == [TextStatistics.total(counts).bleu(order) for order in range(1, 5)]
    assert found == interval(counts, draws, 0.8)
    assert found != interval(counts, Draws(12, np.arange(64)), 0.8)


def test_how_many_resamples_go_at_once_changes_nothing(monkeypatch):
    references = sentences(40, seed=6)
    counts = sentence_statistics(answers(references, 0.3, seed=7), references)
    found = interval(counts, Draws(0, np.arange(50)))
    monkeypatch.setattr(text_quality, "_RESAMPLED_AT_ONCE", 7 * 40)
    assert interval(counts, Draws(0, np.arange(50))) == found


def test_the_interval_of_sentences_of_one_word_is_binomial():
    """Their BLEU-1 is the share that is right, and a resample's is binomial; its quantiles are found from 4000 resamples."""
    right = 150
    counts = sentence_statistics(["a"] * right + ["x"] * (200 - right), ["a"] * 200)
    bound = interval(counts, Draws(0, np.arange(4000)), 0.9)[0]
    for found, tail in ((bound.low, 0.05), (bound.high, 0.95)):
        slack = 5.0 * np.sqrt(tail * (1.0 - tail) / 4000)
        low, high = binom.ppf([tail - slack, tail + slack], 200, right / 200) / 200
        assert low <= found <= high


def test_perfect_answers_have_an_interval_without_width():
    references = sentences(20, seed=8, low=4)
    for bound in interval(sentence_statistics(references, references), Draws(0, np.arange(10))):
        assert (bound.low, bound.value, bound.high) == (1.0, 1.0, 1.0)


def test_one_unit_tells_nothing_of_others():
    for bound in interval(sentence_statistics(["a b c d e"], ["a b c d f"]), Draws(0, np.arange(10))):
        assert (bound.low, bound.high) == (0.0, 1.0)
        assert 0.0 < bound.value < 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sentence_statistics(["a"], ["a", "b"]), "hypotheses must be as many as the references, 2, got 1"),
        (lambda: sentence_statistics(["a", "b"], ["a", " "]), r"references\[1\] has no word"),
        (lambda: TextStatistics().bleu(1), "statistics must hold at least one sentence"),
        (lambda: TextStatistics.of(["a"], ["a"]).bleu(5), r"order must be in \[1, 4\], got 5"),
        (lambda: TextStatistics.of(["a"], ["a"]).bleu(1, "floor"), "smoothing must be one of exp, none, got 'floor'"),
        (
            lambda: interval(np.ones((0, 11), np.int64), Draws(0, np.arange(9))),
            r"statistics must be \(n, 11\) with n at least 1, got \(0, 11\)",
        ),
        (lambda: interval(np.ones((2, 11), np.int64), Draws(0, np.arange(1))), "draws must be of at least 2 resamples"),
        (
            lambda: interval(np.ones((2, 11), np.int64), Draws(0, np.arange(9)), 1.0),
            r"confidence must be in \(0, 1\), got 1",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_without_sacrebleu_one_line_names_the_extra(monkeypatch):
    found = builtins.__import__

    def halted(name, *args, **kwargs):
        if name.startswith("sacrebleu"):
            raise ModuleNotFoundError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", halted)
    text_quality._tokenizer.cache_clear()
    with pytest.raises(
        MissingExtra, match=r"sacrebleu is not installed; install it with: pip install 'hardpath\[quality\]'"
    ):
        TextStatistics.of(["never seen before"], ["nor this one"])
