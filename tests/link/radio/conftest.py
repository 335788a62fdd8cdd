"""Radio software of others, which Debian has and PyPI has not: `make radio-software` installs it.

Where it is missing its tests are skipped, and told; where HARDPATH_RADIO_SOFTWARE is `required`, as it is wherever the
packages can be installed, they fail.
"""

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.radio.flowgraph import SYSTEM_PYTHON, Flowgraph

REQUIRED = "HARDPATH_RADIO_SOFTWARE"


def imports(statement):
    """Whether the system's Python, which has NumPy 1, can do this."""
    if shutil.which(SYSTEM_PYTHON) is None:
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", statement], capture_output=True, timeout=120).returncode == 0


def require_or_tell(there, what):
    """True where it is there, False where its absence is to be told; a failure where it was promised."""
    if not there and os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{REQUIRED} is required, but {what} cannot be used: run make radio-software", pytrace=False)
    return there


@pytest.fixture(scope="session")
def gnuradio():
    """The Python that GNU Radio runs under."""
    if not require_or_tell(imports("from gnuradio import gr, blocks, channels, zeromq"), "GNU Radio"):
        pytest.skip("GNU Radio is not installed")
    return SYSTEM_PYTHON


@pytest.fixture
def flowgraph(gnuradio):
    """Function from stages, and options of `Flowgraph`, to one that runs; all of them end with the test."""
    with ExitStack() as running:
        yield lambda *stages, **options: running.enter_context(Flowgraph(stages, **options))


@pytest.fixture(scope="session")
def gr_iio():
    """The Python that GNU Radio with its IIO blocks runs under."""
    if not require_or_tell(imports("from gnuradio import gr, iio"), "GNU Radio's gr-iio"):
        pytest.skip("GNU Radio is not installed")
    return SYSTEM_PYTHON


@pytest.fixture(scope="session")
def soapy_on_pulse():
    """SoapySDR with its audio module, and PulseAudio to listen to."""
    there = all(map(shutil.which, ("SoapySDRUtil", "pulseaudio", "pactl"))) and imports("import SoapySDR")
    if not require_or_tell(there, "SoapySDR with PulseAudio"):
        pytest.skip("SoapySDR with PulseAudio is not installed")


@pytest.fixture(scope="session")
def libiio():
    """The system's libiio."""
    if not require_or_tell(shutil.which("iio_info") is not None, "libiio"):
        pytest.skip("libiio is not installed")


@contextmanager
def sound_server(folder):
    """A PulseAudio of our own, whose one sink reaches nobody but those who listen to its monitor; its process and address.

    Of 48 kHz and two channels of float32, which it passes on as they are, and without sound hardware, D-Bus or a file
    outside `folder`.
    """
    socket = folder / "socket"
    command = [
        "pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes",
        f"--log-target=file:{folder / 'log'}",
        "-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        "-L", "module-null-sink sink_name=air format=float32le channels=2 rate=48000 norewinds=1",
    ]  # fmt: skip
    (folder / "run").mkdir(mode=0o700)
    here = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"), "PULSE_RUNTIME_PATH": str(folder / "run")}
    server = subprocess.Popen(command, env=os.environ | here, stderr=subprocess.DEVNULL)
    address = f"unix:{socket}"
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(
            ["pactl", "--server", address, "info"], capture_output=True, env=os.environ | here
        ).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PulseAudio did not start: {(folder / 'log').read_text()}", pytrace=False)
            time.sleep(0.02)
        yield server, address
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="session")
def sound(soapy_on_pulse, tmp_path_factory):
    """Address of a sound server for all tests; `listening` makes it the one that this process uses."""
    folder = tmp_path_factory.mktemp("sound")
    with sound_server(folder) as (_, address):
        yield address


@pytest.fixture
def listening(sound, monkeypatch, tmp_path):
    """This process, and those it starts, use the sound server."""
    monkeypatch.setenv("PULSE_SERVER", sound)
    monkeypatch.setenv("PULSE_COOKIE", str(tmp_path / "cookie"))
    return sound


@pytest.fixture
def mortal_sound(soapy_on_pulse, monkeypatch, tmp_path):
    """A sound server for one test to end, which this process uses."""
    with sound_server(tmp_path) as (server, address):
        monkeypatch.setenv("PULSE_SERVER", address)
        monkeypatch.setenv("PULSE_COOKIE", str(tmp_path / "cookie"))
        yield server
