"""`hardpath call --recording`: windows one by one, decided as they come, from the command to what it prints."""

import csv
import json

import numpy as np
import pytest

from link.bundle import load_bundle
from link.errors import ArgumentError, ServerError
from link.recordings import read_recordings
from link.sequence import SequenceStream, code_probabilities
from serve.client import Client
from serve.server import Server
from train.tasks import recordings_of_manifest

SETTINGS = [
    "epochs=3",
    "warmup_epochs=1",
    "alignment_start_epoch=3",
    "batch_size=32",
    "link.tokens=2",
    "eval_draws=1",
    "stage_epochs=1",
    "longest=4",
]


def recording(random, seconds=24, subject="s0"):
    """Someone who walks and jogs in turn, 4 s each."""
    hertz = np.repeat(np.resize([2.0, 6.0], seconds // 4), 200)
    time = np.arange(len(hertz)) / 50
    data = [np.sin(2 * np.pi * hertz * time + random.uniform(0, 6)) + random.normal(size=len(time)) for _ in range(6)]
    return {
        "data": np.stack(data, axis=1),
        "label": np.where(hertz == 2.0, "walk", "jog"),
        "subject": subject,
        "rate_hz": 50,
    }


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for number in range(5):
        np.savez(folder / f"s{number}.npz", **recording(random, subject=f"s{number}"))
    return folder


def trained(people, folder, hardpath, *settings):
    arguments = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    answer = hardpath("train", "motion", "--data", people, "--out", folder, *arguments)
    assert answer.code == 0, answer.err
    assert hardpath("export", folder, "--data", people).code == 0
    return folder / "bundle"


@pytest.fixture(scope="module")
def motion_bundle(people, tmp_path_factory, hardpath):
    return trained(people, tmp_path_factory.mktemp("staged") / "run", hardpath)


@pytest.fixture(scope="module")
def address(motion_bundle):
    with Server(motion_bundle, port=0) as server:
        yield server.address


@pytest.fixture
def someone(tmp_path):
    """Two recordings of another person in a file, the second without labels."""
    file, random = tmp_path / "someone.npz", np.random.default_rng(7)
    first, second = recording(random, 16), recording(random, 8)
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


def test_a_window_across_a_change_of_label_is_sent_and_has_no_label(people, motion_bundle, tmp_path):
    made = recording(np.random.default_rng(1), 8) | {"subject": "s9"}
    np.savez(tmp_path / "moved.npz", **{**made, "data": made["data"][50:], "label": made["label"][50:]})
    (found,) = recordings_of_manifest(load_bundle(motion_bundle).manifest, tmp_path / "moved.npz")
    assert found.labels.tolist() == ["walk", "", "jog"]
    assert found.inputs["window"].shape == (3, 100, 6)


def test_a_recording_is_parted_at_a_gap(motion_bundle, tmp_path):
    made = recording(np.random.default_rng(1), 12)
    made["data"][250:300] = np.nan
    np.savez(tmp_path / "gap.npz", **made)
    found = recordings_of_manifest(load_bundle(motion_bundle).manifest, tmp_path / "gap.npz")
    assert [(one.name.rsplit(", ", 1)[-1], len(one.labels)) for one in found] == [
        ("part 1 of 2", 2),
        ("part 2 of 2", 3),
    ]
    assert [one.starts_s.tolist() for one in found] == [[0.0, 2.0], [6.0, 8.0, 10.0]]


def test_which_part_of_a_recording_is_told_whole(hardpath, address, tmp_path):
    made = recording(np.random.default_rng(1), 12)
    made["data"][250:300] = np.nan
    np.savez(tmp_path / "a_gap_in_the_middle.npz", **made)
    answer = hardpath("call", address, "--recording", tmp_path / "a_gap_in_the_middle.npz")
    heads = [line.split(", subject")[0] for line in answer.out.splitlines() if "subject" in line]
    assert [head.rsplit(", ", 1)[-1] for head in heads] == ["part 1 of 2", "part 2 of 2"]


def test_labels_that_the_model_does_not_know_are_named(motion_bundle, tmp_path, caplog):
    made = recording(np.random.default_rng(1), 8)
    np.savez(tmp_path / "odd.npz", **made | {"label": np.where(made["label"] == "walk", "stroll", made["label"])})
    (found,) = recordings_of_manifest(load_bundle(motion_bundle).manifest, tmp_path / "odd.npz")
    assert found.labels.tolist() == ["", "", "jog", "jog"]
    assert "labels that the model does not know count as none: stroll" in caplog.text


def test_a_server_that_goes_away_leaves_what_was_decided(hardpath, address, someone, tmp_path, monkeypatch):
    import serve.client.recording as module

    whole = module.decide

    def broken(*arguments, **options):
        found = whole(*arguments, **options)
        yield next(found)
        yield next(found)
        raise ServerError("the server went away")

    monkeypatch.setattr(module, "decide", broken)
    file = tmp_path / "found.json"
    answer = hardpath("call", address, "--recording", someone, "--json", "--out", file)
    assert answer.code == 5
    assert json.loads(file.read_text()) == lines(answer.out)
    assert len(lines(answer.out)) == 2
    assert answer.err.splitlines()[-2:] == [
        "2 of 12 windows were decided by then",
        "hardpath: the server went away",
    ]


def test_ctrl_c_keeps_what_was_decided(hardpath, address, someone, tmp_path, monkeypatch):
    import serve.client.recording as module

    whole = module.decide

    def interrupted(*arguments, **options):
        found = whole(*arguments, **options)
        yield next(found)
        yield next(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "decide", interrupted)
    file = tmp_path / "found.json"
    answer = hardpath("call", address, "--recording", someone, "--json", "--out", file)
    assert answer.code == 130
    assert [one["window"] for one in lines(answer.out)] == [0, 1]
    assert json.loads(file.read_text()) == lines(answer.out)
    assert answer.err.splitlines()[-1] == "hardpath: interrupted after 2 of 12 windows"


def test_a_model_without_a_stage_decides_each_window_alone(hardpath, people, someone, tmp_path):
    bundle = trained(people, tmp_path / "run", hardpath, "sequence.parts=[]")
    with Server(bundle, port=0) as server:
        answer = hardpath("call", server.address, "--recording", someone, "--json")
        assert answer.code == 0, answer.err
        told = lines(answer.out)
        assert [one["decision"] for one in told] == [one["alone"] for one in told]
        assert len(told) == 12
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
