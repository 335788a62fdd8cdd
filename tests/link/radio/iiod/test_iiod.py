import contextlib
import errno
import os
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link.errors import RadioError, ServerError
from link.radio.frontend import Block
from link.radio.frontends import frontend_spec
from link.radio.frontends.loopback import Loopback
from link.radio.iiod import PlutoServer
from link.radio.iiod.server import MOST_CONNECTIONS

PHY, TX, RX = "iio:device0", "iio:device2", "iio:device3"
ROUNDING = 0.5 + 2**-4  # of 12 bits, and of 16 before
RATE_HZ, CARRIER_HZ = 2_500_000, 900_000_000


class Wire:
    """A client that speaks the protocol without libiio."""

    def __init__(self, server):
        self._socket = socket.create_connection(server.address, timeout=10)
        self._in = self._socket.makefile("rb")

    def say(self, data):
        self._socket.sendall(data)

    def ask(self, line, payload=b""):
        """The number that a command is answered with."""
        self.say(line.encode() + b"\r\n" + payload)
        return self.number()

    def number(self):
        line = self._in.readline()
        if not line:
            raise ConnectionError("the server hung up")
        return int(line)

    def read(self, *words):
        """The text of an attribute, or an errno."""
        length = self.ask(f"READ {' '.join(words)}")
        return length if length < 0 else self._in.read(length + 1).rstrip(b"\0\n").decode()

    def write(self, value, *words):
        return self.ask(f"WRITE {' '.join(words)} {len(value)}", value.encode())

    def receive(self, count, columns=2):
        """(count, columns) of the receiver, or an errno."""
        length = self.ask(f"READBUF {RX} {count * 2 * columns}")
        if length < 0:
            return length
        self._in.readline()  # the mask
        return np.frombuffer(self._in.read(length), "<i2").reshape(-1, columns)

    def send(self, iq):
        data = np.asarray(iq, "<i2").tobytes()
        agreed = self.ask(f"WRITEBUF {TX} {len(data)}")
        return agreed if agreed < 0 else self.ask_none(data)

    def ask_none(self, data):
        self.say(data)
        return self.number()

    def register(self, device, value=None):
        """The status register of a converter, or clear bits of it."""
        self.write("0x80000088" if value is None else f"0x80000088 {value:#x}", device, "DEBUG", "direct_reg_access")
        return int(self.read(device, "DEBUG", "direct_reg_access"), 0)

    def manual(self, rx_db=0, tx_db=0):
        """Known levels: with both gains at 0 dB, 16 of the transmitter are 1 of the receiver."""
        assert self.write("manual", PHY, "INPUT", "voltage0", "gain_control_mode") > 0
        assert self.write(str(rx_db), PHY, "INPUT", "voltage0", "hardwaregain") > 0
        assert self.write(str(tx_db), PHY, "OUTPUT", "voltage0", "hardwaregain") > 0

    def close(self):
        self._in.close()
        self._socket.close()


@pytest.fixture
def server():
    with PlutoServer(Loopback(), port=0) as running:
        yield running


@pytest.fixture
def wire(server):
    client = Wire(server)
    yield client
    client.close()


@contextlib.contextmanager
def pluto_of(server, rate=RATE_HZ):
    """An unmodified pyadi-iio program's Pluto, with levels and frequencies set."""
    import adi

    radio = adi.Pluto(server.uri)
    try:
        radio.sample_rate = rate
        radio.rx_lo = radio.tx_lo = CARRIER_HZ
        radio.gain_control_mode_chan0 = "manual"
        radio.rx_hardwaregain_chan0 = radio.tx_hardwaregain_chan0 = 0
        yield radio
    finally:
        radio.rx_destroy_buffer()
        radio.tx_destroy_buffer()


def noise(count, seed=1):
    """Complex noise of 16 bits that does not clip: 4 standard deviations and more below full scale."""
    iq = np.random.default_rng(seed).normal(0, 2**12, (count, 2)).clip(-(2**14), 2**14)
    return np.rint(iq) @ [1, 1j]


