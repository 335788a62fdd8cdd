"""Streams in which malformed requests stand between good ones: each is answered in its place, and the stream goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError, Message
from hypothesis import strategies as st

from benchmarks.chaos.answers import OK, Answer
from benchmarks.chaos.load import CALL_S
from benchmarks.chaos.malformed import malformed_bytes, malformed_messages
from benchmarks.chaos.questions import SERVICE, Question, essence, make_questions
from benchmarks.chaos.targets import INFERENCE
from link.chain import Link
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.inference import grpc_service_pb2 as oip

LONGEST: Final = 20
"""Requests on a stream; more than a server has under way at a time."""

_OUTPUTS: Final = ("indices", "bits", "indices_hat", "logits", "decisions", "bit_errors")
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}

_PARAMETERS: Final = {float: "double_param", int: "int64_param", str: "string_param"}


class Reply(NamedTuple):
    """One reply of a stream.

    Attributes
    ----------
    place : str
        What tells which request it is for.
    answer : Answer
    essence : tuple of bytes
        Its arrays; empty where it has none.
    """

    place: str
    answer: Answer
    essence: tuple[bytes, ...]


class StreamTarget(NamedTuple):
    """A method that takes a stream.

    Attributes
    ----------
    method : str
    valid : Message
        A valid request, to be spoilt.
    good : tuple of Question
        Requests of the stream with their answers.
    read : callable
        A serialized reply as what it says.
    place : callable
        What `read` must find in the reply to the request of that number.
    """

    method: str
    valid: Message
    good: tuple[Question, ...]
    read: Callable[[bytes], Reply]
    place: Callable[[int, Message], str]


class Item(NamedTuple):
    """A request of a stream, and where it is a good one its question."""

    request: bytes
    question: Question | None = None


class Stream(NamedTuple):
    """What is sent on one stream."""

    target: StreamTarget
    items: tuple[Item, ...]

    def __repr__(self) -> str:
        texts = ["good" if item.question else item.request.hex()[:600] for item in self.items]
        return f"{self.target.method} {', '.join(texts)}"


class Verdict(NamedTuple):
    """What a stream's requests were answered with, and what is wrong with that; empty where nothing is."""

    codes: tuple[str, ...]
    complaint: str


def stream_targets(link: Link) -> tuple[StreamTarget, ...]:
    """TransmitStream and ModelStreamInfer."""
    asked = [q for q in make_questions(link, 18, rows=(1, 3)) if q.method == f"{SERVICE}/Transmit"]
    requests = [pb.TransmitRequest.FromString(question.request) for question in asked]
    streamed = [pb.TransmitStreamRequest(request=request) for request in requests]
    inferred = [_infer(link, request, str(number)) for number, request in enumerate(requests)]
    return (
        StreamTarget(
            f"{SERVICE}/TransmitStream", streamed[0], _good(asked, streamed), _read, lambda n, request: str(n)
        ),
        StreamTarget(
            f"/{INFERENCE}/ModelStreamInfer",
            inferred[0],
            _good(asked, inferred),
            _read_infer,
            lambda n, request: getattr(request, "id", ""),
        ),
    )


def malformed_streams(target: StreamTarget) -> st.SearchStrategy[Stream]:
    """Streams of good requests and of spoilt ones: most of these in their fields, the others in their bytes."""
    fields = malformed_messages(target.valid).map(methodcaller("SerializeToString"))
    spoilt = (fields | fields | malformed_bytes(target.valid.SerializeToString())).map(Item)
    good = st.sampled_from([Item(question.request, question) for question in target.good])
    return st.builds(Stream, st.just(target), st.lists(spoilt | good, min_size=1, max_size=LONGEST).map(tuple))


def judge(channel: grpc.Channel, stream: Stream) -> Verdict:
    """Send a stream, and look at each of its replies."""
    method = channel.stream_stream(stream.target.method, request_serializer=bytes, response_deserializer=bytes)
    try:
        replies = list(method(iter([item.request for item in stream.items]), timeout=CALL_S))
    except grpc.RpcError as error:
        return Verdict((error.code().name,), f"the stream ended with {error.code().name}: {error.details()}")
    read = [stream.target.read(reply) for reply in replies]
    codes = tuple(reply.answer.code for reply in read)
    if len(read) != len(stream.items):
        return Verdict(codes, "the stream has fewer or more replies than requests")
    each = (
        _complaint(stream.target, n, item, reply)
        for n, (item, reply) in enumerate(zip(stream.items, read, strict=True))
    )
    return Verdict(codes, next(filter(None, each), ""))


def _complaint(target: StreamTarget, number: int, item: Item, reply: Reply) -> str:
    try:
        request = type(target.valid).FromString(item.request)
    except DecodeError:
        request = type(target.valid)()
    if reply.place != target.place(number, request):
        return f"a reply is for {reply.place!r}, where {target.place(number, request)!r} was asked"
    if item.question is None:
        return reply.answer.complaint()
    if reply.essence != item.question.answer:
        return f"a good request beside malformed ones was answered wrongly: {reply.answer}"
    return ""


def _good(asked: Sequence[Question], requests: Sequence[Message]) -> tuple[Question, ...]:
    pairs = zip(asked, requests, strict=True)
    return tuple(question._replace(request=request.SerializeToString()) for question, request in pairs)


def _read(reply: bytes) -> Reply:
    outcome = pb.TransmitStreamResponse.FromString(reply)
    if outcome.HasField("response"):
        found = essence(f"{SERVICE}/Transmit", outcome.response.SerializeToString())
        return Reply(str(outcome.index), OK, found)
    failure = outcome.failure
    code = _CODES.get(failure.code, str(failure.code))
    return Reply(str(outcome.index), Answer(code, failure.message, failure.field, failure.message), ())


def _infer(link: Link, request: pb.TransmitRequest, number: str) -> oip.ModelInferRequest:
    """The same of the Open Inference Protocol, for the outputs of which `essence` is made."""
    asked = oip.ModelInferRequest(model_name=f"{link.manifest.name}.link", id=number)
    for field, value in request.settings.ListFields():
        setattr(asked.parameters[field.name], _PARAMETERS[type(value)], value)
    for spec in link.manifest.task_inputs:
        tensor = request.inputs[spec.name]
        datatype = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}[spec.dtype]
        asked.inputs.add(name=spec.name, datatype=datatype, shape=tensor.shape)
        asked.raw_input_contents.append(tensor.raw)
    for name in _OUTPUTS:
        asked.outputs.add(name=name)
    return asked


def _read_infer(reply: bytes) -> Reply:
    """A reply of a protocol that has no codes: what is refused by name counts as an invalid argument."""
    found = oip.ModelStreamInferResponse.FromString(reply)
    place, message = found.infer_response.id, found.error_message
    if not message:
        return Reply(place, OK, tuple(found.infer_response.raw_output_contents))
    named = _named(message)
    return Reply(place, Answer("INVALID_ARGUMENT" if named else "UNKNOWN", message, named, message), ())


def _named(message: str) -> str:
    """The field of a request with which a message begins, or `request` itself; empty where with none."""
    begin = message.partition(" ")[0].partition(".")[0]
    known: Any = oip.ModelInferRequest.DESCRIPTOR.fields_by_name
    return begin if begin in known or begin in ("model", "request") else ""
