import numpy as np
import pytest
from scipy import stats

from link.channel import CHANNELS, Awgn, Fading, build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from link.snr import no_from_esn0_db
from link.theory import ber_rayleigh, ber_rician

SAMPLES, SYMBOLS = 500, 120
K_FACTORS_DB = (None, -3.0, 6.0)


def received(channel, snr_db=10.0, x=None, samples=SAMPLES, symbols=SYMBOLS, seed=6):
    x = np.ones((samples, symbols, 2), dtype=np.float32) if x is None else x
    return channel(x, np.full(len(x), x.shape[1]), snr_db, Draws(seed, np.arange(len(x))))


def gains(channel, snr_db=10.0, **size):
    """|h|^2 of each symbol, from the variance that the receiver is told."""
    return no_from_esn0_db(snr_db) / received(channel, snr_db, **size).no.astype(np.float64)


@pytest.mark.parametrize("order", [4, 16, 256])
@pytest.mark.parametrize("k_factor_db", K_FACTORS_DB)
def test_the_error_rate_of_fast_fading_is_the_theorys(order, k_factor_db, count_errors):
    snr_db = {4: 8.0, 16: 14.0, 256: 24.0}[order]
    theory = ber_rayleigh(order, snr_db) if k_factor_db is None else ber_rician(order, snr_db, k_factor_db)
    count_errors(Fading(1, k_factor_db), order, snr_db).assert_rate(theory, unit_axes=())


@pytest.mark.parametrize("block_symbols", [0, 5])
@pytest.mark.parametrize("k_factor_db", K_FACTORS_DB)
def test_the_error_rate_of_block_fading_is_the_theorys(k_factor_db, block_symbols, count_errors):
    theory = ber_rayleigh(16, 12.0) if k_factor_db is None else ber_rician(16, 12.0, k_factor_db)
    # Blocks are the independent unit; a sample's mean stands for its blocks.
    errors = count_errors(Fading(block_symbols, k_factor_db), 16, 12.0, samples=20_000, symbols=10)
    errors.assert_rate(theory, unit_axes=(1,))


def test_the_mean_gain_is_one_and_reported():
    for k_factor_db in K_FACTORS_DB:
        fading = Fading(1, k_factor_db)
        power = gains(fading)
        assert abs(power.mean() - 1.0) < 4.0 * power.std() / np.sqrt(power.size)
        assert received(fading).report["mean_gain"] == pytest.approx(power.mean(), rel=1e-6)


def test_the_mean_gain_counts_only_what_was_sent():
    x = np.ones((200, 6, 2), dtype=np.float32)
    sent = Fading(1)(x, np.full(200, 2), 10.0, Draws(6, np.arange(200)))
    assert sent.report["mean_gain"] == pytest.approx((0.1 / sent.no[:, :2].astype(float)).mean(), rel=1e-6)


def test_rayleigh_gains_are_exponential():
    assert stats.kstest(gains(Fading(1)).ravel(), "expon").pvalue > 1e-3


