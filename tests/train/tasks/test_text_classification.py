"""The text task on a table of the tests' own: sentences of a few words, one of which tells the class."""

import random

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError, RecipeError
from link.randomness import Draws
from train import checkpoint as checkpoints
from train.checkpoint import task_of
from train.evaluate import encode, tensors
from train.export import export
from train.features import FrozenTask, cache_folder, frozen_data
from train.finetune import FinetuneSettings, finetune
from train.loop import Trainer
from train.recipe_file import load_recipe
from train.run import train
from train.tasks import load_task, task_facts
from train.tasks.text_classification import Options, class_indices, read_parts

WORDS = {"good": ["fine", "great", "warm", "clever", "lovely"], "bad": ["dull", "cold", "clumsy", "boring", "grim"]}
FILLING = ["the", "a", "film", "story", "plot", "with", "scenes", "of", "actors", "and", "some", "music"]
SETTINGS = {
    "task_options.encoder": "scratch",
    "task_options.max_length": "12",
    "task_options.validation_rows": "40",
    "link.tokens": "4",
    "link.dim": "8",
    "optimizer.batch_size": "8",
    "optimizer.encoder_learning_rate": "1e-3",
    "schedule.epochs": "5",
    "schedule.warmup_epochs": "2",
    "schedule.alignment_start_epoch": "5",
    "channel.eval_snr_db": "[6.0]",
}


def rows(count, seed):
    draw = random.Random(seed)
    made = []
    for index in range(count):
        label = ("bad", "good")[index % 2]
        words = draw.choices(FILLING, k=draw.randint(3, 8))
        words.insert(draw.randrange(len(words) + 1), draw.choice(WORDS[label]))
        made.append((" ".join(words), label))
    return made


def write(file, pairs, header="sentence\tlabel\n"):
    file.write_text(header + "".join(f"{text}\t{label}\n" for text, label in pairs), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write(folder / "train.tsv", rows(480, 0))
    write(folder / "test.tsv", rows(40, 1))
    return folder


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("text", SETTINGS)


@pytest.fixture(scope="module")
def pretrained(recipe, folder, tmp_path_factory):
    """A folder in the format of transformers, as a fine-tuning of a small random encoder leaves it."""
    start = tmp_path_factory.mktemp("start")
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task.encoder(1, 3).backbone.save_pretrained(start)
    (start / "tokenizer.json").write_text(task.tokenizer_json, encoding="utf-8")
    out = tmp_path_factory.mktemp("finetuned") / "encoder"
    chosen = load_recipe("text", SETTINGS | {"task_options.encoder": str(start)})
    settings = FinetuneSettings(epochs=4, batch_size=16, learning_rate=1e-3, bf16=False)
    return chosen, out, settings, finetune(chosen, out, folder, settings)


def test_classes_are_the_labels_in_order(task):
    assert task.classes == ("bad", "good")


def test_validation_and_training_share_no_sentence(task, folder):
    data = task.load(folder)
    known = {tuple(row) for row in data.train.inputs["input_ids"]}
    assert not known & {tuple(row) for row in data.validation.inputs["input_ids"]}
    assert len(data.validation) == 40
    assert len(data.test) == 40


def test_a_training_row_that_stands_in_the_test_part_is_left_out(recipe, task, tmp_path):
    write(tmp_path / "train.tsv", [*rows(200, 0), ("fine story with some music", "good")])
    write(tmp_path / "test.tsv", [*rows(40, 1), ("a Fine story  with some music", "good")])
    found = task.load(tmp_path)
    without = tmp_path / "without"
    without.mkdir()
    write(without / "train.tsv", rows(200, 0))
    write(without / "test.tsv", [*rows(40, 1), ("a Fine story  with some music", "good")])
    assert len(found.train) == len(task.load(without).train)


def test_numbers_of_classes_are_names_by_classes_txt(tmp_path):
    (tmp_path / "classes.txt").write_text("World\nSports\n", encoding="utf-8")
    write(tmp_path / "train.tsv", [("a match", "Sports"), ("a vote", "World"), ("a goal", "Sports")])
    write(tmp_path / "test.tsv", [("a ball", "2"), ("a king", "1")])
    parts = read_parts(Options(), tmp_path)
    assert class_indices(parts.train, ("World", "Sports"), numbered=True).tolist() == [1, 0, 1]
    assert class_indices(parts.test, ("World", "Sports"), numbered=True).tolist() == [1, 0]


def test_an_unseen_class_is_named_with_its_line(task, folder, tmp_path):
    write(tmp_path / "train.tsv", rows(480, 0))
    write(tmp_path / "test.tsv", [("a fine film", "good"), ("a film", "odd")])
    with pytest.raises(ArgumentError, match=r"test\.tsv, line 3: label 'odd' is no class; there are bad, good"):
        task.load(tmp_path)


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        ((), r"has no train table"),
        (("train.tsv", "train.csv"), r"has two train tables, train\.csv and train\.tsv"),
    ],
)
def test_a_folder_without_one_training_table_is_refused(tmp_path, names, answer):
    for name in names:
        write(tmp_path / name, rows(10, 0))
    with pytest.raises(ArgumentError, match=answer):
        read_parts(Options(), tmp_path)


