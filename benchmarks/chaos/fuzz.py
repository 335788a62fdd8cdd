"""Malformed requests against a server in a process of its own, which must refuse each by name and answer the next.

python -m benchmarks.chaos.fuzz BUNDLE --requests 20000

Never INTERNAL or UNKNOWN, no hang, no crash: what is refused is INVALID_ARGUMENT, with the field and what is allowed in a
google.rpc.BadRequest, or NOT_FOUND where it names a model that is not there.
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
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.chaos.load import CALL_S, open_channel, unary
from benchmarks.chaos.malformed import malformed_bytes, malformed_messages
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import Question, make_questions
from benchmarks.chaos.targets import Target, inference_targets, link_targets
from link.bundle import load_bundle
from link.chain import Link
from serve.pb.hardpath.v1 import link_pb2 as pb

# A sweep may go on for as long as it was asked to: it is looked at for so long, and cancelled.
_SWEEP_S: Final = 0.5
_EVERY: Final = 50
_SAYS_WHAT_IS_ALLOWED: Final = re.compile(r"\b(must|should|is missing|are missing|is unknown|does not|is set twice)\b")


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


class Answer(NamedTuple):
    """A status: name, message, and field and text of the violation where there is one."""

    code: str
    message: str
    field: str
    allowed: str


def malformed(known: Sequence[Target]) -> st.SearchStrategy[Malformed]:
    """Requests spoilt in their fields, most of them, or in their bytes."""
    fields = [malformed_messages(t.valid).map(methodcaller("SerializeToString")) for t in known]
    cuts = [malformed_bytes(t.valid.SerializeToString()) for t in known]
    pairs = zip([*known, *known, *known], [*fields, *fields, *cuts], strict=True)
    return st.one_of(*(st.builds(Malformed, st.just(target), spoilt) for target, spoilt in pairs))


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

    def complaint(self, request: Malformed) -> str:
        """What is wrong with the server's answer; empty where nothing is."""
        answer = self._ask(request)
        self.codes[answer.code] += 1
        self._asked += 1
        if self._asked % _EVERY == 0 and not self.answers_rightly():
            return "a good request was not answered rightly afterwards"
        return _complaint(answer, request)

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
            if not request.target.streams:
                unary(self.channel, method)(request.request, timeout=CALL_S)
                return _OK
            return self._stream(method, request.request)
        except grpc.RpcError as error:
            return _answer(error)

    def _stream(self, method: str, request: bytes) -> Answer:
        """The first reply, or the failure in it."""
        sweep = method.endswith("/Sweep")
        call: Any
        if sweep:
            kind = self.channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)
            call = kind(request, timeout=_SWEEP_S)
        else:
            several = self.channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)
            call = several(iter([request]), timeout=CALL_S)
        try:
            reply = next(call, None)
        except grpc.RpcError as error:
            if sweep and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return _OK
            raise
        finally:
            call.cancel()
        if sweep or reply is None:
            return _OK
        outcome = pb.TransmitStreamResponse.FromString(reply)
        if outcome.WhichOneof("outcome") != "failure":
            return _OK
        failure = outcome.failure
        code = next((c.name for c in grpc.StatusCode if c.value[0] == failure.code), str(failure.code))
        return Answer(code, failure.message, failure.field, failure.message)


_OK: Final = Answer("OK", "", "", "")


def _answer(error: Any) -> Answer:
    code, message = error.code().name, error.details() or ""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad) and bad.field_violations:
            return Answer(code, message, bad.field_violations[0].field, bad.field_violations[0].description)
    return Answer(code, message, "", "")


def _complaint(answer: Answer, request: Malformed) -> str:
    if answer.code in ("OK", "NOT_FOUND"):
        return ""
    if answer.code != "INVALID_ARGUMENT":
        return f"{answer.code}: {answer.message}"
    if not answer.field and _can_be_parsed(request):
        return f"INVALID_ARGUMENT without a field: {answer.message}"
    if not _SAYS_WHAT_IS_ALLOWED.search(answer.allowed):
        return f"INVALID_ARGUMENT without what is allowed: {answer.field} {answer.allowed or answer.message}"
    return ""


def _can_be_parsed(request: Malformed) -> bool:
    try:
        type(request.target.valid).FromString(request.request)
    except DecodeError:
        return False
    return True


def run(bundle: Path | str, requests: int, *, derandomize: bool = False) -> Iterator[str]:
    """Send so many malformed requests to a new server; yields each kind of complaint once, and at last what was asked."""
    link = Link(load_bundle(bundle))
    complaints: dict[str, Malformed] = {}
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
        @given(malformed(known))
        def ask(request: Malformed) -> None:
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
