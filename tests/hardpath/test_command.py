"""The command as people and scripts meet it: answers, exit codes, one line for each mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from hardpath.terminal import EXIT_CODES
from link.errors import HardpathError
from link.provenance import code_version

COMMANDS = (
    "demo", "train", "evaluate", "diagnose", "export", "verify", "sweep", "ber", "plot", "compare", "serve", "call", "top",
    "inspect", "doctor",
)  # fmt: skip
HEAVY = ("torch", "numpy", "scipy", "onnxruntime", "grpc", "matplotlib", "sklearn")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom hardpath.command import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"sys.exit(','.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_version_is_shown(hardpath):
    assert hardpath("--version") == (0, f"hardpath {code_version()}\n", "")


@pytest.mark.parametrize(("given", "found"), [({}, "NONE"), ({"GRPC_VERBOSITY": "debug"}, "debug")])
def test_grpcs_own_lines_are_off_unless_somebody_wants_them(given, found):
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"} | given
    program = (
        "import os, sys\nfrom hardpath.command import main\n"
        "try: main(['--version'])\nexcept SystemExit: print(os.environ['GRPC_VERBOSITY'], 'grpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == f"{found} False"


def test_the_check_on_heavy_imports_can_fail():
    code = "import sys, numpy\nsys.exit('numpy' if 'numpy' in sys.modules else 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 1


def test_training_leaves_best_last_metrics_and_a_summary(hardpath, run_folder):
    assert (run_folder / "best" / "model.safetensors").is_file()
    assert (run_folder / "last" / "model.safetensors").is_file()
    assert len((run_folder / "metrics.jsonl").read_text().splitlines()) == 8
    again = hardpath("train", "digits", *_small(), "--out", run_folder)
    assert again.code == 0
    assert "Best: epoch" in again.out
    assert "Last: epoch 8" in again.out


def test_every_process_but_the_first_trains_the_same_run_and_says_nothing(monkeypatch, tmp_path, capfd):
    import train.run
    from hardpath.jobs import run_training
    from train.processes import Processes
    from train.recipe_file import load_recipe

    asked = []
    monkeypatch.setattr(train.run, "train", lambda *run, **options: asked.append((run, options)))
    recipe, data, kept = load_recipe("digits"), tmp_path / "data", tmp_path / "kept"
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    for number in range(2):
        processes = Processes(number=number, count=2)
        run_training(recipe, tmp_path, data, 1, brief=False, processes=processes, transmitter=kept)
    (first, first_options), (second, second_options) = asked
    assert first == second
    for options in (first_options, second_options):
        assert (options["data_folder"], options["transmitter"]) == (data, kept)
    assert "on_epoch" not in second_options
    assert capfd.readouterr().err.count("2 processes train together") == 1


def test_an_epoch_is_reported_with_phase_temperatures_and_collapse_metrics(hardpath, tmp_path):
    answer = hardpath(
        "train", "digits", "--set", "schedule.epochs=4", "--set", "schedule.warmup_epochs=2",
        "--set", "schedule.alignment_start_epoch=4", "--out", tmp_path / "run",
    )  # fmt: skip
    assert answer.code == 0
    for part in (
        "Phase=WARMUP",
        "Phase=LEARNING | vq_T=1.000",
        "Phase=ALIGNMENT",
        "hard_fwd=True",
        "VQ_ent:",
        "consistency",
    ):
        assert part in answer.out


def test_presets_and_bare_keys_shape_the_run(hardpath, tmp_path):
    answer = hardpath(
        "train", "digits", "--preset", "aggressive", "--preset", "basic", "--set", "alignment_start_epoch=3",
        "--set", "epochs=3", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer
    recipe = answer.json["last"]["recipe"]
    assert recipe["schedule"]["temp_freeze_floor"] == 0.7
    assert recipe["loss"]["lambda_consistency"] == 0.5
    assert (answer.json["last"]["epoch"], answer.json["last"]["phase"]) == (3, "ALIGNMENT")
    assert answer.json["last"]["symbol_temp"] == answer.json["last"]["vq_temp"] == 0.7


def test_a_run_that_ended_early_says_why_and_is_not_trained_again(hardpath, tmp_path):
    arguments = ("train", "digits", *_small(), "--out", tmp_path / "run")
    arguments += ("--set", "early_stop=true", "--set", "early_stop_consistency=1e6", "--set", "early_stop_accuracy=0")
    first = hardpath(*arguments)
    assert first.code == 0
    assert "Ended after epoch 6 of 8: soft and hard agree: consistency" in first.out
    again = hardpath(*arguments)
    assert again.code == 0
    assert "ended after epoch 6 (soft and hard agree" in again.err
    assert "nothing is trained again" in again.err


def test_another_recipe_in_the_same_folder_is_refused(hardpath, run_folder):
    line = hardpath("train", "digits", "--seed", 5, "--out", run_folder).refused(4)
    assert "seed" in line
    assert "--out" in line


def test_sweep_prints_the_object_that_scripts_expect(hardpath, bundle):
    answer = hardpath("sweep", bundle, "--snr-db", "6,12", "--seed", 7, "--draws", 2, "--json")
    assert answer.code == 0
    points = answer.json["points"]
    assert [point["snr_db"] for point in points] == [6.0, 12.0]
    for point in points:
        assert set(point["accuracy"]) == {"value", "low", "high"}
        assert point["accuracy"]["low"] <= point["accuracy"]["value"] <= point["accuracy"]["high"]
        assert point["samples"] * point["draws"] == point["decisions"]
        assert point["bits"] == point["decisions"] * 24
    assert answer.json["provenance"]["hardpath"]


def test_the_same_sweep_in_the_same_folder_goes_on_and_another_is_refused(hardpath, bundle, tmp_path):
    options = ("--snr-db", "0,6", "--draws", 1, "--out", tmp_path / "sweep", "--json")
    first = hardpath("sweep", bundle, *options)
    lines = (tmp_path / "sweep" / "points.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "sweep" / "points.jsonl").write_text(lines[0])
    assert hardpath("sweep", bundle, *options).out == first.out
    assert (tmp_path / "sweep" / "accuracy.png").stat().st_size > 0
    assert "seed" in hardpath("sweep", bundle, "--seed", 1, *options).refused(4)


def test_verification_of_the_exported_bundle_is_equivalent(hardpath, bundle, run_folder, tmp_path):
    answer = hardpath(
        "verify", bundle, "--checkpoint", run_folder, "--snr-db", "6,12", "--margin", 0.1, "--json",
        "--out", tmp_path / "verification.json",
    )  # fmt: skip
    assert answer.code == 0, answer
    assert answer.json["verdict"] == "equivalent"
    assert json.loads((tmp_path / "verification.json").read_text()) == answer.json


def test_undecided_within_the_budget_exits_with_3(hardpath, bundle, run_folder):
    answer = hardpath(
        "verify", bundle, "--checkpoint", run_folder, "--snr-db", "0", "--margin", 0.0001, "--max-draws", 1
    )  # fmt: skip
    assert answer.code == 3
    assert "undecided" in answer.out


def test_a_tampered_bundle_is_refused_with_4(hardpath, bundle, run_folder, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    graph = copy / "receiver.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "receiver.onnx" in hardpath("verify", copy, "--checkpoint", run_folder).refused(4)
    assert "receiver.onnx" in hardpath("inspect", copy).refused(4)
    assert "receiver.onnx" in hardpath("sweep", copy).refused(4)
    assert "receiver.onnx" in hardpath("serve", copy, "--port", 0).refused(4)


def test_a_bundle_of_another_schema_version_is_refused_with_4(hardpath, bundle, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    assert "schema_version is 99" in hardpath("inspect", copy).refused(4)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("train", "no-such-recipe"), 2, "digits"),
        (("train", "digits", "--set", "schedule.epoch=3"), 2, "did you mean schedule.epochs"),
        (("train", "digits", "--set", "nonsense"), 2, "KEY=VALUE"),
        (("train", "digits", "--preset", "nonsense"), 2, "no preset 'nonsense': name one of aggressive, anneal, basic"),
        (
            ("train", "digits", "--preset", "basic", "--set", "warmup_epochs=21"),
            2,
            "with preset basic: schedule: alignment",
        ),
        (("train", "digits", "--set", "link.order=5"), 2, "4, 16, 64"),
        (("export", "no/such/run"), 4, "no/such/run"),
        (("inspect", "no/such/bundle"), 4, "no/such/bundle"),
        (("call", "127.0.0.1:1", "--rows", "3:1"), 2, "--rows"),
        (("call", "127.0.0.1:1"), 5, "127.0.0.1:1"),
    ],
)
def test_each_mistake_gets_one_line_and_its_exit_code(hardpath, tmp_path, monkeypatch, arguments, code, part):
    monkeypatch.chdir(tmp_path)
    assert part in hardpath(*arguments).refused(code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--snr-db", "99"), "[-30, 60]"),
        (("--snr-db", "nan"), "snr_db"),
        (("--snr-db", "6:0:1"), "snr_db"),
        (("--channel", "smoke-signals"), "awgn"),
        (("--block-symbols", "-1", "--channel", "rayleigh"), "block_symbols"),
        (("--data", "missing.npz"), "missing.npz"),
    ],
)
def test_a_wrong_sweep_names_the_argument_and_its_range(hardpath, bundle, options, part):
    assert part in hardpath("sweep", bundle, *options).refused(2)


def test_usage_errors_exit_with_2(hardpath):
    answer = hardpath("sweep")
    assert answer.code == 2
    assert "BUNDLE" in answer.err
    assert hardpath("sweeep").code == 2


def test_data_from_a_file_takes_the_place_of_the_task_s(hardpath, bundle, tmp_path):
    images = np.zeros((3, 8, 8), np.float32)
    np.savez(tmp_path / "data.npz", image=images, labels=np.array([0, 1, 2]))
    answer = hardpath("sweep", bundle, "--snr-db", "6", "--draws", 1, "--data", tmp_path / "data.npz", "--json")
    assert answer.json["points"][0]["samples"] == 3
    np.savez(tmp_path / "nan.npz", image=images * np.nan, labels=np.array([0, 1, 2]))
    assert "finite" in hardpath("sweep", bundle, "--data", tmp_path / "nan.npz").refused(2)
    np.savez(tmp_path / "unlabelled.npz", image=images)
    assert "labels" in hardpath("sweep", bundle, "--data", tmp_path / "unlabelled.npz").refused(2)
    np.savez(tmp_path / "other.npz", picture=images, labels=np.array([0, 1, 2]))
    assert "image" in hardpath("sweep", bundle, "--data", tmp_path / "other.npz").refused(2)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:50])
    assert "cut.npz" in hardpath("sweep", bundle, "--data", tmp_path / "cut.npz").refused(2)


def test_a_served_bundle_is_called_and_drains_on_sigterm(hardpath, bundle):
    command = [sys.executable, "-m", "hardpath", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().rsplit(" on ", 1)[1].strip()
            answer = hardpath("call", address, "--rows", "2:5", "--snr-db", 18, "--seed", 3, "--json")
            assert answer.code == 0, answer
            assert [sample["row"] for sample in answer.json["samples"]] == [2, 3, 4]
            again = hardpath("call", address, "--rows", "3:4", "--snr-db", 18, "--seed", 3, "--json")
            assert again.json["samples"] == answer.json["samples"][1:2]
            taken = hardpath("serve", bundle, "--port", address.rsplit(":", 1)[1])
            assert "in use" in taken.refused(5)
            assert "snr_db" in hardpath("call", address, "--snr-db", 99).refused(2)
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def test_inspect_and_doctor_speak_to_people_and_to_machines(hardpath, bundle):
    assert (
        "8 tokens of 3 bits" in hardpath("inspect", bundle).out
        or "6 tokens of 4 bits" in hardpath("inspect", bundle).out
    )
    assert hardpath("inspect", bundle, "--json").json["schema_version"] == 1
    assert "ONNX Runtime providers" in hardpath("doctor").out
    assert hardpath("doctor", "--json").json["extras"]["train"]["installed"] is True


def test_every_error_of_the_tree_has_an_exit_code():
    def leaves(kind):
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]

    for kind in leaves(HardpathError):
        assert any(issubclass(kind, known) for known, _ in EXIT_CODES)


def test_ctrl_c_keeps_the_finished_epochs_and_exits_with_130(run_folder, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "hardpath", "train", "digits", "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        for line in training.stdout:
            if line.startswith("[Epoch 3]"):
                break
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert "run the same command again to go on" in err
    assert (folder / "last" / "model.safetensors").is_file()


def test_ctrl_c_promises_nothing_of_a_command_that_keeps_nothing(hardpath, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("link.bundle.load_bundle", interrupt)
    assert hardpath("inspect", "bundle").refused(130) == "interrupted"


def _small():
    return (
        "--set", "schedule.epochs=8", "--set", "schedule.warmup_epochs=3", "--set", "schedule.alignment_start_epoch=6",
    )  # fmt: skip


def test_two_runs_in_one_folder_are_kept_apart(hardpath, bundle, tmp_path):
    from link.lock import locked

    with locked(tmp_path / "busy"):
        assert "another run" in hardpath("sweep", bundle, "--snr-db", "6", "--out", tmp_path / "busy").refused(4)
        assert "another run" in hardpath("train", "digits", "--out", tmp_path / "busy").refused(4)
    assert hardpath("sweep", bundle, "--snr-db", "6", "--draws", 1, "--out", tmp_path / "busy").code == 0


def test_the_margin_and_the_k_factor_arrive_where_they_count(hardpath, bundle, run_folder):
    asked = hardpath("verify", bundle, "--checkpoint", run_folder, "--snr-db", "12", "--margin", 0.25, "--json")
    assert asked.json["settings"]["margin"] == 0.25
    rician = hardpath(
        "sweep", bundle, "--snr-db", "6", "--draws", 1, "--channel", "rician", "--k-factor-db", 40, "--json"
    )
    fading = hardpath(
        "sweep", bundle, "--snr-db", "6", "--draws", 1, "--channel", "rician", "--k-factor-db", -20, "--json"
    )
    # A strong line of sight is all but AWGN.
    assert rician.json["points"][0]["bit_errors"] < fading.json["points"][0]["bit_errors"]


def test_what_nobody_foresaw_is_one_line_too(hardpath, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("hardpath.inspection.diagnosis", broken)
    assert "unforeseen RuntimeError: first line" in hardpath("doctor").refused(5)


def test_a_verdict_is_said_even_where_its_file_cannot_be_written(hardpath, bundle, run_folder, tmp_path):
    answer = hardpath(
        "verify", bundle, "--checkpoint", run_folder, "--snr-db", "12", "--margin", 0.25, "--out", tmp_path
    )  # fmt: skip
    assert answer.code == 5
    assert "equivalent" in answer.out
    assert [path.name for path in tmp_path.parent.iterdir() if path.suffix == ".tmp"] == []


def test_the_end_of_a_file_inside_a_command_does_not_look_like_ctrl_c(hardpath, monkeypatch):
    def broken(*arguments, **options):
        raise EOFError("no more data")

    monkeypatch.setattr("hardpath.inspection.diagnosis", broken)
    assert "unforeseen EOFError: no more data" in hardpath("doctor").refused(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep",), "Missing argument 'BUNDLE'; see hardpath sweep --help"),
        (("sweeep",), "No such command 'sweeep'"),
        (("sweep", "bundle", "--draws", 0), "Invalid value for '--draws'"),
        (("train", "digits", "--data", "no/such/folder"), "Invalid value for '--data': no/such/folder does not exist"),
        (("train", "digits", "--data", __file__), "test_command.py is no folder"),
    ],
)
def test_wrong_usage_is_one_line_too(hardpath, arguments, message):
    answer = hardpath(*arguments)
    assert message in answer.refused(2)
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "digits", "--data", ""),
        ("train", "digits", "--out", ""),
        ("finetune", "text", "--out", ""),
        ("ablate", "digits", "--out", ""),
        ("evaluate", ""),
        ("diagnose", ""),
        ("diagnose", "run", "--plot", ""),
        ("export", ""),
        ("export", "run", "--out", ""),
        ("verify", "bundle", "--checkpoint", ""),
        ("verify", "bundle", "--checkpoint", "run", "--out", ""),
        ("inspect", ""),
        ("sweep", "bundle", "--data", ""),
        ("sweep", "bundle", "--out", ""),
        ("serve", ""),
        ("call", "127.0.0.1:1", "--inputs", ""),
        ("call", "127.0.0.1:1", "--texts", ""),
        ("demo", "--out", ""),
        ("train", "text", "--encoder", ""),
    ],
)
def test_an_empty_path_is_not_the_folder_that_one_is_in(hardpath, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert "is empty: name a" in hardpath(*arguments).refused(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits", "--seed", 1, "--set", "seed=2"), "--seed must be absent beside --set seed"),
        (
            ("text", "--encoder", "scratch", "--set", "task_options.encoder=roberta-base"),
            "--encoder must be absent beside --set task_options.encoder",
        ),
    ],
)
def test_a_value_that_is_given_twice_is_refused(hardpath, tmp_path, arguments, message):
    assert message in hardpath("train", *arguments, "--out", tmp_path / "run").refused(2)


def test_a_note_on_what_is_there_comes_after_the_checks(hardpath, run_folder):
    refused = hardpath("train", "digits", "--seed", 5, "--out", run_folder)
    assert "nothing is trained again" not in refused.err
    assert "goes on" not in refused.err


def test_an_extra_that_the_installation_does_not_know_is_not_ok(hardpath, monkeypatch):
    monkeypatch.setattr("hardpath.inspection.EXTRAS", ("cpu", "teleport"))
    assert hardpath("doctor", "--json").json["extras"]["teleport"] == {
        "installed": False,
        "missing": ["hardpath[teleport]"],
    }
    monkeypatch.setattr("hardpath.inspection._version", lambda name: None)
    monkeypatch.setattr("hardpath.inspection.EXTRAS", ("cpu", "hub"))
    assert "tokenizers" in hardpath("doctor", "--json").json["extras"]["hub"]["missing"]