def worst(received, expected):
    """Largest difference in I or Q."""
    apart = received - expected
    return max(np.abs(apart.real).max(), np.abs(apart.imag).max())


def test_iio_info_sees_a_pluto(libiio, server):
    told = subprocess.run(["iio_info", "-u", server.uri], capture_output=True, text=True, timeout=30)
    assert told.returncode == 0
    for part in (
        "iio:device0: ad9361-phy",
        "cf-ad9361-lpc (buffer capable)",
        "voltage0:  (input, index: 0, format: le:S12/16>>0)",
        "voltage1:  (output, index: 1, format: le:S16/16>>0)",
        "altvoltage1: TX_LO (output)",
        "No trigger on this device",
    ):
        assert part in told.stdout
    assert "ERROR" not in told.stdout + told.stderr


@pytest.mark.parametrize("rate", [600_000, 2_084_000, 20_000_000, 61_440_000])
def test_pyadi_sets_what_it_reads_back(libiio, server, rate):
    with pluto_of(server, rate) as radio:
        radio.tx_lo, radio.rx_lo = 915_000_001, 2_400_000_000
        radio.rx_hardwaregain_chan0, radio.tx_hardwaregain_chan0 = 31, -10.25
        radio.rx_rf_bandwidth, radio.tx_rf_bandwidth = 4_000_000, 3_000_000
        assert radio.sample_rate == rate
        assert (radio.tx_lo, radio.rx_lo) == (915_000_001, 2_400_000_000)
        assert (radio.rx_hardwaregain_chan0, radio.tx_hardwaregain_chan0) == (31, -10.25)
        assert (radio.rx_rf_bandwidth, radio.tx_rf_bandwidth) == (4_000_000, 3_000_000)
        assert "sample_rate" in repr(radio)


@pytest.mark.parametrize(("rx_db", "tx_db"), [(0, 0), (12, -6), (3, -20.25)])
def test_a_cyclic_buffer_of_pyadi_comes_back_over_and_over_at_its_level(libiio, server, rx_db, tx_db):
    sent = noise(1000)
    with pluto_of(server) as radio:
        radio.rx_hardwaregain_chan0, radio.tx_hardwaregain_chan0 = rx_db, tx_db
        radio.rx_buffer_size = 2500
        radio.tx_cyclic_buffer = True
        radio.tx(sent)
        received = np.concatenate([radio.rx() for _ in range(4)])
    lag = np.abs(np.fft.ifft(np.fft.fft(received[:1000]) * np.fft.fft(sent).conj())).argmax()
    level = 10 ** ((rx_db + tx_db) / 20)
    assert worst(received, np.resize(np.roll(sent, lag), 10_000) / 16 * level) <= 0.5 + 1e-3  # of 12 bits
    assert server.saturated == 0


def test_a_buffer_of_pyadi_is_sent_once_and_silence_behind_it(libiio, server):
    sent = noise(1000)
    with pluto_of(server) as radio:
        radio.rx_buffer_size = 4000
        assert not radio.rx().any()
        radio.tx(sent)
        received = radio.rx()
    assert worst(received[:1000], sent / 16) <= 0.5
    assert not received[1000:].any()


def test_buffers_that_pyadi_sends_one_after_the_other_join_without_a_gap(libiio, server):
    sent = noise(8 * 1024)
    with pluto_of(server) as radio:
        radio.rx_buffer_size = 2048
        radio.rx()
        reader = []
        thread = threading.Thread(target=lambda: reader.extend(radio.rx() for _ in range(8)))
        for start in range(0, len(sent), 1024):
            radio.tx(sent[start : start + 1024])
            if not start:
                thread.start()
        thread.join(30)
    received = np.concatenate(reader)
    first = np.flatnonzero(received)[0]
    assert worst(received[first : first + len(sent)], sent / 16) <= 0.5


def test_a_tone_generator_sends_while_no_buffer_is_open(libiio, server):
    with pluto_of(server) as radio:
        radio.rx_buffer_size = 2500
        radio.dds_single_tone(100_000, 0.5)
        turns = np.angle(radio.rx())
        assert np.allclose(np.diff(np.unwrap(turns)), 2 * np.pi * 100_000 / RATE_HZ, atol=2 / 1024)
        radio.disable_dds()
        assert not radio.rx().any()


