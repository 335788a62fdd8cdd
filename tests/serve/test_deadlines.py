"""Overload, deadlines and callers that go, on a real server: what nobody waits for never runs."""

import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.inference import grpc_service_pb2 as oip
from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

ONE = {"workers": 1}
OPERATIONS = ("link", "transmitter")


def inputs(images):
    return {"image": tensor_to_message("image", images)}


def infer(images, operation, timeout_us=None):
    message = oip.ModelInferRequest(
        model_name=f"tiny.{operation}",
        inputs=[oip.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=images.shape)],
        raw_input_contents=[images.tobytes()],
    )
    if timeout_us is not None:
        message.parameters["timeout"].int64_param = timeout_us
    return message


CALLS = {
    "Transmit": (
        "link",
        lambda own: own.stub.Transmit,
        lambda x: pb.TransmitRequest(inputs=inputs(x), settings=pb.LinkSettings(snr_db=3.0)),
    ),
    "Encode": ("transmitter", lambda own: own.stub.Encode, lambda x: pb.EncodeRequest(inputs=inputs(x))),
    "ModelInfer": (
        "transmitter",
        lambda own: GRPCInferenceServiceStub(own.channel).ModelInfer,
        lambda x: infer(x, "transmitter"),
    ),
}


def expected(own, operation, seconds):
    """Have the server expect that a run of an operation takes so long, whatever was measured."""
    cost = own.engine.model().costs[operation]
    cost.__init__()
    cost.record(1, seconds)
    cost.record(64, seconds)


def retry_s(error):
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(error).details[0].Unpack(retry)
    return retry.retry_delay.ToNanoseconds() / 1e9


def let_one_run(held):
    """End the run that is held; the next one is held again."""
    held.entered.clear()
    was, held.go = held.go, threading.Event()
    was.set()


@pytest.mark.parametrize("api", CALLS)
@pytest.mark.parametrize("by_deadline", [False, True])
def test_work_whose_caller_is_gone_never_runs(serving, bundle_path, images, hold, until, api, by_deadline):
    operation, method_of, request_of = CALLS[api]
    with serving(bundle_path, batching=ONE) as own:
        held, method = hold(own.server, OPERATIONS), method_of(own)
        expected(own, operation, 0.001)
        first = method.future(request_of(images), timeout=60)
        assert held.entered.wait(20)
        # Quick runs are made on the event loop only where no worker runs the operation.
        others = [method.future(request_of(images), timeout=0.5 if by_deadline else 60) for _ in range(8)]
        if by_deadline:
            until(lambda: own.counted(operation).pending_requests)
            assert {call.exception().code() for call in others} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        else:
            until(lambda: own.counted(operation).pending_requests == 8)
            for call in others:
                call.cancel()
        until(lambda: own.counted(operation).pending_requests == 0)
        until(lambda: own.admin.statistics().in_flight_requests == 1)
        held.go.set()
        first.result()
        method(request_of(images), timeout=20)
        counted = own.counted(operation)
    assert (counted.executions, counted.executed_requests, counted.wasted_requests) == (2, 2, 0)
    assert counted.successes == 2
    if by_deadline:
        assert 1 <= counted.failures.expired + counted.failures.cancelled <= 8
    else:
        assert counted.failures.cancelled == 8


def test_a_deadline_that_passes_in_the_queue_is_told_and_the_work_never_runs(serving, bundle_path, images, hold, until):
    """A deadline of Triton's parameter `timeout`: the call itself has none, so the server is who ends it."""
    with serving(bundle_path, batching=ONE) as own:
        held, stub = hold(own.server, OPERATIONS), GRPCInferenceServiceStub(own.channel)
        expected(own, "link", 0.001)
        first = stub.ModelInfer.future(infer(images, "link"), timeout=60)
        assert held.entered.wait(20)
        late = stub.ModelInfer.future(infer(images, "link", timeout_us=200_000), timeout=60)
        until(lambda: own.counted().pending_requests == 1)
        time.sleep(0.25)
        held.go.set()
        first.result()
        assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late.exception().details() == "the deadline would pass before the reply"
        counted = own.counted()
    assert (counted.executed_requests, counted.wasted_requests) == (1, 0)
    assert (counted.successes, counted.failures.expired) == (1, 1)


