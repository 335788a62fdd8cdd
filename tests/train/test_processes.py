"""Two processes train the model of one: the same weights, codebooks, records, and what a resumed run makes of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from link.errors import ArgumentError
from train.checkpoint import FILE_NAME
from train.processes import Processes, launched
from train.record import METRICS_NAME, read_metrics
from train.run import train

NAMES = ("signs", "routed")
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)

# The encoder's gradient is summed in two parts, and matrix products of fewer rows round differently. AdamW divides each
# gradient by its own size, so a relative error of 2^-23 in a step becomes one of the same order in the weights it moves:
# 35 steps of 1e-2 leave some 2e-6.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def recipes(make_signs_recipe, make_routed_recipe):
    """One mode, with restarts, shares of unequal size and a last batch of two rows; three modes and a router of samples."""
    one = make_signs_recipe(optimizer__batch_size=33, quantizer__restart_threshold=0.9)
    several = make_routed_recipe(
        router={"enabled": True, "inputs": "snr+sample", "explore_epochs": 1}, optimizer={"batch_size": 31}
    )
    return {recipe.name: recipe for recipe in (one, several)}


@pytest.fixture(scope="module")
def one(recipes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    for name, recipe in recipes.items():
        train(recipe, folder / name)
    return folder


@pytest.fixture(scope="module")
def two(recipes, tmp_path_factory):
    """What two processes left, and how they ended."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    script = Path(__file__).with_name("one_of_several.py")
    described = json.dumps([recipe.model_dump(mode="json") for recipe in recipes.values()])
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), described, str(folder)],
            env=os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    return folder, [(process.communicate()[1], process.returncode) for process in processes]


def tensors_of(folder, part):
    return load_file(folder / part / FILE_NAME)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["best", "last"])
def test_two_processes_train_the_model_of_one(one, two, name, part):
    """Weights, codebooks, running sizes and sums, priors, labels, and the optimiser's state."""
    expected, found = tensors_of(one / name, part), tensors_of(two[0] / name, part)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(
            found[key], tensor, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_record_what_one_does(one, two, name):
    expected, found = (flat(read_metrics(folder / name)) for folder in (one, two[0]))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (
            pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE) if isinstance(value, float) else value
        ), key


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_of_two_processes_goes_on_bit_for_bit(two, name, same_tensors):
    whole, resumed = two[0] / name, two[0] / f"{name}-resumed"
    for part in ("best", "last"):
        assert same_tensors(tensors_of(resumed, part), tensors_of(whole, part))
    assert (resumed / METRICS_NAME).read_text() == (whole / METRICS_NAME).read_text()


def test_the_first_process_gives_its_weights_and_buffers_to_the_others(two):
    for number in range(2):
        aligned = json.loads((two[0] / f"aligned-{number}.json").read_text())
        assert aligned.pop("num_batches_tracked") == 7
        assert set(map(tuple, aligned.values())) == {(7.0, 7.0)}


def test_one_process_that_fails_ends_the_other(two):
    (first, first_code), (second, second_code) = two[1]
    assert "RuntimeError: the first process fails" in first
    assert "process 2 of 2 ends, since another one has ended" in second
    assert first_code != 0
    assert second_code != 0


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_all_rows_in_their_order(count):
    for rows in (1, 2, 5, 6, 64):
        shares = [Processes(number=number, count=count).share(rows) for number in range(count)]
        assert len({len(share) for share in shares}) == 1
        assert np.concatenate(shares)[:rows].tolist() == list(range(rows))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_that_is_here_trains_alike(recipes, one, tmp_path, device, name):
    """On CUDA sums are taken in another order, and a decision that was close may differ."""
    train(recipes[name], tmp_path, processes=Processes(torch.device(device)))
    expected, found = (read_metrics(folder)[-1] for folder in (one / name, tmp_path))
    assert found.losses == pytest.approx(expected.losses, rel=0.01)
    assert found.hard_accuracy == pytest.approx(expected.hard_accuracy, abs=0.02)


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched("cpu") as processes:
        assert (processes.count, processes.is_first, processes.device.type) == (1, True, "cpu")


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="device must be auto or cpu"), launched("cuda"):
        pass


def flat(values, prefix=""):
    """Leaves of records by their path."""
    if isinstance(values, list):
        values = {
            str(index): value.model_dump() if hasattr(value, "model_dump") else value
            for index, value in enumerate(values)
        }
    elif isinstance(values, tuple):
        values = {str(index): value for index, value in enumerate(values)}
    leaves = {}
    for key, value in values.items():
        if isinstance(value, dict | list | tuple):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
