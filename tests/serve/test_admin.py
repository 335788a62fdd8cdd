"""AdminService on a server of its own, asked by its client."""

import asyncio
import threading
from contextlib import contextmanager

import grpc
import pytest

from link.errors import BundleError, ServerError
from serve.client.admin import AdminClient, Reloaded
from serve.engine.errors import ModelNotFound
from serve.engine.repository import Swap
from serve.messages.statistics import snapshot_from_message, snapshot_to_message
from serve.pb.hardpath.v1 import admin_pb2 as pb
from serve.pb.hardpath.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from serve.results import RadioState
from serve.services.admin import AdminServicer
from serve.telemetry.snapshot import REASONS
from serve.telemetry.statistics import InFlight, Statistics

MODELS = {"digits": (3, 4), "texts": (1, 1)}


async def reload(model):
    if model == "broken":
        raise BundleError("runs/broken: manifest.json is missing")
    if model == "odd":
        raise ZeroDivisionError("no such luck")
    if model and model not in MODELS:
        raise ModelNotFound(model, MODELS)
    return [
        Swap(name, *versions, changed=versions[0] != versions[1])
        for name, versions in MODELS.items()
        if model in ("", name)
    ]


@pytest.fixture(scope="module")
def statistics():
    counted = Statistics(lambda: InFlight(7, 700))
    counted.loaded("digits", 3)
    counted.loaded("digits", 4)
    counted.refused("digits")
    for number, name in enumerate(("digits.link", "digits.receiver")):
        operation = counted.operation(name)
        operation.succeeded(64 + number, 1, 2, 3, 4, 123_456_789)
        for reason in REASONS[number:]:
            operation.failed(reason, 20_000_000)
        operation.executed(64, requests=2, wasted=2)
        operation.executed(100_000)
        operation.sent(90, 23, 6, -4.25, "awgn")
        operation.sent(90, 23, 6, 60.0, "rician-fast")
        operation.waiting = lambda: 2**40
    counted.failed("denied")
    counted.lagged(2_000_000)
    counted.radio = lambda: RadioState("zmq", True, 3, 1, 40, 2, 5, 2**40)
    with operation.stream(), operation.sweep():
        yield counted


@contextmanager
def running(servicer):
    """A server of grpc.aio on a free port, in a loop and a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start():
        server = grpc.aio.server()
        if servicer is not None:
            add_AdminServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, f"127.0.0.1:{port}"

    server, address = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def client(statistics):
    with running(AdminServicer(statistics.snapshot, reload)) as address, grpc.insecure_channel(address) as channel:
        yield AdminClient(channel, address)


def test_a_client_gets_the_snapshot_that_the_server_took(client, statistics):
    got, taken = client.statistics(), statistics.snapshot()
    assert got.operations == taken.operations
    assert got.models == taken.models == (("digits", 4, 1, 1),)
    assert got.radio == taken.radio == ("zmq", True, 3, 1, 40, 2, 5, 2**40)
    assert (got.failures, got.loop_lag_ns) == (taken.failures, taken.loop_lag_ns)
    assert got.start_time == pytest.approx(taken.start_time, abs=1e-6)
    assert 0.0 < got.uptime_s <= taken.uptime_s
    assert got.operations[0].failures != got.operations[1].failures
    assert got.operations[1].streams == got.operations[1].sweeps == 1


def test_an_empty_server_has_an_empty_snapshot():
    taken = Statistics().snapshot()
    got = snapshot_from_message(snapshot_to_message(taken))
    assert (got.operations, got.radio) == ((), None)


def test_every_field_of_the_messages_is_filled(statistics):
    message = snapshot_to_message(statistics.snapshot())
    for part in (message, message.operations[1], message.models[0], message.operations[0].failures, message.radio):
        assert {field.name for field, _ in part.ListFields()} == {field.name for field in part.DESCRIPTOR.fields}


def test_a_reload_tells_which_version_was_and_which_is_served(client):
    digits, texts = Reloaded("digits", 3, 4, changed=True), Reloaded("texts", 1, 1, changed=False)
    assert client.reload("digits") == (digits,)
    assert client.reload() == (digits, texts)


def test_a_model_that_is_not_there_is_answered_with_those_that_are(client):
    with pytest.raises(ServerError, match=r"NOT_FOUND: model must be one of digits, texts, got 'x'$"):
        client.reload("x")


def test_a_bundle_that_is_refused_is_one_line(client):
    with pytest.raises(ServerError, match=r"FAILED_PRECONDITION: runs/broken: manifest\.json is missing$"):
        client.reload("broken")


def test_a_fault_tells_an_id_and_nothing_else(client, caplog):
    with pytest.raises(ServerError, match=r"INTERNAL: internal error; .* request [0-9a-f]{32}$"):
        client.reload("odd")
    assert "no such luck" in caplog.text


def test_a_server_that_is_not_there_or_has_no_such_service_is_named():
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(ServerError, match=r"at 127\.0\.0\.1:1:"):
        AdminClient(channel, "127.0.0.1:1").statistics()
    with (
        running(None) as address,
        grpc.insecure_channel(address) as channel,
        pytest.raises(ServerError, match=r"has no hardpath\.v1\.AdminService"),
    ):
        AdminClient(channel, address).statistics()


def test_a_server_that_does_not_answer_is_given_up():
    def held():
        threading.Event().wait(0.3)
        return Statistics().snapshot()

    with (
        running(AdminServicer(held, reload)) as address,
        grpc.insecure_channel(address) as channel,
        pytest.raises(ServerError, match=r"within 0\.1 s"),
    ):
        AdminClient(channel, address, timeout_s=0.1).statistics()


def test_the_services_name_is_that_on_the_wire():
    assert pb.DESCRIPTOR.package == "hardpath.v1"
