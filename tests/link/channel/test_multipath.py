import numpy as np
import pytest
import torch

from link.channel import TR38901
from link.channel.fence import addressed, import_sionna
from link.channel.multipath import LONGEST_DELAY, Multipath, _moments
from link.errors import ArgumentError
from link.randomness import Draws, Stream

SIGMAS = 4.5
"""Two-sided chance of 7e-6 that one normal mean is farther out."""

RATE_HZ = 14 / 0.5e-3


def realise(multipath, samples, instants=1, rate_hz=RATE_HZ, seed=5):
    return multipath.realise(instants, rate_hz, 0, Draws(seed, np.arange(samples)))


def assert_mean(of_unit, expected):
    """The mean over independent units, one a row, is what is expected, within SIGMAS standard errors."""
    error = of_unit.std(axis=0, ddof=1) / np.sqrt(len(of_unit))
    assert (np.abs(of_unit.mean(axis=0) - expected) <= SIGMAS * error + 1e-12).all()


@pytest.mark.parametrize("profile", TR38901)
def test_the_table_has_unit_power_the_delay_spread_asked_for_and_the_longest_delay(profile):
    multipath = Multipath(profile, delay_spread_ns=100.0)
    powers, delays, _, _ = _moments(multipath)
    assert powers.sum() == pytest.approx(1.0, abs=1e-12)
    mean = powers @ delays
    spread = np.sqrt(powers @ (delays - mean) ** 2)
    # Tables are normalised with powers of one decimal of a dB and delays of four digits.
    assert spread == pytest.approx(100e-9, rel=0.01)
    assert delays.max() <= multipath.longest_delay_s
    assert delays.max() == pytest.approx(LONGEST_DELAY[profile[-1]] * 100e-9, rel=1e-3)


@pytest.mark.parametrize("profile", TR38901)
def test_gains_have_unit_mean_power(profile):
    gains = realise(Multipath(profile), 600).coefficients.sum(axis=1)[:, 0]
    assert_mean(np.abs(gains) ** 2, 1.0)


@pytest.mark.parametrize("profile", ["tdl-a", "tdl-d", "cdl-c", "cdl-e"])
def test_the_power_of_each_path_is_the_tables(profile):
    multipath = Multipath(profile)
    paths = realise(multipath, 600)
    powers, delays, _, _ = _moments(multipath)
    power = np.abs(paths.coefficients[:, :, 0]) ** 2
    for delay in np.unique(paths.delays):
        assert_mean(power[:, paths.delays == delay].sum(axis=1), powers[np.abs(delays - delay) < 1e-15].sum())


@pytest.mark.parametrize("profile", ["tdl-b", "tdl-e", "cdl-b", "cdl-d"])
def test_gains_correlate_over_time_and_frequency_as_the_covariance_says(profile):
    multipath = Multipath(profile, delay_spread_ns=150.0, speed_kmh=120.0)
    rate_hz = 4.0 * multipath.doppler_hz  # lags of a quarter to one and three quarters of 1 / f_D
    paths = realise(multipath, 800, instants=8, rate_hz=rate_hz)
    offsets = np.array([0.0, 0.3e6, 1.0e6, 4.0e6])
    gains = np.einsum("bpt,pf->btf", paths.coefficients, np.exp(-2j * np.pi * np.outer(paths.delays, offsets)))
    product = gains * gains[:, :1, :1].conj()
    expected = multipath.covariance(np.arange(8) / rate_hz, offsets)
    assert_mean(product.real, expected.real)
    assert_mean(product.imag, expected.imag)
    assert np.abs(expected - 1.0).max() > 0.5  # there is something to tell apart


@pytest.mark.parametrize("letter", "abcde")
def test_the_covariance_of_a_tdl_is_sionnas(letter):
    import_sionna()
    from sionna.phy.ofdm import tdl_freq_cov_mat, tdl_time_cov_mat

    multipath = Multipath(f"tdl-{letter}", speed_kmh=90.0)
    steps = np.arange(14)
    found = multipath.covariance(steps / RATE_HZ, steps * 30e3)
    in_time = tdl_time_cov_mat(letter.upper(), 25.0, 3.5e9, 1.0 / RATE_HZ, 14, precision="double", device="cpu")
    in_frequency = tdl_freq_cov_mat(letter.upper(), 30e3, 14, 100e-9, precision="double", device="cpu")
    np.testing.assert_allclose(found[:, 0], in_time[:, 0].numpy(), atol=1e-9)
    np.testing.assert_allclose(found[0], in_frequency[:, 0].numpy(), atol=1e-9)


@pytest.mark.parametrize("profile", ["tdl-a", "tdl-d", "cdl-a", "cdl-d"])
@pytest.mark.parametrize("instants", [1, 14, 28])
def test_a_row_is_the_same_to_the_last_bit_in_any_batch(profile, instants):
    multipath = Multipath(profile)
    samples, draw = np.array([9, 4, 4, 70_000, 0, 1, 2, 3, 5]), np.array([0, 0, 3, 1, 0, 0, 0, 0, 0])
    together = multipath.realise(instants, RATE_HZ, 6000, Draws(1, samples, draw)).coefficients
    for rows in ([0], [8], [2, 1], [3, 8, 0, 4, 5, 6, 7]):
        alone = multipath.realise(instants, RATE_HZ, 6000, Draws(1, samples[rows], draw[rows])).coefficients
        np.testing.assert_array_equal(alone, together[rows])
    assert len({row.tobytes() for row in together}) == len(samples)


def test_another_seed_point_or_stream_gives_another_realisation():
    multipath = Multipath("tdl-a")
    found = [
        multipath.realise(1, RATE_HZ, point, Draws(seed, np.arange(1), within=within)).coefficients.tobytes()
        for seed, point, within in [(1, 0, None), (2, 0, None), (1, 1, None), (1, 0, Stream.HEADER)]
    ]
    assert len(set(found)) == 4


def test_a_request_without_an_address_is_refused():
    draws = Draws(0, np.arange(3))
    generator = torch.Generator()
    with addressed(draws, Stream.FADING, 0):
        assert torch.rand((3, 5), generator=generator, dtype=torch.float64).shape == (3, 5)
        with pytest.raises(RuntimeError, match="no address"):
            torch.rand((4, 5), generator=generator)
        with pytest.raises(RuntimeError, match="no address"):
            torch.randint(0, 2, (3, 5), generator=generator)


def test_addressed_numbers_are_the_streams_one_after_the_other():
    draws = Draws(0, np.arange(3))
    generator = torch.Generator()
    with addressed(draws, Stream.FADING, 7):
        first = torch.rand((3, 2, 2), generator=generator)
        normal = torch.normal(mean=0.0, std=1.0, size=(3, 5), generator=generator)
        last = torch.rand((3, 2), generator=generator)
    uniforms = draws.uniforms(Stream.FADING, 7, 9)
    np.testing.assert_array_equal(first.reshape(3, 4), uniforms[:, :4])
    np.testing.assert_array_equal(normal, draws.normals(Stream.FADING, 7, 3, start=4).reshape(3, 6)[:, :5])
    np.testing.assert_array_equal(last, uniforms[:, 7:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "tdl-f"}, "profile must be one of tdl-a, .*, cdl-e, got 'tdl-f'"),
        ({"delay_spread_ns": -1.0}, r"delay_spread_ns must be in \[0, 1000\], got -1"),
        ({"speed_kmh": 501.0}, r"speed_kmh must be in \[0, 500\], got 501"),
        ({"carrier_ghz": 0.1}, r"carrier_ghz must be in \[0.5, 100\], got 0.1"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        Multipath(**{"profile": "tdl-a", **options})
