"""Reflection: a server tells its own services and messages, so that grpcurl and the like need no .proto file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from serve.services.door import Door
from serve.services.streams import PeerGone, drop, write

_VERSIONS: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def add_reflection(server: grpc.aio.Server, files: Iterable[FileDescriptor], door: Door, stall_s: float) -> None:
    """Have a server tell the services of these files, and of reflection itself.

    Both versions: grpcio ships v1alpha alone, and v1 differs in the package's name only. The files may come from several
    pools of descriptors (the Open Inference Protocol has one of its own); here they are together in one.

    Parameters
    ----------
    server : grpc.aio.Server
    files : iterable of FileDescriptor
    door : Door
        By which its calls come in, and each of their requests in time.
    stall_s : float
        A peer that takes no reply for so long is let go.
    """
    told = (*files, reflection_pb2.DESCRIPTOR)
    services = [service.full_name for file in told for service in file.services_by_name.values()]
    pool, seen = DescriptorPool(), set[str]()
    for file in told:
        _add(pool, file, seen)
    servicer = ReflectionServicer(services, pool=pool)

    async def answer(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        asked = door.requests(context, reflection_pb2.ServerReflectionRequest)
        try:
            with suppress(PeerGone):
                async for reply in servicer.ServerReflectionInfo(asked, context):
                    await write(context, reply, stall_s)
        except TimeoutError:
            await drop(context, f"no reply was taken for {stall_s:g} s")

    handler = door.guard(
        grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in _VERSIONS)
    )


def _add(pool: DescriptorPool, file: FileDescriptor, seen: set[str]) -> None:
    """A file, and before it all that it imports."""
    if file.name in seen:
        return
    seen.add(file.name)
    for needed in file.dependencies:
        _add(pool, needed, seen)
    pool.AddSerializedFile(file.serialized_pb)
