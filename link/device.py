"""What computes a batch of arrays: NumPy, NumPy with normals from numba, or torch on a device of its own.

    numpy      NumPy, the reference
    numba      NumPy arrays; normals from link.box_muller, a few ulp from NumPy's and several times faster
    torch      torch on the CPU
    cuda       torch on a GPU; cuda:1 on the second one

torch is imported where it is asked for by name and nowhere else in link.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final, NamedTuple

import array_api_compat.numpy

from link.array import Array
from link.errors import ArgumentError, MissingExtra

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
        return Arrays(array_api_compat.numpy, None)
    kind, _, number = engine.partition(":")
    if not (engine == "torch" or (kind == "cuda" and (number.isdecimal() or engine == "cuda"))):
        raise ArgumentError("engine", f"must be numpy, numba, torch, cuda or cuda:N, got {engine!r}")
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise MissingExtra("torch", "train") from None
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= found:
            there = ", ".join(f"cuda:{i}" for i in range(found)) or "no CUDA device"
            raise ArgumentError("engine", f"must be on a device that is there, torch sees {there}, got {engine!r}")
    xp = importlib.import_module("array_api_compat.torch")
    return Arrays(xp, torch.device("cpu" if engine == "torch" else engine))
