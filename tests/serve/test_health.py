"""grpc.health.v1 over the wire."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from serve.services.health import Health

SERVING, NOT_SERVING, UNKNOWN = (
    pb.HealthCheckResponse.SERVING,
    pb.HealthCheckResponse.NOT_SERVING,
    pb.HealthCheckResponse.SERVICE_UNKNOWN,
)
WAIT_S = 20.0


def with_a_server(scene):
    """Run a scene of a servicer, a stub and the server that joins them."""

    async def run():
        health, server = Health(), grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(scene(health, health_pb2_grpc.HealthStub(channel)), WAIT_S)
        await server.stop(None)

    asyncio.run(run())


def test_a_watcher_hears_of_each_change_and_of_none_twice():
    async def scene(health, stub):
        watcher = stub.Watch(pb.HealthCheckRequest(service="tiny"))
        assert (await watcher.read()).status == UNKNOWN
        for serving, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            health.set("tiny", serving)
            health.set("tiny", serving)
            health.set("other", not serving)
            assert (await watcher.read()).status == status

    with_a_server(scene)


def test_what_leaves_does_not_come_back_and_its_watchers_are_let_go():
    async def scene(health, stub):
        health.set("tiny", serving=True)
        watcher = stub.Watch(pb.HealthCheckRequest(service="tiny"))
        assert (await watcher.read()).status == SERVING
        health.leave()
        health.set("tiny", serving=True)
        assert (await watcher.read()).status == NOT_SERVING
        assert (await stub.Check(pb.HealthCheckRequest(service="tiny"))).status == NOT_SERVING
        health.close()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await watcher.read()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE

    with_a_server(scene)


def test_all_is_listed_and_what_is_not_there_is_not_found():
    async def scene(health, stub):
        health.set("tiny", serving=True)
        listed = (await stub.List(pb.HealthListRequest())).statuses
        assert {service: reply.status for service, reply in listed.items()} == {"": NOT_SERVING, "tiny": SERVING}
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(pb.HealthCheckRequest(service="gone"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND

    with_a_server(scene)


def test_a_watcher_that_does_not_read_keeps_the_news_from_nobody():
    async def scene(health, stub):
        class Deaf:
            async def write(self, message):
                await asyncio.Event().wait()

        deaf = asyncio.create_task(health.Watch(pb.HealthCheckRequest(service="tiny"), Deaf()))
        await asyncio.sleep(0.0)
        watcher = stub.Watch(pb.HealthCheckRequest(service="tiny"))
        assert (await watcher.read()).status == UNKNOWN
        health.set("tiny", serving=True)
        assert (await watcher.read()).status == SERVING
        deaf.cancel()

    with_a_server(scene)
