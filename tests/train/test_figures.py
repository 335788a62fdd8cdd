"""What the shipped recipe must reach, trained in full."""

import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.sweep import SweepSpec, sweep
from train import checkpoint as checkpoints
from train.evaluate import evaluate
from train.export import export
from train.recipe_file import load_recipe
from train.run import train
from train.tasks import load_task

LEAST = {0.0: 0.91, 6.0: 0.975, 12.0: 0.98}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_digits_recipe_reaches_its_figures_on_the_test_set(tmp_path):
    recipe = load_recipe("digits")
    train(recipe, tmp_path)
    export(tmp_path, tmp_path / "bundle")
    task = load_task("digits")
    test = task.load(None).test
    grid = (0.0, 6.0, 12.0, 18.0)
    spec = SweepSpec(snr_db=grid, seed=7, draws=20)
    hard = {
        point.snr_db: point for point in sweep(Link(load_bundle(tmp_path / "bundle")), **_rows(test), spec=spec).points
    }
    for snr_db, least in LEAST.items():
        assert hard[snr_db].accuracy.value >= least
    described, model = checkpoints.load(tmp_path)
    channel = recipe.channel.model_copy(update={"eval_snr_db": grid, "eval_draws": spec.draws})
    soft = evaluate(model, task, test, channel, temperature=described.vq_temp, seed=spec.seed)
    for snr_db in grid:
        assert abs(soft.soft[snr_db] - hard[snr_db].accuracy.value) <= 0.005
    assert 0.1 <= soft.collapse.h_assign <= 0.7
    assert soft.collapse.codes_used >= 0.95
    assert soft.collapse.perplexity >= recipe.link.codewords / 2
    assert abs(hard[12.0].es_db) <= 0.2


def _rows(split):
    return {"inputs": split.inputs, "labels": split.labels}
