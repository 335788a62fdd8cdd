"""The client for asyncio: the calls of serve.client.Client, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

import grpc
import grpc.aio
from numpy.typing import ArrayLike

from link.runtime import Transmission
from serve.client import calls, requests
from serve.client.calls import Asked, Call, Caller, Plan, Progress
from serve.client.failures import BROKEN, Failed, failure_of_call, failure_of_message
from serve.client.feed import AsyncFeed
from serve.client.pieces import Job, Part, Piece
from serve.client.points import SweepPoint, point_from_message
from serve.client.requests import Inputs, LinkOptions, ModelSummary, SweepOptions
from serve.client.retries import Course, Retries
from serve.client.target import target_of
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc
from serve.results import Decoded, ModelInfo, Transmitted

if TYPE_CHECKING:
    from link.sequence import SequenceTables

Result = TypeVar("Result")


class AsyncClient:
    """A connection to one server or several, for one event loop; parameters, results and errors as for serve.client.Client.

    It connects at the first call, in the loop that makes it.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        timeout_s: float = calls.TIMEOUT_S,
        retries: Retries = Retries(),  # noqa: B008 (a constant)
        max_batch: int | None = None,
        token: str | None = None,
        tls: bool = False,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        server_name: str | None = None,
    ) -> None:
        target = target_of(
            address, token=token, tls=tls, ca=ca, certificate=certificate, key=key, server_name=server_name
        )
        self.address = address
        self._caller = Caller(target, model, timeout_s, retries, max_batch)
        self._metadata = target.metadata

    async def models(self, *, timeout_s: float | None = None) -> tuple[ModelSummary, ...]:
        """As Client.models."""
        return await self._run(self._caller.begin(timeout_s), requests.summaries())

    async def model(self, model: str | None = None, *, timeout_s: float | None = None) -> ModelInfo:
        """As Client.model."""
        return await self._run(self._caller.begin(timeout_s), requests.describe(self._caller.name(model)))

    async def sequence(self, model: str | None = None, *, timeout_s: float | None = None) -> SequenceTables:
        """As Client.sequence."""
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        return (await self._run(call, requests.sequence(model, await self._info(call, model)))).tables

    async def encode(
        self,
        x: Inputs,
        *,
        snr_db: float | None = None,
        mode: ArrayLike | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Transmission:
        """As Client.encode."""
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        info = await self._info(call, model)
        return await self._run(call, requests.encode(x, info, model, snr_db, mode), progress)

    async def decode(
        self,
        symbols: ArrayLike | None = None,
        no: ArrayLike | None = None,
        *,
        mode: ArrayLike | None = None,
        llr_in: ArrayLike | None = None,
        bits: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        include_llr: bool = False,
        model: str | None = None,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Decoded:
        """As Client.decode."""
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        info = await self._info(call, model)
        job = requests.decode(info, model, symbols, no, mode, llr_in, bits, include_llr, inputs)
        return await self._run(call, job, progress)

    async def transmit(
        self,
        x: Inputs,
        *,
        snr_db: float | None = None,
        mode: ArrayLike | None = None,
        include_llr: bool = False,
        include_symbols: bool = False,
        model: str | None = None,
        timeout_s: float | None = None,
        progress: Progress | None = None,
        **options: Unpack[LinkOptions],
    ) -> Transmitted:
        """As Client.transmit."""
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        info = await self._info(call, model)
        job = requests.transmit(x, info, model, snr_db, include_llr, include_symbols, options, mode)
        return await self._run(call, job, progress)

    async def transmit_stream(
        self,
        batches: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        snr_db: float | None = None,
        mode: ArrayLike | None = None,
        include_llr: bool = False,
        include_symbols: bool = False,
        in_flight: int = calls.IN_STREAM,
        model: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[LinkOptions],
    ) -> AsyncGenerator[Transmitted, None]:
        """As Client.transmit_stream; `batches` may be an asynchronous iterable, and is read in a task of its own."""
        call, model = self._caller.begin(timeout_s, unlimited=True), self._caller.name(model)
        plan = Plan(await self._info(call, model), model, snr_db, include_llr, include_symbols, options, mode)
        feed, parts = AsyncFeed(plan, batches, in_flight), list[Part]()
        async with aclosing(self._streamed(call, feed)) as answered:
            async for asked, part in answered:
                parts.append(part)
                if asked.ends:
                    whole = calls.of_one_version(parts)
                    yield call.joined(asked.job, parts) if whole else await self._run(call, asked.job)
                    parts = []

    async def sweep(
        self,
        x: Inputs,
        snr_db: Sequence[float],
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SweepOptions],
    ) -> AsyncGenerator[SweepPoint, None]:
        """As Client.sweep."""
        call, model = self._caller.begin(timeout_s, unlimited=True), self._caller.name(model)
        request = requests.sweep(x, await self._info(call, model), model, snr_db, options)
        course, done, digest = call.course(), 0, None
        while True:
            replies = self._send(call, self._stub.Sweep, requests.without(request, done), course)
            try:
                with call.until_closed():
                    async for reply in replies:
                        digest = call.same_model(digest, reply.model_digest)
                        course.succeeded()
                        done += 1
                        yield point_from_message(reply)
                return
            except grpc.RpcError as error:
                if done == len(request.snr_db):
                    return
                await asyncio.sleep(call.pause(course, failure_of_call(cast("Failed", error))))
            finally:
                replies.cancel()

    async def close(self) -> None:
        """Close the connection; what is in flight is cancelled."""
        self._caller.closed = True
        if "_channel" in vars(self):
            await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        target = self._caller.target
        if target.credentials is None:
            return grpc.aio.insecure_channel(target.uri, options=target.options)
        return grpc.aio.secure_channel(target.uri, target.credentials, options=target.options)

    @cached_property
    def _stub(self) -> Any:
        return link_pb2_grpc.LinkServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def _info(self, call: Call, model: str) -> ModelInfo:
        found = self._caller.infos.get(model)
        return found or self._caller.learn(model, await self._run(call, requests.describe(model)))

    async def _run(self, call: Call, job: Job[Result], progress: Progress | None = None) -> Result:
        """Send a job and wait for its result."""
        for _ in range(calls.TIMES_ANEW):
            parts = []
            async with aclosing(self._parts(call, job)) as answered:
                async for piece, part in answered:
                    parts.append(part)
                    if progress is not None:
                        progress(piece.last, job.rows)
            if calls.of_one_version(parts):
                return call.joined(job, parts)
        raise call.replaced()

    async def _parts(self, call: Call, job: Job[Any]) -> AsyncGenerator[tuple[Piece, Part], None]:
        """The answers to a job's pieces in order, several of which are under way."""
        method = getattr(self._stub, job.method)
        if job.number == 1:
            for piece in job.pieces():
                yield piece, call.read(job, piece, await self._reply(call, method, piece, call.course()))
            return
        under_way: deque[tuple[Piece, asyncio.Task[Any]]] = deque()
        try:
            for piece in job.pieces():
                under_way.append((piece, asyncio.create_task(self._reply(call, method, piece, call.course()))))
                if len(under_way) == calls.IN_FLIGHT:
                    oldest, task = under_way.popleft()
                    yield oldest, call.read(job, oldest, await task)
            while under_way:
                oldest, task = under_way.popleft()
                yield oldest, call.read(job, oldest, await task)
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    async def _streamed(self, call: Call, feed: AsyncFeed) -> AsyncGenerator[tuple[Asked, Part], None]:
        """The answers to a stream's requests in order; it is opened anew as often as it breaks."""
        course = call.course()
        try:
            while await feed.pending():
                replies = self._send(call, self._stub.TransmitStream, feed.requests(), course)
                try:
                    index = 0
                    with call.until_closed():
                        async for reply in replies:
                            asked = cast("Asked", feed.first)
                            part = calls.part_of(call, asked, reply, index) or await self._again(call, asked, reply)
                            course.succeeded()
                            await feed.answer()
                            index += 1
                            yield asked, part
                    failure = calls.early_end()
                except grpc.RpcError as error:
                    failure = failure_of_call(cast("Failed", error))
                finally:
                    replies.cancel()
                if (first := feed.first) is None:  # a stream may end while nothing is asked
                    continue
                await asyncio.sleep(call.pause(course, failure))
                if failure is BROKEN:  # a call of its own will say why
                    reply = await self._reply(call, self._stub.Transmit, first.piece, course)
                    await feed.answer()
                    yield first, call.read(first.job, first.piece, reply)
        finally:
            await feed.close()

    async def _again(self, call: Call, asked: Asked, reply: pb.TransmitStreamResponse) -> Part:
        """What a request of a stream is answered with that failed there, on a call of its own."""
        course = call.course()
        await asyncio.sleep(call.pause(course, failure_of_message(reply.failure), asked.piece.first))
        reply = await self._reply(call, self._stub.Transmit, asked.piece, course)
        return call.read(asked.job, asked.piece, reply)

    async def _reply(self, call: Call, method: Any, piece: Piece, course: Course) -> Any:
        """The reply to one request, attempt after attempt."""
        while True:
            try:
                with call.until_closed():
                    reply = await self._send(call, method, piece.request, course)
            except grpc.RpcError as error:
                await asyncio.sleep(call.pause(course, failure_of_call(cast("Failed", error)), piece.first))
            else:
                course.succeeded()
                return reply

    def _send(self, call: Call, method: Any, request: Any, course: Course) -> Any:
        with call.until_closed():
            return method(request, timeout=course.left_s, metadata=self._metadata)
