import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import ArgumentError, RadioError
from link.radio.frontends import frontend_spec, impairments
from link.radio.frontends.impaired import HOLDS
from link.randomness import Draws, Stream

SINGLE = 2.0**-24
"""Largest relative error of a number rounded to float32."""


def signal(count, seed=1):
    """QPSK of unit energy, without a pulse: all frequencies alike."""
    bits = Draws(seed, np.array([0])).bits(Stream.BITS, 0, 2 * count).reshape(-1, 2) * 2.0 - 1.0
    return (bits @ np.array([1.0, 1.0j]) / math.sqrt(2.0)).astype(np.complex64)


def drained(link, most=1 << 20):
    blocks = []
    while len((block := link.recv(most, 0.0)).samples):
        blocks.append(block)
    return blocks


def through(sent, most=1 << 20, **options):
    """What is received of a stream sent at once."""
    with frontend_spec("impaired", options).build() as link:
        assert link.send(sent, 0.0) == len(sent)
        return np.concatenate([block.samples for block in drained(link, most)])


def tone(frequency, instants):
    return np.exp(2j * np.pi * frequency * np.asarray(instants))


def decibels(ratio):
    return 10.0 * np.log10(ratio)


def bin_power(samples, cycles):
    """Power of a tone of so many cycles in the whole."""
    return abs(np.vdot(tone(cycles / len(samples), np.arange(len(samples))), samples) / len(samples)) ** 2


def test_a_link_without_options_changes_nothing():
    sent = signal(20_000)
    np.testing.assert_array_equal(through(sent), sent)


def test_taps_convolve():
    sent, taps = signal(20_000), [0.9, 0, 0, "0.3j", [0.0, -0.1], 0, -0.2]
    wanted = np.convolve(sent.astype(complex), [0.9, 0, 0, 0.3j, -0.1j, 0, -0.2])[: len(sent)]
    # Both sum in double precision; the result is rounded once, in I and in Q.
    np.testing.assert_allclose(through(sent, taps=taps), wanted, rtol=0, atol=2 * SINGLE * np.abs(wanted).max())


def test_a_carrier_offset_turns_the_samples():
    sent, n = signal(20_000), np.arange(20_000)
    wanted = sent * np.exp(2j * np.pi * (1e-3 * n + 1e-9 * n**2 / 2) + 0.5j)
    np.testing.assert_allclose(through(sent, cfo=1e-3, cfo_drift=1e-9, phase=0.5), wanted, rtol=0, atol=4 * SINGLE)


def test_noise_has_the_variance_of_the_snr_and_is_white_and_circular():
    count, snr_db = 1 << 18, 7.0
    noise = through(np.zeros(count, np.complex64), snr_db=snr_db) / math.sqrt(10 ** (-snr_db / 10))
    # Of n |z|^2 ~ Exp(1) the mean is 1 +- 1/sqrt(n); correlations of n terms have |r|^2 n ~ Exp(1), so that one of
    # these figures is beyond its bound at one in 10^9 addresses.
    assert abs(np.mean(np.abs(noise) ** 2) - 1) < 6 / math.sqrt(count)
    bound = math.log(1e9 * 34) / count
    for lag in range(1, 33):
        assert abs(np.mean(noise[lag:] * noise[:-lag].conj())) ** 2 < 1.01 * bound
    assert abs(np.mean(noise)) ** 2 < bound
    assert abs(np.mean(noise**2)) ** 2 < 2 * bound


def test_noise_does_not_depend_on_what_is_sent():
    sent = signal(5000)
    silent = through(np.zeros(5000, np.complex64), snr_db=10)
    np.testing.assert_allclose(through(sent, snr_db=10) - sent, silent, rtol=0, atol=8 * SINGLE)


@pytest.mark.parametrize("ppm", [-500, -100, 0, 20, 100, 500])
@pytest.mark.parametrize("frequency", [-0.35, -0.1, 0.02, 0.25, 0.35])
def test_another_clock_takes_a_tone_at_its_own_instants(ppm, frequency):
    count, delay = 30_000, 0.3
    found = through(tone(frequency, np.arange(count)).astype(np.complex64), clock_ppm=ppm, delay_samples=delay)
    instants = np.arange(len(found)) / (1 + ppm * 1e-6) - delay
    # An output for each instant whose 13 successors are there, give or take the rounding of these instants.
    assert abs((count - 13 + delay) * (1 + ppm * 1e-6) - len(found)) <= 1
    settled = instants >= impairments.TAPS
    error = np.abs(found - tone(frequency, instants))[settled]
    # The design of the window says 100 dB, of power; the samples' own rounding is at -140 dB.
    assert decibels(np.mean(error**2)) < -95
    assert 2 * decibels(error.max()) < -90


