"""What the servicer of the Open Inference Protocol costs beside the data plane: `python -m benchmarks.inference BUNDLE`.

A request of one sample is answered again and again by a model whose operations return at once: what is left is reading the
request, the checks, and making the reply. Microseconds of the processor, the best of several runs, for each of the three
models; parsing and serialising by protobuf are told apart, since gRPC does them outside the servicer.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np

from link.bundle import load_bundle
from serve.engine.engine import Engine
from serve.engine.means import Means
from serve.engine.model import Model
from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.inference.service import InferenceService
from serve.services.inference.tensors import BYTES, Tensor
from serve.telemetry.observer import Observer
from serve.telemetry.statistics import Statistics

CALLS: Final = 4000
RUNS: Final = 7
METHODS: Final = {"transmitter": "encode", "receiver": "decode", "link": "transmit"}
_DTYPES: Final = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}
_TEXT: Final = b"\x04\x00\x00\x00text"


class _Context:
    """A call with a deadline."""

    def time_remaining(self) -> float:
        return 10.0

    def invocation_metadata(self) -> tuple[()]:
        return ()


def request(model: str, tensors: list[Tensor]) -> pb.ModelInferRequest:
    """One sample of ones, or of a text."""
    message = pb.ModelInferRequest(model_name=model, id="1")
    for tensor in tensors:
        text = tensor.datatype == BYTES
        content = _TEXT if text else np.ones(tensor.shape, dtype=_DTYPES[tensor.datatype]).tobytes()
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=(1, *tensor.shape))
        message.raw_input_contents.append(content)
    return message


async def spent_us(call: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of the processor that a call takes."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.process_time_ns()
        for _ in range(CALLS):
            await call()
        best = min(best, (time.process_time_ns() - start) / CALLS / 1e3)
    return best


async def measure(path: str) -> None:
    """Print a line for each model of the bundle."""
    means = Means()
    engine = Engine(means)
    model = Model(load_bundle(path), means)
    engine.put(model)
    service = InferenceService(engine, Observer(Statistics()))
    context: Any = _Context()
    for operation, method in METHODS.items():
        name = f"{model.name}.{operation}"
        metadata = await service.ModelMetadata(pb.ModelMetadataRequest(name=name), context)
        config = (await service.ModelConfig(pb.ModelConfigRequest(name=name), context)).config
        optional = {tensor.name for tensor in config.input if tensor.optional}
        message = request(
            name,
            [Tensor(t.name, t.datatype, tuple(t.shape[1:])) for t in metadata.inputs if t.name not in optional],
        )
        if operation == "link":
            message.parameters["snr_db"].double_param = 8.0
            message.parameters["seed"].int64_param = 1
        answered: list[Any] = []
        real = getattr(model, method)

        async def once(*arguments: Any, real: Any = real, answered: list[Any] = answered) -> Any:
            if not answered:
                answered.append(await real(*arguments))
            return answered[0]

        setattr(model, method, once)
        reply = await service.ModelInfer(message, context)
        data = message.SerializeToString()

        async def protobuf(data: bytes = data, reply: pb.ModelInferResponse = reply) -> None:
            pb.ModelInferRequest.FromString(data)
            reply.SerializeToString()

        servicer = await spent_us(lambda message=message: service.ModelInfer(message, context))  # type: ignore[misc]
        print(f"{name:<24} servicer {servicer:5.1f} us   protobuf {await spent_us(protobuf):4.1f} us")
        setattr(model, method, real)
    means.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.inference BUNDLE")
    asyncio.run(measure(sys.argv[1]))
