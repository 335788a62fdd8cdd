import math

import numpy as np
import pytest

from link.constellation import points
from link.radio.modem.noise import estimate_no
from link.snr import NO_MIN

COUNT, KNOWN, TRIALS = 1024, 90, 40


def complex_normal(generator, count, no):
    return generator.normal(size=(count, 2)) @ [1, 1j] * math.sqrt(no / 2)


def received(generator, order, no, weights=None):
    """Equalised symbols of a frame, and the errors of those that are known."""
    sent = points(order)[generator.choice(order, size=COUNT, p=weights)] @ [1, 1j]
    return sent + complex_normal(generator, COUNT, no), complex_normal(generator, KNOWN, no)


def deviation(order, no):
    """Least relative standard deviation of an estimate (Cramér and Rao): the density of a dimension, derived by no."""
    amplitudes = np.unique(points(order)[:, 0])
    x = np.linspace(-4, 4, 20_001)

    def density(no):
        return np.mean(np.exp(-((x[:, None] - amplitudes) ** 2) / no), axis=-1) / math.sqrt(math.pi * no)

    step = 1e-4 * no
    slope = (density(no + step) - density(no - step)) / (2 * step)
    information = 2 * np.sum(slope**2 / np.maximum(density(no), 1e-200)) * (x[1] - x[0])
    return 1 / math.sqrt(COUNT * information + KNOWN / no**2) / no


def mean_found(order, no, start, weights=None):
    generator = np.random.default_rng(order)
    frames = [received(generator, order, no, weights) for _ in range(TRIALS)]
    return np.mean([estimate_no(payload, np.ones(COUNT), order, known, start * no) for payload, known in frames]) / no


@pytest.mark.parametrize("snr_db", [8.0, 12.0, 16.0, 20.0])
@pytest.mark.parametrize("order", [4, 16, 64])
def test_the_noise_variance_is_found_without_bias(order, snr_db):
    no = 10 ** (-snr_db / 10)
    # Five deviations of the mean of 40 frames, and 0.05 dB for a likelihood's own bias, of the order of 1 / COUNT.
    assert mean_found(order, no, 1.0) == pytest.approx(1, abs=5 * deviation(order, no) / math.sqrt(TRIALS) + 0.012)


@pytest.mark.parametrize(("order", "snr_db"), [(4, 5.0), (16, 8.0), (64, 16.0)])
@pytest.mark.parametrize("start_db", [-1.5, 1.5])
def test_a_wrong_beginning_is_left_behind(order, snr_db, start_db):
    no = 10 ** (-snr_db / 10)
    found = mean_found(order, no, 10 ** (start_db / 10))
    # Where decisions are often wrong, expectation and maximisation close in slowly: a tenth of what it was off by is left.
    assert abs(10 * math.log10(found)) < 0.1 * abs(start_db) + 22 * deviation(order, no) / math.sqrt(TRIALS)


def test_nearest_points_alone_would_find_too_little():
    no, order = 10**-1.2, 64
    payload, _ = received(np.random.default_rng(1), order, no)
    amplitudes = np.unique(points(order)[:, 0])
    nearest = sum(np.abs(part[:, None] - amplitudes).min(axis=-1) ** 2 for part in (payload.real, payload.imag))
    assert np.mean(nearest) < 0.5 * no


@pytest.mark.parametrize(("order", "snr_db"), [(4, 5.0), (4, 12.0), (16, 12.0), (64, 18.0)])
def test_points_that_are_not_used_alike_change_nothing_where_most_decisions_are_right(order, snr_db):
    power = np.sum(points(order) ** 2, axis=-1)
    inner = np.exp(-2 * power) / np.exp(-2 * power).sum()
    few = np.arange(order) < max(1, order // 4)
    no = 10 ** (-snr_db / 10)
    for weights in (inner, few / few.sum()):
        assert mean_found(order, no, 1.0, weights) == pytest.approx(
            1, abs=5 * 1.4 * deviation(order, no) / math.sqrt(TRIALS) + 0.02
        )


def test_noise_that_only_the_known_symbols_saw_is_weighed_by_their_number():
    payload = np.full(60, points(4)[0] @ [1, 1j])
    assert estimate_no(payload, np.ones(60), 4, np.full(20, 0.2 + 0.0j), 0.01) == pytest.approx(
        20 * 0.04 / 80, rel=1e-9
    )


def test_without_a_constellation_known_symbols_and_the_beginning_count_one_to_three():
    payload = complex_normal(np.random.default_rng(2), 50, 100.0)
    assert estimate_no(payload, np.ones(50), None, np.full(30, 0.2j), 0.12) == pytest.approx(
        (0.04 + 3 * 0.12) / 4, rel=1e-12
    )


@pytest.mark.parametrize("order", [4, 64, None])
def test_no_noise_is_the_least_that_is_told(order):
    payload = points(64 if order is None else order) @ [1, 1j]
    assert estimate_no(payload, np.ones(len(payload)), order, np.zeros(9, dtype=complex), NO_MIN) == NO_MIN


def test_symbols_that_came_with_more_power_count_by_their_own_variance():
    generator = np.random.default_rng(3)
    no, order = 10**-1.2, 16
    strength = np.repeat([0.25, 4.0], COUNT // 2)
    found = []
    for _ in range(TRIALS):
        payload, known = received(generator, order, 0.0)
        payload += complex_normal(generator, COUNT, no) / np.sqrt(strength)
        known = complex_normal(generator, KNOWN, no)
        found.append(estimate_no(payload, strength, order, known, no))
    # The weak half alone would be as good as 6 dB less; the strong one as COUNT / 2 symbols that are always decided rightly.
    assert np.mean(found) == pytest.approx(no, rel=5 / math.sqrt(TRIALS * (COUNT / 2 + KNOWN)) + 0.02)
