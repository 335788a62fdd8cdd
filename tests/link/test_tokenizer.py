"""Texts to integers: one length for all, each text by itself, whatever the file says of padding."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models

from link.errors import ArgumentError, MissingExtra
from link.tokenizer import CHARACTERS_A_TOKEN, Tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file):
    return Tokenizer(tokenizer_file, length=6, pad_id=0, pad_token="[PAD]")


def words(tokenizer_file, ids):
    vocabulary = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    return [vocabulary.id_to_token(number) for number in ids]


def test_a_text_stands_between_special_tokens_and_padding(tokenizer, tokenizer_file):
    encoded = tokenizer(["a fine film", "a fine film and a dull one"])
    assert words(tokenizer_file, encoded.input_ids[0]) == ["[CLS]", "a", "fine", "film", "[SEP]", "[PAD]"]
    assert words(tokenizer_file, encoded.input_ids[1]) == ["[CLS]", "a", "fine", "film", "and", "[SEP]"]
    assert encoded.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert encoded.cut.tolist() == [False, True]
    assert encoded.input_ids.dtype == encoded.attention_mask.dtype == np.int64


def test_a_text_that_just_fits_is_not_cut(tokenizer):
    assert tokenizer(["a fine film and", "a fine film and a"]).cut.tolist() == [False, True]


def test_what_no_token_can_reach_is_not_read_and_is_said_to_be_cut(tokenizer, tokenizer_file):
    """A text of megabytes would hold every other call up while it is split."""
    reach = 6 * CHARACTERS_A_TOKEN
    film = "film".rjust(reach, "x").replace("xfilm", " film")
    far = "film".rjust(reach + 1, "x").replace("xfilm", " film")
    read, cut = tokenizer([film, film + " film" * 10**6]), tokenizer([far])
    assert words(tokenizer_file, read.input_ids[0]) == ["[CLS]", "[UNK]", "film", "[SEP]", "[PAD]", "[PAD]"]
    np.testing.assert_array_equal(read.input_ids[1], read.input_ids[0])
    assert "film" not in words(tokenizer_file, cut.input_ids[0])
    assert (read.cut.tolist(), cut.cut.tolist()) == ([False, True], [True])


@given(
    texts=st.lists(
        st.text(st.sampled_from("adfilmne ab\u00e9\u4f60\U0001f600[SEP]"), min_size=1), min_size=2, max_size=5
    )
)
def test_companions_change_nothing(tokenizer_file, texts):
    texts = [text for text in texts if text.strip()] or ["film"]
    tokenizer = Tokenizer(tokenizer_file, length=6, pad_id=0, pad_token="[PAD]")
    together = tokenizer(texts)
    for row, text in enumerate(texts):
        for whole, alone in zip(together, tokenizer([text]), strict=True):
            np.testing.assert_array_equal(whole[row], alone[0])


def test_what_the_file_says_of_padding_and_cutting_does_not_count(tokenizer, tokenizer_file, tmp_path):
    other = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    other.enable_padding(direction="left", length=9, pad_id=3, pad_token="[SEP]", pad_to_multiple_of=8)
    other.enable_truncation(3, direction="left", stride=1)
    other.save(str(tmp_path / "other.json"))
    texts = ["film", "a fine film and a dull one"]
    same = Tokenizer(tmp_path / "other.json", length=6, pad_id=0, pad_token="[PAD]")
    for expected, found in zip(tokenizer(texts), same(texts), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_dropout_in_the_file_does_not_count(tmp_path):
    merging = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "[PAD]": 3}, [("a", "b")], dropout=0.5))
    merging.save(str(tmp_path / "merging.json"))
    tokenizer = Tokenizer(tmp_path / "merging.json", length=2, pad_id=3, pad_token="[PAD]")
    # With dropout, all 60 would be whole with probability 2**-60.
    assert {tuple(ids) for ids in tokenizer(["ab"] * 60).input_ids.tolist()} == {(2, 3)}


def test_other_languages_and_emoji_are_unknown_words(tokenizer, tokenizer_file):
    ids = tokenizer(["film \U0001f600 \u6620\u753b"]).input_ids[0]
    assert words(tokenizer_file, ids) == ["[CLS]", "film", "[UNK]", "[UNK]", "[SEP]", "[PAD]"]


def test_a_text_cannot_speak_in_special_tokens(tokenizer, tokenizer_file):
    assert words(tokenizer_file, tokenizer(["[PAD]film"]).input_ids[0]) == ["[CLS]", *["[UNK]"] * 3, "film", "[SEP]"]


@pytest.mark.parametrize(
    "texts", [["a", "film"], ("a", "film"), np.array(["a", "film"]), np.array(["a", "film"], object)]
)
def test_lists_and_arrays_of_texts_are_taken_alike(tokenizer, texts):
    assert tokenizer(texts).input_ids[:, 1].tolist() == tokenizer(["a", "film"]).input_ids[:, 1].tolist()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", "film", "a", ""], r"texts[3] is empty"),
        (["a", " \t\n\u00a0"], "texts[1] is empty"),
        (["a", 7], "texts[1] must be a string, got int"),
        (["a", None], "texts[1] must be a string, got NoneType"),
        ([b"a"], "texts[0] must be a string, got bytes"),
        (["a\0b"], "texts[0] must not hold a NUL character"),
        (["a", "\ud83d"], "texts[1] must not hold half of a surrogate pair"),
        ("a film", "texts must be a list of texts, got a single one: put it into a list"),
        ([], "texts must hold at least one text"),
        (np.array([], dtype=str), "texts must hold at least one text"),
        (np.array([["a"]]), "texts must be a list of texts, got an array of shape (1, 1)"),
        (np.array("a"), "texts must be a list of texts, got an array of shape ()"),
        (np.array([1.5]), "texts[0] must be a string, got float64"),
        ({"a": 1}, "texts must be a list of texts, got dict"),
        (None, "texts must be a list of texts, got NoneType"),
    ],
)
def test_what_is_no_text_is_named_by_its_row(tokenizer, texts, message):
    with pytest.raises(ArgumentError) as refused:
        tokenizer(texts)
    assert str(refused.value) == message


def test_the_row_is_named_as_the_caller_knows_it(tokenizer):
    with pytest.raises(ArgumentError, match=r"^inputs\.text\[1\] is empty$") as refused:
        tokenizer(["a", ""], field="inputs.text")
    assert refused.value.field == "inputs.text[1]"


def test_a_text_of_which_no_token_is_left_is_refused(tmp_path):
    bare = tokenizers.Tokenizer(models.BPE({"a": 0, "[PAD]": 1}, []))
    bare.save(str(tmp_path / "bare.json"))
    tokenizer = Tokenizer(tmp_path / "bare.json", length=2, pad_id=1, pad_token="[PAD]")
    with pytest.raises(ArgumentError, match=r"^texts\[1\] holds nothing that the tokenizer has a token for$"):
        tokenizer(["a", "\U0001f600"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 6.0}, r"length must be a whole number, got 6\.0"),
        ({"pad_id": "0"}, r"pad_id must be a whole number, got '0'"),
        ({"pad_token": None}, r"pad_token must be a string, got None"),
        ({"length": 2}, r"length must be above 2, the special tokens of .*tokenizer\.json, got 2"),
        ({"pad_id": 1}, r"pad_id must be that of '\[PAD\]' in .*, 0, got 1"),
        ({"pad_token": "<pad>"}, r"pad_id must be that of '<pad>' in .*, None, got 0"),
    ],
)
def test_settings_at_odds_with_the_file_are_refused(tokenizer_file, change, message):
    with pytest.raises(ArgumentError, match=message):
        Tokenizer(tokenizer_file, **({"length": 6, "pad_id": 0, "pad_token": "[PAD]"} | change))


def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {\n"type": "none"}}')
    for file in (tmp_path / "tokenizer.json", tmp_path / "absent.json"):
        with pytest.raises(ArgumentError, match=r"^tokenizer .*\.json cannot be loaded: ") as refused:
            Tokenizer(file, length=6, pad_id=0, pad_token="[PAD]")
        assert "\n" not in str(refused.value)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tokenizer_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"tokenizers is not installed.*'hardpath\[text\]'"):
        Tokenizer(tokenizer_file, length=6, pad_id=0, pad_token="[PAD]")


def test_any_number_of_threads_may_encode_at_once(tokenizer):
    batches = [[f"a {'fine ' * (number % 7)}film"] * (1 + number % 5) for number in range(200)]
    expected = [tokenizer(batch).input_ids.tolist() for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda batch: tokenizer(batch).input_ids.tolist(), batches)) == expected


def test_a_process_may_fork_afterwards_without_a_warning(tokenizer_file):
    program = (
        "import os, sys\nfrom link.tokenizer import Tokenizer\n"
        f"tokenizer = Tokenizer({str(tokenizer_file)!r}, length=6, pad_id=0, pad_token='[PAD]')\n"
        "before = tokenizer(['a film'] * 64).input_ids.tolist()\n"
        "child = os.fork()\n"
        "same = tokenizer(['a film'] * 64).input_ids.tolist() == before\n"
        "if not child: os._exit(not same)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not same)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_module_imports_without_the_package():
    program = "import sys; sys.modules['tokenizers'] = None; import link.tokenizer, link.runtime, link.texts"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


def test_a_text_without_a_token_that_is_known_is_told_from_one_with_some(tokenizer):
    assert tokenizer(["film", "\u4f60", "\U0001f600 \u4f60", "\u4f60 film"]).unknown.tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_where_no_token_stands_for_the_unknown_no_text_is_unknown(tmp_path):
    bare = tokenizers.Tokenizer(models.BPE({"a": 0, "[PAD]": 1}, []))
    bare.save(str(tmp_path / "bare.json"))
    tokenizer = Tokenizer(tmp_path / "bare.json", length=2, pad_id=1, pad_token="[PAD]")
    assert tokenizer(["a", "aa"]).unknown.tolist() == [False, False]


def test_the_highest_number_counts_added_tokens(tokenizer, tokenizer_file, tmp_path):
    other = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    other.add_tokens(["semantic"])
    other.save(str(tmp_path / "more.json"))
    more = Tokenizer(tmp_path / "more.json", length=6, pad_id=0, pad_token="[PAD]")
    assert more.highest_id == tokenizer.highest_id + 1


def test_pieces_become_a_text_again_up_to_the_first_end(tokenizer):
    encoded = tokenizer(["a fine film", "a"])
    end = int(encoded.input_ids[0, 4])
    rows = np.array([[*encoded.input_ids[0, 1:], 3], [end, *encoded.input_ids[0, :5]]])
    assert tokenizer.texts(rows, end) == ["a fine film", ""]


def test_without_an_end_all_pieces_are_spelt_and_special_ones_say_nothing(tokenizer):
    encoded = tokenizer(["a fine film and a dull one"])
    assert tokenizer.texts(encoded.input_ids[:, :5], 10_000) == ["a fine film and"]
