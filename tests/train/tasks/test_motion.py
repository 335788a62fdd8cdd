"""Windows of motion: rows by subject, rates, gaps, classes, the still rule, and each mistake in one line."""

from __future__ import annotations

import functools
import logging
import operator
from pathlib import Path

import numpy as np
import pytest
import torch

from link.errors import ArgumentError, RecipeError
from link.randomness import Draws
from train.recipe_file import load_recipe
from train.tasks import load_task, task_facts

RATE = 50
SUBJECTS = ("s0", "s1", "s2", "s3", "s4", "s5")
BEHAVIOURS = {"walk": 2.0, "jog": 6.0, "shake": 11.0}


def write(folder: Path, subject: str, *, rate: int = RATE, seconds: int = 8, channels: int = 3, seed: int = 0) -> Path:
    """One recording a behaviour, each a sine of its own frequency in every channel."""
    random = np.random.default_rng([seed, int(subject[1:])])
    time = np.arange(seconds * rate) / rate
    parts = [
        np.sin(2 * np.pi * hertz * time[:, None] + random.uniform(0, 6, channels))
        + 0.1 * random.normal(size=(len(time), channels))
        for hertz in BEHAVIOURS.values()
    ]
    file = folder / f"{subject}.npz"
    np.savez(
        file,
        data=np.concatenate(parts),
        label=np.repeat(list(BEHAVIOURS), len(time)),
        subject=subject,
        recording=np.repeat(np.arange(len(parts)), len(time)),
        rate_hz=rate,
        channels=[f"acc_{axis}" for axis in "xyzuvw"[:channels]],
    )
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for subject in SUBJECTS:
        write(tmp_path, subject)
    return tmp_path


def task_of(folder: Path, **options: object):
    recipe = load_recipe("motion", {}, []).model_copy(update={"task_options": options})
    return load_task("motion", options, task_facts(recipe, folder))


def test_no_subject_is_in_two_parts_and_every_window_is_of_one_label(folder: Path) -> None:
    task = task_of(folder)
    parts = task._subjects
    assert sorted(name for named in parts.values() for name in named) == sorted(SUBJECTS)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [4, 1, 1]
    data = task.load(folder)
    # 8 s hold 4 windows of 2 s one after another, and 3 more between them.
    assert [len(split) for split in (data.train, data.validation, data.test)] == [4 * 3 * 7, 3 * 4, 3 * 4]
    assert task.classes == ("jog", "shake", "walk")
    assert set(data.train.labels.tolist()) == {0, 1, 2}
    spectra = np.abs(np.fft.rfft(data.test.inputs["window"], axis=1)).mean(axis=-1)
    hertz = spectra[:, 1:].argmax(axis=1) / 2 + 0.5
    assert [BEHAVIOURS[task.classes[label]] for label in data.test.labels] == hertz.tolist()


def test_the_parts_depend_on_the_subjects_alone(folder: Path) -> None:
    assert task_of(folder)._subjects == task_of(folder, step=100)._subjects


def test_rows_that_follow_on_one_another_say_so(folder: Path) -> None:
    data = task_of(folder).load(folder)
    for split, stretches, lengths in ((data.train, 24, {4, 3}), (data.test, 3, {4})):
        assert split.sequence is not None
        numbers, counts = np.unique(split.sequence, return_counts=True)
        assert len(numbers) == stretches
        assert set(counts.tolist()) == lengths
        assert (np.diff(split.sequence) >= 0).all()
        for number in numbers:
            of_stretch = split.inputs["window"][split.sequence == number]
            assert np.unique(split.labels[split.sequence == number]).size == 1
            jumps = np.abs(of_stretch[1:, 0] - of_stretch[:-1, -1])
            assert jumps.max() < 2.0  # no more than a sample's step


def test_named_subjects_are_held_out(folder: Path) -> None:
    task = task_of(folder, validation_subjects=["s1"], test_subjects=["s4", "s5"])
    assert task._subjects == {"train": ["s0", "s2", "s3"], "validation": ["s1"], "test": ["s4", "s5"]}


def test_mean_and_deviation_are_of_the_training_subjects_alone(folder: Path) -> None:
    options = {"validation_subjects": ["s1"], "test_subjects": ["s4"]}
    before = task_of(folder, **options)
    with np.load(folder / "s4.npz") as found:
        arrays = dict(found)
    np.savez(folder / "s4.npz", **{**arrays, "data": arrays["data"] * 100 + 7})
    after = task_of(folder, **options)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.deviation, after.deviation)


