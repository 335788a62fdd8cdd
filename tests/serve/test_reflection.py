import asyncio

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from serve.pb.hardpath.v1 import link_pb2
from serve.pb.inference import grpc_service_pb2
from serve.services.door import Door
from serve.services.reflection import add_reflection

FILES = (link_pb2.DESCRIPTOR, grpc_service_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)


def asked(version, *requests):
    """What a server replies over one stream of reflection."""

    async def run():
        server = grpc.aio.server()
        add_reflection(server, FILES, Door(calls=8, receive_s=60.0), 30.0)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.stream_stream(
                    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                    request_serializer=pb.ServerReflectionRequest.SerializeToString,
                    response_deserializer=pb.ServerReflectionResponse.FromString,
                )
                return [response async for response in call(iter(requests))]
        finally:
            await server.stop(0)

    return asyncio.run(run())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_all_services_are_listed_whatever_pool_they_come_from(version):
    (response,) = asked(version, pb.ServerReflectionRequest(list_services=""))
    assert sorted(service.name for service in response.list_services_response.service) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "hardpath.v1.LinkService",
        "inference.GRPCInferenceService",
    ]


@pytest.mark.parametrize("symbol", ["hardpath.v1.LinkService", "inference.ModelInferRequest", "inference.ModelConfig"])
def test_a_symbol_comes_with_all_that_it_needs(symbol):
    (response,) = asked("v1", pb.ServerReflectionRequest(file_containing_symbol=symbol))
    pool = DescriptorPool()
    for file in reversed(response.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(file)
    assert pool.FindFileContainingSymbol(symbol).package == symbol.rpartition(".")[0]


def test_what_the_server_does_not_know_is_not_found():
    (response,) = asked("v1", pb.ServerReflectionRequest(file_containing_symbol="inference.Nothing"))
    assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
