"""TransmitStream on a real server: order, failures, limits, peers that do not read, cancellation, deadlines, draining."""

import asyncio
import itertools
import queue
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2

from serve.client import Client
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.inference import grpc_service_pb2 as oip
from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub


def ask(images, *, shape=None, include_symbols=False, **settings):
    tensor = tensor_to_message("image", images)
    if shape is not None:
        tensor.shape[:] = shape
    request = pb.TransmitRequest(
        inputs={"image": tensor},
        settings=pb.LinkSettings(**({"snr_db": 3.0} | settings)),
        include_symbols=include_symbols,
        include_llr=include_symbols,
    )
    return pb.TransmitStreamRequest(request=request)


class Feed:
    """Requests of a stream as a test gives them; the stream stays open until `close`."""

    def __init__(self, requests=()):
        self._queue = queue.Queue()
        self.put(*requests)

    def put(self, *requests):
        for request in requests:
            self._queue.put(request)

    def close(self):
        self._queue.put(None)

    def __iter__(self):
        return iter(self._queue.get, None)


def without_timing(response):
    reply = pb.TransmitResponse()
    reply.CopyFrom(response)
    reply.ClearField("timing")
    return reply


def test_replies_keep_the_order_of_requests_of_mixed_cost(serving, bundle_path, images, monkeypatch):
    requests = [
        ask(images[: 1 + number % 7], seed=number, channel="tdl-a" if number % 5 == 0 else "awgn")
        for number in range(15)
    ]
    with serving(bundle_path) as own:

        async def late(call):  # what runs beside the batches ends after all that came behind it
            while own.server._server._telemetry.statistics.operation("tiny.link").snapshot().successes < 12:
                await asyncio.sleep(0.001)
            return await aside(call)

        aside = own.engine.means.aside.run
        monkeypatch.setattr(own.engine.means.aside, "run", late)
        replies = list(own.stub.TransmitStream(iter(requests), timeout=60))
        monkeypatch.undo()
        assert [reply.index for reply in replies] == list(range(15))
        assert [reply.response.settings.seed for reply in replies] == list(range(15))
        for request, reply in zip(requests, replies, strict=True):
            alone = own.stub.Transmit(request.request, timeout=60)
            assert without_timing(reply.response).sent == without_timing(alone).sent
            assert reply.response.bit_errors == alone.bit_errors


def test_a_bad_request_is_answered_with_its_failure_and_the_stream_goes_on(serving, bundle_path, images):
    good = ask(images)
    unknown = ask(images)
    unknown.request.model = "cats"
    bad = {1: ask(images, snr_db=99.0), 3: ask(images, shape=[7, 64]), 4: unknown, 5: pb.TransmitStreamRequest()}
    with serving(bundle_path) as own:
        replies = list(own.stub.TransmitStream(iter([bad.get(i, good) for i in range(8)]), timeout=20))
    assert [reply.index for reply in replies] == list(range(8))
    assert [reply.WhichOneof("outcome") for reply in replies] == [
        "failure" if i in bad else "response" for i in range(8)
    ]
    failures = {i: replies[i].failure for i in bad}
    assert {i: (failure.code, failure.field) for i, failure in failures.items()} == {
        1: (code_pb2.INVALID_ARGUMENT, "settings.snr_db"),
        3: (code_pb2.INVALID_ARGUMENT, "inputs.image"),
        4: (code_pb2.NOT_FOUND, ""),
        5: (code_pb2.INVALID_ARGUMENT, "settings.snr_db"),
    }
    assert failures[1].message == "settings.snr_db must be in [-30, 60], got 99"
    assert failures[4].message == "model must be one of tiny, got 'cats'"
    assert all(failure.retry_after_ms == 0.0 for failure in failures.values())


def test_a_request_that_finds_the_queue_full_is_told_when_to_try_again(serving, bundle_path, images, hold, until):
    with serving(bundle_path, limits={"queue_requests": 1}) as own:
        held, feed = hold(own.server), Feed([ask(images, seed=number) for number in range(3)])
        replies = own.stub.TransmitStream(iter(feed), timeout=60)
        assert held.entered.wait(20)
        until(lambda: own.counted().failures.overload == 2)
        held.go.set()
        first, second, third = (next(replies) for _ in range(3))
        feed.put(ask(images, seed=3))
        fourth = next(replies)
        feed.close()
        assert list(replies) == []
    assert first.HasField("response")
    for refused in (second.failure, third.failure):
        assert refused.code == code_pb2.RESOURCE_EXHAUSTED
        assert refused.retry_after_ms > 0.0
    assert fourth.response.settings.seed == 3


def test_a_stream_takes_so_many_samples(serving, bundle_path, images):
    with serving(bundle_path, limits={"max_batch": 4, "samples_per_stream": 10}) as own:
        call = own.stub.TransmitStream(iter([ask(images[:4], seed=seed) for seed in range(5)]), timeout=20)
        replies = list(call)
        assert call.code() is grpc.StatusCode.OK
    assert [reply.WhichOneof("outcome") for reply in replies] == ["response", "response", "failure"]
    assert replies[2].index == 2
    assert replies[2].failure.code == code_pb2.RESOURCE_EXHAUSTED
    assert replies[2].failure.message == "a stream takes at most 10 samples: open another"


