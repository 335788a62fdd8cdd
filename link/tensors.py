"""Arrays that callers give, made into what the graphs take: dtype, shape and range, each mistake in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError
from link.interface import TensorSpec

LARGEST: Final = float(np.finfo(np.float64).max)
"""Any finite number is at most this."""


def check_inputs(
    specs: tuple[TensorSpec, ...], inputs: Mapping[str, ArrayLike], batch: int | None = None
) -> dict[str, NDArray[Any]]:
    """The inputs as contiguous arrays of the graph's dtypes, all of one batch size: `batch`, where it is given.

    Raises
    ------
    ArgumentError
        If an input is missing, unknown, of the wrong shape or dtype, not finite or out of range.
    """
    names = [spec.name for spec in specs]
    for name in inputs:
        if name not in names:
            raise ArgumentError(f"inputs.{name}", f"is unknown; this bundle takes {', '.join(names)}")
    feed: dict[str, NDArray[Any]] = {}
    for spec in specs:
        field = f"inputs.{spec.name}"
        if spec.name not in inputs:
            raise ArgumentError(field, "is missing")
        shape = (batch, *spec.sizes)
        value = as_tensor(field, inputs[spec.name], spec.dtype, shape, finite=False)
        low = -LARGEST if spec.low is None else spec.low
        high = LARGEST if spec.high is None else spec.high
        if not within(value, low, high):
            require_finite(field, value)
            raise ArgumentError(field, f"must be in [{low:g}, {high:g}], got [{value.min():g}, {value.max():g}]")
        batch = len(value)
        feed[spec.name] = value
    return feed


def as_tensor(
    field: str, value: ArrayLike, dtype: str, shape: tuple[int | None, ...], *, finite: bool = True
) -> NDArray[Any]:
    """`value` as a contiguous array of `dtype` and `shape` (None: any size from 1).

    Raises
    ------
    ArgumentError
        If it is no array of numbers, has another shape, loses something in the conversion or is not finite.
    """
    if isinstance(value, np.ndarray) and value.dtype == dtype and _has_shape(value, shape):
        converted = np.ascontiguousarray(value)
    else:
        converted = _converted(field, value, dtype, shape)
    if finite:
        require_finite(field, converted)
    return converted


def require_finite(field: str, value: NDArray[Any]) -> None:
    """Raise ArgumentError if there is NaN or infinity."""
    if not np.isfinite(value).all():
        raise ArgumentError(field, f"must be finite in {value.dtype}, got NaN or infinity")


def within(value: NDArray[Any], low: float, high: float) -> bool:
    """Whether all of it is in [low, high], and no NaN."""
    return float(value.min()) >= low and float(value.max()) <= high


def _has_shape(array: NDArray[Any], shape: tuple[int | None, ...]) -> bool:
    found = array.shape
    return 0 not in found and len(found) == len(shape) and found[1:] == shape[1:] and shape[0] in (None, found[0])


def _converted(field: str, value: ArrayLike, dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ArgumentError(field, "must be an array with rows of equal length") from None
    if array.dtype.kind not in "biuf":
        raise ArgumentError(field, f"must hold numbers, got dtype {array.dtype}")
    expected = tuple("batch" if size is None else size for size in shape)
    if array.ndim != len(shape) or any(
        size is not None and size != got for size, got in zip(shape, array.shape, strict=True)
    ):
        raise ArgumentError(field, f"must have shape {_text(expected)}, got {_text(array.shape)}")
    if 0 in array.shape:
        raise ArgumentError(field, f"must hold at least one sample, got shape {_text(array.shape)}")
    if np.dtype(dtype).kind != "f" and array.dtype.kind == "f":
        raise ArgumentError(field, f"must hold integers ({dtype}), got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is caught as such
        converted = np.ascontiguousarray(array, dtype=dtype)
    if np.dtype(dtype).kind in "iu" and not (converted == array).all():
        raise ArgumentError(field, f"does not fit into {dtype}")
    return converted


def _text(shape: tuple[object, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
