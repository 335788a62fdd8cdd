"""What a calibration measures, against a link whose faults are known; and what a radio does by it."""

import math

import numpy as np
import pytest

from link.errors import ArgumentError, RadioError
from link.radio.channel import RadioChannel
from link.radio.frontend import Block, Capabilities, FrontEnd
from link.radio.frontends import frontend_spec
from link.radio.operation.sounding import calibrated, fit_line, mean, sound
from link.radio.spec import RadioSpec, load_radio, radio_toml
from link.randomness import Draws


def radio(**faults):
    return RadioSpec(frontend={"kind": "impaired", **faults})


def sounded(spec, frames=16, frontend=None):
    with RadioChannel(spec, frontend) as channel:
        return sound(channel, frames)


class Device(FrontEnd):
    """A link as a device has it: its noise is what it is."""

    capabilities = Capabilities()

    def __init__(self, **faults):
        self._link = frontend_spec("impaired", faults).build()

    def open(self):
        self._link.open()

    def send(self, samples, timeout_s):
        return self._link.send(samples, timeout_s)

    def recv(self, most, timeout_s):
        return self._link.recv(most, timeout_s)

    def close(self):
        self._link.close()


# The estimate's own interval over frames is what it can miss by: 20 frames at 10 dB give some 0.01 sample.
@pytest.mark.parametrize("clock_ppm", [0.0, -60.0, 100.0])
@pytest.mark.parametrize("delay", [0.0, 0.125, 0.25, 0.5, 0.8, 3.0, 7.37, 150.6])
def test_a_delay_is_found_to_a_twentieth_of_a_sample_whatever_its_fraction(delay, clock_ppm):
    found = sounded(radio(delay_samples=delay, clock_ppm=clock_ppm, snr_db=10.0, cfo=2e-4))
    assert found.delay_samples.value == pytest.approx(delay, abs=0.05)
    assert found.delay_samples.high - found.delay_samples.low < 0.05
    assert found.clock_ppm.value == pytest.approx(clock_ppm, abs=1.0)


@pytest.mark.parametrize("delay", [0.1, 0.35, 0.6, 0.9])
def test_without_noise_the_method_itself_adds_nothing_to_the_delay(delay):
    # The simulator's resampler and the receiver's interpolation are each 80 dB below the signal.
    assert sounded(radio(delay_samples=delay), 4).delay_samples.value == pytest.approx(delay, abs=2e-3)


@pytest.mark.parametrize(
    "pulse", [{"samples_per_symbol": 2, "rolloff": 0.2}, {"samples_per_symbol": 8, "rolloff": 1.0}]
)
def test_the_delay_is_found_with_other_pulses(pulse):
    spec = RadioSpec(frontend={"kind": "impaired", "delay_samples": 2.4}, modem={"pulse": pulse})
    assert sounded(spec, 4).delay_samples.value == pytest.approx(2.4, abs=5e-3)


def test_the_interval_of_the_delay_holds_it_as_often_as_it_says():
    held = 0
    for seed in range(60):
        found = sounded(radio(delay_samples=1.3, snr_db=8.0, seed=seed), 4).delay_samples
        held += found.low <= 1.3 <= found.high
    # Binomial with n = 60, p = 0.95: 51 or fewer has a probability of 0.6 %, and the seeds are fixed.
    assert held >= 52


def test_carrier_gain_and_noise_are_those_of_the_link():
    found = sounded(radio(cfo=1e-3, snr_db=14.0, gain_db=-9.0, dc=0.05), 32)
    assert found.cfo.low <= 1e-3 <= found.cfo.high
    assert found.cfo.value == pytest.approx(1e-3, abs=2e-6)
    assert found.gain_db.value == pytest.approx(-9.0, abs=0.05)
    # The constant stands behind the mixer and in front of the gain, as noise does.
    assert found.noise_floor_db == pytest.approx(-14.0 - 9.0, abs=0.1)
    assert found.dc == pytest.approx(0.05 * 10 ** (-9 / 20), rel=0.1)
    assert found.snr_db.value == pytest.approx(14.0, abs=0.4)
    assert found.snr_db.low < found.snr_db.value < found.snr_db.high


def test_a_link_without_noise_has_no_floor():
    assert sounded(RadioSpec(frontend={"kind": "loopback"}), 4).noise_floor_db is None


class Late(FrontEnd):
    """A wire that always holds 600 samples back."""

    capabilities = Capabilities()

    def open(self):
        self._held = np.zeros(600, np.complex64)

    def send(self, samples, timeout_s):
        self._held = np.concatenate([self._held, samples])
        return len(samples)

    def recv(self, most, timeout_s):
        count = min(most, len(self._held) - 600)
        given, self._held = self._held[:count], self._held[count:]
        return Block(given)

    def close(self):
        pass


