"""What a text run and a fine-tuning leave behind, met again with other data, other files, or none."""

import json
import random
import shutil

import pytest

from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.errors import ArgumentError, CheckpointError, RecipeError
from link.sequential import Verdict
from train import checkpoint as checkpoints
from train.checkpoint import task_of
from train.encoders import build_backbone, learn_tokenizer, scratch_config
from train.export import export
from train.finetune import SUMMARY_NAME, FinetuneSettings, finetune
from train.recipe_file import load_recipe
from train.run import train
from train.verify import VerifySettings, verify

FINETUNING = FinetuneSettings(epochs=1, batch_size=32, learning_rate=1e-3, bf16=False)
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    draw = random.Random(0)
    words = ["story", "plot", "scene", "actor", "music", "song", "joke", "end"]
    rows = [(" ".join([*draw.sample(words, 4), ("dull", "fine")[n % 2]]), ("bad", "good")[n % 2]) for n in range(120)]
    for name, part in (("train.tsv", rows[:100]), ("test.tsv", rows[100:])):
        (folder / name).write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in part))
    return folder


@pytest.fixture(scope="module")
def encoder(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tokenizer = learn_tokenizer((films / "train.tsv").read_text().split("\n"), 100)
    build_backbone(scratch_config(tokenizer, 16) | SMALL).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return folder


def recipe_with(encoder, **options):
    return load_recipe(
        "text",
        {
            "task_options.encoder": str(encoder),
            "task_options.max_length": "8",
            "task_options.validation_rows": "20",
            "link.tokens": "2",
            "link.dim": "4",
            "optimizer.batch_size": "32",
            "schedule.epochs": "3",
            "schedule.warmup_epochs": "1",
            "schedule.alignment_start_epoch": "3",
            "channel.eval_snr_db": "[6.0]",
        }
        | {f"task_options.{key}": str(value) for key, value in options.items()},
    )


@pytest.fixture(scope="module")
def recipe(encoder):
    return recipe_with(encoder)


@pytest.fixture(scope="module")
def finished(recipe, films, train_run):
    return train_run(recipe, data_folder=films)


@pytest.fixture(scope="module")
def interrupted(recipe, films, tmp_path_factory, train_until):
    out = tmp_path_factory.mktemp("interrupted") / "run"
    train_until(2, recipe, out, data_folder=films)
    return out


def edited(films, folder, edit, name="train.tsv"):
    shutil.copytree(films, folder)
    lines = (films / name).read_text().splitlines()
    (folder / name).write_text("\n".join(edit(lines)) + "\n")
    return folder


def relabelled(lines):
    text, label = lines[-1].split("\t")
    return [*lines[:-1], f"{text}\t{'bad' if label == 'good' else 'good'}"]


EDITS = {
    "another label": relabelled,
    "another text": lambda lines: [*lines[:-1], "a fine end\tgood"],
    "a row less": lambda lines: lines[:-1],
    "another order": lambda lines: [lines[0], *reversed(lines[1:])],
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_a_run_is_not_gone_on_with_on_other_rows(request, recipe, films, tmp_path, state, name):
    run = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(state), run)
    before = {file: sha256(file) for file in run.rglob("*") if file.is_file()}
    told = []
    with pytest.raises(CheckpointError, match=r"was trained on other rows than the data have now; put them back"):
        train(recipe, run, data_folder=edited(films, tmp_path / "films", EDITS[name]), on_found=told.append)
    assert not told
    assert before == {file: sha256(file) for file in run.rglob("*") if file.is_file()}


def test_other_test_rows_are_no_other_run(recipe, films, interrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    told = []
    other = edited(films, tmp_path / "films", relabelled, "test.tsv")
    assert train(recipe, run, data_folder=other, on_found=told.append).last.epoch == 3
    assert [found.epoch for found in told] == [2]


def test_a_checkpoint_of_a_time_without_the_digest_is_gone_on_with(recipe, films, finished, tmp_path):
    found = checkpoints.read(finished / "last")
    data = task_of(found).load(edited(films, tmp_path / "films", relabelled))
    described = found.model_dump(mode="json")
    described.pop("data_sha256")
    checkpoints.require_data(checkpoints.Checkpoint.model_validate(described), data, finished)
    with pytest.raises(CheckpointError):
        checkpoints.require_data(found, data, finished)


def test_a_finished_run_is_shown_without_its_data_and_its_encoder(films, encoder, tmp_path):
    mine = tmp_path / "encoder"
    shutil.copytree(encoder, mine)
    done = train(recipe_with(mine), tmp_path / "run", data_folder=films)
    shutil.rmtree(mine)
    told = []
    assert train(recipe_with(mine), tmp_path / "run", on_found=told.append) == done
    assert told == [done.last]
    assert train(recipe_with(mine), tmp_path / "run", data_folder=films) == done
    with pytest.raises(CheckpointError, match=r"holds a run of another recipe \(task_options\.max_length"):
        train(recipe_with(mine, max_length=9), tmp_path / "run")


def test_a_cache_that_is_no_folder_is_named(recipe, films, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("HARDPATH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ArgumentError, match=r"HARDPATH_CACHE must name a folder, .*cache is none: File exists"):
        train(recipe, tmp_path / "run", data_folder=films)


@pytest.fixture(scope="module")
def whole(recipe, films, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetuned") / "encoder"
    return out, finetune(recipe, out, films, FINETUNING)


@pytest.fixture
def finetuned(whole, tmp_path):
    """A copy of the folder that a test may break."""
    shutil.copytree(whole[0], tmp_path / "encoder", ignore=shutil.ignore_patterns("training"))
    return tmp_path / "encoder"


def test_a_finetuning_answers_with_its_data_and_without(recipe, films, finetuned, whole):
    assert finetune(recipe, finetuned, films, FINETUNING) == whole[1]
    assert finetune(recipe, finetuned, None, FINETUNING) == whole[1]


@pytest.mark.parametrize("name", EDITS)
def test_a_finetuning_on_other_rows_is_refused(recipe, films, finetuned, tmp_path, name):
    with pytest.raises(RecipeError, match=r"holds a fine-tuning on other rows; name another folder with --out"):
        finetune(recipe, finetuned, edited(films, tmp_path / "films", EDITS[name]), FINETUNING)


def test_a_finetuning_with_other_options_of_the_task_is_refused(encoder, films, finetuned):
    with pytest.raises(RecipeError, match=r"holds a fine-tuning with other settings"):
        finetune(recipe_with(encoder, max_length=7), finetuned, films, FINETUNING)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_finetuning_whose_files_are_not_whole_is_refused(recipe, films, finetuned, name):
    file = finetuned / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name} is not what the fine-tuning wrote; remove .*finetuning\.json"):
        finetune(recipe, finetuned, films, FINETUNING)
    file.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: No such file or directory; remove .*finetuning\.json"):
        finetune(recipe, finetuned, films, FINETUNING)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"encoder": "x"}'])
def test_a_broken_summary_is_one_line(recipe, films, finetuned, content):
    (finetuned / SUMMARY_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"finetuning\.json: .*; remove it to fine-tune again") as refused:
        finetune(recipe, finetuned, films, FINETUNING)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_broken_job_is_one_line(recipe, films, tmp_path, content):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "job.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"job\.json cannot be read .*; remove .*training to start anew"):
        finetune(recipe, tmp_path, films, FINETUNING)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, r"learning_rate should be greater than 0, got 0\.0"),
        ({"learning_rate": float("nan")}, r"learning_rate should be a finite number, got nan"),
        ({"learning_rate": -1.0}, r"learning_rate should be greater than 0, got -1\.0"),
        ({"seed": 2**32}, r"seed should be less than 4294967296, got 4294967296"),
    ],
)
def test_a_wrong_setting_of_a_finetuning_is_named(fields, message):
    with pytest.raises(ArgumentError, match=message):
        FinetuneSettings(**fields)


