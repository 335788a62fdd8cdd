"""A small run and its bundle, made by the command itself."""

import contextlib
import io
import json
from typing import NamedTuple

import numpy as np
import pytest

from hardpath.command import main

SMALL = ("--set", "schedule.epochs=8", "--set", "schedule.warmup_epochs=3", "--set", "schedule.alignment_start_epoch=6")


class Answer(NamedTuple):
    """What one command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    def refused(self, code):
        """The one line with which the command ended, without its name."""
        assert self.code == code, self
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("hardpath: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("hardpath: ")


def run(*arguments):
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return Answer(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def hardpath():
    """The command, as a function of its arguments."""
    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run of 8 epochs."""
    folder = tmp_path_factory.mktemp("command") / "run"
    assert run("train", "digits", *SMALL, "--out", folder, "--brief").code == 0
    return folder


@pytest.fixture(scope="session")
def bundle(run_folder):
    """Its bundle."""
    assert run("export", run_folder).code == 0
    return run_folder / "bundle"


@pytest.fixture(scope="session")
def motion_settings():
    """Settings of the task `motion` that train in seconds."""
    epochs = ("epochs=3", "warmup_epochs=1", "alignment_start_epoch=3", "stage_epochs=1")
    return (*epochs, "batch_size=32", "link.tokens=2", "eval_draws=1", "behaviours=4", "longest=4")


@pytest.fixture(scope="session")
def walker():
    """Function that makes the arrays of a recording: somebody who walks and jogs in turn, 4 s each."""

    def record(random, seconds=24, subject="s0"):
        hertz = np.repeat(np.resize([2.0, 6.0], seconds // 4), 200)
        time = np.arange(len(hertz)) / 50
        data = [
            np.sin(2 * np.pi * hertz * time + random.uniform(0, 6)) + random.normal(size=len(time)) for _ in "xyzabc"
        ]
        label = np.where(hertz == 2.0, "walk", "jog")
        return {"data": np.stack(data, axis=1), "label": label, "subject": subject, "rate_hz": 50}

    return record


@pytest.fixture(scope="session")
def people(tmp_path_factory, walker):
    """A folder of five people, a recording each."""
    folder, random = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for number in range(5):
        np.savez(folder / f"s{number}.npz", **walker(random, subject=f"s{number}"))
    return folder
