"""A head trained behind a transmitter that is kept: nothing but the head moves, and both share a bundle."""

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, BundleError, CheckpointError, RecipeError
from link.randomness import Draws
from link.sequential import Verdict
from train.checkpoint import FILE_NAME, load, read, save
from train.diagnosis import read_run
from train.export import export
from train.record import read_metrics
from train.run import train
from train.schedule import Phase
from train.stage import Stage
from train.tasks import load_task
from train.transmitter import load_transmitter, transmitter_sha256, transmitter_weights
from train.verify import VerifySettings, verify


@pytest.fixture(scope="module")
def recipe(make_signs_recipe):
    return make_signs_recipe(name="kinds", task="kinds", seed=8, schedule__epochs=20)


@pytest.fixture(scope="module")
def behind(recipe, signs_run, train_run):
    """Kinds asked of what signs sends."""
    return train_run(recipe, transmitter=signs_run)


@pytest.fixture(scope="module")
def shared(signs_run, behind, export_run):
    return export_run(signs_run, also={"kinds": behind})


def test_all_but_the_head_is_the_transmitters_to_the_last_bit(signs_run, behind, same_tensors):
    described, model = load(signs_run)
    for kept in ("best", "last"):
        found, other = load(behind / kept)
        assert same_tensors(transmitter_weights(other), transmitter_weights(model))
        assert found.transmitter.path == str(signs_run.resolve())
        assert found.transmitter.sha256 == transmitter_sha256(model)
        assert (found.vq_temp, found.labels_sha256) == (described.vq_temp, read(signs_run / "best").labels_sha256)
    assert read(signs_run).transmitter is None


def test_the_head_is_trained_from_the_first_epoch_on_what_is_received(behind):
    records = read_metrics(behind)
    assert [record.phase for record in records] == [Phase.ALIGNMENT] * 20
    assert all(record.hard_forward and record.hard_accuracy for record in records)
    assert records[-1].losses["loss"] == records[-1].losses["task"] < records[0].losses["task"]
    assert sum(record.restarted for record in records) == 0
    # Of five kinds the transmitter says the parity: who knows that alone is right in 0.43 of the rows.
    assert read(behind).mean_hard_accuracy > records[-1].chance + 0.1


def test_only_the_head_is_in_training_mode_and_only_its_weights_are_moved(recipe, signs_run):
    """Dropout and batch statistics of the encoder work as they do in the bundle."""
    task = load_task("kinds")
    kept = load_transmitter(signs_run)
    stage = Stage(recipe, task, task.load(None), transmitter=kept)
    stage.train()
    assert stage.model.head.training
    assert not any(module.training for module in (stage.model.encoder, *stage.model.encoder.modules()))
    moved = [name for name, parameter in stage.model.named_parameters() if parameter.requires_grad]
    assert moved == ["head.1.weight", "head.1.bias"]
    without = Stage(recipe, task, task.load(None))
    without.train()
    assert all(module.training for module in without.model.modules())


def test_it_goes_on_bit_for_bit_where_it_was_interrupted(
    recipe, signs_run, behind, tmp_path, same_tensors, train_until
):
    train_until(2, recipe, tmp_path / "run", transmitter=signs_run)
    train(recipe, tmp_path / "run", transmitter=signs_run)
    assert same_tensors(load(tmp_path / "run" / "last")[1].state_dict(), load(behind / "last")[1].state_dict())


