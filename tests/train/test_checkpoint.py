"""Checkpoints survive the disk to the last bit, and what is none is refused in one line."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from link.errors import CheckpointError
from train.checkpoint import (
    FILE_NAME,
    build_transceiver,
    checkpoint_file,
    load,
    read,
    recipe_differences,
    restore_model,
    resume,
    save,
)
from train.schedule import Phase


@pytest.fixture
def run(signs_run, tmp_path):
    """A copy that a test may break."""
    return Path(shutil.copytree(signs_run, tmp_path / "run"))


def rewrite(file, *, tensors=None, metadata=None):
    """The checkpoint with other tensors or with other words about itself."""
    with safe_open(file, framework="pt") as stream:
        words = json.loads(stream.metadata()["hardpath"])
    held = load_file(file)
    if metadata is not None:
        words = metadata(words)
    save_file(held if tensors is None else tensors(held), file, metadata={"hardpath": json.dumps(words)})


def refusal(action, *arguments):
    with pytest.raises(CheckpointError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_round_trip_returns_every_tensor_to_the_last_bit(signs_run, tmp_path, same_tensors):
    checkpoint, model = load(signs_run)
    save(tmp_path / "copy", checkpoint, model)
    again, restored = load(tmp_path / "copy")
    assert again == checkpoint
    assert same_tensors(restored.state_dict(), model.state_dict())
    assert not restored.training


def test_a_checkpoint_says_its_epoch_phase_temperature_and_accuracy(signs_run, signs_recipe):
    last = read(signs_run / "last")
    assert last.recipe == signs_recipe
    assert (last.epoch, last.phase, last.vq_temp, last.symbol_temp) == (5, Phase.ALIGNMENT, 0.7, 1.0)
    assert last.hard_accuracy.keys() == last.soft_accuracy.keys() == {"0", "10"}
    assert last.mean_hard_accuracy == pytest.approx(sum(last.hard_accuracy.values()) / 2)
    best = read(signs_run / "best")
    assert (last.best_epoch, last.best_accuracy) == (best.epoch, best.mean_hard_accuracy)


def test_the_optimiser_goes_on_where_it_stopped(signs_run, signs_recipe, same_tensors):
    """One step from the restored state is the step from the state itself."""

    def step(model, optimizer):
        generator = torch.Generator().manual_seed(4)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    def make():
        model = build_transceiver(signs_recipe)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)

    first, second = make(), make()
    step(*first)
    saved = read(signs_run)
    folder = signs_run.parent / "stepped"
    save(folder, saved, *first)
    resume(folder, *second)
    step(*first)
    step(*second)
    assert same_tensors(first[0].state_dict(), second[0].state_dict())


def test_a_checkpoint_is_named_by_file_by_folder_or_by_run(run):
    best = run / "best" / FILE_NAME
    assert {checkpoint_file(best), checkpoint_file(run / "best"), checkpoint_file(str(run))} == {best}
    assert checkpoint_file(run / "last") == run / "last" / FILE_NAME


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    assert "holds no checkpoint (model.safetensors); name a run" in refusal(read, tmp_path)
    assert "holds no checkpoint" in refusal(load, tmp_path / "absent")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_file_that_was_cut_short_is_refused(run, kept):
    file = checkpoint_file(run)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    assert "is no checkpoint of hardpath, or is cut short" in refusal(load, run)


def test_a_safetensors_file_of_something_else_is_refused(run):
    save_file({"weight": torch.zeros(3)}, checkpoint_file(run))
    assert "is no checkpoint of hardpath" in refusal(load, run)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_version_is_refused(run, version):
    rewrite(checkpoint_file(run), metadata=lambda words: words | {"format_version": version})
    assert f"format_version is {version!r}, this hardpath reads 1; train again" in refusal(load, run)


@pytest.mark.parametrize("words", [[1, 2], "text", 5, None])
def test_words_that_are_no_table_are_refused(run, words):
    rewrite(checkpoint_file(run), metadata=lambda _: words)
    assert "format_version is None" in refusal(load, run)


def test_a_wrong_field_is_named(run):
    rewrite(checkpoint_file(run), metadata=lambda words: words | {"epoch": "soon"})
    assert ": epoch: " in refusal(read, run)


def test_an_unknown_field_is_named(run):
    rewrite(checkpoint_file(run), metadata=lambda words: words | {"surprise": 1})
    assert ": surprise: " in refusal(read, run)


def test_tensors_of_another_recipe_are_refused(run, make_signs_recipe):
    other = build_transceiver(make_signs_recipe(link__codewords=8))
    rewrite(
        checkpoint_file(run), tensors=lambda _: {f"model.{name}": value for name, value in other.state_dict().items()}
    )
    message = refusal(load, run)
    assert "the checkpoint's tensors do not fit its recipe: size mismatch" in message


def test_missing_and_unknown_tensors_are_refused(run):
    def rename(tensors):
        return {name.replace("head.1.bias", "head.1.bent"): value for name, value in tensors.items()}

    rewrite(checkpoint_file(run), tensors=rename)
    assert "do not fit its recipe" in refusal(load, run)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch.save"])
def test_loading_executes_no_code(run, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = checkpoint_file(run)
    if write is None:
        torch.save({"model": Bomb()}, file)
    else:
        file.write_bytes(write(Bomb()))
    refusal(load, run)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))  # a check that the bomb works
    assert (tmp_path / "exploded").exists()


def test_a_header_that_promises_more_than_the_file_holds_is_refused(run):
    file = checkpoint_file(run)
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refusal(load, run)


def test_a_crash_before_the_rename_leaves_the_old_checkpoint(run, monkeypatch, same_tensors):
    checkpoint, model = load(run / "last")
    before = (run / "last" / FILE_NAME).read_bytes()
    for parameter in model.parameters():
        parameter.data.zero_()

    def crash(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save(run / "last", checkpoint, model)
    assert (run / "last" / FILE_NAME).read_bytes() == before
    # What the crash left behind is in nobody's way.
    save(run / "last", checkpoint, model)
    assert same_tensors(load(run / "last")[1].state_dict(), model.state_dict())


def test_a_crash_while_writing_leaves_the_old_checkpoint(run, monkeypatch):
    checkpoint, model = load(run / "last")
    before = (run / "last" / FILE_NAME).read_bytes()

    def crash(tensors, file, metadata):
        Path(file).write_bytes(b"half of it")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("train.checkpoint.save_file", crash)
        with pytest.raises(OSError, match="no space"):
            save(run / "last", checkpoint, model)
    assert (run / "last" / FILE_NAME).read_bytes() == before


def test_weights_are_drawn_from_the_recipes_seed_alone(make_signs_recipe, same_tensors):
    """Those of layers that hardpath's own draw does not know (here an embedding) included."""
    first = build_transceiver(make_signs_recipe()).state_dict()
    torch.rand(5)  # moves the global generator, whatever its state
    assert same_tensors(first, build_transceiver(make_signs_recipe()).state_dict())
    other = build_transceiver(make_signs_recipe(seed=4)).state_dict()
    changed = [name for name in first if not torch.equal(first[name], other[name])]
    assert {"encoder.kinds.weight", "encoder.layers.0.weight", "head.1.bias"} <= set(changed)


