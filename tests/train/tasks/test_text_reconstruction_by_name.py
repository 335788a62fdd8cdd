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
from train.checkpoint import load
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
SETTINGS = VerifySettings(snr_db=(12.0,), margin=0.1)


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
def bundle(run, folder, export_run):
    return export_run(run, data_folder=folder)


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


def decides_as_torch_does(bundle, run, data, receiver=None):
    """Whether a bundle's receiver decides as its checkpoint, on 30 noisy sentences, in batches of several sizes."""
    link = Link(load_bundle(bundle, receiver))
    model = load(run)[1]
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


def test_a_bundle_decides_as_torch_does_whatever_the_batch(bundle, run, data):
    decides_as_torch_does(bundle, run, data)


def test_a_bundle_spells_with_the_models_pieces(bundle, task, seq2seq):
    manifest = load_bundle(bundle).manifest
    assert manifest.task.text.end_id == END_ID
    assert manifest.task.text.pieces == task.model.pieces
    assert manifest.tokenizer.pad_token == "<pad>"
    (ids, _) = manifest.transmitter.inputs[:2]
    assert (ids.shape, ids.high) == (("batch", LENGTH), task.model.pieces - 1)


def test_the_bundle_does_what_its_checkpoint_does(bundle, run, data):
    found = verify(load_bundle(bundle), run, data.test.inputs, data.test.labels, SETTINGS)
    assert found.verdict is not Verdict.DIFFERENT, found.summary
    assert found.receiver.receptions > 0
    assert not found.receiver.findings


@pytest.mark.slow
def test_a_receiver_that_keeps_three_hypotheses_joins_the_bundle(
    make_recipe, run, folder, train_run, tmp_path, data, same_tensors
):
    beam = make_recipe(optimizer=TRAINED, beam=3).model_copy(update={"name": "beam"})
    beside = train_run(beam, data_folder=folder, transmitter=run)
    assert same_tensors(load(beside)[1].encoder.state_dict(), load(run)[1].encoder.state_dict())
    export(run, tmp_path / "bundle", data_folder=folder, also={"beam": beside})
    decides_as_torch_does(tmp_path / "bundle", beside, data, "beam")
    found = load_bundle(tmp_path / "bundle", "beam")
    result = verify(found, beside, data.test.inputs, data.test.labels, SETTINGS)
    assert result.verdict is not Verdict.DIFFERENT, result.summary
    assert not result.receiver.findings


@pytest.mark.slow
@pytest.mark.parametrize("beam", [1, 3])
def test_a_model_of_another_family_is_exported_as_well(make_recipe, folder, train_run, export_run, beam):
    recipe = make_recipe("t5", TRAINED, beam=beam)
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    run = train_run(recipe, data_folder=folder)
    decides_as_torch_does(export_run(run, data_folder=folder), run, task.load(folder))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"vocabulary": 4000}, "vocabulary must be absent beside seq2seq_model, got 4000"),
        ({"width": 16}, "width must be absent beside seq2seq_model, got 16"),
        ({"heads": 2}, "heads must be absent beside seq2seq_model, got 2"),
        ({"encoder_layers": 2}, "encoder_layers must be absent beside seq2seq_model, got 2"),
        ({"causal_layers": 2}, "causal_layers must be absent beside seq2seq_model, got 2"),
        ({"decoder": "viterbi"}, "decoder must be autoregressive beside seq2seq_model, got viterbi"),
        ({"seq2seq_model": ""}, r"task_options\.seq2seq_model: String should have at least 1 character"),
        ({"max_length": 32}, r"task_options\.max_length must be at most 31 for this encoder, got 32"),
        ({"seq2seq_model": "./none"}, r"seq2seq_model folder \./none does not exist"),
    ],
)
def test_options_that_do_not_go_with_a_named_model_are_refused(make_recipe, folder, options, text):
    recipe = make_recipe(**options)
    with pytest.raises(RecipeError, match=rf"^(task_options: )?{text}$"):
        load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))


def test_a_name_that_cannot_be_fetched_is_told_by_its_option(make_recipe, folder, monkeypatch):
    class Hub:
        def repo_info(self, name, **options):
            raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(ServerError) as refused:
        task_facts(make_recipe(seq2seq_model="no-such-owner/no-such-model"), folder)
    assert str(refused.value) == (
        "seq2seq_model 'no-such-owner/no-such-model' is not on this machine and the hub cannot be reached (Name or service "
        "not known); name a folder with task_options.seq2seq_model"
    )


def test_without_transformers_the_extra_is_named(make_recipe, folder, monkeypatch):
    recipe = make_recipe()
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match="hub"):
        task_facts(recipe, folder)


def test_a_sentence_that_is_too_long_is_cut_and_told(task, tmp_path, caplog):
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.txt").write_text(f"{part} " + "two dogs " * 20 + "\n", encoding="utf-8")
    rows = task.load(tmp_path).test.labels
    assert rows[0, -1] == END_ID
    assert f"test: 1 of 1 sentences have more than {LENGTH} pieces and are cut there" in caplog.text


def test_transmitters_of_other_models_are_told_apart(make_recipe, run, folder, tmp_path):
    with pytest.raises(RecipeError, match=r"has task_options\.seq2seq_model '.*', the recipe '.*': set the same"):
        train(make_recipe("t5", TRAINED), tmp_path / "run", data_folder=folder, transmitter=run)