def test_a_whole_delay_moves_the_samples_untouched():
    sent = signal(9000)
    np.testing.assert_array_equal(through(sent, delay_samples=5), np.concatenate([np.zeros(5), sent]))


def test_a_fractional_delay_next_to_a_whole_one_is_next_to_it():
    sent = signal(9000)
    found = through(sent, delay_samples=5 + 2.0**-40)
    np.testing.assert_allclose(found[5 : 5 + 8000], sent[:8000], rtol=0, atol=4 * SINGLE)


@pytest.mark.parametrize(("gain_db", "phase_deg"), [(1.0, 0.0), (0.0, 3.0), (-0.5, -2.0)])
@pytest.mark.parametrize("side", ["tx_iq", "iq"])
def test_the_image_of_a_tone_stands_where_the_formula_has_it(side, gain_db, phase_deg):
    sent = tone(100 / 4096, np.arange(4096)).astype(np.complex64)
    found = through(sent, **{f"{side}_gain_db": gain_db, f"{side}_phase_deg": phase_deg})
    g, cosine = 10 ** (gain_db / 20), math.cos(math.radians(phase_deg))
    signal_power, image = ((1 + g * g + sign * 2 * g * cosine) / 4 for sign in (1, -1))
    # 4096 roundings to float32 on either end average out; they reach at most 2^-23 of the signal's amplitude.
    assert bin_power(found, 100) == pytest.approx(signal_power, rel=1e-6)
    assert bin_power(found, -100) == pytest.approx(image, abs=2 * math.sqrt(image) * 2**-23 + 2**-46)


def test_the_sender_s_imbalance_is_its_own_and_not_the_receiver_s():
    sent = np.array([1, 1j], np.complex64)
    error = np.exp(1j * math.radians(3))
    np.testing.assert_allclose(through(sent, tx_iq_phase_deg=3), [1, 1j * error], atol=2 * SINGLE)
    np.testing.assert_allclose(through(sent, iq_phase_deg=3), [1 - 1j * error.imag, 1j * error.real], atol=2 * SINGLE)


def test_dc_is_added_at_the_receiver_and_the_sender_s_goes_through_the_taps():
    silence = np.zeros(100, np.complex64)
    np.testing.assert_allclose(through(silence, dc=[0.1, -0.2], gain_db=20), np.full(100, 1 - 2j), atol=4 * SINGLE)
    found = through(silence, tx_dc="1+1j", taps=[1, 0.5], cfo=0.25)
    np.testing.assert_allclose(found[1:], 1.5 * (1 + 1j) * 1j ** np.arange(1, 100), atol=4 * SINGLE)


def test_a_converter_rounds_to_its_steps_and_clips():
    ramp = np.linspace(-3, 3, 6001)
    found = through((ramp - 1j * ramp).astype(np.complex64), bits=4, full_scale=2.0)
    levels = np.arange(-8, 8) * 0.25
    for part, truth in ((found.real, ramp), (found.imag, -ramp)):
        assert set(part) == set(levels)
        inside = (truth >= -2) & (truth <= 1.75)
        assert np.abs(part - truth)[inside].max() <= 0.125 + 3 * SINGLE
        assert (part[truth > 1.875 + 1e-6] == 1.75).all()
        assert (part[truth < -2] == -2).all()


def test_phase_noise_wanders_by_its_variance_a_sample():
    count, rad2 = 50_000, 1e-4
    found = through(np.ones(count, np.complex64), phase_noise=rad2)
    np.testing.assert_allclose(np.abs(found), 1, atol=4 * SINGLE)
    steps = np.diff(np.unwrap(np.angle(found)))
    # A variance of n normals is off by sqrt(2 / n) of itself, their correlation by 1 / sqrt(n).
    assert np.mean(steps**2) == pytest.approx(rad2, rel=6 * math.sqrt(2 / count))
    assert abs(np.mean(steps[1:] * steps[:-1])) < 6 * rad2 / math.sqrt(count)


def test_effects_come_in_the_order_that_the_module_draws():
    sent, n = signal(6000), np.arange(6000)
    noise = through(np.zeros(6000, np.complex64), snr_db=12).astype(complex)
    turned = np.exp(1j * math.radians(4)) * 10 ** (0.5 / 20)
    x = sent.real + 1j * turned * sent.imag + (0.02 + 0.01j)
    x = np.concatenate([np.zeros(3), np.convolve(x, [1, 0.4j])])[:6000]
    x = x * np.exp(2j * np.pi * 0.01 * n) + noise
    x = x.real + 1j * 10 ** (-0.3 / 20) * (x.imag * math.cos(0.05) - x.real * math.sin(0.05)) - 0.03j
    x = x * 10 ** (3 / 20)
    options = {
        **{"tx_iq_gain_db": 0.5, "tx_iq_phase_deg": 4, "tx_dc": "0.02+0.01j", "taps": [1, "0.4j"], "delay_samples": 3},
        **{
            "cfo": 0.01,
            "snr_db": 12,
            "iq_gain_db": -0.3,
            "iq_phase_deg": math.degrees(0.05),
            "dc": "-0.03j",
            "gain_db": 3,
        },
    }
    tolerance = 8 * SINGLE * np.abs(x).max()
    np.testing.assert_allclose(through(sent, **options)[:6000], x, rtol=0, atol=tolerance)
    rounded = through(sent, **options, bits=8, full_scale=4)[:6000]
    assert np.abs(rounded - x).max() <= math.sqrt(2) * 4 / 256 + tolerance


