"""What both clients share: everything but the waiting."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar, cast

import grpc
from numpy.typing import ArrayLike

from link.errors import ArgumentError, HardpathError, ServerError
from serve.client import join, requests
from serve.client.failures import Failure, UnreadableReply, error_of
from serve.client.pieces import Job, Part, Piece
from serve.client.requests import Inputs, LinkOptions
from serve.client.retries import Budget, Course, Retries
from serve.client.target import Target
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.results import ModelInfo

TIMEOUT_S: Final = 30.0
IN_FLIGHT: Final = 4
"""Requests of one call that are under way at a time."""
IN_STREAM: Final = 16
"""The same, of one stream."""
TIMES_ANEW: Final = 2
"""Times that a batch is sent whose pieces were answered by several versions of the model."""

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told how many samples are answered, of how many."""


class Caller:
    """What a client knows, and the decisions that need no waiting.

    Attributes
    ----------
    target : Target
    model : str
        Name of the model where a call names none.
    closed : bool
        Whether the client was closed: then nothing is sent again.
    infos : dict of str to ModelInfo
        What servers said of models, by name.
    """

    def __init__(
        self, target: Target, model: str, timeout_s: float, retries: Retries, max_batch: int | None = None
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise ArgumentError("max_batch", f"must be at least 1, got {max_batch}")
        self.target = target
        self.model = model
        self.closed = False
        self.infos: dict[str, ModelInfo] = {}
        self._max_batch = max_batch
        self._timeout_s = _positive(timeout_s)
        self._retries = retries
        self._budget = Budget(retries)

    def begin(self, timeout_s: float | None, *, unlimited: bool = False) -> Call:
        """A call begins; of a stream that may go on for ever, `unlimited`, the client's own limit is none.

        Raises
        ------
        ServerError
            If the client was closed.
        """
        if self.closed:
            raise ServerError(f"the connection to {self.target.address} is closed")
        limit = (math.inf if unlimited else self._timeout_s) if timeout_s is None else _positive(timeout_s)
        return Call(self, None if math.isinf(limit) else limit)

    def learn(self, model: str, info: ModelInfo) -> ModelInfo:
        """What batches of a model are cut by, from what the server says."""
        most = min(info.max_batch, self._max_batch or info.max_batch)
        self.infos[model] = replace(info, max_batch=most)
        return self.infos[model]

    def course(self, deadline: float | None) -> Course:
        """The attempts of one request."""
        return Course(self._retries, self._budget, deadline)

    def name(self, model: str | None) -> str:
        """The model that a call is about."""
        return self.model if model is None else model


class Call:
    """One call of a client, from the moment it was made."""

    __slots__ = ("caller", "deadline", "timeout_s")

    def __init__(self, caller: Caller, timeout_s: float | None) -> None:
        self.caller = caller
        self.timeout_s = timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def course(self) -> Course:
        """The attempts of one of its requests."""
        return self.caller.course(self.deadline)

    def pause(self, course: Course, failure: Failure, first_row: int = 0) -> float:
        """Seconds after which an attempt that failed is repeated.

        Raises
        ------
        ArgumentError, ServerError
            If it is not repeated: what the caller is to be told.
        """
        if self.caller.closed:
            raise self._closed()
        pause = course.pause_after(failure)
        if pause is None:
            raise error_of(failure, self.caller.target.address, self.timeout_s, first_row)
        return pause

    @contextmanager
    def until_closed(self) -> Iterator[None]:
        """What gRPC raises where the client is closed meanwhile becomes what the caller is to be told.

        A channel for asyncio cancels its calls: whoever waits for one would seem to have been cancelled himself.
        """
        try:
            yield
        except (ValueError, grpc.aio.UsageError, asyncio.CancelledError) as error:
            if not self.caller.closed or isinstance(error, HardpathError) or _is_cancelled(error):
                raise
            raise self._closed() from None

    def _closed(self) -> ServerError:
        return ServerError(f"the connection to {self.caller.target.address} was closed before the reply")

    def read(self, job: Job[Any], piece: Piece, reply: Any) -> Part:
        """What the reply to a piece holds; a model that was replaced is forgotten.

        Raises
        ------
        UnreadableReply
        """
        try:
            part = job.read(reply)
        except ArgumentError as error:
            raise self.unreadable(str(error)) from None
        rows = piece.last - piece.first
        for name, shape in join.columns(part.result).items():
            if shape[:1] != (rows,):
                raise self.unreadable(f"{name} must have {rows} rows, got {shape[0] if shape else 'none'}")
        info = self.caller.infos.get(job.model)
        if info is not None and part.digest and part.digest != info.digest:
            self.caller.infos.pop(job.model, None)
        return part

    def joined(self, job: Job[Result], parts: Sequence[Part]) -> Result:
        """The answers to a job as its result.

        Raises
        ------
        UnreadableReply
            If they do not fit together.
        """
        results = [part.result for part in parts]
        first, *others = ({name: shape[1:] for name, shape in join.columns(result).items()} for result in results)
        if any(other != first for other in others):
            raise self.unreadable("the pieces of one batch differ in more than their rows")
        return job.join(results)

    def same_model(self, before: str | None, digest: str) -> str:
        """The digest of the model that answers, which is to be the one `before`, where there was an answer.

        Raises
        ------
        ServerError
            If it is another.
        """
        if before not in (None, digest):
            raise self.replaced()
        return digest

    def unreadable(self, why: str) -> UnreadableReply:
        """What is said of a reply that cannot be read."""
        return UnreadableReply(f"the server at {self.caller.target.address} sent a reply that cannot be read: {why}")

    def replaced(self) -> ServerError:
        """What is said where the model changed again and again below a batch."""
        return ServerError(
            f"the server at {self.caller.target.address} answers with several versions of the model: send the batch again"
        )


class UnderWay(NamedTuple):
    """A piece that was sent, and has not been answered."""

    piece: Piece
    course: Course
    future: Any


class Asked(NamedTuple):
    """One request of a stream.

    Attributes
    ----------
    job : Job
        The caller's batch.
    piece : Piece
        The rows of it that are asked for.
    ends : bool
        Whether these are its last.
    """

    job: Job[Any]
    piece: Piece
    ends: bool

    @property
    def message(self) -> pb.TransmitStreamRequest:
        """The request as it is sent."""
        return pb.TransmitStreamRequest(request=cast("pb.TransmitRequest", self.piece.request))


class Plan:
    """Requests of a stream, batch after batch: sample numbers go on from one to the next."""

    def __init__(
        self,
        info: ModelInfo,
        model: str,
        snr_db: float | None,
        include_llr: bool,
        include_symbols: bool,
        options: Mapping[str, Any],
        mode: ArrayLike | None = None,
    ) -> None:
        self._fixed = (info, model, snr_db, include_llr, include_symbols)
        self._mode = mode
        self._options = dict(options)
        self._offset = self._options.pop("sample_offset", 0)

    def asked(self, batch: Inputs) -> list[Asked]:
        """The requests of the next batch."""
        options = LinkOptions(**self._options, sample_offset=self._offset)  # type: ignore[typeddict-item]
        job = requests.transmit(batch, *self._fixed, options, self._mode)
        self._offset += job.rows
        pieces = list(job.pieces())
        return [Asked(job, piece, piece is pieces[-1]) for piece in pieces]


def part_of(call: Call, asked: Asked | None, reply: pb.TransmitStreamResponse, index: int) -> Part | None:
    """One reply of a stream, None where it is a failure; replies come in the order of the requests.

    Raises
    ------
    UnreadableReply
    """
    if asked is None:
        raise call.unreadable("it answers a request that was not sent")
    if reply.index != index:
        raise call.unreadable(f"index must be {index}, got {reply.index}")
    if reply.WhichOneof("outcome") is None:
        raise call.unreadable("outcome is missing")
    return None if reply.HasField("failure") else call.read(asked.job, asked.piece, reply.response)


def of_one_version(parts: Sequence[Part]) -> bool:
    """Whether one model gave all answers, and not several exports of it."""
    return len({part.digest for part in parts}) == 1


def early_end() -> Failure:
    """What a stream failed with that ended before the last reply."""
    return Failure(grpc.StatusCode.UNAVAILABLE, "the stream ended before the last reply")


def _is_cancelled(error: BaseException) -> bool:
    """Whether it was raised since somebody cancelled the running task."""
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    return task is not None and task.cancelling() > 0


def _positive(timeout_s: float) -> float:
    if not timeout_s > 0.0:
        raise ArgumentError("timeout_s", f"must be above 0, got {timeout_s:g}")
    return timeout_s
