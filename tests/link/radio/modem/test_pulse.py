import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.radio.modem.pulse import Pulse, peak_to_average_db, root_raised_cosine

SINGLE = 2.0**-24
"""Largest relative error of a number rounded to float32."""

PULSES = [Pulse(), Pulse(samples_per_symbol=2), Pulse(rolloff=0.1, span=64), Pulse(samples_per_symbol=8, rolloff=1.0)]
ROLLOFFS = [0.1, 0.25, 0.35, 0.5, 1.0]


def tail_energy(pulse):
    """Of the whole pulse, what lies beyond the span that it is cut to; behind 4096 symbols 10^-9 is left at most."""
    n = np.arange(pulse.reach + 1, 4096 * pulse.samples_per_symbol)
    return 2 * np.sum(root_raised_cosine(n / pulse.samples_per_symbol, pulse.rolloff) ** 2) / pulse.samples_per_symbol


def cut_error(pulse):
    """Most that cutting the pulse to its span changes its autocorrelation.

    With p = q + t and |t|^2 = E, |<p, p'> - <q, q'>| <= 2 sqrt(E) + E (Cauchy and Schwarz), and scaling q to energy 1 moves
    it by E / (1 - E) more; rounding of taps and sums to float32 adds 1e-5.
    """
    energy = tail_energy(pulse)
    return 2 * math.sqrt(energy) + 3 * energy + 1e-5


@pytest.mark.parametrize("pulse", PULSES)
def test_the_pulse_has_energy_one(pulse):
    assert abs(np.sum(pulse.taps.astype(np.float64) ** 2) - 1) < 3 * SINGLE
    assert len(pulse.taps) == 2 * pulse.reach + 1 == 2 * pulse.span * pulse.samples_per_symbol + 1
    np.testing.assert_array_equal(pulse.taps, pulse.taps[::-1])


@pytest.mark.parametrize("rolloff", ROLLOFFS)
def test_the_spectrum_of_the_pulse_is_the_root_of_a_raised_cosine(rolloff):
    rate, reach = 8, 1024
    t = np.arange(-reach * rate, reach * rate) / rate
    spectrum = np.fft.fft(np.fft.ifftshift(root_raised_cosine(t, rolloff))) / rate
    f = np.abs(np.fft.fftfreq(len(t), 1 / rate))
    slope = 0.5 * (1 + np.cos(np.pi / rolloff * np.clip(f - (1 - rolloff) / 2, 0, rolloff)))
    # The pulse falls as 1/(pi b t^2 (1 - b)...): what is cut off at 1024 symbols holds some 1/(4 b 1024) of amplitude.
    np.testing.assert_allclose(spectrum, np.sqrt(slope), rtol=0, atol=1 / (4 * rolloff * reach))


@pytest.mark.parametrize("rolloff", ROLLOFFS)
def test_removable_singularities_have_the_value_of_their_limit(rolloff):
    pulse, step = Pulse(rolloff=rolloff), 1e-4
    for curve, place in (
        (lambda t: root_raised_cosine(t, rolloff), 0.0),
        (lambda t: root_raised_cosine(t, rolloff), 0.25 / rolloff),
        (pulse.correlation, 0.5 / rolloff),
        (pulse.correlation, -0.5 / rolloff),
    ):
        around = 0.5 * (curve(place - step) + curve(place + step))
        # Half the second derivative, which a signal of at most one cycle a symbol keeps below (2 pi)^2 of its peak.
        assert abs(curve(place) - around) < 0.5 * (2 * math.pi) ** 2 * 1.3 * step**2


@pytest.mark.parametrize("pulse", PULSES)
def test_the_correlation_is_one_at_no_lag_and_zero_a_symbol_away(pulse):
    lags = np.arange(-40, 41)
    np.testing.assert_allclose(pulse.correlation(lags), lags == 0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("pulse", PULSES)
def test_the_correlation_is_that_of_the_taps(pulse):
    taps = pulse.taps.astype(np.float64)
    found = np.correlate(taps, taps, mode="full")[len(taps) - 1 :][: pulse.reach]
    lags = np.arange(len(found)) / pulse.samples_per_symbol
    np.testing.assert_allclose(found, pulse.correlation(lags), rtol=0, atol=cut_error(pulse))


@pytest.mark.parametrize("pulse", PULSES)
def test_symbols_stand_where_they_are_said_to_and_do_not_disturb_each_other(pulse):
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(2, 300))
    symbols = (signs[0] + 1j * signs[1]) / math.sqrt(2)
    samples = pulse.shape(symbols)
    assert samples.dtype == np.complex64
    found = pulse.match(samples)
    assert len(found) == len(samples)
    at = found[pulse.reach :: pulse.samples_per_symbol][: len(symbols)]
    # Each symbol hears at most 2 * 2 span others, by the cut's error in root mean square over random signs: six deviations.
    assert np.abs(at - symbols).max() < 6 * cut_error(pulse) * math.sqrt(4 * pulse.span)
    assert np.mean(np.abs(at - symbols) ** 2) < 4 * pulse.span * cut_error(pulse) ** 2
    lone = pulse.shape(np.array([1.0 + 0.0j]))
    assert np.abs(pulse.match(lone)).argmax() == pulse.reach


def test_noise_is_as_strong_behind_the_matched_filter_as_before_it_and_has_its_correlation():
    pulse = Pulse()
    generator = np.random.default_rng(2)
    count = 1 << 18
    noise = (generator.normal(size=(count, 2)) @ [1, 1j] * math.sqrt(0.5)).astype(np.complex64)
    found = pulse.match(noise)
    # An average over n samples of which each has `spread` in common with others: 5 deviations.
    lags = np.arange(-pulse.reach, pulse.reach + 1) / pulse.samples_per_symbol
    deviation = math.sqrt(np.sum(pulse.correlation(lags) ** 2) / count)
    for lag in range(8):
        measured = np.mean(found[lag:] * found[: count - lag].conj())
        assert abs(measured - pulse.correlation(lag / pulse.samples_per_symbol)) < 5 * deviation + cut_error(pulse)


@given(st.lists(st.complex_numbers(max_magnitude=4, allow_nan=False), min_size=1, max_size=20), st.sampled_from(PULSES))
def test_shaping_is_the_sum_of_one_pulse_a_symbol(symbols, pulse):
    symbols = np.array(symbols)
    wanted = np.zeros((len(symbols) - 1) * pulse.samples_per_symbol + 2 * pulse.reach + 1, dtype=complex)
    for place, symbol in enumerate(symbols):
        wanted[place * pulse.samples_per_symbol :][: len(pulse.taps)] += symbol * pulse.taps
    found = pulse.shape(symbols)
    np.testing.assert_allclose(found[: len(wanted)], wanted, rtol=0, atol=4 * (2 * pulse.span + 2) * 4 * SINGLE)
    assert not found[len(wanted) :].any()


def test_peak_over_mean_counts_no_silence():
    assert peak_to_average_db(np.array([0, 0, 1, 1j, -1, 0])) == pytest.approx(0.0, abs=1e-12)
    assert peak_to_average_db(np.array([0, 3, 1, 0])) == pytest.approx(10 * math.log10(9 / 5), abs=1e-12)
    assert peak_to_average_db(np.array([1, 0, 1])) == pytest.approx(10 * math.log10(1.5), abs=1e-12)
