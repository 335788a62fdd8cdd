"""What the figures were measured on: processor, its vector instructions, versions, compiler flags."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = (
    "hardpath",
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "torch",
    "sionna-no-rt",
    "onnxruntime",
    "grpcio",
    "protobuf",
    "array-api-compat",
)
_VECTORS: Final = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512vl", "asimd", "sve")
_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_OPT")


def describe() -> dict[str, Any]:
    """Plain JSON."""
    return {
        "processor": _processor("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "vector_instructions": [name for name in _VECTORS if name in _processor("flags").split()],
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "compiler": _first_line("g++", "--version"),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "commit": _first_line("git", "rev-parse", "--short=12", "HEAD"),
    }


def _processor(field: str) -> str:
    """A field of /proc/cpuinfo; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _first_line(*command: str) -> str:
    """What a program says of itself; nothing where it is absent."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.splitlines()[0] if found.stdout else ""
