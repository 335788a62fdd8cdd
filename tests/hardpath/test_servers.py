import os
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