@pytest.mark.parametrize("counted", [True, False])
def test_gaps_lose_samples_and_the_block_behind_says_so(counted):
    sent = np.arange(1000).astype(np.complex64)
    options = {"gap_every": 100, "gap_samples": 7, "gap_counted": counted}
    with frontend_spec("impaired", options).build() as link:
        link.send(sent, 0.0)
        blocks = drained(link, 64)
    at = 0
    for block in blocks:
        new = at % 107 == 100
        assert block.lost == ((7 if counted else None) if new else 0)
        at += 7 if new else 0
        np.testing.assert_array_equal(block.samples, sent[at : at + len(block.samples)])
        at += len(block.samples)
    assert at == 1000
    assert sum(block.lost != 0 for block in blocks) == 9


EVERYTHING = {
    **{"snr_db": 12, "seed": 9, "cfo": 0.013, "cfo_drift": 1e-8, "phase": 0.3, "phase_noise": 1e-5, "clock_ppm": 300},
    **{
        "delay_samples": 2.7,
        "taps": [0.9, 0, "0.3j", -0.2],
        "tx_iq_gain_db": 0.3,
        "tx_iq_phase_deg": 1,
        "tx_dc": "0.01j",
    },
    **{"iq_gain_db": -0.2, "iq_phase_deg": 2, "dc": 0.02, "gain_db": -1, "bits": 14, "full_scale": 4},
}


@given(
    options=st.sampled_from(
        [
            EVERYTHING,
            {**EVERYTHING, "clock_ppm": -300},
            {**EVERYTHING, "clock_ppm": 0, "bits": None},
            {"delay_samples": 9},
        ]
    ),
    gaps=st.sampled_from([{}, {"gap_every": 900, "gap_samples": 250}]),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    mosts=st.lists(st.integers(1, 9000), min_size=1, max_size=4),
    late=st.booleans(),
)
def test_however_the_calls_are_cut_the_same_samples_come(options, gaps, cuts, mosts, late):
    sent = signal(10_000)
    whole = through(sent, **options, **gaps)
    most, got, lost = itertools.cycle(mosts), [], 0
    with frontend_spec("impaired", {**options, **gaps}).build() as link:
        for part in np.split(sent, sorted(cuts)):
            assert link.send(part, 0.0) == len(part)
            block = link.recv(next(most), 0.0) if not late else link.recv(1, 0.0)
            got.append(block)
        while len((block := link.recv(next(most), 0.0)).samples):
            got.append(block)
    lost = sum(block.lost for block in got)
    found = np.concatenate([block.samples for block in got])
    np.testing.assert_array_equal(found, whole)
    assert lost == (len(found) - 1) // 900 * 250 if gaps else lost == 0


def test_an_address_gives_the_same_samples_and_any_other_another_noise():
    sent = signal(300)
    with frontend_spec("impaired", {"snr_db": 3, "seed": 1}).build() as link:
        link.send(sent, 0.0)
        as_opened = np.concatenate([block.samples for block in drained(link)])

        def at(snr_db, draws):
            link.send(sent, 0.0)
            link.at(snr_db, draws)
            link.send(sent, 0.0)
            return np.concatenate([block.samples for block in drained(link)])

        base = at(3, Draws(1, np.array([0, 8])))
        np.testing.assert_array_equal(base, as_opened)
        np.testing.assert_array_equal(at(3, Draws(1, np.array([0]))), base)
        loud = 10 ** (3 / 20)
        noise = (base - sent) * loud
        for other, scale in (
            (at(3, Draws(2, np.array([0]))), loud),
            (at(3, Draws(1, np.array([8]))), loud),
            (at(3, Draws(1, np.array([0]), 1)), loud),
            (at(3.001, Draws(1, np.array([0]))), loud),
        ):
            assert abs(np.mean((other - sent) * scale * noise.conj())) < 6 / math.sqrt(300)


