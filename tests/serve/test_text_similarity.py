"""The example that says how alike in meaning sentences and answers are, against a small bundle and a small encoder."""

import gzip
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from train.encoders import build_backbone, learn_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "text_similarity.py"
TEXTS = ["a fine film", "one dull film and a fine one", "and", "a dull one"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT of a layer, as transformers reads it."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = learn_tokenizer(TEXTS * 2, 100)
    vocabulary = len(json.loads(tokenizer)["model"]["vocab"])
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "bert", "max_position_embeddings": 16, "pad_token_id": 0, "vocab_size": vocabulary}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        build_backbone(config | small).save_pretrained(folder)
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 16}
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


@pytest.fixture
def example(monkeypatch, encoder):
    def run(bundle, sentences, *arguments):
        given = [bundle, sentences, "--encoder", encoder, *arguments]
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, given)])
        runpy.run_path(str(EXAMPLE), run_name="__main__")

    return run


def test_a_row_an_snr_is_printed(example, speller_path, tmp_path, capsys):
    (tmp_path / "test.en.gz").write_bytes(gzip.compress("".join(f"{text}\n" for text in TEXTS).encode()))
    example(speller_path, tmp_path / "test.en.gz", "--snr", "0,12")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["Es/N0, dB", "---", "0", "12"]
    for _, similarity, other, same in rows[2:]:
        mean, low, high = (
            float(part) for part in similarity.replace("[", "").replace("]", "").replace(",", "").split()
        )
        assert -1.0 <= low <= mean <= high
        assert -1.0 <= float(other) <= 1.0
        assert same.endswith(" %")


@pytest.mark.parametrize(
    ("sentences", "arguments", "message"),
    [
        (None, [], r"data .*absent\.txt does not exist"),
        ("a film\n\nand\n", [], r"data .*: line 2: is empty"),
        ("a film\n", [], r".*mine\.txt must hold two sentences or more"),
        ("a film\nand\n", ["--snr", "a:b"], r"snr_db must be .*, got 'a:b'"),
        ("a film\nand\n", ["--channel", "wire"], r"channel must be one of .*, got 'wire'"),
        ("a film\nand\n", ["--encoder", "./none"], r"\./none is no encoder that transformers knows: "),
    ],
)
def test_a_mistake_is_one_line_and_no_table_is_begun(
    example, speller_path, tmp_path, capsys, sentences, arguments, message
):
    file = tmp_path / ("absent.txt" if sentences is None else "mine.txt")
    if sentences is not None:
        file.write_text(sentences, encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"^text_similarity: {message}"):
        example(speller_path, file, *arguments)
    assert capsys.readouterr().out == ""


def test_a_bundle_that_answers_classes_is_refused(example, text_bundle_path, tmp_path):
    (tmp_path / "mine.txt").write_text("a film\nand\n", encoding="utf-8")
    with pytest.raises(
        SystemExit, match=r"^text_similarity: .* does not answer sentences with sentences: its task is "
    ):
        example(text_bundle_path, tmp_path / "mine.txt")
