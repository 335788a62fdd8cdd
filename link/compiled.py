"""How numba compiles link's inner loops, and three instructions that Python has no word for.

Importing this module without numba is a MissingExtra; nothing but link.box_muller and link.kernel imports it at the top.

No fast-math: each operation is rounded as IEEE 754 has it and none is fused with another, so that all machines find the same
numbers whatever their vectors. Machine code is kept on disk and made anew where the file of the *outer* function changes:
after a change to a function that is inlined in another file, delete link/__pycache__.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from link.errors import MissingExtra

try:
    import numba
    from numba.core import types
    from numba.extending import intrinsic
except ImportError:
    raise MissingExtra("numba", "sweep") from None

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile, run without the interpreter's lock, and keep the machine code on disk if there is a place for it."""
    try:
        return cast(_Function, numba.njit(nogil=True, error_model="numpy", cache=True)(function))
    except RuntimeError:  # neither __pycache__ nor the user's cache folder can be written
        return cast(_Function, numba.njit(nogil=True, error_model="numpy")(function))


def inlined(function: _Function) -> _Function:
    """Compile into each caller: a loop with a call in it becomes no vector loop."""
    return cast(_Function, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def _instruction(function: Callable[..., Any]) -> Callable[[Any], Any]:
    return cast(Callable[[Any], Any], intrinsic(function))


@_instruction
def float_of(_: Any, bits: Any) -> Any:
    """The float64 of 64 bits."""
    return types.float64(types.int64), _bitcast


@_instruction
def bits_of(_: Any, number: Any) -> Any:
    """The 64 bits of a float64."""
    return types.int64(types.float64), _bitcast


@_instruction
def count_ones(_: Any, bits: Any) -> Any:
    """How many bits of an int32 are 1."""
    return types.int32(types.int32), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


def _bitcast(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))
