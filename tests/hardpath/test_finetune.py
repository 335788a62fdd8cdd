"""`hardpath finetune` of encoders by name: from a folder of transformers to a run that needs that folder no more."""

import json
import shutil

import pytest
import torch

from train.encoders import build_backbone, learn_tokenizer

WORDS = {"good": ("fine", "great"), "bad": ("dull", "grim")}
ROWS = [
    (f"a {word} film of the {number}", label) for label, words in WORDS.items() for word in words for number in range(8)
]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SHORT = [
    part
    for key, value in {
        "task_options.max_length": 12,
        "task_options.validation_rows": 4,
        "task_options.test_rows": 4,
        "link.tokens": 2,
        "link.dim": 4,
        "link.codewords": 4,
        "schedule.epochs": 2,
        "schedule.warmup_epochs": 1,
        "schedule.alignment_start_epoch": 2,
        "channel.eval_snr_db": "[6.0]",
    }.items()
    for part in ("--set", f"{key}={value}")
]


def save(folder, config, tokenizer=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        build_backbone(config).save_pretrained(folder)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    lines = "".join(f"{text}\t{label}\n" for text, label in ROWS)
    (folder / "train.tsv").write_text("text\tlabel\n" + lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    tokenizer = learn_tokenizer([text for text, _ in ROWS] * 2, 200)
    vocabulary = len(json.loads(tokenizer)["model"]["vocab"])
    config = {"model_type": "bert", "max_position_embeddings": 16, "pad_token_id": 0, "vocab_size": vocabulary}
    return save(tmp_path_factory.mktemp("bert"), config | SMALL, tokenizer)


def test_an_encoder_by_name_is_finetuned_and_trained_on_and_its_folder_needed_no_more(hardpath, data, bert, tmp_path):
    tuned = tmp_path / "tuned"
    options = ("--data", data, "--encoder", bert, "--out", tuned, *SHORT[:6], "--epochs", 3, "--no-bf16", "--json")
    found = hardpath("finetune", "text", *options)
    assert found.code == 0, found.err
    assert (found.json["encoder"], found.json["rows"]) == (str(bert), len(ROWS) - 8)
    assert hardpath("finetune", "text", *options).json == found.json, "what is done answers from its folder"
    run = tmp_path / "run"
    trained = hardpath("train", "text", "--data", data, "--encoder", tuned, *SHORT, "--out", run, "--brief")
    assert trained.code == 0, trained.err
    measured = ("evaluate", run, "--data", data, "--snr-db", 6, "--draws", 1, "--json")
    before = hardpath(*measured).json
    shutil.rmtree(tuned)
    assert hardpath(*measured).json == before


def test_what_is_no_encoder_of_texts_with_weights_is_refused(hardpath, data, bert, tmp_path):
    def refused(encoder):
        return hardpath(
            "finetune", "text", "--data", data, "--encoder", encoder, "--out", tmp_path / "out", *SHORT[:2]
        ).refused(2)

    empty = shutil.copytree(bert, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    assert refused(empty).startswith(f"encoder '{empty}' cannot be loaded: Error no file named model.safetensors")
    vit = save(tmp_path / "vit", {"model_type": "vit", "image_size": 16, "patch_size": 8, **SMALL})
    assert "vit" in refused(vit)
    assert refused(tmp_path / "none") == f"encoder folder {tmp_path / 'none'} does not exist"
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize("recipe", ["digits", "visual"])
def test_encoders_that_are_trained_over_the_link_alone_are_told_so(hardpath, tmp_path, recipe):
    options = ()
    if recipe == "visual":
        from PIL import Image

        rows = "".join(f"{number}.png,colour?,{('red', 'blue')[number % 2]}\n" for number in range(4))
        (tmp_path / "train.csv").write_text("image,question,answer\n" + rows, encoding="utf-8")
        (tmp_path / "images").mkdir()
        for number in range(4):
            Image.new("RGB", (16, 16), ("red", "blue")[number % 2]).save(tmp_path / "images" / f"{number}.png")
        files = {"csv_path": "train.csv", "image_folder": "images"}
        options = (
            "--data",
            tmp_path,
            *(part for key in files for part in ("--set", f"task_options.{key}='{files[key]}'")),
        )
    name = {"digits": "digits", "visual": "visual-questions"}[recipe]
    assert hardpath("finetune", name, *options, "--out", tmp_path / "out").refused(2) == (
        f"task {name} is no classifier of texts, which alone are fine-tuned before a link; encoders that it names are "
        "trained over the link, at optimizer.encoder_learning_rate"
    )