def test_the_end_of_the_burst_that_comes_late_is_no_noise():
    # 88 samples of it stand behind the tail of 512 that is sent with the burst: the last frame is cut.
    found = sounded(RadioSpec(frontend={"kind": "loopback"}), 8, Late())
    assert found.frames == 7
    assert found.delay_samples.value == pytest.approx(600.0, abs=2e-3)
    assert found.noise_floor_db is None


def test_the_line_and_the_mean_have_students_intervals():
    x = np.arange(5.0)
    line = fit_line(x, np.array([1.0, 3.0, 2.0, 5.0, 4.0]))
    # By hand: slope 0.8, residuals -0.4, 0.8, -1, 1.2, -0.6 -> s^2 = 3.6 / 3; t(3) = 3.18245.
    assert line.slope.value == pytest.approx(0.8)
    assert line.start.value == pytest.approx(1.4)
    assert line.slope.high - line.slope.value == pytest.approx(3.182446 * math.sqrt(1.2 / 10.0), rel=1e-6)
    assert line.start.high - line.start.value == pytest.approx(3.182446 * math.sqrt(1.2 * (0.2 + 0.4)), rel=1e-6)
    found = mean([1.0, 2.0, 3.0])
    assert (found.value, found.high - found.value) == pytest.approx((2.0, 4.302653 / math.sqrt(3.0)))


def test_what_was_measured_is_written_and_read_as_the_same_radio(tmp_path):
    spec = RadioSpec(
        frontend={"kind": "impaired", "taps": [1, "0.1-0.2j"], "snr_db": 20, "cfo": 3e-4},
        modem={"frame": {"payload_symbols": 256}, "pulse": {"rolloff": 0.5}},
        amplitude=0.3,
    )
    whole = calibrated(spec, sounded(spec, 4))
    file = tmp_path / 'a "radio" \x7f.toml'
    file.write_text(radio_toml(whole), encoding="utf-8")
    assert load_radio(file) == whole
    assert whole.calibration is not None
    assert whole.full_snr_db == whole.calibration.snr_db.value
    assert whole.modem.receiver.clock_ppm == whole.calibration.clock_ppm.value
    assert whole.modem.frame == spec.modem.frame
    assert radio_toml(load_radio(file)) == radio_toml(whole)


def test_texts_of_a_radios_file_are_written_so_that_they_are_read_as_they_were(tmp_path):
    spec = RadioSpec(frontend={"kind": "zmq", "send": 'tcp://a"\\b\x7f\té:1'})
    file = tmp_path / "radio.toml"
    file.write_text(radio_toml(spec), encoding="utf-8")
    assert load_radio(file) == spec


@pytest.mark.parametrize("asked", [18.0, 12.0, 7.0])
def test_a_calibrated_radio_sets_lower_snrs_by_its_power(asked):
    device = {"snr_db": 20.0, "delay_samples": 1.5}
    spec = calibrated(
        RadioSpec(frontend={"kind": "loopback"}),
        sounded(RadioSpec(frontend={"kind": "loopback"}), 32, Device(**device)),
    )
    assert spec.sets_snr
    payloads = [np.tile([1 + 1j, -1 + 1j], 512) / np.sqrt(2)] * 16
    with RadioChannel(spec, Device(**device)) as channel:
        drop = channel.drop(payloads, asked, Draws(0, np.arange(16)))
    measured = -10.0 * math.log10(np.mean([frame.no.mean() for frame in drop.frames.values()]))
    # 16,384 symbols tell a variance to 0.8 %, 0.03 dB; the receiver's own bias differs between the two by 0.1 dB or so.
    assert measured == pytest.approx(asked, abs=0.25)


def test_above_full_power_there_is_nothing_to_be_had():
    spec = RadioSpec(frontend={"kind": "loopback"}, full_snr_db=10.0)
    with RadioChannel(spec) as channel, pytest.raises(ArgumentError, match=r"snr_db must be at most 10, .* got 12"):
        channel.drop([np.ones(16)], 12.0, Draws(0, np.arange(1)))


@pytest.mark.parametrize(
    ("faults", "line"),
    [
        ({"snr_db": -20.0}, "0 of 8 frames came back: too few to calibrate by"),
        (
            {"gap_every": 12_000, "gap_samples": 100},
            "2 of 8 frames came back in front of a gap: too few to calibrate by",
        ),
        ({"dies_after": 9_000}, "the simulated device is gone"),
    ],
)
def test_a_link_that_cannot_be_measured_is_refused_in_one_line(faults, line):
    with pytest.raises(RadioError) as refused:
        sounded(radio(**faults), 8)
    assert str(refused.value) == line


@pytest.mark.parametrize("frames", [3, 1025])
def test_so_many_frames_are_no_calibration(frames):
    with pytest.raises(ArgumentError, match=r"frames must be in"):
        sounded(radio(), frames)


def test_a_radio_without_noise_has_no_snr_to_be_set():
    spec = RadioSpec(frontend={"kind": "loopback"})
    found = sounded(spec, 4)
    assert found.noise_floor_db is None
    assert calibrated(spec, found).full_snr_db is None
