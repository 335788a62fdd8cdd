import asyncio

import grpc
import numpy as np
import pytest

from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.inference.streaming import InferStream
from serve.services.streams import StreamLimits


def test_a_stream_answers_in_order_and_goes_on_after_a_bad_request(stub, oip, images):
    seeds = range(40)
    bad = {7: 99.0, 23: -99.0}
    requests = [
        oip.request(
            "tiny.link",
            {"image": images[seed % 7 :][:1]},
            id=str(seed),
            parameters={"seed": seed, "snr_db": bad.get(seed, 3.0), "triton_enable_empty_final_response": True},
        )
        for seed in seeds
    ]
    responses = list(stub.ModelStreamInfer(iter(requests)))
    assert [response.infer_response.id for response in responses] == [str(seed) for seed in seeds]
    for seed, response in zip(seeds, responses, strict=True):
        if seed in bad:
            assert response.error_message == f"parameters.snr_db must be in [-30, 60], got {bad[seed]:g}"
            continue
        assert not response.error_message
        reply = response.infer_response
        assert reply.parameters["triton_final_response"].bool_param
        del reply.parameters["triton_final_response"]
        assert reply == stub.ModelInfer(requests[seed])


def test_requests_of_a_stream_are_under_way_together(inference, oip, images):
    del inference.runs[:]
    requests = [oip.request("tiny.link", {"image": images[:1]}, parameters={"seed": seed}) for seed in range(200)]
    assert len(list(inference.stub.ModelStreamInfer(iter(requests)))) == 200
    rows = [rows for operation, rows in inference.runs if operation == "tiny.link"]
    assert sum(rows) == 200
    assert max(rows) > 1


class Context:
    """Of a stream whose client takes so many replies and no more."""

    def __init__(self, takes):
        self.takes = takes
        self.written = []
        self.aborted = None

    async def write(self, response):
        if len(self.written) >= self.takes:
            await asyncio.Event().wait()
        self.written.append(response)

    async def abort(self, code, text):
        self.aborted = (code, text)


def stream(context, respond, count, limits, *, close_after=None):
    """Answer so many requests; how many were read."""
    read = []

    async def requests(closing):
        for number in range(count):
            read.append(number)
            if number == close_after:
                closing.set_result(None)
                await asyncio.Event().wait()
            yield pb.ModelInferRequest(id=str(number))

    async def run():
        closing = asyncio.get_running_loop().create_future()
        await InferStream(context, respond, limits, closing).answer(requests(closing))
        assert len(asyncio.all_tasks()) == 1, "something of the stream goes on after it"

    asyncio.run(run())
    return len(read)


async def echo(request):
    return pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(id=request.id))


def test_a_client_that_takes_no_reply_is_not_read_from_and_is_let_go():
    context = Context(takes=5)
    read = stream(context, echo, 1000, StreamLimits(window=4, stall_s=0.05))
    assert len(context.written) == 5
    assert read <= 5 + 4 + 3  # taken, in the queue, and one each being written, put and read
    assert context.aborted == (grpc.StatusCode.ABORTED, "no reply was taken for 0.05 s")


def test_what_is_under_way_ends_with_its_stream():
    started, ended = [], []

    async def slow(request):
        started.append(request.id)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request.id)

    async def run():
        closing = asyncio.get_running_loop().create_future()

        async def requests():
            for number in range(100):
                yield pb.ModelInferRequest(id=str(number))

        answer = InferStream(Context(0), slow, StreamLimits(window=4), closing).answer(requests())
        task = asyncio.create_task(answer)
        while len(started) < 5:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert len(started) <= 4 + 2
    assert sorted(ended) == sorted(started)


def test_a_stream_of_a_server_that_closes_answers_what_it_has_read_and_ends():
    context = Context(takes=10)
    assert stream(context, echo, 100, StreamLimits(), close_after=3) == 4
    assert [response.infer_response.id for response in context.written] == ["0", "1", "2"]
    assert context.aborted == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")


def test_a_stream_takes_so_many_samples(oip, bundle_path):
    limits = StreamLimits(samples=5)
    image = np.zeros((2, 8, 8), dtype=np.float32)
    with oip.serving([bundle_path], limits=limits) as server:
        requests = [oip.request("tiny.transmitter", {"image": image}, id=str(number)) for number in range(9)]
        responses = list(server.stub.ModelStreamInfer(iter(requests)))
    assert [response.error_message for response in responses] == [
        "",
        "",
        "a stream takes at most 5 samples: open another",
    ]
    assert responses[2].infer_response.id == "2"


def test_a_failure_within_the_server_is_told_by_its_id(oip, bundle_path, images, monkeypatch):
    async def broken(*arguments):
        raise RuntimeError("/secret/path")

    with oip.serving([bundle_path]) as server:
        monkeypatch.setattr(server.engine.model("tiny"), "encode", broken)
        request = oip.request("tiny.transmitter", {"image": images})
        (response,) = server.stub.ModelStreamInfer(iter([request]))
        with pytest.raises(grpc.RpcError) as failed:
            server.stub.ModelInfer(request)
    assert response.error_message.startswith("internal error; the server's log has it as request ")
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in response.error_message + failed.value.details()


def test_the_deadline_of_a_stream_is_that_of_its_requests(oip, bundle_path, images, monkeypatch):
    callers = []
    with oip.serving([bundle_path]) as server:
        model = server.engine.model("tiny")
        encode = model.encode

        async def watched(inputs, snr_db, caller, **told):
            callers.append(caller)
            return await encode(inputs, snr_db, caller, **told)

        monkeypatch.setattr(model, "encode", watched)
        requests = [
            oip.request("tiny.transmitter", {"image": images}, parameters=parameters)
            for parameters in ({}, {"timeout": 10_000_000})
        ]
        list(server.stub.ModelStreamInfer(iter(requests), timeout=100.0))
        list(server.stub.ModelStreamInfer(iter(requests)))
    first, second, none, own = (caller.deadline for caller in callers)
    assert none is None
    assert first - second > 80.0
    assert own is not None
    assert all(caller.nbytes == request.ByteSize() for caller, request in zip(callers, requests * 2, strict=True))
