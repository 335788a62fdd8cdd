"""One call at a time has the radio of a server: who waits, how long, and what becomes of those who go."""

import threading
from contextlib import contextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from link.channel import RADIO
from link.errors import RadioError
from serve.client.failures import DeadlineExceeded, Overloaded
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb

LIMIT_S = 20.0
LOOPBACK = "[frontend]\nkind = 'loopback'\n"


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
        own.client.transmit(images, channel=RADIO, timeout_s=2.0)
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