@pytest.mark.parametrize(("offset_hz", "heard"), [(200_000, True), (-200_000, True), (1_300_000, False)])
def test_a_receiver_tuned_off_the_transmitter_hears_it_shifted_or_not_at_all(libiio, server, offset_hz, heard):
    with pluto_of(server) as radio:
        radio.tx_lo = CARRIER_HZ + offset_hz
        radio.rx_buffer_size = 1000
        radio.tx_cyclic_buffer = True
        radio.tx(np.full(64, 2**14 + 0j))
        received = radio.rx()
    assert received.any() == heard
    if heard:
        # atan of one rounding of I or Q against an amplitude of 2^10
        assert np.allclose(np.diff(np.unwrap(np.angle(received))), 2 * np.pi * offset_hz / RATE_HZ, atol=2 / 1024)


@pytest.mark.parametrize("mode", ["slow_attack", "fast_attack"])
def test_the_automatic_gain_reaches_its_level_and_says_its_gain(libiio, server, mode):
    with pluto_of(server) as radio:
        radio.gain_control_mode_chan0 = mode
        radio.rx_buffer_size = 1000
        radio.tx_cyclic_buffer = True
        radio.tx(np.full(64, 2**12 + 0j))  # 18 dB below full scale
        for _ in range(8):
            received = radio.rx()
        gain = radio.rx_hardwaregain_chan0
    assert gain == pytest.approx(20 * np.log10(8) - 12, abs=1e-3)
    assert np.abs(received).max() == pytest.approx(2048 * 10 ** (-12 / 20), abs=0.5)


def test_gnuradio_s_blocks_send_and_receive(gr_iio, libiio, server, tmp_path):
    sent, count = noise(4096) / 2**15, 60_000
    np.save(tmp_path / "sent.npy", sent)
    script = Path(__file__).with_name("flowgraph_pluto.py")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    files = (tmp_path / "sent.npy", tmp_path / "received.npy")
    ran = subprocess.run(
        [gr_iio, script, server.uri, *files, str(count)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    received = np.load(files[1])
    assert len(received) == count
    # a sample that is silence at 12 bits may stand in front of the first that is heard
    lag = np.abs(np.fft.ifft(np.fft.fft(received[:4096]) * np.fft.fft(sent).conj())).argmax()
    assert worst(received, np.resize(np.roll(sent, lag), count) * 10 ** (-6 / 20)) * 2048 <= ROUNDING


def test_one_component_alone_can_be_opened(wire):
    wire.manual()
    assert wire.ask(f"OPEN {TX} 64 00000002") == wire.ask(f"OPEN {RX} 64 00000002") == 0
    assert wire.send(np.arange(64) * 16) == 128
    assert (wire.receive(64, columns=1)[:, 0] == np.arange(64)).all()


def test_the_compressed_description_and_the_binary_protocol_are_refused(wire):
    for command in ("ZPRINT", "BINARY", "FROBNICATE", "VERSION 1", "READ", "READ x y", "OPEN", "SET", "TIMEOUT x"):
        assert wire.ask(command) < 0
    assert wire.ask("ZPRINT") == -errno.EINVAL  # whereupon libiio asks for plain text


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        ("INPUT voltage0 sampling_frequency", "2000000", errno.EINVAL),  # needs the filter
        ("INPUT voltage0 sampling_frequency", "61440001", errno.EINVAL),
        ("INPUT voltage0 sampling_frequency", "fast", errno.EINVAL),
        ("INPUT voltage0 sampling_frequency", "nan", errno.EINVAL),
        ("INPUT voltage0 sampling_frequency", "", errno.EINVAL),
        ("INPUT voltage0 gain_control_mode", "magic", errno.EINVAL),
        ("INPUT voltage0 hardwaregain", "10", errno.EOPNOTSUPP),  # automatic
        ("INPUT voltage0 rssi", "1", errno.EACCES),
        ("INPUT voltage1 hardwaregain", "1", errno.ENOENT),
        ("OUTPUT voltage0 hardwaregain", "0.25", errno.EINVAL),
        ("OUTPUT voltage0 hardwaregain", "-90", errno.EINVAL),
        ("OUTPUT altvoltage0 frequency", "69999999", errno.EINVAL),
        ("INPUT out voltage_filter_fir_en", "1", errno.EINVAL),  # no taps
        ("filter_fir_config", "RX 3 GAIN -6 DEC 4\n1,1\n", errno.EINVAL),
        ("DEBUG loopback", "1", errno.EINVAL),
        ("DEBUG direct_reg_access", "x", errno.EINVAL),
        ("nothing", "1", errno.ENOENT),
    ],
)
def test_a_setting_that_a_pluto_refuses_is_refused_and_stays_as_it_was(wire, words, value, expected):
    before = wire.read(PHY, *words.split())
    assert wire.write(value, PHY, *words.split()) == -expected
    assert wire.read(PHY, *words.split()) == before


