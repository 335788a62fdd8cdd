"""A radio that is not there when the server starts, goes away, and comes back."""

import asyncio
import logging
import threading

import pytest
import zmq

from link.channel import RADIO
from link.errors import RadioError
from link.radio.channel import RadioChannel
from link.radio.frontends.loopback import Loopback
from link.radio.spec import RadioSpec, load_radio
from link.semantic import clean_decisions
from serve.client import Client
from serve.client.failures import Unavailable
from serve.engine import radio as engine_radio
from serve.server import Server

LIMIT_S = 20.0


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
            f"timeout_s = 1.0\n[frontend]\nkind = 'zmq'\nsend = '{send}'\nsend_binds = false\nrecv = '{recv}'\n"
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
        with pytest.raises(Unavailable, match=r"cannot do this now: the front end took no sample within 1 s"):
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


def test_a_device_that_stays_away_is_looked_for_with_growing_pauses(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_radio, "_ATTACH_S", 0.0)
    file = tmp_path / "radio.toml"
    file.write_text(Device(tmp_path).text)
    pauses = []

    async def watch():
        radio = engine_radio.Radio(load_radio(file))

        async def rest(seconds):
            pauses.append(seconds)
            if len(pauses) == 9:
                raise TimeoutError
            return False

        radio._rest = rest
        with pytest.raises(TimeoutError):
            await radio.watch()
        radio.close()

    asyncio.run(watch())
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_device_that_fails_when_it_is_looked_at_is_let_go_of_and_opened_anew():
    class Failing(Loopback):
        opened = closed = 0

        def open(self):
            self.opened += 1

        def attached(self, timeout_s):
            raise RadioError("two programs share the samples")

        def close(self):
            self.closed += 1

    frontend = Failing()
    radio = RadioChannel(RadioSpec(frontend={"kind": "loopback"}), frontend)
    for turn in (1, 2):
        with pytest.raises(RadioError, match="share"):
            radio.attached(0.0)
        assert (frontend.opened, frontend.closed) == (turn, turn)
