"""Transmit over the radio of a server: answers, turns, refusals, and a device that comes and goes."""

import asyncio
import logging
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import zmq
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from link.bundle import load_bundle
from link.chain import Link
from link.channel import RADIO
from link.errors import ArgumentError, DriverUnavailable, RadioError, ServerError
from link.radio.channel import RadioChannel
from link.radio.spec import load_radio
from link.randomness import Draws
from link.semantic import clean_decisions
from serve.client import AsyncClient, Client
from serve.client.failures import DeadlineExceeded, Overloaded, Unavailable
from serve.client.retries import Retries
from serve.engine import radio as engine_radio
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.server import Server

ONCE = Retries(attempts=1)
LIMIT_S = 20.0
LOOPBACK = "[frontend]\nkind = 'loopback'\n"
IMPAIRED = "[frontend]\nkind = 'impaired'\ncfo = 2e-4\ntaps = [0.9, 0, 0, '0.3j']\ndelay_samples = 3.25\n"
OPTIONS = ("block_symbols", "k_factor_db", "csi", "pilots", "no_offset_db")


@pytest.fixture(scope="module")
def with_radio(several, tmp_path_factory):
    """Function from what a radio's file says, and sections of a configuration, to a server with it and a client."""

    @contextmanager
    def run(bundle, text, wait_s=LIMIT_S, **sections):
        file = tmp_path_factory.mktemp("radio") / "radio.toml"
        file.write_text(text)
        with (
            several([bundle], radio={"file": file, "wait_s": wait_s}, **sections) as server,
            Client(server.address, retries=ONCE, timeout_s=LIMIT_S) as client,
        ):
            radio = server.engine.means.radio
            yield SimpleNamespace(**vars(server), client=client, radio=radio, spec=load_radio(file))

    return run


@pytest.fixture(scope="module")
def loopback(with_radio, bundle_path):
    with with_radio(bundle_path, LOOPBACK) as server:
        yield server


@pytest.fixture(scope="module")
def impaired(with_radio, bundle_path):
    with with_radio(bundle_path, IMPAIRED) as server:
        yield server


@pytest.fixture
def own(with_radio, bundle_path):
    """A server of the test's own: its counts begin at 0."""
    with with_radio(bundle_path, LOOPBACK) as server:
        yield server


def ask(images, **settings):
    return pb.TransmitRequest(
        inputs={"image": tensor_to_message("image", images)}, settings=pb.LinkSettings(**{"channel": RADIO} | settings)
    )


class Busy:
    """Exchanges of a radio begin, and end when they are let to; `most` of them were under way at a time."""

    def __init__(self, radio):
        self.drop, self.entered, self.go = radio.channel.drop, threading.Event(), threading.Event()
        self.inside = self.most = self.begun = 0
        radio.channel.drop = self

    def __call__(self, *arguments):
        self.begun += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.set()
        assert self.go.wait(LIMIT_S)
        self.inside -= 1
        return self.drop(*arguments)


@contextmanager
def busy(server, images):
    """The radio of a server has begun a call that ends with the block at the latest; the call, and what lets it go."""
    held = Busy(server.radio)
    call = server.stub.Transmit.future(ask(images))
    try:
        assert held.entered.wait(LIMIT_S)
        yield held, call
    finally:
        held.go.set()


# What is answered


def test_over_a_loopback_the_decisions_are_those_of_the_clean_chain(loopback, link, images):
    reply = loopback.client.transmit(images, channel=RADIO)
    assert reply.decoded.decisions.tolist() == clean_decisions(link, {"image": images}).tolist()
    assert reply.bit_errors.tolist() == [0] * len(images)
    assert (reply.frames.frames, reply.frames.lost, reply.frames.crc_failed) == (1, 0, 0)
    assert reply.frames.snr_db > 30.0
    assert reply.frames.evm < 0.03
    assert reply.frames.papr_db > 0.0
    assert reply.num_pilots.sum() > 0
    assert (reply.settings.channel, reply.settings.snr_db) == (RADIO, None)


def test_over_a_simulated_radio_the_reply_is_what_the_link_answers_in_process_bit_for_bit(impaired, link, images):
    reply = impaired.client.transmit(
        images, snr_db=7.0, channel=RADIO, seed=5, sample_offset=3, draw=2, include_llr=True, include_symbols=True
    )
    with RadioChannel(impaired.spec) as radio:
        expected = link.transmit({"image": images}, radio, 7.0, Draws(5, 3 + np.arange(len(images)), 2))
    assert reply.bit_errors.sum() > 0
    np.testing.assert_array_equal(reply.y, expected.received.y, strict=True)
    np.testing.assert_array_equal(reply.no, expected.received.no, strict=True)
    np.testing.assert_array_equal(reply.decoded.llr, expected.decoded.llr, strict=True)
    np.testing.assert_array_equal(reply.num_pilots, expected.received.num_pilots)
    assert reply.frames == pytest.approx(expected.received.frames, rel=1e-12)
    again = impaired.client.transmit(images, include_symbols=True, **vars(reply.settings))
    np.testing.assert_array_equal(again.y, reply.y)


def test_a_lost_frame_is_an_erasure_and_counted(impaired, images):
    reply = impaired.client.transmit(images, snr_db=-25.0, channel=RADIO, include_llr=True, include_symbols=True)
    assert (reply.frames.frames, reply.frames.lost) == (1, 1)
    assert (reply.frames.snr_db, reply.frames.evm) == (None, None)
    assert not reply.decoded.llr.any()
    assert np.isinf(reply.no).all()


