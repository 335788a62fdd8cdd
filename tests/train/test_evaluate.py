from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.nn import functional

from link.errors import ArgumentError
from link.randomness import Draws, Stream
from train.evaluate import chunks, evaluate, tensors
from train.recipe import ChannelRecipe
from train.tasks import Split, load_task


@pytest.fixture(scope="module")
def task(extra_tasks):
    return load_task("signs")


@pytest.fixture(scope="module")
def split(task):
    return task.load(None).validation


CHANNEL = ChannelRecipe(eval_snr_db=(0.0, 9.0), eval_draws=2)


def run(model, task, split, channel=CHANNEL, temperature=0.7, seed=3, **settings):
    return evaluate(model, task, split, channel, temperature=temperature, seed=seed, **settings)


def test_evaluating_changes_no_buffer_and_no_weight(signs_model, task, split, same_tensors):
    signs_model.train()
    before = {name: tensor.clone() for name, tensor in signs_model.state_dict().items()}
    run(signs_model, task, split)
    assert same_tensors(dict(signs_model.state_dict()), before)
    assert all(parameter.grad is None for parameter in signs_model.parameters())


def test_evaluating_twice_gives_the_same_figures(signs_model, task, split):
    assert run(signs_model, task, split) == run(signs_model, task, split)


def test_a_point_does_not_depend_on_the_grid(signs_model, task, split):
    alone = run(signs_model, task, split, ChannelRecipe(eval_snr_db=(9.0,), eval_draws=2))
    both = run(signs_model, task, split)
    assert alone.hard[9.0] == both.hard[9.0]
    assert alone.soft[9.0] == both.soft[9.0]


def test_the_hard_path_does_not_depend_on_the_temperature(signs_model, task, split):
    cold, warm = run(signs_model, task, split, temperature=0.1), run(signs_model, task, split, temperature=5.0)
    assert cold.hard == warm.hard
    assert cold.soft != warm.soft
    assert cold.collapse.h_assign < warm.collapse.h_assign


def test_the_hard_path_does_not_depend_on_the_temperature_of_the_symbols(signs_model, task, split):
    plain = run(signs_model, task, split)
    settings = {"temperature": 0.7, "seed": 3}
    for symbol_temperature in (1.0, 0.3):
        found = evaluate(signs_model, task, split, CHANNEL, symbol_temperature=symbol_temperature, **settings)
        assert found.hard == plain.hard
        assert (found.collapse.consistency == plain.collapse.consistency) == (symbol_temperature == 1.0)


def test_the_hard_loss_is_the_mean_cross_entropy_of_the_hard_answers_over_grid_and_draws(signs_model, task, split):
    found = run(signs_model, task, split)
    total = 0.0
    with torch.no_grad():
        symbols = signs_model.send_hard(signs_model.encode(*tensors(task, split))).symbols
        for snr_db in (0.0, 9.0):
            for draw in range(2):
                normals = Draws(3, np.arange(len(split)), draw).normals(Stream.NOISE, round(1000 * snr_db), 3)
                no = 10.0 ** (-snr_db / 10.0)
                received = symbols + torch.from_numpy(normals.astype(np.float32)) * (no / 2.0) ** 0.5
                logits = signs_model.receive(received, torch.full(received.shape[:2], no)).logits.double().numpy()
                logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
                total -= logits[np.arange(len(split)), split.labels].mean()
    assert found.hard_loss == pytest.approx(total / 4.0, rel=1e-5)


def test_at_a_low_temperature_soft_is_hard(signs_model, task, split):
    found = run(signs_model, task, split, temperature=1e-6)
    assert found.soft == found.hard
    assert found.collapse.h_assign < 1e-3
    assert found.collapse.consistency < 1e-6