def test_recordings_of_another_rate_are_resampled_and_that_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "s3", rate=125)
    with caplog.at_level(logging.WARNING):
        task = task_of(folder)
    assert "3 recordings are resampled from 125 Hz to 50 Hz" in caplog.text
    data = task.load(folder)
    assert sum(map(len, (data.train, data.validation, data.test))) == 4 * 21 + 2 * 12


def test_a_rate_that_is_not_told_is_said_to_be_taken_for_the_tasks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for subject in SUBJECTS:
        with np.load(write(tmp_path, subject, rate=100)) as found:
            arrays = {name: value for name, value in found.items() if name != "rate_hz"}
        np.savez(tmp_path / f"{subject}.npz", **arrays)
    with caplog.at_level(logging.WARNING):
        assert len(task_of(tmp_path).load(tmp_path).test) == 3 * 8
    assert "18 recordings do not say their rate and are taken for 50 Hz" in caplog.text
    assert len(task_of(tmp_path, source_rate_hz=100).load(tmp_path).test) == 3 * 4


def test_missing_samples_are_filled_or_cut_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with np.load(folder / "s0.npz") as found:
        arrays = dict(found)
    arrays["data"][10:14, 1] = np.nan
    arrays["data"][200:240] = np.nan
    np.savez(folder / "s0.npz", **arrays)
    with caplog.at_level(logging.WARNING):
        data = task_of(folder, validation_subjects=["s1"], test_subjects=["s2"]).load(folder)
    assert "4 missing samples are filled in, recordings are cut at 1 gaps" in caplog.text
    assert np.isfinite(data.train.inputs["window"]).all()


def test_labels_are_merged_into_behaviours_and_others_are_left_out(folder: Path) -> None:
    task = task_of(folder, classes={"foot": ["walk", "jog"], "hand": ["shake"]})
    data = task.load(folder)
    assert task.classes == ("foot", "hand")
    assert np.bincount(data.test.labels).tolist() == [8, 4]
    assert len(task_of(folder, classes={"a": ["walk"], "b": ["jog"]}).load(folder).test) == 8


def test_windows_in_which_nothing_moves_are_a_behaviour_of_their_own(folder: Path) -> None:
    for subject in SUBJECTS:
        with np.load(folder / f"{subject}.npz") as found:
            arrays = dict(found)
        arrays["data"][:100] = 1.0 + 1e-3 * arrays["data"][:100]
        np.savez(folder / f"{subject}.npz", **arrays)
    still = {"channels": ["acc_x", "acc_y", "acc_z"], "below": 0.06}
    task = task_of(folder, still=still)
    assert task.classes == ("jog", "shake", "still", "walk")
    split = task.load(folder).test
    moved = np.sqrt(split.inputs["window"].var(axis=1).sum(axis=-1))
    np.testing.assert_array_equal(split.labels == 2, moved < 0.06)
    assert (split.labels == 2).sum() == 1


def test_the_encoder_scales_each_channel_and_projects_to_the_tokens(folder: Path) -> None:
    task = task_of(folder)
    encoder = task.encoder(tokens=3, dim=5).eval()
    window = torch.from_numpy(task.load(folder).test.inputs["window"])
    with torch.no_grad():
        tokens = encoder(window)
        alone = torch.cat([encoder(row[None]) for row in window])
    assert tokens.shape == (12, 3, 5)
    torch.testing.assert_close(tokens, alone, rtol=1e-4, atol=1e-5)
    wider = load_task(
        "motion", {}, {**facts_of(task), "mean": (task.mean * 3).tolist(), "deviation": (task.deviation * 3).tolist()}
    )
    other = wider.encoder(tokens=3, dim=5).eval()
    other.load_state_dict({**encoder.state_dict(), "mean": other.mean, "deviation": other.deviation})
    with torch.no_grad():
        torch.testing.assert_close(other(3 * window), tokens, rtol=1e-4, atol=1e-5)


def facts_of(task) -> dict[str, object]:
    return {
        "classes": list(task.classes),
        "channels": list(task.channels),
        "mean": task.mean.tolist(),
        "deviation": task.deviation.tolist(),
        "subjects": task._subjects,
    }


