"""What importing link needs and what it leaves alone, each in an interpreter of its own."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import link

ROOT = Path(link.__file__).parent.parent
TEXT_LIBRARIES = ["tokenizers", "transformers", "datasets", "pandas", "sacrebleu", "constriction"]
MODULES = sorted(module.name for module in pkgutil.walk_packages(link.__path__, "link."))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


def import_without(packages, modules):
    """Import modules where the packages cannot be imported."""
    # No entry of None in sys.modules: SciPy takes whatever stands there for a module.
    return run(
        f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"import of {{name}} halted", name=name)
sys.meta_path.insert(0, Blocked())
import {", ".join(modules)}
"""
    )


def test_every_module_of_link_imports_with_torch_and_the_text_libraries_blocked():
    done = import_without(["torch", *TEXT_LIBRARIES], MODULES)
    assert done.returncode == 0, done.stderr


def test_the_deployed_chain_imports_with_numpy_and_pydantic_alone():
    done = import_without(["torch", "scipy", "onnxruntime", "onnx"], ["link.chain", "link.runtime"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["numpy", "pydantic"])
def test_the_check_fails_where_a_blocked_package_is_imported(package):
    done = import_without([package], ["link.runtime"])
    assert done.returncode == 1
    assert f"import of {package} halted" in done.stderr


@pytest.mark.parametrize("package", ["torch", *TEXT_LIBRARIES])
def test_no_module_of_link_imports(package):
    done = run(f"import sys, {', '.join(MODULES)}; sys.exit({package!r} in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_using_link_leaves_the_global_generators_alone():
    done = run(
        f"""
import pickle, random, numpy, torch
states = lambda: [random.getstate(), pickle.dumps(numpy.random.get_state()), torch.random.get_rng_state().tolist()]
before = states()
import {", ".join(MODULES)}
from link.randomness import Draws, permutation
from link.channel import CHANNELS, build_channel
for name in CHANNELS:
    x = numpy.ones((2, 3, 2), dtype=numpy.float32)
    build_channel(name)(x, numpy.full(2, 3), 0.0, Draws(1, numpy.arange(2)))
permutation(0, 10)
assert states() == before
"""
    )
    assert done.returncode == 0, done.stderr
