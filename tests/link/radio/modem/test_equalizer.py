import math

import numpy as np
import pytest

from link.radio.modem.equalizer import (
    Response,
    Span,
    equalise,
    estimate_impaired,
    estimate_response,
    mmse_equaliser,
    one_tap_equaliser,
)
from link.radio.modem.pulse import Pulse

SPAN = Span(3, 5)
PULSE = Pulse(span=32)
CHANNELS = [(1.0,), (0.9, 0, 0, 0.3j, 0, 0, -0.2), (0.6, 0, 0.5, 0, 0, -0.4j, 0, 0, 0.3)]
"""Taps at four samples a symbol."""


def complex_normal(generator, *shape):
    return generator.normal(size=(*shape, 2)) @ [math.sqrt(0.5), 1j * math.sqrt(0.5)]


def qpsk(generator, count):
    return (generator.choice([-1, 1], size=(count, 2)) @ [1, 1j]) / math.sqrt(2)


def heard(symbols, taps, span):
    """Two samples a symbol, from symbol span.behind on, by the definition: y[2k + i] = sum_j h[i + 2j] a[k - j]."""
    return np.array(
        [
            sum(taps[2 * (j + span.before) + i] * symbols[k - j] for j in range(-span.before, span.behind + 1))
            for k in range(span.behind, len(symbols) - span.before)
            for i in (0, 1)
        ]
    )


def response_of(channel, span, no, late=0.0):
    """What a symbol becomes behind the matched filter, by the closed form of the pulse's correlation."""
    times = span.half_symbols / 2 - late
    taps = sum(tap * PULSE.correlation(times - delay / 4) for delay, tap in enumerate(channel))
    return Response(np.asarray(taps, dtype=complex), no)


def bound(channel, no):
    """Noise variance behind an unbiased linear equaliser of any length: e / (1 - e), e = mean_f 1 / (1 + S(f) / N0)."""
    f = np.arange(4096) / 4096
    folded = np.zeros(len(f))
    for alias in (-2, -1, 0, 1):
        at = np.abs(f + alias)
        raised = 0.5 * (1 + np.cos(np.pi / PULSE.rolloff * np.clip(at - (1 - PULSE.rolloff) / 2, 0, PULSE.rolloff)))
        gain = sum(tap * np.exp(-0.5j * np.pi * (f + alias) * delay) for delay, tap in enumerate(channel))
        folded += raised * np.abs(gain) ** 2
    error = np.mean(1 / (1 + folded / no))
    return error / (1 - error)


def test_a_span_counts_half_symbols_around_its_own():
    assert Span(1, 2).half_symbols.tolist() == [-2, -1, 0, 1, 2, 3, 4, 5]


def test_without_noise_the_response_is_found_exactly():
    generator = np.random.default_rng(1)
    taps = complex_normal(generator, 2 * (SPAN.before + SPAN.behind + 1))
    symbols = qpsk(generator, 120)
    found = estimate_response(heard(symbols, taps, SPAN), symbols, SPAN)
    # The normal equations are loaded with 10^-9 of their trace, 9 times their mean eigenvalue.
    np.testing.assert_allclose(found.taps, taps, rtol=0, atol=1e-6)
    assert found.no < 1e-12


def test_the_noise_found_with_the_response_is_the_noise_and_errors_are_those_of_least_squares_at_most():
    generator = np.random.default_rng(2)
    taps = np.zeros(2 * (SPAN.before + SPAN.behind + 1), dtype=complex)
    taps[6:9] = 0.3, 1.0, 0.4j
    no, trials, errors, variances = 0.1, 200, [], []
    for _ in range(trials):
        symbols = qpsk(generator, 140)
        clean = heard(symbols, taps, SPAN)
        found = estimate_response(clean + math.sqrt(no) * complex_normal(generator, len(clean)), symbols, SPAN)
        errors.append(np.abs(found.taps - taps) ** 2)
        variances.append(found.no)
    freedom = 2 * (140 - SPAN.before - SPAN.behind - (SPAN.before + SPAN.behind + 1))
    # A sum of `freedom` exponentials: relative deviation 1 / sqrt(freedom), of which 200 are averaged. Five of them.
    assert np.mean(variances) == pytest.approx(no, rel=5 / math.sqrt(freedom * trials))
    least_squares = no / (140 - SPAN.before - SPAN.behind)
    mean = np.mean(errors, axis=0)
    away = np.r_[0:4, 11:18]
    assert mean[away].mean() < 0.5 * least_squares, "what is no stronger than its error is not believed"
    # A tap of 1 is shrunk by less than a per cent: its error is that of least squares, 200 exponentials, five deviations.
    assert mean[7] == pytest.approx(least_squares, rel=5 / math.sqrt(trials) + 0.05)