def test_augmentation_is_of_a_row_and_its_draws_and_scales_and_moves_each_channel(folder: Path) -> None:
    task = task_of(folder)
    inputs = task.load(folder).train.inputs
    rows = np.arange(len(inputs["window"]))
    made = task.augment(inputs, Draws(3, rows, 1))["window"]
    some = task.augment({"window": inputs["window"][5:9]}, Draws(3, rows[5:9], 1))["window"]
    np.testing.assert_array_equal(made[5:9], some)
    assert made.dtype == np.float32
    centred = inputs["window"] - inputs["window"].mean(axis=1, keepdims=True)
    scale = np.linalg.norm(made - made.mean(axis=1, keepdims=True), axis=1) / np.linalg.norm(centred, axis=1)
    # 252 independent factors 1 + 0.1 n: five standard errors of their deviation.
    assert abs(scale.std() - 0.1) < 5 * 0.1 / np.sqrt(2 * scale.size)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation_subjects": ["s1"]}, "are given together"),
        (
            {"validation_subjects": ["s1"], "test_subjects": ["s1"]},
            "s1 is named in validation_subjects and in test_subjects",
        ),
        ({"classes": {"a": ["walk"], "b": ["walk"]}}, "classes name the label walk twice"),
        ({"classes": {"still": ["walk"]}, "still": {"channels": ["acc_x"], "below": 1}}, "both name still"),
        ({"still": {"channels": ["acc_x"], "below": 0}}, "greater than 0"),
        ({"window": 3}, "greater than or equal to 16"),
    ],
)
def test_options_that_contradict_each_other_are_refused(folder: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        task_of(folder, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation_subjects": ["s9"], "test_subjects": ["s1"]}, "has no subject s9; it has s0, s1"),
        (
            {"validation_subjects": ["s0", "s1", "s2"], "test_subjects": ["s3", "s4", "s5"]},
            "leaves no subject to train on",
        ),
        ({"classes": {"a": ["fly"]}}, "no window of the train subjects has a label that is asked for"),
        ({"classes": {"a": ["walk"]}}, "two behaviours or more in training, got a alone"),
        ({"channels": ["gyro_x"]}, "lacks gyro_x; it has acc_x"),
        ({"still": {"channels": ["gyro_x"], "below": 1}}, "looks at gyro_x, which is no channel"),
        ({"window": 500}, "a window is 500 samples at 50 Hz, it has 400"),
    ],
)
def test_data_that_do_not_fit_the_options_are_refused(folder: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        task_of(folder, **options)


def test_a_recording_with_a_channel_too_few_is_named_or_left_out_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "s5", channels=2)
    with pytest.raises(ArgumentError, match=r"s5.npz, recording 0 .*there are 3 channels, and it lacks acc_z"):
        task_of(folder)
    with caplog.at_level(logging.WARNING):
        task = task_of(folder, skip_bad_recordings=True)
    assert "3 of 18 recordings are left out; the first, s5.npz" in caplog.text
    assert "s5" not in functools.reduce(operator.iadd, task._subjects.values(), [])


def test_subjects_who_may_be_one_person_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with np.load(folder / "s0.npz") as found:
        arrays = dict(found)
    task_of(folder)
    assert "taken for different people" not in caplog.text
    np.savez(folder / "again.npz", **arrays | {"subject": "S1"})
    task_of(folder)
    assert "subjects have a recording in common and are taken for different people: S1, s0" in caplog.text
    assert "subjects differ in case alone and are taken for different people: S1, s1" in caplog.text


def test_a_channel_that_never_changes_no_labels_and_too_few_subjects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="must name recordings of motion"):
        task_facts(load_recipe("motion", {}, []), None)
    for subject in SUBJECTS[:2]:
        write(tmp_path, subject)
    with pytest.raises(ArgumentError, match="needs three subjects or more, one a part, got s0, s1"):
        task_of(tmp_path)
    for subject in SUBJECTS:
        write(tmp_path, subject)
        with np.load(tmp_path / f"{subject}.npz") as found:
            arrays = dict(found)
        arrays["data"][:, 1] = 4.0
        np.savez(tmp_path / f"{subject}.npz", **arrays)
    with pytest.raises(ArgumentError, match="channel acc_y never changes"):
        task_of(tmp_path)
    for subject in SUBJECTS:
        np.savez(tmp_path / f"{subject}.npz", data=np.ones((300, 2)), subject=subject)
    with pytest.raises(ArgumentError, match="has no labels"):
        task_of(tmp_path)


