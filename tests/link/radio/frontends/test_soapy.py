"""The SoapySDR front end: reception over SoapySDR's own audio module, which listens to a real sound server.

The module is a real device of SoapySDR in every respect but two: it does not transmit, and gives no time stamps. These two,
and nothing else, are tested against `Radio`, a stand-in for the module SoapySDR.
"""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from link.errors import ArgumentError, DriverUnavailable, RadioError
from link.radio.frontends import frontend_spec, soapy
from link.radio.frontends import soapysdr as finder

RATE = 48_000
PATIENCE_S = 10.0
EAR = {
    "device": "driver=audio",
    "sample_rate_hz": RATE,
    "sends": False,
    "tunable": False,
    "rx_stream": "chan=stereo_iq",
}


def ear(**options):
    return frontend_spec("soapy", {**EAR, **options})


def mouth():
    """What plays into the sound server: the sound card's front end."""
    return frontend_spec("audio", {"output_device": "pulse", "latency": 0.02, "receives": False}).build()


def noise(count, size=0.5):
    """Uniform in I and Q."""
    pairs = np.random.default_rng(8).uniform(-size, size, (count, 2)).astype(np.float32)
    return pairs.view(np.complex64)[:, 0]


def heard(radio, sent, count):
    """So many samples of what the radio hears while this is played, as blocks."""
    blocks, got = [], 0
    deadline = time.monotonic() + PATIENCE_S
    with mouth() as speaker:
        while got < count:
            assert time.monotonic() < deadline, f"{got} of {count} samples came"
            sent = sent[speaker.send(sent, 0.0) if len(sent) else 0 :]
            blocks.append(radio.recv(4096, 0.1))
            got += len(blocks[-1].samples)
    return blocks


def samples_of(blocks):
    return np.concatenate([block.samples for block in blocks])


def where(got, known):
    """Place in `got` that correlates most with `known`."""
    size = len(got) + len(known)
    return int(np.argmax(np.abs(np.fft.ifft(np.fft.fft(got, size) * np.conj(np.fft.fft(known, size)))[: len(got)])))


