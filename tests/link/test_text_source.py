"""Source codes: nothing is lost without errors, nothing raises with them, and the bits are as few as the model says."""

import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link import text_source
from link.errors import ArgumentError, MissingExtra
from link.text_source import Deflate, WordCode

WHO, WHAT, WHERE = (
    ("a man", "two dogs", "the girl"),
    ("runs", "sleeps", "sings"),
    ("in a park.", "on the beach.", "here."),
)
TRAINING = [f"{WHO[i % 3]} {WHAT[(i * i + i // 5) % 3]} {WHERE[(i // 7) % 3]}" for i in range(200)] + ["Người đàn ông"]
CODES = {"order 0": WordCode(TRAINING, 0), "order 1": WordCode(TRAINING), "zlib": Deflate(TRAINING)}
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.lists(st.sampled_from([*" ".join(TRAINING[:20]).split(), "  ", "\n", "zebra"]), max_size=12).map(" ".join),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("name", CODES)
@given(texts=TEXTS, more=st.integers(0, 70))
def test_any_sentences_come_back_whatever_stands_behind_their_bits(name, texts, more):
    code = CODES[name]
    bits = code.encode(texts)
    assert code.decode(bits, len(texts)) == tuple(texts)
    assert code.decode(np.pad(bits, (0, more)), len(texts)) == tuple(texts)


@pytest.mark.parametrize("name", CODES)
def test_long_words_and_long_sentences_come_back(name):
    texts = ("x" * 10_000, "a man runs " * 2000, "漢" * 5000)
    assert CODES[name].decode(CODES[name].encode(texts), 3) == texts


class Endless:
    """A decoder whose bits are used up and which says "a" for ever."""

    def maybe_exhausted(self):
        return True

    def decode(self, model):
        return ord("a")


def test_a_word_that_is_spelled_ends_or_is_not_kept():
    code = CODES["order 1"]
    with pytest.raises(ValueError, match="does not end"):
        code._spelled(Endless())
    bits = code.encode(("a man runs", "zebra" * 100))
    first, second = code.decode(bits[: len(bits) // 2], 2)
    assert first == "a man runs"
    assert len(second) < 2 * text_source._PAST_THE_END


@pytest.mark.parametrize("name", CODES)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(0, 700), share=st.sampled_from([0.0, 0.03, 0.5, 1.0]))
def test_bits_of_any_kind_are_read_as_so_many_sentences(name, seed, length, share):
    bits = (np.random.default_rng(seed).random(length) < share).astype(np.uint8)
    texts = CODES[name].decode(bits, 7)
    assert len(texts) == 7
    for text in texts:
        text.encode()
    assert sum(map(len, texts)) < 3 * text_source._PAST_THE_END * max(map(len, TRAINING))


@pytest.mark.parametrize("name", CODES)
def test_sentences_before_an_error_are_kept(name):
    code = CODES[name]
    texts = tuple(TRAINING[:30])
    bits = code.encode(texts)
    for error in range(0, len(bits), 37):
        before = len(code.encode(texts[:10])) + 96  # a range coder is ahead of what it says by up to two words
        received = bits.copy()
        received[error] ^= 1
        if error >= before:
            assert code.decode(received, 30)[:10] == texts[:10]
    assert code.decode(bits[: len(bits) // 2], 30)[:10] == texts[:10]


def test_reading_ends_although_words_could_follow_each_other_for_ever():
    """Behind the last bit zeros are read: the first of what may come next, and "a" and "b" are each other's."""
    code = WordCode(["x a b a b a b!"])
    assert code.decode(np.zeros(32, np.uint8), 3) == ("", "", "")
    began = code.decode(np.zeros(256, np.uint8), 3)
    assert began[0].startswith("x a b a b a b a b")
    assert len(began[0]) < 2 * 256
    assert began[1:] == ("", "")


def tokens(text):
    return [*re.findall(r"\s?\w+|\s?[^\w\s]|\s", text), None]


def information(texts, order):
    """Bits that the model says, counted anew."""
    seen = Counter(token for text in TRAINING for token in tokens(text))
    once = [token for token, count in seen.items() if count == 1]
    spelled = Counter(byte for token in once for byte in [*token.encode(), None])
    pairs = Counter(pair for text in TRAINING for pair in pairwise([None, *tokens(text)]))
    bits = 0.0
    for text in texts:
        for before, token in pairwise([None, *tokens(text)]):
            behind = {after: count for (first, after), count in pairs.items() if first == before and order}
            if token in behind:
                bits -= math.log2(behind[token] / (sum(behind.values()) + len(behind)))
                continue
            if behind:
                bits -= math.log2(len(behind) / (sum(behind.values()) + len(behind)))
            total = sum(seen.values()) + len(once) + 1
            bits -= math.log2((seen[token] if token in seen else len(once) + 1) / total)
            if token not in seen:
                total = sum(spelled.values()) + 257
                bits -= sum(math.log2((spelled[byte] + 1) / total) for byte in [*token.encode(), None])
    return bits


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    "texts",
    [TRAINING[:100], ["here sings the park on two girl.", "a man", "", "zebras, who sing!", "a zebra zebra man"] * 5],
)
def test_a_frame_has_the_bits_that_its_model_says(order, texts):
    """But for the coder's last two words, and for frequencies of 24 bits, which cost less than 2^-10 of a bit a symbol."""
    bits = len(WordCode(TRAINING, order).encode(texts))
    symbols = 3 * sum(len(text) + 1 for text in texts)
    expected = information(texts, order)
    assert expected - 1.0 <= bits <= expected + 64 + symbols * 2.0**-10


def test_what_stood_before_tells_something_of_a_word():
    texts = TRAINING[:64]
    few, many, zipped = (len(CODES[name].encode(texts)) for name in ("order 1", "order 0", "zlib"))
    assert few < 0.7 * many
    assert few < zipped
    assert zipped < len(Deflate([]).encode(texts))


def test_zlib_is_a_stream_a_sentence():
    code = CODES["zlib"]
    assert len(code.encode(TRAINING[:9])) == sum(len(code.encode([text])) for text in TRAINING[:9])


def test_a_code_needs_training_and_an_order():
    with pytest.raises(ArgumentError, match="training must hold at least one sentence"):
        WordCode([])
    with pytest.raises(ArgumentError, match="order must be 0 or 1, got 2"):
        WordCode(TRAINING, 2)


def test_without_constriction_one_line_names_the_extra(monkeypatch):
    def halted(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(text_source.importlib, "import_module", halted)
    with pytest.raises(MissingExtra, match=r"constriction is not installed; .* 'hardpath\[quality\]'"):
        WordCode(TRAINING)
