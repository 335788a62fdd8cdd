"""gRPC alone: a server that answers every call with the same bytes, without looking at the request.

    python -m benchmarks.serving.peers.bare aio|threads REPLY

No server in Python that is built on grpcio is faster than this.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent import futures
from pathlib import Path
from typing import Final

import grpc

_WORKERS: Final = 4
_OPTIONS: Final = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))


class _Echo(grpc.GenericRpcHandler):
    """Any method, unary or a stream of messages."""

    def __init__(self, reply: bytes, aio: bool) -> None:
        self._unary = grpc.unary_unary_rpc_method_handler(self._answer if aio else lambda *_: reply)
        self._stream = grpc.stream_stream_rpc_method_handler(self._answers if aio else self._answer_each)
        self._reply = reply

    async def _answer(self, request: bytes, context: object) -> bytes:
        return self._reply

    async def _answers(self, requests, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        async for _ in requests:
            yield self._reply

    def _answer_each(self, requests, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return (self._reply for _ in requests)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._stream if "Stream" in handler_call_details.method else self._unary


async def _asyncio(reply: bytes) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_Echo(reply, aio=True),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _threads(reply: bytes) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(_WORKERS), options=_OPTIONS)
    server.add_generic_rpc_handlers((_Echo(reply, aio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    given = Path(sys.argv[2]).read_bytes()
    if sys.argv[1] == "aio":
        asyncio.run(_asyncio(given))
    else:
        _threads(given)
