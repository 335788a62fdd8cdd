"""Calls that never send their request, or more than there is room for: they cost a place for a while, not the server."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from serve.config.schema import LimitsConfig
from serve.pb.hardpath.v1 import link_pb2 as pb

LIST = "/hardpath.v1.LinkService/ListModels"
SWEEP = "/hardpath.v1.LinkService/Sweep"
STREAM = "/hardpath.v1.LinkService/TransmitStream"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CHECK = "/grpc.health.v1.Health/Check"
CALLS = 8


def limited(**limits):
    return LimitsConfig(**({"concurrent_calls": CALLS, "queue_requests": CALLS, "receive_s": 30.0} | limits))


class Caller:
    """Calls of raw bytes over one connection; `hold` begins calls that send nothing."""

    def __init__(self, channel):
        self._channel = channel

    def hold(self, method, count=1):
        return [self._channel.stream_stream(method)() for _ in range(count)]

    async def ask(self, method, request=b""):
        return await self._channel.unary_unary(method)(request, timeout=10.0)


def talking(server, conversation):
    """Have a conversation with a server."""

    async def talk():
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
            await conversation(Caller(channel))

    asyncio.run(talk())


async def status_of(call):
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def filled(caller, method):
    """Calls that hold every place, and the refusal of one more."""
    held = caller.hold(method, CALLS)
    while True:
        try:
            await caller.ask(LIST)
        except grpc.aio.AioRpcError as error:
            return held, error
        held += caller.hold(method)  # one of them may have come while the call that was answered had its place
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", [LIST, SWEEP, STREAM, INFER])
def test_calls_that_send_nothing_leave_health_alone_and_others_a_time_to_come_back(serving, bundle_path, method):
    with serving(bundle_path, limits=limited()) as server:

        async def conversation(caller):
            held, error = await filled(caller, method)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == f"{CALLS} calls are in flight, as many as may"
            (detail,) = rpc_status.from_call(error).details
            retry = error_details_pb2.RetryInfo()
            assert detail.Unpack(retry)
            assert retry.retry_delay.ToMilliseconds() > 0
            health = health_pb2.HealthCheckResponse.FromString(await caller.ask(CHECK))
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            for call in held:
                call.cancel()
            while True:  # the places are free again
                try:
                    assert pb.ListModelsResponse.FromString(await caller.ask(LIST)).models
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)

        talking(server, conversation)


@pytest.mark.parametrize("method", [LIST, SWEEP, INFER, REFLECTION])
def test_a_request_that_does_not_come_in_time_gives_up_its_place(serving, bundle_path, method):
    with serving(bundle_path, limits=limited(receive_s=0.2)) as server:

        async def conversation(caller):
            errors = await asyncio.gather(*map(status_of, caller.hold(method, CALLS)))
            assert {error.code() for error in errors} == {grpc.StatusCode.ABORTED}
            assert {error.details() for error in errors} == {"no whole request came for 0.2 s"}
            assert pb.ListModelsResponse.FromString(await caller.ask(LIST)).models

        talking(server, conversation)


@pytest.mark.parametrize("method", [LIST, SWEEP, INFER, REFLECTION, CHECK])
def test_a_drain_does_not_wait_for_requests_that_would_be_refused(serving, bundle_path, method):
    with serving(bundle_path, limits=limited()) as server:

        async def conversation(caller):
            held = caller.hold(method, CALLS)
            await caller.ask(LIST if method is CHECK else CHECK)  # those before it have come in
            errors, _ = await asyncio.gather(
                asyncio.gather(*map(status_of, held)), asyncio.to_thread(server.server.stop)
            )
            assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
            assert {error.details() for error in errors} == {"the server is shutting down"}

        talking(server, conversation)


def test_peers_that_take_no_reply_of_reflection_give_up_their_places(serving, bundle_path, until):
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="hardpath.v1.LinkService")
    with serving(bundle_path, limits=limited(stall_s=0.2)) as server:

        def answered():
            try:
                return server.stub.ListModels(pb.ListModelsRequest(), timeout=10.0).models
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
                return False

        method = server.channel.stream_stream(REFLECTION)
        deaf = [method(itertools.repeat(request.SerializeToString())) for _ in range(CALLS)]
        until(lambda: not answered())
        until(answered)
        for call in deaf:
            call.cancel()


def test_a_request_of_reflection_that_cannot_be_read_is_refused(serving, bundle_path, caplog):
    with serving(bundle_path, limits=limited()) as server:

        async def conversation(caller):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.ask(REFLECTION, b"\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (
                caught.value.details() == "request must be a serialized grpc.reflection.v1alpha.ServerReflectionRequest"
            )

        talking(server, conversation)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_stream_without_requests_gives_up_its_place(serving, bundle_path):
    with serving(bundle_path, limits=limited(idle_s=1.0)) as server:

        async def conversation(caller):
            (error,) = await asyncio.gather(*map(status_of, caller.hold(STREAM)))
            assert error.code() is grpc.StatusCode.ABORTED
            assert error.details() == "no request came for 1 s"

        talking(server, conversation)


def test_a_call_that_ends_without_a_request_is_told_so(serving, bundle_path):
    with serving(bundle_path, limits=limited()) as server:

        async def conversation(caller):
            (call,) = caller.hold(LIST)
            await call.done_writing()
            error = await status_of(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "request is missing"

        talking(server, conversation)


def test_a_request_that_is_too_large_is_refused_by_its_size(serving, bundle_path):
    with serving(bundle_path, limits=limited(message_bytes=4096)) as server:

        async def conversation(caller):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.ask(LIST, bytes(5000))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "4096" in caught.value.details()

        talking(server, conversation)


def test_a_burst_of_calls_on_one_connection_is_answered(serving, bundle_path):
    burst = 2000  # more than gRPC's core keeps for a server that is slow to look (1000), unless it is told to
    with serving(bundle_path, limits=limited(concurrent_calls=burst)) as server:

        async def conversation(caller):
            await asyncio.gather(*(caller.ask(LIST) for _ in range(burst)))

        talking(server, conversation)
