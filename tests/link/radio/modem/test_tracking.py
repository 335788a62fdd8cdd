import math

import numpy as np
import pytest
from scipy.linalg import solveh_banded

from link.radio.modem.peak import circular_peak, peak_offset
from link.radio.modem.pulse import Pulse
from link.radio.modem.tracking import arrival_shift, pilot_frequency, smooth_gain, timing_slope


def smooth_phase(pilots, no):
    return np.unwrap(np.angle(smooth_gain(pilots, no)))


def complex_normal(generator, *shape):
    return generator.normal(size=(*shape, 2)) @ [math.sqrt(0.5), 1j * math.sqrt(0.5)]


def smoother(values, ratio):
    """Linear least mean square estimate of a random walk from (values + noise), given q / r; any beginning as likely.

    It minimises sum |v - x|^2 / r + sum |x[k + 1] - x[k]|^2 / q: (I + (r / q) D^T D) x = v, solved as a whole.
    """
    diagonal = np.full(len(values), 1 + 2 / ratio)
    diagonal[[0, -1]] -= 1 / ratio
    return solveh_banded(np.stack([np.append(0.0, np.full(len(values) - 1, -1 / ratio)), diagonal]), values)


@pytest.mark.parametrize("offset", [-0.5, -0.3, 0.0, 0.1, 0.49])
def test_the_peak_of_a_parabola_is_found_exactly(offset):
    place = np.arange(-1, 2) - offset
    assert peak_offset(*(5 - 3 * place**2)) == pytest.approx(offset, abs=1e-14)
    assert peak_offset(1.0, 1.0, 1.0) == 0.0


@pytest.mark.parametrize("peak", [-5.0, -4.6, -0.2, 0.0, 3.3, 4.4])
def test_the_peak_of_a_periodic_curve_is_found_around_its_end(peak):
    distance = (np.arange(10) - peak + 5) % 10 - 5
    assert circular_peak(7 - distance**2) == pytest.approx(peak, abs=1e-12)


@pytest.mark.parametrize("share", [-0.49, -0.2, -0.01, 0.0, 0.013, 0.3, 0.49])
@pytest.mark.parametrize("count", [5, 17, 88])
def test_a_steady_turn_is_found(count, share):
    spacing = 16
    pilots = np.exp(2j * np.pi * share * np.arange(count) + 1.0j)
    # A parabola through three of 16 bins a cycle: sinc^2 is one up to its fourth derivative, 0.01 of a bin.
    assert abs(pilot_frequency(pilots, spacing) - share / spacing) < 0.01 / (16 * count * spacing) + 1e-12


def test_a_steady_turn_in_noise_is_found_as_well_as_can_be():
    """Cramér and Rao: a frequency in rad a step has at least the variance 6 N0 / (n (n^2 - 1))."""
    generator = np.random.default_rng(1)
    count, no, trials = 64, 0.1, 1000
    tones = np.exp(2j * np.pi * 0.1234 * np.arange(count))
    found = [pilot_frequency(tones + math.sqrt(no) * complex_normal(generator, count), 4) for _ in range(trials)]
    least = 6 * no / (count * (count**2 - 1)) / (2 * np.pi * 4) ** 2
    # Of 1000 errors; five deviations of their mean square, sqrt(2 / 1000) each, and a grid that adds some.
    assert np.mean((np.array(found) - 0.1234 / 4) ** 2) == pytest.approx(least, rel=5 * math.sqrt(2 / trials) + 0.05)


def test_where_the_phase_stands_still_the_smoother_is_that_of_the_least_walk():
    count, no, small = 2001, 0.01, 1e-4
    for place in (1000, 700):
        values = np.zeros(count)
        values[place] = small
        found = smooth_phase(np.exp(1j * values), no)
        # A gain of 0.01 is that of q / r = g^2 / (1 - g).
        wanted = smoother(values, 1e-4 / 0.99)
        # Half-way in both are the same exponential on either side; 700 steps off, e^-7 of it is what an end may change.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2 * math.exp(-7) * wanted.max())
        assert found[place] == pytest.approx(wanted[place], rel=0.01)


