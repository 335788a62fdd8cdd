"""The client against a server that behaves as badly as a test wants: what is repeated, what is raised, what comes back."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from operator import attrgetter

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from link.bundle import load_bundle
from link.errors import ArgumentError, ServerError
from serve.client import AsyncClient, Client, Retries, failures
from serve.client.pieces import borders_of
from serve.messages.manifest import model_to_message
from serve.messages.tensor import tensor_from_message, tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc
from serve.results import ModelInfo

SOON = Retries(backoff_s=0.001, backoff_max_s=0.002)


class Bad(Exception):
    """What a test has the server answer."""

    def __init__(self, code, text="on purpose", *details):
        self.status = status_pb2.Status(code=code.value[0], message=text)
        for detail in details:
            self.status.details.append(Any())
            self.status.details[-1].Pack(detail)


def busy(seconds):
    delay = Duration(nanos=int(1e9 * seconds))
    return Bad(grpc.StatusCode.RESOURCE_EXHAUSTED, "come back", error_details_pb2.RetryInfo(retry_delay=delay))


GONE = Bad(grpc.StatusCode.UNAVAILABLE)


class Fake(link_pb2_grpc.LinkServiceServicer):
    """What a row gets tells its image and its sample's number; before it answers, the server does what `script` says."""

    def __init__(self, manifest, max_batch=64):
        self.manifest, self.max_batch = manifest, max_batch
        self.script, self.seen, self.left, self.metadata = [], [], [], []
        self.cancelled, self.lock, self.version = threading.Event(), threading.Lock(), lambda: 1

    def act(self, request, context):
        with self.lock:
            self.seen.append((time.monotonic(), request))
            self.left.append(context.time_remaining())
            self.metadata.append(dict(context.invocation_metadata()))
            deed = self.script.pop(0) if self.script else None
        if isinstance(deed, Bad):
            context.abort_with_status(rpc_status.to_status(deed.status))
        if isinstance(deed, float):
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(deed)

    def GetModel(self, request, context):
        return model_to_message(ModelInfo(self.manifest, "0", ("awgn",), self.max_batch))

    def ListModels(self, request, context):
        return pb.ListModelsResponse(models=[pb.ModelSummary(name="tiny", version=1, task="shapes")])

    def Transmit(self, request, context):
        self.act(request, context)
        return self.transmitted(request)

    def transmitted(self, request):
        images = tensor_from_message("image", request.inputs["image"])
        assert len(images) <= self.max_batch
        numbers = request.settings.sample_offset + np.arange(len(images))
        scores = tensor_to_message("logits", np.zeros((len(images), 3), np.float32))
        return pb.TransmitResponse(
            sent=pb.Transmission(
                mode=[0] * len(images),
                indices=tensor_to_message("indices", np.round(images[:, 0, :1]).astype(np.int64)),
                bits=tensor_to_message("bits", np.zeros((len(images), 15), np.uint8)),
                num_bits=[15] * len(images),
                num_symbols=[4] * len(images),
            ),
            decoded=pb.Reception(
                decisions=[pb.Decision(class_name="disc")] * len(images),
                indices_hat=tensor_to_message("indices_hat", numbers[:, None]),
                logits=scores,
                probabilities=scores,
            ),
            bit_errors=numbers.tolist(),
            settings=request.settings,
            timing=pb.Timing(transmitter_us=1.0, channel_us=2.0, receiver_us=3.0),
            model_version=1,  # exports that nobody numbered
            model_digest=str(self.version()),
        )

    def TransmitStream(self, requests, context):
        self.act(None, context)
        for index, asked in enumerate(requests):
            deed = self.script.pop(0) if self.script else None
            if isinstance(deed, Bad):
                context.abort_with_status(rpc_status.to_status(deed.status))
            if isinstance(deed, pb.Failure):
                yield pb.TransmitStreamResponse(index=index, failure=deed)
            else:
                with self.lock:
                    self.seen.append((time.monotonic(), asked.request))
                yield pb.TransmitStreamResponse(index=index, response=self.transmitted(asked.request))

    def Sweep(self, request, context):
        with self.lock:
            self.seen.append((time.monotonic(), request))
        context.add_callback(self.cancelled.set)
        for snr_db in request.snr_db:
            deed = self.script.pop(0) if self.script else None
            if isinstance(deed, Bad):
                context.abort_with_status(rpc_status.to_status(deed.status))
            if isinstance(deed, float):
                self.cancelled.wait(deed)
            point = pb.SweepPoint(snr_db=snr_db, samples=7, draws=1, correct=6)
            yield pb.SweepResponse(point=point, model_digest=str(self.version()))


