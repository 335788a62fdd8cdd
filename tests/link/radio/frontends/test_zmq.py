"""The ZMQ front end beside peers of plain pyzmq, in this process."""

import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import zmq

from link.errors import ArgumentError, DriverUnavailable, RadioError
from link.radio.frontends import frontend_spec, spec_type, zmq_sockets
from link.radio.frontends.zmq_sockets import Line, Replier

PATTERNS = ("push-pull", "request-reply")
ANY = "tcp://127.0.0.1:*"
LIMIT_S = 20.0  # a hang is then told from a slow machine
REQUEST = (5).to_bytes(4, "little")


def ramp(count, start=0):
    return (np.arange(start, start + count) * (1 - 1j)).astype(np.complex64)


@contextmanager
def opened(**options):
    with frontend_spec("zmq", options).build() as radio:
        yield radio


@contextmanager
def peer(kind, endpoint, binds=False):
    """A plain socket, whose peers see it go at the end of the block."""
    with zmq.Context() as context, context.socket(kind) as other:
        other.linger, other.rcvtimeo, other.sndtimeo = 0, int(1e3 * LIMIT_S), int(1e3 * LIMIT_S)
        (other.bind if binds else other.connect)(endpoint)
        yield other


@contextmanager
def pair(pattern="push-pull", **options):
    """One that sends and one that receives, with a TCP port between them."""
    with (
        opened(send=ANY, pattern=pattern, **options) as sender,
        opened(recv=sender.facts()["send"], pattern=pattern, **options) as receiver,
    ):
        yield sender, receiver


