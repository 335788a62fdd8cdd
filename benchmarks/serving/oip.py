"""ModelInfer of the Open Inference Protocol as bytes: what every server of the comparison is asked, and what it answers.

The two messages are written down here with the fields that are used, so that the benchmark's requests are the same bytes
whatever stubs a server was built with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

SERVICE: Final = "inference.GRPCInferenceService"
INFER: Final = f"/{SERVICE}/ModelInfer"
STREAM: Final = f"/{SERVICE}/ModelStreamInfer"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {"string": _Field.TYPE_STRING, "int64": _Field.TYPE_INT64, "bytes": _Field.TYPE_BYTES}
_TENSOR: Final = (("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "int64*"))
_MESSAGES: Final = {
    "InputTensor": _TENSOR,
    "RequestedOutput": (("name", 1, "string"),),
    "OutputTensor": _TENSOR,
    "ModelInferRequest": (
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("inputs", 5, "InputTensor*"),
        ("outputs", 6, "RequestedOutput*"),
        ("raw_input_contents", 7, "bytes*"),
    ),
    "ModelInferResponse": (
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("outputs", 5, "OutputTensor*"),
        ("raw_output_contents", 6, "bytes*"),
    ),
    "ModelStreamInferResponse": (("error_message", 1, "string"), ("infer_response", 2, "ModelInferResponse")),
}
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8"), "UINT8": np.dtype("u1")}


def request(model: str, inputs: dict[str, NDArray[np.float32]], outputs: Iterable[str]) -> bytes:
    """A ModelInferRequest with raw float32 inputs.

    Parameters
    ----------
    model : str
    inputs : mapping of name to (B, ...) float32
    outputs : names
        What the reply is to hold.
    """
    return bytes(
        Request(
            model_name=model,
            inputs=[_Input(name=name, datatype="FP32", shape=value.shape) for name, value in inputs.items()],
            outputs=[_Output(name=name) for name in outputs],
            raw_input_contents=[value.astype("<f4").tobytes() for value in inputs.values()],
        ).SerializeToString()
    )


def asked(message: bytes) -> tuple[str, dict[str, NDArray[Any]], list[str]]:
    """Of a ModelInferRequest: the model, the inputs by name, and the outputs that it asks for."""
    read = Request.FromString(message)
    return read.model_name, _arrays(read.inputs, read.raw_input_contents), [output.name for output in read.outputs]


def response(model: str, outputs: dict[str, NDArray[Any]]) -> bytes:
    """A ModelInferResponse with raw contents."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    return bytes(
        Response(
            model_name=model,
            model_version="1",
            outputs=[
                _Given(name=name, datatype=names[value.dtype], shape=value.shape) for name, value in outputs.items()
            ],
            raw_output_contents=[value.tobytes() for value in outputs.values()],
        ).SerializeToString()
    )


def outputs_of(message: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of a ModelInferResponse by name."""
    given = Response.FromString(message)
    return _arrays(given.outputs, given.raw_output_contents)


def streamed(message: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of a ModelStreamInferResponse by name.

    Raises
    ------
    RuntimeError
        With the server's words, where it refused.
    """
    given = Streamed.FromString(message)
    if given.error_message:
        raise RuntimeError(given.error_message)
    return _arrays(given.infer_response.outputs, given.infer_response.raw_output_contents)


def _arrays(tensors: Any, contents: Any) -> dict[str, NDArray[Any]]:
    return {
        str(tensor.name): np.frombuffer(bytes(raw), _DTYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(tensors, contents, strict=True)
    }


def _classes() -> dict[str, Any]:
    """The messages, in a pool of their own: a server's stubs may be loaded beside them."""
    file = descriptor_pb2.FileDescriptorProto(name="oip.proto", package="benchmark", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            if kind in _SCALARS:
                described.field.add(name=name, number=number, label=label, type=_SCALARS[kind])
            else:
                described.field.add(
                    name=name, number=number, label=label, type=_Field.TYPE_MESSAGE, type_name=f".benchmark.{kind}"
                )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"benchmark.{name}")) for name in _MESSAGES
    }


_MADE: Final = _classes()
Request: Final = _MADE["ModelInferRequest"]
Response: Final = _MADE["ModelInferResponse"]
Streamed: Final = _MADE["ModelStreamInferResponse"]
_Input: Final = _MADE["InputTensor"]
_Output: Final = _MADE["RequestedOutput"]
_Given: Final = _MADE["OutputTensor"]
