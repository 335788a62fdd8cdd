import subprocess
import sys

import pytest

MODULES = ("serve.server", "serve.client")


def imports_without_torch(module):
    """Whether a fresh interpreter in which torch cannot be imported can import the module."""
    program = f"import sys; sys.modules['torch'] = None; import {module}; assert sys.modules['torch'] is None"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("module", MODULES)
def test_server_and_client_import_without_torch(module):
    assert imports_without_torch(module)


def test_the_check_fails_for_a_module_that_needs_torch():
    assert not imports_without_torch("train.transceiver")


@pytest.mark.parametrize("heavy", ["torch", "onnxruntime", "scipy", "tokenizers", "train"])
def test_what_takes_long_to_load_is_left_until_it_is_used(heavy):
    program = f"import sys; import serve.server, serve.client; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_server_starts_without_what_serving_does_not_need(bundle_path):
    """Each costs every start its time, and every process its memory."""
    program = "import sys; from serve.server import Server\nwith Server(sys.argv[1], port=0): print(*sys.modules)"
    heavy = {"array_api_compat.numpy", "numpy.f2py", "numpy.ma", "scipy", "rich", "prometheus_client", "opentelemetry"}
    done = subprocess.run([sys.executable, "-c", program, bundle_path], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
