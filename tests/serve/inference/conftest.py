"""A grpc.aio server with the inference service alone, on the event loop of a thread."""

import asyncio
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from link.bundle import load_bundle
from serve.engine.engine import Engine
from serve.engine.means import Means
from serve.engine.model import Model
from serve.pb.inference import grpc_service_pb2 as pb
from serve.pb.inference.grpc_service_pb2_grpc import (
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)
from serve.services.inference.service import InferenceService
from serve.telemetry.observer import Observer
from serve.telemetry.statistics import Statistics

MAX_BATCH = 64


@contextmanager
def running_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def serving(paths, **options):
    """A server of these bundles; `runs` tells which operation ran how many rows."""
    runs = []
    statistics = Statistics()

    def ran(operation, run):
        runs.append((operation, run.rows))
        statistics.operation(operation).executed(run.rows)

    means = Means(max_batch=MAX_BATCH, ran=ran)

    async def start():
        engine = Engine(means)
        for path in paths:
            engine.put(Model(load_bundle(path), means))
        server = grpc.aio.server()
        service = InferenceService(engine, Observer(statistics), **options)
        add_GRPCInferenceServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return engine, service, server, f"127.0.0.1:{port}"

    with running_loop() as run:
        engine, service, server, address = run(start())
        try:
            with grpc.insecure_channel(address) as channel:
                yield SimpleNamespace(
                    address=address,
                    channel=channel,
                    engine=engine,
                    service=service,
                    stub=GRPCInferenceServiceStub(channel),
                    runs=runs,
                    statistics=statistics,
                    run=run,
                )
        finally:
            run(server.stop(0))
            means.close()


@pytest.fixture(scope="session")
def inference(bundle_path):
    with serving([bundle_path]) as server:
        yield server


@pytest.fixture(scope="session")
def stub(inference):
    return inference.stub


@pytest.fixture(scope="session")
def text_stub(text_bundle_path):
    with serving([text_bundle_path]) as server:
        yield server.stub


@pytest.fixture(scope="session")
def routed_stub(routed_bundle):
    with serving([routed_bundle]) as server:
        yield server.stub


DATATYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32"} | {
    "uint8": "UINT8",
    "bool": "BOOL",
}
FIELDS = {int: "int64_param", float: "double_param", str: "string_param", bool: "bool_param"}


def elements(texts):
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def tensor(name, array):
    """The head of an input, and its raw contents."""
    if isinstance(array, list):
        return pb.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[len(array)]), elements(array)
    head = pb.ModelInferRequest.InferInputTensor(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
    return head, array.tobytes()


def request(model, inputs, *, outputs=(), parameters=None, **fields):
    tensors = [tensor(name, array) for name, array in inputs.items()]
    message = pb.ModelInferRequest(
        model_name=model,
        inputs=[head for head, _ in tensors],
        raw_input_contents=[raw for _, raw in tensors],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        **fields,
    )
    for name, value in (parameters or {}).items():
        setattr(message.parameters[name], FIELDS[type(value)], value)
    return message


DTYPES = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1", "BOOL": "?"}


def arrays(reply):
    """Outputs by name: arrays, and of BYTES a list of texts."""
    found = {}
    for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            texts = []
            while raw:
                size = int.from_bytes(raw[:4], "little")
                texts.append(raw[4 : 4 + size].decode())
                raw = raw[4 + size :]
            assert len(texts) == np.prod(output.shape)
            found[output.name] = texts
        else:
            found[output.name] = np.frombuffer(raw, DTYPES[output.datatype]).reshape(tuple(output.shape))
    return found


def options(reply):
    """Parameters of a reply, as Python has them."""
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in reply.parameters.items()}


@pytest.fixture(scope="session")
def oip():
    """What tests of the protocol have in common."""
    return SimpleNamespace(
        arrays=arrays, elements=elements, options=options, request=request, serving=serving, tensor=tensor
    )
