"""Sentences rebuilt by an encoder-decoder that is named: what is kept of it, what is trained, and what a bundle answers."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import MissingExtra, RecipeError, ServerError
from link.randomness import Draws, permutation
from link.sequential import Verdict
from train import checkpoint as checkpoints
from train.answers import answer
from train.backbones import backbones_of
from train.checkpoint import build_transceiver, load
from train.export import export
from train.pieces import END_ID
from train.recipe_file import parse_recipe
from train.run import train
from train.tasks import load_task, task_facts
from train.verify import VerifySettings, verify

WHO = ["a man", "two dogs", "a girl", "the old woman"]
DOES = ["runs", "sits", "stands alone", "sleeps"]
WHERE = ["", "in the park", "on a wall", "by the sea"]
SENTENCES = [" ".join(f"{a} {b} {c}".split()) + "." for a, b, c in itertools.product(WHO, DOES, WHERE)]
LENGTH = 26
"""Pieces that most of these sentences have at most, in bytes and few pairs of them."""
TRAINED = {"encoder_learning_rate": 3e-3, "unfreeze_epoch": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    order = permutation(5, len(SENTENCES))
    for part, chosen in (("train", order[20:]), ("val", order[:10]), ("test", order[10:20])):
        (folder / f"{part}.txt").write_text("".join(SENTENCES[row] + "\n" for row in chosen), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def make_recipe(seq2seq):
    """A recipe of a family's model, some options and keys of its optimiser changed."""

    def make(family="bart", optimizer=(), **options):
        named = {"max_length": LENGTH, "tokens_a_piece": 2, "decoder_layers": 1, "seq2seq_model": str(seq2seq(family))}
        return parse_recipe(
            {
                "name": "named",
                "task": "text-reconstruction",
                "seed": 2,
                "task_options": named | options,
                "link": {"lengths": [24, 36, 2 * LENGTH], "codewords": 16, "dim": 8, "order": 4},
                "schedule": {"epochs": 4, "warmup_epochs": 1, "alignment_start_epoch": 3},
                "optimizer": {"batch_size": 8, "learning_rate": 5e-3, **dict(optimizer)},
                "channel": {"train_snr_db": [6.0, 15.0], "eval_snr_db": [9.0], "eval_draws": 1},
                "header": {"repeats": 1, "frame_samples": 8},
            },
            "the test's recipe",
        )

    return make


@pytest.fixture(scope="module")
def recipe(make_recipe):
    return make_recipe(optimizer=TRAINED)


@pytest.fixture(scope="module")
def data(task, folder):
    return task.load(folder)


@pytest.fixture(scope="module")
def beam_run(make_recipe, run, folder, train_run):
    """A receiver that keeps three hypotheses, behind the run's transmitter."""
    beam = make_recipe(optimizer=TRAINED, beam=3).model_copy(update={"name": "beam"})
    return train_run(beam, data_folder=folder, transmitter=run)


@pytest.fixture(scope="module")
def bundle(run, beam_run, folder, export_run):
    return export_run(run, data_folder=folder, also={"beam": beam_run})


def test_both_ends_start_from_the_weights_of_that_name(make_recipe, folder, seq2seq, train_until, tmp_path):
    from transformers import AutoModel

    recipe = make_recipe()
    train_until(1, recipe, tmp_path / "run", data_folder=folder)
    parts = backbones_of(load(tmp_path / "run" / "last")[1])
    assert set(parts) == {"encoder.reader.backbone", "head.out.backbone"}
    whole = AutoModel.from_pretrained(seq2seq("bart"))
    for part, wanted in zip((part.model for part in parts.values()), (whole.encoder, whole.decoder), strict=True):
        found = getattr(part, "decoder", part).layers.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.layers.state_dict().items())
    # Frozen for good, they lie once in the run's folder.
    tensors = load_file(tmp_path / "run" / "last" / "model.safetensors")
    assert not [name for name in tensors if ".backbone." in name]
    assert [name for name in tensors if name.startswith("model.head.into.")]
    assert {name.partition(".model.")[0] for name in load_file(tmp_path / "run" / "backbone.safetensors")} == set(parts)