@contextmanager
def served(fake, port=0):
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    link_pb2_grpc.add_LinkServiceServicer_to_server(fake, server)
    server.health = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(server.health, server)
    server.health.set("", health_pb2.HealthCheckResponse.SERVING)
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield address, server
    finally:
        server.stop(0).wait()


@pytest.fixture
def fake(bundle_path):
    return Fake(load_bundle(bundle_path).manifest)


@pytest.fixture
def address(fake):
    with served(fake) as (address, _):
        yield address


class Threads:
    """The calls of Client."""

    def call(self, address, name, *arguments, **options):
        own = {key: options.pop(key) for key in ("token", "timeout", "retries") if key in options}
        with Client(address, retries=own.pop("retries", SOON), timeout_s=own.pop("timeout", 20.0), **own) as client:
            found = getattr(client, name)(*arguments, **options)
            return list(found) if name in ("transmit_stream", "sweep") else found


class Loop:
    """The same calls of AsyncClient."""

    def call(self, address, name, *arguments, **options):
        own = {key: options.pop(key) for key in ("token", "timeout", "retries") if key in options}

        async def run():
            async with AsyncClient(
                address, retries=own.pop("retries", SOON), timeout_s=own.pop("timeout", 20.0), **own
            ) as client:
                found = getattr(client, name)(*arguments, **options)
                return [item async for item in found] if name in ("transmit_stream", "sweep") else await found

        return asyncio.run(run())


@pytest.fixture(params=[Threads, Loop], ids=["threads", "asyncio"])
def call(request):
    return request.param().call


def assert_in_order(results, images, first=0):
    """Each row was answered once, and with what is its own."""
    numbers = np.concatenate([result.bit_errors for result in results])
    np.testing.assert_array_equal(numbers, first + np.arange(len(images)))
    indices = np.concatenate([result.sent.indices for result in results])
    np.testing.assert_array_equal(indices[:, 0], np.round(images[:, 0, 0]))


def test_a_busy_server_is_asked_again_and_not_before_the_time_that_it_named(call, fake, address, images):
    fake.script = [busy(0.05), busy(0.12)]
    assert len(call(address, "transmit", images, snr_db=3.0).bit_errors) == len(images)
    first, second, third = (moment for moment, _ in fake.seen)
    assert second - first >= 0.05
    assert third - second >= 0.12


def test_a_busy_server_that_names_a_time_past_the_deadline_is_not_waited_for(call, fake, address, images):
    fake.script = [busy(0.9)] * 3
    start = time.monotonic()
    with pytest.raises(failures.Overloaded, match="come back") as refused:
        call(address, "transmit", images, snr_db=3.0, timeout=0.9)
    assert refused.value.retry_after_s == pytest.approx(0.9)
    assert isinstance(refused.value, ServerError)
    assert len(fake.seen) == 1
    assert time.monotonic() - start < 0.9


def test_a_server_that_went_away_is_asked_again_with_the_time_that_is_left(call, fake, address, images):
    fake.script = [GONE, busy(0.5)]
    call(address, "transmit", images, snr_db=3.0, timeout=15.0)
    assert len(fake.seen) == 3
    assert fake.left[2] < 15.0 - 0.5


def test_attempts_are_few(call, fake, address, images):
    fake.script = [GONE] * 20
    with pytest.raises(failures.Unreachable, match=f"^no server can be reached at {address}: on purpose$"):
        call(address, "transmit", images, snr_db=3.0)
    assert len(fake.seen) == SOON.attempts


def test_a_sick_server_is_not_stormed(fake, address, images):
    fake.script = [GONE] * 1000
    with Client(address, retries=SOON._replace(budget=10)) as client:
        for _ in range(40):
            with pytest.raises(failures.Unreachable):
                client.transmit(images, snr_db=3.0)
    # 40 first attempts, and the ten failures of the budget each followed by another at most.
    assert 40 < len(fake.seen) <= 40 + 10


