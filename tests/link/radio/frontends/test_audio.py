"""The sound card's front end, over PortAudio and a real sound server."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from link.errors import ArgumentError, DriverUnavailable, RadioError
from link.radio.frontends import frontend_spec, portaudio

RATE = 48_000
PATIENCE_S = 10.0
"""No test waits longer than this for what a sound server does within a tenth of a second."""


def card(**options):
    return frontend_spec("audio", {"input_device": "pulse", "output_device": "pulse", "latency": 0.02, **options})


def noise(count, size=0.5):
    """Uniform in I and Q."""
    pairs = np.random.default_rng(6).uniform(-size, size, (count, 2)).astype(np.float32)
    return pairs.view(np.complex64)[:, 0]


def in_band_noise(count, half_width, size=0.25):
    """Gaussian, whose spectrum is zero beyond `half_width` cycles a sample."""
    spectrum = np.fft.fft(np.random.default_rng(7).normal(size=(count, 2)) @ (1, 1j))
    spectrum[np.abs(np.fft.fftfreq(count)) > half_width] = 0
    signal = np.fft.ifft(spectrum)
    return (signal * size / np.abs(signal).max()).astype(np.complex64)


def exchange(sender, receiver, sent, count):
    """All of `sent` goes out, and so many samples come in; receiver and sender may be one. The blocks that came in."""
    blocks, taken, got = [], 0, 0
    deadline = time.monotonic() + PATIENCE_S
    while got < count:
        assert time.monotonic() < deadline, f"{got} of {count} samples came"
        if taken < len(sent):
            taken += sender.send(sent[taken:], 0.01)
        blocks.append(receiver.recv(4096, 0.05))
        got += len(blocks[-1].samples)
    return blocks


def samples_of(blocks):
    return np.concatenate([block.samples for block in blocks])


def where(got, known):
    """Place in `got` that correlates most with `known`."""
    size = len(got) + len(known)
    return int(np.argmax(np.abs(np.fft.ifft(np.fft.fft(got, size) * np.conj(np.fft.fft(known, size)))[: len(got)])))


def test_baseband_comes_back_over_a_sound_server_to_the_last_bit(listening):
    sent = noise(RATE // 2)
    with card().build() as radio:
        assert radio.capabilities.sample_rate_hz == RATE
        got = samples_of(exchange(radio, radio, sent, RATE))
    start = where(got, sent)
    assert np.array_equal(got[start : start + len(sent)], sent)


def test_a_passband_at_its_widest_comes_back_within_the_filter_s_ripple(listening):
    """Ripple and stopband are 80 dB down: either is 1e-8 in power. The ends, where the band is cut, do not count."""
    carrier = 9_000
    sent = in_band_noise(RATE // 2, 0.8 * carrier / RATE)
    with card(mode="passband", carrier_hz=carrier).build() as radio:
        got = samples_of(exchange(radio, radio, sent, RATE))
    start, ends = where(got, sent), slice(200, -200)
    came, sent = got[start : start + len(sent)][ends], sent[ends]
    gain = np.vdot(sent, came) / np.vdot(sent, sent)
    assert abs(gain - 1) < 1e-4
    assert np.mean(np.abs(came / gain - sent) ** 2) / np.mean(np.abs(sent) ** 2) < 4e-8


def test_two_cards_of_unlike_modes_hear_the_carrier_where_it_was_set(listening):
    """What a passband sends is real: heard as (left, right) it is the same on both, and lies around the carrier."""
    carrier = 6_000
    sent = in_band_noise(RATE // 4, 0.02)
    with (
        card(mode="passband", carrier_hz=carrier, receives=False).build() as speaker,
        card(sends=False).build() as microphone,
    ):
        got = samples_of(exchange(speaker, microphone, sent, RATE * 3 // 4))
    assert np.array_equal(got.real, got.imag)
    power = np.abs(np.fft.rfft(got.real)) ** 2
    nu = np.fft.rfftfreq(len(got))
    near = np.abs(nu - carrier / RATE) <= 0.02 + 100 / len(got)
    assert power[near].sum() / power.sum() > 0.999


def test_what_is_not_read_in_time_is_counted_to_the_sample(listening):
    """The ring holds 0.1 s; of the ramp that was sent, what comes after the gap is as far on as was lost."""
    with card(buffer_s=0.1, receives=True, sends=False).build() as ear, card(receives=False).build() as mouth:
        ramp = np.arange(1, RATE + 1, dtype=np.float32).astype(np.complex64) / (2 * RATE)
        assert mouth.send(ramp, 1.0) == len(ramp)
        while not np.any(ear.recv(4096, 1.0).samples):
            pass
        time.sleep(0.4)
        blocks = exchange(ear, ear, ramp[:0], RATE // 4)
    after = [place for place, block in enumerate(blocks) if block.lost != 0]
    assert len(after) == 1
    gap = blocks[after[0]]
    before = samples_of(blocks[: after[0]])
    assert gap.lost > RATE * 0.2
    jump = np.rint((gap.samples[0] - before[-1]).real * 2 * RATE)
    assert jump == gap.lost + 1


def test_an_overflow_that_the_sound_system_tells_of_is_a_gap_of_unknown_size(listening):
    class Status:
        input_overflow = True

    class Fine:
        input_overflow = False

    with card(sends=False).build() as radio:
        told = radio._input._called
        assert len(radio.recv(64, 1.0).samples)
        with radio._input._waiting:
            radio._input._frames.clear()
            radio._input._lost.clear()
            radio._input._count = 0
            ones = np.ones((8, 2), np.float32)
            told(ones, 8, None, Fine)
            ones += 1  # as PortAudio does, whose memory it is
            told(ones, 8, None, Status)
            told(1 + ones, 8, None, Fine)
            first, second = radio.recv(64, 0.1), radio.recv(16, 0.1)
    assert first.lost == 0
    assert np.array_equal(first.samples, np.full(8, 1 + 1j, np.complex64))
    assert second.lost is None
    assert np.array_equal(second.samples, np.repeat(np.array([2 + 2j, 3 + 3j], np.complex64), 8))


def test_a_stream_that_portaudio_ends_is_gone_once_what_it_left_was_taken(listening):
    with card().build() as radio:
        assert len(radio.recv(64, PATIENCE_S).samples)
        for flow in (radio._input, radio._output):
            flow._stream.abort()
        radio._input._frames.append(np.ones((8, 2), np.float32))
        radio._input._lost.append(0)
        radio._input._count += 8
        with pytest.raises(RadioError, match="'pulse' is gone: its output ended"):
            radio.send(noise(1), PATIENCE_S)
        taken = []

        def take_all():
            while True:
                taken.append(radio.recv(4096, PATIENCE_S).samples)

        with pytest.raises(RadioError, match="'pulse' is gone: its input ended"):
            take_all()
        assert np.array_equal(taken[-1][-8:], np.full(8, 1 + 1j, np.complex64))


def test_devices_are_listed_anew_whenever_nobody_has_one_open(listening, monkeypatch):
    """So a card that is plugged in later is found, and none that is open is disturbed."""
    driver, listed = portaudio.sounddevice(), []
    start = driver._initialize
    monkeypatch.setattr(driver, "_initialize", lambda: (listed.append(1), start()))
    radio = card()
    for opened in (1, 3):
        with radio.build():
            assert len(listed) == opened
            radio.probe()
            assert len(listed) == opened
        radio.probe()
        assert len(listed) == opened + 1


def test_sending_stops_when_the_buffer_is_full_and_goes_on_when_it_was_played(listening):
    with card(buffer_s=0.05, receives=False).build() as radio:
        sent = noise(RATE)
        assert radio.send(sent, 0.0) == round(0.05 * RATE)
        assert radio.send(sent, PATIENCE_S) > 0


def test_a_closed_card_says_so(listening):
    radio = card().build()
    for act in (lambda: radio.recv(1, 0.1), lambda: radio.send(noise(1), 0.1)):
        with pytest.raises(RadioError, match=r"the sound card is not open$"):
            act()
    with card(sends=False).build() as ear, pytest.raises(RadioError, match=r"not open to send$"):
        ear.send(noise(1), 0.1)


def test_a_card_opens_again_after_it_was_closed(listening):
    radio = card().build()
    for _ in range(2):
        with radio:
            assert len(radio.recv(64, PATIENCE_S).samples)
            assert radio.facts()["input_device"] == "pulse"
    radio.close()


def test_an_unknown_card_is_told_with_those_there_are(listening):
    with pytest.raises(RadioError, match=r"there is no one sound card 'nope' for input: there are 'pulse', 'default'"):
        card(input_device="nope").build().open()


def test_a_machine_without_sound_says_so(monkeypatch, tmp_path, soapy_on_pulse):
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/nobody")
    with pytest.raises(RadioError, match=r"sound card"):
        card().build().open()


def test_a_rate_that_no_card_has_is_told_with_the_card_s_own(listening):
    with pytest.raises(
        RadioError, match=r"'pulse' does not take 2 input channels at 1e\+07 Hz .*its own rate is 4\d+ Hz"
    ):
        card(sample_rate_hz=1e7).build().open()


LOST = """
import os, signal, sys, time
import numpy as np
from link.errors import RadioError
from link.radio.frontends import portaudio
from link.radio.frontends import frontend_spec