def test_a_bundle_with_another_tokenizer_is_different(finished, films, tmp_path):
    """Its hash in the manifest made good again, as a wrong exporter would leave it."""
    export(finished, tmp_path / "bundle", data_folder=films)
    task = task_of(checkpoints.read(finished))
    rows = task.load(films).test
    settings = VerifySettings(snr_db=(6.0,), margin=0.5, max_draws=1)

    def contract():
        return verify(load_bundle(tmp_path / "bundle"), finished, rows.inputs, rows.labels, settings)

    assert contract().manifest.findings == ()
    file = tmp_path / "bundle" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["fine"], vocabulary["dull"] = vocabulary["dull"], vocabulary["fine"]
    file.write_text(json.dumps(tokenizer))
    described = tmp_path / "bundle" / MANIFEST_NAME
    manifest = json.loads(described.read_text())
    manifest["tokenizer"]["sha256"] = sha256(file)
    described.write_text(json.dumps(manifest))
    found = contract()
    assert found.verdict is Verdict.DIFFERENT
    assert len(found.manifest.findings) == 1
    assert found.manifest.findings[0].startswith(
        f"manifest: tokenizer's sha256 is '{sha256(file)}', the checkpoint's is "
    )
    manifest["tokenizer"] = None
    described.write_text(json.dumps(manifest))
    assert contract().manifest.findings[0].startswith("manifest: tokenizer is absent, the checkpoint's has sha256 ")
