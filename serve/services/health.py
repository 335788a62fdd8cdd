"""grpc.health.v1: of the server, its services and its models.

grpcio's own servicer writes to each watcher under a lock that all watchers of a service share, so that one who does not read
keeps the news from all others; and its watchers hold up a drain until the grace has passed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

OVERALL: Final = ""
"""Name of the server as a whole."""

Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """What is serving; belongs to one event loop."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {OVERALL: pb.HealthCheckResponse.NOT_SERVING}
        self._news = asyncio.Event()
        self._leaving = False
        self._closed = False

    def set(self, service: str, serving: bool) -> None:
        """Say whether a service answers; without effect once the server is leaving."""
        if not self._leaving:
            self._put(service, pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING)

    def leave(self) -> None:
        """Say of everything, and for good, that it does not answer any more."""
        self._leaving = True
        for service in self._statuses:
            self._put(service, pb.HealthCheckResponse.NOT_SERVING)

    def close(self) -> None:
        """Let the watchers go."""
        self._closed = True
        self._tell()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service is unknown: {request.service[:100]!a}")
        return pb.HealthCheckResponse(status=status)

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        return pb.HealthListResponse(
            statuses={service: pb.HealthCheckResponse(status=status) for service, status in self._statuses.items()}
        )

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:
        told: int | None = None
        while not self._closed:
            news = self._news  # taken before the status is, so that none is missed
            status = self._statuses.get(request.service, pb.HealthCheckResponse.SERVICE_UNKNOWN)
            if status == told:
                await news.wait()
                continue
            await context.write(pb.HealthCheckResponse(status=status))
            told = status
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def _put(self, service: str, status: int) -> None:
        self._statuses[service] = status
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
