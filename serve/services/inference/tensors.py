"""Tensors of the Open Inference Protocol to arrays and back: for that protocol the only code that touches both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError
from link.interface import DType
from serve.messages.tensor import MAX_DIMENSIONS
from serve.pb.inference import grpc_service_pb2 as pb

BYTES: Final = "BYTES"
DATATYPES: Final[Mapping[DType, str]] = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
"""What the protocol calls the types of the graphs."""


class _Number(NamedTuple):
    """A datatype of numbers: how raw contents hold it, and which field holds it typed."""

    stored: np.dtype[Any]
    contents: str | None
    widen: Callable[[NDArray[Any]], NDArray[Any]] | None = None


def _from_bfloat16(upper: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (upper.astype(np.uint32) << 16).view(np.float32)


_NUMBERS: Final = {
    "BOOL": _Number(np.dtype("u1"), "bool_contents", lambda array: array != 0),
    "UINT8": _Number(np.dtype("u1"), "uint_contents"),
    "UINT16": _Number(np.dtype("<u2"), "uint_contents"),
    "UINT32": _Number(np.dtype("<u4"), "uint_contents"),
    "UINT64": _Number(np.dtype("<u8"), "uint64_contents"),
    "INT8": _Number(np.dtype("i1"), "int_contents"),
    "INT16": _Number(np.dtype("<i2"), "int_contents"),
    "INT32": _Number(np.dtype("<i4"), "int_contents"),
    "INT64": _Number(np.dtype("<i8"), "int64_contents"),
    "FP16": _Number(np.dtype("<f2"), None),
    "BF16": _Number(np.dtype("<u2"), None, _from_bfloat16),
    "FP32": _Number(np.dtype("<f4"), "fp32_contents"),
    "FP64": _Number(np.dtype("<f8"), "fp64_contents"),
}
_STORED: Final = {"BOOL": np.dtype("?")} | {name: _NUMBERS[name].stored for name in ("FP32", "INT64", "UINT8")}
_LENGTH_BYTES: Final = 4


class Tensor(NamedTuple):
    """An input or output of a model.

    Attributes
    ----------
    name : str
    datatype : str
        In the protocol's words: FP32, INT64, UINT8, BOOL or BYTES.
    shape : tuple of int
        Of one sample; in a message the batch dimension stands in front. Where a sample has one element, an input may come as
        (B,) and as (B, 1): Triton's configurations know no shape without a size.
    optional : bool
        Whether a request may leave it out.
    hidden : bool
        Whether it is taken though the model's metadata do not name it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    optional: bool = False
    hidden: bool = False

    @property
    def announced(self) -> tuple[int, ...]:
        """The shape of one sample that clients are told of an input."""
        return self.shape or (1,)


class Output(NamedTuple):
    """An output of a model, and how it is made of what the data plane answered.

    Attributes
    ----------
    tensor : Tensor
    take : callable
        Finds its array.
    write : callable
        Makes raw contents of that.
    classes : tuple of str
        Names of the classes, where it holds a score for each.
    """

    tensor: Tensor
    take: Callable[[Any], NDArray[Any]]
    write: Callable[[NDArray[Any]], bytes]
    classes: tuple[str, ...] = ()

    def best(self, count: int) -> Output:
        """The `count` classes of the highest scores in place of the scores, as Triton's extension has it.

        Raises
        ------
        ArgumentError
            If there are no scores of classes, or not so many.
        """
        field = f"outputs.{self.tensor.name}.parameters.classification"
        if not self.classes:
            raise ArgumentError(field, "must be absent: this output holds no scores of classes")
        if not 1 <= count <= len(self.classes):
            raise ArgumentError(field, f"must be in [1, {len(self.classes)}], got {count}")
        write = partial(_best_classes, classes=self.classes, count=count)
        return self._replace(tensor=Tensor(self.tensor.name, BYTES, (count,)), write=write)


def numbers(tensor: Tensor, take: Callable[[Any], NDArray[Any]], classes: tuple[str, ...] = ()) -> Output:
    """An output of numbers."""
    stored = _STORED[tensor.datatype]
    return Output(tensor, take, lambda array: array.astype(stored, copy=False).tobytes(), classes)


def names(tensor: Tensor, take: Callable[[Any], NDArray[Any]], table: tuple[str, ...]) -> Output:
    """An output of BYTES: what `take` finds are indices into the table."""
    elements = tuple(map(_element, table))
    return Output(tensor, take, lambda array: b"".join([elements[index] for index in array.tolist()]))


def strings(tensor: Tensor, take: Callable[[Any], Any]) -> Output:
    """An output of BYTES: what `take` finds are strings."""
    return Output(tensor, take, lambda texts: b"".join(map(_element, texts)))


