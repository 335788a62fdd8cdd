"""The client for threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

import grpc
from numpy.typing import ArrayLike

from link.runtime import Transmission
from serve.client import calls, requests
from serve.client.calls import Asked, Call, Caller, Plan, Progress, UnderWay
from serve.client.failures import Failed, failure_of_call, failure_of_message
from serve.client.feed import Feed
from serve.client.pieces import Job, Part, Piece
from serve.client.points import SweepPoint, point_from_message
from serve.client.requests import Inputs, LinkOptions, ModelSummary, SweepOptions
from serve.client.retries import Course, Retries
from serve.client.target import open_channel, target_of
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc
from serve.results import Decoded, ModelInfo, Transmitted

if TYPE_CHECKING:
    from link.sequence import SequenceTables

Result = TypeVar("Result")


class Client:
    """A connection to one server or several, for any number of threads.

    Parameters
    ----------
    address : str
        host:port; several, with commas; or dns:///name:port for all that a name stands for. Calls go to several in turn.
    model : str
        Name of the model that calls are about; empty where the server holds one.
    timeout_s : float
        Seconds that a call may take, repetitions and all pieces of a large batch included; inf for no limit.
    retries : Retries
        How often a call is repeated that may pass.
    max_batch : int, optional
        Most samples in one request, where the server would take more.
    token : str, optional
        Bearer token; without TLS to this machine only.
    tls : bool
        Whether to speak TLS, with the system's authorities; implied by `ca` and `certificate`.
    ca, certificate, key : path, optional
        PEM files: authorities that are trusted in place of the system's; the client's own, for mutual TLS.
    server_name : str, optional
        Name that the servers' certificate is for, where the address has another.

    Each call takes `model` and `timeout_s` of its own. It raises ArgumentError where an argument is refused, naming it, and
    one of serve.client.failures where the server cannot answer, naming the address.
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
        self._channel = open_channel(target)
        self._stub = link_pb2_grpc.LinkServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelSummary, ...]:
        """Names and versions of the models that the server holds."""
        return self._run(self._caller.begin(timeout_s), requests.summaries())

    def model(self, model: str | None = None, *, timeout_s: float | None = None) -> ModelInfo:
        """What a model takes and answers, asked anew."""
        return self._run(self._caller.begin(timeout_s), requests.describe(self._caller.name(model)))

    def sequence(self, model: str | None = None, *, timeout_s: float | None = None) -> SequenceTables:
        """The tables by which windows of a recording are decided together; ArgumentError where the model has none."""
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        return self._run(call, requests.sequence(model, self._info(call, model))).tables

    def encode(
        self,
        x: Inputs,
        *,
        snr_db: float | None = None,
        mode: ArrayLike | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Transmission:
        """Encode a batch of any size.

        Parameters
        ----------
        x : (B, ...) array, list of B str, or mapping of name to one of them
            An array, or texts where the model reads them, where the model has one input; else the inputs by name.
        snr_db : float, optional
            Es/N0 as the transmitter estimates it, dB, in [-30, 60]; for a model with a router, and for no other.
        mode : int or (B,) int, optional
            Mode to send each sample in, in [0, M); -1, or none, leaves the choice to the transmitter. For a model whose
            manifest `takes_mode`; one with a single mode takes 0.
        progress : callable, optional
            Told how many samples are answered, of how many.

        Returns
        -------
        Transmission
            As link.runtime.Transmitter has it; the log counts texts that were cut, and that say nothing to the model.
        """
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        return self._run(call, requests.encode(x, self._info(call, model), model, snr_db, mode), progress)

    def decode(
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
        """Decode a batch of any size: symbols of any radio, or what a modem of one's own made of them.

        Parameters
        ----------
        symbols : (B, S, 2) float32, optional
            Equalised symbols as (I, Q), Es = 1, finite.
        no : (B, S) float32, or float, with `symbols`
            Noise variance per complex symbol, linear, at least 1e-6; inf marks an erased symbol. A number stands for all.
        mode : (B,) int64, optional
            The model's default mode where absent.
        llr_in : (B, L) float32, optional
            LLRs, ln P(b=1)/P(b=0); added to those of the symbols, where there are any.
        bits : (B, L) uint8, optional
            Hard decisions in {0, 1}, in place of symbols and LLRs.
        inputs : mapping of name to (B, ...) array or list of B str, optional
            What the model's receiver has of its own (`task.receiver_inputs`); most have nothing.
        include_llr : bool
            Whether to return the LLRs.
        progress : callable, optional
            As for `encode`.
        """
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        info = self._info(call, model)
        job = requests.decode(info, model, symbols, no, mode, llr_in, bits, include_llr, inputs)
        return self._run(call, job, progress)

    def transmit(
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
        """Carry a batch of any size over the link.

        Parameters
        ----------
        x : (B, ...) array, list of B str, or mapping of name to one of them
            As for `encode`.
        snr_db : float, optional
            Es/N0 in dB, in [-30, 60]; to be left out over a radio that cannot set it, and nowhere else.
        mode : int or (B,) int, optional
            As for `encode`. The header says what was sent, and the reply's `sent.mode`.
        include_llr : bool
            Whether to return the LLRs.
        include_symbols : bool
            Whether to return the symbols sent, the symbols received, and their noise variances.
        progress : callable, optional
            As for `encode`.
        **options
            channel, block_symbols, k_factor_db, seed, sample_offset, draw, snr_error_db, csi, pilots, no_offset_db: as
            serve.results.Settings has them.
        """
        call, model = self._caller.begin(timeout_s), self._caller.name(model)
        info = self._info(call, model)
        job = requests.transmit(x, info, model, snr_db, include_llr, include_symbols, options, mode)
        return self._run(call, job, progress)

    def transmit_stream(
        self,
        batches: Iterable[Inputs],
        *,
        snr_db: float | None = None,
        mode: ArrayLike | None = None,
        include_llr: bool = False,
        include_symbols: bool = False,
        in_flight: int = calls.IN_STREAM,
        model: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[LinkOptions],
    ) -> Generator[Transmitted, None, None]:
        """Carry batch after batch over the link on one stream; results come in order, as soon as they are there.

        Parameters
        ----------
        batches : iterable
            Each as `x` of `transmit`. It is read in a thread of its own, so it may be a live source. Sample numbers go on
            from one batch to the next; where a header is shared, results are those of one batch if batches end with frames.
        mode : int or (B,) int, optional
            As for `encode`, of each batch.
        in_flight : int
            Requests that may be unanswered at a time.
        timeout_s : float, optional
            Seconds for the whole stream; no limit where absent.

        A stream that breaks is opened anew, and what was not answered is sent again. Closing the generator cancels it.
        """
        call, model = self._caller.begin(timeout_s, unlimited=True), self._caller.name(model)
        plan = Plan(self._info(call, model), model, snr_db, include_llr, include_symbols, options, mode)
        feed, parts = Feed(plan, batches, in_flight), list[Part]()
        with closing(self._streamed(call, feed)) as answered:
            for asked, part in answered:
                parts.append(part)
                if asked.ends:
                    whole = calls.of_one_version(parts)
                    yield call.joined(asked.job, parts) if whole else self._run(call, asked.job)
                    parts = []

    def sweep(
        self,
        x: Inputs,
        snr_db: Sequence[float],
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SweepOptions],
    ) -> Generator[SweepPoint, None, None]:
        """Send a batch over the link at each SNR of a grid; points come as they end. Closing the generator ends the sweep.

        Parameters
        ----------
        x
            As for `transmit`.
        snr_db : sequence of float
            Es/N0 of each point in dB, in [-30, 60].
        timeout_s : float, optional
            Seconds for the whole sweep; no limit where absent.
        **options
            As serve.client.requests.SweepOptions has them.
        """
        call, model = self._caller.begin(timeout_s, unlimited=True), self._caller.name(model)
        request = requests.sweep(x, self._info(call, model), model, snr_db, options)
        course, done, digest = call.course(), 0, None
        while True:
            replies = self._send(call, self._stub.Sweep, requests.without(request, done), course)
            try:
                for reply in replies:
                    digest = call.same_model(digest, reply.model_digest)
                    course.succeeded()
                    done += 1
                    yield point_from_message(reply)
                return
            except grpc.RpcError as error:
                if done == len(request.snr_db):
                    return
                time.sleep(call.pause(course, failure_of_call(cast("Failed", error))))
            finally:
                replies.cancel()

    def close(self) -> None:
        """Close the connection; what is in flight is cancelled."""
        self._caller.closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _info(self, call: Call, model: str) -> ModelInfo:
        found = self._caller.infos.get(model)
        return found or self._caller.learn(model, self._run(call, requests.describe(model)))

    def _run(self, call: Call, job: Job[Result], progress: Progress | None = None) -> Result:
        """Send a job and wait for its result."""
        for _ in range(calls.TIMES_ANEW):
            parts = []
            with closing(self._parts(call, job)) as answered:
                for piece, part in answered:
                    parts.append(part)
                    if progress is not None:
                        progress(piece.last, job.rows)
            if calls.of_one_version(parts):
                return call.joined(job, parts)
        raise call.replaced()

    def _parts(self, call: Call, job: Job[Any]) -> Generator[tuple[Piece, Part], None, None]:
        """The answers to a job's pieces in order, several of which are under way."""
        method = getattr(self._stub, job.method)
        if job.number == 1:
            for piece in job.pieces():
                yield piece, call.read(job, piece, self._reply(call, method, piece, call.course()))
            return
        under_way: deque[UnderWay] = deque()
        try:
            for piece in job.pieces():
                course = call.course()
                under_way.append(UnderWay(piece, course, self._send(call, method.future, piece.request, course)))
                if len(under_way) == calls.IN_FLIGHT:
                    oldest = under_way[0].piece
                    yield oldest, call.read(job, oldest, self._wait(call, method, under_way))
            while under_way:
                oldest = under_way[0].piece
                yield oldest, call.read(job, oldest, self._wait(call, method, under_way))
        finally:
            for sent in under_way:
                sent.future.cancel()

    def _wait(self, call: Call, method: Any, under_way: deque[UnderWay]) -> Any:
        """The reply to the oldest request under way, which is then taken off."""
        while True:
            piece, course, future = under_way[0]
            try:
                reply = future.result()
            except (grpc.RpcError, grpc.FutureCancelledError):
                time.sleep(call.pause(course, failure_of_call(future), piece.first))
                under_way[0] = UnderWay(piece, course, self._send(call, method.future, piece.request, course))
            else:
                course.succeeded()
                under_way.popleft()
                return reply

    def _streamed(self, call: Call, feed: Feed) -> Generator[tuple[Asked, Part], None, None]:
        """The answers to a stream's requests in order; it is opened anew as often as it breaks."""
        course = call.course()
        try:
            while feed.pending():
                replies = self._send(call, self._stub.TransmitStream, feed.requests(), course)
                try:
                    for index, reply in enumerate(replies):
                        asked = cast("Asked", feed.first)
                        part = calls.part_of(call, asked, reply, index) or self._again(call, asked, reply)
                        course.succeeded()
                        feed.answer()
                        yield asked, part
                    failure = calls.early_end()
                except grpc.RpcError as error:
                    failure = failure_of_call(cast("Failed", error))
                finally:
                    replies.cancel()
                if feed.first is not None:  # a stream may end while nothing is asked
                    time.sleep(call.pause(course, failure))
        finally:
            feed.close()

    def _again(self, call: Call, asked: Asked, reply: pb.TransmitStreamResponse) -> Part:
        """What a request of a stream is answered with that failed there, on a call of its own."""
        course = call.course()
        time.sleep(call.pause(course, failure_of_message(reply.failure), asked.piece.first))
        return call.read(asked.job, asked.piece, self._reply(call, self._stub.Transmit, asked.piece, course))

    def _reply(self, call: Call, method: Any, piece: Piece, course: Course) -> Any:
        """The reply to one request, attempt after attempt."""
        while True:
            try:
                reply = self._send(call, method, piece.request, course)
            except grpc.RpcError as error:
                time.sleep(call.pause(course, failure_of_call(cast("Failed", error)), piece.first))
            else:
                course.succeeded()
                return reply

    def _send(self, call: Call, method: Any, request: Any, course: Course) -> Any:
        with call.until_closed():
            return method(request, timeout=course.left_s, metadata=self._metadata)
