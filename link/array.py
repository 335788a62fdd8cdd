"""The array type of the chain: NumPy arrays and torch tensors alike, through the array API standard."""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat

Array: TypeAlias = Any


def namespace(*arrays: Array) -> Any:
    """The array API namespace that the arrays share (Python scalars and None are passed over)."""
    return array_api_compat.array_namespace(*arrays)
