"""The sequence stage of a run: learned at its end, kept beside its checkpoint, carried by its bundle."""

import numpy as np
import pytest

from link.bundle import load_bundle, sha256
from link.errors import BundleError, RecipeError
from link.sequence_file import write_sequence
from train.export import export
from train.recipe_file import load_recipe
from train.run import train
from train.sequence_run import FILE_NAME, learn_sequence, load_sequence

SETTINGS = {
    "schedule.epochs": "3",
    "schedule.warmup_epochs": "1",
    "schedule.alignment_start_epoch": "3",
    "optimizer.batch_size": "32",
    "link.tokens": "2",
    "channel.eval_draws": "1",
    "sequence.parts": '["hdp", "hsmm"]',
    "sequence.stage_epochs": "1",
    "sequence.behaviours": "4",
    "sequence.longest": "4",
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(0)
    for subject in range(4):
        hertz = np.repeat([2.0, 6.0, 2.0, 6.0], 200)
        wave = np.sin(2 * np.pi * hertz * np.arange(800) / 50)
        np.savez(
            folder / f"s{subject}.npz",
            data=np.stack([wave + random.normal(size=800) for _ in range(3)], axis=1),
            label=np.where(hertz == 2.0, "walk", "jog"),
            subject=f"s{subject}",
            rate_hz=50,
        )
    return folder


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    told = []
    train(
        load_recipe("motion", SETTINGS, []), folder, data_folder=recordings, on_stage=lambda *epoch: told.append(epoch)
    )
    return folder, told


def test_a_stage_is_learned_where_training_ends_and_kept_beside_the_best_checkpoint(finished):
    folder, told = finished
    assert [epoch for epoch, _ in told] == [1]
    stage = load_sequence(folder / "best")
    assert stage is not None
    assert load_sequence(folder / "last") is None
    hsmm = stage.arrays().hsmm
    # Either behaviour follows the other, and nothing else can.
    np.testing.assert_allclose(np.exp(hsmm.transition), [[0, 1], [1, 0]], atol=1e-6)


def test_a_finished_run_learns_it_no_second_time_and_a_lost_one_comes_back_the_same(finished, recordings):
    folder, _ = finished
    file = folder / "best" / FILE_NAME
    before, told = file.read_bytes(), []
    train(load_recipe("motion", SETTINGS, []), folder, on_stage=lambda *epoch: told.append(epoch))
    assert not told
    file.unlink()
    learn_sequence(folder, data_folder=recordings, on_epoch=lambda *epoch: told.append(epoch))
    assert [epoch for epoch, _ in told] == [1]
    assert file.read_bytes() == before


def test_a_stage_of_another_checkpoint_is_none(finished, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.copy(folder / "last" / "model.safetensors", folder / "best" / "model.safetensors")
    assert load_sequence(folder / "best") is None


def test_the_bundle_carries_its_tables_and_refuses_others(finished, recordings, tmp_path):
    folder, _ = finished
    manifest = export(folder, tmp_path / "bundle", data_folder=recordings)
    assert manifest.task.sequence is not None
    assert manifest.task.sequence.parts == ("hdp", "hsmm")
    found, expected = load_bundle(tmp_path / "bundle").sequence(), load_sequence(folder / "best").arrays()
    for one, other in zip(found.hsmm + found.hdp, expected.hsmm + expected.hdp, strict=True):
        np.testing.assert_array_equal(one, other)
    file = tmp_path / "bundle" / manifest.task.sequence.file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"sequence\.npz is not the file that manifest\.json describes"):
        load_bundle(tmp_path / "bundle")
    file.unlink()
    with pytest.raises(BundleError, match=r"sequence\.npz is missing"):
        load_bundle(tmp_path / "bundle")


def test_tables_of_other_codes_than_the_links_are_refused(finished, recordings, tmp_path):
    bundle = tmp_path / "bundle"
    export(finished[0], bundle, data_folder=recordings)
    tables, spec = load_bundle(bundle).sequence(), load_bundle(bundle).manifest.task.sequence
    before = spec.sha256
    write_sequence(tables._replace(hdp=tables.hdp._replace(log_codes=tables.hdp.log_codes[:, :1])), bundle / spec.file)
    manifest = (bundle / "manifest.json").read_text(encoding="utf-8")
    (bundle / "manifest.json").write_text(manifest.replace(before, sha256(bundle / spec.file)), encoding="utf-8")
    with pytest.raises(BundleError, match=r"sequence\.npz is of \(1, 8\) tokens and codes, the link of \(2, 8\)"):
        load_bundle(bundle).sequence()


def test_a_run_without_parts_has_no_stage_and_its_manifest_does_not_tell_of_one(digits_bundle):
    assert load_bundle(digits_bundle).sequence() is None
    assert "sequence" not in (digits_bundle / "manifest.json").read_text(encoding="utf-8").split('"provenance"')[0]


def test_rows_that_do_not_follow_on_one_another_have_no_stage_and_that_is_said_before_anything_is_trained(tmp_path):
    recipe = load_recipe("digits", {"sequence.parts": '["hsmm"]'}, [])
    with pytest.raises(RecipeError, match="rows of the task digits do not follow on one another"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()
