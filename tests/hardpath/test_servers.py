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


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_descriptor_that_was_closed_is_not_left_for_what_is_opened_next(number):
    program = (
        f"import os; os.close({number})\nfrom hardpath.command import main\n"
        f"try: main(['--help'])\nexcept SystemExit: os.fstat({number})"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60, capture_output=True).returncode == 0
