import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "program",
    [
        "from link.session import onnx_runtime; onnx_runtime()",
        "from hardpath.inspection import diagnosis; diagnosis()",
    ],
)
def test_loading_onnx_runtime_writes_nothing_into_the_users_folder(tmp_path, program):
    elsewhere = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environ = {key: value for key, value in os.environ.items() if key not in elsewhere}
    subprocess.run([sys.executable, "-c", program], env=environ | {"HOME": str(tmp_path)}, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []
