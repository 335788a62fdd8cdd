import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from link.errors import BundleError, ServerError
from serve.client import Client
from serve.server import Server

SERVICE = "hardpath.v1.LinkService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as connected:
        yield connected


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_is_told_for_the_server_and_the_service(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == SERVING


def test_a_client_that_knows_only_reflection_can_transmit(channel, client, images):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).methods_by_name["Transmit"]
    request_type, response_type = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    assert method.input_type.file.package == "hardpath.v1"
    body = {
        "inputs": {"image": {"shape": [1, 8, 8], "float32_values": images[0].ravel().tolist()}},
        "settings": {"snr_db": 12, "channel": "rician", "k_factor_db": 3, "seed": 5},
    }
    call = channel.unary_unary(f"/{SERVICE}/Transmit", request_type.SerializeToString, response_type.FromString)
    reply = json_format.MessageToDict(call(json_format.ParseDict(body, request_type()), timeout=20))

    expected = client.transmit(images[:1], snr_db=12, channel="rician", k_factor_db=3, seed=5)
    assert reply["decoded"]["decisions"][0]["className"] == expected.decoded.class_names[0]
    assert reply["sent"]["bits"]["uint8Values"] == expected.sent.bits[0].tolist()
    np.testing.assert_array_equal(np.float32(reply["decoded"]["logits"]["float32Values"]), expected.decoded.logits[0])
    assert reply["settings"] == {"snrDb": 12.0, "channel": "rician", "kFactorDb": 3.0, "seed": "5", "csi": "perfect"}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_reflection_list_the_services(channel, version):
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    reply = next(call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=20))
    assert {SERVICE, "grpc.health.v1.Health"} <= {service.name for service in reply.list_services_response.service}


def test_a_port_in_use_is_refused_by_name_and_in_one_line(server, bundle_path, capfd):
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(ServerError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: port {port} is in use; .*$"):
        Server(bundle_path, port=port)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("192.0.2.1", 0), ("nowhere.invalid", 0)])
def test_an_address_that_cannot_be_had_is_refused(bundle_path, host, port):
    with pytest.raises(ServerError, match=f"^cannot listen on {host}:{port}: .+"):
        Server(bundle_path, host=host, port=port)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_come_in_brackets(bundle_path, host):
    with Server(bundle_path, host=host, port=0) as server:
        assert re.fullmatch(r"\[::1\]:\d+", server.address)


def test_nobody_else_can_share_the_port(server):
    host, _, port = server.address.rpartition(":")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))


def test_a_port_is_free_again_after_the_server_stopped(bundle_path):
    with Server(bundle_path, port=0) as first:
        port = int(first.address.rpartition(":")[2])
    with Server(bundle_path, port=port) as second, Client(second.address) as client:
        assert client.model().manifest.name == "tiny"


def test_a_folder_without_a_bundle_is_refused_before_a_port_is_taken(tmp_path):
    with pytest.raises(BundleError):
        Server(tmp_path, port=0)


class Held:
    """A transmitter that waits in the middle of its run until it is let go."""

    def __init__(self, server):
        model = server.engine.model()
        model._batchers["transmitter"]._quick_s = 0.0  # no run of it is made on the event loop
        transmitter = model.link.transmitter
        self.run, self.entered, self.go = transmitter.run, threading.Event(), threading.Event()
        transmitter.run = self

    def __call__(self, *arguments):
        self.entered.set()
        assert self.go.wait(20)
        return self.run(*arguments)


def call_until_refused(client):
    while True:  # health is told first, so a call may still slip in
        client.model()


