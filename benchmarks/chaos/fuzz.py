"""Malformed requests against a server in a process of its own, which must refuse each by name and answer the next.

python -m benchmarks.chaos.fuzz BUNDLE --requests 20000

Never INTERNAL or UNKNOWN, no hang, no crash: what is refused is INVALID_ARGUMENT, with the field and what is allowed in a
google.rpc.BadRequest, or NOT_FOUND where it names a model that is not there. On a stream each is refused in its place, and
the good ones between them are answered rightly.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.chaos.answers import OK, Answer, answer_of
from benchmarks.chaos.load import CALL_S, open_channel, unary
from benchmarks.chaos.malformed import malformed_bytes, malformed_messages
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import Question, make_questions
from benchmarks.chaos.streams import Stream, StreamTarget, judge, malformed_streams, stream_targets
from benchmarks.chaos.targets import Target, inference_targets, link_targets
from link.bundle import load_bundle
from link.chain import Link

# A sweep may go on for as long as it was asked to: it is looked at for so long, and cancelled.
_SWEEP_S: Final = 0.5
_EVERY: Final = 50
_ALONE: Final = 3
"""Of so many requests and one stream."""


class Malformed(NamedTuple):
    """A request to be refused, or by chance to be answered.

    Attributes
    ----------
    target : Target
    request : bytes
        Serialized message.
    """

    target: Target
    request: bytes

    def __repr__(self) -> str:
        try:
            text = str(type(self.target.valid).FromString(self.request))
        except DecodeError:
            text = self.request.hex()
        return f"{self.target.method} {text[:1500]}"


def malformed(known: Sequence[Target], streams: Sequence[StreamTarget]) -> st.SearchStrategy[Malformed | Stream]:
    """Requests spoilt in their fields, most of them, or in their bytes; alone or on streams."""
    fields = [malformed_messages(t.valid).map(methodcaller("SerializeToString")) for t in known]
    cuts = [malformed_bytes(t.valid.SerializeToString()) for t in known]
    pairs = zip([*known, *known, *known], [*fields, *fields, *cuts], strict=True)
    alone = [st.builds(Malformed, st.just(target), spoilt) for target, spoilt in pairs]
    several = [malformed_streams(target) for target in streams]
    # One way or the other first: `one_of` would take the few kinds of streams as seldom as any kind of request.
    return st.integers(1, _ALONE + 1).flatmap(lambda n: st.one_of(alone if n <= _ALONE else several))


class Fuzzer:
    """A connection to a server that judges its answers.

    Parameters
    ----------
    address : str
    questions : sequence of Question
        Good ones, asked in between.
    """

    def __init__(self, address: str, questions: Sequence[Question]) -> None:
        self._questions = questions
        self.channel = open_channel(address)
        self._asked = 0
        self.codes: Counter[str] = Counter()

    def complaint(self, request: Malformed | Stream) -> str:
        """What is wrong with the server's answer; empty where nothing is."""
        if isinstance(request, Stream):
            codes, complaint = judge(self.channel, request)
        else:
            answer = self._ask(request)
            codes, complaint = (answer.code,), answer.complaint(names_a_field=_can_be_parsed(request))
        self.codes.update(codes)
        self._asked += 1
        if self._asked % _EVERY == 0 and not self.answers_rightly():
            return "a good request was not answered rightly afterwards"
        return complaint

    def answers_rightly(self) -> bool:
        """Whether a good request is answered as if nothing had happened."""
        question = self._questions[self._asked % len(self._questions)]
        try:
            reply = unary(self.channel, question.method)(question.request, timeout=CALL_S)
        except grpc.RpcError:
            return False
        return question.is_answered_by(reply)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def _ask(self, request: Malformed) -> Answer:
        method = request.target.method
        try:
            if request.target.streams:
                return self._sweep(method, request.request)
            unary(self.channel, method)(request.request, timeout=CALL_S)
        except grpc.RpcError as error:
            return answer_of(error)
        return OK

    def _sweep(self, method: str, request: bytes) -> Answer:
        """The answer by the first point."""
        kind = self.channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)
        call: Any = kind(request, timeout=_SWEEP_S)
        try:
            next(call, None)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return OK
            raise
        finally:
            call.cancel()
        return OK


def _can_be_parsed(request: Malformed) -> bool:
    try:
        type(request.target.valid).FromString(request.request)
    except DecodeError:
        return False
    return True


def run(bundle: Path | str, requests: int, *, derandomize: bool = False) -> Iterator[str]:
    """Send so many malformed requests to a new server; yields each kind of complaint once, and at last what was asked."""
    link = Link(load_bundle(bundle))
    complaints: dict[str, Malformed | Stream] = {}
    with ServerProcess(bundle) as server:
        fuzzer = Fuzzer(server.address, make_questions(link, 12))
        known = (*link_targets(link), *inference_targets(link, fuzzer.channel))

        @settings(
            max_examples=requests,
            deadline=None,
            database=None,
            derandomize=derandomize,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(malformed(known, stream_targets(link)))
        def ask(request: Malformed | Stream) -> None:
            complaint = fuzzer.complaint(request)
            if complaint:
                complaints.setdefault(
                    f"{request.target.method} {re.sub(r'[0-9a-f]{32}|[0-9]+', '#', complaint)}", request
                )

        start = time.monotonic()
        ask()
        fuzzer.close()
        for complaint, request in complaints.items():
            yield f"{complaint}\n    {request!r}"
        if not server.running:
            yield "the server ended"
        if server.tracebacks():
            yield f"{server.tracebacks()} tracebacks in the server's log, the last:\n{server.log()[-3000:]}"
        print(
            f"{fuzzer.codes.total()} requests in {time.monotonic() - start:.0f} s: {dict(fuzzer.codes)}",
            file=sys.stderr,
        )


def main() -> int:
    """Print each kind of complaint once; 1 where there was any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    found = list(run(arguments.bundle, arguments.requests))
    print("\n".join(found) or "no complaint")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
