import numpy as np
import pytest
from scipy import stats

from link.channel import Awgn
from link.channel.awgn import add_noise
from link.constellation import ORDERS
from link.errors import ArgumentError
from link.randomness import Draws
from link.theory import ber_awgn

# Where the error rate is about 5 percent.
SNR_DB = {4: 4.0, 16: 10.0, 64: 15.0, 256: 20.0, 1024: 25.0, 4096: 30.0}


def noise(snr_db, samples=500, symbols=200, seed=2):
    x = np.zeros((samples, symbols, 2), dtype=np.float32)
    return Awgn()(x, np.full(samples, symbols), snr_db, Draws(seed, np.arange(samples)))


@pytest.mark.parametrize("order", ORDERS)
def test_the_error_rate_is_the_theorys(order, count_errors):
    count_errors(Awgn(), order, SNR_DB[order]).assert_rate(ber_awgn(order, SNR_DB[order]), unit_axes=())


@pytest.mark.parametrize("snr_db", [0.0, 5.0, 10.0])
def test_the_error_rate_of_qpsk_is_the_theorys_over_the_waterfall(snr_db, count_errors):
    samples = 6000 if snr_db == 10.0 else 400
    count_errors(Awgn(), 4, snr_db, samples=samples).assert_rate(ber_awgn(4, snr_db), unit_axes=())


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 13.0, 40.0])
def test_no_is_the_variance_of_a_complex_noise_sample(snr_db):
    received = noise(snr_db)
    w = received.y.astype(np.float64)
    no = 10.0 ** (-snr_db / 10.0)
    np.testing.assert_allclose(received.no, no, rtol=1e-6)
    n = w[..., 0].size
    # |w|^2 is exponential, so its deviation is its mean; half of it lies in each dimension, a chi-square of one degree.
    assert abs(np.sum(w * w, axis=-1).mean() - no) < 4.0 * no / np.sqrt(n)
    for dimension in (0, 1):
        assert abs((w[..., dimension] ** 2).mean() - no / 2.0) < 4.0 * (no / 2.0) * np.sqrt(2.0 / n)
        assert stats.kstest(w[..., dimension].ravel() / np.sqrt(no / 2.0), "norm").pvalue > 1e-3
    assert abs((w[..., 0] * w[..., 1]).mean()) < 4.0 * (no / 2.0) / np.sqrt(n)


def test_noise_is_added_and_nothing_else():
    draws = Draws(4, np.arange(3))
    x = np.random.default_rng(0).normal(size=(3, 10, 2)).astype(np.float32)
    shifted = Awgn()(x, np.full(3, 10), 3.0, draws).y - Awgn()(0 * x, np.full(3, 10), 3.0, draws).y
    np.testing.assert_allclose(shifted, x, atol=1e-6)


def test_no_may_differ_between_symbols():
    y = add_noise(np.zeros((2, 2)), np.array([2.0, 8.0]), np.ones((2, 2)))
    np.testing.assert_allclose(y, [[1.0, 1.0], [2.0, 2.0]])


def test_two_grids_share_the_noise_where_they_meet():
    coarse = {snr_db: noise(snr_db, 3, 5).y for snr_db in (0.0, 6.0, 12.0)}
    fine = {snr_db: noise(snr_db, 3, 5).y for snr_db in np.linspace(-3.0, 12.0, 16)}
    for snr_db, y in coarse.items():
        np.testing.assert_array_equal(fine[snr_db], y)
    assert not np.allclose(fine[0.0] * 10.0**0.05, fine[-1.0])


def test_what_was_not_sent_is_erased_and_takes_no_noise():
    x = np.ones((2, 4, 2), dtype=np.float32)
    received = Awgn()(x, np.array([4, 1]), 0.0, Draws(0, np.arange(2)))
    assert np.isfinite(received.no[0]).all()
    assert (received.y[1, 1:] == 0.0).all()
    assert received.no[1].tolist() == [1.0, np.inf, np.inf, np.inf]
    assert received.y.dtype == received.no.dtype == np.float32


def test_one_sample_alone_hears_what_it_hears_among_others():
    x = np.random.default_rng(0).normal(size=(7, 5, 2)).astype(np.float32)
    together = Awgn()(x, np.full(7, 5), 6.0, Draws(1, np.arange(7))).y
    for row in range(7):
        alone = Awgn()(x[row : row + 1], np.array([5]), 6.0, Draws(1, np.array([row]))).y
        np.testing.assert_array_equal(alone[0], together[row])


def test_draws_for_another_number_of_rows_are_refused_rather_than_shared():
    x = np.zeros((3, 4, 2), dtype=np.float32)
    with pytest.raises(ArgumentError, match=r"samples must have shape \(3,\), one a row of x, got \(1,\)"):
        Awgn()(x, np.full(3, 4), 0.0, Draws(0, np.arange(1)))
    with pytest.raises(ArgumentError, match=r"num_symbols must have shape \(3,\)"):
        Awgn()(x, np.full(1, 4), 0.0, Draws(0, np.arange(3)))


@pytest.mark.parametrize("snr_db", [-31.0, 61.0, np.nan])
def test_an_snr_out_of_range_is_refused(snr_db):
    with pytest.raises(ArgumentError, match=r"snr_db must be in \[-30, 60\]"):
        noise(snr_db, 1, 1)