UNREPEATED = {
    "INVALID_ARGUMENT": (ArgumentError, "on purpose"),
    "NOT_FOUND": (failures.ModelNotFound, "^model on purpose$"),
    "INTERNAL": (failures.Internal, "failed: INTERNAL: on purpose"),
    "UNKNOWN": (ServerError, "failed: UNKNOWN: on purpose"),
    "UNAUTHENTICATED": (failures.Unauthenticated, "wants a token that it knows: on purpose"),
    "PERMISSION_DENIED": (failures.PermissionDenied, "does not allow this call: on purpose"),
    "RESOURCE_EXHAUSTED": (ServerError, "failed: RESOURCE_EXHAUSTED: on purpose"),
    "DEADLINE_EXCEEDED": (failures.DeadlineExceeded, "did not answer within 20 s"),
    "FAILED_PRECONDITION": (ServerError, "failed: FAILED_PRECONDITION: on purpose"),
}


@pytest.mark.parametrize("code", UNREPEATED)
def test_what_no_repetition_mends_is_raised_at_once_as_what_it_is(call, fake, address, images, code):
    kind, message = UNREPEATED[code]
    violation = error_details_pb2.BadRequest.FieldViolation(field="settings.seed", description="on purpose")
    details = [error_details_pb2.BadRequest(field_violations=[violation])] if code == "INVALID_ARGUMENT" else []
    fake.script = [Bad(grpc.StatusCode[code], "on purpose", *details)] * 2
    with pytest.raises(kind, match=message) as refused:
        call(address, "transmit", images, snr_db=3.0)
    assert type(refused.value) is kind
    assert len(fake.seen) == 1
    if code == "INVALID_ARGUMENT":
        assert refused.value.field == "seed"


def test_an_internal_error_carries_what_the_log_has_it_under(call, fake, address, images):
    fake.script = [Bad(grpc.StatusCode.INTERNAL, "broken", error_details_pb2.RequestInfo(request_id="ab12"))]
    with pytest.raises(failures.Internal) as broken:
        call(address, "transmit", images, snr_db=3.0)
    assert broken.value.request_id == "ab12"


def test_the_deadline_is_the_caller_s(call, fake, address, images):
    call(address, "model")
    fake.script = [10.0]
    with pytest.raises(failures.DeadlineExceeded, match=r"within 0.3 s$"):
        call(address, "transmit", images, snr_db=3.0, timeout_s=0.3)
    assert fake.left[0] <= 0.31  # clocks are read to a millisecond
    with pytest.raises(ArgumentError, match=r"^timeout_s must be above 0"):
        call(address, "transmit", images, snr_db=3.0, timeout_s=0.0)


@pytest.mark.parametrize("most", [1, 2, 3, 6, 7, 64])
def test_a_batch_is_cut_into_as_few_requests_as_the_server_takes(call, fake, address, images, most):
    fake.max_batch = most
    told = []
    found = call(address, "transmit", images, snr_db=2.0, sample_offset=11, progress=lambda *done: told.append(done))
    assert_in_order([found], images, first=11)
    assert found.settings.sample_offset == 11
    assert len(found.decoded.class_names) == len(images)
    assert len(fake.seen) == -(-len(images) // most)
    assert found.timing[:3] == (1.0 * len(fake.seen), 2.0 * len(fake.seen), 3.0 * len(fake.seen))
    assert told[-1] == (len(images), len(images))
    assert told == sorted(set(told))


def test_pieces_are_repeated_one_by_one(call, fake, address, images):
    fake.max_batch, fake.script = 1, [GONE, None, busy(0.01), None, GONE, GONE]
    assert_in_order([call(address, "transmit", images, snr_db=2.0)], images)
    assert len(fake.seen) == len(images) + 4


def test_a_row_is_named_as_the_caller_counts_it(call, fake, address, images):
    violation = error_details_pb2.BadRequest.FieldViolation(field="inputs.text[1]", description="is empty")
    fake.max_batch = 3
    fake.script = [
        None,
        Bad(grpc.StatusCode.INVALID_ARGUMENT, "", error_details_pb2.BadRequest(field_violations=[violation])),
    ]
    with pytest.raises(ArgumentError, match=r"^inputs\.text\[[147]\] is empty$"):
        call(address, "transmit", images, snr_db=2.0)


def test_a_batch_is_never_answered_by_two_versions_of_a_model(call, fake, address, images):
    versions = iter([1, 1, 2, 2] + [2] * 10)
    fake.max_batch, fake.version = 2, lambda: next(versions)
    call(address, "transmit", images, snr_db=2.0)
    assert len(fake.seen) == 8
    fake.version = lambda: len(fake.seen)
    with pytest.raises(ServerError, match="several versions"):
        call(address, "transmit", images, snr_db=2.0)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("bit_errors", "bit_errors must have 2 rows, got 1"),
        ("sent.num_bits", "sent.num_bits must have 2 rows, got 1"),
        ("decoded.decisions", "decoded.decisions must have 2 rows, got 1"),
    ],
)
@pytest.mark.parametrize("name", ["transmit", "transmit_stream"])
def test_a_reply_with_other_rows_than_were_sent_is_not_passed_on(call, fake, address, images, name, path, why):
    answer = fake.transmitted

    def shorter(request):
        reply = answer(request)
        if request.settings.sample_offset == 2:  # of the second of two pieces
            del attrgetter(path)(reply)[-1]
        return reply

    fake.max_batch, fake.transmitted = 2, shorter
    batch = images[:4] if name == "transmit" else [images[:4]]
    with pytest.raises(failures.UnreadableReply, match=re.escape(f"{address} sent a reply that cannot be read: {why}")):
        call(address, name, batch, snr_db=2.0)


