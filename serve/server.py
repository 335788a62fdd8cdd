"""The server: built, started, watched over and drained.

Threads, not asyncio: ONNX Runtime and NumPy leave the interpreter's lock while they compute, a blocking call needs no detour
through an executor, and a thread a request answered about as fast or faster at every concurrency that was measured with one
run of a graph a request.

Draining: health says NOT_SERVING, so that no balancer sends more; new calls are refused; calls in flight finish within the
grace.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from link.bundle import load_bundle
from link.errors import ServerError
from serve.engine import MAX_BATCH, Engine
from serve.pb.hardpath.v1.link_pb2_grpc import add_LinkServiceServicer_to_server
from serve.service import NAME, LinkService
from serve.tensor import MESSAGE_BYTES

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
PORT: Final = 50051
GRACE_S: Final = 10.0

_WORKERS: Final = 16
_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"


class Server:
    """A gRPC server for one bundle; as a context manager it runs inside the block and drains at its end.

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

    Attributes
    ----------
    address : str
        Where it listens, as host:port.

    Raises
    ------
    BundleError
        If the bundle cannot be loaded.
    ArgumentError
        If it has no receiver of that name.
    ServerError
        If the address cannot be had.
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
    ) -> None:
        self.engine = Engine(load_bundle(bundle, receiver), max_batch=max_batch)
        self._grace_s = grace_s
        self._workers = futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="hardpath-serve")
        self._health = health.HealthServicer()
        self._server = grpc.server(
            self._workers,
            options=[
                # Two servers on one port would share its calls between them, unnoticed.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
            ],
        )
        add_LinkServiceServicer_to_server(LinkService(self.engine), self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _add_reflection((NAME, health.SERVICE_NAME), self._server)
        self.address = _listen(self._server, host, port)

    def start(self) -> None:
        """Answer calls from now on."""
        self._server.start()
        for service in (NAME, health.OVERALL_HEALTH):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        manifest = self.engine.link.manifest
        logger.info("serving %s version %d on %s", manifest.name, manifest.version, self.address)

    def stop(self) -> None:
        """Drain: NOT_SERVING, then no new calls, then wait for those in flight; twice is once."""
        self._health.enter_graceful_shutdown()
        logger.info("draining %s", self.address)
        self._server.stop(self._grace_s).wait()
        self._workers.shutdown(wait=False)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    bundle: Path | str,
    host: str = HOST,
    port: int = PORT,
    *,
    receiver: str | None = None,
    ready: Callable[[str], None] | None = None,
    max_batch: int = MAX_BATCH,
    grace_s: float = GRACE_S,
) -> None:
    """Serve a bundle until SIGINT or SIGTERM, then drain; a second signal ends the process at once.

    Call it in the main thread, the only one that may handle signals. Parameters and errors as for Server.

    Parameters
    ----------
    ready : callable, optional
        Called with the address once calls are answered.
    """
    server = Server(bundle, receiver=receiver, host=host, port=port, max_batch=max_batch, grace_s=grace_s)
    with server, _signals() as received:
        if ready is not None:
            ready(server.address)
        logger.info("received %s", received.get().name)


@contextmanager
def _signals() -> Iterator[SimpleQueue[signal.Signals]]:
    """SIGINT and SIGTERM as items of a queue; SimpleQueue.put, unlike Event.set, is safe inside a signal handler."""
    received: SimpleQueue[signal.Signals] = SimpleQueue()
    previous = {
        number: signal.signal(number, lambda number, _: received.put(signal.Signals(number)))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _add_reflection(services: tuple[str, ...], server: grpc.Server) -> None:
    """Reflection v1 and v1alpha: grpcio ships v1alpha alone, and v1 differs in the package's name only."""
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


def _listen(server: grpc.Server, host: str, port: int) -> str:
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
