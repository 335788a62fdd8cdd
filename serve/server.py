"""The server: built, started, watched over and drained.

asyncio, one event loop, one process: a handler costs nothing while its request waits in a queue, a caller that goes away is
noticed there, and requests of one turn of the loop make a batch. Graphs run in worker threads, and on the loop itself where
that is quicker than waking a thread (serve.batcher). Bare grpc.aio answered 9 to 10 thousand calls a second at 64 in flight
where threaded grpcio answered 5.5 to 8 thousand.

Draining: health says NOT_SERVING, so that no balancer sends more; after a delay new calls are refused, open streams are told
to come to an end, and calls in flight finish within the grace.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from link.errors import ServerError
from serve.admission import Admission
from serve.batcher import Workers
from serve.config import ServerConfig
from serve.engine import MAX_BATCH, OPERATIONS, Engine, Means, Model
from serve.health import OVERALL, Health
from serve.machine import machine
from serve.pb.hardpath.v1.link_pb2_grpc import add_LinkServiceServicer_to_server
from serve.repository import Repository
from serve.service import NAME, LinkService
from serve.streams import StreamLimits
from serve.unreadable import add_service

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
PORT: Final = 50051
GRACE_S: Final = 10.0

_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_CORE: Final = "grpc._cython.cygrpc"
_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"
_KEEPALIVE_S: Final = 60
_PING_TIMEOUT_S: Final = 20
_LINGER_S: Final = 0.1
"""gRPC, when it stops, cancels calls that nobody has taken up: time for them to be, and for later ones to be refused."""
_REFUSALS: Final = 5
_SWITCH_S: Final = 0.5e-3
"""A thread that holds the interpreter gives way after this, so that a refusal need not wait for a batch."""


class AsyncServer:
    """A server on the running event loop.

    Parameters
    ----------
    config : ServerConfig

    Attributes
    ----------
    address : str
        Where it listens, as host:port, once it was started.

    Raises
    ------
    BundleError
        If a bundle cannot be loaded.
    ArgumentError
        If it has no receiver of that name.
    ServerError
        If the address cannot be had.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.means = _means(config)
        self.repository = Repository(config.bundles, config.receiver, self.means)
        self.repository.swapped = self._swapped
        self._health = Health()
        self._closing = asyncio.get_running_loop().create_future()
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = grpc.aio.server(options=_options(config), maximum_concurrent_rpcs=config.limits.concurrent_calls)
        limits = StreamLimits(samples=config.limits.samples_per_stream, stall_s=config.limits.stall_s)
        service = LinkService(self.engine, limits, self._closing)
        add_service(add_LinkServiceServicer_to_server, service, self._server)
        add_service(health_pb2_grpc.add_HealthServicer_to_server, self._health, self._server)
        if config.listen.reflection != "off":
            _add_reflection((NAME, _HEALTH), self._server)
        self.address = _listen(self._server, config.listen.host, config.listen.port)

    @property
    def engine(self) -> Engine:
        """The models."""
        return self.repository.engine

    async def start(self) -> None:
        """Answer calls from now on."""
        logging.getLogger(_CORE).addFilter(_is_no_peer_that_went)
        await self._server.start()
        for service in (NAME, *(name for model in self.engine.models for name in _health_names(model))):
            self._health.set(service, serving=True)
        self._health.set(OVERALL, serving=True)
        if self._config.lifecycle.watch:
            self._start(self.repository.watch(self._config.lifecycle.watch_interval_s))
        for model in self.engine.models:
            logger.info("serving %s version %d on %s", model.name, model.version, self.address)

    async def drain(self) -> None:
        """NOT_SERVING, then no new calls, then wait for those in flight; twice is once."""
        if self._draining:
            return
        self._draining = True
        logger.info("draining %s", self.address)
        self._health.leave()
        await asyncio.sleep(max(self._config.lifecycle.drain_delay_s, _LINGER_S))
        self._closing.set_result(None)
        self._health.close()
        await asyncio.sleep(0.0)  # what streams have read is let in
        self.means.admission.close()
        for task in self._tasks:
            task.cancel()
        await self._quiet()
        await self._server.stop(self._config.lifecycle.grace_s)
        self.repository.close()
        await asyncio.get_running_loop().run_in_executor(None, self.means.close)

    async def _quiet(self) -> None:
        """Until callers have heard that they are refused, or a while has passed."""
        for _ in range(_REFUSALS):
            before = self.means.admission.turned_away
            await asyncio.sleep(_LINGER_S)
            if self.means.admission.turned_away == before:
                return

    def _swapped(self, model: Model) -> None:
        gc.collect()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Server:
    """A server in a thread of its own, for programs that are not asynchronous; in a `with` block it drains at the end.

    Parameters
    ----------
    bundle : path
    receiver : str, optional
        Which of the bundle's receivers answers, where it has several; the first where absent.
    host : str
        Address to listen on; the default is reachable from this machine only.
    port : int
        0 takes a free one.
    max_batch : int
        Most samples in one request.
    grace_s : float
        Seconds that calls in flight have to finish when the server stops.
    config : ServerConfig, optional
        Everything else.

    Attributes
    ----------
    address : str
        Where it listens, as host:port.
    engine : Engine

    Raises
    ------
    As AsyncServer.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        receiver: str | None = None,
        host: str = HOST,
        port: int = PORT,
        max_batch: int = MAX_BATCH,
        grace_s: float = GRACE_S,
        config: ServerConfig | None = None,
    ) -> None:
        given = (config or ServerConfig()).model_copy(update={"bundles": (Path(bundle),), "receiver": receiver})
        given = given.model_copy(
            update={
                "listen": given.listen.model_copy(update={"host": host, "port": port}),
                "limits": given.limits.model_copy(update={"max_batch": max_batch}),
                "lifecycle": given.lifecycle.model_copy(update={"grace_s": grace_s}),
            }
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hardpath-serve", daemon=True)
        self._thread.start()
        try:
            self._server = self._call(_build(given))
        except BaseException:
            self._end()
            raise
        self.address = self._server.address
        self.engine = self._server.engine
        self.repository = self._server.repository

    def start(self) -> None:
        """Answer calls from now on."""
        self._call(self._server.start())

    def stop(self) -> None:
        """Drain; twice is once."""
        if self._thread.is_alive():
            self._call(self._server.drain())
            self._end()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def serve(config: ServerConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once.

    Call it in the main thread, the only one that may handle signals.

    Parameters
    ----------
    config : ServerConfig
    ready : callable, optional
        Called with the address once calls are answered.

    Raises
    ------
    As AsyncServer.
    """
    sys.setswitchinterval(_SWITCH_S)
    asyncio.run(_serve(config, ready))