def test_what_is_played_is_received_to_the_last_bit(listening):
    sent = noise(RATE // 2)
    with ear().build() as radio:
        blocks = heard(radio, sent, RATE)
        capabilities = radio.capabilities
    got = samples_of(blocks)
    start = where(got, sent)
    assert np.array_equal(got[start : start + len(sent)], sent)
    assert all(block.lost == 0 and block.time_ns is None for block in blocks)
    assert (capabilities.sends, capabilities.receives, capabilities.timestamps) == (False, True, False)
    assert capabilities.sample_rate_hz == RATE


def test_a_device_without_cf32_is_heard_in_cs16(listening, monkeypatch):
    """The driver cuts 32767 x off to a whole number: an error below 1 + 0.5 of 32768."""
    monkeypatch.setattr(soapy, "FORMATS", ("CS16",))
    sent = noise(RATE // 4)
    with ear().build() as radio:
        assert radio.facts()["rx_format"] == "CS16"
        got = samples_of(heard(radio, sent, RATE * 3 // 4))
    start = where(got, sent)
    error = (got[start : start + len(sent)] - sent).view(np.float32)
    assert 0 < np.abs(error).max() < 1.5 / 32768


def test_a_block_is_no_larger_than_asked_and_stays_as_it_was(listening):
    with ear().build() as radio:
        first = heard(radio, noise(RATE // 4), RATE // 4)[-1].samples
        kept = first.copy()
        assert len(radio.recv(100, 1.0).samples) == 100
        assert np.array_equal(first, kept)
        assert radio.recv(0, 1.0).samples.shape == (0,)


def test_what_is_not_read_in_time_is_a_gap_of_unknown_size(listening):
    """The driver holds 0.7 s of samples."""
    with ear().build() as radio:
        deadline = time.monotonic() + PATIENCE_S
        while not len(radio.recv(4096, 1.0).samples):
            assert time.monotonic() < deadline
        time.sleep(1.5)
        blocks = []
        while not blocks or blocks[-1].lost == 0:
            assert time.monotonic() < deadline
            blocks.append(radio.recv(4096, 1.0))
        after = radio.recv(4096, 1.0)
    assert blocks[-1].lost is None
    assert len(blocks[-1].samples)
    assert after.lost == 0


def test_a_device_says_what_it_is(listening):
    with ear().build() as radio:
        facts = radio.facts()
    assert facts["driver"] == "Audio"
    assert facts["rx_sample_rate_hz"] == RATE
    assert facts["origin"] == "https://github.com/pothosware/SoapyAudio"
    assert radio.facts() == {}


def test_a_tuner_is_tuned_and_a_gain_is_set(listening):
    with ear(tunable=True, rx_frequency_hz=7.1e6, rx_gain_db=0.0, rx_antenna="RX").build() as radio:
        facts = radio.facts()
    assert facts["rx_frequency_hz"] == 7.1e6
    assert facts["rx_gain_automatic"] is False
    with ear().build() as radio:
        assert radio.facts()["rx_gain_automatic"] is True


def test_what_is_attached_is_listed(listening):
    assert "audio" in [device["driver"] for device in ear().probe()]


def test_a_device_opens_again_after_it_was_closed(listening):
    radio = ear().build()
    for _ in range(2):
        with radio:
            radio.open()
            assert len(heard(radio, noise(100), 4096))
    radio.close()
    with pytest.raises(RadioError, match=r"'driver=audio' is not open$"):
        radio.recv(1, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "driver=nope"}, r"'driver=nope' cannot be used: .*no match"),
        ({"device": "driver=audio,device_id=99"}, r"cannot be used: device_id out of range"),
        ({"sample_rate_hz": 50_000.0}, r"has rx sample rates of 8000, .*48000, .* Hz, got 50000$"),
        ({"sends": True, "receives": False, "tx_gain_db": 0.0}, r"has no tx channel 0: it has 0$"),
        ({"sends": True, "tx_gain_db": 0.0}, r"is half duplex: it sends or receives"),
        ({"rx_channel": 3}, r"has no rx channel 3: it has 1$"),
        ({"rx_antenna": "TX"}, r"has no rx antenna 'TX': it has RX$"),
        ({"rx_gain_db": 500.0}, r"has rx gains of .* dB, got 500$"),
        ({"tunable": True, "rx_frequency_hz": 9e9}, r"has rx frequencies of 0 to 6000000000 Hz, got 9000000000$"),
    ],
)
def test_what_a_device_does_not_do_is_told_with_what_it_does(listening, options, message):
    radio = ear(**options).build()
    with pytest.raises(RadioError, match=message):
        radio.open()
    with pytest.raises(RadioError, match="is not open"):
        radio.recv(1, 0.1)


def test_a_device_that_cannot_speak_our_formats_is_told(listening, monkeypatch):
    monkeypatch.setattr(soapy, "FORMATS", ("CF64",))
    with pytest.raises(RadioError, match=r"has rx streams of CS8, CS16, CF32, and none of CF64$"):
        ear().build().open()


def test_a_machine_without_a_device_says_so(soapy_on_pulse, monkeypatch, tmp_path):
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/nobody")
    with pytest.raises(RadioError, match=r"'driver=audio' cannot be used: "):
        ear().build().open()


LOST = """
import os, signal, sys
from link.errors import RadioError
from link.radio.frontends import frontend_spec

options = {"device": "driver=audio", "sample_rate_hz": 48000, "sends": False, "tunable": False}
radio = frontend_spec("soapy", options).build()
radio.open()
while not len(radio.recv(4096, 1.0).samples):
    pass
os.kill(int(sys.argv[1]), signal.SIGTERM)
try:
    while True:
        radio.recv(4096, 1.0)
except RadioError as error:
    print(error)
radio.close()
print("closed")
"""
"""A program that loses its device; in a process of its own, for the driver then fills standard error."""


def test_a_device_that_goes_is_told_though_its_driver_goes_on(mortal_sound):
    program = subprocess.run(
        [sys.executable, "-c", LOST, str(mortal_sound.pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )
    gone, closed = program.stdout.splitlines()
    assert "gives samples faster than its clock runs: it is gone" in gone
    assert closed == "closed"
    assert program.returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tunable": True},
            r"^soapy\.rx_frequency_hz must be given; of a device without a tuner say that tunable is false$",
        ),
        (
            {"sends": True, "tunable": True, "rx_frequency_hz": 1e6, "tx_gain_db": 0.0},
            r"^soapy\.tx_frequency_hz must be given",
        ),
        ({"rx_frequency_hz": 1e6}, r"^soapy\.rx_frequency_hz must not be given where tunable is false$"),
        ({"sends": True}, r"^soapy\.tx_gain_db must be given$"),
        ({"receives": False}, r"^soapy\.receives must be true where sends is false$"),
        ({"rx_stream": "stereo"}, r"^soapy\.rx_stream must be KEY=VALUE,KEY=VALUE, got 'stereo'$"),
        ({"sample_rate_hz": 0}, r"^soapy\.sample_rate_hz should be greater than 0, got 0$"),
    ],
)
def test_options_that_cannot_be_are_told(options, message):
    with pytest.raises(ArgumentError, match=message):
        ear(**options)


class TestFindingTheModule:
    @pytest.fixture
    def nowhere(self, monkeypatch):
        """No environment has it, and it was not imported yet."""

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name == "SoapySDR":
                    raise ImportError(f"No module named {name!r}")

        for name in ("SoapySDR", "_SoapySDR"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])

    def test_where_it_is_missing_what_to_install_is_told(self, nowhere, monkeypatch, tmp_path):
        monkeypatch.setattr(finder, "_FOLDERS", (str(tmp_path),))
        for act in (ear().build, ear().probe):
            with pytest.raises(
                DriverUnavailable, match=r"needs SoapySDR .*not installed: apt-get install python3-soapysdr"
            ):
                act()

    def test_a_module_that_does_not_fit_its_library_is_told_as_missing(self, nowhere, monkeypatch, tmp_path):
        (tmp_path / "_SoapySDR.py").write_text("")
        (tmp_path / "SoapySDR.py").write_text("raise Exception('Failed ABI check.')")
        monkeypatch.setattr(finder, "_FOLDERS", (str(tmp_path),))
        with pytest.raises(DriverUnavailable):
            ear().build()
        assert "SoapySDR" not in sys.modules

    def test_of_the_system_s_packages_it_alone_is_taken(self, soapy_on_pulse):
        """NumPy among them would be another than ours."""
        program = (
            "import sys, numpy; path = list(sys.path); before = set(sys.modules)\n"
            "from link.radio.frontends.soapysdr import soapysdr\n"
            "module = soapysdr()\n"
            "assert sys.path == path\n"
            "files = [getattr(sys.modules[name], '__file__', None) or '' for name in set(sys.modules) - before]\n"
            "system = {file for file in files if 'dist-packages' in file or file.startswith('/usr/lib/python3/')}\n"
            "print(module.__name__, module.getABIVersion(), len(system))\n"
        )
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        name, version, count = out.split()
        assert (name, version) == ("SoapySDR", "0.8")
        assert int(count) in (0, 2)


def answer(code, flags=0, at=0):
    return SimpleNamespace(ret=code, flags=flags, timeNs=at)


def span(low, high):
    return SimpleNamespace(minimum=lambda: low, maximum=lambda: high)


class Radio:
    """What of the module SoapySDR a transceiver with a clock would use: answers to reads and writes as they are given.

    Numbers are SoapySDR's, of Constants.h and Errors.h. It stands for what no software has, and for nothing else.
    """

    SOAPY_SDR_TX, SOAPY_SDR_RX = 0, 1
    SOAPY_SDR_HAS_TIME, SOAPY_SDR_END_ABRUPT = 4, 8
    SOAPY_SDR_TIMEOUT, SOAPY_SDR_STREAM_ERROR, SOAPY_SDR_CORRUPTION, SOAPY_SDR_OVERFLOW = -1, -2, -3, -4
    SOAPY_SDR_NOT_SUPPORTED, SOAPY_SDR_UNDERFLOW = -5, -7

    def __init__(self, reads=(), writes=(), statuses=(), **settings):
        self.reads, self.writes, self.statuses = list(reads), list(writes), list(statuses)
        self.settings = settings
        self.sent = []
        self.calls = []

    def Device(self, text):
        return self

    def errToStr(self, code):
        return f"code {code}"

    def __getattr__(self, name):
        """A setter notes what was set; a getter gives it back, unless told otherwise."""
        told = {
            "getFullDuplex": True,
            "getNumChannels": 1,
            "getSampleRateRange": [span(1e5, 1e7)],
            "getFrequencyRange": [span(7e7, 6e9)],
            "getGainRange": span(0, 89),
            "getStreamFormats": ["CS8", "CS16", "CF32"],
            "getStreamMTU": 1000,
            "hasHardwareTime": True,
            "hasGainMode": False,
            "activateStream": 0,
        } | self.settings

        def call(*arguments, **named):
            self.calls.append((name, *arguments))
            if name in told:
                return told[name]
            if name.startswith("get"):
                return next(c[-1] for c in reversed(self.calls) if c[0] == "set" + name[3:] and c[1:3] == arguments[:2])
            return None

        return call

    def setupStream(self, direction, form, channels, arguments):
        self.calls.append(("setupStream", direction, form, channels, arguments))
        return direction

    def readStream(self, stream, buffers, most, timeoutUs):
        return self.reads.pop(0) if self.reads else answer(self.SOAPY_SDR_TIMEOUT)

    def writeStream(self, stream, buffers, count, timeoutUs):
        code = self.writes.pop(0) if self.writes else self.SOAPY_SDR_TIMEOUT
        if code > 0:
            self.sent.append(buffers[0][: 2 * code].copy())
        return answer(code)

    def readStreamStatus(self, stream, timeoutUs):
        return answer(self.statuses.pop(0) if self.statuses else self.SOAPY_SDR_TIMEOUT)


TRANSCEIVER = {
    "device": "driver=radio",
    "sample_rate_hz": 1e6,
    "rx_frequency_hz": 1e8,
    "tx_frequency_hz": 2e8,
    "tx_gain_db": 12.0,
    "tx_stream": "latency=3",
}


class TestWhatNoSoftwareDeviceDoes:
    def opened(self, driver, **options):
        radio = soapy.Soapy(frontend_spec("soapy", {**TRANSCEIVER, **options}), driver)
        radio.open()
        return radio

    def test_sending_sets_what_was_asked_and_hands_over_what_the_device_takes(self):
        driver = Radio(writes=[3, 2])
        radio = self.opened(driver)
        samples = noise(5)
        assert radio.send(samples, 0.1) == 3
        assert radio.send(samples[3:], 0.1) == 2
        assert np.array_equal(np.concatenate(driver.sent).view(np.complex64), samples)
        assert {
            ("setSampleRate", 0, 0, 1e6),
            ("setFrequency", 0, 0, 2e8),
            ("setFrequency", 1, 0, 1e8),
            ("setGain", 0, 0, 12.0),
        } <= {call for call in driver.calls if call[0].startswith("set") and call[0] != "setupStream"}
        assert ("setupStream", 0, "CF32", [0], {"latency": "3"}) in driver.calls
        assert radio.capabilities.chunk == 1000

    def test_cs16_is_rounded_and_clipped_and_never_wraps(self):
        driver = Radio(writes=[3], getStreamFormats=["CS16"])
        samples = np.array([0.5 - 0.25j, 1.0 - 1.0j, 3.0 - 3.0j], np.complex64)
        assert self.opened(driver).send(samples, 0.1) == 3
        assert driver.sent[0].dtype == np.int16
        assert driver.sent[0].tolist() == [16384, -8192, 32767, -32768, 32767, -32768]

    def test_no_room_in_time_is_nothing_sent(self):
        assert self.opened(Radio()).send(noise(5), 0.01) == 0

    def test_an_underflow_is_counted_and_sending_goes_on(self):
        driver = Radio(writes=[-7, 5], statuses=[-7, -7, -1])
        radio = self.opened(driver)
        assert radio.send(noise(5), 1.0) == 5
        driver.settings |= {"getHardwareInfo": {"serial": "7"}, "getDriverKey": "r", "getHardwareKey": "r"}
        driver.settings |= {"getBandwidth": 0.0, "getGain": 12.0, "getGainMode": False, "getAntenna": "A"}
        facts = radio.facts()
        assert facts["tx_underflows"] == 3
        assert facts["serial"] == "7"
        assert facts["tx_frequency_hz"] == 2e8

    def test_a_status_that_never_ends_does_not_hold_up_sending(self):
        driver = Radio(writes=[5], statuses=[-7] * 1000)
        assert self.opened(driver).send(noise(5), 1.0) == 5
        assert driver.statuses

    @pytest.mark.parametrize("code", [-2, -5])
    def test_other_codes_are_told_in_soapysdr_s_words(self, code):
        with pytest.raises(RadioError, match=rf"'driver=radio' does not send: code {code}$"):
            self.opened(Radio(writes=[code])).send(noise(5), 1.0)
        with pytest.raises(RadioError, match=rf"'driver=radio' does not receive: code {code}$"):
            self.opened(Radio(reads=[answer(code)])).recv(5, 1.0)

    def test_what_an_overflow_lost_is_counted_by_the_device_s_clock(self):
        """At 1 MHz a sample takes 1000 ns."""
        start = 1_700_000_000_000_000_000
        reads = [
            answer(100, 4, start),
            answer(50),  # a fragment of the same buffer, without a time of its own
            answer(10, 4, start + 150_000),
            answer(-4),
            answer(10, 4, start + 160_000 + 7_000),
            answer(10, 4, start + 177_000 + 3_000),
            answer(-4),
            answer(10),
        ]
        radio = self.opened(Radio(reads=reads))
        blocks = [radio.recv(100, 1.0) for _ in range(6)]
        assert [block.lost for block in blocks] == [0, 0, 0, 7, 3, None]
        assert [block.time_ns for block in blocks[:3]] == [start, None, start + 150_000]
        assert radio.capabilities.timestamps

    def test_a_gap_is_told_with_the_samples_behind_it(self):
        """An overflow, and nothing in time: the block that comes later has it."""
        radio = self.opened(Radio(reads=[answer(-4), answer(-1), answer(10), answer(10)]))
        blocks = [radio.recv(100, 0.0) for _ in range(4)]
        assert [(len(block.samples), block.lost) for block in blocks] == [(0, 0), (0, 0), (10, None), (10, 0)]

    def test_a_rate_that_the_device_did_not_make_is_told(self):
        with pytest.raises(
            RadioError, match=r"made 1000010 of a rx sample rate of 1000000 Hz: it has 100000 to 10000000 Hz$"
        ):
            self.opened(Radio(getSampleRate=1_000_010.0))

    def test_a_tuner_that_went_elsewhere_is_told(self):
        with pytest.raises(RadioError, match=r"tuned rx to 101000000 Hz instead of 100000000 Hz$"):
            self.opened(Radio(getFrequency=1.01e8))

    def test_a_transmitter_with_a_tuner_cannot_be_used_untuned(self):
        options = {"tunable": False, "receives": False, "rx_frequency_hz": None, "tx_frequency_hz": None}
        with pytest.raises(RadioError, match=r"has a tuner: tx_frequency_hz must be given$"):
            self.opened(Radio(), **options)
        self.opened(Radio(getFrequencyRange=[]), **options)

    def test_a_stream_that_does_not_start_is_told_and_closed(self):
        driver = Radio(activateStream=-2)
        with pytest.raises(RadioError, match=r"does not start its rx stream: code -2$"):
            self.opened(driver)
        assert ("closeStream", 1) in driver.calls
        assert ("close",) in driver.calls
