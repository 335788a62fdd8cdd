import os
import re
import signal
import socket
import subprocess
import sys

import pytest

NAMES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PROGRAM = """
import os, sys
from hardpath.command import main
assert "numpy" not in sys.modules, "numpy looks at the variables when it is imported, which was too soon"
try:
    main(["serve", "--show-config"])
except SystemExit:
    print(*(os.environ[name] for name in sys.argv[1:]), file=sys.stderr)
"""


@pytest.mark.parametrize(("given", "used"), [({}, ["1", "1"]), ({"OPENBLAS_NUM_THREADS": "3"}, ["3", "1"])])
def test_a_server_has_a_blas_without_threads_unless_somebody_wants_them(given, used):
    environ = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    command = [sys.executable, "-c", PROGRAM, *NAMES]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr.split() == used


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_descriptor_that_was_closed_is_not_left_for_what_is_opened_next(number):
    program = (
        f"import os; os.close({number})\nfrom hardpath.command import main\n"
        f"try: main(['--help'])\nexcept SystemExit: os.fstat({number})"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--set", "listen.port=x"), "--set listen.port: listen.port must be an integer in [0, 65535], got 'x'"),
        (("--log-level", "loud"), "--log-level: log.level must be one of debug, info, warning, error, got 'loud'"),
        (("--set", "tls.key=a", "--host", "::1"), "--set tls.key: tls.certificate must be given beside key, got none"),
        (("--port", 1, "--set", "listen.port=2"), "--set listen.port must be absent beside --port"),
        (("bundle", "--set", "bundles=other"), "--set bundles must be absent beside BUNDLE"),
    ],
)
def test_a_mistake_in_a_setting_is_told_with_what_made_it(hardpath, options, line):
    assert hardpath("serve", *options, "--show-config").refused(2) == line


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("port",), "must be KEY=VALUE, got 'port'"),
        (("=1",), "must be KEY=VALUE, got '=1'"),
        (("run.threads=1", "run.threads=2"), "gives run.threads twice, as '1' and '2'"),
    ],
)
def test_settings_that_say_nothing_or_two_things_are_refused(hardpath, settings, line):
    options = [part for setting in settings for part in ("--set", setting)]
    assert line in hardpath("serve", *options, "--show-config").refused(2)


def test_what_was_set_is_shown_with_its_source(hardpath):
    shown = hardpath("serve", "--set", "listen.port=2", "--log-level", "debug", "--show-config").out
    assert "port = 2  # --set listen.port" in shown
    assert 'level = "debug"  # --log-level' in shown


def test_the_usage_names_bundles_once(hardpath):
    assert "hardpath serve [OPTIONS] [BUNDLE]...\n" in re.sub(" +\n", "\n", hardpath("serve", "--help").out)


def test_the_port_of_grpc_is_refused_for_metrics(hardpath, bundle):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = hardpath("serve", bundle, "--port", port, "--metrics-port", port).refused(5)
    assert line.endswith("that is the port of gRPC; choose another metrics port")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_server_at_once_and_says_what_is_cut(bundle, second, loop):
    program = (
        f"import sys\nif {loop == 'asyncio'}: sys.modules['uvloop'] = None\nfrom hardpath.command import main\n"
        "main(['serve', sys.argv[1], '--port', '0', '--set', 'lifecycle.drain_delay_s=300'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            server.stdout.readline()
            server.send_signal(signal.SIGTERM)
            assert any("draining" in line for line in server.stderr)
            server.send_signal(second)
            _, err = server.communicate(timeout=30)
        finally:
            server.kill()
    assert server.returncode == 128 + second
    assert err.endswith(f" WARNING serve.server: received {second.name} during the drain: calls in flight are cut\n")
    assert err.count("\n") == 1


def test_ctrl_c_before_a_server_is_ready_says_so(hardpath, monkeypatch):
    monkeypatch.setattr("serve.config.layers.config_with_sources", interrupt)
    assert hardpath("serve", "bundle").refused(130) == "interrupted before the server was ready"


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_at_debug_a_server_says_what_is_its_own_alone(hardpath, bundle):
    command = [sys.executable, "-m", "hardpath", "serve", str(bundle), "--port", "0", "--log-level", "debug"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().rsplit(" on ", 1)[1].strip()
            assert hardpath("call", address, "--rows", "0:1").code == 0
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=30)
        finally:
            server.kill()
    lines = [line.split()[1:3] for line in err.splitlines()]
    assert ["DEBUG", "serve.access:"] in lines
    assert {name.partition(".")[0] for _, name in lines} == {"serve"}
