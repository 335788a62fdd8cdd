"""The server: a thread for each connection, bounded in number, and a clean end."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from link.errors import ServerError
from link.radio.frontend import FrontEnd
from link.radio.iiod.pluto import Pluto
from link.radio.iiod.protocol import Session

_log = logging.getLogger(__name__)

PORT: Final = 30431
"""Where libiio looks for a server unless its URI says otherwise."""
MOST_CONNECTIONS: Final = 32
"""libiio opens one for a program and one for each of its buffers."""


class PlutoServer:
    """Programs on the network see the front end as a PlutoSDR. A context manager: it serves from entry to exit.

    There is no password, and a Pluto has none: bind it to an address that only those can reach who may use the radio.

    Parameters
    ----------
    front_end : FrontEnd
        Opened on entry and closed on exit.
    host : str
        Address to listen on.
    port : int
        0 takes a free one.
    """

    def __init__(self, front_end: FrontEnd, host: str = "127.0.0.1", port: int = PORT) -> None:
        self._front_end = front_end
        self._where = (host, port)
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self._running().server_address[:2]
        return str(host), int(port)

    @property
    def uri(self) -> str:
        """What libiio's programs take to find it."""
        return "ip:{}:{}".format(*self.address)

    @property
    def saturated(self) -> int:
        """I and Q values that clipped at the receiver so far."""
        return self._running().pluto.stream.saturated

    def serve_forever(self) -> None:
        """Wait until `stop`, from another thread or a signal's handler."""
        self._ended.wait()

    def stop(self) -> None:
        """Have `serve_forever` return."""
        self._ended.set()

    def _running(self) -> _Listener:
        if self._listener is None:
            raise ServerError("the PlutoSDR server is not running")
        return self._listener

    def __enter__(self) -> Self:
        """Open the front end and serve.

        Raises
        ------
        RadioError
            If the front end cannot be opened.
        ServerError
            If the address cannot be listened on.
        """
        self._ended.clear()
        self._front_end.open()
        try:
            self._listener = _Listener(self._where, Pluto(self._front_end))
        except (OSError, OverflowError) as error:
            self._front_end.close()
            raise ServerError(f"cannot listen on {self._where[0]}:{self._where[1]}: {error}") from None
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), name="iiod", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        listener, self._listener = self._running(), None
        self._ended.set()
        listener.shutdown()
        listener.end()
        self._front_end.close()


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False  # so that the end waits for them; none of them waits without a limit
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, where: tuple[str, int], pluto: Pluto) -> None:
        self.pluto = pluto
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(where, _Connection)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                _log.warning("refused a connection: %d are open", MOST_CONNECTIONS)
                return False
            self._open.add(request)
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.exception("a connection ended")

    def end(self) -> None:
        """End every connection, and wait for it."""
        self.pluto.stream.end()
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        listener = cast(_Listener, self.server)
        with contextlib.suppress(OSError):  # the client is gone
            Session(listener.pluto, cast(BinaryIO, self.rfile), self.request.sendall).run()