def test_no_folder_and_no_dataset_is_one_line():
    with pytest.raises(ArgumentError, match=r"data must name a folder with train\.tsv"):
        read_parts(Options(), None)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"encodr": "x"}, r"task_options\.encodr is unknown; did you mean encoder\?"),
        ({"max_length": 3}, r"task_options\.max_length: Input should be greater than or equal to 4"),
    ],
)
def test_wrong_options_are_named(options, answer):
    with pytest.raises(RecipeError, match=answer):
        load_task("text-classification", options, {})


def test_a_task_without_options_refuses_them():
    with pytest.raises(RecipeError, match=r"task_options\.encoder is unknown: task digits has no options"):
        load_task("digits", {"encoder": "x"})


def test_an_encoder_folder_without_tokenizer_is_one_line(recipe, folder, pretrained, tmp_path):
    _, encoder, _, _ = pretrained
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((encoder / name).read_bytes())
    other = load_recipe("text", SETTINGS | {"task_options.encoder": str(tmp_path)})
    with pytest.raises(RecipeError, match=r"has no tokenizer\.json: save its tokenizer beside it"):
        task_facts(other, folder)


def test_an_encoder_that_is_not_there_is_one_line(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    other = load_recipe("text", SETTINGS | {"task_options.encoder": str(empty)})
    with pytest.raises(RecipeError, match=r"cannot be loaded|has no tokenizer"):
        task_facts(other, folder)


def test_texts_longer_than_the_encoder_has_positions_for_are_refused(task):
    facts = {"classes": ["a", "b"], "tokenizer": task.tokenizer_json, "encoder": dict(task.config)}
    with pytest.raises(RecipeError, match=r"max_length must be at most 12 for this encoder, got 13"):
        load_task("text-classification", {"max_length": 13}, facts)


def test_padding_moves_no_token(task):
    """The same text behind more padding: only rounding differs, since masked places have no weight at all."""
    torch.manual_seed(0)
    encoder = task.encoder(4, 8).eval()
    encoded = task.tokenizer(["a fine film", "the dull story of some actors"])
    ids, mask = torch.from_numpy(encoded.input_ids), torch.from_numpy(encoded.attention_mask)
    longest = int(mask.sum(dim=1).max())
    with torch.no_grad():
        assert torch.allclose(encoder(ids, mask), encoder(ids[:, :longest], mask[:, :longest]), atol=1e-6)


def test_what_stands_behind_the_mask_changes_nothing(task):
    torch.manual_seed(0)
    encoder = task.encoder(4, 8).eval()
    encoded = task.tokenizer(["a fine film", "the dull story of some actors"])
    ids, mask = torch.from_numpy(encoded.input_ids), torch.from_numpy(encoded.attention_mask)
    with torch.no_grad():
        assert torch.equal(encoder(ids, mask), encoder(torch.where(mask == 1, ids, 7), mask))


def test_a_run_from_scratch_learns_and_its_bundle_takes_raw_strings(run, folder, tmp_path):
    manifest = export(run / "best", tmp_path / "bundle", data_folder=folder)
    assert manifest.tokenizer.length == 12
    link = Link(load_bundle(tmp_path / "bundle"))
    texts = [text for text, _ in rows(40, 1)]
    labels = np.array([("bad", "good").index(label) for _, label in rows(40, 1)])
    draws = Draws(1, np.arange(40))
    found = link.transmit({"text": texts}, build_channel("awgn"), 12.0, draws)
    # 40 fair coins reach 32 with probability 1e-4.
    assert (found.decoded.decisions == labels).sum() >= 32
    task = task_of(checkpoints.read(run / "best"))
    encoded = task.tokenizer(texts)
    same = link.transmit(
        {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}, build_channel("awgn"), 12.0, draws
    )
    assert np.array_equal(found.decoded.logits, same.decoded.logits)


def test_a_checkpoint_needs_neither_data_nor_encoder_folder(run):
    described, model = checkpoints.load(run)
    assert task_of(described).classes == ("bad", "good")
    assert described.backbone_sha256 is None
    assert any(name.startswith("encoder.backbone.") for name in model.state_dict())


def test_finetuning_learns_and_is_not_repeated(pretrained, folder):
    recipe, out, settings, found = pretrained
    assert found.validation_accuracy > 0.8  # 40 fair coins: 1e-4
    assert finetune(recipe, out, folder, settings) == found
    with pytest.raises(RecipeError, match=r"holds a fine-tuning with other settings"):
        finetune(recipe, out, folder, settings.model_copy(update={"epochs": 5}))


@pytest.fixture(scope="module")
def frozen_recipe(pretrained):
    _, encoder, _, _ = pretrained
    return load_recipe(
        "text", SETTINGS | {"task_options.encoder": str(encoder), "optimizer.encoder_learning_rate": "0.0"}
    )


@pytest.fixture(scope="module")
def frozen_run(frozen_recipe, folder, train_run):
    return train_run(frozen_recipe, data_folder=folder)


def test_a_frozen_backbone_is_kept_once_and_joined_again(frozen_run, pretrained):
    described, model = checkpoints.load(frozen_run)
    weights = {
        name.removeprefix("encoder.backbone."): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("encoder.backbone.")
    }
    assert checkpoints.weights_sha256(weights) == described.backbone_sha256
    held = (frozen_run / "best" / checkpoints.FILE_NAME).stat().st_size
    assert held < (frozen_run / checkpoints.BACKBONE_NAME).stat().st_size


def test_another_backbone_is_refused(frozen_run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(frozen_run, copy)
    (copy / checkpoints.BACKBONE_NAME).unlink()
    with pytest.raises(checkpoints.CheckpointError, match=r"backbone\.safetensors cannot be read"):
        checkpoints.load(copy)
    other = checkpoints.load(frozen_run)[1].encoder.backbone
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    checkpoints.save_backbone(copy, other.state_dict())
    with pytest.raises(checkpoints.CheckpointError, match=r"holds another backbone"):
        checkpoints.load(copy)


def test_kept_states_are_the_backbones_own(frozen_recipe, frozen_run, folder):
    """Half precision costs 2^-11 of a state; tokens are smooth in the states."""
    described, model = checkpoints.load(frozen_run)
    task = task_of(described)
    data = task.load(folder)
    frozen = frozen_data(task, data, model.encoder)
    kept = FrozenTask(task, 128)
    states, mask = (rows[:] for rows in tensors(kept, frozen.validation))
    inputs = [rows[:] for rows in tensors(task, data.validation)]
    with torch.no_grad():
        whole, there = model.encoder.features(*inputs)
    longest = states.shape[1]
    assert torch.equal(mask, there[:, :longest].float())
    wanted = whole[:, :longest] * mask[..., None]
    assert (states - wanted).abs().max() <= wanted.abs().max() * 2**-11
    with torch.no_grad():
        tokens = encode(model, inputs)
        from_states = torch.nn.functional.layer_norm(model.encoder.neck(states, mask), (8,))
    assert (tokens - from_states).abs().max() < 0.05


def test_states_are_computed_once(frozen_recipe, frozen_run, folder):
    before = {file: file.stat().st_mtime_ns for file in cache_folder().iterdir()}
    facts = task_facts(frozen_recipe, folder)
    task = load_task(frozen_recipe.task, frozen_recipe.task_options, facts)
    told = []
    Trainer(frozen_recipe, task, task.load(folder), facts=facts, on_encoding=lambda *what: told.append(what))
    assert not told
    assert before == {file: file.stat().st_mtime_ns for file in cache_folder().iterdir()}


@pytest.mark.parametrize(("rate", "layers"), [("0.0", "0"), ("1e-4", "0"), ("1e-4", "1")])
def test_a_resumed_run_goes_on_bit_for_bit(pretrained, folder, tmp_path, train_until, rate, layers):
    """Frozen throughout, and with a backbone that thaws from the third epoch on; runs are cut before and after."""
    _, encoder, _, _ = pretrained
    recipe = load_recipe(
        "text",
        SETTINGS
        | {
            "task_options.encoder": str(encoder),
            "optimizer.encoder_learning_rate": rate,
            "optimizer.unfreeze_epoch": "3",
            "optimizer.unfreeze_layers": layers,
        },
    )
    whole = tmp_path / "whole"
    train(recipe, whole, data_folder=folder)

    pieces = tmp_path / "pieces"
    for epoch in range(1, 6):
        train_until(epoch, recipe, pieces, data_folder=folder)
    train(recipe, pieces, data_folder=folder)
    for name in ("best", "last"):
        first, second = (checkpoints.load(out / name)[1].state_dict() for out in (whole, pieces))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_thawed_backbone_moves_and_a_frozen_one_does_not(pretrained, frozen_run, folder, tmp_path):
    _, encoder, _, _ = pretrained
    thawed = load_recipe(
        "text",
        SETTINGS
        | {
            "task_options.encoder": str(encoder),
            "optimizer.encoder_learning_rate": "1e-4",
            "optimizer.unfreeze_epoch": "3",
        },
    )
    train(thawed, tmp_path / "run", data_folder=folder)
    frozen, moved = checkpoints.load(frozen_run / "last")[1], checkpoints.load(tmp_path / "run" / "last")[1]
    start = load_task(thawed.task, thawed.task_options, checkpoints.read(frozen_run).facts).pretrained()
    for name, tensor in start.items():
        assert torch.equal(frozen.encoder.backbone.state_dict()[name], tensor)
    assert any(not torch.equal(moved.encoder.backbone.state_dict()[name], tensor) for name, tensor in start.items())


def test_a_backbone_thaws_from_its_top_layer_by_layer(pretrained, folder, tmp_path):
    """Of its two layers the upper one in the third epoch, the lower one and the embeddings in the fourth."""
    _, encoder, _, _ = pretrained
    staged = {
        "task_options.encoder": str(encoder),
        "optimizer.encoder_learning_rate": "1e-3",
        "optimizer.unfreeze_epoch": "3",
        "optimizer.unfreeze_layers": "1",
        "optimizer.layer_decay": "0.5",
    }
    recipe = load_recipe("text", SETTINGS | staged)
    facts = task_facts(recipe, folder)
    task = load_task(recipe.task, recipe.task_options, facts)
    trainer = Trainer(recipe, task, task.load(folder), facts=facts)
    moved, rates = [], []
    before = dict(task.pretrained())
    for epoch in range(1, 6):
        trainer.run_epoch(epoch, tmp_path)
        backbone = getattr(trainer.model.encoder, "backbone", None)
        now = before if backbone is None else {name: value.clone() for name, value in backbone.state_dict().items()}
        moved.append({part_of(name) for name, value in now.items() if not torch.equal(value, before[name])})
        rates.append(
            [group["lr"] / trainer.optimizer.param_groups[0]["lr"] for group in trainer.optimizer.param_groups]
        )
        before = now
    everything = {"embeddings", "encoder.layer.0", "encoder.layer.1"}
    assert moved == [set(), set(), {"encoder.layer.1"}, everything, everything]
    share = 1e-3 / recipe.optimizer.learning_rate
    expected = [1.0, share, 0.5 * share, 0.25 * share]
    assert [len(found) for found in rates] == [1, 1, 2, 4, 4]
    assert all(found == pytest.approx(expected[: len(found)]) for found in rates)


def part_of(name):
    parts = name.split(".")
    return ".".join(parts[:3]) if parts[0] == "encoder" else parts[0]


@pytest.mark.parametrize("broken", [b"", b"no array"])
@pytest.mark.parametrize("part", ["states", "offsets"])
def test_broken_states_are_computed_again(frozen_recipe, frozen_run, folder, part, broken):
    described, model = checkpoints.load(frozen_run)
    task = task_of(described)
    data = task.load(folder)
    whole = frozen_data(task, data, model.encoder).validation.inputs["states"][:]
    for file in cache_folder().glob(f"{part}-*.npy"):
        file.write_bytes(broken)
    again = frozen_data(task, data, model.encoder).validation.inputs["states"][:]
    # Rows that were encoded with others of like length differ by rounding alone.
    assert torch.allclose(again, whole, atol=1e-2)


def test_a_run_whose_encoder_has_changed_is_not_gone_on_with(pretrained, folder, tmp_path, train_until):
    import shutil

    from safetensors.torch import load_file, save_file

    _, encoder, _, _ = pretrained
    mine = tmp_path / "encoder"
    shutil.copytree(encoder, mine, ignore=shutil.ignore_patterns("training"))
    recipe = load_recipe(
        "text", SETTINGS | {"task_options.encoder": str(mine), "optimizer.encoder_learning_rate": "0.0"}
    )

    train_until(3, recipe, tmp_path / "run", data_folder=folder)
    weights = load_file(mine / "model.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in weights.items()}, mine / "model.safetensors", {"format": "pt"})
    with pytest.raises(checkpoints.CheckpointError, match=r"an encoder whose weights have changed since"):
        train(recipe, tmp_path / "run", data_folder=folder)
    assert checkpoints.load(tmp_path / "run")[0].epoch == 3


def test_finetuning_does_not_go_on_from_another_job(pretrained, folder, tmp_path):
    recipe, _, settings, _ = pretrained
    work = tmp_path / "training"
    work.mkdir()
    (work / "job.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"holds an unfinished job of other rows or settings"):
        finetune(recipe, tmp_path, folder, settings)