@pytest.mark.parametrize("cfo", [0.0, 0.003])
def test_the_mirror_image_and_the_offset_of_a_mixer_are_found_exactly_without_noise(cfo):
    """y + a conj(y) + d, turned by t, is s + a t^2 conj(s) + d t = (1 - |a|^2) s + a t^2 conj(y') + (d - a conj(d)) t."""
    generator = np.random.default_rng(3)
    taps = complex_normal(generator, 2 * (SPAN.before + SPAN.behind + 1))
    symbols = qpsk(generator, 200)
    clean = heard(symbols, taps, SPAN)
    turn = np.exp(-2j * np.pi * cfo * np.arange(len(clean)))
    image, offset = 0.05 - 0.03j, 0.2 + 0.1j
    y = clean + image * turn**2 * np.conj(clean) + offset * turn
    response, found = estimate_impaired(y, symbols, SPAN, turn)
    assert found.image == pytest.approx(image, abs=1e-6)
    assert found.offset == pytest.approx(offset - image * np.conj(offset), abs=1e-6)
    rest = y - found.image * turn**2 * np.conj(y) - found.offset * turn
    np.testing.assert_allclose(rest, (1 - abs(image) ** 2) * clean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(response.taps, (1 - abs(image) ** 2) * taps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("snr_db", [5.0, 16.0])
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("late", [0.0, 0.2])
def test_a_long_equaliser_reaches_the_bound_of_an_endless_one_and_no_equaliser_passes_it(channel, snr_db, late):
    no, span = 10 ** (-snr_db / 10), Span(24, 28)
    limit = bound(channel, no)
    long = mmse_equaliser(response_of(channel, span, no, late), span, Span(24, 28), PULSE)
    # The loading is 3 % of N0 against noise that stands at 2 N0 in the band, and at less along its edges.
    assert limit * 0.999 < long.no < limit * 1.03
    short = mmse_equaliser(response_of(channel, span, no, late), span, Span(4, 6), PULSE)
    shorter = mmse_equaliser(response_of(channel, span, no, late), span, Span(1, 2), PULSE)
    assert long.no <= short.no <= shorter.no


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("equaliser", ["mmse", "one tap"])
def test_an_equaliser_leaves_what_it_says_and_is_unbiased(channel, equaliser):
    generator = np.random.default_rng(4)
    span, reach, no, count = Span(8, 12), Span(10, 14), 10**-1.2, 30_000
    response = response_of(channel, span, no)
    if equaliser == "mmse":
        found = mmse_equaliser(response, span, reach, PULSE)
        assert np.vdot(found.weights, response_of(channel, reach, no).taps) == pytest.approx(1, abs=1e-3)
    else:
        found = one_tap_equaliser(response, span, reach)
        assert np.count_nonzero(found.weights) == 1
    symbols = qpsk(generator, count + 100)
    samples = np.convolve(PULSE.shape(symbols), channel)
    received = samples + math.sqrt(no) * complex_normal(generator, len(samples))
    y = PULSE.match(received.astype(np.complex64))[PULSE.reach :: 2].astype(complex)
    x = equalise(y[2 * (50 - reach.before) :], found.weights, np.arange(count))
    sent = symbols[50 : 50 + count]
    # Neighbours share noise and interference, which at most doubles a variance here; five deviations.
    deviation = math.sqrt(2 / count)
    assert np.mean(x * sent.conj()) == pytest.approx(1, abs=5 * deviation * math.sqrt(found.no))
    assert np.mean(np.abs(x - sent) ** 2) == pytest.approx(found.no, rel=5 * deviation + 0.02)


def test_one_tap_on_a_channel_without_echoes_leaves_the_noise_alone():
    found = one_tap_equaliser(response_of((0.5j,), SPAN, 0.01), SPAN, SPAN)
    assert found.no == pytest.approx(0.01 / 0.25, rel=1e-12)
    assert found.weights[2 * SPAN.before] == pytest.approx(2j)


@pytest.mark.parametrize("value", [0.0, 1e-200, np.nan])
def test_a_response_of_nothing_makes_no_equaliser_fail(value):
    response = Response(np.full(2 * (SPAN.before + SPAN.behind + 1), value, dtype=complex), 0.0)
    assert mmse_equaliser(response, SPAN, SPAN, PULSE).no == 1.0


def test_symbols_come_out_at_the_place_that_the_weights_reach_from():
    y = np.arange(40, dtype=complex)
    weights = np.zeros(8, dtype=complex)
    weights[3] = 1j
    assert equalise(y, weights, np.arange(5)).tolist() == [-3j, -5j, -7j, -9j, -11j]