server, wound, first = int(sys.argv[1]), getattr(signal, sys.argv[2]), sys.argv[3]
portaudio.SILENT_S = portaudio.CLOSE_S = 0.5
options = {"input_device": "pulse", "output_device": "pulse", "latency": 0.02}
radio = frontend_spec("audio", options).build()
acts = {"recv": lambda: radio.recv(4096, 3600.0), "send": lambda: radio.send(np.ones(4096, np.complex64), 3600.0)}
radio.open()
while not len(radio.recv(4096, 1.0).samples):
    pass
os.kill(server, wound)
for act in (first, *({"recv", "send"} - {first})):
    try:
        while True:
            acts[act]()
    except RadioError as error:
        print(act, error, flush=True)
radio.close()
print("closed", flush=True)
"""
"""A program that loses its sound server; in a process of its own, for PortAudio may go on about it until that ends."""


@pytest.mark.parametrize(("wound", "first"), [("SIGTERM", "recv"), ("SIGTERM", "send"), ("SIGSTOP", "recv")])
def test_a_sound_server_that_ends_or_stands_still_is_told_and_nothing_hangs(mortal_sound, wound, first):
    """Each call would wait an hour, closing and the end of the program included."""
    try:
        program = subprocess.run(
            [sys.executable, "-c", LOST, str(mortal_sound.pid), wound, first],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=60,
        )
    finally:
        mortal_sound.send_signal(signal.SIGCONT)
    second = {"recv": "send", "send": "recv"}[first]
    told = program.stdout.splitlines()
    assert [line.split()[0] for line in told] == [first, second, "closed"]
    assert all("sound card 'pulse' is gone: its" in line for line in told[:2])
    assert program.returncode == 0


def test_what_is_attached_is_listed(listening):
    assert "pulse" in [device["name"] for device in card().probe()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "passband"}, r"^audio\.carrier_hz must be given in mode passband"),
        ({"mode": "passband", "carrier_hz": 24_000.0}, r"^audio\.carrier_hz must be in \[240, 23760\], got 24000"),
        (
            {"mode": "passband", "carrier_hz": 2_000.0, "bandwidth_hz": 4_000.0},
            r"^audio\.bandwidth_hz must be in \[0, 3200\], got 4000",
        ),
        ({"carrier_hz": 2_000.0}, r"^audio\.carrier_hz must not be given but in mode passband"),
        ({"sends": False, "receives": False}, r"^audio\.receives must be true where sends is false"),
        ({"latency": -1.0}, r"^audio\.latency must be above 0, got -1"),
    ],
)
def test_options_that_cannot_be_are_told(options, message):
    with pytest.raises(ArgumentError, match=message):
        card(**options)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ImportError("No module named 'sounddevice'"), r"needs sounddevice, which is not installed: pip install"),
        (
            OSError("PortAudio library not found"),
            r"needs PortAudio, which is not installed: apt-get install libportaudio2",
        ),
    ],
)
def test_what_is_missing_is_told_with_how_to_install_it(monkeypatch, raised, message):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise raised

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for act in (card().build, card().probe):
        with pytest.raises(DriverUnavailable, match=message):
            act()
