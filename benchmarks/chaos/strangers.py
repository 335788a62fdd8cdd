"""Peers that do not speak as they should: silent, cut off in the middle, of another protocol, or deaf.

Each is a context manager that takes the server's address; within the block the stranger is there, and then gone at once.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import numpy as np

from benchmarks.chaos.questions import Question

CONNECT_S: Final = 10.0
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SIZE: Final = 0x4
_FRAME_BYTES: Final = 16_384
_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() reset the connection."""

Stranger = Callable[[str], AbstractContextManager[None]]


@contextmanager
def silent(address: str, count: int = 1000) -> Iterator[None]:
    """So many connections that say nothing."""
    connections = [_connect(address) for _ in range(count)]
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def sends(address: str, data: bytes) -> Iterator[None]:
    """Bytes, and then nothing; reset in the end."""
    with _connect(address) as connection:
        with suppress(OSError):  # the server may well hang up in the middle
            connection.sendall(data)
        yield
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


def speaks_http1(address: str) -> AbstractContextManager[None]:
    """A browser."""
    return sends(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)


def says_half_a_tls_hello(address: str) -> AbstractContextManager[None]:
    """The first half of a ClientHello: a record of 512 bytes of which 60 come."""
    return sends(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(49)))


def sends_garbage(address: str, seed: int = 0) -> AbstractContextManager[None]:
    """Bytes of no protocol."""
    return sends(address, np.random.default_rng(seed).bytes(4096))


def sends_garbage_after_the_preface(address: str, seed: int = 0) -> AbstractContextManager[None]:
    """HTTP/2 at first."""
    return sends(address, _opening() + np.random.default_rng(seed).bytes(4096))


def is_cut_in_a_frame(address: str, question: Question) -> AbstractContextManager[None]:
    """A request of which half comes."""
    data = _opening() + _request(1, question)
    return sends(address, data[: len(data) - len(question.request) // 2])


def is_gone_after_asking(address: str, question: Question) -> AbstractContextManager[None]:
    """A whole request, whose reply nobody waits for."""
    return sends(address, _opening() + _request(1, question))


def is_deaf(address: str, question: Question, requests: int = 100) -> AbstractContextManager[None]:
    """Requests without end, and no room for a single byte of a reply."""
    asked = b"".join(_request(2 * number + 1, question) for number in range(requests))
    return sends(address, _opening(window=0) + asked)


def ask(address: str, question: Question) -> bytes:
    """The reply to a request, by way of frames as the strangers write them.

    Raises
    ------
    ConnectionError
        If the server hangs up before it has answered.
    """
    reply = b""
    with _connect(address) as connection, connection.makefile("rb") as stream:
        connection.sendall(_opening() + _frame(_SETTINGS, _ACK, 0, b"") + _request(1, question))
        while len(head := stream.read(9)) == 9:
            payload = stream.read(int.from_bytes(head[:3], "big"))
            if head[3] == _DATA:
                reply += payload
            if head[3] in (_DATA, _HEADERS) and head[4] & _END_STREAM:
                return reply[5:]  # without the byte that says uncompressed, and the length
    raise ConnectionError(f"{address} hung up")


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=CONNECT_S)


def _opening(window: int = 65_535) -> bytes:
    """What a client of HTTP/2 begins with."""
    return _PREFACE + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))


def _request(stream: int, question: Question) -> bytes:
    """A unary call: headers, and the message in as many frames as it takes."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": question.method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    message = struct.pack(">BI", 0, len(question.request)) + question.request
    pieces = [message[start : start + _FRAME_BYTES] for start in range(0, len(message), _FRAME_BYTES)]
    frames = [_frame(_DATA, _END_STREAM if piece is pieces[-1] else 0, stream, piece) for piece in pieces]
    return _frame(_HEADERS, _END_HEADERS, stream, block) + b"".join(frames)


def _text(text: str) -> bytes:
    """A string of HPACK (RFC 7541, section 5.2) shorter than 127 bytes, not compressed."""
    return bytes([len(text)]) + text.encode("ascii")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload
