"""`hardpath ablate` from end to end on the tests' own task."""

import json
from pathlib import Path

import pytest

import train.tasks
from hardpath import ablation
from link.errors import BundleError
from train.ablation import Measured
from train.checkpoint import read

RECIPE = """
name = "signs"
task = "signs"
[link]
tokens = 3
codewords = 4
dim = 4
order = 4
[schedule]
epochs = 4
warmup_epochs = 2
alignment_start_epoch = 4
[optimizer]
batch_size = 32
learning_rate = 1e-2
[quantizer]
ema_decay = 0.9
[channel]
eval_snr_db = [10.0]
eval_draws = 1
"""
EXTRA_TASKS = str(Path(__file__).parents[1] / "train" / "extra_tasks")


@pytest.fixture
def recipe(tmp_path):
    train.tasks.__path__.append(EXTRA_TASKS)
    file = tmp_path / "signs.toml"
    file.write_text(RECIPE)
    yield file
    train.tasks.__path__.remove(EXTRA_TASKS)


@pytest.fixture
def ablate(hardpath, recipe, tmp_path):
    def run(*options, defects="none,leak", out="out"):
        return hardpath(
            *("ablate", recipe, "--schedules", "own", "--defects", defects, "--seeds", "0:1"),
            *("--snr-db", "0,10", "--draws", "1", "--out", tmp_path / out, *options),
        )

    return run


def lines_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_an_ablation_leaves_runs_lines_a_table_and_a_plot_and_goes_on_where_it_stopped(ablate, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = ablate()
    assert first.code == 0, first.err
    assert "2 runs, 0 of them finished already" in first.err
    assert "run 2 of 2: own, leak, seed 0, last: awgn 10 dB soft" in first.err
    assert first.out.startswith("| schedule | defects | checkpoint | epoch | seeds | soft 0 dB |")
    assert first.out == (out / "table.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[1:3] for line in first.out.splitlines()[2:6]] == [
        [name, kept] for name in ("none", "leak") for kept in ("best", "last")
    ]
    assert {name.name for name in out.iterdir()} >= {"ablation.png", "ablation.svg", "results.jsonl", "baselines.jsonl"}
    rows = lines_of(out / "results.jsonl")
    assert [(row["defects"], row["checkpoint"]) for row in rows] == [
        (defects, kept) for defects in ([], ["leak"]) for kept in ("best", "last")
    ]
    assert all(set(row["hard"]) == {"awgn", "rayleigh"} and set(row["soft"]["awgn"]) == {"0", "10"} for row in rows)
    cells = [line.strip("| ").split(" | ") for line in first.out.splitlines()]
    assert cells[0][-2:] == ["perplexity of a batch, training / evaluation", "active codes"]
    for found, row in zip(cells[2:6], rows, strict=True):
        for cell, name in zip(found[-2:], ("perplexity", "active"), strict=True):
            assert cell == f"{row[f'{name}_training']:.1f} / {row[f'{name}_validation']:.1f}"
    (baseline,) = lines_of(out / "baselines.jsonl")
    # A leak's receiver hears nothing of the channel.
    (leaking,) = {row["soft"]["awgn"]["0"] == row["soft"]["awgn"]["10"] for row in rows if row["defects"]}
    assert leaking

    monkeypatch.setattr("train.ablation.train", None)
    again = ablate("--json")
    assert again.code == 0
    assert again.json["measured"] == rows
    assert again.json["baselines"] == [baseline]
    monkeypatch.undo()
    more = ablate(defects="none,leak,no-restarts")
    assert "3 runs, 2 of them finished already" in more.err
    assert len(lines_of(out / "results.jsonl")) == 6


def measured(case, folder, specs, data_folder):
    """In place of exporting and sweeping, which take seconds: what a run says of itself, and nothing of the link."""
    del data_folder
    if "unexportable" in str(folder):
        raise BundleError("no such bundle")
    described = read(folder / "last")
    points = {name: {f"{snr_db:g}": 0.5 for snr_db in spec.snr_db} for name, spec in specs.items()}
    return tuple(
        Measured(
            schedule=case.schedule,
            defects=case.defects,
            seed=case.seed,
            checkpoint=kept,
            epoch=described.epoch,
            epochs=case.recipe.schedule.epochs,
            phase=described.phase.value,
            vq_temp=described.vq_temp,
            symbol_temp=described.symbol_temp,
            h_assign=0.5,
            codes_used=1.0,
            soft_es_db=0.0,
            soft=points,
            hard=points,
            decisions=10,
        )
        for kept in ("best", "last")
    )


def test_ctrl_c_keeps_the_runs_that_are_finished(ablate, tmp_path, monkeypatch):
    monkeypatch.setattr("train.ablation._measure", measured)
    real = ablation.write_results

    def interrupt(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "write_results", interrupt)
    cut = ablate()
    assert cut.code == 130
    assert "run the same command again to go on" in cut.err
    assert len(lines_of(tmp_path / "out" / "results.jsonl")) == 2
    monkeypatch.setattr(ablation, "write_results", real)
    assert "2 runs, 1 of them finished already" in ablate().err


def test_a_run_that_cannot_be_exported_costs_no_other_run(ablate, tmp_path, monkeypatch):
    monkeypatch.setattr("train.ablation._measure", measured)
    monkeypatch.setattr("train.ablation_design.condition_name", lambda defects: "unexportable" if defects else "none")
    answer = ablate(defects="leak,none")
    assert answer.code == 4
    assert "1 of 2 runs could not be exported; the first: own, unexportable, seed 0: no such bundle" in answer.err
    assert [row["defects"] for row in lines_of(tmp_path / "out" / "results.jsonl")] == [[], []]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--schedules", "aneal"), "schedules must be of own, two-phase"),
        (("--defects", "leek"), "unknown defect 'leek'; did you mean leak?"),
        (("--seeds", "3:1"), "seeds must be first:end"),
        (("--channels", "awgn,radio"), "channel must be one of awgn"),
        (("--set", "loss.lamda_vq=1"), "did you mean loss.lambda_vq?"),
    ],
)
def test_what_cannot_be_ablated_is_refused_in_one_line_before_anything_is_trained(hardpath, tmp_path, options, part):
    answer = hardpath("ablate", "digits", "--out", tmp_path / "out", *options)
    assert answer.code == 2
    assert part in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
