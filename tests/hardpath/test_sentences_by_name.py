"""Sentences rebuilt by an encoder-decoder that is named, from plain files to a verified bundle, by the command alone."""

import itertools
import json
import shutil

import pytest

from link.randomness import permutation

WHO = ["a man", "two dogs", "a girl", "some people", "the old woman", "a boy"]
DOES = ["runs", "sits", "is sleeping", "are playing", "stands alone"]
WHERE = ["", "in the park", "on a wall", "near the red house", "by the sea"]
SENTENCES = [" ".join(f"{a} {b} {c}".split()) + "." for a, b, c in itertools.product(WHO, DOES, WHERE)]

RECIPE = """
name = "named"
task = "text-reconstruction"
[task_options]
seq2seq_model = "MODEL"
max_length = 14
tokens_a_piece = 2
decoder_layers = 1
[link]
lengths = [12, 20, 28]
codewords = 16
dim = 8
order = 4
[schedule]
epochs = 20
warmup_epochs = 6
alignment_start_epoch = 15
[optimizer]
batch_size = 8
learning_rate = 5e-3
encoder_learning_rate = 3e-3
[channel]
train_snr_db = [6.0, 15.0]
eval_snr_db = [12.0]
eval_draws = 1
[header]
repeats = 1
frame_samples = 8
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """BART of two layers of 32, its weights drawn at random, and pieces of these sentences."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import BartConfig, BartModel, PreTrainedTokenizerFast

    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(names.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned.train_from_iterator(SENTENCES, trainer)
    learned.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    folder = tmp_path_factory.mktemp("bart")
    PreTrainedTokenizerFast(tokenizer_object=learned, **names).save_pretrained(folder)
    size = {"d_model": 32, "init_std": 0.1, "max_position_embeddings": 32, "vocab_size": learned.get_vocab_size()}
    for end in ("encoder", "decoder"):
        size |= {f"{end}_layers": 1, f"{end}_attention_heads": 4, f"{end}_ffn_dim": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        BartModel(BartConfig(**size)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    order = permutation(2, len(SENTENCES))
    for part, chosen in (("train", order[30:]), ("val", order[:15]), ("test", order[15:30])):
        (folder / f"{part}.txt").write_text("".join(SENTENCES[row] + "\n" for row in chosen), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_named_model_is_trained_exported_verified_swept_and_asked(hardpath, model, data, tmp_path):
    gone = shutil.copytree(model, tmp_path / "bart")
    (tmp_path / "named.toml").write_text(RECIPE.replace("MODEL", str(gone)), encoding="utf-8")
    run = tmp_path / "run"
    answer = hardpath("train", tmp_path / "named.toml", "--data", data, "--out", run, "--brief")
    assert answer.code == 0, answer
    shutil.rmtree(gone)
    assert hardpath("export", run, "--data", data).code == 0
    bundle = run / "bundle"
    answer = hardpath(
        "verify", bundle, "--checkpoint", run, "--data", data, "--snr-db", "12", "--margin", "0.1", "--json"
    )
    assert answer.code == 0, answer
    assert answer.json["verdict"] != "different"
    answer = hardpath("sweep", bundle, "--data", data, "--snr-db", "15", "--out", tmp_path / "swept", "--json")
    assert answer.code == 0, answer
    (point,) = json.loads(answer.out)["points"]
    assert point["accuracy"]["value"] > 0.6
    assert "texts of up to 14 pieces" in hardpath("inspect", bundle).out


def test_a_model_that_cannot_be_used_is_told_in_one_line(hardpath, model, data, tmp_path):
    broken = shutil.copytree(model, tmp_path / "bart")
    (broken / "model.safetensors").unlink()
    (tmp_path / "named.toml").write_text(RECIPE.replace("MODEL", str(broken)), encoding="utf-8")
    arguments = ("train", tmp_path / "named.toml", "--data", data, "--out", tmp_path / "run", "--brief")
    told = hardpath(*arguments).refused(2)
    assert told.startswith(f"seq2seq_model '{broken}' cannot be loaded: ")
    told = hardpath(*arguments, "--set", "task_options.width=64").refused(2)
    assert told == "task_options: width must be absent beside seq2seq_model, got 64"
