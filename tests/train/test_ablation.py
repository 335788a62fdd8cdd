"""The ablation's conditions, one run of it, and what its table says."""

import json
import math

import numpy as np
import pytest
from scipy.stats import t

from link.bundle import load_bundle
from link.chain import Link
from link.errors import ArgumentError
from link.sweep import sweep
from train import ablation as module
from train.ablation import finished, run_case, soft_accuracy
from train.ablation_design import Ablation, Case, condition_name, parse_conditions, parse_schedules, parse_seeds
from train.ablation_report import Baseline, markdown, over_seeds, plot_ablation
from train.checkpoint import load
from train.defects import DEFECTS, TOGETHER
from train.evaluate import evaluate
from train.recipe_file import load_recipe
from train.tasks import load_task

QUICK = {"schedule.epochs": "4", "schedule.warmup_epochs": "2", "schedule.alignment_start_epoch": "4"}


@pytest.fixture
def make_ablation():
    def make(**changes):
        fields = {
            "recipe": "digits",
            "schedules": ("two-phase", "anneal"),
            "conditions": ((), ("batch-power",)),
            "seeds": (0, 1),
            "snr_db": (0.0, 12.0),
            "channels": ("awgn", "rayleigh"),
            "draws": 2,
        }
        return Ablation(**fields | changes)

    return make


@pytest.fixture
def case(make_signs_recipe):
    recipe = make_signs_recipe(defects=["batch-power"])
    return Case("own", ("batch-power",), 3, recipe)


def test_alone_is_the_clean_system_and_each_defect_by_itself():
    assert parse_conditions("alone") == ((), *((name,) for name in DEFECTS))


def test_without_is_all_of_them_and_all_but_each():
    conditions = parse_conditions("without")
    assert conditions[0] == TOGETHER
    assert len(conditions) == 1 + len(TOGETHER)
    assert [set(TOGETHER) - set(condition) for condition in conditions[1:]] == [{name} for name in TOGETHER]
    assert set(DEFECTS) - set(TOGETHER) == {"ema-without-n", "restart-keeps-sums"}


