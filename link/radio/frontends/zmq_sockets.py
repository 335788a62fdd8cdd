"""Samples through one ZMQ socket, and who is at its other end.

    Line ──> Pusher, Replier     samples go out: to a PULL socket, or in reply to a REQ socket
         ──> Puller, Requester   samples come in: from a PUSH socket, or requested of a REP socket

Needs pyzmq at import; link/radio/frontends/zmq.py imports it when a front end is opened.
"""

from __future__ import annotations

import errno
import math
import time
from contextlib import suppress
from typing import ClassVar, Final, TypeAlias

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from link.errors import RadioError
from link.radio.frontend import EMPTY, Block, Samples

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]

SAMPLE_BYTES: Final = 8
COUNT_BYTES: Final = 4
_LINGER_MS: Final = 1000
"""Longest that closing waits for a peer to take what was handed over."""
_EVENTS: Final = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


class Line:
    """A socket, and who is at its other end: ZMQ tells that to a monitor of the socket alone.

    Attributes
    ----------
    socket : zmq.Socket
    endpoint : str
        As it was bound.
    peers : int
        Connections that are open and shook hands; strangers do not.
    visits : int
        Peers that ever came.
    """

    def __init__(self, context: Context, kind: int, endpoint: str, binds: bool, high_water_mark: int) -> None:
        self.socket = context.socket(kind)
        self.endpoint = endpoint
        self.peers = self.visits = 0
        self._binds = binds
        self._open: set[int] = set()  # descriptors of connections, those of strangers included
        self._refused = False
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, high_water_mark),
            (zmq.RCVHWM, high_water_mark),
            # Nothing is taken for a peer that is not there; a receiver would drop with the connection what it has not given.
            (zmq.IMMEDIATE, kind in (zmq.PUSH, zmq.ROUTER)),
            # A peer whose machine is gone. ZMQ's own heartbeats would take one for dead that is slow to read.
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 5),
            (zmq.TCP_KEEPALIVE_INTVL, 1),
            (zmq.TCP_KEEPALIVE_CNT, 5),
        ):
            self.socket.setsockopt(option, value)
        if kind == zmq.ROUTER:
            self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a reply to a peer that is gone is refused, not dropped
        self._monitor = self.socket.get_monitor_socket(_EVENTS)
        try:
            (self.socket.bind if binds else self.socket.connect)(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise RadioError(
                f"cannot {'bind' if binds else 'connect to'} {endpoint}: {zmq.strerror(error.errno)}"
            ) from None
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def look(self) -> None:
        """Learn who came and who went.

        Raises
        ------
        RadioError
            If more than one program is connected, or what was connected to speaks otherwise.
        """
        while self._monitor.poll(0):
            self.socket.poll(0)  # lets go of the connections that ended before the one told of now began
            message = recv_monitor_message(self._monitor)
            event, descriptor = message["event"], int(message["value"])
            if event in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED):
                self._open.add(descriptor)
                self._refused = not self._binds  # until the peer has shown that it is of the kind wanted
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.peers += 1
                self.visits += 1
                self._refused = False
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._refused = False  # it went before it had said what it is; ZMQ tries again
            elif event == zmq.EVENT_DISCONNECTED:
                self._open.discard(descriptor)
                self.peers = min(self.peers, len(self._open))
        if self.peers > 1:
            raise RadioError(f"{self.peers} programs share the samples at {self.endpoint}: end all but one")
        if self._refused and not self._open:
            raise RadioError(f"what listens at {self.endpoint} is no ZMQ socket of the kind that this pattern needs")

    def wait(self, event: int, deadline: float) -> bool:
        """Whether the socket gets ready for this (POLLIN or POLLOUT) in time, or somebody comes.

        Raises
        ------
        RadioError
            If it is not, and its peer has gone; as for `look`.
        """
        poller = zmq.Poller()
        poller.register(self.socket, event)
        poller.register(self._monitor, zmq.POLLIN)
        visits = self.visits
        while True:
            self.look()
            if self.visits > visits:
                return True
            gone = self.visits > 0 and not self.peers
            left_s = 0.0 if gone else max(0.0, deadline - time.monotonic())
            ready = dict(poller.poll(math.ceil(1e3 * left_s)))
            if self.socket in ready:
                self.look()
                return True
            if self._monitor not in ready:
                if gone:
                    raise RadioError(f"the peer at {self.endpoint} is gone")
                return False

    def close(self) -> None:
        """Let go of it; what was handed over still reaches a peer that is there and reads."""
        with suppress(RadioError):
            self.look()
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(_LINGER_MS if self.peers else 0)


class Pusher:
    """Hands samples over to a PULL socket, in messages of at most so many samples."""

    kind: ClassVar[int] = zmq.PUSH

    def __init__(self, line: Line, message_samples: int) -> None:
        self.line = line
        self._message = message_samples

    def send(self, samples: Samples, deadline: float) -> int:
        self.line.look()
        while not (taken := self._push(samples)) and len(samples) and self.line.wait(zmq.POLLOUT, deadline):
            pass
        return taken

    def _push(self, samples: Samples) -> int:
        for start in range(0, len(samples), self._message):
            try:
                self.line.socket.send(samples[start : start + self._message], zmq.NOBLOCK)
            except zmq.Again:
                return start
        return len(samples)


