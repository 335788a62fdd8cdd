"""Raw texts at the command line, with a small bundle that reads them."""

import io
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hardpath.terminal import in_one_line, say_table
from link.bundle import MANIFEST_NAME, load_bundle
from serve.server import Server

TEXTS = ["a fine film", "dull", "\U0001f600 [/b]", "a dull film and a fine one"]


@pytest.fixture(scope="module")
def text_bundle(bundle, with_tokenizer):
    return with_tokenizer(bundle)


@pytest.fixture(scope="module")
def address(text_bundle):
    with Server(text_bundle, port=0) as server:
        yield server.address


def told(texts):
    return [part for text in texts for part in ("--text", text)]


def test_texts_are_sent_and_answered_one_by_one(hardpath, address):
    answer = hardpath("call", address, *told(TEXTS), "--seed", 3, "--json")
    assert answer.code == 0, answer
    samples = answer.json["samples"]
    assert [sample["text"] for sample in samples] == TEXTS
    assert [sample["truncated"] for sample in samples] == [False, False, False, True]
    assert all(0.0 <= sample["probability"] <= 1.0 and sample["bits"] == 24 for sample in samples)
    alone = hardpath("call", address, *told(TEXTS), "--rows", "2:3", "--seed", 3, "--json").json["samples"]
    assert alone == [samples[2]]


def test_the_table_shows_texts_shortened_and_says_which_were_cut(hardpath, address):
    answer = hardpath("call", address, *told([*TEXTS, "fine " * 30]))
    assert answer.code == 0, answer
    for shown in ("a fine film", "\U0001f600 [/b]", "fine fine fine fine fine fine fine fine fine..."):
        assert shown in answer.out
    head = next(line for line in answer.out.splitlines() if "decision" in line)
    assert head.split()[:4] == ["row", "text", "decision", "probability"]
    assert "2 of 5 texts have too many tokens for the model: cut" in answer.err


