"""Gains from pilots: errors of the estimates, what is handed on of them, and that nothing else changes."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from link.bits import group
from link.channel import Awgn, Csi, Fading, build_channel
from link.channel.csi import PILOTS_MAX, least_squares
from link.constellation import map_bits, max_log_llr
from link.errors import ArgumentError
from link.randomness import Draws, Stream
from link.snr import no_from_esn0_db

SAMPLES = 40_000
MOMENTS = {None: (0.0, 1.0), 3.0: (np.sqrt(1.9952623 / 2.9952623), 1.0 / 2.9952623)}


def qpsk(samples, symbols=1):
    bits = Draws(2, np.arange(samples)).bits(Stream.BITS, 4, 2 * symbols)
    return bits, map_bits(group(bits.astype(np.float32), 2))


def received(fading, snr_db, x, seed=6):
    return fading(x, np.full(len(x), x.shape[1]), snr_db, Draws(seed, np.arange(len(x))))


def error_variance(kind, no, pilots, k_factor_db):
    """Of the estimates: no/P, and 1/(1/s + P/no)."""
    return no / pilots if kind == "ls" else 1.0 / (1.0 / MOMENTS[k_factor_db][1] + pilots / no)


def power_of_estimates(heard, kind, no, pilots, k_factor_db=None):
    """|h_hat|^2, from the variance that the receiver is told."""
    return (no + error_variance(kind, no, pilots, k_factor_db)) / heard.no.astype(np.float64)


@pytest.mark.parametrize("kind", ["ls", "lmmse"])
@pytest.mark.parametrize("k_factor_db", [None, 3.0])
@pytest.mark.parametrize(("snr_db", "pilots"), [(-3.0, 1), (10.0, 1), (3.0, 5)])
def test_the_mean_square_error_of_the_estimates_is_the_theorys(kind, k_factor_db, snr_db, pilots):
    fading = Fading(0, k_factor_db, Csi(kind, pilots))
    found = received(fading, snr_db, qpsk(SAMPLES)[1]).report["csi_mse"]
    theory = error_variance(kind, no_from_esn0_db(snr_db), pilots, k_factor_db)
    # Squared magnitudes of complex Gaussians: exponential, of deviation equal to their mean.
    assert abs(found - theory) < 4.0 * theory / np.sqrt(SAMPLES)


@pytest.mark.parametrize("k_factor_db", [None, 3.0])
@pytest.mark.parametrize(("snr_db", "pilots"), [(0.0, 1), (6.0, 2)])
def test_the_variance_told_is_that_of_the_equalised_error_whatever_the_estimate(k_factor_db, snr_db, pilots):
    x = qpsk(SAMPLES)[1]
    heard = received(Fading(0, k_factor_db, Csi("lmmse", pilots)), snr_db, x)
    normalised = (heard.y.astype(np.float64) - x) / np.sqrt(heard.no.astype(np.float64) / 2.0)[..., None]
    low, high = np.quantile(heard.no, [0.1, 0.9])
    for part in (normalised, normalised[heard.no > high], normalised[heard.no < low]):
        z = part.ravel()
        assert abs(z.mean()) < 4.0 / np.sqrt(z.size)
        assert abs((z * z).mean() - 1.0) < 4.0 * np.sqrt(2.0 / z.size)
    assert stats.kstest(normalised.ravel(), "norm").pvalue > 1e-3


def test_larger_constellations_are_told_the_mean_over_their_points():
    bits = Draws(2, np.arange(SAMPLES)).bits(Stream.BITS, 16, 4)
    x = map_bits(group(bits.astype(np.float32), 4))
    heard = received(Fading(csi=Csi("lmmse", 1)), 3.0, x)
    z = ((heard.y.astype(np.float64) - x) ** 2).sum(axis=-1) / heard.no
    assert abs(z.mean() - 1.0) < 4.0 * z.std() / np.sqrt(z.size)
    # Given the symbol it is more for the outer points and less for the inner ones.
    energy = (x**2).sum(axis=-1)
    no, error = no_from_esn0_db(3.0), error_variance("lmmse", no_from_esn0_db(3.0), 1, None)
    for chosen in (energy > 1.5, energy < 0.5):
        expected = (no + error * energy[chosen].mean()) / (no + error)
        assert abs(expected - 1.0) > 0.2
        assert abs(z[chosen].mean() - expected) < 4.0 * z[chosen].std() / np.sqrt(chosen.sum())


@pytest.mark.parametrize("kind", ["ls", "lmmse"])
def test_least_squares_draws_symbols_to_zero_and_lmmse_does_not(kind):
    snr_db, pilots = 0.0, 2
    no = no_from_esn0_db(snr_db)
    x = qpsk(SAMPLES)[1].astype(np.float64)
    heard = received(Fading(csi=Csi(kind, pilots)), snr_db, x)
    # Weighted by |h_hat|^2, without which the mean does not exist.
    weight = power_of_estimates(heard, kind, no, pilots)
    products = weight * (heard.y * x).sum(axis=-1)
    slope, error = products.mean() / weight.mean(), products.std() / np.sqrt(SAMPLES) / weight.mean()
    expected = 1.0 / (1.0 + no / pilots) if kind == "ls" else 1.0
    assert abs(slope - expected) < 4.0 * error
    assert error < 0.02


@pytest.mark.parametrize(("pilots", "snr_db", "k_factor_db"), [(1, 0.0, None), (2, 6.0, 3.0)])
def test_llrs_behind_lmmse_are_calibrated(pilots, snr_db, k_factor_db):
    bits, x = qpsk(4 * SAMPLES)
    heard = received(Fading(0, k_factor_db, Csi("lmmse", pilots)), snr_db, x)
    llr = max_log_llr(heard.y.astype(np.float64), heard.no.astype(np.float64), 4).reshape(bits.shape)
    no = no_from_esn0_db(snr_db)
    naive = llr * (no + error_variance("lmmse", no, pilots, k_factor_db)) / no

    def worst(values):
        """Largest deviation of the share of ones from the logistic of the LLR, in standard errors, over 20 bins."""
        place = np.digitize(values, np.quantile(values, np.linspace(0.05, 0.95, 19)))
        p = expit(values)
        excess = np.bincount(place.ravel(), (bits - p).ravel())
        return np.abs(excess / np.sqrt(np.bincount(place.ravel(), (p * (1.0 - p)).ravel()))).max()

    assert worst(llr) < 4.0
    # That an error of the gain left out would be seen.
    assert worst(naive) > 10.0


@pytest.mark.parametrize(("block_symbols", "k_factor_db"), [(0, None), (3, None), (3, 6.0)])
def test_every_kind_hears_the_same_gains_and_noise(block_symbols, k_factor_db):
    x = qpsk(500, 8)[1]
    perfect, ls, lmmse, more = (
        received(Fading(block_symbols, k_factor_db, csi), 4.0, x)
        for csi in (Csi(), Csi("ls", 2), Csi("lmmse", 2), Csi("lmmse", 3))
    )
    no = no_from_esn0_db(4.0)

    def loudness(heard, error):
        """|h x + w|^2: what came in before the equaliser."""
        return (heard.y.astype(np.float64) ** 2).sum(axis=-1) * (no + error) / heard.no

    expected = loudness(perfect, 0.0)
    s = 1.0 if k_factor_db is None else 1.0 / (1.0 + 10.0 ** (k_factor_db / 10.0))
    for heard, error in (
        (ls, no / 2),
        (lmmse, 1.0 / (1.0 / s + 2 / no)),
        (more, 1.0 / (1.0 / s + 3 / no)),
    ):
        np.testing.assert_allclose(loudness(heard, error), expected, rtol=1e-5)
        assert heard.report["mean_gain"] == perfect.report["mean_gain"]
        assert not np.allclose(heard.y, perfect.y, atol=0.05)


def test_fewer_pilots_are_the_first_of_more():
    h = np.zeros((50, 4, 2))
    draws = Draws(3, np.arange(50))
    one, two, three = (least_squares(h, 1.0, pilots, 0, draws) * pilots for pilots in (1, 2, 3))
    parts = np.stack([one, two - one, three - two])
    # Looks of one size and without correlation, each block its own.
    looks = parts.reshape(3, -1)
    assert np.abs(np.corrcoef(looks)[np.triu_indices(3, 1)]).max() < 4.5 / np.sqrt(looks.shape[1])
    assert np.abs(np.corrcoef(parts[0].transpose(1, 0, 2).reshape(4, -1))[np.triu_indices(4, 1)]).max() < 0.45
    assert abs((looks**2).mean() - 0.5) < 4.0 * 0.5 * np.sqrt(2.0 / looks.size)


def test_pilots_without_number_tell_all():
    x = qpsk(200, 5)[1]
    known = received(Fading(2), 30.0, x)
    for kind in ("ls", "lmmse"):
        heard = received(Fading(2, csi=Csi(kind, PILOTS_MAX)), 30.0, x)
        usual = known.no < 0.02
        np.testing.assert_allclose(heard.y[usual], known.y[usual], atol=0.02)
        np.testing.assert_allclose(heard.no[usual], known.no[usual], rtol=0.05)


@pytest.mark.parametrize(
    "fading", [Fading(csi=Csi("ls", 2)), Fading(3, 6.0, Csi("lmmse", 1)), Fading(2, csi=Csi("ls", 3))]
)
def test_one_sample_alone_hears_what_it_hears_among_others(fading):
    x = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)
    lengths = np.array([8, 3, 8, 1, 5, 0])
    together = fading(x, lengths, 6.0, Draws(1, np.arange(6)))
    for row in range(6):
        alone = fading(x[row : row + 1, :5], lengths[row : row + 1].clip(max=5), 6.0, Draws(1, np.array([row])))
        if lengths[row] <= 5:
            np.testing.assert_array_equal(alone.y[0], together.y[row, :5])
            np.testing.assert_array_equal(alone.no[0], together.no[row, :5])
            assert alone.num_pilots[0] == together.num_pilots[row]


@pytest.mark.parametrize(
    ("block_symbols", "expected"),
    [(0, [0, 3, 3, 3, 3]), (2, [0, 3, 3, 6, 12]), (4, [0, 3, 3, 3, 6]), (99, [0, 3, 3, 3, 3])],
)
def test_each_block_that_sends_anything_has_its_own_pilots_and_counts_them(block_symbols, expected):
    x, lengths = qpsk(5, 8)[1], np.array([0, 1, 2, 4, 8])
    heard = Fading(block_symbols, csi=Csi("ls", 3))(x, lengths, 6.0, Draws(1, np.arange(5)))
    assert heard.num_pilots.tolist() == expected
    assert heard.pilot_symbols == sum(expected)
    # As many as there are gains.
    assert [3 * len(np.unique(row[np.isfinite(row)])) for row in heard.no] == expected


def test_known_gains_cost_no_pilots():
    x = qpsk(5, 8)[1]
    assert received(Awgn(), 6.0, x).pilot_symbols == 0
    assert received(Fading(2), 6.0, x).pilot_symbols == 0
    assert received(Fading(2), 6.0, x).report["csi_mse"] == 0.0


@pytest.mark.parametrize("offset_db", [-3.0, 6.0])
def test_a_wrong_noise_variance_is_what_the_receiver_is_told_and_no_more(offset_db):
    x, factor = qpsk(300, 6)[1], 10.0 ** (offset_db / 10.0)
    for true, wrong in (
        (Awgn(), Awgn(offset_db)),
        (Fading(1), Fading(1, no_offset_db=offset_db)),
        (Fading(2, 6.0), Fading(2, 6.0, no_offset_db=offset_db)),
        (Fading(2, csi=Csi("ls", 2)), Fading(2, csi=Csi("ls", 2), no_offset_db=offset_db)),
    ):
        one, other = received(true, 5.0, x), received(wrong, 5.0, x)
        np.testing.assert_array_equal(one.y, other.y)
        np.testing.assert_allclose(other.no, factor * one.no, rtol=1e-6)


@pytest.mark.parametrize("offset_db", [-3.0, 6.0])
def test_lmmse_that_is_told_a_wrong_variance_shrinks_by_it(offset_db):
    x, no, pilots = qpsk(300, 6)[1], no_from_esn0_db(5.0), 2
    told = no * 10.0 ** (offset_db / 10.0)
    ls = received(Fading(csi=Csi("ls", pilots)), 5.0, x)
    wrong = received(Fading(csi=Csi("lmmse", pilots), no_offset_db=offset_db), 5.0, x)
    g = 1.0 / (1.0 + told / pilots)
    np.testing.assert_allclose(wrong.y, ls.y / g, rtol=1e-5, atol=1e-6)
    power = (no + no / pilots) / ls.no.astype(np.float64)
    np.testing.assert_allclose(wrong.no, (told + g * told / pilots) / (g * g * power), rtol=1e-5)


def test_options_reach_the_channel():
    channel = build_channel("rician", block_symbols=4, k_factor_db=3.0, csi="lmmse", pilots=2, no_offset_db=1.5)
    assert (channel.csi, channel.no_offset_db) == (Csi("lmmse", 2), 1.5)
    assert build_channel("awgn", no_offset_db=-2.0).no_offset_db == -2.0
    assert build_channel("rayleigh-fast", no_offset_db=-2.0).no_offset_db == -2.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rayleigh", {"csi": "mmse"}, "csi must be one of perfect, ls, lmmse, got 'mmse'"),
        ("rayleigh", {"csi": "ls"}, r"pilots must be in \[1, 1024\] with csi ls, got 0"),
        ("rayleigh", {"csi": "lmmse", "pilots": 1025}, r"pilots must be in \[1, 1024\] with csi lmmse, got 1025"),
        ("rayleigh", {"pilots": 2}, "pilots must be 0 with perfect csi, got 2"),
        ("awgn", {"csi": "ls", "pilots": 2}, "csi must be perfect over awgn, .*, got 'ls'"),
        ("rician-fast", {"csi": "ls", "pilots": 2}, "csi must be perfect where each symbol fades anew, .*, got 'ls'"),
        ("rayleigh", {"block_symbols": 1, "csi": "lmmse", "pilots": 2}, "csi must be perfect where each symbol fades"),
        ("awgn", {"no_offset_db": 31.0}, r"no_offset_db must be in \[-30, 30\], got 31"),
        ("rayleigh", {"no_offset_db": float("nan")}, r"no_offset_db must be in \[-30, 30\], got nan"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(name, options, message):
    with pytest.raises(ArgumentError, match=f"^{message}") as error:
        build_channel(name, **options)
    assert "\n" not in str(error.value)


def test_more_blocks_than_pilots_have_addresses_are_refused():
    with pytest.raises(ArgumentError, match="block_symbols must make at most 262144 blocks"):
        least_squares(np.zeros((1, 2**18 + 1, 2)), 1.0, 1, 0, Draws(0, np.arange(1)))