def test_noise_is_not_that_of_the_simulated_channels():
    noise = through(np.zeros(300, np.complex64), snr_db=0)
    pairs = Draws(0, np.array([0])).normals(Stream.NOISE, 0, 300)[0] / math.sqrt(2)
    assert abs(np.mean(noise * (pairs @ np.array([1, -1j])))) < 6 / math.sqrt(300)


def test_a_device_dies_when_told_and_lives_again_once_opened():
    link = frontend_spec("impaired", {"dies_after": 10}).build()
    with link:
        assert link.send(np.ones(6, np.complex64), 0.0) == 6
        assert len(link.recv(9, 0.0).samples) == 6
        assert link.send(np.ones(6, np.complex64), 0.0) == 4
        for call in (
            lambda: link.recv(9, 0.0),
            lambda: link.send(np.ones(1, np.complex64), 0.0),
            lambda: link.at(3, Draws(0, np.array([0]))),
        ):
            with pytest.raises(RadioError, match="the simulated device is gone"):
                call()
    with link:
        assert link.send(np.ones(6, np.complex64), 0.0) == 6


def test_a_closed_link_says_so():
    link = frontend_spec("impaired", {}).build()
    with pytest.raises(RadioError, match="the simulated device is not open"):
        link.recv(1, 0.0)
    with link:
        link.send(np.ones(3, np.complex64), 0.0)
    with link:
        assert len(link.recv(3, 0.0).samples) == 0


def test_a_link_that_is_full_takes_no_more_until_it_is_read():
    much = np.zeros(HOLDS + 100, np.complex64)
    with frontend_spec("impaired", {}).build() as link:
        assert link.send(much, 0.0) == HOLDS
        assert link.send(much, 0.0) == 0
        assert len(link.recv(70, 0.0).samples) == 70
        assert link.send(much, 0.0) == 70


def test_what_is_sent_is_kept_and_not_what_the_caller_writes_there_later():
    sent = np.ones(4, np.complex64)
    with frontend_spec("impaired", {}).build() as link:
        link.send(sent, 0.0)
        sent[:] = 0
        assert (link.recv(4, 0.0).samples == 1).all()


def test_it_says_what_it_can_do():
    able = frontend_spec("impaired", {"sample_rate_hz": 1e6, "bits": 12, "full_scale": 2}).build().capabilities
    assert (able.sets_noise, able.exclusive, able.sample_rate_hz, able.full_scale) == (True, False, 1e6, 2)
    assert frontend_spec("impaired", {"full_scale": 2}).build().capabilities.full_scale is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr_db": 99}, r"impaired\.snr_db must be in \[-30, 60\], got 99"),
        ({"cfo": 0.7}, r"impaired\.cfo must be in \[-0\.5, 0\.5\], got 0\.7"),
        ({"taps": []}, r"impaired\.taps must be 1 to 256 numbers, got 0"),
        ({"taps": ["a"]}, r"impaired\.taps must be made of numbers, pairs \[re, im\] or texts as \"0\.3j\", got 'a'"),
        ({"taps": [[1, 2, 3]]}, r"impaired\.taps must be made of numbers, .*, got \[1, 2, 3\]"),
        ({"dc": "nan"}, r"impaired\.dc must be finite, got 'nan'"),
        ({"taps": [1, 1e200]}, r"impaired\.taps must be at most 1e\+06 in magnitude, got 1e\+200"),
        ({"bits": 1}, r"impaired\.bits must be in \[2, 24\], got 1"),
        ({"gap_every": 5}, r"impaired\.gap_samples must be given with gap_every"),
        ({"gap_samples": 5}, r"impaired\.gap_every must be given with gap_samples"),
        ({"phase_noise": -1}, r"impaired\.phase_noise must be in \[0, 1\], got -1"),
        ({"seed": 2**63}, r"impaired\.seed must be in \[0, .*\], got 9223372036854775808"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(options, message):
    with pytest.raises(ArgumentError, match=rf"^{message}(\.0)?$"):
        frontend_spec("impaired", options)


def test_another_snr_out_of_range_is_refused_and_changes_nothing():
    with frontend_spec("impaired", {}).build() as link:
        with pytest.raises(ArgumentError, match=r"snr_db must be in \[-30, 60\]"):
            link.at(61, Draws(0, np.array([0])))
        link.send(np.ones(3, np.complex64), 0.0)
        assert (link.recv(3, 0.0).samples == 1).all()


def test_the_noise_that_was_set_is_still_there_when_opened_again():
    link = frontend_spec("impaired", {}).build()
    found = []
    for first in (True, False):
        with link:
            if first:
                link.at(0, Draws(4, np.array([2])))
            link.send(np.zeros(9, np.complex64), 0.0)
            found.append(link.recv(9, 0.0).samples)
    assert found[0].all()
    np.testing.assert_array_equal(*found)
