"""Which files are tables of a text task, what their labels mean, and how many rows are held out."""

import logging

import pytest

from link.errors import ArgumentError
from train.recipe_file import load_recipe
from train.tasks import load_task, task_facts
from train.tasks.text_classification import Options, class_indices, part_of_file, read_parts

ROWS = [(f"a {word} film number {number}", ("bad", "good")[number % 2]) for number, word in enumerate("abcdefghij" * 3)]


def write(file, pairs, header="sentence\tlabel\n"):
    file.write_text(header + "".join(f"{text}\t{label}\n" for text, label in pairs), encoding="utf-8")


def loaded(folder, **options):
    chosen = {"encoder": "scratch", "max_length": 12} | options
    recipe = load_recipe("text", {f"task_options.{key}": str(value) for key, value in chosen.items()})
    return load_task(recipe.task, recipe.task_options, task_facts(recipe, folder)).load(folder)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train.tsv", "train"),
        ("TRAIN.TSV", "train"),
        ("train_subset_10k.tsv", "train"),
        ("train-00000-of-00001.jsonl", "train"),
        ("train.clean.csv", "train"),
        ("train.txt", "train"),
        ("dev.tsv", "validation"),
        ("val.csv", "validation"),
        ("validation_matched.tsv", "validation"),
        ("test.csv", "test"),
        ("train_notes.txt", None),
        ("training.tsv", None),
        ("trainer_state.json", None),
        ("development_guide.txt", None),
        ("value.csv", None),
        ("testing.csv", None),
        ("._train.tsv", None),
        ("train.tsv.bak", None),
        ("train", None),
        ("classes.txt", None),
    ],
)
def test_a_table_bears_the_name_of_its_part(name, part):
    assert part_of_file(name) == part


def test_notes_beside_the_tables_are_left_alone(tmp_path):
    write(tmp_path / "train.TSV", ROWS)
    write(tmp_path / "dev.tsv", ROWS[:4])
    for name in ("train_notes.txt", "development_guide.txt", "testimony.csv"):
        (tmp_path / name).write_text("not a table at all\n\tbut notes\n", encoding="utf-8")
    parts = read_parts(Options(), tmp_path)
    assert (len(parts.train), parts.validation, len(parts.test)) == (30, None, 4)


def test_a_file_is_no_folder(tmp_path):
    write(tmp_path / "train.tsv", ROWS)
    with pytest.raises(ArgumentError, match=r"train\.tsv is no folder: name one with the tables in it"):
        read_parts(Options(), tmp_path / "train.tsv")


def test_a_training_table_that_is_the_test_table_is_refused(tmp_path):
    for name in ("train.tsv", "test.tsv"):
        write(tmp_path / name, ROWS)
    with pytest.raises(ArgumentError, match=r"every row of .*train\.tsv stands in .*test\.tsv too: none is left"):
        loaded(tmp_path)


def test_a_tenth_is_held_out_where_nobody_says_how_much(tmp_path, caplog):
    write(tmp_path / "train.tsv", ROWS)
    with caplog.at_level(logging.WARNING):
        data = loaded(tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [25, 2, 3]
    said = [record.getMessage().partition("train.tsv: ")[2] for record in caplog.records]
    assert said == ["3 of 30 rows are held out for test", "2 of 27 rows are held out for validation"]


def test_what_was_asked_for_is_held_out_or_refused(tmp_path, caplog):
    write(tmp_path / "train.tsv", ROWS)
    with caplog.at_level(logging.WARNING):
        data = loaded(tmp_path, test_rows=5, validation_rows=4)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [21, 4, 5]
    assert not caplog.records
    with pytest.raises(
        ArgumentError, match=r"too few different rows to hold 1000 out for test: lower task_options\.test"
    ):
        loaded(tmp_path, test_rows=1000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"World\nSp\xe9rts\n", r"classes\.txt: line 2: is no UTF-8 \(byte 0xe9\)"),
        (b"World\n\nSports\n", r"classes\.txt: line 2: is empty"),
        (b"World\nSports\nWorld\n", r"classes\.txt: line 3: 'World' stands in line 1 already: name each class once"),
        (b"World\n", r"classes\.txt must name two classes or more, one a line, got 'World' alone"),
        (b"\n", r"classes\.txt holds no text"),
        (
            b"World\nSports\n",
            r"train\.tsv, line 2: label 'bad' is no class; classes\.txt has World, Sports, numbered from 1 to 2",
        ),
    ],
)
def test_a_wrong_list_of_classes_is_one_line(tmp_path, content, message):
    (tmp_path / "classes.txt").write_bytes(content)
    write(tmp_path / "train.tsv", ROWS)
    with pytest.raises(ArgumentError, match=message):
        loaded(tmp_path)


def test_all_parts_count_their_classes_from_the_same_number(tmp_path):
    """A test table without the first class is no reason to take the second for the first."""
    (tmp_path / "classes.txt").write_text("bad\ngood\n")
    write(tmp_path / "train.tsv", [(text, ("bad", "good").index(label)) for text, label in ROWS])
    write(tmp_path / "test.tsv", [("a fine story", 1), ("a fine song", 1)])
    assert loaded(tmp_path).test.labels.tolist() == [1, 1]
    parts = read_parts(Options(), tmp_path)
    assert class_indices(parts.test, ("bad", "good"), numbered=True).tolist() == [0, 0], "taken alone, it counts from 1"


def test_texts_that_the_encoder_knows_nothing_of_are_counted_once(tmp_path, caplog):
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.tsv", [("\u4f60\u597d", "bad"), ("a good film", "good")])
    with caplog.at_level(logging.WARNING):
        loaded(tmp_path, validation_rows=2)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{tmp_path / 'test.tsv'}: 1 of 2 texts have no token that the encoder knows"]


BAD = "\tgood\nno tab\na film of nothing\t\n"  # of an empty text, of one cell, of an empty label


def test_rows_that_cannot_be_used_are_left_out_and_counted_where_that_is_asked_for(tmp_path, caplog):
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.tsv", ROWS[:4])
    expected = loaded(tmp_path)
    with (tmp_path / "train.tsv").open("ab") as file:
        file.write(BAD.encode() + b"a film \xff\tgood\n")
    write(tmp_path / "test.tsv", [*ROWS[:2], ("a film that is neither", "neither"), *ROWS[2:4]])
    with pytest.raises(ArgumentError, match=r"train\.tsv: line 35: is no UTF-8"):
        loaded(tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = loaded(tmp_path, skip_bad_rows=True)
    for part in ("train", "validation", "test"):
        assert getattr(found, part).labels.tolist() == getattr(expected, part).labels.tolist()
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert said == [
        f"{tmp_path / 'train.tsv'}: 4 of 34 lines are left out; the first, line 32: the text is empty",
        f"{tmp_path / 'test.tsv'}: 1 of 5 lines are left out; the first, line 4: label 'neither' is no class; there are "
        "bad, good",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("a film", "?"), ("a story", "!")],
            r"test\.tsv has no row that can be used; the first, line 2: label '\?' is no",
        ),
        (
            [("", "bad"), ("a story", "")],
            r"test\.tsv has no row that can be used; the first, line 2: the text is empty",
        ),
    ],
)
def test_a_table_of_nothing_but_bad_rows_is_refused_whatever_is_asked_for(tmp_path, rows, message):
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.tsv", rows)
    with pytest.raises(ArgumentError, match=message):
        loaded(tmp_path, skip_bad_rows=True)


def test_a_name_that_is_misspelt_beside_a_list_of_classes_costs_its_own_row_alone(tmp_path):
    (tmp_path / "classes.txt").write_text("bad\ngood\n")
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.tsv", [*ROWS[:4], ("a film", "godo")])
    with pytest.raises(ArgumentError, match=r"line 6: label 'godo' is no class; there are bad, good"):
        loaded(tmp_path)
    assert loaded(tmp_path, skip_bad_rows=True).test.labels.tolist() == [0, 1, 0, 1]


def test_a_number_that_puts_the_first_one_in_doubt_is_not_left_out(tmp_path):
    """Of two classes numbered from 1, a stray 0 would make every label another class and leave out all the 2s."""
    (tmp_path / "classes.txt").write_text("bad\ngood\n")
    write(tmp_path / "train.tsv", [(text, 1 + ("bad", "good").index(label)) for text, label in ROWS])
    write(tmp_path / "test.tsv", [("a film", 1), ("a fine song", 2)])
    assert loaded(tmp_path, skip_bad_rows=True).test.labels.tolist() == [0, 1]
    write(tmp_path / "test.tsv", [("a film", 0), ("a fine song", 2)])
    with pytest.raises(ArgumentError, match=r"train\.tsv has label 2, and a table label 0: classes\.txt has bad, good"):
        loaded(tmp_path, skip_bad_rows=True)
