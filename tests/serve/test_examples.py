"""The examples that call a server run as they stand, against a small one."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLES_OF_A_SERVER = ("serve_client.py", "serve_async.py", "serve_own_modem.py")


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, cwd=EXAMPLES.parent, env=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_serve_client(server):
    out = run("serve_client.py", server.address, "--samples", 100)
    assert "tiny version 1: shapes" in out
    assert "100 samples, BER" in out
    assert len(re.findall(r"^ +\d+ dB: as without noise [01]\.\d+, BER", out, re.MULTILINE)) == 3


def test_serve_async(server):
    assert "50 batches, ms from sensor to decision" in run("serve_async.py", server.address, "--batches", 50)


def test_serve_own_modem(server):
    rows = [line.split(" | ") for line in run("serve_own_modem.py", server.address, "--samples", 60).splitlines()[2:]]
    assert len(rows) == 8
    # Uncoded BPSK at 6 dB: Q(sqrt(2 * 3.98)) = 2.4e-3; 900 bits give at most 9 errors but for one time in 10,000.
    assert float(rows[3][2]) <= 0.01


@pytest.mark.parametrize("name", EXAMPLES_OF_A_SERVER)
def test_an_example_calls_the_model_that_it_is_told(server, name):
    assert run(name, server.address, "--model", "tiny")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, server.address, "--model", "other"],
        capture_output=True, text=True, timeout=60, cwd=EXAMPLES.parent,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "model must be one of tiny, got 'other'\n")


@pytest.mark.parametrize("name", EXAMPLES_OF_A_SERVER)
def test_an_example_calls_a_model_of_several_modes(serving, steered_bundle, name):
    with serving(steered_bundle) as server:
        assert run(name, server.address)


@pytest.mark.parametrize("name", EXAMPLES_OF_A_SERVER)
def test_an_example_without_a_server_says_so_in_one_line(name):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=EXAMPLES.parent,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"no server can be reached at 127\.0\.0\.1:1: .*\n", done.stderr)


@pytest.mark.parametrize("order", [2, 4])
def test_the_own_modem_s_llrs_are_the_logarithm_of_the_likelihoods_ratio(order):
    example = runpy.run_path(str(EXAMPLES / "serve_own_modem.py"))
    random = np.random.default_rng(1)
    y = random.normal(size=(1, 4)) + 1j * random.normal(size=(1, 4))
    no, per_symbol = 0.4, order.bit_length() - 1
    words = np.array([[n >> (per_symbol - 1 - k) & 1 for k in range(per_symbol)] for n in range(order)], np.uint8)
    points = example["modulate"](words, order)[:, 0]
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1.0)
    likelihood = np.exp(-(np.abs(y[0][:, None] - points) ** 2) / no)
    expected = [
        np.log(seen[words[:, bit] == 1].sum() / seen[words[:, bit] == 0].sum())
        for seen in likelihood
        for bit in range(per_symbol)
    ]
    found = example["demodulate"](y, no, order, 4 * per_symbol)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
