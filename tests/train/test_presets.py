"""Each preset trains digits end to end: over the link, to the schedule's last epoch, into a bundle's checkpoint."""

import math

import numpy as np
import pytest

from train import run
from train.checkpoint import load, read
from train.recipe_file import load_recipe
from train.record import read_metrics
from train.run import train
from train.tasks import Data, Split, load_task

SCHEDULES = ("basic", "conservative", "aggressive", "anneal", "floor-0.5", "floor-0.7", "freeze-15")


@pytest.fixture
def few_rows(monkeypatch):
    """Digits of 96 rows to train and 64 to validate: an epoch takes hundredths of a second."""
    data = load_task("digits").load(None)

    def first(split, count):
        return Split({name: value[:count] for name, value in split.inputs.items()}, split.labels[:count])

    class Few:
        def __getattr__(self, name):
            return getattr(load_task("digits"), name)

        def load(self, folder):
            return Data(first(data.train, 96), first(data.validation, 64), data.test)

    monkeypatch.setattr(run, "load_task", lambda *recipe: Few())


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_preset_trains_digits(few_rows, tmp_path, name):
    settings = {"channel.eval_snr_db": "[6.0, 18.0]", "channel.eval_draws": "1", "optimizer.batch_size": "16"}
    recipe = load_recipe("digits", settings, [name])
    summary = train(recipe, tmp_path)
    records = read_metrics(tmp_path)
    assert [record.epoch for record in records] == list(range(1, recipe.schedule.epochs + 1))
    aligned = [record for record in records if record.hard_forward]
    start = recipe.schedule.alignment_start_epoch
    assert len(aligned) == (0 if start is None else recipe.schedule.epochs - start + 1)
    assert all(math.isfinite(value) for record in records for value in record.losses.values())
    # The task is learned over the link: by chance, a tenth of 96 rows would be right, five deviations of which are 0.15.
    assert records[-1].train_accuracy > 0.25
    assert read(tmp_path / "last") == summary.last
    _, model = load(tmp_path)
    assert np.isfinite(model.quantizer.codebook.numpy()).all()