def test_a_batch_in_pieces_has_the_frames_of_all_of_them(with_radio, bundle_path, link, images):
    with with_radio(bundle_path, LOOPBACK, limits={"max_batch": 2}) as server:
        reply = server.client.transmit(images, channel=RADIO)
        assert reply.frames.frames == -(-len(images) // 2)
        assert reply.frames.snr_db > 30.0
        assert reply.decoded.decisions.tolist() == clean_decisions(link, {"image": images}).tolist()


def test_headers_go_over_the_radio_and_their_frames_are_counted(with_radio, modes_bundle, latents_of):
    latents = latents_of(np.arange(12) % 3).inputs
    with with_radio(modes_bundle, LOOPBACK) as server:
        reply = server.client.transmit(latents, channel=RADIO)
        assert not reply.header.lost.any()
        assert not reply.header.wrong.any()
        assert reply.frames.frames >= 2
        assert server.radio.state.exchanges == 2
        assert server.radio.state.frames == reply.frames.frames


def test_a_router_over_a_radio_that_cannot_set_the_snr_is_told_what_to_take_it_for(
    with_radio, steered_bundle, latents_of
):
    latents = latents_of(np.arange(12) % 3).inputs
    expected = Link(load_bundle(steered_bundle))
    with with_radio(steered_bundle, LOOPBACK) as server:
        for snr_db in (-7.0, 20.0):
            reply = server.client.transmit(latents, channel=RADIO, snr_db=snr_db)
            assert reply.sent.mode.tolist() == expected.encode(latents, snr_db).mode.tolist()
            assert reply.settings.snr_db == snr_db
        with pytest.raises(ArgumentError, match="^snr_db is missing: this bundle's router chooses by Es/N0"):
            server.client.transmit(latents, channel=RADIO)
        assert server.client.transmit(latents, channel=RADIO, mode=1).sent.mode.tolist() == [1] * 12


def test_streams_and_the_client_for_asyncio_go_over_the_radio(loopback, link, images):
    clean = clean_decisions(link, {"image": images}).tolist()
    batches = [images[:3], images[3:5], images[5:]]
    streamed = loopback.client.transmit_stream(iter(batches), channel=RADIO)
    assert [decision for reply in streamed for decision in reply.decoded.decisions] == clean

    async def call():
        async with AsyncClient(loopback.address) as client:
            one = await client.transmit(images, channel=RADIO)
            many = [reply async for reply in client.transmit_stream(iter(batches), channel=RADIO)]
            return one, many

    one, many = asyncio.run(call())
    assert one.decoded.decisions.tolist() == clean
    assert [reply.frames.frames for reply in many] == [1, 1, 1]


def test_a_model_says_whether_there_is_a_radio(loopback, client):
    assert RADIO in loopback.client.model().channels
    assert RADIO not in client.model().channels


# What is refused


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_simulated_channels_is_refused_by_its_name(loopback, images, option):
    with pytest.raises(grpc.RpcError) as failed:
        loopback.stub.Transmit(ask(images, **{option: "ls" if option == "csi" else 1}))
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.details().startswith(f"settings.{option} must be absent over a radio")


def test_an_snr_is_wanted_where_the_radio_sets_it_and_refused_where_it_cannot(loopback, impaired, images):
    with pytest.raises(ArgumentError, match=r"^snr_db must be absent: this radio \(loopback\) cannot set it, got 9$"):
        loopback.client.transmit(images, channel=RADIO, snr_db=9.0)
    with pytest.raises(ArgumentError, match="^snr_db is missing: give Es/N0 in dB, which this radio sets$"):
        impaired.client.transmit(images, channel=RADIO)
    with pytest.raises(ArgumentError, match=r"^snr_db must be in \[-30, 60\], got 99$"):
        impaired.client.transmit(images, channel=RADIO, snr_db=99.0)
    with pytest.raises(ArgumentError, match="^snr_error_db must be 0 for a bundle without a router"):
        loopback.client.transmit(images, channel=RADIO, snr_error_db=1.0)
    with pytest.raises(ArgumentError, match="^snr_db is missing: give Es/N0 in dB$"):
        loopback.client.transmit(images)


def test_an_snr_above_that_of_full_power_is_refused(with_radio, bundle_path, images):
    with with_radio(bundle_path, f"full_snr_db = 20.0\n{LOOPBACK}") as server:
        assert server.client.transmit(images, channel=RADIO, snr_db=20.0).frames.lost == 0
        with pytest.raises(ArgumentError, match="^snr_db must be at most 20, the radio's at full power, got 21$"):
            server.client.transmit(images, channel=RADIO, snr_db=21.0)
        assert server.radio.state[:4] == ("loopback", True, 1, 0)


def test_a_sweep_is_for_simulated_channels(loopback, images):
    with pytest.raises(ArgumentError, match="^channel must be a simulated one for a sweep"):
        list(loopback.client.sweep(images, (0.0,), channel=RADIO))


def test_a_server_without_a_radio_says_so(client, images):
    with pytest.raises(
        ServerError, match="FAILED_PRECONDITION: channel must be a simulated one: this server has no radio"
    ):
        client.transmit(images, channel=RADIO)


def test_a_file_that_describes_no_radio_is_one_line_and_no_server(bundle_path, tmp_path, serving):
    file = tmp_path / "radio.toml"
    for text, line in (
        ("[frontend]\nkind = 'mirror'\n", f"{file}: kind must be one of loopback"),
        ("[frontend]\nkind = 'loopback'\n[pulse]\n", f"{file}: pulse is no setting of a radio"),
    ):
        file.write_text(text)
        with pytest.raises(ArgumentError) as error, serving(bundle_path, radio={"file": file}):
            pass
        assert str(error.value).startswith(line)
    with pytest.raises(ArgumentError, match="cannot be read"), serving(bundle_path, radio={"file": tmp_path / "none"}):
        pass


def test_a_driver_that_is_not_installed_is_one_line_and_no_server(bundle_path, tmp_path, serving, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    file = tmp_path / "radio.toml"
    file.write_text("[frontend]\nkind = 'zmq'\nsend = 'tcp://127.0.0.1:*'\n")
    with pytest.raises(DriverUnavailable, match="pip install"), serving(bundle_path, radio={"file": file}):
        pass


# Turns


def test_of_several_users_one_has_the_radio_at_a_time_and_all_are_answered(own, images, until):
    with busy(own, images) as (held, first):
        others = [own.stub.Transmit.future(ask(images)) for _ in range(4)]
        until(lambda: own.radio.state.waiting == 4)
        held.go.set()
        assert all(call.result().radio.frames == 1 for call in (first, *others))
    assert (held.most, held.begun) == (1, 5)
    assert own.radio.state.exchanges == 5


def test_who_gets_no_turn_in_time_is_told_when_to_try_again(with_radio, bundle_path, images):
    with with_radio(bundle_path, LOOPBACK, wait_s=0.05) as server:
        with busy(server, images) as (held, first):
            with pytest.raises(grpc.RpcError) as failed:
                server.stub.Transmit(ask(images), timeout=LIMIT_S)
            with pytest.raises(Overloaded) as refused:
                server.client.transmit(images, channel=RADIO)
            held.go.set()
            assert first.result().radio.frames == 1
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failed.value.details() == "the radio is in use: no turn within 0.05 s"
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(failed.value).details[0].Unpack(retry)
        assert refused.value.retry_after_s > 0.0
        assert held.begun == 1


def test_a_deadline_that_leaves_no_time_for_the_exchange_is_refused_before_it_passes(own, images):
    own.radio._expected_s = 1.0
    with busy(own, images) as (held, _):
        with pytest.raises(grpc.RpcError) as failed:
            own.stub.Transmit(ask(images), timeout=2.0)
        assert held.begun == 1
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_deadline_that_passes_during_the_exchange_ends_the_call_and_the_next_has_its_turn(own, images, until):
    held = Busy(own.radio)
    with pytest.raises(DeadlineExceeded):
        own.client.transmit(images, channel=RADIO, timeout_s=0.5)
    assert held.begun == 1
    held.go.set()
    until(lambda: own.radio.state.exchanges == 1)
    assert own.client.transmit(images, channel=RADIO).frames.frames == 1


def test_who_goes_while_waiting_is_never_sent(own, images, until):
    with busy(own, images) as (held, first):
        waiting = own.stub.Transmit.future(ask(images))
        until(lambda: own.radio.state.waiting == 1)
        waiting.cancel()
        until(lambda: own.radio.state.waiting == 0)
        held.go.set()
        first.result()
    own.client.transmit(images, channel=RADIO)
    assert held.begun == 2


def test_who_goes_while_being_sent_keeps_the_turn_until_the_exchange_has_ended(own, images, until):
    with busy(own, images) as (held, first):
        first.cancel()
        until(lambda: own.counted().failures.cancelled == 1)
        second = own.stub.Transmit.future(ask(images))
        until(lambda: own.radio.state.waiting == 1)
        assert held.begun == 1
        held.go.set()
        assert second.result().radio.frames == 1
    assert (held.most, held.begun) == (1, 2)


def test_a_simulated_channel_is_answered_while_the_radio_is_busy(own, images):
    with busy(own, images) as (held, first):
        for _ in range(3):
            assert len(own.client.transmit(images, snr_db=9.0).bit_errors) == len(images)
        assert not first.done()
        held.go.set()
        first.result()


def test_what_is_sent_over_the_radio_is_counted(own, images):
    for _ in range(3):
        own.client.transmit(images, channel=RADIO)
    found = own.admin.statistics()
    radio = found.radio
    assert (radio.kind, radio.up, radio.exchanges, radio.errors) == ("loopback", True, 3, 0)
    assert (radio.frames, radio.frames_lost, radio.crc_failed, radio.waiting) == (3, 0, 0, 0)
    link = own.counted()
    assert (link.successes, link.executions, link.rows) == (3, 3, 3 * len(images))
    assert link.channels == ((RADIO, 3 * len(images)),)


def test_the_device_is_let_go_of_when_the_server_ends(with_radio, bundle_path, images):
    with with_radio(bundle_path, LOOPBACK) as server:
        server.client.transmit(images, channel=RADIO)
        frontend = server.radio.channel.frontend
    with pytest.raises(RadioError, match="not open"):
        frontend.recv(1, 0.0)


def test_the_other_protocol_reaches_the_radio_too(loopback, link, images):
    from serve.pb.inference import grpc_service_pb2 as inference
    from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

    request = inference.ModelInferRequest(model_name="tiny.link", raw_input_contents=[images.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=images.shape)
    request.parameters["channel"].string_param = RADIO
    request.outputs.add(name="decisions")
    reply = GRPCInferenceServiceStub(loopback.channel).ModelInfer(request)
    decisions = np.frombuffer(reply.raw_output_contents[0], dtype="<i8")
    assert decisions.tolist() == clean_decisions(link, {"image": images}).tolist()
    assert reply.parameters["channel"].string_param == RADIO
    assert "snr_db" not in reply.parameters


# A device that comes and goes


class Device:
    """What stands for a device at the other side of ZMQ endpoints: it gives back what it gets, while it is on."""

    def __init__(self, folder):
        self.ends = [f"ipc://{folder}/{name}" for name in ("to", "from")]
        self.messages = None
        self._stop, self._thread = threading.Event(), None

    @property
    def text(self):
        send, recv = self.ends
        return (
            f"timeout_s = 0.5\n[frontend]\nkind = 'zmq'\nsend = '{send}'\nsend_binds = false\nrecv = '{recv}'\n"
            "message_samples = 512\n"
        )

    def on(self, messages=None):
        """From now on, until `off`, or until so many messages were taken."""
        self._stop.clear()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(messages, ready))
        self._thread.start()
        assert ready.wait(LIMIT_S)

    def off(self):
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, messages, ready):
        with zmq.Context() as context, context.socket(zmq.PULL) as taker, context.socket(zmq.PUSH) as giver:
            taker.linger = giver.linger = 0
            giver.sndtimeo = 1000
            taker.bind(self.ends[0])
            giver.bind(self.ends[1])
            ready.set()
            while not self._stop.is_set() and messages != 0:
                if taker.poll(10):
                    giver.send(taker.recv())
                    messages = messages and messages - 1


@pytest.fixture
def device(tmp_path, monkeypatch):
    for name, seconds in (("_RETRY_FIRST_S", 0.02), ("_RETRY_LAST_S", 0.05), ("_LOOK_S", 0.05), ("_ATTACH_S", 0.2)):
        monkeypatch.setattr(engine_radio, name, seconds)
    made = Device(tmp_path)
    yield made
    made.off()


def told(caplog):
    """What the log says of the radio, less the reasons."""
    return [
        record.getMessage().partition(":")[0].removeprefix("the radio (zmq) ")
        for record in caplog.records
        if record.name == "serve.engine.radio"
    ]


def test_a_device_that_goes_and_comes_back_is_taken_up_by_itself_and_told_once(
    with_radio, bundle_path, device, link, images, until, caplog
):
    clean = clean_decisions(link, {"image": images}).tolist()
    with caplog.at_level(logging.INFO, "serve.engine.radio"), with_radio(bundle_path, device.text) as server:
        radio, client = server.radio, server.client
        assert client.transmit(images, snr_db=9.0).settings.channel == "awgn"  # the server started without it
        until(lambda: told(caplog) == ["is not there"])
        with pytest.raises(Unavailable, match="cannot do this now: the front end took no sample within 0.5 s"):
            client.transmit(images, channel=RADIO)
        for _ in range(2):
            device.on()
            until(lambda: radio.state.up)
            assert client.transmit(images, channel=RADIO).decoded.decisions.tolist() == clean
            device.off()
            until(lambda: not radio.state.up)  # though nobody calls
            with pytest.raises(Unavailable) as gone:
                client.transmit(images, channel=RADIO)
            assert gone.value.retry_after_s > 0.0
            assert server.admin.statistics().radio.up is False
        assert told(caplog) == ["is not there", *["is back", "is gone"] * 2]
        assert (radio.state.exchanges, radio.state.errors) == (2, 3)


def test_a_device_that_goes_in_the_middle_of_an_exchange_is_a_clear_failure_and_the_next_call_is_answered(
    with_radio, bundle_path, device, images, until
):
    with with_radio(bundle_path, device.text) as server:
        device.on(messages=2)
        until(lambda: server.radio.state.up)
        with pytest.raises(Unavailable, match="is gone"):
            server.client.transmit(images, channel=RADIO)
        assert server.radio.state.errors == 1
        device.off()
        device.on()
        with Client(server.address, timeout_s=LIMIT_S) as patient:  # it comes again after the time that it is told
            assert patient.transmit(images, channel=RADIO).frames.lost == 0


def test_the_server_is_ready_and_ends_while_its_device_is_gone(bundle_path, device, tmp_path, serving):
    file = tmp_path / "radio.toml"
    file.write_text(device.text)
    with serving(bundle_path, radio={"file": file}) as server:
        assert server.admin.statistics().radio.up is False
    assert isinstance(server.server, Server)
