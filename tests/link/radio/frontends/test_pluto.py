import sys
import types

import numpy as np
import pytest

from link.errors import ArgumentError, DriverUnavailable, RadioError
from link.radio.frontend import Block
from link.radio.frontends import frontend_spec
from link.radio.frontends.loopback import Loopback
from link.radio.iiod import PlutoServer

pytestmark = pytest.mark.usefixtures("libiio")

OPTIONS = {
    "uri": "ip:127.0.0.1:1",
    "sample_rate_hz": 1e6,
    "tx_frequency_hz": 868_000_000,
    "rx_frequency_hz": 868_000_000,
    "tx_gain_db": 0,
    "rx_gain_db": 0,
    "buffer_samples": 1024,
    "timeout_s": 1,
}


def build(**options):
    return frontend_spec("pluto", OPTIONS | options).build()


class Silent(Loopback):
    def recv(self, most, timeout_s):
        return Block()


@pytest.fixture
def server():
    with PlutoServer(Loopback(), port=0) as running:
        yield running


def noise(count):
    iq = np.random.default_rng(1).uniform(-0.5, 0.5, (count, 2)).astype(np.float32)
    return iq.view(np.complex64)[:, 0]


def exchange(pluto, sent, count):
    """Send everything and receive in turn: so many samples from the first one on that is not silence."""
    received, left = [np.zeros(0, np.complex64)], sent
    while sum(map(len, received)) < count:
        left = left[pluto.send(left, 0) :]
        samples = pluto.recv(700, 1.0).samples
        assert len(samples)
        if len(received) > 1:
            received.append(samples)
        elif samples.any():
            received.append(samples[np.flatnonzero(samples)[0] :])
    assert not len(left)
    return np.concatenate(received)[:count]


@pytest.mark.parametrize(("rx_db", "tx_db"), [(0, 0), (6, -20.25)])
def test_samples_come_back_in_order_at_their_level(server, rx_db, tx_db):
    sent = noise(10_000)
    with build(uri=server.uri, rx_gain_db=rx_db, tx_gain_db=tx_db) as pluto:
        received = exchange(pluto, sent, 20_000)
    apart = received[: len(sent)] - sent * 10 ** ((rx_db + tx_db) / 20)
    # rounding of the receiver, and of the transmitter at the level that it comes through at
    bound = 0.5 / 2**11 + 0.5 / 2**15 * 10 ** ((rx_db + tx_db) / 20) + 1e-6
    assert max(np.abs(apart.real).max(), np.abs(apart.imag).max()) <= bound
    assert not received[len(sent) :].any()


def test_what_is_beyond_full_scale_is_clipped(server):
    with build(uri=server.uri) as pluto:
        received = exchange(pluto, np.full(64, 2 - 2j, np.complex64), 8192)
    loud = received[received != 0]
    assert np.allclose(loud, (1 - 1 / 2**11) - 1j, atol=1e-6)
    assert len(loud) == 64


def test_the_settings_reach_the_device(server):
    import adi

    with build(uri=server.uri, sample_rate_hz=3e6, tx_gain_db=-7.5, rx_gain_db=None, agc="fast_attack"):
        radio = adi.Pluto(server.uri)
        assert (radio.sample_rate, radio.tx_lo, radio.rx_lo) == (3_000_000, 868_000_000, 868_000_000)
        assert (radio.tx_hardwaregain_chan0, radio.gain_control_mode_chan0) == (-7.5, "fast_attack")
        assert radio.rx_rf_bandwidth == radio.tx_rf_bandwidth == 3_000_000
    assert radio.tx_hardwaregain_chan0 == -89.75  # it is left silent


@pytest.mark.parametrize("rate", [520_834, 2_083_333, 2_083_334, 61_440_000])
def test_a_rate_is_reached_from_any_other(server, rate):
    for first in (520_834, 61_440_000):
        for wanted in (first, rate):  # which it makes sure of
            with build(uri=server.uri, sample_rate_hz=wanted) as pluto:
                assert pluto.capabilities.sample_rate_hz == wanted


def test_it_says_what_it_is(server):
    with build(uri=server.uri) as pluto:
        facts = pluto.facts()
        assert facts["uri"] == server.uri
        assert facts["firmware"].startswith("hardpath")
        assert {"serial", "model", "temperature_c", "rx_gain_db", "rssi_db"} <= facts.keys()
    assert pluto.facts() == {}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sample_rate_hz": 520_833}, r"pluto\.sample_rate_hz .*greater than or equal to 520834, got 520833"),
        ({"sample_rate_hz": 1e9}, r"pluto\.sample_rate_hz .*less than or equal to 61440000"),
        ({"tx_gain_db": 3}, r"pluto\.tx_gain_db .*less than or equal to 0, got 3"),
        ({"agc": "slow_attack"}, r"pluto\.rx_gain_db or agc must be given, and not both"),
        ({"rx_gain_db": None}, r"pluto\.rx_gain_db or agc must be given, and not both"),
        ({"power": 3}, r"pluto\.power is no option of pluto"),
    ],
)
def test_options_that_cannot_be_are_told(options, told):
    with pytest.raises(ArgumentError, match=told):
        build(**options)


