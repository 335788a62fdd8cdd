"""Where the Python module of SoapySDR is found.

No package index has it: it comes with the system's SoapySDR, is built for the system's Python, and lies beside that Python's
packages, whose NumPy is another than ours. So it alone is taken from there, and no folder is added to the path.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from itertools import product
from typing import Any, Final

from link.errors import DriverUnavailable

INSTALL: Final = "apt-get install python3-soapysdr soapysdr-module-all"

_PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
_FOLDERS: Final = tuple(
    f"{root}/{packages}"
    for root, packages in product(
        ("/usr/local/lib", "/usr/lib", "/usr/lib64"),
        ("python3/dist-packages", f"{_PYTHON}/dist-packages", f"{_PYTHON}/site-packages"),
    )
)


def soapysdr() -> Any:
    """The module SoapySDR: of this environment, or of a system's Python of the same version.

    It warns on standard error, and keeps the rest to itself unless SOAPY_SDR_LOG_LEVEL says otherwise.

    Raises
    ------
    DriverUnavailable
        If it is in neither, or does not fit its library.
    """
    try:
        try:
            module = import_module("SoapySDR")
        except ImportError:
            module = _system_module()
    except Exception as error:  # SoapySDR raises a bare one where module and library are of two versions
        raise DriverUnavailable("soapy", f"SoapySDR (for {_PYTHON})", INSTALL) from error
    if "SOAPY_SDR_LOG_LEVEL" not in os.environ:
        module.setLogLevel(module.SOAPY_SDR_WARNING)
    return module


def _system_module() -> Any:
    for folder in _FOLDERS:
        # A compiled module of another version of Python has another suffix, and is not found.
        compiled, module = (PathFinder.find_spec(name, [folder]) for name in ("_SoapySDR", "SoapySDR"))
        if compiled is not None and module is not None:
            _load(compiled)
            return _load(module)
    raise ImportError("no system's Python of this version has SoapySDR")


def _load(spec: ModuleSpec) -> Any:
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        assert spec.loader is not None
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
