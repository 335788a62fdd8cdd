"""gRPC alone: a server that answers a method with bytes that were made before, without looking at the request.

    python -m benchmarks.serving.peers.bare aio|threads REPLY ...

`/bare/0` is answered with what is in the first file, `/bare/1` with what is in the second. No server that is built on grpcio
is faster than this.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Final

import grpc

METHOD: Final = "/bare/"
_WORKERS: Final = 4
_OPTIONS: Final = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))


class _Bare(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, replies: Sequence[bytes], aio: bool) -> None:
        make = _later if aio else _at_once
        self._handlers = [grpc.unary_unary_rpc_method_handler(make(reply)) for reply in replies]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._handlers[int(handler_call_details.method.removeprefix(METHOD))]


def _later(reply: bytes) -> Callable[[bytes, object], Awaitable[bytes]]:
    async def answer(request: bytes, context: object) -> bytes:
        return reply

    return answer


def _at_once(reply: bytes) -> Callable[[bytes, object], bytes]:
    return lambda request, context: reply


async def _asyncio(replies: Sequence[bytes]) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_Bare(replies, aio=True),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _threads(replies: Sequence[bytes]) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(_WORKERS), options=_OPTIONS)
    server.add_generic_rpc_handlers((_Bare(replies, aio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    given = [Path(file).read_bytes() for file in sys.argv[2:]]
    if sys.argv[1] == "aio":
        asyncio.run(_asyncio(given))
    else:
        _threads(given)