def test_a_file_or_stdin_gives_a_text_a_line_after_those_of_the_command(hardpath, address, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[1:]) + "\n", encoding="utf-8")
    expected = hardpath("call", address, *told(TEXTS), "--json").json["samples"]
    options = ("--text", TEXTS[0], "--texts", tmp_path / "texts.txt", "--json")
    assert hardpath("call", address, *options).json["samples"] == expected
    stdin = SimpleNamespace(buffer=io.BytesIO("\n".join(TEXTS).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert hardpath("call", address, "--texts", "-", "--json").json["samples"] == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("texts.tsv", "label\tsentence\n1\ta fine film\n0\tdull\n"),
        ("texts.CSV", 'text,label\n"a fine film",1\ndull,0\n'),
        ("texts.jsonl", '{"text": "a fine film"}\n{"text": "dull"}\n'),
    ],
)
def test_a_table_gives_its_texts_without_header_and_labels(hardpath, address, tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    samples = hardpath("call", address, "--texts", tmp_path / name, "--json").json["samples"]
    assert [sample["text"] for sample in samples] == ["a fine film", "dull"]


def test_a_broken_table_is_named_by_its_option(hardpath, tmp_path):
    (tmp_path / "texts.tsv").write_text("label\tsentence\n1\n")
    line = hardpath("call", "127.0.0.1:1", "--texts", tmp_path / "texts.tsv").refused(2)
    assert line == f"--texts {tmp_path / 'texts.tsv'}: line 2: has 1 column where line 1 has 2"


def test_samples_that_the_task_has_not_are_asked_for_by_their_options(hardpath, text_bundle, tmp_path):
    """The small bundle's task is digits, which has a test set; that of texts has none without a folder."""
    copy = tmp_path / "bundle"
    shutil.copytree(text_bundle, copy)
    manifest = json.loads((copy / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["task"]["name"] = "text-classification"
    manifest["provenance"]["recipe"] = {"task_options": {"encoder": "scratch"}}
    encoder = {"vocab_size": 10, "max_position_embeddings": 64}
    manifest["provenance"]["facts"] = {"classes": manifest["task"]["classes"], "encoder": encoder}
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    why = "must name the texts: the task of this bundle, text-classification, has no test set of its own"
    assert hardpath("sweep", copy).refused(2) == f"--data {why}"
    with Server(copy, port=0) as server:
        assert hardpath("call", server.address).refused(2) == f"--text, --texts or --inputs {why}"


def test_every_text_of_a_long_file_is_sent(hardpath, address, tmp_path):
    (tmp_path / "texts.txt").write_text("a film\n" * 20)
    answer = hardpath("call", address, "--texts", tmp_path / "texts.txt", "--json")
    assert [sample["row"] for sample in answer.json["samples"]] == list(range(20))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a film\n\ndull\n", "line 2: is empty"),
        (b"a film\ncaf\xe9\n", "line 2: is no UTF-8 (byte 0xe9)"),
        (b"", "holds no text"),
    ],
)
def test_a_broken_line_is_named_by_its_number(hardpath, tmp_path, content, message):
    (tmp_path / "texts.txt").write_bytes(content)
    line = hardpath("call", "127.0.0.1:1", "--texts", tmp_path / "texts.txt").refused(2)
    assert line.startswith(f"--texts {tmp_path / 'texts.txt'}")
    assert message in line


def test_broken_lines_are_left_out_and_counted_where_that_is_asked_for(
    hardpath, address, tmp_path, caplog, monkeypatch
):
    (tmp_path / "texts.txt").write_bytes(b"a film\n\ncaf\xe9\ndull\n")
    answer = hardpath("call", address, "--texts", tmp_path / "texts.txt", "--skip-bad", "--json")
    assert [sample["text"] for sample in answer.json["samples"]] == ["a film", "dull"]
    assert "texts.txt: 2 of 4 lines are left out; the first, line 2: is empty" in caplog.text
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\0\ndull\n")))
    answer = hardpath("call", address, "--texts", "-", "--skip-bad", "--json")
    assert [sample["text"] for sample in answer.json["samples"]] == ["dull"]
    assert "stdin: 1 of 2 lines are left out; the first, line 1: holds a NUL character" in caplog.text
    (tmp_path / "texts.tsv").write_text("label\tsentence\n1\n0\tdull\n")
    answer = hardpath("call", address, "--texts", tmp_path / "texts.tsv", "--skip-bad", "--json")
    assert [sample["text"] for sample in answer.json["samples"]] == ["dull"]
    assert "texts.tsv: 1 of 2 lines are left out; the first, line 2: has 1 column where line 1 has 2" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "a", "--skip-bad"), "--skip-bad must be absent beside --text alone: it is for lines of a file"),
        (("--decode", "a.npz", "--skip-bad"), "--skip-bad must be absent beside --decode"),
        (("--text", "a", "--text", " "), "--text[1] is empty"),
        (("--texts", "missing.txt"), "--texts missing.txt does not exist"),
        (("--text", "a", "--inputs", "data.npz"), "--inputs must be absent beside --text and --texts"),
        (("--text", "a", "--rows", "3:1"), "--rows must name at least one row from 0, got '3:1'"),
    ],
)
def test_a_wrong_text_is_refused_before_any_server_is_asked(hardpath, options, message):
    assert hardpath("call", "127.0.0.1:1", *options).refused(2) == message


def test_a_model_that_reads_no_texts_says_what_it_takes(hardpath, bundle, tmp_path):
    with Server(bundle, port=0) as server:
        line = hardpath("call", server.address, "--text", "a film").refused(2)
    assert line == "--text is not what this model takes: image"
    (tmp_path / "data.tsv").write_text("label\ttext\n1\ta film\n")
    line = hardpath("sweep", bundle, "--data", tmp_path / "data.tsv").refused(2)
    assert line.endswith("data.tsv holds texts, this bundle takes image: save an .npz")


LABELLED = [("3", "a fine film"), ("1", "dull"), ("3", "one film"), ("0", "a dull one")]


@pytest.fixture
def labelled(tmp_path):
    file = tmp_path / "test.tsv"
    file.write_text("label\tsentence\n" + "".join(f"{label}\t{text}\n" for label, text in LABELLED))
    return file


def points(answer):
    assert answer.code == 0, answer
    return answer.json["points"]


def test_a_sweep_takes_texts_and_labels_from_a_file(hardpath, text_bundle, labelled, tmp_path):
    tokenizer = load_bundle(text_bundle).tokenizer()
    encoded = tokenizer([text for _, text in LABELLED])
    labels = np.array([int(label) for label, _ in LABELLED])
    np.savez(
        tmp_path / "integers.npz", input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, labels=labels
    )
    np.savez(tmp_path / "texts.npz", text=np.array([text for _, text in LABELLED]), labels=labels)
    options = ("--snr-db", "0,6", "--draws", 3, "--json")
    expected = points(hardpath("sweep", text_bundle, "--data", labelled, *options))
    assert expected[0]["samples"] == 4
    for name in ("integers.npz", "texts.npz"):
        assert points(hardpath("sweep", text_bundle, "--data", tmp_path / name, *options)) == expected


