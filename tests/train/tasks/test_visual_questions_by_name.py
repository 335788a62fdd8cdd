"""Questions about images with pretrained encoders by name: what is kept of them, what is trained, and what is refused."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from link.bundle import load_bundle
from link.chain import Link
from link.errors import CheckpointError, MissingExtra, RecipeError, ServerError
from link.sweep import SweepSpec, sweep
from train import checkpoint as checkpoints
from train.backbones import backbones_of
from train.checkpoint import build_transceiver, load
from train.encoders import learn_tokenizer, load_weights
from train.evaluate import decide_without_link
from train.intervention import intervene
from train.recipe_file import parse_recipe
from train.run import train
from train.tasks import load_task, task_facts
from train.tasks.visual_questions import Options, find

SIDE = 16
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BERT = {"model_type": "bert", "max_position_embeddings": 16, "pad_token_id": 0, **SMALL}
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
QUESTIONS = ("what colour is it?", "is it red?")


@pytest.fixture(scope="module")
def bert(tmp_path_factory, save_model):
    tokenizer = learn_tokenizer([*QUESTIONS, *QUESTIONS], 100)
    described = BERT | {"vocab_size": len(json.loads(tokenizer)["model"]["vocab"])}
    return save_model(tmp_path_factory.mktemp("bert"), described, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 images, each asked two things."""
    base = tmp_path_factory.mktemp("data")
    (base / "images").mkdir()
    rows = [("image", "question", "answer")]
    for number in range(20):
        colour = list(COLOURS)[number % 2]
        pixels = np.full((SIDE, SIDE, 3), COLOURS[colour], dtype=np.uint8)
        pixels[number % 12] = 250
        Image.fromarray(pixels).save(base / "images" / f"{number}.png")
        rows += [(number, QUESTIONS[0], colour), (number, QUESTIONS[1], "yes" if colour == "red" else "no")]
    with (base / "train.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return base


@pytest.fixture(scope="module")
def make_recipe(vit, bert):
    """A recipe of both models, some of its options and of its optimiser's keys changed; None leaves one out."""

    def make(optimizer=(), **options):
        named = {
            "csv_path": "train.csv",
            "image_folder": "images",
            "max_length": 10,
            "vision_model": str(vit),
            "question_model": str(bert),
        }
        return parse_recipe(
            {
                "name": "named",
                "task": "visual-questions",
                "seed": 2,
                "task_options": {key: value for key, value in (named | options).items() if value is not None},
                "link": {"tokens": 3, "codewords": 4, "dim": 4, "order": 4},
                "schedule": {"epochs": 5, "warmup_epochs": 2, "alignment_start_epoch": 4},
                "optimizer": {"batch_size": 16, "learning_rate": 5e-3, **dict(optimizer)},
                "bottleneck": {"enabled": True, "kl_weight": 0.1, "kl_warmup": 5},
                "channel": {"train_snr_db": [0.0, 16.0], "eval_snr_db": [12.0], "eval_draws": 1},
            },
            "the test's recipe",
        )

    return make


@pytest.fixture(scope="module")
def recipe(make_recipe):
    return make_recipe()


TRAINED = {"encoder_learning_rate": 1e-3, "freeze_vision_epochs": 3, "unfreeze_epoch": 2, "layer_decay": 0.5}


@pytest.fixture(scope="module")
def trained(make_recipe, train_run, folder):
    """A run whose backbones are trained: that of the questions from epoch 2 on, that of the images from epoch 4."""
    return train_run(make_recipe(TRAINED), data_folder=folder)


def weights_of(run, which="last"):
    """Weights of each backbone in a checkpoint, by the backbone's name."""
    return {name: backbone.model.state_dict() for name, backbone in backbones_of(load(run / which)[1]).items()}


PLACES = {
    "both": {"encoder.vision.backbone", "encoder.reason.question.backbone", "head.reason.question.backbone"},
    "receiver": {"encoder.vision.backbone", "head.reason.question.backbone"},
    "transmitter": {"encoder.vision.backbone", "encoder.reason.question.backbone"},
}


@pytest.mark.parametrize("question", PLACES)
def test_a_question_is_read_at_each_end_that_knows_it(make_recipe, folder, question):
    recipe = make_recipe(question=question)
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    found = backbones_of(build_transceiver(recipe, task))
    assert set(found) == PLACES[question]
    # Drawn as transformers draws them, whose biases are 0.
    linear = [part for backbone in found.values() for part in backbone.modules() if isinstance(part, torch.nn.Linear)]
    assert not any(part.bias.any() for part in linear)


@pytest.mark.parametrize(("left_out", "left"), [("vision_model", 2), ("question_model", 1)])
def test_each_of_both_may_be_left_out(make_recipe, folder, left_out, left):
    recipe = make_recipe(**{left_out: None, "image_size": SIDE})
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    data = task.load(folder)
    model = build_transceiver(recipe, task)
    assert len(backbones_of(model)) == left
    assert decide_without_link(model, task, data.test).shape == data.test.labels.shape


def test_what_is_seen_comes_from_the_weights_of_that_name(vit, recipe, folder, run):
    """The run's vision model, frozen, makes of an image what transformers makes of it by itself."""
    from transformers import AutoModel

    _, model = load(run)
    image = torch.arange(SIDE * SIDE * 3, dtype=torch.uint8).reshape(1, SIDE, SIDE, 3)
    pixels = model.encoder.vision.pixels(image)
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(vit).eval()(pixel_values=pixels).last_hidden_state
        found = model.encoder.vision.backbone.model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_frozen_weights_are_kept_once_and_are_those_of_the_start(run, vit, bert, same_tensors):
    kept = load_file(run / "backbone.safetensors")
    assert {name.partition(".model.")[0] for name in kept} == PLACES["both"]
    for which in ("best", "last"):
        tensors = load_file(run / which / "model.safetensors")
        assert not [name for name in tensors if ".backbone." in name]
        assert [name for name in tensors if name.startswith("model.encoder.vision.queries")]
    found = weights_of(run)
    start = {"vision": load_weights(str(vit), config_of(vit)), "question": load_weights(str(bert), config_of(bert))}
    for name, weights in found.items():
        assert same_tensors(weights, start["vision" if "vision" in name else "question"])


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_checkpoint_needs_neither_the_named_models_nor_the_hub(
    make_recipe, folder, vit, bert, tmp_path, same_tensors
):
    gone = [shutil.copytree(model, tmp_path / model.name) for model in (vit, bert)]
    short = make_recipe(vision_model=str(gone[0]), question_model=str(gone[1]))
    train(short, tmp_path / "run", data_folder=folder)
    before = load(tmp_path / "run")[1].state_dict()
    for model in gone:
        shutil.rmtree(model)
    assert same_tensors(load(tmp_path / "run")[1].state_dict(), before)
    (tmp_path / "run" / "backbone.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"backbone\.safetensors cannot be read"):
        load(tmp_path / "run")


@pytest.mark.parametrize("optimizer", [{}, TRAINED])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(
    make_recipe, folder, run, trained, train_until, tmp_path, optimizer, same_tensors
):
    whole = trained if optimizer else run
    recipe = make_recipe(optimizer)
    for epoch in (2, 4):
        train_until(epoch, recipe, tmp_path / "run", data_folder=folder)
    train(recipe, tmp_path / "run", data_folder=folder)
    assert same_tensors(load(tmp_path / "run" / "last")[1].state_dict(), load(whole / "last")[1].state_dict())


def test_a_run_does_not_go_on_behind_weights_that_have_changed(make_recipe, folder, vit, tmp_path, train_until):
    copied = shutil.copytree(vit, tmp_path / "vit")
    recipe = make_recipe(vision_model=str(copied))
    train_until(1, recipe, tmp_path / "run", data_folder=folder)
    file = copied / "model.safetensors"
    save_file({name: 2.0 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"behind an encoder whose weights have changed since"):
        train(recipe, tmp_path / "run", data_folder=folder)


def test_backbones_are_trained_from_their_own_epochs_on(make_recipe, folder, train_until, tmp_path, run):
    start = weights_of(run)

    def changed(epoch, which):
        train_until(epoch, make_recipe(TRAINED), tmp_path / str(epoch), data_folder=folder)
        found = weights_of(tmp_path / str(epoch))
        return {
            name
            for name, weights in found.items()
            if any(not torch.equal(tensor, start[name][key]) for key, tensor in weights.items())
        }

    questions = {name for name in PLACES["both"] if "question" in name}
    assert changed(1, run) == set()
    # What reads from the states of the images is trained from the start.
    found = load(tmp_path / "1" / "last")
    untrained = build_transceiver(found[0].recipe, checkpoints.task_of(found[0]))
    assert not torch.equal(*(model.encoder.vision.queries.values.weight for model in (found[1], untrained)))
    assert changed(3, run) == questions
    assert changed(4, run) == PLACES["both"]


def test_what_is_trained_is_in_every_checkpoint(trained):
    assert not (trained / "backbone.safetensors").exists()
    tensors = load_file(trained / "last" / "model.safetensors")
    for name in PLACES["both"]:
        assert [key for key in tensors if key.startswith(f"model.{name}.")]


@pytest.mark.parametrize("role", ["vision_model", "question_model"])
def test_a_model_that_is_not_there_is_told_by_the_option_that_names_it(make_recipe, folder, role, monkeypatch):
    class Hub:
        def repo_info(self, name, **options):
            raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(RecipeError, match=rf"^{role} folder \./none does not exist$"):
        task_facts(make_recipe(**{role: "./none"}), folder)
    with pytest.raises(ServerError) as refused:
        task_facts(make_recipe(**{role: "no-such-owner/no-such-model"}), folder)
    assert str(refused.value) == (
        f"{role} 'no-such-owner/no-such-model' is not on this machine and the hub cannot be reached (Name or service not "
        f"known); name a folder with task_options.{role}"
    )


def test_a_picture_model_does_not_read_questions(make_recipe, folder, vit):
    with pytest.raises(
        RecipeError, match=r"^question_model .* is no encoder of texts: its config\.json describes a vit$"
    ):
        task_facts(make_recipe(question_model=str(vit)), folder)


def test_questions_longer_than_the_model_has_positions_for_are_refused(make_recipe, folder):
    recipe = make_recipe(max_length=17)
    with pytest.raises(RecipeError, match=r"task_options\.max_length must be at most 16 for this encoder, got 17"):
        load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))


def test_an_image_size_of_its_own_must_be_the_models(make_recipe, folder, vit):
    recipe = make_recipe(image_size=24)
    with pytest.raises(RecipeError) as refused:
        load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    assert str(refused.value) == (
        f"task_options.image_size must be 16, that of vision_model '{vit}', or absent, got 24"
    )
    same = make_recipe(image_size=SIDE)
    load_task(same.task, same.task_options, task_facts(same, folder))


def test_without_transformers_the_extra_is_named(folder, vit, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    options = Options(csv_path="train.csv", image_folder="images", vision_model=str(vit))
    with pytest.raises(MissingExtra, match="hub"):
        find(options, folder)


@pytest.fixture(scope="module")
def later(make_recipe):
    """The question at the receiver alone."""
    return make_recipe(question="receiver").model_copy(update={"name": "later"})


@pytest.fixture(scope="module")
def later_run(later, train_run, folder):
    return train_run(later, data_folder=folder)


@pytest.fixture(scope="module")
def bundle(later_run, export_run, folder):
    return load_bundle(export_run(later_run, data_folder=folder))


def test_a_bundle_takes_images_of_the_models_size_and_its_own_tokenizer(bundle, bert):
    manifest = bundle.manifest
    (image,) = [spec for spec in manifest.transmitter.inputs if spec.name == "image"]
    assert (image.dtype, image.shape) == ("uint8", ("batch", SIDE, SIDE, 3))
    assert manifest.input_names == ("text", "image")
    assert (bundle.path / "tokenizer.json").read_text(encoding="utf-8") == (bert / "tokenizer.json").read_text()


def test_a_bundle_is_swept_and_answers_as_its_checkpoint(bundle, later, later_run, folder):
    task = load_task(later.task, later.task_options, checkpoints.read(later_run).facts)
    rows = task.load(folder).train
    (point,) = sweep(Link(bundle), rows.inputs, rows.labels, SweepSpec(snr_db=(60.0,), draws=1)).points
    _, model = load(later_run)
    inputs = [torch.from_numpy(rows.inputs[spec.name]) for spec in task.inputs]
    side = [torch.from_numpy(rows.inputs[spec.name]) for spec in task.receiver_inputs]
    with torch.no_grad():
        sent = model.send_hard(model.encode(*inputs))
        heard = model.receive(sent.symbols, torch.full(sent.symbols.shape[:2], 1e-6), side=side)
    right = (heard.logits.argmax(dim=-1).numpy() == rows.labels).mean()
    assert point.accuracy.value == pytest.approx(right)


def test_interventions_are_measured_as_on_any_codec(run, task, folder):
    data = task.load(folder)
    found = intervene(load(run)[1], task, data.train, data.train, ("none", "zero", "swap"), snr_db=12.0, seed=1)
    assert [one.kind for one in found if one.group == "all"] == ["none", "zero", "swap"]


def test_a_head_is_trained_behind_a_transmitter_whose_named_model_has_changed(
    make_recipe, folder, vit, tmp_path, same_tensors
):
    """It takes the transmitter's weights and pixels from its run, and its own reader of questions by name, frozen."""
    copied = shutil.copytree(vit, tmp_path / "vit")
    train(make_recipe(vision_model=str(copied)), tmp_path / "first", data_folder=folder)
    for file in copied.glob("*.safetensors"):
        file.unlink()
    scaled = json.loads((vit / "preprocessor_config.json").read_text()) | {"image_mean": [0.1, 0.1, 0.1]}
    (copied / "preprocessor_config.json").write_text(json.dumps(scaled))
    recipe = make_recipe(TRAINED, vision_model=str(copied))
    train(recipe, tmp_path / "second", data_folder=folder, transmitter=tmp_path / "first")
    first, second = (load(tmp_path / name)[1] for name in ("first", "second"))
    assert same_tensors(second.encoder.state_dict(), first.encoder.state_dict())
    torch.testing.assert_close(second.encoder.vision.shift, first.encoder.vision.shift, rtol=0, atol=0)
    reader = "reason.question.backbone"
    assert same_tensors(second.head.get_submodule(reader).state_dict(), first.head.get_submodule(reader).state_dict())
    assert not torch.equal(second.head.reason.last[0].weight, first.head.reason.last[0].weight)
    assert checkpoints.read(tmp_path / "second").backbone_sha256 is not None
    with pytest.raises(RecipeError, match=r"has task_options\.vision_model '.*', the recipe '.*': set the same"):
        train(make_recipe(), tmp_path / "third", data_folder=folder, transmitter=tmp_path / "first")


def test_questions_are_padded_with_the_models_own_token(make_recipe, folder, bert, tmp_path):
    copied = shutil.copytree(bert, tmp_path / "bert")
    (copied / "config.json").write_text(json.dumps(config_of(bert) | {"pad_token_id": 3}))
    recipe = make_recipe(question_model=str(copied))
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    assert task.tokenizer(["is it red?"]).input_ids[0, -1] == 3
    assert task.vocabulary == config_of(bert)["vocab_size"]