def test_a_model_that_knows_a_subject_who_is_gone_says_so(folder: Path) -> None:
    task = task_of(folder)
    (folder / "s2.npz").unlink()
    with pytest.raises(ArgumentError, match="lacks 1 of the 6 subjects that the model knows, s2 among them"):
        task.load(folder)


def test_people_whom_the_model_does_not_know_are_measured_on_and_those_it_learned_from_never(folder: Path) -> None:
    task = task_of(folder, validation_subjects=["s1"], test_subjects=["s4"])
    inputs, labels = task.test_samples(folder)
    assert len(inputs["window"]) == len(labels) == 12
    write(folder, "s7")
    assert len(task.test_samples(folder)[1]) == 24
    for subject in ("s4", "s7"):
        (folder / f"{subject}.npz").unlink()
    with pytest.raises(ArgumentError, match="nobody but subjects of training and validation"):
        task.test_samples(folder)


def test_what_is_left_out_is_told_file_recording_channel_and_window(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.npz").write_text("no archive", encoding="utf-8")
    with np.load(write(folder, "s5", channels=4)) as loaded:
        data, label = loaded["data"], loaded["label"]
    np.savez(folder / "t5.npz", data=data, subject="t5", rate_hz=RATE, channels=["acc_x", "acc_y", "acc_z", "acc_u"])
    np.savez(folder / "u5.npz", data=data[:, :3], label=label, subject="u5", channels=["acc_x", "acc_y", "acc_z"])
    with pytest.raises(ArgumentError, match=r"broken\.npz"):
        task_of(folder)
    with caplog.at_level(logging.WARNING):
        task = task_of(folder, skip_bad_recordings=True, classes={"fast": ("jog", "shake"), "slow": ("walk",)})
        assert "t5" not in {name for named in task._subjects.values() for name in named}
    assert "1 files are left out; the first, " in caplog.text
    assert (
        "1 of 20 recordings are left out; the first, t5.npz, recording 0 (from sample 0): has no labels" in caplog.text
    )
    assert "channels that not all have are left out: acc_u" in caplog.text


def test_windows_across_labels_and_of_none_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for subject in SUBJECTS:
        with np.load(folder / f"{subject}.npz") as loaded:
            kept = {name: loaded[name] for name in loaded.files if name != "recording"}
        kept["label"][250:400] = ""
        np.savez(folder / f"{subject}.npz", **kept)
    with caplog.at_level(logging.WARNING):
        task_of(folder).load(folder)
    # 12 windows of a recording: one across 250, one wholly without a label.
    assert "test: windows are left out: 1 across a change of label, 1 of no label that is asked for" in caplog.text


def test_a_part_without_a_behaviour_that_was_learned_and_a_channel_without_a_sample_are_named(folder: Path) -> None:
    with np.load(folder / "s1.npz") as loaded:
        kept = {name: loaded[name] for name in loaded.files}
    held = {"validation_subjects": ("s1",), "test_subjects": ("s2",)}
    np.savez(folder / "s1.npz", **{**kept, "label": "swim"})
    with pytest.raises(ArgumentError, match="no window of the validation subjects has a behaviour of the training"):
        task_of(folder, **held).load(folder)
    kept["data"][:, 1] = np.nan
    np.savez(folder / "s1.npz", **kept)
    with pytest.raises(ArgumentError, match=r"s1\.npz, recording 0 .* has no sample of channel acc_y"):
        task_of(folder, **held)
    with pytest.raises(RecipeError, match="channels name acc_x twice"):
        task_of(folder, channels=("acc_x", "acc_x"))


def test_rows_do_not_tell_where_a_behaviour_ends(folder: Path) -> None:
    for subject in SUBJECTS:
        with np.load(folder / f"{subject}.npz") as loaded:
            kept = {name: loaded[name] for name in loaded.files if name != "recording"}
        # Behaviours end in the middle of a window, which is left out.
        kept["label"] = np.repeat(["jog", "walk", "shake"], [450, 400, 350])
        np.savez(folder / f"{subject}.npz", **kept)
    split = task_of(folder).load(folder).test
    assert len(split) == 12 - 2
    assert split.sequence is not None
    assert len(set(split.sequence.tolist())) == 1