def test_conditions_are_named_and_none_is_there_twice():
    conditions = parse_conditions("none, no-scale+batch-power,all,batch-power+no-scale,alone")
    assert conditions[:3] == ((), ("batch-power", "no-scale"), TOGETHER)
    assert len(conditions) == len(set(conditions)) == 3 + len(DEFECTS)
    names = [condition_name(condition) for condition in (*conditions, *parse_conditions("without"))]
    assert names[:3] == ["none", "batch-power+no-scale", "all"]
    assert names[-1] == "all-but-leak"


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (
            parse_conditions,
            "batch-powr",
            "defects cannot be 'batch-powr': unknown defect 'batch-powr'; did you mean batch-power",
        ),
        (parse_conditions, "leak+leak", "defect leak is named twice"),
        (parse_conditions, "leak,,none", "defects must be names with commas between"),
        (parse_schedules, "aneal", "schedules must be of own, two-phase, aggressive, anneal, .*, got 'aneal'"),
        (parse_schedules, "published-vq", "got 'published-vq'"),
        (parse_seeds, "3:3", "seeds must be first:end"),
        (parse_seeds, "-1:2", "seeds must be first:end"),
        (parse_seeds, "1,1", "seeds must be first:end"),
        (parse_seeds, "two", "seeds must be first:end"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(parse, text, message):
    with pytest.raises(ArgumentError, match=message):
        parse(text)


def test_runs_differ_in_schedule_condition_and_seed_and_in_nothing_else(make_ablation):
    cases = make_ablation(schedules=parse_schedules("own,two-phase,anneal,floor-0.5,freeze-15")).cases()
    assert len(cases) == len({case.folder for case in cases}) == 5 * 2 * 2
    first = cases[0].recipe
    for case in cases:
        same = {"schedule": first.schedule, "seed": first.seed, "defects": first.defects}
        assert case.recipe.model_copy(update=same) == first
        assert (case.recipe.seed, case.recipe.defects) == (case.seed, case.defects)
    kinds = {case.schedule: case.recipe.schedule.kind for case in cases}
    assert kinds == {
        "own": "two-phase",
        "two-phase": "two-phase",
        "anneal": "anneal",
        "floor-0.5": "floor",
        "freeze-15": "freeze",
    }
    assert first.schedule == load_recipe("digits").schedule


def test_values_that_are_set_hold_over_every_schedule(make_ablation):
    cases = make_ablation(overrides={"schedule.epochs": "25", "link.codewords": "16"}).cases()
    assert {case.recipe.schedule.epochs for case in cases} == {25}
    assert {case.recipe.link.codewords for case in cases} == {16}


def test_a_run_measures_what_is_exported_and_is_not_run_again(case, make_ablation, tmp_path, monkeypatch):
    specs = make_ablation(seeds=(3,)).specs()
    measured = run_case(case, specs, tmp_path)
    assert [row.checkpoint for row in measured] == ["best", "last"]
    folder = tmp_path / case.folder
    described, model = load(folder / "last")
    task = load_task("signs")
    test = task.load(None).test
    last = measured[1]
    assert (last.epoch, last.vq_temp) == (described.epoch, described.vq_temp)
    bundle = folder / ("bundle-best" if last.epoch == measured[0].epoch else "bundle-last")
    points = sweep(Link(load_bundle(bundle)), test.inputs, test.labels, specs["rayleigh"]).points
    assert list(last.hard["rayleigh"].values()) == [point.accuracy.value for point in points]
    soft = soft_accuracy(
        model, task, test, specs["awgn"], temperature=last.vq_temp, symbol_temperature=1.0, batch_rows=32
    )
    assert (last.soft["awgn"], last.soft_es_db) == (soft.accuracy, soft.es_db)

    monkeypatch.setattr(module, "train", None)
    assert run_case(case, specs, tmp_path) == measured
    # Other points are measured, on the checkpoints that are there.
    other = make_ablation(snr_db=(3.0,)).specs()
    assert finished(case, other, tmp_path) is None
    monkeypatch.undo()
    again = run_case(case, other, tmp_path)
    assert [list(row.hard["awgn"]) for row in again] == [["3"], ["3"]]


def test_an_interrupted_run_goes_on_where_it_stopped(case, make_ablation, tmp_path):
    specs = make_ablation(seeds=(3,)).specs()
    whole = run_case(case, specs, tmp_path / "whole")
    epochs = []

    def interrupt(record):
        epochs.append(record.epoch)
        if record.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_case(case, specs, tmp_path / "cut", on_epoch=interrupt)
    assert finished(case, specs, tmp_path / "cut") is None
    assert run_case(case, specs, tmp_path / "cut", on_epoch=lambda record: epochs.append(record.epoch)) == whole
    assert epochs == [1, 2, 3, 4, 5]


def test_the_surrogate_meets_the_noise_that_training_s_evaluation_meets(signs_run, signs_recipe, make_ablation):
    _, model = load(signs_run)
    task = load_task("signs")
    test = task.load(None).test
    spec = make_ablation().specs()["awgn"].model_copy(update={"seed": 3})
    grid = signs_recipe.channel.model_copy(update={"eval_snr_db": (0.0, 12.0), "eval_draws": 2})
    expected = evaluate(model, task, test, grid, temperature=0.7, seed=3).soft
    found = soft_accuracy(model, task, test, spec, temperature=0.7, symbol_temperature=1.0, batch_rows=4)
    assert found.accuracy == {"0": expected[0.0], "12": expected[12.0]}


def test_mean_deviation_and_interval_over_seeds_are_students():
    values = [0.91, 0.97, 0.93, 0.88]
    found = over_seeds(values)
    assert (found.mean, found.deviation) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    low, high = t.interval(0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2.0)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert math.isnan(over_seeds([0.9]).half_width)


def rows_of(run_case_result, seeds):
    return [
        row.model_copy(
            update={
                "seed": seed,
                "schedule": "anneal",
                "hard": {"awgn": {"0": 0.5 + 0.1 * seed, "12": 0.9}, "rayleigh": {"0": 0.4, "12": 0.8}},
            }
        )
        for seed in seeds
        for row in run_case_result
    ]


def test_the_table_has_a_row_for_each_condition_that_was_measured_and_the_baselines(case, make_ablation, tmp_path):
    ablation = make_ablation()
    done = rows_of(run_case(case, ablation.specs(), tmp_path), (0, 1))
    baselines = [
        Baseline(seed=seed, no_link=0.99, repetition={name: {"0": 0.7, "12": 0.98} for name in ablation.channels})
        for seed in (0, 1)
    ]
    lines = markdown(ablation, done, baselines).splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:4]] == [
        ["| anneal", "batch-power", "best"],
        ["| anneal", "batch-power", "last"],
    ]
    head, row = (line.strip("| ").split(" | ") for line in (lines[0], lines[3]))
    cells = dict(zip(head, row, strict=True))
    # 50 and 60 %: mean 55, deviation 7.07, and Student's 12.706 over one degree of freedom times 5.
    assert cells["hard 0 dB"] == "55.0 ±7.1 [±63.5]"
    assert cells["hard rayleigh 12 dB"] == "80.0 ±0.0 [±0.0]"
    assert lines[4].startswith("| **label by repetition** |")
    assert lines[5].count("99.0 ±0.0 [±0.0]") == 6
    assert "soft - hard rayleigh 0 dB" not in head
    # Seed by seed: the soft path of both seeds is the same, so the gap varies as the hard one does.
    soft = 100.0 * done[1].soft["awgn"]["0"]
    assert cells["soft - hard 0 dB"] == f"{soft - 55.0:.1f} ±7.1 [±63.5]"
    assert len(lines) == 6
    png, svg = plot_ablation(ablation, done, baselines, tmp_path / "plot")
    assert png.stat().st_size > 1000
    assert "batch-power" in svg.read_text(encoding="utf-8") or svg.stat().st_size > 1000
    json.dumps(done[0].model_dump(mode="json"))
