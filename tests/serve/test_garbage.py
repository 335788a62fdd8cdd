"""What a refused request held is free at once: its memory does not wait for the collector of garbage."""

import gc
from collections import Counter
from time import monotonic, sleep

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from link.errors import HardpathError
from serve.config.schema import AuthConfig, BatchingConfig, ServerConfig
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import admin_pb2 as admin_pb
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1.admin_pb2_grpc import AdminServiceStub
from serve.pb.hardpath.v1.link_pb2_grpc import LinkServiceStub
from serve.pb.inference import grpc_service_pb2 as inference_pb
from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from serve.security.tokens import new_token
from serve.server import Server
from serve.services.link import LinkService

CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED,
}
CALLS = 20
FEW = 3
"""Of the last calls, which may be at their end still."""


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def no_collector():
    gc.collect()
    gc.freeze()  # what is there now is not looked at
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def transmit(value=1.0, **settings):
    image = tensor_to_message("image", np.full((1, 8, 8), value, dtype=np.float32))
    return pb.TransmitRequest(inputs={"image": image}, settings=pb.LinkSettings(**settings))


REFUSED = {
    "a setting": lambda channel: LinkServiceStub(channel).Transmit(transmit(snr_db=1e9)),
    "an input": lambda channel: LinkServiceStub(channel).Transmit(transmit(np.nan, snr_db=1.0)),
    "an input of a channel that takes long": lambda channel: LinkServiceStub(channel).Transmit(
        transmit(np.nan, snr_db=1.0, channel="tdl-a")
    ),
    "no message": lambda channel: channel.unary_unary("/hardpath.v1.LinkService/Transmit")(b"\xff"),
    "the other protocol": lambda channel: GRPCInferenceServiceStub(channel).ModelInfer(
        inference_pb.ModelInferRequest(model_name="tiny.link")
    ),
    "a service that health does not know": lambda channel: HealthStub(channel).Check(
        HealthCheckRequest(service="gone")
    ),
    "a method that is not there": lambda channel: GRPCInferenceServiceStub(channel).RepositoryModelUnload(
        inference_pb.RepositoryModelUnloadRequest()
    ),
    "a model to be loaded anew": lambda channel: AdminServiceStub(channel).ReloadModel(
        admin_pb.ReloadModelRequest(model="gone")
    ),
    "a sweep's points": lambda channel: list(LinkServiceStub(channel).Sweep(pb.SweepRequest())),
    "a sweep's input": lambda channel: list(
        LinkServiceStub(channel).Sweep(pb.SweepRequest(inputs=transmit(np.nan).inputs, snr_db=[1.0]))
    ),
    "a request of a stream": lambda channel: list(
        LinkServiceStub(channel).TransmitStream(iter([pb.TransmitStreamRequest(request=transmit(np.nan, snr_db=1.0))]))
    ),
}


def errors():
    """Errors of the server that are held by something, by their kind."""
    kinds = (HardpathError, grpc.aio.AbortError)
    return Counter(type(found).__name__ for found in gc.get_objects() if issubclass(type(found), kinds))


@pytest.mark.parametrize("ask", REFUSED.values(), ids=REFUSED)
def test_a_refusal_leaves_nothing_for_the_collector(channel, ask, no_collector):
    def refused():
        try:
            ask(channel)
        except grpc.RpcError as error:
            assert error.code() in CODES  # noqa: PT017

    refused()  # what is made once is made
    before = errors()
    for _ in range(CALLS):
        refused()
    end = monotonic() + 5.0
    while (left := errors() - before).total() > FEW and monotonic() < end:
        sleep(0.01)
    assert left.total() <= FEW, left


def test_a_batch_that_waited_leaves_nothing_either(bundle_path, no_collector):
    config = ServerConfig(batching=BatchingConfig(max_wait_us=1000))
    with Server(bundle_path, port=0, config=config) as server, grpc.insecure_channel(server.address) as channel:
        test_a_refusal_leaves_nothing_for_the_collector(channel, REFUSED["an input"], None)


def test_a_call_without_a_token_leaves_nothing_either(bundle_path, tmp_path, no_collector):
    file = tmp_path / "tokens.toml"
    file.write_text(new_token("camera").line)
    config = ServerConfig(auth=AuthConfig(tokens=file))
    with Server(bundle_path, port=0, config=config) as server, grpc.insecure_channel(server.address) as channel:
        test_a_refusal_leaves_nothing_for_the_collector(channel, REFUSED["a setting"], None)
        test_a_refusal_leaves_nothing_for_the_collector(channel, REFUSED["a sweep's points"], None)


def test_a_stream_that_the_server_ends_leaves_nothing_either(bundle_path, no_collector, monkeypatch):
    async def cut(service, requests, context):
        held = [requests, context]
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"the server is shutting down, {len(held)}")

    monkeypatch.setattr(LinkService, "TransmitStream", cut)
    with Server(bundle_path, port=0) as server, grpc.insecure_channel(server.address) as channel:
        test_a_refusal_leaves_nothing_for_the_collector(channel, REFUSED["a request of a stream"], None)
