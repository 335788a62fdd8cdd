"""Files as people have them: which are read, which are refused, and with which line number."""

import json
import os
import random
from pathlib import Path

import pytest

from link.errors import ArgumentError
from link.texts import TextRows, class_names, class_numbers, lines_in, of_known_classes, read_lines, read_texts

DATA = Path(os.environ.get("HARDPATH_DATA", "no such folder"))
FILMS = ("a fine film", "dull", "a joy", "endless, and dull")
LABELS = ("1", "0", "1", "0")
PAIRS = tuple(zip(FILMS, LABELS, strict=True))


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


def refusal(file, **columns):
    with pytest.raises(ArgumentError) as refused:
        read_texts(file, **columns)
    assert "\n" not in str(refused.value)
    return str(refused.value)


FILES = {
    "tsv, label first": ("a.tsv", "label\tsentence\n", lambda text, label: f"{label}\t{text}\n", 2),
    "tsv, text first": ("a.tsv", "content\tclass\n", lambda text, label: f"{text}\t{label}\n", 2),
    "tsv without a header": ("a.tsv", "", lambda text, label: f"{text}\t{label}\n", 1),
    "tsv without a header, label first": ("a.tsv", "", lambda text, label: f"{label}\t{text}\n", 1),
    "tsv from Windows": ("a.tsv", "label\ttext\r\n", lambda text, label: f"{label}\t{text}\r\n", 2),
    "tsv from an old Mac": ("a.tsv", "label\ttext\r", lambda text, label: f"{label}\t{text}\r", 2),
    "tsv with a byte order mark": ("a.tsv", "\ufefflabel\ttext\n", lambda text, label: f"{label}\t{text}\n", 2),
    "tsv with the rows numbered": ("a.tsv", "\tText\tLabel\n", lambda text, label: f"7\t{text}\t{label}\n", 2),
    "tsv, the label's column unknown": ("a.tsv", "phrase\tpolarity\n", lambda text, label: f"{text}\t{label}\n", 2),
    "tsv, the text's column unknown": ("a.tsv", "plot\tlabel\n", lambda text, label: f"{text}\t{label}\n", 2),
    "txt with tabs": ("a.txt", "", lambda text, label: f"{label}\t{text}\n", 1),
    "csv": ("a.csv", "Class Index,Text\n", lambda text, label: f'{label},"{text}"\n', 2),
    "csv without a header": ("a.CSV", "", lambda text, label: f'"{text}","{label}"\n', 1),
    "csv with semicolons": ("a.csv", "intent;query\n", lambda text, label: f"{label};{text}\n", 2),
    "csv with tabs": ("a.csv", '"intent"\t"query"\n', lambda text, label: f"{label}\t{text}\n", 2),
    "csv with a column that says nothing": ("a.csv", "id,label,x,text\n", lambda text, label: f'7,{label},u,"{text}"\n', 2),
    "csv, two labels and one of them `label`": (
        "a.csv", "topic,label,text\n", lambda text, label: f'u,{label},"{text}"\n', 2,
    ),
    "json lines": ("a.jsonl", "", lambda text, label: json.dumps({"sentence": text, "label": int(label)}) + "\n", 1),
    "json lines, keys unknown": ("a.json", "", lambda text, label: json.dumps({"s": text, "y": label}) + "\n", 1),
    "json lists": ("a.ndjson", "", lambda text, label: json.dumps([text, label]) + "\n", 1),
    "blank lines between": ("a.tsv", "\nlabel\ttext\n", lambda text, label: f"{label}\t{text}\n", 3),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_read_as(case, write):
    name, header, row, first = FILES[case]
    found = read_texts(write(name, header + "".join(row(*pair) for pair in PAIRS)))
    assert found.texts == FILMS
    assert found.labels == LABELS
    assert found.lines == tuple(range(first, first + len(FILMS)))


def test_a_file_of_texts_alone_has_no_labels(write):
    for name, content in (
        ("a.txt", "\n".join(FILMS) + "\n\n"),
        ("a.tsv", "\n".join(FILMS)),
        ("a.csv", "text\n" + "\n".join(f'"{film}"' for film in FILMS)),
        ("a.tsv", "id\tsentence\n" + "\n".join(f"{i}\t{film}" for i, film in enumerate(FILMS))),
        ("a.jsonl", "\n".join(map(json.dumps, FILMS))),
    ):
        found = read_texts(write(name, content))
        assert (found.texts, found.labels) == (FILMS, None), name
    assert read_texts(write("a.csv", "text\ngood; bad\n")).texts == ("good; bad",)


def test_quotes_hold_separators_line_breaks_and_quotes(write):
    file = write("a.csv", 'label,text\n1,"one, two\nand ""three"""\n0,plain\n\n1,"last"\n')
    found = read_texts(file)
    assert found.texts == ('one, two\nand "three"', "plain", "last")
    assert found.lines == (2, 4, 6)


def test_a_quote_in_a_tsv_is_a_character(write):
    found = read_texts(write("a.tsv", 'label\ttext\n1\t"so good\n0\t"so" "bad"\n'))
    assert found.texts == ('"so good', '"so" "bad"')


def test_no_character_but_a_line_end_parts_lines(write):
    odd = "a\u2028b\u0085c\x0b\x1cd"
    assert read_texts(write("a.tsv", f"label\ttext\n1\t{odd}\n")).texts == (odd,)


def test_texts_in_several_columns_are_joined_in_their_order(write):
    rows = [("3", "Fears", "Unions say"), ("4", "Race", "A second team"), ("3", "Prices", "Oil rises")]
    bare = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    joined = tuple(f"{title} {description}" for _, title, description in rows)
    for content in (bare, '"class","title","description"\n' + bare):
        found = read_texts(write("a.csv", content))
        assert (found.texts, found.labels) == (joined, ("3", "4", "3"))
    numbered = read_texts(write("b.csv", "".join(f"{i},{line}\n" for i, line in enumerate(bare.splitlines()))))
    assert (numbered.texts, numbered.labels) == (joined, ("3", "4", "3"))
    chosen = read_texts(write("a.csv", '"class","title","description"\n' + bare), text_column="description")
    assert chosen.texts == ("Unions say", "A second team", "Oil rises")
    assert read_texts(write("a.csv", '1,a,\n2,b,c\n1,d,"e"\n')).texts == ("a", "b c", "d e")


def test_columns_may_be_given_by_name_or_number(write):
    header = write("a.tsv", "s\tt\ty\n" + "".join(f"{film}\tx\t{label}\n" for film, label in PAIRS))
    bare = write("b.tsv", "".join(f"{film}\t{film[0]}\t{label}\n" for film, label in PAIRS))
    for file, columns in (
        (header, {"text_column": "s", "label_column": "y"}),
        (header, {"text_column": "S", "label_column": "y"}),
        (bare, {"text_column": "1", "label_column": "3"}),
    ):
        found = read_texts(file, **columns)
        assert (found.texts, found.labels) == (FILMS, LABELS)
    first_row = write("c.tsv", "1\ta\n0\tb\n0\tc\n")
    assert read_texts(first_row, label_column="1").labels == ("1", "0", "0")


def test_a_class_called_like_a_column_is_no_header(write):
    rows = "what is it\tdescription\nwho is it\tperson\nwhat is that\tdescription\n"
    assert read_texts(write("a.tsv", rows)).labels == ("description", "person", "description")
    rows = "what is there to be seen of it\tdescription\nwho is it\tperson\nwho goes\tperson\n"
    assert read_texts(write("a.tsv", rows), label_column="2").labels == ("description", "person", "person")


REFUSED = {
    "a cell too few": ("a.tsv", "label\ttext\n1\tfine\n0\n", "line 3: has 1 column where line 1 has 2"),
    "a cell too many": ("a.tsv", "fine\t1\ndull\t0\nbad\t0\t9\n", "line 3: has 3 columns where line 1 has 2"),
    "a comma without quotes": ("a.csv", "label,text\n1,so, so\n", "line 2: has 3 columns where line 1 has 2 (a cell with"),
    "a quote left open": ("a.csv", 'label,text\n1,fine\n0,"dull\n1,good\n', "line 3: opens a quote that is never closed"),
    "a quote left open in a long file": (
        "a.csv", 'label,text\n0,"dull\n' + "1,good\n" * 20_000, "line 2: opens a quote that is not closed within 131072",
    ),
    "a quote that ends early": ("a.csv", 'label,text\n1,"fine" film\n', "line 2: is no CSV: "),
    "an empty text": ("a.tsv", "label\ttext\n1\tfine\n0\t  \n", "line 3: the text is empty"),
    "an empty label": ("a.tsv", "label\ttext\n\tfine\n0\tdull\n", "line 2: the label is empty"),
    "a byte that is no UTF-8": ("a.tsv", b"label\ttext\r\n1\tcaf\xe9\r\n", "line 2: is no UTF-8 (byte 0xe9)"),
    "UTF-16": ("a.tsv", "label\ttext\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "a NUL": ("a.tsv", "label\ttext\n1\tfi\0ne\n", "line 2: holds a NUL character"),
    "half of a surrogate pair": ("a.jsonl", '{"text": "\\ud83d", "label": 1}', "line 1: holds half of a surrogate pair"),
    "no JSON": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', "line 2: is no JSON: "),
    "JSON over several lines": ("a.json", '[\n  "a"\n]', "line 1: is no JSON: "),
    "JSON too deep": ("a.json", "[" * 10**5, "line 1: is no JSON: nested too deep"),
    "JSON of another kind": ("a.jsonl", "7", "line 1: must be an object, a list or a string, got 7"),
    "a key that is absent": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: 'label' is absent"),
    "a text that is a number": ("a.jsonl", '{"text": 7, "label": 1}', "line 1: 'text' must be a string, got 7"),
    "a label that is a fraction": (
        "a.jsonl", '{"text": "a", "label": 0.5}', "line 1: 'label' must be a string or an integer, got 0.5",
    ),
    "a label that is null": ("a.jsonl", '{"text": "a", "label": null}', "line 1: 'label' must be a string or an integer"),
    "an object among lists": ("a.jsonl", '["a", 1]\n{"text": "b"}', "line 2: must be like line 1, no object"),
    "lists of several lengths": ("a.jsonl", '["a", 1]\n["b"]', "line 2: has 1 values where line 1 has 2"),
    "nothing": ("a.tsv", "", "holds no rows"),
    "a header alone": ("a.tsv", "label\ttext\n", "holds no rows"),
    "columns equally varied": (
        "a.tsv", "fine\tgood\ndull\tbad\n", "cannot tell label and text among 2 columns without a header: name them text",
    ),
    "two labels": ("a.tsv", "class\tintent\ttext\n1\t2\ta\n", "among 3 columns named class, intent, text: name them"),
    "columns unknown beside a text": ("a.tsv", "text\tx\ty\na\t1\t2\n", "among 3 columns named text, x, y"),
    "columns unknown beside a label": ("a.tsv", "label\tx\ty\n1\ta\tb\n", "among 3 columns named label, x, y"),
    "a number that may be a label": ("a.csv", "a b,1,5\nc d,0,4\ne f,1,5\ng h,1,3\n", "among 3 columns without a header"),
    "a header in unknown words": (
        "a.tsv", "plot\tverdict\nfine\t2\ndull\t0\nno\t0\n", "line 1: looks like a header (no other row has 'verdict')",
    ),
    "a header in unknown words, classes with names": (
        "a.tsv", "plot\tverdict\nfine\tgood\ndull\tbad\nok\tgood\nno\tbad\n", "line 1: looks like a header",
    ),
    "two columns of one name": (
        "a.csv", "Label,text,label\n1,fine,0\n0,dull,1\n", "line 1: names two columns alike, Label and label: give each",
    ),
    "another kind of file": ("a.parquet", "PAR1", "must end in one of .tsv, .tab, .csv, .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_broken_or_in_doubt_is_refused(case, write):
    name, content, message = REFUSED[case]
    file = write(name, content)
    assert message in refusal(file)
    assert refusal(file).startswith(f"data {file}")


def test_columns_without_a_name_may_be_several(write):
    assert read_texts(write("a.csv", "label,text,,\n1,fine,,\n0,dull,,\n")).texts == ("fine", "dull")


SKIPPED = {
    "tsv": (
        "a.tsv",
        b"label\ttext\n1\tfine\n0\n0\t \n1\tcaf\xe9\n0\tfi\0ne\n\tdull\n0\tdull\n",
        [
            (3, "has 1 column where line 1 has 2"),
            (4, "the text is empty"),
            (5, "the text is no UTF-8"),
            (6, "holds a NUL character"),
            (7, "the label is empty"),
        ],
    ),
    "csv": (
        "a.csv",
        b'text,label\nfine,1\n"so\nso",1,2\ndull,0\n,1\n',
        [
            (3, "has 3 columns where line 1 has 2 (a cell with the separator in it needs quotes)"),
            (6, "the text is empty"),
        ],
    ),
    "json lines": (
        "a.jsonl",
        b'{"text":\n{"text": "fine", "label": 1}\n7\n["dull"]\n{"text": "\xff", "label": 0}\n{"label": 1}\n'
        b'{"text": "dull", "label": 0}\n',
        [
            (1, "is no JSON: Expecting value (one object a line)"),
            (3, "must be an object, a list or a string, got 7"),
            (4, "must be like line 2, an object"),
            (5, "the text is no UTF-8"),
            (6, "'text' is absent"),
        ],
    ),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_rows_that_are_broken_are_passed_over_where_that_is_asked_for(case, write):
    name, content, wrong = SKIPPED[case]
    file = write(name, content)
    found = read_texts(file, skip_bad=True)
    assert (found.texts, found.labels) == (("fine", "dull"), ("1", "0"))
    assert found.wrong == tuple(wrong)
    assert found.skipped == len(wrong)
    assert found.first_skipped == f"line {wrong[0][0]}: {wrong[0][1]}"
    assert refusal(file)  # where it is not


def test_a_file_of_which_no_row_is_left_says_why(write):
    with pytest.raises(
        ArgumentError, match=r"a\.tsv has no row that can be used; the first, line 2: the text is empty"
    ):
        read_texts(write("a.tsv", "label\ttext\n0\t \n1\t \n"), skip_bad=True)
    with pytest.raises(ArgumentError, match="is UTF-16: save it as UTF-8"):
        read_texts(write("b.tsv", "label\ttext\n0\ta\n".encode("utf-16")), skip_bad=True)


def test_lines_that_are_no_texts_are_passed_over_where_that_is_asked_for():
    found = lines_in("stdin", b"a film\n\ncaf\xe9\nd\0ll\ndull\n\n", skip_bad=True)
    assert (found.texts, found.lines) == (("a film", "dull"), (1, 5))
    assert found.wrong == ((2, "is empty"), (3, "is no UTF-8"), (4, "holds a NUL character"))


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    assert refusal(tmp_path / "no.tsv").endswith("no.tsv does not exist")
    (tmp_path / "folder.tsv").mkdir()
    assert refusal(tmp_path / "folder.tsv").endswith("cannot be read: Is a directory")


def test_a_column_that_is_not_there_is_named(write):
    file = write("a.tsv", "label\ttext\n1\tfine\n")
    assert refusal(file, label_column="mood").endswith("got 'mood'; its columns are label, text")
    assert refusal(file, text_column="3").startswith("text_column must name a column of ")
    assert refusal(file, text_column="text", label_column="2").startswith("label_column must be another column")
    assert refusal(write("b.tsv", "fine\t1\n"), label_column="y").endswith("it has 2 columns and no header")


def test_lines_are_read_with_blank_ones_refused_but_at_the_end(write):
    assert read_lines(write("a", "\ufeff one\ntwo \r\n\n\n")) == ("one", "two")
    assert read_lines("stdin", b"caf\xc3\xa9") == ("café",)
    for content, message in (
        (b"one\n\ntwo", "--texts stdin: line 2: is empty"),
        (b"one\n\xff", "--texts stdin: line 2: is no UTF-8 (byte 0xff)"),
        (b"a\0b", "--texts stdin: line 1: holds a NUL"),
        (b" \n", "--texts stdin holds no text"),
        (b"", "--texts stdin holds no text"),
    ):
        with pytest.raises(ArgumentError) as refused:
            read_lines("stdin", content, field="--texts")
        assert str(refused.value).startswith(message)


def test_classes_are_in_an_order_of_their_own():
    labels = [str(number) for number in range(12)] * 2
    random.Random(0).shuffle(labels)
    assert class_names(labels) == tuple(map(str, range(12)))
    assert class_names(["b", "10", "9", "b"]) == ("10", "9", "b")


def rows_of(*labels):
    return TextRows("a.tsv", labels, labels, tuple(range(2, 2 + len(labels))))


def test_a_label_is_a_class_by_name_and_else_by_number():
    assert class_numbers(rows_of("b", "a"), ("a", "b")) == [1, 0]
    assert class_numbers(rows_of("0", "1"), ("1", "0")) == [1, 0]
    assert class_numbers(rows_of("1", "0"), ("negative", "positive")) == [1, 0]
    assert class_numbers(rows_of("2", "1"), ("a", "b"), names=("b", "a")) == [0, 1]


@pytest.mark.parametrize(
    ("rows", "classes", "names", "message"),
    [
        (rows_of("a", "c"), ("a", "b"), None, "a.tsv: line 3: class 'c' is none of the 2 known: a, b"),
        (rows_of("1", "2"), ("a", "b"), None, "a.tsv: line 2: class '1' is none of"),
        (rows_of("0", "2"), ("a", "b"), None, "a.tsv: line 3: class '2' is none of"),
        (rows_of("1", "3"), ("a", "b"), ("a", "b"), "a.tsv: line 2: class '1' is none of"),
        (rows_of("x"), tuple(map(str, range(150))), None, "the 150 known: 0, 1, 2, 3, 4, 5, 6, 7, ..."),
        (TextRows("a.txt", ("a",), None, (1,)), ("a",), None, "a.txt has no column of labels"),
    ],
)
def test_a_label_that_is_no_class_is_named_with_its_line(rows, classes, names, message):
    with pytest.raises(ArgumentError, match=r"^data ") as refused:
        class_numbers(rows, classes, names=names)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "classes", "names", "left"),
    [
        (("b", "?", "a"), ("a", "b"), None, [1, 0]),
        (("0", "?", "1", "7"), ("a", "b"), None, [0, 1]),
        (("2", "?", "1"), ("a", "b"), ("b", "a"), [0, 1]),
    ],
)
def test_rows_of_no_class_are_passed_over_where_that_is_asked_for(labels, classes, names, left):
    found = of_known_classes(rows_of(*labels), classes, names=names)
    assert class_numbers(found, classes, names=names) == left
    assert found.wrong[0][0] == 3
    assert found.wrong[0][1].startswith("class '?' is none of the 2 known: a, b")
    assert len(found) + found.skipped == len(labels)


@pytest.mark.parametrize("names", [None, ("b", "a")])
def test_a_number_that_puts_the_first_one_in_doubt_is_not_passed_over(names):
    with pytest.raises(ArgumentError, match=r"has labels 0 and 2 of 2 classes: the first number is in doubt"):
        of_known_classes(rows_of("1", "2", "0", "1"), ("a", "b"), names=names)
    found = of_known_classes(rows_of("1", "2", "0"), ("0", "1"))  # names that are numbers leave no doubt
    assert found.labels == ("1", "0")


REAL = {
    "sst2/train.tsv": (67_349, ("0", "1"), 2, 67_350),
    "sst2/dev.tsv": (872, ("0", "1"), 2, 873),
    "ag_news/train_subset_10k.tsv": (10_001, ("Business", "Sci/Tech", "Sports", "World"), 1, 10_001),
    "ag_news/test.csv": (7_600, ("1", "2", "3", "4"), 1, 7_600),
}


@pytest.mark.parametrize("name", REAL)
def test_a_published_file_is_read_whole(name):
    if not (DATA / name).is_file():
        pytest.skip("HARDPATH_DATA names no folder with this data set")
    found = read_texts(DATA / name)
    assert (len(found), class_names(found.labels), found.lines[0], found.lines[-1]) == REAL[name]