async def _serve(config: ServerConfig, ready: Callable[[str], None] | None) -> None:
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def hear(number: signal.Signals) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(other)  # the next one ends the process
        received.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number)
    server = AsyncServer(config)
    await server.start()
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look at it again
    if ready is not None:
        ready(server.address)
    logger.info("received %s", (await received).name)
    await server.drain()


async def _build(config: ServerConfig) -> AsyncServer:
    return AsyncServer(config)


def _means(config: ServerConfig) -> Means:
    # One thread an operation, and a core left to the event loop: two threads on two busy cores made a graph slower.
    workers = config.batching.workers or max(1, machine().threads - 1)
    wait_us = config.batching.max_wait_us
    max_rows = config.batching.max_rows
    if not config.batching.auto:
        wait_us, max_rows = wait_us or 0, max_rows or 1
    return Means(
        workers=Workers(workers),
        admission=Admission(config.limits.queue_requests, config.limits.queue_bytes),
        max_batch=config.limits.max_batch,
        max_rows=max_rows,
        wait_s=None if wait_us is None else 1e-6 * wait_us,
        threads=config.run.threads or 1,
        device=config.run.device,
    )


def _options(config: ServerConfig) -> list[tuple[str, int]]:
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


def _is_no_peer_that_went(record: logging.LogRecord) -> bool:
    """grpcio logs a traceback for each reply whose caller is gone, at the level of a defect."""
    return not record.getMessage().startswith("ExecuteBatchError")


def _health_names(model: Model) -> tuple[str, ...]:
    """Names under which a model's health is told."""
    return model.name, *(f"{model.name}.{operation}" for operation in OPERATIONS)


def _add_reflection(services: tuple[str, ...], server: grpc.aio.Server) -> None:
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


def _listen(server: grpc.aio.Server, host: str, port: int) -> str:
    address = f"[{host}]" if ":" in host else host
    if not 0 <= port <= 65535:
        raise ServerError(f"cannot listen on {address}:{port}: a port is in [0, 65535]")
    reason = _obstacle(host, port)
    if reason is None:
        try:
            return f"{address}:{server.add_insecure_port(f'{address}:{port}')}"
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
