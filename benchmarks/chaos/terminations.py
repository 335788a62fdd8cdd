"""Signals at bad moments: what is in flight must be answered, what comes later refused at once, and the process must end.

python -m benchmarks.chaos.terminations BUNDLE --times 200
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

import grpc
from grpc_health.v1 import health_pb2

from benchmarks.chaos.load import CALL_S, REFUSALS, Failure, Load, open_channel
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import SERVICE, Question, make_questions
from link.bundle import load_bundle
from link.chain import Link
from serve.pb.hardpath.v1 import link_pb2 as pb

CALLERS: Final = 16


class Termination(NamedTuple):
    """How a server ended that was told to.

    Attributes
    ----------
    exit_code : int
    seconds : float
        From the signal to the end.
    answered : int
        Calls answered rightly.
    refused : int
        Calls begun after the signal and answered UNAVAILABLE.
    cut : int
        Calls begun after the signal and answered CANCELLED, by gRPC itself: those that come in the millisecond in which it
        stops, from callers that do not heed that they are refused. No handler has seen them.
    lost : tuple of Failure
        Calls begun before the signal that were not answered, or not rightly; and those begun later that ended in any other
        way.
    tracebacks : int
        In the server's log.
    """

    exit_code: int
    seconds: float
    answered: int = 0
    refused: int = 0
    cut: int = 0
    lost: tuple[Failure, ...] = ()
    tracebacks: int = 0


def under_load(bundle: Path | str, questions: tuple[Question, ...], warm: int = 100) -> Termination:
    """SIGTERM while every caller has a call in flight."""
    with ServerProcess(bundle) as server, Load(server.address, questions, CALLERS) as load:
        load.wait_for(warm)
        signalled = time.monotonic()
        server.signal(signal.SIGTERM)
        exit_code = server.wait()
        seconds = time.monotonic() - signalled
        tally = load.stop()
        later = [f for f in tally.failures if f.started >= signalled and f.code in REFUSALS]
        lost = tuple(f for f in tally.failures if f not in later)
        cut = sum(f.code == "CANCELLED" for f in later)
        return Termination(exit_code, seconds, tally.answered, len(later) - cut, cut, lost, server.tracebacks())


def while_starting(bundle: Path | str, after_s: float) -> Termination:
    """SIGTERM so long after the process was created."""
    with ServerProcess(bundle, ready=False) as server:
        time.sleep(after_s)
        return _end(server, signal.SIGTERM)


def with_an_idle_watch(bundle: Path | str) -> Termination:
    """SIGTERM while a client watches the server's health, and has nothing to say."""
    request = health_pb2.HealthCheckRequest()
    with (
        ServerProcess(bundle) as server,
        _stream(server, "/grpc.health.v1.Health/Watch", [request.SerializeToString()]),
    ):
        return _end(server, signal.SIGTERM)


def with_an_idle_stream(bundle: Path | str) -> Termination:
    """SIGTERM while a client has a stream open that it sends nothing on."""
    with _patient(bundle) as server, _stream(server, f"{SERVICE}/TransmitStream", []):
        return _end(server, signal.SIGTERM)


def with_a_client_that_never_reads(bundle: Path | str, question: Question, requests: int = 2000) -> Termination:
    """SIGTERM while a client has asked for more than it will ever read."""
    request = pb.TransmitStreamRequest(request=pb.TransmitRequest.FromString(question.request))
    messages = [request.SerializeToString()] * requests
    with ServerProcess(bundle) as server, _stream(server, f"{SERVICE}/TransmitStream", messages, read=0):
        return _end(server, signal.SIGTERM)


def interrupted_twice(bundle: Path | str) -> Termination:
    """SIGINT, and again while a stream holds up the drain."""
    with ServerProcess(bundle) as server, _stream(server, f"{SERVICE}/TransmitStream", []):
        server.signal(signal.SIGINT)
        time.sleep(0.3)
        return _end(server, signal.SIGINT)


def main() -> int:
    """Terminate a server many times; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=200)
    arguments = parser.parse_args()
    questions = make_questions(Link(load_bundle(arguments.bundle)), 60, rows=(1, 8, 64, 512))
    bad = 0
    for number in range(1, arguments.times + 1):
        found = under_load(arguments.bundle, questions)
        bad += bool(found.lost) or found.exit_code != 0 or found.tracebacks > 0
        print(
            f"{number}/{arguments.times}: exit {found.exit_code} after {found.seconds:.2f} s, {found.answered} answered, "
            f"{found.refused} refused, {found.cut} cut, {len(found.lost)} lost, {bad} terminations bad",
            flush=True,
        )
        for failure in found.lost[:3]:
            print(f"    {failure.method} {failure.code}: {failure.details}", flush=True)
    return min(bad, 1)


def _patient(bundle: Path | str) -> ServerProcess:
    """A server that would wait for longer than this does, if there were something to wait for."""
    return ServerProcess(bundle, 0, "--grace-s", "600")


@contextmanager
def _stream(server: ServerProcess, method: str, messages: list[bytes], read: int = 1) -> Iterator[None]:
    """A stream that sends messages and then nothing, and stays open; of its replies `read` are taken, where any come."""
    done = Event()

    def requests() -> Iterator[bytes]:
        yield from messages
        done.wait(CALL_S)

    with open_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(CALL_S)
        call = channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)(requests())
        for _ in range(min(read, len(messages))):
            next(iter(call))
        time.sleep(0.3)  # for what was sent to arrive
        try:
            yield
        finally:
            done.set()
            call.cancel()  # type: ignore[no-untyped-call]


def _end(server: ServerProcess, number: signal.Signals) -> Termination:
    start = time.monotonic()
    server.signal(number)
    exit_code = server.wait()
    return Termination(exit_code, time.monotonic() - start, tracebacks=server.tracebacks())


if __name__ == "__main__":
    sys.exit(main())
