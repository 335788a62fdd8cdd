"""The ablation of the bottleneck, examples/bottleneck_ablation.py: what its runs differ in, and what its table says."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from link.errors import ArgumentError
from train.recipe_file import load_recipe
from train.variational import BottleneckRecipe

EXAMPLE = Path(__file__).parents[2] / "examples" / "bottleneck_ablation.py"


@pytest.fixture(scope="module")
def example():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


def differences(recipe, other):
    """The settings of one that the other has otherwise."""
    flat = [
        {
            f"{section}.{key}" if isinstance(values, dict) else section: value
            for section, values in found.model_dump().items()
            for key, value in (values.items() if isinstance(values, dict) else [("", values)])
        }
        for found in (recipe, other)
    ]
    return {key: value for key, value in flat[0].items() if flat[1].get(key) != value}


def recipes_of(example, seed=0, share=1.0, names=None):
    return {case.name: case.recipe for case in example.cases(names or list(example.VARIATIONS), [seed], {}, share)}


def test_each_run_differs_from_the_recipe_in_what_it_says_and_nothing_else(example):
    found = recipes_of(example)
    assert {name: differences(recipe, found["recipe"]) for name, recipe in found.items()} == {
        "recipe": {},
        "no-link": {},
        "sum-0.1": {"bottleneck.kl_reduction": "sum"},
        "sum": {"bottleneck.kl_reduction": "sum", "bottleneck.free_bits": 1.6},
        "free-0.05": {"bottleneck.free_bits": 0.05},
        "free-0.2": {"bottleneck.free_bits": 0.2},
        "freeze-0": {"optimizer.freeze_vision_epochs": 0},
        "freeze-5": {"optimizer.freeze_vision_epochs": 5},
        "teacher-off": {"bottleneck.teacher_weight": 0.0},
        "by-batch": {"bottleneck.kl_warmup_by": "batch"},
        "no-bottleneck": {
            f"bottleneck.{key}": value
            for key, value in BottleneckRecipe()
            if value != getattr(found["recipe"].bottleneck, key)
        },
        "question-receiver": {"task_options.question": "receiver"},
        "question-transmitter": {"task_options.question": "transmitter"},
    }
    assert found["recipe"] == load_recipe("visual-questions", {"seed": "0"})
    assert not found["no-bottleneck"].bottleneck.enabled


def test_a_sum_frees_as_many_nats_as_the_mean_or_a_dimensions_share_of_them(example):
    found = {name: recipe.bottleneck for name, recipe in recipes_of(example).items()}
    dim = load_recipe("visual-questions").link.dim
    nats = {name: found[name].nats_a_token(found[name].free(dim), dim) for name in ("recipe", "sum", "sum-0.1")}
    assert nats["sum"] == nats["recipe"] == pytest.approx(dim * nats["sum-0.1"])


def test_runs_go_seed_by_seed(example):
    cases = example.cases(["recipe", "sum"], [3, 1], {"schedule.patience": "4"}, 1.0)
    assert [(case.name, case.seed, case.recipe.seed) for case in cases] == [
        ("recipe", 3, 3),
        ("sum", 3, 3),
        ("recipe", 1, 1),
        ("sum", 1, 1),
    ]
    assert {case.recipe.schedule.patience for case in cases} == {4}
    assert len({case.folder(Path("out")) for case in cases}) == 4


def test_a_shorter_recipe_keeps_the_order_of_what_happens(example):
    """0.55 of 26 epochs, 8 without a link, 16 before alignment, 15 of growing KL before the teacher, 3 or 5 frozen."""
    found = recipes_of(example, share=0.55)
    schedule, bottleneck = found["recipe"].schedule, found["recipe"].bottleneck
    assert (schedule.epochs, schedule.warmup_epochs, schedule.alignment_start_epoch, schedule.patience) == (
        14,
        4,
        10,
        3,
    )
    assert (bottleneck.kl_warmup, bottleneck.teacher_start_epoch) == (8, 9)
    frozen = [found[name].optimizer.freeze_vision_epochs for name in ("freeze-0", "recipe", "freeze-5")]
    assert frozen == [0, 2, 3]
    assert differences(found["recipe"], recipes_of(example)["recipe"]).keys() == {
        *(f"schedule.{key}" for key in ("epochs", "warmup_epochs", "alignment_start_epoch", "patience")),
        *(f"bottleneck.{key}" for key in ("kl_warmup", "teacher_start_epoch")),
        "optimizer.freeze_vision_epochs",
    }


@pytest.mark.parametrize(
    ("names", "share", "message"),
    [
        (["freeze-9"], 1.0, r"--only must be of recipe, sum-0.1, .*, got 'freeze-9'"),
        (["recipe"], float("nan"), r"--epochs-share must be in \[0, 1\], got nan"),
        (["recipe"], 1.5, r"--epochs-share must be in \[0, 1\], got 1.5"),
        (["recipe"], 0.01, r"--epochs-share cannot be 0.01: .* greater than or equal to 1"),
    ],
)
def test_what_cannot_be_run_is_refused(example, names, share, message):
    with pytest.raises(ArgumentError, match=message):
        example.cases(names, [0], {}, share)


def result(example, name, seed, accuracy, **figures):
    latent = figures.pop("kl", None)
    return example.Result(
        name=name,
        seed=seed,
        recipe=recipes_of(example, seed, names=[name])[name],
        epochs=14,
        accuracy=accuracy,
        latent=None if latent is None else example.LatentFigures(kl=latent, after=0.16, free=0.9, rise=0.01),
        **figures,
    )


def cells(table, row):
    return [cell.strip() for cell in table.splitlines()[row].strip("|").split("|")]


def test_the_table_pairs_differences_by_seed(example):
    """Means of .90 and .92, .94 and .95: the second is ahead by .04 and .03, whatever the seeds have in common."""
    results = [
        result(example, "recipe", 0, (0.90, 0.91), erased=0.67, learned=5, overfitting=1.5, kl=1.6),
        result(example, "recipe", 1, (0.92, 0.93), erased=0.67, learned=None, overfitting=1.5, kl=1.6),
        result(example, "sum", 1, (0.95, 0.96), erased=0.66, learned=6, overfitting=1.0, kl=0.8),
        result(example, "sum", 0, (0.94, 0.95), erased=0.66, learned=6, overfitting=1.0, kl=0.8),
    ]
    table = example.table(results)
    assert cells(table, 2)[1:6] == ["2", "91.00 (90.00 to 92.00)", "", "92.00 (91.00 to 93.00)", ""]
    assert cells(table, 2)[6:] == ["67.0", "1.600", "0.1000", "0.0100", "90.0", "1.50", "0.010", "5, -", "14, 14"]
    ahead = "+3.50 (+3.00 to +4.00)"
    assert cells(table, 3)[1:6] == ["2", "94.50 (94.00 to 95.00)", ahead, "95.50 (95.00 to 96.00)", ahead]
    assert cells(table, 3)[7:9] == ["0.800", "0.0500"]
    widths = {len(cells(table, row)) for row in range(4)}
    assert len(widths) == 1


def test_the_table_leaves_open_what_a_run_does_not_have(example):
    table = example.table(
        [result(example, "no-link", 0, (0.99, 0.99)), result(example, "no-bottleneck", 2, (0.9, 0.9), erased=0.5)]
    )
    assert cells(table, 2) == ["no bottleneck", "1", "90.00", "", "90.00", "", "50.0", *[""] * 6, "-", "14"]
    assert cells(table, 3) == ["no link", "1", "99.00", "", "99.00", "", *[""] * 8, "14"]


def test_what_was_measured_is_read_again_and_another_recipe_is_not(example, tmp_path):
    (case,) = example.cases(["free-0.2"], [0], {}, 1.0)
    (other,) = example.cases(["free-0.2"], [0], {"schedule.patience": "2"}, 1.0)
    found = result(example, "free-0.2", 0, (0.9, 0.9), kl=3.2)
    case.folder(tmp_path).mkdir(parents=True)
    (case.folder(tmp_path) / "result.json").write_text(found.model_dump_json())
    nowhere = tmp_path / "nowhere"
    assert example.run(case, tmp_path, nowhere) == found
    with pytest.raises(ArgumentError, match="nowhere is no folder"):
        example.run(other, tmp_path, nowhere)


@pytest.fixture
def squares(tmp_path):
    """24 images of a red or blue square to train on and 4 to test, each asked twice, as easy-VQA publishes them."""
    for part, count in (("train", 24), ("test", 4)):
        images = tmp_path / "data" / f"{part}_images"
        images.mkdir(parents=True)
        questions = []
        for number in range(count):
            colour = ("red", "blue")[number % 2]
            Image.new("RGB", (16, 16), colour).save(images / f"{number}.png")
            questions += [["what color is it?", colour, number], ["is it red?", ["yes", "no"][number % 2], number]]
        (tmp_path / "data" / f"{part}_questions.json").write_text(json.dumps(questions))
    return tmp_path / "data"


@pytest.mark.slow
def test_the_example_trains_measures_and_prints(squares, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["--only", "recipe,no-bottleneck,no-link", "--seeds", "5", "--epochs-share", "0.12"]
    arguments += ["--set", "task_options.image_size=16", "--set", "optimizer.batch_size=16"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(squares), "--out", str(out), *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr()
    shown = [cells(printed.out, row) for row in range(2, 5)]
    assert [row[:2] for row in shown] == [
        ["the recipe: KL by mean, 0.1 free, 3 epochs frozen, by epoch", "1"],
        ["no bottleneck", "1"],
        ["no link", "1"],
    ]
    assert [row[-1] for row in shown] == ["3", "3", "3"]
    assert all(0.0 <= float(row[place]) <= 100.0 for row in shown for place in (2, 4))
    kept = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [found["name"] for found in kept] == ["recipe", "no-bottleneck", "no-link"]
    assert kept[0]["latent"]["kl"] > 0.0
    assert kept[1]["latent"] is None
    runpy.run_path(str(EXAMPLE), run_name="__main__")  # all of it is there
    assert capsys.readouterr().out == printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "all"], r"^bottleneck_ablation: --only must be of .*, got 'all'$"),
        (["--only", "recipe,sum,recipe"], r"^bottleneck_ablation: --only must name each once, got recipe,sum,recipe$"),
        (["--threads", "0"], r"^bottleneck_ablation: --threads must be in \[1, 1024\], got 0$"),
        (["--seeds", "a"], r"^bottleneck_ablation: seeds must be .*, got 'a'$"),
        ([], r"^bottleneck_ablation: data .*nowhere is no folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(
        sys, "argv", [str(EXAMPLE), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), *arguments]
    )
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_ctrl_c_prints_what_is_done_and_says_that_the_rest_can_follow(example, tmp_path, monkeypatch, capsys):
    arguments = ["--out", str(tmp_path), "--only", "recipe,free-0.2", "--seeds", "0"]
    first, _ = example.cases(["recipe", "free-0.2"], [0], {}, 1.0)
    first.folder(tmp_path).mkdir(parents=True)
    done = result(example, "recipe", 0, (0.9, 0.95)).model_copy(update={"recipe": first.recipe})
    (first.folder(tmp_path) / "result.json").write_text(done.model_dump_json())

    def interrupted(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.run.train", interrupted)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "data"), *arguments])
    with pytest.raises(
        SystemExit, match=r"^bottleneck_ablation: interrupted after 1 runs; the same call goes on from there$"
    ):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert cells(capsys.readouterr().out, 2)[1:3] == ["1", "90.00"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
