import numpy as np
import pytest
import torch

from train import baseline
from train.baseline import FILE_NAME, without_link
from train.loop import Trainer
from train.tasks import load_task


def test_the_classifier_without_a_link_learns_and_its_accuracy_is_that_of_its_decisions(signs_recipe, tmp_path):
    epochs = []
    found = without_link(signs_recipe, tmp_path, on_epoch=epochs.append)
    labels = load_task("signs").load(None).test.labels
    assert epochs == [1, 2, 3, 4, 5]
    assert found.accuracy == float(np.mean(found.decisions == labels)) > 0.5


def test_it_is_read_where_the_same_recipe_left_it(signs_recipe, tmp_path, monkeypatch):
    first = without_link(signs_recipe, tmp_path)
    monkeypatch.setattr(baseline, "Trainer", None)
    again = without_link(signs_recipe, tmp_path)
    assert np.array_equal(again.decisions, first.decisions)
    assert again.accuracy == first.accuracy


@pytest.mark.parametrize("damage", ["another recipe", "cut short"])
def test_it_is_trained_again_where_that_file_is_another(make_signs_recipe, tmp_path, damage):
    expected = without_link(make_signs_recipe(), tmp_path)
    file = tmp_path / FILE_NAME
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:-5])
    else:
        without_link(make_signs_recipe(seed=4), tmp_path)
    epochs = []
    again = without_link(make_signs_recipe(), tmp_path, on_epoch=epochs.append)
    assert epochs == [1, 2, 3, 4, 5]
    assert np.array_equal(again.decisions, expected.decisions)


def test_it_has_no_link_in_it(signs_recipe):
    """Neither codebook nor noise: its quantizer is as it was built, and its logits are the head of the encoder."""
    task = load_task("signs")
    trainer = Trainer(signs_recipe, task, task.load(None))
    model = trainer.run_without_link()
    assert not model.training
    assert torch.equal(model.quantizer.codebook, torch.zeros(4, 4))