def persistently(act, done=bool):
    """What it gives in the end."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if done(given := act()):
            return given
    pytest.fail(f"still {given!r}")


def arrives(receiver, count, most=1 << 20):
    """So many samples, and the `lost` of each block."""
    blocks = []
    while sum(len(block.samples) for block in blocks) < count:
        blocks.append(persistently(lambda: receiver.recv(most, 0.1), lambda block: len(block.samples)))
    return np.concatenate([block.samples for block in blocks]), [block.lost for block in blocks]


def goes(sender, samples):
    """All of them, however often it takes."""
    while len(samples):
        samples = samples[persistently(lambda left=samples: sender.send(left, 0.1)) :]


def goes_through(sender, receiver, samples):
    """Sent and received in turn: the samples, and the `lost` of each block."""
    sent, blocks = 0, []
    end = time.monotonic() + LIMIT_S
    while sum(len(block.samples) for block in blocks) < len(samples):
        sent += sender.send(samples[sent:], 0.0)
        if len((block := receiver.recv(1 << 20, 0.01)).samples):
            blocks.append(block)
        assert time.monotonic() < end
    return np.concatenate([block.samples for block in blocks]), [block.lost for block in blocks]


def unless_gone(act):
    """What it gives, or None while there is no peer, or one too many."""

    def acted():
        with suppress(RadioError):
            return act()

    return acted


def is_back(receiver):
    """Until its peer is there again."""
    persistently(unless_gone(lambda: receiver.recv(1, 0.1)), lambda block: block is not None)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("message_samples", [1, 100, 8192])
def test_samples_arrive_as_they_were_sent(pattern, message_samples):
    with pair(pattern, message_samples=message_samples) as (sender, receiver):
        sent = ramp(50 * min(message_samples, 1000) + 3)
        assert np.array_equal(goes_through(sender, receiver, sent)[0], sent)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_either_side_may_bind(pattern, tmp_path):
    endpoint = f"ipc://{tmp_path}/samples"
    with (
        opened(recv=endpoint, recv_binds=True, pattern=pattern) as receiver,
        opened(send=endpoint, send_binds=False, pattern=pattern) as sender,
    ):
        assert np.array_equal(goes_through(sender, receiver, ramp(20_000))[0], ramp(20_000))


def test_a_block_has_no_more_samples_than_were_asked_for_and_the_rest_is_kept():
    with pair(message_samples=10) as (sender, receiver):
        goes(sender, ramp(25))
        samples, lost = arrives(receiver, 25, most=4)
    assert np.array_equal(samples, ramp(25))
    assert len(lost) >= 7
    assert set(lost) == {0}


def test_a_block_is_of_as_many_messages_as_are_there_and_may_be_written_to():
    with pair(message_samples=1) as (sender, receiver):
        goes(sender, ramp(30))
        goes(sender, ramp(30))
        assert receiver.recv(0, 0.1).samples.size == 0
        block = persistently(lambda: receiver.recv(30, 0.1), lambda block: len(block.samples))
        block.samples[:] = 0


def test_who_does_not_read_holds_the_sender_up_and_misses_nothing():
    sent = ramp(1_500_000)
    with pair(high_water_mark=2) as (sender, receiver):
        taken = persistently(lambda: sender.send(sent, 0.1))
        while count := sender.send(sent[taken:], 0.1):
            taken += count
        assert taken < len(sent)
        samples, _ = arrives(receiver, taken)
        assert np.array_equal(samples, sent[:taken])
        assert persistently(lambda: sender.send(sent[taken:], 0.1))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("binds", [True, False])
def test_a_peer_that_never_comes_takes_nothing_and_gives_nothing(pattern, binds, tmp_path):
    ends = {"send": f"ipc://{tmp_path}/a", "recv": f"ipc://{tmp_path}/b", "send_binds": binds, "recv_binds": binds}
    with opened(**ends, pattern=pattern) as radio:
        assert radio.send(ramp(10), 0.05) == 0
        block = radio.recv(10, 0.05)
        assert (block.samples.size, block.lost) == (0, 0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("binds", [True, False])
def test_a_peer_that_has_gone_is_an_error_once_what_it_sent_was_given(pattern, binds, tmp_path):
    options = {"pattern": pattern, "message_samples": 10}
    endpoint = f"ipc://{tmp_path}/samples"
    with (
        opened(send=endpoint, send_binds=not binds, **options) as sender,
        opened(recv=endpoint, recv_binds=binds, **options) as receiver,
    ):
        goes_through(sender, receiver, ramp(10))
        goes(sender, ramp(10, start=10))  # which was requested when the first came
        sender.close()
        assert np.array_equal(arrives(receiver, 10)[0], ramp(10, start=10))
        with pytest.raises(RadioError, match=rf"^the peer at {endpoint} is gone$"):
            persistently(lambda: receiver.recv(10, 0.1), lambda block: False)
        with pytest.raises(RadioError, match="is gone"):
            receiver.recv(10, 0.0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_receiver_that_has_gone_is_an_error_of_send(pattern):
    with pair(pattern) as (sender, receiver):
        goes_through(sender, receiver, ramp(10))
        receiver.close()
        with pytest.raises(RadioError, match=r"^the peer at tcp://127\.0\.0\.1:\d+ is gone$"):
            persistently(lambda: sender.send(ramp(10), 0.1), lambda taken: False)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_sender_that_is_back_goes_on_behind_a_gap(pattern):
    with opened(send=ANY, pattern=pattern) as sender:
        endpoint = sender.facts()["send"]
        with opened(recv=endpoint, pattern=pattern) as receiver:
            assert goes_through(sender, receiver, ramp(10))[1] == [0]
            sender.close()
            with pytest.raises(RadioError, match="is gone"):
                persistently(lambda: receiver.recv(10, 0.1), lambda block: False)
            with opened(send=endpoint, pattern=pattern) as again:
                is_back(receiver)
                for start, lost in ((50, None), (60, 0)):
                    samples, losses = goes_through(again, receiver, ramp(10, start))
                    assert np.array_equal(samples, ramp(10, start))
                    assert losses[0] == lost


def test_a_message_that_is_no_whole_number_of_samples_is_told_and_shifts_nothing():
    with opened(recv=ANY, recv_binds=True) as receiver, peer(zmq.PUSH, receiver.facts()["recv"]) as sender:
        for message in (ramp(3), b"x" * 13, ramp(4, start=3), b"", ramp(2, start=7)):
            sender.send(message)
        assert np.array_equal(arrives(receiver, 3)[0], ramp(3))
        with pytest.raises(RadioError, match=r"^a message of 13 bytes from tcp://\S+ is no whole number of complex64"):
            persistently(lambda: receiver.recv(10, 0.1), lambda block: len(block.samples))
        samples, lost = arrives(receiver, 6)
        assert np.array_equal(samples, ramp(6, start=3))
        assert lost[0] is None
        assert not any(lost[1:])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_programs_at_one_endpoint_are_told_to_be_one_too_many(pattern):
    with opened(send=ANY, pattern=pattern) as sender, opened(recv=sender.facts()["send"], pattern=pattern) as receiver:
        goes_through(sender, receiver, ramp(10))
        with (
            opened(recv=sender.facts()["send"], pattern=pattern),
            pytest.raises(RadioError, match=r"^2 programs share the samples at tcp://\S+: end all but one$"),
        ):
            persistently(lambda: sender.send(ramp(1), 0.1), lambda taken: False)
        persistently(unless_gone(lambda: sender.send(ramp(0), 0.0) == 0))
        assert len(goes_through(sender, receiver, ramp(10))[0]) >= 10


def test_what_listens_and_is_no_sender_is_told():
    with (
        opened(send=ANY) as pusher,
        opened(recv=pusher.facts()["send"], pattern="request-reply") as requester,
        pytest.raises(RadioError, match="is no ZMQ socket of the kind that this pattern needs"),
    ):
        persistently(lambda: requester.recv(10, 0.1), lambda block: False)


def test_a_stranger_who_knocks_disturbs_nobody():
    with pair(high_water_mark=1) as (sender, receiver):
        goes_through(sender, receiver, ramp(10))
        port = int(sender.facts()["send"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            assert np.array_equal(goes_through(sender, receiver, ramp(10))[0], ramp(10))
        samples, lost = goes_through(sender, receiver, ramp(10))
        assert np.array_equal(samples, ramp(10))
        assert lost == [0]
        while sender.send(ramp(1 << 18), 0.1):
            pass  # to the end, where a peer that has gone would be told of


def asked(sender, requester, request, samples):
    """What a request is answered with, and how many samples were taken."""
    requester.send(request)
    taken = persistently(lambda: sender.send(samples, 0.1))
    return np.frombuffer(requester.recv(), np.complex64), taken


@pytest.mark.parametrize(
    ("request_bytes", "answered"), [(REQUEST, 5), ((3000).to_bytes(4, "little"), 100), (b"\xff", 100)]
)
def test_a_request_is_answered_with_what_it_asks_for_and_fits_a_message(request_bytes, answered):
    with (
        opened(send=ANY, pattern="request-reply", message_samples=100) as sender,
        peer(zmq.REQ, sender.facts()["send"]) as requester,
    ):
        answer, taken = asked(sender, requester, request_bytes, ramp(1000))
        assert taken == answered
        assert np.array_equal(answer, ramp(answered))
        assert sender.send(ramp(10), 0.05) == 0
        assert np.array_equal(asked(sender, requester, request_bytes, ramp(2))[0], ramp(2))


def test_a_request_in_nobodys_manner_is_told():
    with opened(send=ANY, pattern="request-reply") as sender, peer(zmq.REQ, sender.facts()["send"]) as requester:
        requester.send(b"samples")
        with pytest.raises(RadioError, match="requests with 7 bytes; GNU Radio does with 4, srsRAN with 1"):
            persistently(lambda: sender.send(ramp(1), 0.1))


def test_no_samples_are_taken_for_one_who_asked_and_went():
    with zmq.Context() as context:
        line = Line(context, Replier.kind, ANY, binds=True, high_water_mark=4)
        replier = Replier(line, message_samples=100)

        def visited(times):
            line.look()
            return line.visits == times

        with peer(zmq.REQ, line.endpoint) as requester:
            requester.send(REQUEST)
            persistently(lambda: visited(1) and line.socket.poll(100))
        with peer(zmq.REQ, line.endpoint) as requester:
            persistently(lambda: visited(2))
            assert replier.send(ramp(4), time.monotonic() + 0.05) == 0
            requester.send(REQUEST)
            assert persistently(lambda: replier.send(ramp(4), time.monotonic() + 0.1)) == 4
            assert np.array_equal(np.frombuffer(requester.recv(), np.complex64), ramp(4))
        line.close()


def test_a_reply_may_hold_more_than_was_requested_and_the_request_is_gnu_radios():
    with (
        opened(recv=ANY, recv_binds=True, pattern="request-reply", message_samples=7) as receiver,
        peer(zmq.REP, receiver.facts()["recv"]) as replier,
    ):
        persistently(lambda: receiver.recv(1, 0.01).samples.size == 0 and replier.poll(10))
        assert replier.recv() == (7).to_bytes(4, "little")
        replier.send(ramp(20))
        assert np.array_equal(arrives(receiver, 20, most=9)[0], ramp(20))


def test_who_went_with_a_request_is_asked_again_when_it_is_back(tmp_path):
    with opened(recv=f"ipc://{tmp_path}/samples", pattern="request-reply") as receiver:
        for _ in range(2):
            with peer(zmq.REP, f"ipc://{tmp_path}/samples", binds=True) as replier:
                is_back(receiver)
                persistently(lambda: receiver.recv(1, 0.05).samples.size == 0 and replier.poll(0))
                assert len(replier.recv()) == 4
            with pytest.raises(RadioError, match="is gone"):
                persistently(lambda: receiver.recv(10, 0.1), lambda block: False)


def test_what_was_taken_arrives_though_the_sender_is_closed_at_once(monkeypatch):
    monkeypatch.setattr(zmq_sockets, "_LINGER_MS", int(1e3 * LIMIT_S))
    sent = ramp(1_500_000)
    with pair(high_water_mark=16) as (sender, receiver):
        taken = persistently(lambda: sender.send(sent, 0.1))
        while count := sender.send(sent[taken:], 0.1):
            taken += count
        closing = threading.Thread(target=sender.close)
        closing.start()
        assert np.array_equal(arrives(receiver, taken)[0], sent[:taken])
        closing.join()


def test_closing_does_not_wait_for_ever_for_one_who_does_not_read():
    with pair(high_water_mark=1) as (sender, _receiver):
        while persistently(lambda: [sender.send(ramp(1 << 20), 0.1)])[0]:
            pass
        sender.close()
        sender.close()
        with pytest.raises(RadioError, match="the ZMQ front end is not open"):
            sender.send(ramp(1), 0.0)


def test_it_tells_whether_its_peers_are_there_and_sends_nothing(tmp_path):
    ends = {"send": f"ipc://{tmp_path}/to", "recv": f"ipc://{tmp_path}/from"}
    with opened(**ends, send_binds=False) as radio:
        for _ in range(2):
            assert not radio.attached(0.0)
            with peer(zmq.PULL, ends["send"], binds=True) as taker:
                assert not radio.attached(0.1)  # one of two
                with peer(zmq.PUSH, ends["recv"], binds=True):
                    assert radio.attached(LIMIT_S)
                assert not taker.poll(0)
            persistently(lambda: not radio.attached(0.0))
        radio.close()
        with pytest.raises(RadioError, match="not open"):
            radio.attached(0.0)


def test_it_can_be_opened_again():
    with opened(send=ANY, recv=ANY, recv_binds=True) as radio:
        radio.open()
        assert all(endpoint.rpartition(":")[2].isdigit() for endpoint in radio.facts().values())
        radio.close()
        assert radio.facts() == {}
        radio.open()
        assert radio.send(ramp(1), 0.0) == 0


def test_it_says_what_it_can_do():
    both = frontend_spec(
        "zmq", {"send": ANY, "recv": "ipc:///a", "sample_rate_hz": 1e6, "message_samples": 100}
    ).build()
    assert (both.capabilities.sends, both.capabilities.receives) == (True, True)
    assert (both.capabilities.sample_rate_hz, both.capabilities.chunk) == (1e6, 100)
    with opened(send=ANY) as sender:
        assert not sender.capabilities.receives
        with pytest.raises(RadioError, match="the ZMQ front end has no endpoint to recv: give the option recv"):
            sender.recv(1, 0.0)


def test_nothing_can_be_looked_for():
    assert frontend_spec("zmq", {"send": ANY}).probe() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "zmq.send must be given, or recv, or both"),
        ({"recv": ANY}, "zmq.recv must name host and port where we do not bind it"),
        ({"send": "udp://127.0.0.1:5555"}, "zmq.send"),
        ({"send": ANY, "pattern": "publish"}, "zmq.pattern"),
        ({"send": ANY, "message_samples": 0}, "zmq.message_samples"),
        ({"send": ANY, "high_water_mark": 0}, "zmq.high_water_mark"),
        ({"send": ANY, "sample_rate_hz": 0}, "zmq.sample_rate_hz"),
    ],
)
def test_an_option_out_of_range_is_told(options, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        frontend_spec("zmq", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"send": "tcp://127.0.0.1"}, "cannot bind tcp://127.0.0.1: Invalid argument"),
        (
            {"send": "ipc:///no/such/folder/samples"},
            "cannot bind ipc:///no/such/folder/samples: No such file or directory",
        ),
        ({"recv": "tcp://127.0.0.1:port"}, "cannot connect to tcp://127.0.0.1:port: Invalid argument"),
    ],
)
def test_an_endpoint_that_cannot_be_had_is_told(options, message):
    radio = frontend_spec("zmq", options).build()
    with pytest.raises(RadioError, match=f"^{message}$"):
        radio.open()
    assert radio.facts() == {}


def test_an_endpoint_that_is_taken_is_told():
    with (
        opened(send=ANY) as first,
        pytest.raises(RadioError, match="Address already in use"),
        opened(send=first.facts()["send"]),
    ):
        pass


def test_without_pyzmq_it_says_what_to_install(monkeypatch):
    spec = frontend_spec("zmq", {"send": ANY})
    radio = spec.build()
    monkeypatch.setitem(sys.modules, "zmq", None)
    for act in (spec.build, radio.open):
        with pytest.raises(DriverUnavailable, match=r"front end zmq needs pyzmq, .*: pip install 'hardpath\[zmq\]'$"):
            act()
    assert spec_type("zmq").needs == "pip install 'hardpath[zmq]'"
