"""A bounded number of callers, each with one call under way, who look at every reply."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple

import grpc

from benchmarks.chaos.questions import Question

CALL_S: Final = 30.0
"""Deadline of a call: a hang is then told from a slow machine."""
REFUSALS: Final = ("UNAVAILABLE", "CANCELLED")
"""What a call is answered with that no server has begun; no caller here cancels, but gRPC does where it stops."""
_PAUSE_S: Final = 0.05
_SERVICE_CONFIG: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'


class Failure(NamedTuple):
    """A call that was not answered, or not rightly.

    Attributes
    ----------
    code : str
        Name of the status; OK where the reply was another than the right one.
    started, ended : float
        By time.monotonic.
    """

    method: str
    code: str
    details: str
    started: float
    ended: float


class Tally(NamedTuple):
    """What became of the calls.

    Attributes
    ----------
    answered : int
        Calls answered rightly.
    samples : int
        Rows in them.
    retried : int
        Attempts that found no server, and were made again.
    failures : tuple of Failure
    """

    answered: int
    samples: int
    retried: int
    failures: tuple[Failure, ...]

    @property
    def codes(self) -> Counter[str]:
        """How many calls failed in each way."""
        return Counter(failure.code for failure in self.failures)


class Load:
    """Callers that ask the questions over and over, until the end of the block or until they are stopped.

    Parameters
    ----------
    target : str
        As gRPC names it; of several addresses each gets its share of the calls.
    questions : sequence of Question
    callers : int
    retry_s : float
        Seconds for which a call that finds no server is made again; 0: one attempt.

    Notes
    -----
    A caller whose call failed goes on, after a pause.
    """

    def __init__(self, target: str, questions: Sequence[Question], callers: int = 8, retry_s: float = 0.0) -> None:
        self._questions = questions
        self._retry_s = retry_s
        self._channel = open_channel(target)
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answered = self._samples = self._retried = 0
        self._failures: list[Failure] = []
        self._callers = [threading.Thread(target=self._ask, daemon=True) for _ in range(callers)]

    def tally(self) -> Tally:
        """What became of the calls that have ended."""
        with self._lock:
            return Tally(self._answered, self._samples, self._retried, tuple(self._failures))

    def wait_for(self, calls: int) -> None:
        """Until so many more calls have been answered.

        Raises
        ------
        RuntimeError
            If that takes longer than a call may.
        """
        wanted, end = self.tally().answered + calls, time.monotonic() + CALL_S
        while self.tally().answered < wanted:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"fewer than {calls} calls were answered in {CALL_S:g} s; failed: {self.tally().codes}"
                )
            time.sleep(0.005)

    def stop(self) -> Tally:
        """Start no more calls, and wait for those under way."""
        self._stop.set()
        for caller in self._callers:
            caller.join()
        self._channel.close()
        return self.tally()

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self) -> None:
        methods = {q.method: unary(self._channel, q.method) for q in self._questions}
        while not self._stop.is_set():
            question = self._questions[next(self._numbers) % len(self._questions)]
            started = time.monotonic()
            failure = self._attempts(methods[question.method], question, started)
            with self._lock:
                if failure is None:
                    self._answered += 1
                    self._samples += question.samples
                else:
                    self._failures.append(failure)
            if failure is not None:
                self._stop.wait(_PAUSE_S)

    def _attempts(
        self, method: grpc.UnaryUnaryMultiCallable[bytes, bytes], question: Question, started: float
    ) -> Failure | None:
        while True:
            try:
                reply = method(question.request, timeout=CALL_S)
            except grpc.RpcError as error:
                code, now = error.code(), time.monotonic()
                if code.name in REFUSALS and now - started < self._retry_s:
                    with self._lock:
                        self._retried += 1
                    time.sleep(_PAUSE_S)
                    continue
                return Failure(question.method, code.name, error.details() or "", started, now)
            if question.is_answered_by(reply):
                return None
            return Failure(question.method, "OK", "another answer", started, time.monotonic())


def unary(channel: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method that takes and gives messages as they travel."""
    return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)


def open_channel(target: str) -> grpc.Channel:
    """A channel that balances over all addresses of its target, and comes back soon to one that was away."""
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5000),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
        ],
    )
