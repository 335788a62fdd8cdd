"""Peers that do not speak as they should: everybody else is answered as if they were not there."""

import resource
from contextlib import contextmanager

import grpc
import pytest

from benchmarks.chaos import strangers
from benchmarks.chaos.load import CALL_S, open_channel, unary
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import make_questions
from serve.pb.hardpath.v1 import link_pb2 as pb

SILENT = 1000


@pytest.fixture(scope="module")
def questions(link):
    return make_questions(link, 24)


@pytest.fixture(scope="module")
def process(bundle_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * SILENT if hard == resource.RLIM_INFINITY else min(4 * SILENT, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with ServerProcess(bundle_path) as server:
            yield server
            assert server.running
            assert server.tracebacks() == 0, server.log()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def all_are_answered(server, questions):
    with open_channel(server.address) as channel:
        return [q.is_answered_by(unary(channel, q.method)(q.request, timeout=CALL_S)) for q in questions]


STRANGERS = {
    "silent": lambda address, _: strangers.silent(address, SILENT),
    "http/1": lambda address, _: strangers.speaks_http1(address),
    "half a tls hello": lambda address, _: strangers.says_half_a_tls_hello(address),
    "garbage": lambda address, _: strangers.sends_garbage(address),
    "garbage after the preface": lambda address, _: strangers.sends_garbage_after_the_preface(address),
    "cut in a frame": strangers.is_cut_in_a_frame,
    "gone after asking": strangers.is_gone_after_asking,
    "deaf": strangers.is_deaf,
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_everybody_else_is_answered_while_a_stranger_is_there_and_when_it_is_gone(process, questions, stranger):
    with STRANGERS[stranger](process.address, questions[21]):
        assert all(all_are_answered(process, questions))
    assert all(all_are_answered(process, questions))


def test_the_frames_that_strangers_write_are_understood(process, questions):
    assert all(question.is_answered_by(strangers.ask(process.address, question)) for question in questions)


def test_a_stream_that_is_not_read_holds_nobody_up(process, questions):
    request = pb.TransmitStreamRequest(request=pb.TransmitRequest.FromString(questions[21].request))
    with unread_stream(process.address, request.SerializeToString()):
        assert all(all_are_answered(process, questions))
    assert all(all_are_answered(process, questions))


@contextmanager
def unread_stream(address, message, count=5000):
    with open_channel(address) as channel:
        method = channel.stream_stream(
            "/hardpath.v1.LinkService/TransmitStream", request_serializer=bytes, response_deserializer=bytes
        )
        call = method(iter([message] * count))
        yield
        call.cancel()


def test_a_message_that_is_too_large_is_refused_and_the_next_is_answered(process, questions):
    with open_channel(process.address) as channel, pytest.raises(grpc.RpcError) as refused:
        unary(channel, questions[0].method)(bytes(65 * 2**20), timeout=CALL_S)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert all(all_are_answered(process, questions))
