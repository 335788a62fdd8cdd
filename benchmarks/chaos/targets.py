"""Valid requests of every method that a server has, to be spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from numpy.typing import NDArray

from benchmarks.chaos.questions import SERVICE, make_questions, sample_inputs
from link.chain import Link
from serve.pb.hardpath.v1 import link_pb2 as pb

INFERENCE: Final = "inference.GRPCInferenceService"
_DATATYPES: Final = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
_CONTENTS: Final = {"float32": "fp32_contents", "int64": "int64_contents", "uint8": "uint_contents"}


class Target(NamedTuple):
    """A method that takes one request, and a valid one; `streams` where it answers with several messages."""

    method: str
    valid: Message
    streams: bool = False


def link_targets(link: Link) -> tuple[Target, ...]:
    """hardpath.v1: every method that takes something, with one and with several rows, raw and as values."""
    found = []
    for question in make_questions(link, 6, rows=(2, 1)):
        request = getattr(pb, f"{question.method.rpartition('/')[2]}Request")
        found.append(Target(question.method, request.FromString(question.request)))
    transmit = next(target.valid for target in found if isinstance(target.valid, pb.TransmitRequest))
    bits = pb.Tensor(shape=[1, link.manifest.num_bits], uint8_values=[1] * link.manifest.num_bits)
    sweep = pb.SweepRequest(inputs=transmit.inputs, settings=pb.LinkSettings(seed=3), snr_db=[1.0, 4.0], draws=2)
    return (
        *found,
        Target(f"{SERVICE}/Decode", pb.DecodeRequest(bits=bits)),
        Target(f"{SERVICE}/Sweep", sweep, streams=True),
        Target(f"{SERVICE}/GetModel", pb.GetModelRequest(model=link.manifest.name)),
    )


def inference_targets(link: Link, channel: grpc.Channel) -> tuple[Target, ...]:
    """The Open Inference Protocol, as the server's reflection describes it; none where it does not have it."""
    database = ProtoReflectionDescriptorDatabase(channel)
    if INFERENCE not in database.get_services():
        return ()
    methods = DescriptorPool(database).FindServiceByName(INFERENCE).methods_by_name
    new = {name: message_factory.GetMessageClass(method.input_type) for name, method in methods.items()}
    name = link.manifest.name
    infer: Any = new["ModelInfer"]
    inputs = sample_inputs(link.manifest.task_inputs, 2, np.random.default_rng(0))
    sent = link.encode(inputs, 5.0)
    received = {"symbols": sent.symbols, "no": np.full(sent.symbols.shape[:2], 0.1, dtype=np.float32)}
    carried = _infer(infer, f"{name}.link", inputs, raw=True)
    carried.parameters["snr_db"].double_param = 5.0
    carried.parameters["channel"].string_param = "awgn"
    carried.parameters["seed"].int64_param = 3
    carried.parameters["mode"].int64_param = -1
    requests = [
        ("ModelInfer", carried),
        ("ModelInfer", _infer(infer, f"{name}.transmitter", inputs, raw=False)),
        ("ModelInfer", _infer(infer, f"{name}.receiver", received, raw=True)),
        ("ModelMetadata", new["ModelMetadata"](name=f"{name}.link")),
        ("ModelConfig", new["ModelConfig"](name=f"{name}.link")),
        ("ModelStatistics", new["ModelStatistics"](name=f"{name}.link")),
        ("ModelReady", new["ModelReady"](name=f"{name}.link")),
        ("RepositoryIndex", new["RepositoryIndex"]()),
    ]
    return tuple(Target(f"/{INFERENCE}/{method}", request) for method, request in requests)


def _infer(kind: Any, model: str, arrays: Mapping[str, NDArray[Any]], *, raw: bool) -> Any:
    request = kind(model_name=model)
    for name, array in arrays.items():
        tensor = request.inputs.add(name=name, datatype=_DATATYPES[array.dtype.name], shape=array.shape)
        if raw:
            request.raw_input_contents.append(array.tobytes())
        else:
            getattr(tensor.contents, _CONTENTS[array.dtype.name]).extend(array.ravel().tolist())
    return request
