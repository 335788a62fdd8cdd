"""What stands between gRPC and the methods: room for the call, its request in time, and one that can be read.

    call ──> room? ──> request ──> read in time? ──> readable? ──> method
              └── RESOURCE_EXHAUSTED    └── ABORTED      └── INVALID_ARGUMENT

gRPC would read a method's one request before anything of the server sees the call, and wait for it for ever. So to gRPC all
methods take streams, which on the wire is the same, and the one request is read here. A server that drains waits for none.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import Message

from link.errors import ArgumentError
from serve.engine.errors import Overloaded, ShuttingDown
from serve.messages.status import refuse
from serve.services.streams import drop
from serve.services.unreadable import Unreadable, reader

_LOOKS: Final = 4
"""How often, within the time that a request has, those that are late are looked for."""
_RETRY_S: Final = 1.0

Context = grpc.aio.ServicerContext[Any, Any]
_Unary = Callable[[Any, Context], Awaitable[Any]]
_Stream = Callable[[AsyncIterator[Any], Context], Awaitable[Any]]


class Door:
    """The way in to some services of a server; belongs to one event loop.

    Parameters
    ----------
    calls : int
        Most calls of these services in flight, streams included.
    receive_s : float
        A request has to be there so long after its call began.

    Attributes
    ----------
    inside : int
        Calls in flight.
    """

    def __init__(self, calls: int, receive_s: float) -> None:
        self.inside = 0
        self._most = calls
        self._receive_s = receive_s
        self._awaited: dict[asyncio.Task[Any], float] = {}  # the longest awaited first
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False
        self._closed = False

    def add(self, add: Callable[[Any, Any], None], servicer: object, server: grpc.aio.Server) -> None:
        """Add a servicer to a server by the generated function that does so, such that its calls come in here."""
        add(servicer, _Registrar(server, self))

    def guard(self, handler: Any) -> Any:
        """A method's handler behind this door."""
        kind = handler.request_deserializer.__self__  # FromString is a method of the class
        method = handler.stream_stream or handler.stream_unary
        if method is None:
            method = self._single(handler.unary_unary or handler.unary_stream, kind)
        to_handler = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return to_handler(self._counted(method, kind), reader(kind), handler.response_serializer)

    async def requests(self, context: Context, kind: type[Message]) -> AsyncIterator[Any]:
        """The requests of a stream that waits for nothing but them, each in time after the one before it."""
        while (request := await self._request(context, kind)) is not None:
            yield request

    def close(self) -> None:
        """End the wait for requests: what came now would be refused."""
        self._closed = True
        self._end(tuple(self._awaited))

    def _counted(self, method: _Stream, kind: type[Message]) -> _Stream:
        """A method that is called while there is room, and of which an aborted call keeps nothing.

        gRPC keeps the error that ends a call with the call. Its traceback keeps the frames that it passed: one that holds
        the call would close a ring, and the request would stay until the collector of garbage comes.
        """

        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            self.inside += 1
            try:
                if self.inside > self._most:
                    await refuse(context, self._full(), kind())
                return await method(requests, context)
            except grpc.aio.AbortError as ended:
                ended.__context__ = None
                raise ended.with_traceback(None) from None
            finally:
                self.inside -= 1
                del requests, context

        return answer

    def _single(self, method: _Unary, kind: type[Message]) -> _Stream:
        """A method of one request as one of a stream of them."""

        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            request = await self._request(context, kind)
            if request is None:
                await refuse(context, ArgumentError("request", "is missing"), kind())
            return await method(request, context)

        return answer

    def _full(self) -> Overloaded:
        return Overloaded(f"{self._most} calls are in flight, as many as may", _RETRY_S)

    async def _request(self, context: Context, kind: type[Message]) -> Any:
        """The next request of a call, in time; None where none comes any more."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._awaited[task] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(self._receive_s / _LOOKS, self._look, loop)
        late, request = False, None
        try:
            request = await context.read()
        except asyncio.CancelledError:
            late = task in self._late
            if not late:
                raise
        finally:
            self._awaited.pop(task, None)
            self._late.discard(task)
        if late:
            task.uncancel()
            await self._give_up(context, kind)
        if type(request) is Unreadable:
            await refuse(context, request.error, kind())
        return None if request is grpc.aio.EOF else request  # type: ignore[attr-defined]  # the stubs lack it

    async def _give_up(self, context: Context, kind: type[Message]) -> NoReturn:
        """End a call whose request is not waited for any more."""
        if self._closed:
            await refuse(context, ShuttingDown("the server is shutting down"), kind())
        await drop(context, f"no whole request came for {self._receive_s:g} s")
        raise asyncio.CancelledError  # nobody took the status

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait for what is late."""
        latest = loop.time() - self._receive_s
        self._end(tuple(itertools.takewhile(lambda task: self._awaited[task] <= latest, self._awaited)))
        self._looking = bool(self._awaited)
        if self._looking:
            loop.call_later(self._receive_s / _LOOKS, self._look, loop)

    def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """End the wait of these."""
        for task in tasks:
            del self._awaited[task]
            self._late.add(task)
            task.cancel()


class _Registrar:
    """Stands for the server where a generated function adds methods to it."""

    def __init__(self, server: grpc.aio.Server, door: Door) -> None:
        self._server = server
        self._door = door

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """They are the registered ones once more."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        guarded = {name: self._door.guard(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))
