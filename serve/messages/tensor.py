"""Tensor messages to arrays and back."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError
from serve.pb.hardpath.v1 import link_pb2 as pb

MAX_DIMENSIONS: Final = 8
MESSAGE_BYTES: Final = 16 * 2**20
"""Largest request that a server takes unless it is told otherwise (serve.config), and that the client makes."""
DATA_TYPES: Final = {"float32": pb.DATA_TYPE_FLOAT32, "int64": pb.DATA_TYPE_INT64, "uint8": pb.DATA_TYPE_UINT8}
DTYPES: Final = {number: name for name, number in DATA_TYPES.items()}

_STORED: Final = {number: np.dtype(name).newbyteorder("<") for number, name in DTYPES.items()}
_ON_THE_WIRE: Final = {dtype: number for number, dtype in _STORED.items() if dtype.isnative}
"""Types whose memory is what the wire carries."""

_VALUES: Final = {
    "float32_values": pb.DATA_TYPE_FLOAT32,
    "int64_values": pb.DATA_TYPE_INT64,
    "uint8_values": pb.DATA_TYPE_UINT8,
    "string_values": pb.DATA_TYPE_STRING,
}


def tensor_from_message(field: str, message: pb.Tensor) -> NDArray[Any]:
    """The array that a message holds; its shape is checked, its meaning is not.

    Texts come as an array of objects, which takes no more room than they do; one of dtype str would give each the room of
    the longest.

    Raises
    ------
    ArgumentError
        If it holds no data or data twice, if data type or shape are unusable, or if the data do not fill the shape. Names
        the part of `field` that is wrong.
    """
    if message.raw and not (
        message.float32_values or message.int64_values or message.uint8_values or message.string_values
    ):
        source, array = "raw", _raw(field, message)
    else:
        source = _source(field, message)
        array = _raw(field, message) if source == "raw" else _typed(field, message, source)
    if len(message.shape) > MAX_DIMENSIONS:
        raise ArgumentError(f"{field}.shape", f"must have at most {MAX_DIMENSIONS} sizes, got {len(message.shape)}")
    shape = tuple(message.shape)
    if shape and min(shape) < 1:
        raise ArgumentError(f"{field}.shape", f"must hold sizes of at least 1, got {list(shape)}")
    if array.size != math.prod(shape):
        raise ArgumentError(
            f"{field}.shape", f"must multiply to the {array.size} elements in {source}, got {list(shape)}"
        )
    return array.reshape(shape)


def tensor_to_message(field: str, value: ArrayLike, tensor_format: pb.TensorFormat = pb.TENSOR_FORMAT_RAW) -> pb.Tensor:
    """An array as a message: of texts, or of float32, int64 or uint8, whichever is nearest to its own dtype.

    Raises
    ------
    ArgumentError
        If `value` is no array of texts, and none of numbers that one of the three holds.
    """
    if tensor_format == pb.TENSOR_FORMAT_RAW and isinstance(value, np.ndarray) and value.dtype in _ON_THE_WIRE:
        return pb.Tensor(data_type=_ON_THE_WIRE[value.dtype], shape=value.shape, raw=value.tobytes())
    array = _as_wire_type(field, value)
    if array.dtype == object:
        return _texts_to_message(field, array)
    message = pb.Tensor(data_type=DATA_TYPES[array.dtype.name], shape=array.shape)
    if tensor_format == pb.TENSOR_FORMAT_RAW:
        message.raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    else:
        getattr(message, f"{array.dtype.name}_values").extend(array.ravel().tolist())
    return message


def _source(field: str, message: pb.Tensor) -> str:
    sources = [name for name in (*_VALUES, "raw") if len(getattr(message, name))]
    if not sources and 0 in message.shape:
        raise ArgumentError(field, f"must hold at least one value, got shape {tuple(message.shape)}")
    if len(sources) != 1:
        raise ArgumentError(
            field, f"must have exactly one of {', '.join(_VALUES)} and raw, got {' and '.join(sources) or 'none'}"
        )
    return sources[0]


def _typed(field: str, message: pb.Tensor, source: str) -> NDArray[Any]:
    if message.data_type not in (pb.DATA_TYPE_UNSPECIFIED, _VALUES[source]):
        raise ArgumentError(f"{field}.data_type", f"must agree with {source} or be left out, got {message.data_type}")
    if source == "string_values":
        return np.array(message.string_values, dtype=object)
    dtype = DTYPES[_VALUES[source]]
    values = np.array(getattr(message, source))
    if dtype == "uint8" and values.max() > 255:
        raise ArgumentError(f"{field}.{source}", f"must be in [0, 255], got {values.max()}")
    return values.astype(dtype, copy=False)


def _raw(field: str, message: pb.Tensor) -> NDArray[Any]:
    if message.data_type not in DTYPES:
        known = ", ".join(pb.DataType.Name(number) for number in DTYPES)
        raise ArgumentError(f"{field}.data_type", f"must be one of {known} with raw, got {message.data_type}")
    stored = _STORED[message.data_type]
    if len(message.raw) % stored.itemsize:
        raise ArgumentError(f"{field}.raw", f"must hold a multiple of {stored.itemsize} bytes, got {len(message.raw)}")
    array = np.frombuffer(message.raw, stored)
    return array if stored.isnative else array.astype(stored.newbyteorder("="))


def _texts_to_message(field: str, array: NDArray[Any]) -> pb.Tensor:
    message = pb.Tensor(data_type=pb.DATA_TYPE_STRING, shape=array.shape)
    for index, text in enumerate(array.ravel().tolist()):
        try:
            message.string_values.append(str(text))
        except ValueError:
            raise ArgumentError(f"{field}[{index}]", "must not hold half of a surrogate pair") from None
    return message


def _as_wire_type(field: str, value: ArrayLike) -> NDArray[Any]:
    # Asked for their own type, texts would take the room of the longest, and numbers between them become texts.
    texts = isinstance(value, list | tuple) and any(isinstance(item, str) for item in value)
    try:
        array = np.asarray(value, dtype=object if texts else None)
    except ValueError:
        raise ArgumentError(field, "must be an array with rows of equal length") from None
    if texts or array.dtype.kind == "U" or (array.dtype == object and any(isinstance(v, str) for v in array.flat)):
        return _as_texts(field, array.astype(object))
    if array.dtype.kind not in "biuf":
        raise ArgumentError(field, f"must hold numbers or texts, got dtype {array.dtype}")
    _check_dimensions(field, array)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 it becomes inf, which the server refuses by name
            return array.astype(np.float32, copy=False)
    if array.dtype.kind in "bu" and array.dtype.itemsize == 1:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ArgumentError(field, f"must fit into int64, got {array.max()}")
    return array.astype(np.int64, copy=False)


def _as_texts(field: str, array: NDArray[Any]) -> NDArray[Any]:
    for index, text in enumerate(array.flat):
        if not isinstance(text, str):
            raise ArgumentError(f"{field}[{index}]", f"must be a string, got {type(text).__name__}")
    _check_dimensions(field, array)
    return array


def _check_dimensions(field: str, array: NDArray[Any]) -> None:
    if array.ndim > MAX_DIMENSIONS:
        raise ArgumentError(field, f"must have at most {MAX_DIMENSIONS} dimensions, got {array.ndim}")