@pytest.mark.parametrize("k_factor_db", [-3.0, 6.0, 20.0])
def test_rician_gains_are_a_noncentral_chi_square(k_factor_db):
    k = 10.0 ** (k_factor_db / 10.0)
    law = stats.ncx2(2, 2.0 * k, scale=0.5 / (1.0 + k))
    assert stats.kstest(gains(Fading(1, k_factor_db)).ravel(), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("k_factor_db", K_FACTORS_DB)
def test_the_variance_told_is_that_of_the_equalised_noise(k_factor_db):
    x = np.random.default_rng(0).choice([-0.7, 0.7], (SAMPLES, SYMBOLS, 2)).astype(np.float32)
    heard = received(Fading(1, k_factor_db), 3.0, x)
    normalised = (heard.y.astype(np.float64) - x) / np.sqrt(heard.no.astype(np.float64) / 2.0)[..., None]
    # Unbiased, and of variance 1 whatever the gain: also over the deepest tenth of the fades.
    deep = heard.no > np.quantile(heard.no, 0.9)
    for part in (normalised, normalised[deep]):
        z = part.ravel()
        assert abs(z.mean()) < 4.0 / np.sqrt(z.size)
        assert abs((z * z).mean() - 1.0) < 4.0 * np.sqrt(2.0 / z.size)
    assert stats.kstest(normalised.ravel(), "norm").pvalue > 1e-3


def test_the_least_variance_told_is_one_that_a_receiver_takes():
    # A gain above 1 would take it below.
    for fading in (Fading(1), Fading(0, 6.0), Awgn()):
        assert received(fading, 60.0, samples=20).no.min() == np.float32(1e-6)


def test_the_gain_turns_the_symbol_before_the_equaliser_turns_it_back():
    # Equalised noise must not follow the symbol: a channel that conjugates twice wrongly passes every test on x = 1.
    x = np.zeros((SAMPLES, 2, 2), dtype=np.float32)
    x[:, 0, 0], x[:, 1, 1] = 1.0, 1.0
    heard = received(Fading(0), 60.0, x)
    usual = heard.no[:, 0] < 1e-4
    assert usual.mean() > 0.9
    np.testing.assert_allclose(heard.y[usual], x[usual], atol=0.05)


@pytest.mark.parametrize("block_symbols", [1, 3, 4, 120, 200])
def test_each_block_has_a_gain_of_its_own(block_symbols):
    told = received(Fading(block_symbols), samples=20).no
    blocks = -(-SYMBOLS // block_symbols)
    for row in told:
        values, counts = np.unique(row, return_counts=True)
        assert len(values) == blocks
        assert counts.max() <= block_symbols
    assert len(np.unique(told)) == 20 * blocks


def test_block_zero_is_one_gain_a_sample():
    assert (np.ptp(gains(Fading(0)), axis=1) == 0.0).all()
    assert len(np.unique(gains(Fading(0))[:, 0])) == SAMPLES


def test_neighbours_in_a_sample_fade_apart():
    told = received(Fading(4), samples=20).no
    assert (np.diff(told, axis=1) != 0.0).all()


def test_fading_draws_nothing_from_the_noise():
    x = np.zeros((SAMPLES, SYMBOLS, 2), dtype=np.float32)
    noise = received(Awgn(), 0.0, x).y.astype(np.float64)
    power = gains(Fading(1), 0.0)
    assert abs(np.corrcoef(np.sum(noise**2, axis=-1).ravel(), power.ravel())[0, 1]) < 4.5 / np.sqrt(power.size)


@pytest.mark.parametrize("fading", [Fading(0), Fading(1, 6.0), Fading(3)])
def test_one_sample_alone_hears_what_it_hears_among_others(fading):
    x = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)
    lengths = np.array([8, 3, 8, 1, 5, 0])
    together = fading(x, lengths, 6.0, Draws(1, np.arange(6)))
    for row in range(6):
        alone = fading(x[row : row + 1], lengths[row : row + 1], 6.0, Draws(1, np.array([row])))
        np.testing.assert_array_equal(alone.y[0], together.y[row])
        np.testing.assert_array_equal(alone.no[0], together.no[row])
        assert np.isinf(together.no[row, lengths[row] :]).all()
        assert (together.y[row, lengths[row] :] == 0.0).all()


def test_a_channel_is_built_by_its_name():
    for name in CHANNELS:
        assert build_channel(name).name == name
    rician = build_channel("rician", block_symbols=7, k_factor_db=3.0)
    assert (rician.block_symbols, rician.k_factor_db) == (7, 3.0)
    assert build_channel("rayleigh-fast", block_symbols=7).block_symbols == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: build_channel("tdl"),
            "channel must be one of awgn, rayleigh, rayleigh-fast, rician, rician-fast, tdl-a, .*, cdl-e, got 'tdl'",
        ),
        (lambda: build_channel("rayleigh", block_symbols=-1), "block_symbols must be in .*, got -1"),
        (lambda: build_channel("rician", k_factor_db=41.0), r"k_factor_db must be in \[-20, 40\], got 41"),
    ],
)
def test_an_option_out_of_range_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