@pytest.mark.parametrize("name", ["transmit", "transmit_stream"])
def test_pieces_that_do_not_fit_together_are_not_joined(call, fake, address, images, name):
    answer = fake.transmitted

    def flagged(request):
        reply = answer(request)
        if request.settings.sample_offset:
            reply.truncated.extend([False, False])
        return reply

    fake.max_batch, fake.transmitted = 2, flagged
    batch = images[:4] if name == "transmit" else [images[:4]]
    with pytest.raises(failures.UnreadableReply, match="the pieces of one batch differ"):
        call(address, name, batch, snr_db=2.0)


def test_pieces_end_with_frames():
    for rows in range(1, 40):
        for offset in range(9):
            for frame in (1, 3, 4):
                for most in range(frame, 13):
                    borders = borders_of(rows, offset, most, frame)
                    sizes = np.diff(borders)
                    assert borders[0] == 0
                    assert borders[-1] == rows
                    assert (sizes > 0).all()
                    assert sizes.max() <= most
                    assert all((offset + border) % frame == 0 for border in borders[1:-1])
                    assert len(sizes) <= -(-rows // (most // frame * frame)) + 1
    with pytest.raises(ArgumentError, match="a frame of this model has 4"):
        borders_of(10, 0, 3, 4)


def test_a_sample_that_no_message_takes_is_refused_by_its_size(client):
    long = np.zeros((1, 3_000_000), np.float32)
    with pytest.raises(ArgumentError, match=r"^x must take at most 8388608 bytes a sample, got 12000000$"):
        client.transmit(long, snr_db=2.0)


def test_a_stream_answers_in_order_with_what_one_batch_would(call, fake, address, images):
    batches = [images[:2], images[2:3], images[3:]]
    fake.max_batch = 3  # the last is two requests
    found = call(address, "transmit_stream", iter(batches), snr_db=2.0, seed=3)
    assert [len(result.bit_errors) for result in found] == [2, 1, 4]
    assert_in_order(found, images)


@pytest.mark.parametrize("in_flight", [1, 3, 16])
def test_a_stream_that_breaks_goes_on_where_it_was(call, fake, address, images, in_flight):
    # Each opening takes one entry for itself.
    fake.script = [None, None, GONE, None, None, None, GONE, GONE, None, GONE]
    rows = [images[i : i + 1] for i in range(len(images))]
    found = call(address, "transmit_stream", rows, snr_db=2.0, in_flight=in_flight)
    assert_in_order(found, images)
    assert not fake.script


def test_a_request_of_a_stream_that_fails_is_repeated_where_that_helps(call, fake, address, images):
    exhausted = pb.Failure(code=8, message="come back", retry_after_ms=20.0)
    fake.script = [None, None, exhausted]
    rows = [images[i : i + 1] for i in range(len(images))]
    found = call(address, "transmit_stream", rows, snr_db=2.0)
    assert_in_order(found, images)
    fake.script = [None, pb.Failure(code=3, message="inputs.image must be finite", field="inputs.image")]
    with pytest.raises(ArgumentError, match=r"^inputs\.image must be finite$"):
        call(address, "transmit_stream", rows, snr_db=2.0)


def test_what_the_caller_s_iterable_raises_is_raised_after_the_results_before_it(address, images):
    def batches():
        yield images[:2]
        raise KeyError("no more")

    with Client(address) as client:
        results = client.transmit_stream(batches(), snr_db=2.0)
        assert len(next(results).bit_errors) == 2
        with pytest.raises(KeyError, match="no more"):
            next(results)


def test_a_live_source_is_answered_before_it_goes_on(call, address, images):
    with Client(address) as client:
        arrived = threading.Event()

        def batches():
            yield images[:1]
            assert arrived.wait(20)
            yield images[1:2]

        for result in client.transmit_stream(batches(), snr_db=2.0):
            assert len(result.bit_errors) == 1
            arrived.set()


def test_an_asynchronous_source_may_feed_a_stream(address, images):
    async def run():
        arrived = asyncio.Event()

        async def batches():
            yield images[:1]
            await asyncio.wait_for(arrived.wait(), 20)
            yield images[1:3]

        async with AsyncClient(address) as client:
            sizes = []
            async for result in client.transmit_stream(batches(), snr_db=2.0):
                sizes.append(len(result.bit_errors))
                arrived.set()
            return sizes

    assert asyncio.run(run()) == [1, 2]


def test_points_of_a_sweep_come_once_though_the_server_went_away(call, fake, address, images):
    fake.script = [None, GONE, GONE, None, GONE]
    points = call(address, "sweep", images, [0.0, 3.0, 6.0, 9.0], draws=2, seed=4)
    assert [point.snr_db for point in points] == [0.0, 3.0, 6.0, 9.0]
    assert list(fake.seen[-1][1].snr_db) == [6.0, 9.0]
    assert fake.seen[-1][1].draws == 2
    assert fake.seen[-1][1].settings.seed == 4


def test_points_of_a_sweep_are_never_those_of_two_versions_of_a_model(call, fake, address, images):
    fake.script = [None, None, GONE]
    fake.version = iter([1, 1, 2, 2]).__next__
    with pytest.raises(ServerError, match="several versions of the model"):
        call(address, "sweep", images, [0.0, 5.0, 10.0, 15.0])


def test_closing_a_sweep_cancels_it(fake, address, images):
    fake.script = [None, 20.0]
    with Client(address) as client:
        points = client.sweep(images, [0.0, 3.0, 6.0])
        assert next(points).snr_db == 0.0
        assert not fake.cancelled.is_set()
        points.close()
        assert fake.cancelled.wait(10)


def test_cancelling_a_task_cancels_its_calls(fake, address, images):
    fake.max_batch, fake.script = 2, [20.0] * 4

    async def run():
        async with AsyncClient(address) as client:
            task = asyncio.create_task(client.transmit(images, snr_db=2.0))
            while len(fake.seen) < 4:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(fake.cancelled.wait, 10)

    asyncio.run(run())


def test_closing_a_client_ends_what_other_threads_wait_for(fake, address, images):
    fake.max_batch, fake.script = 2, [20.0] * 4
    with futures.ThreadPoolExecutor(1) as pool:
        client = Client(address)
        waiting = pool.submit(client.transmit, images, snr_db=2.0)
        while len(fake.seen) < 4:
            time.sleep(0.01)
        client.close()
        with pytest.raises(ServerError, match=address):
            waiting.result(20)


def test_models_are_named_and_asked_for(call, fake, address, images):
    assert [(model.name, model.version, model.task) for model in call(address, "models")] == [("tiny", 1, "shapes")]
    call(address, "transmit", images, snr_db=1.0, model="tiny")
    assert fake.seen[-1][1].model == "tiny"


def test_a_token_goes_with_each_call(call, fake, address, images):
    call(address, "transmit", images, snr_db=1.0, token="abc")
    assert fake.metadata[-1]["authorization"] == "Bearer abc"


PROGRAM = """
import signal, sys
import numpy as np
from serve.client import Client
signal.signal(signal.SIGINT, signal.default_int_handler)
with Client(sys.argv[1]) as client:
    client.model()
    print("ready", flush=True)
    try:
        client.transmit(np.ones((int(sys.argv[2]), 8, 8), np.float32), snr_db=3.0)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("rows", [1, 300], ids=["one request", "several"])
def test_ctrl_c_cancels_what_is_in_flight(fake, address, rows):
    fake.script = [60.0] * 4
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, str(rows)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            while len(fake.seen) < (1 if rows == 1 else 4):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20)[0] == "interrupted\n"
            assert fake.cancelled.wait(10)
        finally:
            process.kill()