def test_weights_are_drawn_as_torch_draws_them(make_signs_recipe):
    weight = build_transceiver(make_signs_recipe()).encoder.layers[0].weight
    bound = weight.shape[1] ** -0.5
    assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
    # The mean of 320 uniforms of deviation bound / sqrt(3), within five of its deviations.
    assert abs(float(weight.detach().mean())) < 5 * bound / (3 * 320) ** 0.5


def test_building_a_model_leaves_the_global_generator_alone(signs_recipe):
    torch.rand(5)  # off the states that a build before this one may have left
    before = torch.random.get_rng_state()
    build_transceiver(signs_recipe)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_differences_of_recipes_name_keys_and_both_values(make_signs_recipe):
    left, right = make_signs_recipe(), make_signs_recipe(link__order=16, seed=4)
    assert recipe_differences(left, left) == []
    assert recipe_differences(left, right) == ["seed: 3 there, 4 now", "link.order: 4 there, 16 now"]


def test_restoring_a_model_takes_only_its_own_tensors(signs_recipe, same_tensors):
    model, other = build_transceiver(signs_recipe), build_transceiver(signs_recipe)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    restore_model(other, tensors | {"optimizer.0.step": torch.zeros(())})
    assert same_tensors(model.state_dict(), other.state_dict())