def test_accuracy_recomputed_row_by_row(signs_model, task, split):
    """One sample at a time, its noise drawn by its own address."""
    found = run(signs_model, task, split, ChannelRecipe(eval_snr_db=(3.0,), eval_draws=2))
    correct = 0
    no = torch.full((1, 3), 10.0**-0.3)
    with torch.no_grad():
        for row in range(len(split)):
            one = Split({key: value[row : row + 1] for key, value in split.inputs.items()}, split.labels[row : row + 1])
            sent = signs_model.send_hard(signs_model.encode(*tensors(task, one)))
            for draw in (0, 1):
                normals = Draws(3, np.array([row]), draw).normals(Stream.NOISE, 3000, 3)
                y = sent.symbols + torch.from_numpy(normals).float() * (no[..., None] / 2.0).sqrt()
                correct += int(signs_model.receive(y, no).logits.argmax()) == split.labels[row]
    assert found.hard == {3.0: pytest.approx(correct / (2 * len(split)), abs=1e-12)}


@pytest.mark.parametrize("chunk_rows", [1, 7, 256, 1000])
def test_the_chunks_change_no_decision(signs_model, task, split, chunk_rows):
    """Counts are equal; means of floats are added up in another order."""
    whole, parts = (
        run(signs_model, task, split, chunk_rows=len(split)),
        run(signs_model, task, split, chunk_rows=chunk_rows),
    )
    assert parts.hard == whole.hard
    assert parts.soft == whole.soft
    assert (parts.hard_loss, parts.soft_loss) == pytest.approx((whole.hard_loss, whole.soft_loss), rel=1e-5)
    found, wanted = (
        {key: value for key, value in asdict(run.collapse).items() if value is not None} for run in (parts, whole)
    )
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert parts.tokens.mean == pytest.approx(whole.tokens.mean, abs=1e-6)


def test_chunks_are_the_split_in_order_and_none_is_larger_than_asked(split):
    parts = list(chunks(split, 100))
    assert [rows.indices(len(split))[:2] for rows, _ in parts] == [(0, 100), (100, 200), (200, 270)]
    for name, value in split.inputs.items():
        assert np.array_equal(np.concatenate([part.inputs[name] for _, part in parts]), value)
    with pytest.raises(ArgumentError, match="size must be at least 1 row, got 0"):
        next(chunks(split, 0))


def test_the_task_loss_of_each_path_recomputed(signs_model, task, split):
    """Without noise worth the name, in one draw: the cross entropy of what the receiver makes of the symbols themselves."""
    found = run(signs_model, task, split, ChannelRecipe(eval_snr_db=(60.0,), eval_draws=1))
    no = torch.full((len(split), 3), 1e-6)
    labels = torch.from_numpy(split.labels)
    with torch.no_grad():
        tokens = signs_model.encode(*tensors(task, split))
        for sent, loss in (
            (signs_model.send_hard(tokens), found.hard_loss),
            (signs_model.send_soft(tokens, 0.7), found.soft_loss),
        ):
            expected = functional.cross_entropy(signs_model.receive(sent.symbols, no).logits, labels)
            assert loss == pytest.approx(float(expected), rel=0.02)
    assert found.hard_loss != found.soft_loss


def test_means_are_over_the_grid(signs_model, task, split):
    found = run(signs_model, task, split)
    assert found.mean_hard == pytest.approx((found.hard[0.0] + found.hard[9.0]) / 2)
    assert found.mean_soft == pytest.approx((found.soft[0.0] + found.soft[9.0]) / 2)


def test_both_paths_meet_the_same_noise_by_its_address(signs_model, task, split, monkeypatch):
    met = []
    monkeypatch.setattr("train.evaluate.add_noise", lambda x, no, normals: met.append(normals) or x)
    run(signs_model, task, split, chunk_rows=len(split))
    assert len(met) == 8
    assert all(torch.equal(soft, hard) for soft, hard in zip(met[::2], met[1::2], strict=True))
    # Two draws at 0 dB, two at 9 dB: each row's by its own address.
    for index, (point, draw) in enumerate([(0, 0), (0, 1), (9000, 0), (9000, 1)]):
        expected = Draws(3, np.arange(len(split)), draw).normals(Stream.NOISE, point, 3)
        assert np.array_equal(met[2 * index].numpy(), expected.astype(np.float32))


def test_inputs_come_in_the_order_of_the_tasks_specification(task, split):
    signal, kind = tensors(task, Split(dict(reversed(split.inputs.items())), split.labels))
    assert (signal.dtype, kind.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(signal.numpy(), split.inputs["signal"])
