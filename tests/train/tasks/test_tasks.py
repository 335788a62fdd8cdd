"""A task is one file: what the tests' own one needs besides is a recipe."""

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, RecipeError
from link.randomness import Draws
from train.export import export
from train.run import train
from train.tasks import load_task, task_names


def test_a_file_in_the_folder_is_a_task(extra_tasks):
    assert {"digits", "signs"} <= set(task_names())
    assert load_task("signs").name == "signs"


@pytest.mark.parametrize("name", ["mnist", "", "../digits", "__init__", "digits.py"])
def test_an_unknown_task_is_answered_with_the_known_ones(name):
    known = (
        "asked, asked-at-both-ends, digits, kinds, motion, signs, signs-and-kinds, text-classification, text-questions, "
        "text-reconstruction, visual-questions"
    )
    with pytest.raises(RecipeError, match=f"task must be one of {known}, got "):
        load_task(name)


@pytest.mark.parametrize("name", ["digits", "signs", "kinds", "signs-and-kinds"])
def test_parts_of_every_task_hold_what_its_specification_says(name):
    task = load_task(name)
    data = task.load(None)
    for part in (data.train, data.validation, data.test):
        assert part.inputs.keys() == {spec.name for spec in task.inputs}
        for spec in task.inputs:
            value = part.inputs[spec.name]
            assert value.dtype == spec.dtype
            assert value.shape == (len(part), *spec.shape[1:])
            assert spec.low <= value.min()
            assert value.max() <= spec.high
        assert set(np.unique(part.labels)) <= set(range(len(task.classes)))


@pytest.mark.parametrize("name", ["digits", "signs"])
def test_augmentation_of_every_task_leaves_a_row_to_itself(name):
    task = load_task(name)
    inputs = {key: value[:40] for key, value in task.load(None).train.inputs.items()}
    whole = task.augment(inputs, Draws(1, np.arange(40), 4))
    chosen = np.array([31, 4, 4, 17])
    part = task.augment({key: value[chosen] for key, value in inputs.items()}, Draws(1, chosen, 4))
    assert whole.keys() == inputs.keys()
    assert all(np.array_equal(part[key], whole[key][chosen]) for key in part)


def test_a_task_of_two_inputs_trains_and_becomes_a_bundle(make_signs_recipe, tmp_path):
    recipe = make_signs_recipe(schedule__epochs=3, schedule__warmup_epochs=1, schedule__alignment_start_epoch=3)
    train(recipe, tmp_path / "run")
    manifest = export(tmp_path / "run", tmp_path / "bundle")
    assert [(spec.name, spec.dtype) for spec in manifest.transmitter.inputs] == [
        ("signal", "float32"),
        ("kind", "int64"),
    ]
    link = Link(load_bundle(tmp_path / "bundle"))
    test = load_task("signs").load(None).test
    found = link.transmit(test.inputs, Awgn(), 20.0, Draws(1, np.arange(len(test))))
    assert found.decoded.logits.shape == (10, 4)
    assert np.array_equal(found.decoded.indices_hat, found.sent.indices)
    with pytest.raises(ArgumentError, match=r"inputs\.kind is missing"):
        link.transmitter({"signal": test.inputs["signal"]})
    with pytest.raises(ArgumentError, match=r"inputs\.kind must be in \[0, 4\], got \[5, 5\]"):
        link.transmitter({"signal": test.inputs["signal"][:1], "kind": [5]})
