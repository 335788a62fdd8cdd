"""Virtual environments that peers live in: made on request, versions pinned beside each peer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

NAMES: Final = ("triton", "mlserver", "ray_serve", "perf_analyzer")
_PINS: Final = Path(__file__).parent / "peers"
_ABOUT: Final = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"


class Absent(Exception):
    """A peer is not here; the message is one line that says what is missing."""


def python(cache: Path, name: str) -> Path:
    """The interpreter of an environment.

    Raises
    ------
    Absent
        If it has not been set up.
    """
    found = cache / name / "bin" / "python"
    if not (cache / name / "pins.txt").is_file():
        raise Absent("not installed: python -m benchmarks.serving --setup-peers")
    if (cache / name / "pins.txt").read_bytes() != _pins(name).read_bytes():
        raise Absent("installed in other versions: python -m benchmarks.serving --setup-peers")
    return found.absolute()


def set_up(cache: Path, name: str) -> str:
    """Make an environment unless it is there; what came of it, in one line."""
    try:
        python(cache, name)
        return "is there"
    except Absent:
        pass
    folder, pins = cache / name, _pins(name)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(pins)]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or ["it said nothing"]
            return f"cannot be installed: {lines[-1]}"
    (folder / "pins.txt").write_bytes(pins.read_bytes())
    return "installed"


def site_packages(interpreter: Path) -> Path:
    """Where an environment keeps its packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return interpreter.parent.parent / "lib" / version / "site-packages"


def versions(interpreter: Path, *packages: str) -> str:
    """Of packages in an environment, in words."""
    command = [str(interpreter), "-c", _ABOUT, *packages]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _pins(name: str) -> Path:
    return _PINS / f"requirements-{name}.txt"