@pytest.mark.parametrize("no", [0.01, 0.1])
@pytest.mark.parametrize("step", [0.0, 0.02, 0.05, 0.15, 0.4])
def test_a_wandering_phase_is_smoothed_about_as_well_as_by_who_knows_how_it_wanders(no, step):
    generator = np.random.default_rng(2)
    count, errors, least = 100, [], []
    for _ in range(60):
        phase = np.cumsum(step * generator.normal(size=count)) + generator.uniform(-3, 3)
        noise = math.sqrt(no) * complex_normal(generator, count)
        error = np.angle(np.exp(1j * (smooth_phase(np.exp(1j * phase) + noise, no) - phase)))
        # To first order a phase hears the noise across it alone, of half the variance.
        across = (noise * np.exp(-1j * phase)).imag
        errors.append(np.mean(error**2))
        least.append(np.mean((smoother(phase + across, max(step**2 / (no / 2), 1e-6)) - phase) ** 2))
    # Which gain is right is told by 100 pilots alone; where nothing wanders the least gain remembers 100 of them.
    assert np.mean(errors) < 1.7 * np.mean(least)
    assert np.mean(errors) < 1.05 * no / 2


def test_a_fade_is_followed_as_a_phase_is():
    generator = np.random.default_rng(5)
    gain = 1 + 0.4 * np.sin(2 * np.pi * np.arange(100) / 50)
    noise = 0.05 * complex_normal(generator, 100)
    found = smooth_gain(gain + noise, 0.05**2)
    assert np.mean(np.abs(found - gain) ** 2) < 0.6 * 0.05**2
    np.testing.assert_allclose(smooth_gain(np.full(100, 0.7j), 0.01), 0.7j, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_pilots_have_one_gain(count):
    pilots = 0.5 * np.exp(0.5j + 0.1j * np.arange(count))
    np.testing.assert_allclose(smooth_gain(pilots, 0.01), np.full(count, pilots.mean()), atol=1e-12)


@pytest.mark.parametrize("late", [-0.9, -0.3, 0.0, 0.11, 0.5])
def test_how_much_later_a_response_comes_is_found(late):
    pulse, times = Pulse(), np.arange(-10, 20) / 2
    channel = ((0.0, 0.9), (0.75, 0.3j), (1.5, -0.2))

    def response(shift):
        return sum(tap * pulse.correlation(times - delay - shift) for delay, tap in channel)

    # Turned by whatever a carrier does in between.
    assert arrival_shift(response(late) * 1j, response(0.0)) == pytest.approx(2 * late, abs=0.02)


@pytest.mark.parametrize("slope", [-1e-4, 3e-5])
def test_symbols_that_are_taken_later_and_later_tell_by_how_much(slope):
    generator = np.random.default_rng(3)
    count = 1200
    decided, derivative = complex_normal(generator, 2, count)
    symbols = decided + (0.02 + slope * np.arange(count)) * derivative
    assert timing_slope(symbols, decided, derivative).value == pytest.approx(slope, rel=2 / count)
    noisy = symbols + 0.1 * complex_normal(generator, count)
    # The slope of a line through `count` values of variance no / 2 each over |x'|^2 = 1: five deviations.
    deviation = math.sqrt(0.5 * 0.01 * 12 / count**3)
    found = timing_slope(noisy, decided, derivative)
    assert abs(found.value - slope) < 5 * deviation
    # The errors' power is that of `count` of them, five deviations, and of the timing error that is not yet taken off.
    late = np.mean((0.02 + slope * np.arange(count)) ** 2)
    assert found.deviation == pytest.approx(deviation * math.sqrt(1 + late / 0.01), rel=5 / math.sqrt(count))


def test_a_steady_turn_is_looked_for_where_it_may_be():
    """The stronger of two tones is beyond what detection leaves, and so none of the carrier's."""
    n = 16 * np.arange(60)
    pilots = np.exp(2j * np.pi * 0.001 * n) + 2.0 * np.exp(2j * np.pi * 0.02 * n)
    assert pilot_frequency(pilots, 16) == pytest.approx(0.02, abs=1e-4)
    assert pilot_frequency(pilots, 16, most=0.004) == pytest.approx(0.001, abs=2e-4)