class Replier:
    """Hands samples over to a REQ socket, a message for each request.

    Its socket is a ROUTER, which a REQ cannot tell from a REP: a REP would drop, and not tell, the reply to a peer that has
    gone since it asked.
    """

    kind: ClassVar[int] = zmq.ROUTER

    def __init__(self, line: Line, message_samples: int) -> None:
        self.line = line
        self._message = message_samples
        self._request: tuple[list[bytes], int] | None = None

    def send(self, samples: Samples, deadline: float) -> int:
        self.line.look()
        taken = 0
        while taken < len(samples):
            if self._request is None:
                self._request = self._next_request()
            if self._request is not None:
                taken += self._reply(samples[taken:], *self._request)
            elif taken or not self.line.wait(zmq.POLLIN, deadline):
                break
        return taken

    def _reply(self, samples: Samples, envelope: list[bytes], most: int) -> int:
        count = min(len(samples), most)
        self._request = None
        try:
            self.line.socket.send_multipart([*envelope, samples[:count]], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return 0  # who asked is gone, or reads no replies
        return count

    def _next_request(self) -> tuple[list[bytes], int] | None:
        """Whom to answer, and how many samples at most."""
        try:
            *envelope, request = self.line.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        if len(request) == COUNT_BYTES:
            return envelope, min(self._message, int.from_bytes(request, "little"))
        if len(request) == 1:
            return envelope, self._message
        raise RadioError(
            f"the peer at {self.line.endpoint} requests with {len(request)} bytes; GNU Radio does with 4, srsRAN with 1"
        )


class Puller:
    """Takes samples from a PUSH socket."""

    kind: ClassVar[int] = zmq.PULL

    def __init__(self, line: Line, message_samples: int) -> None:
        self.line = line
        self._message = message_samples
        self._rest: Samples = EMPTY
        self._visits = 0  # of those peers whose first samples were given
        self._refusal: str | None = None
        self._refused = False

    def recv(self, most: int, deadline: float) -> Block:
        self.line.look()
        while not (pieces := self._gather(most)):
            if self._refusal is not None:
                message, self._refusal, self._refused = self._refusal, None, True
                raise RadioError(message)
            if most < 1 or not self.line.wait(self._ask(), deadline):
                return Block()
        interrupted = self._refused or 0 < self._visits < self.line.visits
        self._refused, self._visits = False, self.line.visits
        return Block(np.concatenate(pieces), None if interrupted else 0)

    def _gather(self, most: int) -> list[Samples]:
        """What is there, up to so many samples."""
        pieces: list[Samples] = []
        while most > 0 and (piece := self._rest if len(self._rest) else self._next_message()) is not None:
            piece, self._rest = piece[:most], piece[most:]
            most -= len(piece)
            if len(piece):
                pieces.append(piece)
        return pieces

    def _next_message(self) -> Samples | None:
        """None where there is none, or one that must be told of once those before it were given."""
        if self._refusal is not None:
            return None
        try:
            message = self._take()
        except zmq.Again:
            return None
        if len(message) % SAMPLE_BYTES:
            self._refusal = (
                f"a message of {len(message)} bytes from {self.line.endpoint} is no whole number of complex64 samples, "
                f"{SAMPLE_BYTES} bytes each; does it carry tags?"
            )
            return None
        return np.frombuffer(message, dtype="<c8")

    def _take(self) -> bytes:
        return self.line.socket.recv(zmq.NOBLOCK)

    def _ask(self) -> int:
        """Ask for a message, where that is needed; what to wait for."""
        return zmq.POLLIN


class Requester(Puller):
    """Takes samples from a REP socket, of which it requests so many a message.

    It requests the next message once one has come, so that it is on its way while this one is worked on. Its socket is a
    DEALER, which a REP cannot tell from a REQ: a REQ would wait for ever for a reply of a peer that has gone.
    """

    kind: ClassVar[int] = zmq.DEALER

    def __init__(self, line: Line, message_samples: int) -> None:
        super().__init__(line, message_samples)
        self._asked = 0  # the visit in which a request is out: with a peer goes its request

    def _take(self) -> bytes:
        self._ask()
        *_, message = self.line.socket.recv_multipart(zmq.NOBLOCK)
        self._asked = 0
        self._ask()
        return message

    def _ask(self) -> int:
        if self.line.peers and self._asked != self.line.visits:
            try:
                self.line.socket.send_multipart([b"", self._message.to_bytes(COUNT_BYTES, "little")], zmq.NOBLOCK)
            except zmq.Again:
                return zmq.POLLIN | zmq.POLLOUT
            self._asked = self.line.visits
        return zmq.POLLIN