def test_a_call_takes_the_same_file_and_says_what_was_right(hardpath, address, labelled):
    samples = hardpath("call", address, "--inputs", labelled, "--rows", "1:3", "--json").json["samples"]
    assert [(sample["row"], sample["text"]) for sample in samples] == [(1, "dull"), (2, "one film")]
    assert [sample["correct"] for sample in samples] == [
        sample["decision"] == label for sample, (label, _) in zip(samples, LABELLED[1:3], strict=True)
    ]


def test_an_unseen_class_is_named_with_its_line(hardpath, text_bundle, labelled):
    labelled.write_text(labelled.read_text() + "11\ta film\n")
    line = hardpath("sweep", text_bundle, "--data", labelled).refused(2)
    assert line.endswith("test.tsv: line 6: class '11' is none of the 10 known: 0, 1, 2, 3, 4, 5, 6, 7, ...")


def test_rows_of_no_class_are_left_out_and_counted_where_that_is_asked_for(hardpath, text_bundle, labelled, caplog):
    options = ("--data", labelled, "--snr-db", "6", "--draws", 3, "--json")
    expected = points(hardpath("sweep", text_bundle, *options))
    labelled.write_text(labelled.read_text() + "11\ta film\n3\t\n")
    assert points(hardpath("sweep", text_bundle, *options, "--skip-bad")) == expected
    assert "test.tsv: 2 of 6 lines are left out; the first, line 6: class '11' is none of the 10 known" in caplog.text


def test_where_nothing_can_be_left_out_that_is_said(hardpath, text_bundle, tmp_path):
    np.savez(tmp_path / "own.npz", text=np.array(["dull"]), labels=[0])
    line = hardpath("sweep", text_bundle, "--data", tmp_path / "own.npz", "--skip-bad").refused(2)
    assert line == f"--skip-bad must be absent: {tmp_path / 'own.npz'} holds arrays, not lines, of which any may be bad"
    assert hardpath("sweep", text_bundle, "--skip-bad").refused(2) == (
        "--skip-bad must be absent: the task digits leaves out no rows"
    )


def test_texts_without_labels_have_no_accuracy(hardpath, text_bundle, tmp_path):
    (tmp_path / "texts.txt").write_text("a film\ndull\n")
    line = hardpath("sweep", text_bundle, "--data", tmp_path / "texts.txt").refused(2)
    assert line.endswith("or texts with labels")


def test_numbers_of_classes_are_read_by_the_list_beside_the_file(hardpath, text_bundle, labelled, tmp_path):
    names = [f"class {number}" for number in range(10)]
    manifest = json.loads((text_bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    named = tmp_path / "named"
    named.mkdir()
    for file in text_bundle.iterdir():
        (named / file.name).write_bytes(file.read_bytes())
    (named / MANIFEST_NAME).write_text(
        json.dumps(manifest | {"task": {"name": "x", "classes": names}}), encoding="utf-8"
    )
    options = ("--snr-db", "6", "--draws", 3, "--json")
    expected = points(hardpath("sweep", text_bundle, "--data", labelled, *options))
    from_one = [(str(int(label) + 1), text) for label, text in LABELLED]
    labelled.write_text("".join(f"{label}\t{text}\n" for label, text in from_one))
    assert "line 1: class '4' is none of" in hardpath("sweep", named, "--data", labelled, *options).refused(2)
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    assert points(hardpath("sweep", named, "--data", labelled, *options)) == expected


def test_inspect_shows_how_a_bundle_reads_texts(hardpath, text_bundle, bundle):
    shown = hardpath("inspect", text_bundle).out
    assert "text: a text, cut or padded to 6 tokens, becomes input_ids and attention_mask" in shown
    assert "tokenizer.json" not in hardpath("inspect", bundle).out
    assert hardpath("inspect", text_bundle, "--json").json["tokenizer"]["length"] == 6


def test_doctor_knows_the_extras_of_texts(hardpath):
    assert {"text", "hub"} <= set(hardpath("doctor", "--json").json["extras"])


def test_a_cell_is_shown_as_it_is_and_on_one_line(capsys):
    assert in_one_line("a\x1b[31m\nfilm\u2028") == "a\ufffd[31m film"
    say_table("", ("text",), [("[red]a[/red] film [/b]",)])
    assert "[red]a[/red] film [/b]" in capsys.readouterr().out
