"""A device that is lost in the middle: how long a run waits for it, and what it sends then."""

import numpy as np
import pytest

from link.errors import DriverUnavailable, RadioError
from link.radio.frontend import Capabilities, FrontEnd
from link.radio.frontends import frontend_spec
from link.radio.operation.reconnect import ReconnectingRadio
from link.radio.spec import RadioSpec
from link.randomness import Draws


class Flaky(FrontEnd):
    """A loopback that can be opened, and used, when it is told so."""

    capabilities = Capabilities()

    def __init__(self):
        self._link = frontend_spec("loopback", {}).build()
        self.trouble = []
        self.opened = 0

    def open(self):
        self.opened += 1
        self._link.open()

    def send(self, samples, timeout_s):
        if self.trouble:
            raise self.trouble.pop(0)
        return self._link.send(samples, timeout_s)

    def recv(self, most, timeout_s):
        return self._link.recv(most, timeout_s)

    def close(self):
        self._link.close()


class Clock:
    """Time that sleeping makes pass."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("link.radio.operation.reconnect.time", made)
    return made


PAYLOAD = [np.tile([1 + 1j, 1 - 1j], 20) / np.sqrt(2)]
DRAWS = Draws(0, np.zeros(1, dtype=np.int64))


def radio(device, patience_s=10.0, told=None):
    spec = RadioSpec(frontend={"kind": "loopback"})
    on_loss = None if told is None else lambda error, wait: told.append((str(error), wait))
    return ReconnectingRadio(spec, device, patience_s=patience_s, on_loss=on_loss)


def test_what_was_under_way_is_sent_again_when_the_device_is_back(clock):
    device, told = Flaky(), []
    with radio(device, told=told) as channel:
        channel.drop(PAYLOAD, None, DRAWS)
        device.trouble = [RadioError("unplugged")] * 3
        assert len(channel.drop(PAYLOAD, None, DRAWS).frames) == 1
        assert channel.reconnects == 1
    assert told == [("unplugged", 0.1), ("unplugged", 0.2), ("unplugged", 0.4)]


def test_a_device_that_does_not_come_back_is_given_up_in_time(clock):
    device = Flaky()
    with radio(device) as channel:
        channel.drop(PAYLOAD, None, DRAWS)
        device.trouble = [RadioError("unplugged")] * 100
        with pytest.raises(RadioError, match=r"^unplugged; it did not come back within 10 s$"):
            channel.drop(PAYLOAD, None, DRAWS)
    assert max(clock.slept) == 2.0
    assert 8.0 <= sum(clock.slept) <= 10.0


@pytest.mark.parametrize("patience_s", [0.0, 10.0])
def test_a_device_that_never_worked_is_not_waited_for(clock, patience_s):
    device = Flaky()
    device.trouble = [RadioError("nothing there")]
    with radio(device, patience_s) as channel, pytest.raises(RadioError, match=r"^nothing there$"):
        channel.drop(PAYLOAD, None, DRAWS)
    assert clock.slept == []


def test_without_patience_a_device_that_is_lost_ends_it(clock):
    device = Flaky()
    with radio(device, 0.0) as channel:
        channel.drop(PAYLOAD, None, DRAWS)
        device.trouble = [RadioError("unplugged")]
        with pytest.raises(RadioError, match=r"^unplugged$"):
            channel.drop(PAYLOAD, None, DRAWS)
    assert clock.slept == []


def test_a_driver_that_is_missing_is_not_waited_for(clock):
    device = Flaky()
    with radio(device) as channel:
        channel.drop(PAYLOAD, None, DRAWS)
        device.trouble = [DriverUnavailable("soapy", "SoapySDR", "install it")]
        with pytest.raises(DriverUnavailable):
            channel.drop(PAYLOAD, None, DRAWS)
    assert clock.slept == []
