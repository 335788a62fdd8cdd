"""What signals do to a server that is a process of its own."""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from serve.client import Client

WAIT_S = 20
HANGS = """
import sys, threading
from serve import async_server
from serve.engine import repository
async_server.END_S = 0.2
def hanging(call, times):
    calls = []
    def hang(folder):
        calls.append(folder)
        if len(calls) > times:
            print("hangs", flush=True)
            threading.Event().wait()
        return call(folder)
    return hang
if sys.argv[1] == "look":
    repository._Source.look = hanging(repository._Source.look, 1)
else:
    repository._manifest = hanging(repository._manifest, int(sys.argv[1]))
"""
COMMAND = """
from hardpath.command import main
sys.argv[0:2] = ["hardpath", "serve"]
main()
"""


@contextmanager
def running(program, *arguments):
    """A process and its first line; it is killed at the end, should it be there still."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def copy_of(bundle, folder, **changes):
    shutil.copytree(bundle, folder)
    return describe(folder, **changes)


def describe(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def test_sighup_loads_each_bundle_anew_and_one_that_is_not_good_goes_on_as_it_was(bundle_path, tmp_path, images, until):
    good = copy_of(bundle_path, tmp_path / "good", name="good")
    bad = copy_of(bundle_path, tmp_path / "bad", name="bad")
    with running(f"import sys{COMMAND}", "-", bad, good, "--port", 0) as (process, line):
        address = line.rpartition(" ")[2]
        with Client(address, model="good") as client, Client(address, model="bad") as other:
            for version in (2, 3):  # once more, since a handler may be gone after the first
                (bad / "receiver.onnx").write_bytes(b"")
                describe(bad, version=version)
                describe(good, version=version)
                process.send_signal(signal.SIGHUP)
                until(lambda version=version: client.model().manifest.version == version)
                assert other.model().manifest.version == 1
                assert len(other.encode(images).bits) == len(images)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    refusals = [line for line in errors.splitlines() if "goes on as it was" in line]
    assert len(refusals) == 2
    assert all(f"bad goes on as it was: {bad}: receiver.onnx is not the file" in line for line in refusals)


@pytest.mark.parametrize("where", ["look", "1"])
def test_a_load_that_hangs_holds_up_nobody_and_not_the_end_of_the_process(bundle_path, where):
    with running(HANGS + COMMAND, where, bundle_path, "--port", 0, "--grace-s", 0.1) as (process, line):
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "hangs\n"
        with Client(line.rpartition(" ")[2]) as client:
            assert client.model().manifest.name == "tiny"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    *_, last = errors.splitlines()
    assert "a load, a sweep or a run has not ended within 0.2 s: the server ends without it" in last


def test_a_first_load_that_hangs_is_ended_by_sigterm(bundle_path):
    with running(HANGS + COMMAND, "0", bundle_path, "--port", 0) as (process, line):
        assert line == "hangs"
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == -signal.SIGTERM


def test_sighup_while_it_drains_does_not_end_it(bundle_path):
    arguments = ("-", bundle_path, "--port", 0, "--set", "lifecycle.drain_delay_s=0.5")
    with running(f"import sys{COMMAND}", *arguments) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert any("draining" in line for line in process.stderr)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
