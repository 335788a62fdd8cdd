"""The array type of the chain: NumPy arrays and torch tensors alike, through the array API standard.

NumPy's own namespace follows the standard as far as the chain goes (from NumPy 2.0); torch's needs array_api_compat. Its
wrapper of NumPy would bring all of NumPy with it, f2py and masked arrays too: 80 ms of a server's start, and 20 MB.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat
import numpy as np

Array: TypeAlias = Any


def namespace(*arrays: Array) -> Any:
    """The array API namespace that the arrays share (Python scalars and None are passed over)."""
    if all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        return np
    return array_api_compat.array_namespace(*arrays)