@pytest.mark.parametrize("name", ["uri", "sample_rate_hz", "tx_frequency_hz", "rx_frequency_hz", "tx_gain_db"])
def test_frequency_and_power_have_no_default(name):
    options = {key: value for key, value in OPTIONS.items() if key != name}
    with pytest.raises(ArgumentError, match=rf"^pluto\.{name} must be given$"):
        frontend_spec("pluto", options)


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(RadioError, match=r"^no PlutoSDR at ip:127\.0\.0\.1:1: Connection refused$"):
        build().open()


def test_a_device_of_another_kind_is_told(monkeypatch):
    monkeypatch.setattr("link.radio.iiod.context._oscillator", lambda prefix, frequency: ())
    with (
        PlutoServer(Loopback(), port=0) as other,
        pytest.raises(RadioError, match=r"is no PlutoSDR: it lacks channels or attributes of one"),
    ):
        build(uri=other.uri).open()


def test_a_second_program_is_refused_and_let_in_once_the_first_has_closed(server):
    with (
        build(uri=server.uri),
        pytest.raises(RadioError, match=r"opens no buffer: another program has it"),
    ):
        build(uri=server.uri).open()
    with build(uri=server.uri) as pluto:
        assert len(pluto.recv(16, 1.0).samples) == 16


def test_a_device_that_gives_nothing_can_be_closed_and_opened_again():
    with PlutoServer(Silent(), port=0) as server:
        for _ in range(2):
            with build(uri=server.uri, timeout_s=0.5) as pluto:
                assert not len(pluto.recv(16, 0.05).samples)


def test_a_gain_that_the_device_does_not_take_is_told(server):
    with pytest.raises(RadioError, match=r"cannot be set up: Invalid argument"):
        build(uri=server.uri, rx_gain_db=77).open()


def drain(pluto):
    """What came before a device was gone is handed over first."""
    while True:
        pluto.recv(1 << 16, 10)


@pytest.mark.parametrize("front_end", [Loopback, Silent])
def test_a_device_that_goes_in_the_middle_ends_what_waits_for_it(front_end):
    with PlutoServer(front_end(), port=0) as server:
        pluto = build(uri=server.uri)
        pluto.open()
        pluto.recv(16, 0.05)
    with pytest.raises(RadioError, match=r"the PlutoSDR at ip:.* is gone"):
        drain(pluto)
    with pytest.raises(RadioError, match="is gone"):
        pluto.send(np.zeros(4, np.complex64), 10)
    for thread in pluto._threads:
        thread.join(10)
        assert not thread.is_alive()
    pluto.close()
    pluto.close()


def test_it_can_be_opened_again_when_the_device_is_back():
    with PlutoServer(Loopback(), port=0) as server:
        pluto = build(uri=server.uri)
        pluto.open()
        port = server.address[1]
    with pytest.raises(RadioError, match="is gone"):
        drain(pluto)
    pluto.close()
    with pytest.raises(RadioError, match="no PlutoSDR at"):
        pluto.open()
    with PlutoServer(Loopback(), port=port), pluto:
        assert len(pluto.recv(16, 1.0).samples) == 16


def test_what_nobody_received_in_time_is_told_as_lost(server):
    with build(uri=server.uri, kernel_buffers=2) as pluto:
        ended = 0
        while ended < 16 * 1024:  # nobody receives, and sending moves time on
            ended += pluto.send(np.full(1024, 0.5, np.complex64), 1.0)
        blocks = []
        while not blocks or blocks[-1].lost == 0:
            blocks.append(pluto.recv(1 << 16, 1.0))
            assert len(blocks[-1].samples)
    assert blocks[-1].lost is None


def test_a_device_that_does_not_run_at_the_rate_is_refused(server, monkeypatch):
    monkeypatch.setattr("link.radio.iiod.phy.Rate.write", lambda self, text: None)
    with pytest.raises(RadioError, match=r"the PlutoSDR runs at 30720000 samples a second, not at 3000000"):
        build(uri=server.uri, sample_rate_hz=3e6).open()


def test_a_front_end_that_is_not_open_says_so():
    pluto = build()
    with pytest.raises(RadioError, match="the PlutoSDR is not open"):
        pluto.recv(16, 0.1)
    with pytest.raises(RadioError, match="the PlutoSDR is not open"):
        pluto.send(np.zeros(4, np.complex64), 0.1)


@pytest.mark.parametrize("there", ["no module", "no library", "libiio 1"])
def test_a_missing_driver_is_named_with_what_to_install(monkeypatch, there):
    module = None if there == "no module" else types.ModuleType("iio")
    if there == "libiio 1":
        module.version = (1, 0, "v1.0")
    if there == "no library":
        # what the module does where the library is missing: its functions are looked for in the process
        monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
        monkeypatch.delitem(sys.modules, "iio", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "iio", module)
    with pytest.raises(DriverUnavailable, match=r"front end pluto needs libiio.*"):
        frontend_spec("pluto", OPTIONS).build()
    with pytest.raises(DriverUnavailable):
        frontend_spec("pluto", OPTIONS).probe()


def test_probing_finds_plutos_alone(monkeypatch):
    import iio

    found = {"usb:1.2.5": "0456:b673 (Analog Devices Inc. PlutoSDR (ADALM-PLUTO))", "local:": "laptop"}
    monkeypatch.setattr(iio, "scan_contexts", lambda: found)
    assert frontend_spec("pluto", OPTIONS).probe() == [{"uri": "usb:1.2.5", "description": found["usb:1.2.5"]}]