def test_it_goes_on_behind_no_other_transmitter(recipe, signs_run, behind, tmp_path):
    with pytest.raises(CheckpointError, match=f"behind the transmitter of {signs_run}, and none is named"):
        train(recipe, behind)
    described, model = load(signs_run)
    model.quantizer.labels.copy_(model.quantizer.labels.flip(0))
    save(tmp_path / "other", described, model)
    with pytest.raises(CheckpointError, match="another is named with --transmitter; name that one, or another"):
        train(recipe, behind, transmitter=tmp_path / "other")
    with pytest.raises(CheckpointError, match="was trained with its own transmitter; name another folder"):
        train(described.recipe, signs_run, transmitter=signs_run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"link__tokens": 2}, "has link.tokens 3, the recipe 2: set the same"),
        ({"quantizer__ema_decay": 0.99}, "has quantizer.ema_decay 0.9, the recipe 0.99: set the same"),
        ({"defects": ["leak"]}, "defects are of a transmitter that is trained"),
        ({"task": "digits"}, "does not fit the recipe's task: another encoder"),
    ],
)
def test_a_recipe_with_another_transmitter_is_refused(make_signs_recipe, signs_run, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        train(make_signs_recipe(**({"task": "kinds"} | changes)), tmp_path / "run", transmitter=signs_run)


def test_a_transmitter_without_a_codebook_is_refused(signs_recipe, tmp_path, train_until):
    train_until(1, signs_recipe, tmp_path / "run")
    with pytest.raises(CheckpointError, match="saved in warm-up, before it had a codebook"):
        load_transmitter(tmp_path / "run" / "last")


def test_both_heads_share_a_bundle_and_hear_the_same(shared, signs_run, behind):
    first, other = Link(load_bundle(shared)), Link(load_bundle(shared, "kinds"))
    assert first.manifest.receiver_names == ("signs", "kinds")
    rows = load_task("kinds").load(None).validation
    heard = [link.transmit(rows.inputs, Awgn(), 6.0, Draws(4, np.arange(len(rows)))) for link in (first, other)]
    for field in ("llr", "indices_hat"):
        assert np.array_equal(*(getattr(result.decoded, field) for result in heard))
    assert [result.decoded.logits.shape[1] for result in heard] == [4, 5]
    with torch.no_grad():
        y, no = (torch.from_numpy(value) for value in (heard[1].received.y, heard[1].received.no))
        wanted = load(behind)[1].receive(y, no).logits.numpy()
    np.testing.assert_allclose(heard[1].decoded.logits, wanted, atol=1e-4)


@pytest.mark.parametrize(("name", "task"), [("signs", "signs"), ("kinds", "kinds")])
def test_each_receiver_is_verified_against_the_run_of_its_head(shared, signs_run, behind, name, task):
    rows = load_task(task).load(None).validation
    run = signs_run if name == "signs" else behind
    settings = VerifySettings(snr_db=(12.0,), margin=0.2, max_draws=40)
    found = verify(load_bundle(shared, name), run, rows.inputs, rows.labels, settings)
    assert (found.verdict, found.notes) == (Verdict.EQUIVALENT, ())


def test_a_head_behind_a_transmitter_exports_by_itself(behind, shared, tmp_path):
    export(behind, tmp_path / "bundle")
    alone = load_bundle(tmp_path / "bundle").manifest
    assert (alone.task.name, alone.receivers) == ("kinds", ())
    assert alone.modes == load_bundle(shared).manifest.modes


def test_a_head_behind_another_transmitter_gets_no_place_in_the_bundle(signs_run, behind, tmp_path):
    described, model = load(behind)
    model.quantizer.log_prior.copy_(model.quantizer.log_prior.flip(0))
    save(tmp_path / "other" / "best", described, model)
    with pytest.raises(BundleError, match=f"other has another transmitter than {signs_run}: train its head with"):
        export(signs_run, tmp_path / "bundle", also={"kinds": tmp_path / "other"})
    assert not (tmp_path / "bundle").exists()


def test_two_receivers_of_one_name_are_refused(signs_run, behind, tmp_path):
    with pytest.raises(ArgumentError, match="--also gives two receivers the name signs: each needs one of its own"):
        export(signs_run, tmp_path / "bundle", also={"signs": behind})


def test_a_kept_router_chooses_for_the_new_head(make_routed_recipe, routed_run, tmp_path, same_tensors):
    """No term of the loss moves it, those of its own included."""
    recipe = make_routed_recipe(name="kinds", task="kinds")
    train(recipe, tmp_path / "run", transmitter=routed_run)
    kept, found = load(routed_run)[1], load(tmp_path / "run")[1]
    assert same_tensors(transmitter_weights(found), transmitter_weights(kept))
    record = read_metrics(tmp_path / "run")[-1]
    assert record.hard_mean > record.chance


def test_a_head_alone_is_not_diagnosed_by_rules_about_codebooks_and_schedules(behind, signs_run):
    with pytest.raises(ArgumentError, match=f"is a head alone behind {signs_run}: diagnose the run of its transmitter"):
        read_run(behind)


def test_the_checkpoint_of_a_head_holds_the_whole_model(behind, tmp_path):
    """It can be moved away from the transmitter that it was trained behind."""
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / FILE_NAME).write_bytes((behind / "best" / FILE_NAME).read_bytes())
    assert load(tmp_path)[0].recipe.task == "kinds"