def test_what_waits_beside_the_batches_past_its_deadline_never_runs(serving, bundle_path, images, monkeypatch):
    ran, go = [], threading.Event()
    with serving(bundle_path) as own:
        model = own.engine.model()
        monkeypatch.setattr(model._transmit, "run", ran.append)
        own.engine.means.aside._pool.submit(go.wait, 20)
        request = infer(images, "link", timeout_us=50_000)
        request.parameters["channel"].string_param = "tdl-a"
        late = GRPCInferenceServiceStub(own.channel).ModelInfer.future(request, timeout=60)
        time.sleep(0.2)
        go.set()
        assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert own.admin.statistics().in_flight_requests == 0
    assert ran == []


def test_a_deadline_that_has_passed_is_told_at_once(serving, bundle_path, images):
    with serving(bundle_path) as own:
        with pytest.raises(grpc.RpcError) as late:
            GRPCInferenceServiceStub(own.channel).ModelInfer(infer(images, "link", timeout_us=1), timeout=60)
        counted = own.counted()
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert late.value.details() == "the deadline has passed"
    assert (counted.executions, counted.failures.expired) == (0, 1)


@pytest.mark.parametrize("api", CALLS)
def test_what_cannot_be_answered_in_time_is_refused_at_once(serving, bundle_path, images, hold, api):
    operation, method_of, request_of = CALLS[api]
    with serving(bundle_path, batching=ONE) as own:
        held, method = hold(own.server, OPERATIONS), method_of(own)
        expected(own, operation, 5.0)
        first = method.future(request_of(images), timeout=60)
        assert held.entered.wait(20)
        with pytest.raises(
            grpc.RpcError
        ) as refused:  # the run that is held is expected to take 5 s, and its own as many
            method(request_of(images), timeout=4.0)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0.0 < retry_s(refused.value) <= 6.0
        assert own.counted(operation).pending_requests == 0
        held.go.set()
        first.result()
        counted = own.counted(operation)
    assert (counted.executed_requests, counted.failures.overload) == (1, 1)


@pytest.mark.parametrize("api", CALLS)
@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"queue_requests": 2}, "2 requests are waiting, as many as may"),
        ({"queue_bytes": 2**16, "message_bytes": 2**16}, "more pass 65536"),
    ],
)
def test_a_full_queue_refuses_at_once_and_takes_the_next_when_there_is_room(
    serving, bundle_path, images, hold, until, api, limits, text
):
    operation, method_of, request_of = CALLS[api]
    large = np.tile(images[:1], (120, 1, 1))  # some 30 KB: two fit
    with serving(bundle_path, batching=ONE, limits=limits) as own:
        held, method = hold(own.server, OPERATIONS), method_of(own)
        expected(own, operation, 1.0)
        taken = [method.future(request_of(large), timeout=60) for _ in range(2)]
        assert held.entered.wait(20)
        until(lambda: own.admin.statistics().in_flight_requests == 2)
        with pytest.raises(grpc.RpcError) as refused:
            method(request_of(large))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text in refused.value.details()
        assert retry_s(refused.value) > 0.0
        held.go.set()
        for call in taken:
            call.result()
        method(request_of(large), timeout=60)
        assert own.admin.statistics().in_flight_requests == own.admin.statistics().in_flight_bytes == 0
        counted = own.counted(operation)
    assert (counted.executed_requests, counted.successes, counted.failures.overload) == (3, 3, 1)


def test_a_run_is_wasted_where_all_its_callers_went_while_it_ran(serving, bundle_path, images, hold, until):
    with serving(bundle_path, batching=ONE | {"max_rows": 64, "max_wait_us": 0}) as own:
        held, (_, method_of, request_of) = hold(own.server, OPERATIONS), CALLS["Transmit"]
        method = method_of(own)
        expected(own, "link", 1.0)
        alone = method.future(request_of(images))
        assert held.entered.wait(20)
        two = [method.future(request_of(images)) for _ in range(2)]
        until(lambda: own.counted().pending_requests == 2)
        alone.cancel()
        until(lambda: own.admin.statistics().in_flight_requests == 2)
        let_one_run(held)
        assert held.entered.wait(20)
        until(lambda: own.counted().executions == 1)
        counted = own.counted()
        assert (counted.wasted_executions, counted.wasted_requests) == (1, 1)

        two[0].cancel()
        until(lambda: own.admin.statistics().in_flight_requests == 1)
        held.go.set()
        assert len(two[1].result().bit_errors) == len(images)
        counted = own.counted()
    assert (counted.executions, counted.executed_requests) == (2, 3)
    assert (counted.wasted_executions, counted.wasted_requests) == (1, 2)