@pytest.mark.parametrize("rows", [-100, 0, 5, 2**31 - 1])
def test_a_shape_that_is_refused_neither_fills_a_stream_nor_gives_it_room(serving, bundle_path, images, rows):
    good, bad = ask(images[:4]), ask(images[:4], shape=[rows, 8, 8])
    with serving(bundle_path, limits={"max_batch": 4, "samples_per_stream": 10}) as own:
        replies = list(own.stub.TransmitStream(iter([bad, good, bad, good, good]), timeout=20))
    codes = [reply.failure.code for reply in replies]
    # One each for the bad ones: 1 + 4 + 1 + 4 are ten.
    wrong, full = code_pb2.INVALID_ARGUMENT, code_pb2.RESOURCE_EXHAUSTED
    assert codes == [wrong, 0, wrong, 0, full]


def test_a_client_that_never_reads_is_dropped_while_others_are_served(serving, bundle_path, images, until):
    sent = itertools.count()
    request = ask(np.tile(images[:1], (256, 1, 1)), include_symbols=True)
    with serving(bundle_path, limits={"stall_s": 0.2}) as own, Client(own.address) as other:
        greedy = own.stub.TransmitStream(request for _ in sent)
        until(lambda: (own.counted() or other.transmit(images, snr_db=3.0)) and own.counted().streams == 1)
        for seed in range(20):
            assert len(other.transmit(images, snr_db=3.0, seed=seed).bit_errors) == len(images)
        until(lambda: own.counted().streams == 0)
        assert own.admin.statistics().in_flight_requests == 0
        # What it had sent is bounded by what the transport holds, a few MiB, and nothing more of it is run.
        executed, read = own.counted().executed_requests, next(sent)
        assert read < 5000
        other.transmit(images, snr_db=3.0)
        assert own.counted().executed_requests == executed + 1
        with pytest.raises(grpc.RpcError) as ended:
            list(greedy)
        assert ended.value.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("by_deadline", [False, True])
def test_nothing_of_a_stream_runs_after_its_client_has_gone(
    serving, bundle_path, images, hold, until, by_deadline, caplog
):
    with serving(bundle_path, batching={"workers": 1}) as own:
        held, feed = hold(own.server), Feed()
        # A deadline that the expected cost of a run leaves room for, or the requests were refused at once.
        own.engine.model().costs["link"].__init__()
        own.engine.model().costs["link"].record(4, 0.01)
        call = own.stub.TransmitStream(iter(feed), timeout=1.5 if by_deadline else 60)
        feed.put(ask(images, seed=0))
        assert held.entered.wait(20)
        feed.put(*(ask(images, seed=seed) for seed in range(1, 40)))
        if by_deadline:
            with pytest.raises(grpc.RpcError) as late:
                next(call)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            # A window of 16, one whose reply is awaited, and one that waits for room in the window; one of them runs.
            until(lambda: own.counted().pending_requests == 17)
            assert own.counted().streams == 1
            call.cancel()
        until(lambda: own.counted().streams == 0)
        assert own.counted().pending_requests == 0
        assert own.admin.statistics().in_flight_requests == 0
        held.go.set()
        until(lambda: own.counted().executions == 1)
        own.stub.Transmit(ask(images).request, timeout=20)
        counted = own.counted()
        feed.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert (counted.executed_requests, counted.wasted_requests, counted.wasted_executions) == (2, 1, 1)
    assert counted.successes == 1
    reasons = counted.failures
    assert reasons.cancelled + reasons.expired + reasons.overload >= 2 if by_deadline else reasons.cancelled == 18


def test_an_idle_stream_ends_at_once_when_the_server_drains(serving, bundle_path, images):
    with serving(bundle_path, lifecycle={"grace_s": 600}) as own, ThreadPoolExecutor(1) as pool:
        feed = Feed([ask(images)])
        call = own.stub.TransmitStream(iter(feed), timeout=300)
        assert next(call).HasField("response")
        stopped = pool.submit(own.server.stop)
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        stopped.result(60)  # far below the grace
        feed.close()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ended.value.details() == "the server is shutting down"


def test_what_a_stream_has_read_is_answered_before_a_server_ends(serving, bundle_path, images, hold, until):
    with serving(bundle_path, lifecycle={"grace_s": 600}) as own, ThreadPoolExecutor(1) as pool:
        held, feed = hold(own.server), Feed([ask(images, seed=seed) for seed in range(6)])
        call = own.stub.TransmitStream(iter(feed), timeout=300)
        assert held.entered.wait(20)
        until(lambda: own.admin.statistics().in_flight_requests == 6)
        stopped = pool.submit(own.server.stop)
        until(own.server._server._closing.done)
        held.go.set()
        seeds = [next(call).response.settings.seed for _ in range(6)]
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        stopped.result(60)
        feed.close()
    assert seeds == list(range(6))
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_open_stream_is_counted_with_the_operation_that_it_asks_for(serving, bundle_path, images, until):
    def tensor(name, array):
        return oip.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=array.shape)

    infer = oip.ModelInferRequest(
        model_name="tiny.transmitter", inputs=[tensor("image", images)], raw_input_contents=[images.tobytes()]
    )
    with serving(bundle_path) as own:
        streams = {
            "link": (own.stub.TransmitStream, ask(images)),
            "transmitter": (GRPCInferenceServiceStub(own.channel).ModelStreamInfer, infer),
        }
        for operation, (method, request) in streams.items():
            feed = Feed([request, request])
            call = method(iter(feed), timeout=60)
            next(call)
            next(call)
            assert own.counted(operation).streams == 1
            assert all(
                own.counted(other).streams == 0 for other in streams if other != operation and own.counted(other)
            )
            feed.close()
            assert list(call) == []
            until(lambda operation=operation: own.counted(operation).streams == 0)