def test_both_ends_are_trained_from_their_epoch_on(make_recipe, folder, train_until, tmp_path, recipe):
    def weights(epoch):
        train_until(epoch, recipe, tmp_path / str(epoch), data_folder=folder)
        model = load(tmp_path / str(epoch) / "last")[1]
        return {name: part.model.state_dict() for name, part in backbones_of(model).items()}

    first, second = weights(1), weights(2)
    for name, tensors in first.items():
        changed = [key for key, tensor in tensors.items() if not torch.equal(tensor, second[name][key])]
        assert any(".layers." in f".{key}" for key in changed), name
        assert any("embed_tokens" in key for key in changed), name
    train_until(1, make_recipe(), tmp_path / "start", data_folder=folder)
    start = backbones_of(load(tmp_path / "start" / "last")[1])
    for name, tensors in first.items():
        assert all(torch.equal(tensor, start[name].model.state_dict()[key]) for key, tensor in tensors.items())


def test_a_checkpoint_needs_neither_the_named_model_nor_the_hub(
    make_recipe, folder, seq2seq, tmp_path, same_tensors, train_until
):
    gone = shutil.copytree(seq2seq("bart"), tmp_path / "bart")
    train_until(1, make_recipe(seq2seq_model=str(gone)), tmp_path / "run", data_folder=folder)
    before = load(tmp_path / "run" / "last")[1].state_dict()
    shutil.rmtree(gone)
    checkpoint, model = load(tmp_path / "run" / "last")
    assert same_tensors(model.state_dict(), before)
    task = checkpoints.task_of(checkpoint)
    assert task.tokenizer(["a man runs."]).input_ids.max() > END_ID


def test_what_a_sentence_is_sent_as_follows_from_its_pieces(task, run, data):
    """Latent tokens of its pieces, of its end none, and zeros behind them; alone as beside others."""
    model = load(run)[1]
    ids, mask = (torch.from_numpy(data.test.inputs[name]) for name in ("input_ids", "attention_mask"))
    own = (2 * (mask.sum(dim=1) - 1)).tolist()
    assert len(set(own)) > 2
    with torch.no_grad():
        tokens = model.encode(ids, mask)
        for row, count in enumerate(own):
            assert tokens[row, :count].any(dim=-1).all()
            assert not tokens[row, count:].any()
            alone = model.encode(ids[row : row + 1], mask[row : row + 1])
            torch.testing.assert_close(alone[0], tokens[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("receiver", [None, "beam"])
def test_a_bundle_decides_as_torch_does_whatever_the_batch(bundle, run, beam_run, data, receiver):
    link = Link(load_bundle(bundle, *filter(None, [receiver])))
    model = load(beam_run if receiver else run)[1]
    assert model.head.out.beam == (3 if receiver else 1)
    inputs = {name: values[:30] for name, values in data.train.inputs.items()}
    sent = link.transmit(inputs, Awgn(), 12.0, Draws(1, np.arange(30)))
    y, no, mode = sent.received.y, sent.received.no, sent.header.mode
    whole = link.receiver(y, no, mode)
    with torch.no_grad():
        heard = model.receive(*map(torch.from_numpy, (y, no)), None, torch.from_numpy(mode), answers=False)
        said = answer(model.head, heard.embedding)
    assert np.array_equal(whole.decisions, said.decisions.numpy())
    np.testing.assert_allclose(whole.score, said.score.numpy(), rtol=0, atol=1e-4)
    for size in (1, 2, 7):
        chunks = [
            link.receiver(y[start : start + size], no[start : start + size], mode[start : start + size]).decisions
            for start in range(0, 30, size)
        ]
        assert np.array_equal(np.concatenate(chunks), whole.decisions)
    assert len(set(link.receiver.texts(whole.decisions))) > 5


def test_a_bundle_spells_with_the_models_pieces(bundle, task, seq2seq):
    manifest = load_bundle(bundle).manifest
    assert manifest.task.text.end_id == END_ID
    assert manifest.task.text.pieces == task.model.pieces
    assert manifest.tokenizer.pad_token == "<pad>"
    (ids, _) = manifest.transmitter.inputs[:2]
    assert (ids.shape, ids.high) == (("batch", LENGTH), task.model.pieces - 1)


@pytest.mark.parametrize("receiver", [None, "beam"])
def test_the_bundle_does_what_its_checkpoint_does(bundle, run, beam_run, data, receiver):
    found = load_bundle(bundle, *filter(None, [receiver]))
    settings = VerifySettings(snr_db=(12.0,), margin=0.1)
    result = verify(found, beam_run if receiver else run, data.test.inputs, data.test.labels, settings)
    assert result.verdict is not Verdict.DIFFERENT, result.summary
    assert result.receiver.receptions > 0
    assert not result.receiver.findings
