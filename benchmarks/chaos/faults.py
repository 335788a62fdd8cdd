"""What goes wrong in the field, over and over, beside those who behave."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Final

import grpc
import numpy as np

from benchmarks.chaos import strangers
from benchmarks.chaos.load import CALL_S, open_channel, unary
from benchmarks.chaos.questions import SERVICE, Question
from link.interface import TensorSpec
from serve.messages.tensor import MESSAGE_BYTES, tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb

KINDS: Final = (
    "killed client",
    "cut frame",
    "garbage",
    "NaN input",
    "cancelled call",
    "slow reader",
    "deaf client",
    "deadline storm",
    "oversized message",
)
STORM_CALLS: Final = 100
DEAF_CALLS: Final = 20
_LATE: Final = ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED")
"""What a call is told that came too late; CANCELLED where gRPC in the server notices before the caller's own clock does."""
_PAUSE_S: Final = 0.02
_OVERSIZED_EVERY: Final = 50
_HELD_S: Final = 0.2
_READ: Final = 5


class Faults:
    """Faults injected one after the other, until the end of the block.

    Parameters
    ----------
    address : str
        Of the server.
    questions : sequence of Question
        Requests that are good until something happens to them.
    image : TensorSpec
        An input of the transmitter, of floats.
    kinds : collection of str
        Of KINDS, those to inject.

    Attributes
    ----------
    made : Counter of str
        How often each fault was injected.
    surprises : Counter of str
        Statuses that a fault should not have been answered with.
    """

    def __init__(
        self, address: str, questions: Sequence[Question], image: TensorSpec, kinds: Collection[str] = KINDS
    ) -> None:
        self._address = address
        self._questions = questions
        self._image = image
        self._kinds = kinds
        self.made: Counter[str] = Counter()
        self.surprises: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def calls(self) -> int:
        """Requests made: storms and deaf clients make many."""
        several = (STORM_CALLS - 1) * self.made["deadline storm"] + (DEAF_CALLS - 1) * self.made["deaf client"]
        return self.made.total() + several

    def __enter__(self) -> Faults:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        faults: dict[str, Callable[[int], None]] = {
            "killed client": self._killed,
            "cut frame": self._cut,
            "garbage": self._garbage,
            "NaN input": self._nan,
            "cancelled call": self._cancelled,
            "slow reader": self._slow_reader,
            "deaf client": self._deaf,
            "deadline storm": self._storm,
            "oversized message": self._oversized,
        }
        for number in itertools.count():
            for name in self._kinds:
                if self._stop.wait(_PAUSE_S):
                    return
                if name != "oversized message" or number % _OVERSIZED_EVERY == 0:
                    faults[name](number)
                    self.made[name] += 1

    def _question(self, number: int) -> Question:
        return self._questions[number % len(self._questions)]

    def _killed(self, number: int) -> None:
        with strangers.is_gone_after_asking(self._address, self._question(number)):
            pass

    def _cut(self, number: int) -> None:
        with strangers.is_cut_in_a_frame(self._address, self._question(number)):
            pass

    def _garbage(self, number: int) -> None:
        kinds = (
            strangers.sends_garbage(self._address, number),
            strangers.sends_garbage_after_the_preface(self._address, number),
            strangers.speaks_http1(self._address),
            strangers.says_half_a_tls_hello(self._address),
        )
        with kinds[number % len(kinds)]:
            pass

    def _deaf(self, number: int) -> None:
        with strangers.is_deaf(self._address, self._question(number), DEAF_CALLS):
            time.sleep(_HELD_S)

    def _nan(self, number: int) -> None:
        shape = (1 + number % 8, *(int(size) for size in self._image.shape[1:]))
        wrong = tensor_to_message(self._image.name, np.full(shape, np.nan, dtype=np.float32))
        request = pb.TransmitRequest(inputs={self._image.name: wrong}, settings=pb.LinkSettings(snr_db=3.0))
        self._expect({"INVALID_ARGUMENT"}, request.SerializeToString())

    def _oversized(self, number: int) -> None:
        self._expect({"RESOURCE_EXHAUSTED"}, bytes(MESSAGE_BYTES + 1))

    def _expect(self, codes: set[str], request: bytes) -> None:
        with open_channel(self._address) as channel:
            try:
                unary(channel, f"{SERVICE}/Transmit")(request, timeout=CALL_S)
                self.surprises["OK"] += 1
            except grpc.RpcError as error:
                if error.code().name not in codes:
                    self.surprises[f"{error.code().name}: {error.details()}"] += 1

    def _cancelled(self, number: int) -> None:
        question = self._question(number)
        with open_channel(self._address) as channel:
            call: Any = unary(channel, question.method).future(question.request, timeout=CALL_S)
            time.sleep(0.001 * (number % 4))
            call.cancel()

    def _slow_reader(self, number: int) -> None:
        """A stream of which some replies are read, slowly, and the rest never."""
        question = self._questions[3 * (number % (len(self._questions) // 3))]
        request = pb.TransmitStreamRequest(request=pb.TransmitRequest.FromString(question.request))
        with open_channel(self._address) as channel:
            method = channel.stream_stream(
                f"{SERVICE}/TransmitStream", request_serializer=bytes, response_deserializer=bytes
            )
            call: Any = method(iter([request.SerializeToString()] * 200), timeout=CALL_S)
            try:
                for _ in range(_READ):
                    reply = pb.TransmitStreamResponse.FromString(next(call))
                    if not question.is_answered_by(reply.response.SerializeToString()):
                        self.surprises["another answer on a stream"] += 1
                    time.sleep(0.01)
            except grpc.RpcError as error:
                self.surprises[f"{error.code().name}: {error.details()}"] += 1
            call.cancel()

    def _storm(self, number: int) -> None:
        """Many calls at once that want to be answered sooner than can be."""
        with open_channel(self._address) as channel:
            calls = []
            for n in range(STORM_CALLS):
                question = self._question(number + n)
                calls.append((question, unary(channel, question.method).future(question.request, timeout=0.002)))
            for question, call in calls:
                code = call.code()
                if code is grpc.StatusCode.OK:
                    if not question.is_answered_by(call.result()):
                        self.surprises["another answer in a storm"] += 1
                elif code.name not in _LATE:
                    self.surprises[f"{code.name}: {call.details()}"] += 1