def test_stopping_says_so_refuses_new_calls_and_finishes_those_in_flight(bundle_path, images):
    with (
        ThreadPoolExecutor(2) as pool,
        Server(bundle_path, port=0, grace_s=20.0) as server,
        Client(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        held = Held(server)
        statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
        assert next(statuses).status == SERVING

        in_flight = pool.submit(client.encode, {"image": images})
        assert held.entered.wait(20)
        stopped = pool.submit(server.stop)
        assert next(statuses).status == NOT_SERVING
        statuses.cancel()
        assert not stopped.done()
        with pytest.raises(ServerError, match=server.address), Client(server.address, timeout_s=5.0) as late:
            call_until_refused(late)

        held.go.set()
        assert in_flight.result(20).bits.shape == (len(images), 15)
        stopped.result(20)


def test_a_call_that_outlasts_the_grace_is_cut(bundle_path, images):
    with ThreadPoolExecutor(1) as pool, Server(bundle_path, port=0, grace_s=0.1) as server:
        held = Held(server)
        with Client(server.address) as client:
            in_flight = pool.submit(client.encode, {"image": images})
            assert held.entered.wait(20)
            server.stop()
            with pytest.raises(ServerError, match=server.address):
                in_flight.result(20)
        held.go.set()


def test_a_defect_of_the_server_is_internal_and_keeps_its_traceback_to_itself(bundle_path, images, caplog):
    def fail(*_):
        raise RuntimeError("a secret")

    with Server(bundle_path, port=0) as server, Client(server.address) as client:
        server.engine.model().link.transmitter.run = fail
        with pytest.raises(
            ServerError, match=rf"{server.address} failed: INTERNAL: .* request [0-9a-f]{{32}}$"
        ) as error:
            client.encode(images)
    assert "secret" not in str(error.value)
    assert "a secret" in caplog.text


def test_a_server_that_is_not_there_is_named_at_once():
    with socket.socket() as taken:  # bound, not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with Client(address) as client, pytest.raises(ServerError, match=f"^no server can be reached at {address}"):
            client.model()
    assert time.monotonic() - start < 10


def test_a_reply_that_cannot_be_read_is_the_servers_fault(bundle_path, images, monkeypatch):
    monkeypatch.setattr("serve.messages.convert.sent_to_message", lambda *_, **__: None)
    with (
        Server(bundle_path, port=0) as server,
        Client(server.address) as client,
        pytest.raises(ServerError, match=f"^the server at {server.address} sent a reply that cannot be read: indices"),
    ):
        client.encode(images)


def test_a_server_that_does_not_answer_is_given_up_at_the_deadline(bundle_path, images):
    with Server(bundle_path, port=0, grace_s=20.0) as server, Client(server.address, timeout_s=0.2) as client:
        client.model()
        held = Held(server)
        with pytest.raises(ServerError, match=f"{server.address} did not answer within 0.2 s"):
            client.encode({"image": images})
        held.go.set()


def test_a_message_beyond_grpcs_own_limit_passes(bundle_path, images):
    batch = np.tile(images, (40_000 // len(images), 1, 1))
    assert 4 * 2**20 < batch.nbytes < 64 * 2**20
    with Server(bundle_path, port=0, max_batch=len(batch)) as server, Client(server.address) as client:
        assert len(client.encode(batch).bits) == len(batch)


PROGRAM = """
import sys
from serve.config.layers import load_config
from serve.server import serve
serve(load_config(flags={"bundles": (sys.argv[1],), "listen.port": 0}), ready=lambda address: print(address, flush=True))
print("drained", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_command(bundle_path, images, number):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(bundle_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            with Client(address) as client:
                assert len(client.encode(images).bits) == len(images)
            process.send_signal(number)
            assert process.communicate(timeout=20) == ("drained\n", "")
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize("apart_s", [0.0, 0.01])
def test_two_signals_at_once_drain_it_once(bundle_path, apart_s):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(bundle_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            process.stdout.readline()
            together = (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT)
            for number in (signal.SIGTERM, signal.SIGINT) if apart_s else together:
                process.send_signal(number)
                time.sleep(apart_s)
            assert process.communicate(timeout=20) == ("drained\n", "")
        finally:
            process.kill()
    assert process.returncode == 0