def test_the_filter_cannot_be_taken_out_at_a_rate_that_needs_it(libiio, server, wire):
    with pluto_of(server, 600_000):
        assert wire.write("0", PHY, "INPUT", "out", "voltage_filter_fir_en") == -errno.EINVAL
        assert wire.read(PHY, "INPUT", "out", "voltage_filter_fir_en") == "1"


def test_an_eighth_of_the_rate_can_be_had_at_the_cores(wire):
    rates = wire.read(RX, "INPUT", "voltage0", "sampling_frequency_available").split()
    assert rates == ["30720000", "3840000"]
    assert wire.write("3840000", RX, "INPUT", "voltage0", "sampling_frequency") > 0
    assert wire.read(RX, "INPUT", "voltage0", "sampling_frequency") == "3840000"
    assert wire.write("123", RX, "INPUT", "voltage0", "sampling_frequency") == -errno.EINVAL


def test_a_second_client_is_refused_until_the_first_is_gone(server, wire, caplog):
    assert wire.ask(f"OPEN {RX} 64 00000003") == 0
    second = Wire(server)
    assert second.ask(f"OPEN {RX} 64 00000003") == -errno.EBUSY
    assert "cf-ad9361-lpc is in use: a second client is refused" in caplog.text
    assert second.ask(f"OPEN {TX} 64 00000003") == 0  # the other converter is free
    assert wire.ask(f"CLOSE {RX}") == 0
    assert second.ask(f"OPEN {RX} 64 00000003") == 0
    second.close()
    while wire.ask(f"OPEN {RX} 64 00000003"):
        pass  # until the server has seen that the second one is gone
    assert isinstance(wire.receive(64), np.ndarray)


def test_buffers_of_no_size_no_device_and_no_channel_are_refused(wire):
    for line, expected in (
        (f"OPEN {PHY} 64 00000003", errno.EINVAL),
        (f"OPEN {RX} 0 00000003", errno.EINVAL),
        (f"OPEN {RX} 64 00000000", errno.EINVAL),
        (f"OPEN {RX} 64 00000004", errno.EINVAL),
        (f"OPEN {RX} 64 zz", errno.EINVAL),
        (f"OPEN {RX} 64 00000003 CYCLIC", errno.EINVAL),
        (f"OPEN {RX} 999999999 00000003", errno.ENOMEM),
        (f"READBUF {RX} 64", errno.EBADF),
        (f"CLOSE {RX}", errno.EBADF),
        ("OPEN iio:device9 64 00000003", errno.ENODEV),
    ):
        assert wire.ask(line) == -expected, line
    assert wire.ask(f"OPEN {RX} 64 00000003") == 0
    for length in (65 * 4, 6, 0):
        assert wire.ask(f"READBUF {RX} {length}") == -errno.EINVAL
    assert wire.ask(f"WRITEBUF {RX} 64") == -errno.EINVAL


