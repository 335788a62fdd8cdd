"""What stands in front of every method: it refuses requests that are no messages, bytes that cannot be parsed.

gRPC answers them UNKNOWN, as a fault of the server, with a traceback in the log for each. Here they are refused as any other
wrong argument: the deserializer hands on that it could not read, and what stands in front of a method says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError, Message

from link.errors import ArgumentError
from serve.messages.status import refuse

Context = grpc.aio.ServicerContext[Any, Any]
_Method = Callable[[Any, Context], Awaitable[Any]]
_STYLES: Final = ("unary_unary", "unary_stream", "stream_stream")


class Unreadable(NamedTuple):
    """What a method gets in place of a message; those that take one message never see it, those that take a stream do."""

    kind: type[Message]

    @property
    def error(self) -> ArgumentError:
        """What its sender is told."""
        return ArgumentError("request", f"must be a serialized {self.kind.DESCRIPTOR.full_name}")


def add_service(add: Callable[[Any, Any], None], servicer: object, server: grpc.aio.Server) -> None:
    """Add a servicer to a server by the generated function that does so, such that it refuses what it cannot read."""
    add(servicer, _Registrar(server))


class _Registrar:
    """Stands for the server where a generated function adds methods to it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """They are the registered ones once more."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        guarded = {name: _guarded(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def _guarded(handler: Any) -> Any:
    guarded = handler._replace(request_deserializer=_reader(handler.request_deserializer))
    for style in _STYLES:
        method = getattr(handler, style)
        if method is not None:
            guarded = guarded._replace(**{style: _called(method)})
    return guarded


def _reader(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | Unreadable]:
    kind: type[Message] = parse.__self__  # type: ignore[attr-defined]  # FromString is a method of the class

    def read(data: bytes) -> Message | Unreadable:
        try:
            return parse(data)
        except DecodeError:
            return Unreadable(kind)

    return read


def _called(method: _Method) -> _Method:
    """A method that is not called with what could not be read, and of which an aborted call keeps nothing.

    gRPC keeps the error that ends a call with the call. Its traceback keeps the frames that it passed: one that holds the
    call would close a ring, and the request would stay until the collector of garbage comes.
    """

    async def answer(request: Any, context: Context) -> Any:
        try:
            if type(request) is Unreadable:
                await refuse(context, request.error, request.kind())
            return await method(request, context)
        except grpc.aio.AbortError as ended:
            ended.__context__ = None
            raise ended.with_traceback(None) from None
        finally:
            del request, context

    return answer
