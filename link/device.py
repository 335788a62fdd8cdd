"""What computes a batch of arrays: NumPy, NumPy with normals from numba, or torch on a device of its own.

    numpy      NumPy, the reference
    numba      NumPy arrays; normals from link.box_muller, a few ulp from NumPy's and several times faster
    torch      torch on the CPU
    cuda       torch on a GPU; cuda:1 on the second one

torch is imported where it is asked for by name and nowhere else in link.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from link.array import Array
from link.errors import ArgumentError, MissingExtra

CUDA: Final = "cuda"
HOST_ENGINES: Final = ("numpy", "numba")
"""Engines whose arrays are NumPy's."""


class Arrays(NamedTuple):
    """Where an engine's arrays live.

    Attributes
    ----------
    xp : namespace
        Of the array API standard.
    device : object
        As functions of `xp` that make arrays take it; None for NumPy.
    """

    xp: Any
    device: Any

    def put(self, values: Array) -> Array:
        """NumPy values as an array of this engine; as they are where that is NumPy's own."""
        if self.device is None:
            return values
        return self.xp.asarray(values.copy(), device=self.device)  # a read-only array is none that torch may share


def host_engine() -> str:
    """The fastest engine of NumPy arrays that is there: "numba" where it is installed and may compile, or else "numpy"."""
    compiles = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
    return "numba" if compiles and importlib.util.find_spec("numba") is not None else "numpy"


def cuda_number(device: str) -> int | None:
    """Which GPU "cuda" or "cuda:N" names; None where `device` is no GPU's name.

    Examples
    --------
    >>> cuda_number("cuda"), cuda_number("cuda:1"), cuda_number("cpu")
    (0, 1, None)
    """
    kind, colon, number = device.partition(":")
    named = kind == CUDA and (number.isdecimal() if colon else True)
    return int(number or 0) if named else None


@cache
def arrays(engine: str) -> Arrays:
    """The namespace and the device of an engine by name.

    Raises
    ------
    ArgumentError
        If there is no engine of that name, or torch sees no such device.
    MissingExtra
        If torch is asked for and not installed.

    Examples
    --------
    >>> arrays("abacus")
    Traceback (most recent call last):
    ...
    link.errors.ArgumentError: engine must be numpy, numba, torch, cuda or cuda:N, got 'abacus'
    """
    if engine in HOST_ENGINES:
        return Arrays(np, None)
    number = cuda_number(engine)
    if engine != "torch" and number is None:
        raise ArgumentError("engine", f"must be numpy, numba, torch, cuda or cuda:N, got {engine!r}")
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise MissingExtra("torch", "train") from None
    if number is not None:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if number >= found:
            there = ", ".join(f"cuda:{i}" for i in range(found)) or "no CUDA device"
            raise ArgumentError("engine", f"must be on a device that is there, torch sees {there}, got {engine!r}")
    xp = importlib.import_module("array_api_compat.torch")
    return Arrays(xp, torch.device("cpu" if engine == "torch" else engine))
