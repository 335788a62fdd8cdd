"""`evaluate` and `diagnose` as people and scripts meet them."""

import json
import shutil

import pytest


@pytest.fixture
def broken(run_folder, tmp_path):
    """A copy of the run, to be broken."""
    return shutil.copytree(run_folder, tmp_path / "run")


def accuracies(answer, path):
    return {
        (point["temperature"], point["snr_db"]): (point["correct"], point["accuracy"])
        for point in answer.json["points"]
        if point["path"] == path
    }


def test_evaluation_prints_soft_at_each_temperature_and_hard_once(hardpath, run_folder):
    options = ("evaluate", run_folder, "--snr-db", "0,12", "--draws", 2, "--seed", 5)
    found = hardpath(*options, "--temperature", "1,0.1", "--json")
    assert found.code == 0, found
    hard, soft = accuracies(found, "hard"), accuracies(found, "soft")
    assert list(hard) == [(None, 0.0), (None, 12.0)]
    assert list(soft) == [(1.0, 0.0), (1.0, 12.0), (0.1, 0.0), (0.1, 12.0)]
    assert found.json["samples"] * found.json["draws"] == found.json["points"][0]["decisions"]
    assert (found.json["split"], found.json["seed"]) == ("validation", 5)
    assert len(found.json["checkpoint_sha256"]) == 64
    for point in found.json["points"]:
        assert point["accuracy"]["low"] <= point["correct"] / point["decisions"] <= point["accuracy"]["high"]
    table = hardpath(*options, "--temperature", "1,0.1").out
    assert table.count(" any ") == 2
    assert "no temperature moves it" in table


def test_no_temperature_moves_the_hard_path(hardpath, run_folder):
    options = ("evaluate", run_folder, "--snr-db", "0,12", "--draws", 2, "--json")
    alone = hardpath(*options, "--path", "hard")
    assert accuracies(alone, "soft") == {}
    for temperatures in ("1", "0.1,5"):
        assert accuracies(hardpath(*options, "--temperature", temperatures), "hard") == accuracies(alone, "hard")
    soft = hardpath(*options, "--path", "soft", "--temperature", "0.7")
    assert accuracies(soft, "hard") == {}
    assert list(accuracies(soft, "soft")) == [(0.7, 0.0), (0.7, 12.0)]
    assert "no temperature moves it" not in hardpath(*options[:-1], "--path", "soft", "--temperature", "0.7").out


def test_evaluation_takes_the_recipes_grid_and_the_split_asked_for(hardpath, run_folder):
    found = hardpath("evaluate", run_folder / "last", "--path", "hard", "--draws", 1, "--split", "test", "--json").json
    assert [point["snr_db"] for point in found["points"]] == [0.0, 6.0, 12.0, 18.0]
    assert (found["split"], found["samples"], found["epoch"]) == ("test", 360, 8)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--temperature", "0"), "temperature must be in"),
        (("--temperature", "warm"), "temperature must be numbers"),
        (("--temperature", "1,1"), "temperature must name each temperature once"),
        (("--snr-db", "99"), "[-30, 60]"),
    ],
)
def test_a_wrong_evaluation_names_the_argument(hardpath, run_folder, options, part):
    assert part in hardpath("evaluate", run_folder, *options).refused(2)


def test_wrong_choices_are_usage_errors(hardpath, run_folder):
    assert hardpath("evaluate", run_folder, "--path", "analogue").code == 2
    assert hardpath("evaluate", run_folder, "--split", "train").code == 2


def test_where_no_question_is_asked_an_intervention_says_what_is_most_frequent(hardpath, run_folder):
    shown = hardpath("evaluate", run_folder, "--intervene", "zero")
    assert shown.code == 0, shown
    assert "most frequent %" in shown.out
    assert "alone" not in shown.out
    measured = hardpath("evaluate", run_folder, "--intervene", "zero", "--json").json["measured"]
    assert [one["kind"] for one in measured] == ["none", "zero"]
    assert all(one["image_prior"] is None for one in measured)


