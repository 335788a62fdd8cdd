"""Several receivers at the command line: a head behind a run's transmitter, one bundle, and which of them is meant."""

import pytest

from link.bundle import load_bundle
from serve.client import Client
from serve.server import Server


def small_schedule(alignment_start_epoch):
    values = {"epochs": 4, "warmup_epochs": 1, "alignment_start_epoch": alignment_start_epoch}
    return [part for key, value in values.items() for part in ("--set", f"schedule.{key}={value}")]


@pytest.fixture(scope="module")
def shared(hardpath, run_folder, tmp_path_factory):
    """The bundle of the small run and of a second head behind it."""
    folder = tmp_path_factory.mktemp("receivers")
    options = ("--transmitter", run_folder, "--seed", 5, *small_schedule(2), "--out", folder / "second", "--brief")
    answer = hardpath("train", "digits", *options)
    assert answer.code == 0, answer
    answer = hardpath("export", run_folder, "--also", f"second={folder / 'second'}", "--out", folder / "bundle")
    assert answer.code == 0, answer
    assert "2 receivers" in answer.out
    return folder / "bundle"


def test_inspect_shows_all_receivers_and_the_one_that_is_named(hardpath, shared):
    shown = hardpath("inspect", shared)
    assert shown.code == 0, shown
    assert "receiver     digits: task digits, 10 classes" in shown.out
    assert "receiver     second: task digits, 10 classes" in shown.out
    assert hardpath("inspect", shared, "--json").json["receiver"]["file"] == "receiver.onnx"
    named = hardpath("inspect", shared, "--receiver", "second", "--json").json
    assert (named["receiver"]["file"], named["receiver_name"]) == ("receiver-second.onnx", "second")
    assert named["provenance"]["seed"] == 5


def test_a_sweep_and_a_verification_are_of_the_receiver_that_is_named(hardpath, shared):
    first, second = (
        hardpath("sweep", shared, "--snr-db", 6, "--draws", 1, "--json", *named).json
        for named in ((), ("--receiver", "second"))
    )
    hashes = [load_bundle(shared, name).manifest.receiver.sha256 for name in ("digits", "second")]
    assert [found["provenance"]["receiver_sha256"] for found in (first, second)] == hashes
    assert first["provenance"]["transmitter_sha256"] == second["provenance"]["transmitter_sha256"]
    # Both hear the same bits.
    assert first["points"][0]["bit_errors"] == second["points"][0]["bit_errors"]
    run = shared.parent / "second"
    options = ("--receiver", "second", "--snr-db", 12, "--margin", 0.2, "--max-draws", 20, "--json")
    found = hardpath("verify", shared, "--checkpoint", run, *options)
    assert found.code == 0, found
    assert found.json["receiver_sha256"] == hashes[1]
    wrong = hardpath("verify", shared, "--checkpoint", run, "--snr-db", 12, "--json")
    assert wrong.code == 1, wrong
    assert any("receiver" in text for text in wrong.json["receiver"]["findings"] + wrong.json["manifest"]["findings"])


def test_a_server_answers_for_the_receiver_that_is_named(shared):
    with Server(shared, receiver="second", port=0) as server, Client(server.address) as client:
        found = client.model().manifest
        whole = load_bundle(shared, "second").manifest
        assert found == whole.model_copy(update={"receivers": ()})
        assert found.receiver_name == "second"


@pytest.mark.parametrize("command", ["sweep", "serve", "inspect"])
def test_an_unknown_receiver_is_answered_with_the_known_ones(hardpath, shared, command):
    line = hardpath(command, shared, "--receiver", "third").refused(2)
    assert line == "receiver must be one of digits, second, got 'third'"


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (("runs/second",), "--also takes NAME=CHECKPOINT, the name of letters, digits, - and _, got 'runs/second'"),
        (
            ("a b=runs/second",),
            "--also takes NAME=CHECKPOINT, the name of letters, digits, - and _, got 'a b=runs/second'",
        ),
        (("a=one", "a=two"), "--also gives two receivers the name a: each needs one of its own"),
    ],
)
def test_a_receiver_without_a_name_of_its_own_is_refused(hardpath, run_folder, tmp_path, also, message):
    options = [part for value in also for part in ("--also", value)]
    assert hardpath("export", run_folder, *options, "--out", tmp_path / "bundle").refused(2) == message


def test_a_run_of_another_transmitter_gets_no_place_in_the_bundle(hardpath, run_folder, tmp_path):
    other = tmp_path / "other"
    assert hardpath("train", "digits", *small_schedule(3), "--seed", 9, "--out", other, "--brief").code == 0
    line = hardpath("export", run_folder, "--also", f"other={other}", "--out", tmp_path / "bundle").refused(4)
    assert line == f"{other} has another transmitter than {run_folder}: train its head with --transmitter {run_folder}"


def test_a_recipe_of_another_link_is_refused_behind_a_transmitter(hardpath, run_folder, tmp_path):
    options = ("--transmitter", run_folder, "--set", "link.order=4", "--out", tmp_path / "run")
    line = hardpath("train", "digits", *options).refused(2)
    assert line == f"the transmitter in {run_folder} has link.order 16, the recipe 4: set the same"
    line = hardpath("train", "digits", "--transmitter", tmp_path, "--out", tmp_path / "run").refused(4)
    assert "holds no checkpoint" in line
