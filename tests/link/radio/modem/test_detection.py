import math

import numpy as np
import pytest
from scipy.stats import poisson

from link.radio.modem.detection import Detector
from link.radio.modem.frame import FrameSpec
from link.radio.modem.modem import Modem
from link.radio.modem.options import ModemOptions
from link.radio.modem.pulse import Pulse

FRAME, PULSE = FrameSpec(), Pulse()
START = PULSE.reach + FRAME.guard_symbols * PULSE.samples_per_symbol
"""Of the first frame of a burst."""


def noise(generator, count, no=1.0):
    return (generator.normal(size=(count, 2)) @ [1, 1j] * math.sqrt(no / 2)).astype(np.complex64)


def qpsk(count, seed=0):
    return (np.random.default_rng(seed).choice([-1, 1], size=(count, 2)) @ [1, 1j]) / math.sqrt(2)


def burst(*lengths, frame=FRAME, pulse=PULSE):
    options = ModemOptions(frame=frame, pulse=pulse)
    return Modem(options).send([qpsk(length, length) for length in lengths]).samples


def turned(samples, cfo, phase=0.0):
    return (samples * np.exp(2j * np.pi * cfo * np.arange(len(samples)) + 1j * phase)).astype(np.complex64)


def find(samples, frame=FRAME, pulse=PULSE):
    return Detector(frame, pulse).find(samples.astype(np.complex64))


def test_noise_is_taken_for_a_preamble_no_more_often_than_derived():
    count = 1 << 20
    found = find(noise(np.random.default_rng(1), count))
    # At each of count / 2 places 17 carrier offsets, each beyond 15 with a chance of e^-15 at most; neighbours go together.
    assert len(found) <= poisson.isf(1e-9, count / 2 * 17 * math.exp(-15))


@pytest.mark.parametrize("level", [0.0, 1.0, 3e-20, 1e-3j])
@pytest.mark.parametrize("count", [0, 1, 100, 503, 504, 505, 20_000])
def test_silence_and_a_constant_hold_no_frame(level, count):
    assert find(np.full(count, level)) == []


@pytest.mark.parametrize("samples_per_symbol", range(2, 33, 2))
def test_a_frame_is_found_at_every_number_of_samples_a_symbol(samples_per_symbol):
    pulse = Pulse(samples_per_symbol=samples_per_symbol)
    (found,) = find(np.pad(burst(100, pulse=pulse), (777, 512)), pulse=pulse)
    assert found.start == pytest.approx(
        777 + pulse.reach + FRAME.guard_symbols * samples_per_symbol, abs=samples_per_symbol
    )


@pytest.mark.parametrize("gain", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("snr_db", [-3.0, 3.0, 20.0])
def test_a_frame_is_found_once_where_it_is_whatever_its_gain(snr_db, gain):
    """The overlap by a repeat less never wins: it would be off by 63 symbols."""
    generator = np.random.default_rng(2)
    sent = burst(100)
    for _ in range(12):
        at = int(generator.integers(3000))
        samples = noise(generator, 6000, 10 ** (-snr_db / 10))
        samples[at : at + len(sent)] += turned(sent, generator.uniform(-1e-3, 1e-3), generator.uniform(-3, 3))[
            : 6000 - at
        ]
        found = find(gain * samples)
        (only,) = (one for one in found if abs(one.start - at - START) < 4 * FRAME.preamble_symbols)
        assert abs(only.start - at - START) <= 2, "the nearest half symbol, or the next where noise says so"
        # |sum c|^2 / (P L s^2) of 126 symbols in noise of N0: noise moves it by 2 / sqrt(126 Es/N0) relative, one deviation.
        most = 126 / (1 + 10 ** (-snr_db / 10))
        assert abs(only.metric / most - 1) < 5 * 2 / math.sqrt(126 * 10 ** (snr_db / 10)) + 0.2
        assert all(other.metric < 25 for other in found if other is not only), "noise, as often as derived"


def test_digital_silence_behind_a_frame_holds_none():
    sent = burst(100)
    samples = np.concatenate([sent, np.zeros(40_000, np.complex64), 1e-3 * sent, np.zeros(9000, np.complex64)])
    first, second = find(samples)
    assert np.abs([first.start - START, second.start - len(sent) - 40_000 - START]).max() <= 2


@pytest.mark.parametrize("share", [-0.99, -0.6, -1 / 3, 0.0, 0.5, 0.99])
def test_a_carrier_offset_is_found_as_far_out_as_is_looked_for(share):
    detector = Detector(FRAME, PULSE)
    assert detector.cfo_max == pytest.approx(1 / (63 * 4))
    generator = np.random.default_rng(3)
    cfo = share * detector.cfo_max
    samples = turned(burst(60), cfo, 1.0)
    samples += noise(generator, len(samples), 0.1)
    (only,) = detector.find(samples)
    assert abs(only.start - START) <= 2
    # Six parts 84 samples apart: a parabola through bins of 1 / 24 of a cycle a part is good for a tenth of a bin.
    assert abs(only.cfo - cfo) < 0.1 / 24 / 84 + 5 * math.sqrt(6 * 0.1 / (126 * 126**2)) / (2 * np.pi * 4)


@pytest.mark.parametrize("frame", [FrameSpec(zc_length=33, preamble_repeats=8), FrameSpec(zc_length=255, zc_root=7)])
@pytest.mark.parametrize("pulse", [Pulse(samples_per_symbol=2), Pulse(samples_per_symbol=16, rolloff=0.2)])
def test_other_frames_and_pulses_are_found_as_well(frame, pulse):
    samples = burst(50, 70, frame=frame, pulse=pulse)
    first, second = find(samples, frame, pulse)
    step = pulse.samples_per_symbol
    start = pulse.reach + frame.guard_symbols * step
    assert abs(first.start - start) <= step / 2
    assert abs(second.start - start - frame.frame_symbols(50) * step) <= step / 2


def test_a_frame_is_found_wherever_the_blocks_of_the_search_end():
    sent = burst(20)
    generator = np.random.default_rng(4)
    samples = noise(generator, 24_000, 0.01)
    for at in [*range(6000, 9000, 83), *range(7080, 7200, 3)]:
        heard = samples.copy()
        heard[at : at + len(sent)] += sent
        assert [abs(found.start - at - START) <= 2 for found in find(heard)] == [True], at


def test_frames_that_touch_are_found_each():
    lengths = [16, 1, 40, 1, 1, 200]
    starts = START + 4 * np.cumsum([0] + [FRAME.frame_symbols(length) for length in lengths[:-1]])
    assert np.abs([found.start for found in find(burst(*lengths))] - starts).max() <= 2


def test_a_preamble_that_the_end_cuts_is_none():
    samples = burst(100)
    for end in range(0, START + 4 * FRAME.preamble_symbols, 37):
        assert find(samples[:end]) == []
    assert len(find(samples[: START + 4 * FRAME.preamble_symbols + PULSE.reach])) == 1


def test_samples_that_are_no_numbers_hide_no_frame_far_from_them():
    samples = np.concatenate([burst(100), np.zeros(40_000, np.complex64), burst(100)])
    samples[20_000] = np.nan
    samples[20_001] = np.inf
    with np.errstate(invalid="ignore"):
        starts = [found.start for found in find(samples)]
    assert np.abs(np.array(starts) - [START, len(samples) - len(burst(100)) + START]).max() <= 2
