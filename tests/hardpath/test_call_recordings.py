"""`hardpath call --recording`: windows one by one, decided as they come, from the command to what it prints."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, ServerError
from link.randomness import Draws
from link.recordings import read_recordings
from link.sequence import SequenceStream, code_probabilities
from serve.client import Client
from serve.server import Server
from train.tasks import recordings_of_manifest


@pytest.fixture(scope="module")
def trained(hardpath, motion_settings):
    """Function that trains on recordings, and gives the bundle of the run."""

    def bundle(data, folder, *settings):
        arguments = [part for setting in (*motion_settings, *settings) for part in ("--set", setting)]
        answer = hardpath("train", "motion", "--data", data, "--out", folder, *arguments)
        assert answer.code == 0, answer.err
        assert hardpath("export", folder, "--data", data).code == 0
        return folder / "bundle"

    return bundle


@pytest.fixture(scope="module")
def motion_bundle(people, trained, tmp_path_factory):
    return trained(people, tmp_path_factory.mktemp("staged") / "run")


@pytest.fixture(scope="module")
def address(motion_bundle):
    with Server(motion_bundle, port=0) as server:
        yield server.address


@pytest.fixture
def someone(walker, tmp_path):
    """Two recordings of another person in a file, the second without labels."""
    file, random = tmp_path / "someone.npz", np.random.default_rng(7)
    first, second = walker(random, 16), walker(random, 8)
    data = np.concatenate([first["data"], second["data"]])
    label = np.concatenate([first["label"], np.full(len(second["data"]), "")])
    names = np.repeat(["a", "b"], [len(first["data"]), len(second["data"])])
    np.savez(file, data=data, label=label, recording=names, subject="new", rate_hz=50)
    return file


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("lag", [0, 3])
def test_windows_are_told_one_by_one_as_the_stage_decides_them(hardpath, address, motion_bundle, someone, lag):
    answer = hardpath("call", address, "--recording", someone, "--lag", lag, "--snr-db", 3, "--seed", 4, "--json")
    assert answer.code == 0, answer.err
    told = lines(answer.out)
    assert [(one["window"], one["start_s"]) for one in told] == [
        (window, 2.0 * window) for count in (8, 4) for window in range(count)
    ]
    assert [one["label"] for one in told] == ["walk", "walk", "jog", "jog"] * 2 + [None] * 4
    assert [one["correct"] for one in told] == [
        None if one["label"] is None else one["decision"] == one["label"] for one in told
    ]
    bundle = load_bundle(motion_bundle)
    parts = read_recordings(someone)
    sent = 0
    with Client(address) as client:
        for part in parts:
            windows = part.samples.reshape(-1, 100, 6)
            decoded = client.transmit(
                {"window": windows}, snr_db=3.0, seed=4, sample_offset=sent, include_llr=True
            ).decoded
            stream = SequenceStream(bundle.sequence(), lag)
            codes = code_probabilities(decoded.llr, bundle.manifest.modes[0]).astype(np.float64)
            log_p = [stream.push(*row) for row in zip(decoded.logits.astype(np.float64), codes, strict=True)]
            log_p = np.stack([one for one in (*log_p, *stream.flush()) if one is not None])
            here = told[sent : sent + len(windows)]
            classes = bundle.manifest.task.classes
            assert [one["decision"] for one in here] == [classes[best] for best in log_p.argmax(axis=1)]
            assert [one["alone"] for one in here] == list(decoded.class_names)
            np.testing.assert_allclose([one["probability"] for one in here], np.exp(log_p.max(axis=1)), atol=1e-6)
            sent += len(windows)


def test_people_see_a_line_a_window_and_how_many_were_right(hardpath, address, someone, tmp_path):
    file = tmp_path / "found.csv"
    answer = hardpath("call", address, "--recording", someone, "--snr-db", "-10", "--out", file)
    assert answer.code == 0, answer.err
    heads = [line for line in answer.out.splitlines() if "subject new" in line]
    assert [head.split(": ")[1] for head in heads] == ["8 windows of 2 s", "4 windows of 2 s"]
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len(answer.out.splitlines()) == len(heads) + len(rows) == 2 + 12
    wrong = [line for line in answer.out.splitlines() if "labelled: " in line]
    assert len(wrong) == sum(row["correct"] == "False" for row in rows)
    assert len([line for line in answer.out.splitlines() if "alone: " in line]) == sum(
        row["alone"] != row["decision"] for row in rows
    )
    right = sum(row["correct"] == "True" for row in rows)
    assert f"of 8 with a label {100 * right / 8:.2f} % are right" in answer.err
    assert answer.err.startswith("12 windows, ")


def test_rows_choose_recordings(hardpath, address, someone):
    answer = hardpath("call", address, "--recording", someone, "--rows", "1:2", "--json")
    assert [one["label"] for one in lines(answer.out)] == [None] * 4
    assert "--rows names none of the 2 rows" in hardpath(
        "call", address, "--recording", someone, "--rows", "2:3"
    ).refused(2)


def test_a_window_across_a_change_of_label_is_sent_and_has_no_label(walker, motion_bundle, tmp_path):
    made = walker(np.random.default_rng(1), 8) | {"subject": "s9"}
    np.savez(tmp_path / "moved.npz", **{**made, "data": made["data"][50:], "label": made["label"][50:]})
    (found,) = recordings_of_manifest(load_bundle(motion_bundle).manifest, tmp_path / "moved.npz")
    assert found.labels.tolist() == ["walk", "", "jog"]
    assert found.inputs["window"].shape == (3, 100, 6)


def test_a_recording_is_parted_at_a_gap(walker, motion_bundle, tmp_path):
    made = walker(np.random.default_rng(1), 12)
    made["data"][250:300] = np.nan
    np.savez(tmp_path / "gap.npz", **made)
    found = recordings_of_manifest(load_bundle(motion_bundle).manifest, tmp_path / "gap.npz")
    assert [(one.name.rsplit(", ", 1)[-1], len(one.labels)) for one in found] == [
        ("part 1 of 2", 2),
        ("part 2 of 2", 3),
    ]
    assert [one.starts_s.tolist() for one in found] == [[0.0, 2.0], [6.0, 8.0, 10.0]]


def test_which_part_of_a_recording_is_told_whole(hardpath, walker, address, tmp_path):
    made = walker(np.random.default_rng(1), 12)
    made["data"][250:300] = np.nan
    np.savez(tmp_path / "a_gap_in_the_middle.npz", **made)
    answer = hardpath("call", address, "--recording", tmp_path / "a_gap_in_the_middle.npz", "--lag", 2)
    heads = [line.split(", subject")[0] for line in answer.out.splitlines() if "subject" in line]
    assert [head.rsplit(", ", 1)[-1] for head in heads] == ["part 1 of 2", "part 2 of 2"]
    assert answer.out.count(" windows of 2 s, decided 2 windows late\n") == 2


def test_labels_that_the_model_does_not_know_are_named(walker, motion_bundle, tmp_path, caplog):
    made = walker(np.random.default_rng(1), 8)
    np.savez(tmp_path / "odd.npz", **made | {"label": np.where(made["label"] == "walk", "stroll", made["label"])})
    (found,) = recordings_of_manifest(load_bundle(motion_bundle).manifest, tmp_path / "odd.npz")
    assert found.labels.tolist() == ["", "", "jog", "jog"]
    assert "labels that the model does not know count as none: stroll" in caplog.text


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ["hardpath: interrupted after 2 of 12 windows"]),
        (ServerError("it went away"), 5, ["2 of 12 windows were decided by then", "hardpath: it went away"]),
    ],
)
def test_what_was_decided_is_kept_where_it_ends(hardpath, address, someone, tmp_path, monkeypatch, error, code, said):
    import serve.client.recording as module

    whole = module.decide

    def ended(*arguments, **options):
        found = whole(*arguments, **options)
        yield next(found)
        yield next(found)
        raise error

    monkeypatch.setattr(module, "decide", ended)
    file = tmp_path / "found.json"
    answer = hardpath("call", address, "--recording", someone, "--json", "--out", file)
    assert answer.code == code
    assert [one["window"] for one in lines(answer.out)] == [0, 1]
    assert json.loads(file.read_text()) == lines(answer.out)
    assert answer.err.splitlines()[-len(said) :] == said


def test_a_model_without_a_stage_decides_each_window_alone(hardpath, trained, people, someone, tmp_path):
    bundle = trained(people, tmp_path / "run", "sequence.parts=[]")
    with Server(bundle, port=0) as server:
        answer = hardpath("call", server.address, "--recording", someone, "--json")
        assert answer.code == 0, answer.err
        told = lines(answer.out)
        assert [one["decision"] for one in told] == [one["alone"] for one in told]
        assert [one["window"] for one in told] == [*range(8), *range(4)]
        assert "each window is decided by itself" in answer.err
        line = hardpath("call", server.address, "--recording", someone, "--lag", 2).refused(2)
        assert line == "--lag must be absent: the model has no sequence stage, and decides each window alone"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": np.zeros((900, 5))}, "there are 6 channels, and it lacks channel_5"),
        ({"data": np.zeros((60, 6))}, "a window is 100 samples at 50 Hz, it has 60"),
        ({"data": np.full((900, 6), np.nan)}, "has no sample of channel channel_0"),
        ({"rate_hz": 0}, "rate_hz must be one number above 0"),
    ],
)
def test_a_recording_that_cannot_be_sent_is_one_line(hardpath, address, tmp_path, change, says):
    np.savez(tmp_path / "bad.npz", **({"data": np.zeros((900, 6))} | change))
    line = hardpath("call", address, "--recording", tmp_path / "bad.npz").refused(2)
    assert line.startswith("--recording ")
    assert says in line


def test_what_is_not_there_and_what_a_recording_is_not_for_are_refused(hardpath, address, bundle, someone, tmp_path):
    assert "does not exist" in hardpath("call", address, "--recording", tmp_path / "none").refused(2)
    assert hardpath("call", address, "--lag", 1).refused(2) == "--lag must be absent without --recording"
    for option, value in (("--inputs", someone), ("--mode", 0), ("--draws", 2), ("--text", "a")):
        line = hardpath("call", address, "--recording", someone, option, value).refused(2)
        assert line == f"{option} must be absent beside --recording"
    with Server(bundle, port=0) as server:
        line = hardpath("call", server.address, "--recording", someone).refused(2)
        assert line == "--recording must be absent: digits takes samples, not recordings (--inputs)"


def test_recordings_of_no_task_are_an_argument_error(bundle, someone):
    with pytest.raises(ArgumentError, match="digits takes samples"):
        recordings_of_manifest(load_bundle(bundle).manifest, someone)


def test_one_file_of_recordings_is_data_to_train_on_and_to_measure_on(
    hardpath, trained, people, motion_bundle, tmp_path
):
    parts = [np.load(file) for file in sorted(people.glob("*.npz"))]
    subjects = np.concatenate([np.full(len(part["data"]), str(part["subject"])) for part in parts])
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in ("data", "label")}
    file = tmp_path / "all.npz"
    np.savez(file, **arrays, subject=subjects, rate_hz=50)
    bundle = trained(file, tmp_path / "run")
    measured = [
        hardpath("sweep", bundle, "--data", data, "--snr-db", 6, "--json").json["points"] for data in (people, file)
    ]
    assert measured[0] == measured[1]
    facts = load_bundle(bundle).manifest.provenance.facts
    assert facts == load_bundle(motion_bundle).manifest.provenance.facts
    (subject,) = facts["subjects"]["test"]
    (found,) = recordings_of_manifest(load_bundle(bundle).manifest, people / f"{subject}.npz")
    windows = tmp_path / "windows.npz"
    labels = [sorted(["walk", "jog"]).index(label) for label in found.labels]
    np.savez(windows, **found.inputs, labels=labels)  # inputs by name are no recordings
    assert hardpath("sweep", bundle, "--data", windows, "--snr-db", 6, "--json").json["points"] == measured[0]


def test_a_file_is_data_of_recordings_alone(hardpath, someone, tmp_path):
    for recipe in ("digits", "text"):
        line = hardpath("train", recipe, "--data", someone, "--out", tmp_path / "run").refused(2)
        assert line == f"data {someone} is no folder"


def test_the_example_of_waiting_is_as_good_as_all_where_it_waits_for_all(people, motion_bundle, tmp_path):
    """A recording has 12 windows; without noise to speak of windows are decided alone as a sweep decides them."""
    script = Path(__file__).parents[2] / "examples" / "smoothing_lag.py"
    options = ["--snr-db", "0", "40", "--lags", "0", "2", "12", "--out", str(tmp_path / "lag")]
    done = subprocess.run(
        [sys.executable, script, motion_bundle, "--data", people, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split(" | ")[0].strip("| "): line.strip("|").split(" | ")[1:] for line in done.stdout.splitlines()}
    assert list(rows) == ["windows waited for, awgn", "---|---|---", "alone", "0", "2", "12", "all"]
    assert rows["12"] == rows["all"]
    assert (tmp_path / "lag.png").stat().st_size > 5_000
    link = Link(load_bundle(motion_bundle))
    (subject,) = link.manifest.provenance.facts["subjects"]["test"]
    (recording,) = recordings_of_manifest(link.manifest, people / f"{subject}.npz")
    decisions = link.transmit(recording.inputs, Awgn(), 40.0, Draws(0, np.arange(12))).decoded.decisions
    right = np.array([link.manifest.task.classes.index(label) for label in recording.labels])
    assert rows["alone"][1].strip() == f"{100 * f1_score(right, decisions, average='macro'):.1f}"