def inputs_from_message(
    request: pb.ModelInferRequest, tensors: Mapping[str, Tensor], max_batch: int
) -> dict[str, NDArray[Any]]:
    """The inputs of a request by name; that they fill their shapes is checked, and what the model wants of them is not.

    Parameters
    ----------
    request : ModelInferRequest
    tensors : mapping of str to Tensor
        The model's inputs: those of BYTES come as arrays of str, all others as arrays of numbers.
    max_batch : int
        Most samples in a request.

    Raises
    ------
    ArgumentError
        If an input is unknown or comes twice, holds no data or data twice, if datatype or shape are unusable, or if the data
        do not fill the shape. Names the part of `inputs.NAME` that is wrong.
    """
    for message in request.inputs:  # first: what lies in shared memory has no raw contents
        for parameter in message.parameters:
            raise ArgumentError(
                f"inputs.{message.name}.parameters.{parameter}", "is unknown: tensors come within the message"
            )
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise ArgumentError(
            "raw_input_contents", f"must hold an entry for each of the {len(request.inputs)} inputs, got {len(raw)}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for index, message in enumerate(request.inputs):
        name = message.name
        field = f"inputs.{name}"
        tensor = tensors.get(name)
        if tensor is None:
            raise ArgumentError(field, f"is unknown; this model takes {', '.join(tensors)}")
        if name in arrays:
            raise ArgumentError(field, "must be given once, got it twice")
        shape = _shape(field, message, max_batch)
        if not tensor.shape and shape[1:] == (1,):
            shape = shape[:1]
        content = raw[index] if raw else None
        if content is not None and message.HasField("contents"):
            raise ArgumentError(f"{field}.contents", "must be absent where there are raw_input_contents")
        read = _texts if tensor.datatype == BYTES else _numbers
        arrays[name] = read(field, message, shape, content)
    return arrays


def _shape(field: str, message: pb.ModelInferRequest.InferInputTensor, max_batch: int) -> tuple[int, ...]:
    shape = tuple(message.shape)
    if not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise ArgumentError(f"{field}.shape", f"must have 1 to {MAX_DIMENSIONS} sizes, got {len(shape)}")
    if min(shape) < 1:
        raise ArgumentError(f"{field}.shape", f"must hold sizes of at least 1, got {list(shape)}")
    if shape[0] > max_batch:
        raise ArgumentError(field, f"must hold at most {max_batch} samples, got {shape[0]}")
    return shape


def _numbers(
    field: str, message: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...], raw: bytes | None
) -> NDArray[Any]:
    number = _NUMBERS.get(message.datatype)
    if number is None:
        raise ArgumentError(f"{field}.datatype", f"must be one of {', '.join(_NUMBERS)}, got {message.datatype!r}")
    if raw is not None:
        expected = math.prod(shape) * number.stored.itemsize
        if len(raw) != expected:
            raise ArgumentError(
                field, f"must fill shape {list(shape)} of {message.datatype} with {expected} bytes, got {len(raw)}"
            )
        array = np.frombuffer(raw, number.stored).reshape(shape)
        return array if number.widen is None else number.widen(array)
    if number.contents is None:
        raise ArgumentError(field, f"must come in raw_input_contents where its datatype is {message.datatype}")
    values = getattr(message.contents, number.contents)
    if len(values) != math.prod(shape):
        raise ArgumentError(
            field, f"must fill shape {list(shape)} with {math.prod(shape)} {number.contents}, got {len(values)}"
        )
    return np.array(values).reshape(shape)


def _texts(
    field: str, message: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...], raw: bytes | None
) -> NDArray[Any]:
    if message.datatype != BYTES:
        raise ArgumentError(f"{field}.datatype", f"must be {BYTES}, got {message.datatype!r}")
    if len(shape) != 1:
        raise ArgumentError(field, f"must have shape (batch), got {list(shape)}")
    (count,) = shape
    elements = message.contents.bytes_contents if raw is None else _elements(field, raw, count)
    if len(elements) != count:
        raise ArgumentError(field, f"must fill shape {list(shape)} with {count} bytes_contents, got {len(elements)}")
    texts = np.empty(count, dtype=object)
    for index, element in enumerate(elements):
        try:
            texts[index] = element.decode()
        except UnicodeDecodeError:
            raise ArgumentError(f"{field}[{index}]", "must be a text in UTF-8") from None
    return texts


def _elements(field: str, raw: bytes, count: int) -> list[bytes]:
    elements = []
    start = 0
    for index in range(count):
        first = start + _LENGTH_BYTES
        end = first + int.from_bytes(raw[start:first], "little")
        if end > len(raw) or first > len(raw):
            raise ArgumentError(
                f"{field}[{index}]", f"must be a length in {_LENGTH_BYTES} bytes and as many bytes, got fewer"
            )
        elements.append(raw[first:end])
        start = end
    if start != len(raw):
        raise ArgumentError(field, f"must hold {count} elements, got {len(raw) - start} bytes after the last of them")
    return elements


def _element(text: str) -> bytes:
    """An element of BYTES as raw contents have it."""
    encoded = text.encode()
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


def _best_classes(scores: NDArray[np.float32], classes: tuple[str, ...], count: int) -> bytes:
    """Of each row the best classes as "score:index:name", best first, the lowest index on ties."""
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :count]
    best = zip(np.take_along_axis(scores, order, axis=-1).ravel().tolist(), order.ravel().tolist(), strict=True)
    return b"".join([_element(f"{score:f}:{index}:{classes[index]}") for score, index in best])