def test_what_clips_is_counted(server, wire):
    wire.manual(rx_db=12)
    assert wire.ask(f"OPEN {TX} 4 00000003") == wire.ask(f"OPEN {RX} 4 00000003") == 0
    wire.send([[2**14, -(2**14)], [2**13, 0], [0, -(2**15)], [1600, 16]])  # times 3.98 / 16
    assert wire.receive(4).tolist() == [[2047, -2048], [2038, 0], [0, -2048], [398, 4]]
    assert server.saturated == 3


def test_what_nobody_reads_is_lost_and_told_as_an_overflow(wire):
    wire.manual()
    assert wire.ask(f"SET {RX} BUFFERS_COUNT 2") == wire.ask(f"SET {TX} BUFFERS_COUNT 2") == 0
    assert wire.ask(f"OPEN {TX} 100 00000003") == wire.ask(f"OPEN {RX} 100 00000003") == 0
    sent = np.arange(1000)[:, None] * [16, -16]
    for start in range(0, 400, 100):  # two wait in the transmitter, two are held by the receiver
        assert wire.send(sent[start : start + 100]) == 400
    assert not wire.register(RX) & 4
    for start in range(400, 1000, 100):
        assert wire.send(sent[start : start + 100]) == 400
    assert wire.register(RX) & 4
    assert not wire.register(RX, 4) & 4
    received = np.concatenate([wire.receive(100) for _ in range(4)])[:, 0]
    assert (received == [*range(200), *range(800, 1000)]).all()


def test_a_transmitter_that_runs_dry_says_so(wire):
    assert wire.ask(f"OPEN {RX} 64 00000003") == 0
    wire.receive(64)
    assert wire.register(TX) == 0
    assert wire.ask(f"OPEN {TX} 64 00000003") == 0
    wire.receive(64)
    assert wire.register(TX) == 1


class Delay(Loopback):
    """Keeps the last samples until more are sent, as a flowgraph does."""

    def open(self):
        super().open()
        super().send(np.zeros(0, np.complex64), 0)
        self._kept = np.zeros(0, np.complex64)

    def send(self, samples, timeout_s):
        held = np.concatenate([self._kept, samples])
        out, self._kept = held[:-100], held[-100:]
        if len(out):
            super().send(out, timeout_s)
        return len(samples)


class Deaf(Loopback):
    def recv(self, most, timeout_s):
        return Block()


class Dead(Loopback):
    def recv(self, most, timeout_s):
        raise RadioError("the device is gone")


class Clocked(Loopback):
    capabilities = replace(Loopback.capabilities, sample_rate_hz=1e6)


class Mute(Loopback):
    capabilities = replace(Loopback.capabilities, sends=False)


@contextlib.contextmanager
def wire_to(front_end):
    with PlutoServer(front_end, port=0) as running, contextlib.closing(Wire(running)) as client:
        yield client


def test_samples_that_the_front_end_keeps_are_waited_for_by_sending_on():
    with wire_to(Delay()) as wire:
        wire.manual()
        assert wire.ask(f"OPEN {TX} 64 00000003") == wire.ask(f"OPEN {RX} 64 00000003") == 0
        wire.send(np.arange(128).reshape(64, 2) * 16)
        received = np.concatenate([wire.receive(64) for _ in range(4)])
        assert (received[:64] == np.arange(128).reshape(64, 2)).all()
        assert not received[64:].any()


def test_a_read_that_gets_nothing_ends_in_the_client_s_time():
    with wire_to(Deaf()) as wire:
        assert wire.ask("TIMEOUT 100") == wire.ask(f"OPEN {RX} 64 00000003") == 0
        assert wire.receive(64) == -errno.ETIMEDOUT


@pytest.mark.timeout(20)
def test_a_server_that_ends_waits_for_no_client():
    with PlutoServer(Deaf(), port=0) as running:
        wire = Wire(running)
        assert wire.ask("TIMEOUT 60000") == wire.ask(f"OPEN {RX} 64 00000003") == 0
        wire.say(f"READBUF {RX} 256\r\n".encode())
        while not running._running().pluto.stream._air.locked():
            pass  # until it is being read
    with contextlib.closing(wire), contextlib.suppress(ConnectionError):
        assert wire.number() == -errno.EIO


