"""/metrics for Prometheus and /healthz for whoever watches, over HTTP on a port of their own.

The endpoint has a thread and an event loop to itself. So neither the milliseconds that a scrape takes to write nor a flood
of connections stands in the queue of the server's own loop, and a client that is slow, or sends what is no HTTP, holds one
of a bounded number of connections for a bounded time. (prometheus_client's own server gives each connection a thread without
a limit in time or number, and answers every path.)
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

from link.errors import MissingExtra, ServerError
from serve.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
PORT: Final = 9464
"""The one that exporters of OpenTelemetry for Prometheus use."""
CONNECTIONS: Final = 32
"""More at a time are closed unanswered."""
TIMEOUT_S: Final = 5.0
"""That a connection may take in all."""

_HEAD_BYTES: Final = 16 * 1024
_END: Final = b"\r\n\r\n"
_PAUSE_S: Final = 0.5
_BREATH_S: Final = 1e-4
"""Between two families: the server's loop gets the interpreter's lock at once and not after the whole page."""
_TEXT: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a path answers with."""

    status: HTTPStatus
    content_type: str
    body: bytes


class MetricsServer:
    """The endpoint; as a context manager it runs inside the block.

    Parameters
    ----------
    snapshot : callable
        Statistics.snapshot; called in the endpoint's thread.
    serving : callable
        Whether the server answers calls now; called in the endpoint's thread.
    host : str
        Address to listen on; the default is reachable from this machine only.
    port : int
        0 takes a free one.
    timeout_s : float
        Seconds that a connection may take in all.

    Attributes
    ----------
    address : str
        Where it listens, as host:port.

    Raises
    ------
    MissingExtra
        If prometheus_client is not installed.
    ServerError
        If the address cannot be had.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        serving: Callable[[], bool],
        *,
        host: str = HOST,
        port: int = PORT,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._registry = _registry(snapshot)
        self._serving = serving
        self._listener = _listener(host, port)
        self._timeout_s = timeout_s
        self._open: dict[asyncio.Future[None], socket.socket] = {}
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="hardpath-metrics", daemon=True)
        listens, at = self._listener.getsockname()[:2]
        self.address = f"[{listens}]:{at}" if ":" in listens else f"{listens}:{at}"

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()
        logger.info("metrics on http://%s/metrics", self.address)

    def stop(self) -> None:
        """Close the port and every connection; twice is once."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        self._loop.close()
        self._listener.close()

    def __enter__(self) -> MetricsServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())  # conversations that are left at its end are cancelled

    async def _serve(self) -> None:
        self._listen()
        await self._stopping.wait()
        self._loop.remove_reader(self._listener)

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # it has gone again
            return
        except OSError as error:  # no file descriptor is left, say: later
            logger.warning("no connection for metrics: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_PAUSE_S, self._listen)
            return
        if len(self._open) == CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        conversation = asyncio.ensure_future(self._converse(connection))
        self._open[conversation] = connection
        conversation.add_done_callback(self._close)

    async def _converse(self, connection: socket.socket) -> None:
        async with asyncio.timeout(self._timeout_s):
            head = b""
            while _END not in head:
                received = await self._loop.sock_recv(connection, _HEAD_BYTES)
                head += received
                if not received or len(head) > _HEAD_BYTES:
                    return
            await self._loop.sock_sendall(connection, self._answer(head))

    def _close(self, conversation: asyncio.Future[None]) -> None:
        self._open.pop(conversation).close()
        error = None if conversation.cancelled() else conversation.exception()
        if error is not None and not isinstance(error, OSError):  # as TimeoutError is: slow, or gone
            logger.error("metrics could not be shown", exc_info=error)

    def _answer(self, head: bytes) -> bytes:
        request, *fields = head.partition(_END)[0].decode("latin-1").split("\r\n")
        method, path = _request(request)
        answer = self._page(method, path, openmetrics=any(map(_asks_for_openmetrics, fields)))
        return _head(answer) + (b"" if method == "HEAD" else answer.body)

    def _page(self, method: str, path: str, *, openmetrics: bool) -> Answer:
        if method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED if method else HTTPStatus.BAD_REQUEST
            return Answer(status, _TEXT, b"GET or HEAD, /metrics or /healthz\n")
        if path == "/metrics":
            return self._metrics(openmetrics)
        if path == "/healthz":
            serving = self._serving()
            return Answer(
                HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE,
                _TEXT,
                b"serving\n" if serving else b"not serving\n",
            )
        return Answer(HTTPStatus.NOT_FOUND, _TEXT, b"/metrics or /healthz\n")

    def _metrics(self, openmetrics: bool) -> Answer:
        from prometheus_client import exposition
        from prometheus_client.openmetrics import exposition as openmetrics_exposition

        if openmetrics:
            body: bytes = openmetrics_exposition.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return Answer(HTTPStatus.OK, openmetrics_exposition.CONTENT_TYPE_LATEST, body)
        return Answer(HTTPStatus.OK, exposition.CONTENT_TYPE_PLAIN_0_0_4, exposition.generate_latest(self._registry))


def _listener(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ServerError(f"cannot listen for metrics on {host}:{port}: the metrics port must be in [0, 65535]")
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(target[:2], family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise ServerError(f"cannot listen for metrics on {host}:{port}: {_obstacle(error, port)}") from None
    listener.setblocking(False)
    return listener


def _obstacle(error: OSError, port: int) -> str:
    """Why there is no listener, in the system's words, which `socket` lengthens by the address."""
    if error.errno == errno.EADDRINUSE:
        return f"the metrics port {port} is in use; stop what holds it or choose another metrics port"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


def _registry(snapshot: Callable[[], Snapshot]) -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ModuleNotFoundError:
        raise MissingExtra("prometheus_client", "serve") from None
    from serve.telemetry.collector import StatisticsCollector

    class Breathing(StatisticsCollector):
        """Between two families it lets other threads run."""

        def collect(self) -> Iterator[Metric]:
            for family in super().collect():
                yield family
                time.sleep(_BREATH_S)

    registry = CollectorRegistry()
    registry.register(Breathing(snapshot))
    ProcessCollector(registry=registry)  # memory, processor time, open files
    return registry


def _request(line: str) -> tuple[str, str]:
    """Method and path of a request line; empty where it is none."""
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return "", ""
    return parts[0], parts[1].partition("?")[0]


def _asks_for_openmetrics(field: str) -> bool:
    name, _, value = field.lower().partition(":")
    return name == "accept" and "application/openmetrics-text" in value


def _head(answer: Answer) -> bytes:
    return (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("latin-1")
