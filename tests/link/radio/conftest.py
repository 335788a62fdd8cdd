"""Radio software of others, which Debian has and PyPI has not: `make radio-software` installs it.

Where it is missing its tests are skipped, and told; where HARDPATH_RADIO_SOFTWARE is `required`, as it is wherever the
packages can be installed, they fail.
"""

import os
import shutil
import subprocess
from contextlib import ExitStack

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
