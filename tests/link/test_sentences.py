"""Corpora as they are published: what is read as a sentence, what is refused, and with which line number."""

import gzip

import pytest

from link.errors import ArgumentError
from link.sentences import read_sentence_parts, read_sentences

SPOKEN = ("A man runs.", "Người đàn ông chạy.", "Zwei Hunde.")


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        file = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return file

    return write


def refusal(file, **options):
    with pytest.raises(ArgumentError) as refused:
        read_sentences(file, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["train.txt", "train.gz", "train.en.GZ", "said"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [False, True])
def test_one_sentence_a_line_is_read(name, end, mark, last, write):
    content = mark + end.join(SPOKEN) + end * last
    file = write(name, gzip.compress(content.encode()) if name.endswith(".GZ") else content)
    found = read_sentences(file)
    assert (found.file, found.texts, found.lines) == (str(file), SPOKEN, (1, 2, 3))
    assert (len(found), found.skipped, found.first_skipped) == (3, 0, None)


def test_white_space_at_the_ends_and_blank_lines_behind_the_last_sentence_do_not_count(write):
    found = read_sentences(write("a.txt", "  A man\truns. \nTwo  dogs.\n\n \n"))
    assert (found.texts, found.lines, found.skipped) == (("A man\truns.", "Two  dogs."), (1, 2), 0)


def test_no_character_but_a_line_end_parts_sentences(write):
    odd = "a\u2028b\u0085c\x0b\x1cd"
    assert read_sentences(write("a.txt", f"{odd}\nb\n")).texts == (odd, "b")


BROKEN = {
    "empty": (b"one\n\ntwo\n", "line 2: is empty"),
    "blank": (b"one\n \t\xc2\xa0\ntwo\n", "line 2: is empty"),
    "latin 1": (b"one\nM\xfcnchen\ntwo\n", "line 2: is no UTF-8 (byte 0xfc)"),
    "cut off": (b"one\ntw\xc3\ntwo", "line 2: is no UTF-8 (byte 0xc3)"),
    "half of a pair": (b"one\n\xed\xa0\x80\ntwo", "line 2: is no UTF-8 (byte 0xed)"),
    "nul": (b"one\nt\0o\ntwo\n", "line 2: holds a NUL character"),
    "long": (
        b"one\n" + b"x" * 10_001 + b"\ntwo\n",
        "line 2: has 10001 characters, where a sentence has at most 10000: put one sentence a line",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
def test_a_line_that_is_no_sentence_is_refused_by_its_number_or_skipped_and_counted(case, name, write):
    content, reason = BROKEN[case]
    file = write(name, content)
    assert refusal(file) == f"data {file}: {reason}"
    found = read_sentences(file, skip_bad=True)
    assert (found.texts, found.lines) == (("one", "two"), (1, 3))
    assert (found.skipped, found.first_skipped) == (1, reason)


def test_thousands_of_broken_lines_are_counted(write):
    found = read_sentences(write("a.txt", b"\xff\nfine\n\n\0\n" * 3000), skip_bad=True)
    assert (len(found), found.skipped) == (3000, 9000)
    assert found.first_skipped == "line 1: is no UTF-8 (byte 0xff)"
    assert found.lines[-1] == 4 * 3000 - 2


def test_a_sentence_may_be_as_long_as_said(write):
    file = write("a.txt", "x" * 9 + "\n" + "é" * 10)
    assert len(read_sentences(file, max_characters=10)) == 2
    assert refusal(file, max_characters=9).endswith(
        "line 2: has 10 characters, where a sentence has at most 9: put one sentence a line"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no sentence"),
        ("a.txt", b"\xef\xbb\xbf\r\n\r\n", "holds no sentence"),
        ("a.txt", "one\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a.GZ", b"one\n", "is no gzip file"),
        ("a.GZ", gzip.compress(b"one\n" * 100)[:-12], "is a gzip file that was cut short"),
        ("a.GZ", gzip.compress(b"one\n" * 100)[:-8] + bytes(8), "is a damaged gzip file"),
        ("a.GZ", gzip.compress(b"one\n" * 100)[:10] + b"\xff" * 20, "is a damaged gzip file"),
    ],
)
def test_a_file_that_is_no_text_is_refused(name, content, message, write):
    file = write(name, content)
    assert refusal(file) == f"data {file} {message}"
    assert refusal(file, skip_bad=True) == f"data {file} {message}"


def test_a_file_of_which_no_line_is_left_says_why(write):
    file = write("a.txt", b"\xff\n\xfe\n")
    assert refusal(file, skip_bad=True) == f"data {file} holds no sentence (line 1: is no UTF-8 (byte 0xff))"


@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
def test_a_file_that_is_not_there_or_is_a_folder_is_refused(name, tmp_path):
    assert refusal(tmp_path / name) == f"data {tmp_path / name} does not exist"
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name) == f"data {tmp_path / name} cannot be read: Is a directory"


def test_more_than_memory_is_made_for_is_refused(write, monkeypatch):
    monkeypatch.setattr("link.sentences._MAX_BYTES", 2**20)
    file = write("a.gz", b"ab\n" * 2**19)
    assert refusal(file) == f"data {file} holds more than 1 MiB: split it"


def parts_of(folder, **options):
    return [part and part.texts for part in read_sentence_parts(folder, **options)]


def test_a_folder_has_parts_by_name(write, tmp_path):
    for name in ("Train.txt", "valid.txt.gz", "test.TXT", "train_notes.txt", "train.tsv", "readme.md", "train.en"):
        write(name, f"{name} said\n")
    (tmp_path / "dev.txt").mkdir()
    assert parts_of(tmp_path) == [("Train.txt said",), ("valid.txt.gz said",), ("test.TXT said",)]


def test_a_part_may_be_absent_and_a_file_is_training_sentences(write, tmp_path):
    file = write("train.txt", "one\n\ntwo")
    assert parts_of(tmp_path, skip_bad=True) == parts_of(file, skip_bad=True) == [("one", "two"), None, None]
    assert read_sentence_parts(file, skip_bad=True).train.skipped == 1


def test_a_corpus_of_several_languages_and_tests_is_told_apart(write, tmp_path):
    for language in ("en", "de"):
        for stem in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
            write(f"{stem}.{language}.gz", f"{stem} {language}\n")
    write("SOURCE.txt", "where it is from\n")
    chosen = parts_of(tmp_path, language="en", test="test_2016_flickr")
    assert chosen == [("train en",), ("val en",), ("test_2016_flickr en",)]
    with pytest.raises(
        ArgumentError, match=r"two test files, test_2016_flickr.en.gz and test_2017_flickr.en.gz: name one"
    ):
        read_sentence_parts(tmp_path, language="en")
    with pytest.raises(
        ArgumentError, match=r"test must be one of test_2016_flickr, test_2017_flickr in .*, got 'test'"
    ):
        read_sentence_parts(tmp_path, language="en", test="test")
    with pytest.raises(
        ArgumentError, match=r"no train file: train.txt, train.txt.gz; name its language, one of de, en$"
    ):
        read_sentence_parts(tmp_path)
    with pytest.raises(ArgumentError, match=r"no train file in 'fr': train.fr, train.fr.gz$"):
        read_sentence_parts(tmp_path, language="fr")


def test_two_files_of_a_part_are_refused(write, tmp_path):
    for name in ("train.txt", "train.txt.gz", "test.txt"):
        write(name, "one\n")
    with pytest.raises(ArgumentError, match=r"two train files, train.txt and train.txt.gz: keep one$"):
        read_sentence_parts(tmp_path)


def test_a_folder_without_training_sentences_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"has no train file: train.txt, train.txt.gz$"):
        read_sentence_parts(tmp_path)