def test_a_front_end_that_is_gone_is_told_and_the_server_goes_on(caplog):
    with wire_to(Dead()) as wire:
        assert wire.ask(f"OPEN {RX} 64 00000003") == 0
        assert wire.receive(64) == -errno.EIO
        assert "the device is gone" in caplog.text
        assert wire.read(PHY, "ensm_mode") == "fdd"


def test_a_front_end_that_was_lost_is_opened_anew_for_the_next_buffer():
    with wire_to(frontend_spec("impaired", {"dies_after": 100}).build()) as wire:
        wire.manual()
        for _ in range(2):
            assert wire.ask(f"OPEN {RX} 64 00000003") == 0
            assert not wire.receive(64).any()
            assert wire.receive(64) == -errno.EIO
            assert wire.ask(f"CLOSE {RX}") == 0


def test_a_program_at_another_rate_than_the_link_s_is_refused(caplog):
    with wire_to(Clocked()) as wire:
        assert wire.ask(f"OPEN {RX} 64 00000003") == -errno.EINVAL
        assert "the program asks for 30720000 Hz, the link runs at 1000000 Hz" in caplog.text
        assert wire.ask("TIMEOUT 100") == 0


def test_a_front_end_that_only_receives_has_no_transmitter():
    with wire_to(Mute()) as wire:
        assert wire.ask(f"OPEN {TX} 64 00000003") == -errno.EOPNOTSUPP


def test_lines_and_values_without_end_are_hung_up_on(server):
    for data in (b"V" * 5000, b"WRITE iio:device0 ensm_mode 99999999\r\n", b"WRITE\r\n"):
        with contextlib.closing(Wire(server)) as wire:
            wire.say(data)
            answers = iter(wire.number, 0)
            with pytest.raises(ConnectionError):
                assert max(answers) < 0


def test_there_are_only_so_many_connections(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Wire(server))) for _ in range(MOST_CONNECTIONS)]
        assert [client.ask("TIMEOUT 100") for client in clients] == [0] * MOST_CONNECTIONS
        with contextlib.closing(Wire(server)) as late, pytest.raises(ConnectionError):
            late.ask("TIMEOUT 100")


def test_an_address_in_use_is_told(server):
    with pytest.raises(ServerError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*in use"):
        PlutoServer(Loopback(), port=server.address[1]).__enter__()


def test_a_server_that_does_not_run_says_so():
    with pytest.raises(ServerError, match="not running"):
        str(PlutoServer(Loopback()).address)


def test_it_serves_until_it_is_stopped():
    with PlutoServer(Loopback(), port=0) as running:
        waiting = threading.Thread(target=running.serve_forever)
        waiting.start()
        running.stop()
        waiting.join(10)
        assert not waiting.is_alive()


words = st.one_of(
    st.sampled_from(
        "VERSION PRINT ZPRINT TIMEOUT OPEN CLOSE READ WRITE READBUF WRITEBUF GETTRIG SETTRIG SET BUFFERS_COUNT BINARY "
        "HELP INPUT OUTPUT DEBUG BUFFER CYCLIC 00000003 64 256 voltage0 altvoltage0 frequency hardwaregain ensm_mode "
        f"direct_reg_access filter_fir_config {PHY} {TX} {RX} -1 18446744073709551616 \xb2 1e400 0x10".split()
    ),
    st.text(max_size=8),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.lists(words, max_size=6), max_size=6), tail=st.binary(max_size=64))
def test_no_command_kills_the_server_or_makes_it_hang(server, caplog, lines, tail):
    with contextlib.closing(Wire(server)) as wire:
        wire.say(b"TIMEOUT 50\n" + b"\n".join(" ".join(line).encode() for line in lines) + b"\n" + tail)
    with contextlib.closing(Wire(server)) as wire:
        assert wire.ask("TIMEOUT 100") == 0
    assert "a connection ended" not in caplog.text  # with a traceback