def test_a_healthy_run_is_said_to_be_healthy_and_exits_with_0(hardpath, run_folder, tmp_path):
    answer = hardpath("diagnose", run_folder, "--plot", tmp_path / "run.png")
    assert answer.code == 0, answer
    assert "healthy: nothing is wrong" in answer.out
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run.svg").is_file()
    found = hardpath("diagnose", run_folder, "--json")
    assert found.code == 0
    assert [finding for finding in found.json["findings"] if finding["kind"] == "wrong"] == []
    assert found.json["probe"] is None


def test_a_deep_diagnosis_measures_best_and_last(hardpath, run_folder):
    answer = hardpath("diagnose", run_folder, "--deep", "--json")
    assert answer.code == 0, answer
    for name in ("best", "last"):
        measured = answer.json["probe"][name]
        assert sorted({point["temperature"] for point in measured["points"] if point["path"] == "soft"}) == [
            0.1,
            0.5,
            0.7,
            1.0,
        ]
        assert measured["changed"] == []
        assert sum(measured["hard"].values()) / 4 == pytest.approx(measured["recorded_hard"], abs=1e-9)
    by_topic = {answered["topic"]: answered for answered in answer.json["answers"]}
    assert list(by_topic) == ["course", "same-codes", "drift", "gradient", "training-mode", "frozen-encoder"]
    assert by_topic["course"]["question"].startswith("Does usage collapse at once when evaluation starts")
    assert by_topic["course"]["answer"] == "no collapse"
    assert answer.json["probe"]["collapse"]["gradient"]["straight_through"] > 0.0


def test_a_run_that_collapsed_exits_with_1_and_says_what_to_try(hardpath, broken):
    lines = [json.loads(line) for line in (broken / "metrics.jsonl").read_text().splitlines()]
    lines[-1] |= {"hard_mean": 0.2}
    lines[-1]["validation_collapse"] |= {"vq_entropy": 0.1}
    (broken / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = hardpath("diagnose", broken)
    assert answer.code == 1
    for part in ("accuracy-collapse:", "code-entropy:", "first", "last resort", "--set loss.lambda_entropy=0.3"):
        assert part in answer.out
    assert "hardpath train RECIPE --out FOLDER --set KEY=VALUE" in answer.out
    assert hardpath("diagnose", broken, "--json").code == 1


@pytest.mark.parametrize(
    ("breaks", "part"),
    [
        (lambda run: shutil.rmtree(run), "is no folder"),
        (lambda run: (run / "metrics.jsonl").unlink(), "holds no metrics.jsonl"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\xfe{"), "metrics.jsonl cannot be read"),
        (lambda run: (run / "metrics.jsonl").write_text('{"epoch": 1'), "empty or cut short"),
        (lambda run: (run / "metrics.jsonl").write_text('{"epoch": 1\n{}\n'), "line 1 of 2 is no epoch"),
        (lambda run: shutil.rmtree(run / "last"), "holds no checkpoint"),
        (lambda run: (run / "last" / "model.safetensors").write_bytes(b"\0" * 64), "is no checkpoint"),
        (lambda run: (run / "best" / "model.safetensors").write_bytes(b"\0" * 64), "is no checkpoint"),
    ],
)
def test_a_run_that_cannot_be_read_gets_one_line_and_exits_with_4(hardpath, broken, breaks, part):
    breaks(broken)
    assert part in hardpath("diagnose", broken).refused(4)


def test_a_checkpoint_that_is_missing_exits_with_4(hardpath, tmp_path):
    assert "holds no checkpoint" in hardpath("evaluate", tmp_path / "nothing").refused(4)


def test_a_last_line_that_a_crash_cut_short_costs_one_epoch(hardpath, broken):
    whole = (broken / "metrics.jsonl").read_text()
    (broken / "metrics.jsonl").write_text(whole[:-30])
    answer = hardpath("diagnose", broken)
    assert answer.code == 0, answer
    assert "epoch 7 of 8" in answer.out
    assert "unfinished" in answer.out
