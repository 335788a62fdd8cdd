"""BLAS on one thread, so that no sum depends on how many cores there are."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


@cache
def _libraries() -> Any:
    import scipy.linalg  # noqa: F401  # has a BLAS of its own beside NumPy's; what is not loaded yet is not found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[None]:
    """Hold NumPy's and SciPy's BLAS to one thread for a while: some 20 us.

    The libraries are the process's: where two threads of Python hold them at once, the first one lets go for both.
    """
    limits: AbstractContextManager[None] = _libraries().limit(limits=1, user_api="blas")
    return limits
