"""Where a server listens, and how its connections are kept."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

import grpc

from link.errors import ServerError
from serve.config.schema import ServerConfig
from serve.security.guard import Security

_KEEPALIVE_S: Final = 60
_PING_TIMEOUT_S: Final = 20


def channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    """What gRPC's core is told."""
    limits = config.limits
    options = [
        # Two servers on one port would share its calls between them, unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),  # a reply is as large as the request asked for
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        # Calls that came and were not looked at yet: gRPC cancels what is more, without a word to the caller.
        ("grpc.server.max_pending_requests", limits.concurrent_calls),
        ("grpc.server.max_pending_requests_hard_limit", limits.concurrent_calls),
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


def listen(server: grpc.aio.Server, security: Security, host: str, port: int) -> str:
    """Have a server listen; host:port as it came to be.

    Raises
    ------
    ServerError
        If the address cannot be had.
    """
    host = host.removeprefix("[").removesuffix("]")  # an IPv6 address may come as it stands in a URL
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
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return None
