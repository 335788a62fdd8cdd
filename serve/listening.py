"""Where a server listens, how its connections are kept, and what it tells of its services."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from link.errors import ServerError
from serve.config import ServerConfig
from serve.security import Security

_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"
_KEEPALIVE_S: Final = 60
_PING_TIMEOUT_S: Final = 20


def channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    """What gRPC's core is told."""
    limits = config.limits
    options = [
        # Two servers on one port would share its calls between them, unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.max_connection_idle_ms", int(1e3 * limits.idle_s)),
        ("grpc.keepalive_time_ms", 1000 * _KEEPALIVE_S),
        ("grpc.keepalive_timeout_ms", 1000 * _PING_TIMEOUT_S),
    ]
    if limits.connection_age_s is not None:
        options += [
            ("grpc.max_connection_age_ms", int(1e3 * limits.connection_age_s)),
            ("grpc.max_connection_age_grace_ms", int(1e3 * config.lifecycle.grace_s)),
        ]
    return options


def add_reflection(services: tuple[str, ...], server: grpc.aio.Server) -> None:
    """Reflection v1 and v1alpha: grpcio ships v1alpha alone, and v1 differs in the package's name only."""
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


def listen(server: grpc.aio.Server, security: Security, host: str, port: int) -> str:
    """Have a server listen; host:port as it came to be.

    Raises
    ------
    ServerError
        If the address cannot be had.
    """
    address = f"[{host}]" if ":" in host else host
    if not 0 <= port <= 65535:
        raise ServerError(f"cannot listen on {address}:{port}: a port is in [0, 65535]")
    reason = _obstacle(host, port)
    if reason is None:
        try:
            return f"{address}:{security.add_port(server, f'{address}:{port}')}"
        except RuntimeError as error:  # taken between the look and the leap
            reason = _obstacle(host, port) or str(error)
    raise ServerError(f"cannot listen on {address}:{port}: {reason}")


def _obstacle(host: str, port: int) -> str | None:
    """Why a server cannot listen there, in the system's words; gRPC would write it to standard error instead."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is in use; stop what holds it or choose another port"
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return None
