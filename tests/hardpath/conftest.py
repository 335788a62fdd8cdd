"""A small run and its bundle, made by the command itself."""

import contextlib
import io
import json
from typing import NamedTuple

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
