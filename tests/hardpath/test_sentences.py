"""Sentences from a folder of plain files to a server's answers, by the command alone."""

import itertools
import json
import subprocess
import sys

import pytest

from link.randomness import permutation
from serve.server import Server

WHO = ["a man", "two dogs", "a girl", "some people"]
DOES = ["runs", "sits", "is sleeping", "are playing"]
WHERE = ["", "in the park", "on a wall", "by the sea"]
SENTENCES = [" ".join(f"{a} {b} {c}".split()) + "." for a, b, c in itertools.product(WHO, DOES, WHERE)]

RECIPE = """
name = "few"
task = "text-reconstruction"
[task_options]
max_length = 12
tokens_a_piece = 2
vocabulary = 330
width = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
[link]
lengths = [8, 12, 24]
codewords = 16
dim = 8
order = 4
[schedule]
epochs = 8
warmup_epochs = 3
alignment_start_epoch = 7
[optimizer]
batch_size = 8
learning_rate = 5e-3
[channel]
train_snr_db = [6.0, 15.0]
eval_snr_db = [9.0]
[header]
repeats = 1
frame_samples = 8
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    order = permutation(2, len(SENTENCES))
    for part, chosen in (("train", order[20:]), ("val", order[:10]), ("test_few", order[10:20])):
        text = "".join(SENTENCES[row] + "\n" for row in chosen)
        (folder / f"{part}.en.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(hardpath, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    (folder / "few.toml").write_text(RECIPE, encoding="utf-8")
    options = ("--data", data, "--set", "task_options.language=en", "--out", folder / "run", "--brief")
    answer = hardpath("train", folder / "few.toml", *options)
    assert answer.code == 0, answer
    assert hardpath("export", folder / "run", "--data", data).code == 0
    return folder / "run"


def test_a_bundle_says_that_it_answers_texts(hardpath, trained):
    shown = hardpath("inspect", trained / "bundle").out
    assert "texts of up to 12 pieces" in shown
    assert "classes" not in shown


def test_a_sweep_shows_and_keeps_how_close_the_sentences_are(hardpath, trained, data, tmp_path):
    options = ("--data", data, "--snr-db", "0,15", "--draws", 2, "--out", tmp_path / "out")
    answer = hardpath("sweep", trained / "bundle", *options)
    assert answer.code == 0, answer
    for shown in ("BLEU-1", "BLEU-4", "exact %", "symbols a word"):
        assert shown in answer.out
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["points"]
    assert found[0]["text"]["bleu_1"]["value"] < found[1]["text"]["bleu_1"]["value"]
    head = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"text_bleu_1", "text_bleu_1_low", "text_exact", "text_symbols_per_word"} <= set(head)
    assert (tmp_path / "out" / "bleu.svg").is_file()
    drawn = hardpath("plot", tmp_path / "out", "--metric", "bleu-1", "--out", tmp_path / "bleu")
    assert drawn.code == 0, drawn
    assert "BLEU-1" in (tmp_path / "bleu.svg").read_text(encoding="utf-8")
    again = hardpath("sweep", trained / "bundle", *options, "--json").json["points"]
    assert again == found


def test_a_file_of_sentences_is_swept_against_itself(hardpath, trained, tmp_path):
    (tmp_path / "mine.txt").write_text("two dogs sit.\n\n", encoding="utf-8")
    answer = hardpath("sweep", trained / "bundle", "--data", tmp_path / "mine.txt", "--snr-db", "12", "--json")
    (point,) = answer.json["points"]
    assert (point["samples"], point["text"]["words"]) == (1, 3 * point["draws"])
    (tmp_path / "mine.txt").write_text("two dogs sit.\n\na man runs.\n", encoding="utf-8")
    answer = hardpath("sweep", trained / "bundle", "--data", tmp_path / "mine.txt", "--snr-db", "12")
    assert "line 2: is empty" in answer.refused(2)


def test_lines_that_are_no_sentences_are_left_out_and_counted_where_that_is_asked_for(
    hardpath, trained, data, tmp_path, caplog
):
    (tmp_path / "mine.txt").write_bytes(
        b"two dogs sit.\n\na man \xff.\na \0 girl.\n" + b"long " * 2001 + b"\na man runs.\n"
    )
    options = ("--snr-db", "12", "--skip-bad", "--json")
    answer = hardpath("sweep", trained / "bundle", "--data", tmp_path / "mine.txt", *options)
    assert answer.json["points"][0]["samples"] == 2
    assert "mine.txt: 4 of 6 lines are left out; the first, line 2: is empty" in caplog.text
    (tmp_path / "mine.jsonl").write_text('{"text": "two dogs sit."}\n{"text": 7}\n{"text": "a man runs."}\n')
    answer = hardpath("sweep", trained / "bundle", "--data", tmp_path / "mine.jsonl", *options)
    assert answer.json["points"][0]["samples"] == 2
    assert "mine.jsonl: 1 of 3 lines are left out; the first, line 2: 'text' must be a string, got 7" in caplog.text
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "train.en.txt").write_bytes((data / "train.en.txt").read_bytes())
    (folder / "test.en.txt").write_bytes(b"two dogs sit.\n\na man runs.\n")
    assert "line 2: is empty" in hardpath("sweep", trained / "bundle", "--data", folder, *options[:2]).refused(2)
    answer = hardpath("sweep", trained / "bundle", "--data", folder, *options)
    assert answer.json["points"][0]["samples"] == 2
    assert "test.en.txt: 1 of 3 lines are left out; the first, line 2: is empty" in caplog.text


def test_what_is_amiss_with_data_that_are_read_twice_is_said_once(data, tmp_path):
    (tmp_path / "few.toml").write_text(RECIPE, encoding="utf-8")
    lines = (data / "train.en.txt").read_bytes()
    (tmp_path / "train.txt").write_bytes(
        lines + b"\xff\n" + b"a man and a dog and a girl and some people are playing.\n"
    )
    # Refused once it has found its facts and loaded its data.
    options = ("--data", tmp_path, "--set", "task_options.skip_bad_lines=true", "--set", "link.lengths=[8,12]")
    command = [sys.executable, "-m", "hardpath", "train", tmp_path / "few.toml", *options, "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("WARNING train.")]
    for said in ("lines are left out", "held out for test", "held out for validation", "are cut there"):
        assert sum(said in line for line in told) == 1, done.stderr


def test_classes_have_no_part_in_sentences(hardpath, trained, data):
    out = data / "with_baselines"
    options = ("--data", data, "--snr-db", "12", "--baseline", "repetition", "--out", out)
    answer = hardpath("sweep", trained / "bundle", *options)
    assert answer.code == 2
    assert "--baseline must be absent: baselines send classes, and this bundle answers texts" in answer.err
    assert not out.exists()  # refused before anything is sent


def test_bundle_and_checkpoint_are_compared(hardpath, trained, data):
    options = ("--data", data, "--snr-db", "9", "--margin", "0.1", "--json")
    answer = hardpath("verify", trained / "bundle", "--checkpoint", trained, *options)
    assert (answer.code, answer.json["verdict"]) == (0, "equivalent")


def test_a_checkpoint_is_measured_piece_by_piece(hardpath, trained, data):
    (hard, *_) = hardpath("evaluate", trained, "--data", data, "--snr-db", "9", "--json").json["points"]
    assert hard["decisions"] % 10 == 0
    assert hard["decisions"] > 10 * len(SENTENCES) / 8
    assert 0.2 < hard["accuracy"]["value"] < 1.0


def test_what_texts_rest_on_is_refused_before_data_are_read(hardpath, trained, tmp_path):
    line = hardpath("evaluate", trained, "--intervene", "zero", "--data", tmp_path).refused(2)
    assert line == "--intervene must be absent: text-reconstruction answers texts, which have no priors to lay beside"


def test_a_call_shows_the_sentence_that_arrived(hardpath, trained):
    with Server(trained / "bundle", port=0) as server:
        answer = hardpath("call", server.address, "--text", "a man runs.", "--snr-db", 15, "--json")
        (sample,) = answer.json["samples"]
        assert isinstance(sample["answer"], str)
        assert "decision" not in sample
        table = hardpath("call", server.address, "--text", "a man runs.", "--snr-db", 15).out
        assert sample["answer"] in table
        points = hardpath("call", server.address, "--text", "a man runs.", "--sweep", "3,15", "--json")
        assert points.code == 0, points
