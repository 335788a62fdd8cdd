"""Accuracy by path and temperature: the hard path has no temperature, the soft one becomes hard as it falls."""

import numpy as np
import pytest
import torch

from link.errors import ArgumentError
from link.montecarlo import clustered_proportion
from link.randomness import Draws, Stream
from train.evaluate import evaluate, tensors
from train.measure import mean_accuracy, measure, parse_temperatures
from train.recipe import ChannelRecipe
from train.tasks import Split, load_task

GRID = (0.0, 9.0)


@pytest.fixture(scope="module")
def task(extra_tasks):
    return load_task("signs")


@pytest.fixture(scope="module")
def split(task):
    return task.load(None).validation


def run(model, task, split, **settings):
    return measure(model, task, split, **({"snr_db": GRID, "draws": 2, "seed": 3} | settings))


def decisions(model, tokens, temperature):
    """What the receiver decides and hears where the soft path is at that temperature, both paths in one noise."""
    no = torch.full((len(tokens), 3), 1.0)
    normals = torch.from_numpy(Draws(3, np.arange(len(tokens))).normals(Stream.NOISE, 0, 3)).float()
    soft = model.send_soft(tokens, temperature)
    hard = model.send_hard(tokens)
    heard = [model.receive(sent.symbols + normals * 0.5**0.5, no) for sent in (hard, soft)]
    return hard, *heard


def test_the_hard_path_does_not_move_with_the_temperature_by_a_bit(signs_model, task, split):
    """Symbols, LLRs, codewords and logits, at temperatures that move the soft path's."""
    with torch.no_grad():
        tokens = signs_model.encode(*tensors(task, split))
        expected, heard, soft = decisions(signs_model, tokens, 1.0)
        for temperature in (0.7, 0.5, 0.1):
            sent, again, moved = decisions(signs_model, tokens, temperature)
            for name in ("indices", "bits", "symbols"):
                assert torch.equal(getattr(sent, name), getattr(expected, name)), name
            for name in ("llr", "indices_hat", "logits"):
                assert torch.equal(getattr(again, name), getattr(heard, name)), name
            assert not torch.equal(moved.logits, soft.logits)


def test_the_hard_points_are_the_same_whatever_temperatures_are_asked_for(signs_model, task, split):
    alone = run(signs_model, task, split, paths=("hard",))
    for temperatures in ((1.0,), (0.1,), (5.0, 0.7, 0.5)):
        found = run(signs_model, task, split, temperatures=temperatures)
        assert [point for point in found if point.path == "hard"] == alone
        assert {point.temperature for point in found if point.path == "soft"} == set(temperatures)
    assert [point.temperature for point in alone] == [None, None]


def test_points_agree_with_the_evaluation_of_training(signs_model, task, split):
    expected = evaluate(
        signs_model, task, split, ChannelRecipe(eval_snr_db=GRID, eval_draws=2), temperature=0.7, seed=3
    )
    found = run(signs_model, task, split, temperatures=(0.7,))
    assert {p.snr_db: p.accuracy.value for p in found if p.path == "hard"} == pytest.approx(expected.hard)
    assert {p.snr_db: p.accuracy.value for p in found if p.path == "soft"} == pytest.approx(expected.soft)
    soft = found[-1]
    assert soft.h_assign == pytest.approx(expected.collapse.h_assign, rel=1e-5)
    assert found[0].es_db == pytest.approx(expected.collapse.es_db, abs=1e-5)
    assert found[0].h_assign == 0.0
    assert mean_accuracy(found, "hard") == pytest.approx(expected.mean_hard)
    assert mean_accuracy(found, "soft", 0.7) == pytest.approx(expected.mean_soft)


def test_as_the_temperature_falls_soft_becomes_hard(signs_model, task, split):
    found = run(signs_model, task, split, temperatures=(2.0, 0.7, 1e-6))
    hard, warm, middle, cold = (found[2 * i : 2 * i + 2] for i in range(4))
    assert [point.correct for point in cold] == [point.correct for point in hard]
    assert warm[0].h_assign > middle[0].h_assign > cold[0].h_assign
    assert warm[0].es_db < middle[0].es_db < cold[0].es_db == pytest.approx(hard[0].es_db, abs=1e-3)


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_the_chunks_change_no_count(signs_model, task, split, chunk_rows):
    whole, parts = run(signs_model, task, split), run(signs_model, task, split, chunk_rows=chunk_rows)
    assert [(p.path, p.temperature, p.snr_db, p.correct) for p in parts] == [
        (p.path, p.temperature, p.snr_db, p.correct) for p in whole
    ]
    assert [p.accuracy for p in parts] == [p.accuracy for p in whole]


def test_counts_recomputed_row_by_row_and_intervals_over_samples(signs_model, task, split):
    found = run(signs_model, task, split, snr_db=(3.0,), draws=3, paths=("hard",))
    correct = np.zeros(len(split), dtype=int)
    no = torch.full((1, 3), 10.0**-0.3)
    with torch.no_grad():
        for row in range(len(split)):
            one = Split({key: value[row : row + 1] for key, value in split.inputs.items()}, split.labels[row : row + 1])
            sent = signs_model.send_hard(signs_model.encode(*tensors(task, one)))
            for draw in range(3):
                normals = Draws(3, np.array([row]), draw).normals(Stream.NOISE, 3000, 3)
                y = sent.symbols + torch.from_numpy(normals).float() * (no[..., None] / 2.0).sqrt()
                correct[row] += int(signs_model.receive(y, no).logits.argmax()) == split.labels[row]
    (point,) = found
    assert (point.correct, point.decisions) == (correct.sum(), 3 * len(split))
    assert point.accuracy == clustered_proportion(correct, np.full(len(split), 3))


def test_measuring_changes_no_buffer(signs_model, task, split, same_tensors):
    before = {name: tensor.clone() for name, tensor in signs_model.state_dict().items()}
    run(signs_model, task, split)
    assert same_tensors(dict(signs_model.state_dict()), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperatures": (0.0,)}, "temperature must be in"),
        ({"temperatures": (float("nan"),)}, "temperature must be in"),
        ({"temperatures": (0.5, 0.5)}, "temperature must name each temperature once"),
        ({"temperatures": ()}, "temperature must name each temperature once"),
        ({"snr_db": (99.0,)}, r"snr_db must be in \[-30, 60\], got 99"),
        ({"snr_db": (6.0, 6.0)}, "snr_db must hold each point once"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"chunk_rows": 0}, "size must be at least 1 row"),
    ],
)
def test_arguments_out_of_range_are_named(signs_model, task, split, settings, message):
    with pytest.raises(ArgumentError, match=message):
        run(signs_model, task, split, **settings)


def test_temperatures_that_are_no_numbers_are_refused():
    with pytest.raises(ArgumentError, match=r"temperature must be numbers with commas between .* got 'warm'"):
        parse_temperatures("warm")
