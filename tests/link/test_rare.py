"""Importance sampling, against closed forms, against decision regions found by other means and against plain counting."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp, ndtr
from scipy.stats import binom

from link.bits import label_bits
from link.constellation import ORDERS, app_llr, bits_per_symbol, map_bits, points
from link.errors import ArgumentError
from link.rare import BLOCK_SYMBOLS, rare_ber, rare_block, rare_estimate
from link.snr import no_from_esn0_db
from link.theory import ber_awgn

Z_95 = 1.959964


def deviations(estimate, truth):
    """How many standard errors the estimate is off."""
    return (estimate.ber.value - truth) / ((estimate.ber.high - estimate.ber.value) / Z_95)


def snr_of(order, ber):
    """Es/N0 at which the closed form gives a rate, by bisection."""
    low, high = -30.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if ber_awgn(order, middle) > ber else (low, middle)
    return low


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ber", [0.3, 1e-2, 1e-4, 1e-9, 1e-15, 1e-100])
def test_the_rate_is_that_of_the_closed_form(order, ber):
    snr_db = snr_of(order, ber)
    estimate = rare_estimate([rare_block(order, snr_db, "max-log", 0.0, 5, block) for block in range(2)])
    assert abs(deviations(estimate, float(ber_awgn(order, snr_db)))) < 4.0


@pytest.mark.parametrize(("order", "ber"), [(4, 0.1), (64, 1e-9), (4096, 1e-30)])
def test_one_block_has_an_interval_that_covers(order, ber):
    snr_db, runs = snr_of(order, ber), 100
    blocks = [rare_block(order, snr_db, "max-log", 0.0, 7, block) for block in range(runs)]
    intervals = [rare_estimate([sums]).ber for sums in blocks]
    assert sum(interval.low <= ber <= interval.high for interval in intervals) >= binom.ppf(1e-4, runs, 0.95)
    together = rare_estimate(blocks)
    assert abs(deviations(together, ber)) < 4.0
    # Blocks scatter by as much as one of them says, to what the variance of a hundred tells.
    scatter = np.std([interval.value for interval in intervals]) / math.sqrt(runs)
    assert scatter * Z_95 / (together.ber.high - together.ber.value) == pytest.approx(
        1.0, abs=4.0 / math.sqrt(2.0 * runs)
    )


@pytest.mark.parametrize("ber", [1e-9, 1e-15, 1e-30])
@pytest.mark.parametrize("order", ORDERS)
def test_one_block_is_enough_for_ten_percent(order, ber):
    estimate = rare_ber(order, snr_of(order, ber), rel_half_width=0.1)
    assert estimate.symbols == BLOCK_SYMBOLS
    assert estimate.ber.value == pytest.approx(ber, rel=0.1)


def rate_by_regions(order, esn0_db, no_offset_db):
    """Error rate of the exact demapper by the edges of its decisions, with LLRs as they are defined."""
    bits = label_bits(np.arange(order), bits_per_symbol(order))
    row = (bits[:, 1::2] == 0).all(axis=1)
    levels, labels = points(order)[row, 0], bits[row, 0::2]
    no = no_from_esn0_db(esn0_db)
    told = no * 10.0 ** (no_offset_db / 10.0)

    def llr(y, bit):
        metric = -((y[:, None] - levels) ** 2) / told
        return logsumexp(metric[:, labels[:, bit] == 1], axis=1) - logsumexp(metric[:, labels[:, bit] == 0], axis=1)

    # Told too much noise, inner bits are decided wrongly far beyond the outermost amplitude.
    grid = np.linspace(-1.0, 1.0, 8000) * (2.0 * levels.max() + 9.0 * math.sqrt(no / 2.0))
    total = 0.0
    for bit in range(labels.shape[1]):
        decided = llr(grid, bit) > 0.0
        crossed = np.flatnonzero(decided[1:] != decided[:-1])
        low, high = grid[crossed], grid[crossed + 1]
        for _ in range(60):
            middle = (low + high) / 2.0
            before = (llr(middle, bit) > 0.0) == decided[crossed]
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        z = (np.concatenate([[-np.inf], low, [np.inf]])[:, None] - levels) / math.sqrt(no / 2.0)
        regions = np.where(z[:-1] > 0, ndtr(-z[:-1]) - ndtr(-z[1:]), ndtr(z[1:]) - ndtr(z[:-1]))
        of_region = np.concatenate([decided[:1], decided[crossed + 1]])
        total += (regions * (of_region[:, None] != labels[:, bit])).sum() / len(levels)
    return total / labels.shape[1]


@pytest.mark.parametrize("order", [4, 16, 64, 256])
@pytest.mark.parametrize("no_offset_db", [-10.0, 0.0, 3.0, 10.0, 20.0])
@pytest.mark.parametrize("esn0_db", [0.0, 12.0, 22.0, 30.0])
def test_a_wrong_noise_variance_has_the_rate_of_the_regions_it_makes(order, no_offset_db, esn0_db):
    truth = rate_by_regions(order, esn0_db, no_offset_db)
    estimate = rare_estimate([rare_block(order, esn0_db, "app", no_offset_db, 5, block) for block in range(2)])
    assert abs(deviations(estimate, truth)) < 4.0
    if order == 4:
        assert truth == pytest.approx(float(ber_awgn(4, esn0_db)), rel=1e-9)


def test_a_wrong_noise_variance_costs_what_plain_counting_finds():
    order, esn0_db, no_offset_db, count = 16, 12.0, 10.0, 400_000
    generator = np.random.default_rng(11)
    bits = generator.integers(0, 2, (count, 1, 4)).astype(np.float64)
    no = no_from_esn0_db(esn0_db)
    y = map_bits(bits) + math.sqrt(no / 2.0) * generator.standard_normal((count, 1, 2))
    share = ((app_llr(y, np.full((count, 1), 10.0 * no), order) > 0.0)[:, 0] != bits[:, 0]).mean(axis=-1)
    estimate = rare_ber(order, esn0_db, "app", no_offset_db, rel_half_width=0.005)
    error = (estimate.ber.high - estimate.ber.value) / Z_95
    assert share.mean() > 1.2 * ber_awgn(order, esn0_db)
    assert abs(share.mean() - estimate.ber.value) < 4.0 * math.hypot(error, share.std() / math.sqrt(count))


def test_the_variance_told_changes_nothing_for_the_nearest_amplitude():
    right, wrong = (rare_block(64, 20.0, "max-log", offset, 1, 0) for offset in (0.0, 17.0))
    assert right == wrong


def test_a_block_is_the_same_alone_and_points_do_not_depend_on_the_order_of_blocks():
    blocks = [rare_block(16, 18.0, "app", 6.0, 3, block) for block in range(5)]
    assert rare_block(16, 18.0, "app", 6.0, 3, 3) == blocks[3]
    assert rare_estimate(blocks) == rare_estimate(blocks[::-1])
    assert len({sums.weighted for sums in blocks}) == 5
    assert rare_block(16, 18.0, "app", 6.0, 4, 3) != blocks[3]


def test_a_point_ends_with_the_first_block_at_which_it_is_narrow_enough():
    estimate = rare_ber(64, 24.0, rel_half_width=0.008, seed=2)
    blocks = [rare_block(64, 24.0, "max-log", 0.0, 2, block) for block in range(estimate.symbols // BLOCK_SYMBOLS)]
    assert len(blocks) > 2
    assert estimate == rare_estimate(blocks)
    assert estimate.rel_half_width <= 0.008 < rare_estimate(blocks[:-1]).rel_half_width
    assert rare_ber(64, 24.0, rel_half_width=0.008, seed=2, blocks_max=2) == rare_estimate(blocks[:2])


def test_the_gain_is_over_the_variance_of_plain_counting():
    estimate = rare_ber(4, 10.0, rel_half_width=0.01)
    ber, error = estimate.ber.value, (estimate.ber.high - estimate.ber.value) / Z_95
    # A QPSK symbol is two independent bits.
    assert estimate.equivalent_symbols == pytest.approx(ber * (1.0 - ber) / (2.0 * error**2), rel=1e-5)
    assert estimate.gain == estimate.equivalent_symbols / estimate.symbols > 100
    assert 1.0 / estimate.effective_errors == pytest.approx((error / ber) ** 2 + 0.5 / estimate.symbols, rel=1e-3)
    assert rare_ber(4, -30.0).gain == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rare_ber(4, 40.0), r"snr_db must leave an error rate of at least 1e-290, got 40: 10\^-2174"),
        (lambda: rare_ber(8, 10.0), "order must be one of"),
        (lambda: rare_ber(4, 61.0), "snr_db must be in"),
        (lambda: rare_ber(4, 10.0, "maxlog"), "demapper must be max-log or app, got 'maxlog'"),
        (lambda: rare_ber(4, 10.0, "app", 31.0), "no_offset_db must be in"),
        (lambda: rare_ber(4, 10.0, rel_half_width=0.0), "rel_half_width must be in"),
        (lambda: rare_ber(4, 10.0, confidence=1.0), "confidence must be in"),
        (lambda: rare_ber(4, 10.0, blocks_max=0), "blocks_max must be in"),
        (lambda: rare_ber(4, 10.0, seed=-1), "seed must be in"),
        (lambda: rare_estimate([]), "blocks must be one or more of one point, got 0 of 0"),
        (
            lambda: rare_estimate([rare_block(4, snr_db, "app", 0.0, 0, 0) for snr_db in (9.0, 10.0)]),
            "blocks must be one or more of one point, got 2 of 2",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
