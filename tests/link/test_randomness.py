import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from link import randomness
from link.errors import ArgumentError
from link.randomness import SEED_MAX, Draws, Stream, permutation, philox4x32

ALL_ONES = 0xFFFFFFFF
PI_COUNTER = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
PI_KEY = 0x299F31D0_A4093822
# kat_vectors of Random123 (Salmon and others), philox4x32 10.
GOLDEN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL_ONES,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI_COUNTER, PI_KEY, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]

words = st.integers(0, ALL_ONES)


def reference_philox(counter, key):
    """Philox4x32-10 in Python integers, as the paper's figure has it."""
    c, k = list(counter), [key & ALL_ONES, key >> 32]
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(c[2] * 0xCD9E8D57, 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return tuple(c)


def as_arrays(counter):
    return tuple(np.array([word], dtype=np.int64) for word in counter)


@pytest.mark.parametrize(("counter", "key", "expected"), GOLDEN)
def test_philox_gives_the_published_vectors(counter, key, expected):
    assert tuple(int(word[0]) for word in philox4x32(as_arrays(counter), key)) == expected


@given(st.tuples(words, words, words, words), st.integers(0, 2**64 - 1))
def test_philox_is_the_same_in_wrapping_int64_and_in_exact_integers(counter, key):
    assert tuple(int(word[0]) for word in philox4x32(as_arrays(counter), key)) == reference_philox(counter, key)


def test_philox_is_the_same_in_torch():
    counter = tuple(np.random.default_rng(0).integers(0, 2**32, (4, 10_000)))
    expected = philox4x32(counter, SEED_MAX)
    found = philox4x32(tuple(map(torch.from_numpy, counter)), SEED_MAX)
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), ours)


def test_words_are_philox_of_their_address():
    draws = Draws(seed=2**40 + 5, samples=np.array([17, 4_000_000_000]), draw=np.array([3, 0]))
    found = np.stack(draws.words(Stream.FADING, -1500, 3), axis=-1)
    for row, (sample, draw) in enumerate(((17, 3), (4_000_000_000, 0))):
        for word in range(3):
            address = (word, sample, draw, (2 << 28) | (2**27 - 1500))
            assert tuple(found[row, word]) == reference_philox(address, 2**40 + 5)


def test_streams_keep_their_numbers():
    # They are part of every address: another number would change all results that are on record.
    names = (
        "BITS NOISE FADING PILOTS HEADER TRAINING_NOISE TRAINING_SNR AUGMENTATION SHUFFLE INITIALISATION RESTART SPLIT "
        "ROUTING RARE RADIO"
    )
    assert {name: int(stream) for name, stream in Stream.__members__.items()} == {
        name: number for number, name in enumerate(names.split())
    }
    assert max(Stream) < 2**4


METHODS = {"normals": 6, "uniforms": 6, "bits": 300}


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, SEED_MAX), samples=st.lists(words, min_size=2, max_size=8), cut=st.integers(1, 7))
def test_any_split_of_a_batch_draws_the_same_numbers(method, seed, samples, cut):
    def draw(rows):
        return getattr(Draws(seed, np.array(rows)), method)(Stream.NOISE, 6000, METHODS[method])

    together = draw(samples)
    parts = [draw(part) for part in (samples[:cut], samples[cut:]) if part]
    np.testing.assert_array_equal(np.concatenate(parts), together)
    np.testing.assert_array_equal(draw(samples[::-1]), together[::-1])


@pytest.mark.parametrize("method", METHODS)
def test_asking_for_more_changes_nothing_before(method):
    draws = Draws(1, np.arange(3))
    count = METHODS[method]
    more = getattr(draws, method)(Stream.BITS, 0, count + 131)
    np.testing.assert_array_equal(getattr(draws, method)(Stream.BITS, 0, count), more[:, :count])


def variants():
    """The same question with one part of the address changed at a time."""
    rows = np.arange(200)
    base = {"seed": 1, "samples": rows, "draw": 0, "stream": Stream.NOISE, "point": 6000}
    yield base
    yield from ({**base, "stream": stream} for stream in Stream if stream is not Stream.NOISE)
    yield from ({**base, "point": point} for point in (-30_000, 0, 5999, 6001, 60_000))
    yield from ({**base, "draw": draw} for draw in (1, 2, ALL_ONES))
    yield from ({**base, "seed": seed} for seed in (0, 2, 1 + 2**32, SEED_MAX))
    yield {**base, "samples": rows + 200}


def test_streams_points_draws_seeds_and_samples_are_uncorrelated():
    flat = []
    for variant in variants():
        draws = Draws(variant["seed"], variant["samples"], variant["draw"])
        flat.append(draws.normals(variant["stream"], variant["point"], 50).ravel())
    count = flat[0].size
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    # The largest of 300 correlations, each of deviation 1 / sqrt(count).
    assert np.abs(correlation).max() < 4.5 / np.sqrt(count)


def test_numbers_of_one_sample_are_uncorrelated():
    z = Draws(3, np.arange(20_000)).normals(Stream.NOISE, 0, 4).reshape(20_000, -1)
    correlation = np.corrcoef(z.T) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(20_000)
    energy = np.corrcoef((z * z).T) - np.eye(8)
    assert np.abs(energy).max() < 4.5 / np.sqrt(20_000)


@pytest.fixture(scope="module")
def normals():
    return Draws(11, np.arange(1000)).normals(Stream.NOISE, 10_000, 500)


def test_normals_are_normal(normals):
    z = normals.ravel()
    n = z.size
    # Standard errors of the first four moments of a standard normal: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n.
    for power, (mean, deviation) in enumerate(
        ((0.0, 1.0), (1.0, 2.0**0.5), (0.0, 15.0**0.5), (3.0, 96.0**0.5)), start=1
    ):
        assert abs((z**power).mean() - mean) < 4.0 * deviation / np.sqrt(n)
    assert stats.kstest(z, "norm").pvalue > 1e-3


def test_tails_are_as_heavy_as_they_must_be(normals):
    z = np.abs(normals.ravel())
    for bound in (3.0, 4.0):
        expected = z.size * 2.0 * stats.norm.sf(bound)
        assert stats.poisson.cdf(np.sum(z > bound), expected) > 1e-4
        assert stats.poisson.sf(np.sum(z > bound) - 1, expected) > 1e-4


def test_the_phase_of_a_pair_is_uniform(normals):
    phase = np.arctan2(normals[..., 1], normals[..., 0]).ravel() / (2.0 * np.pi) + 0.5
    assert stats.kstest(phase, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("word", "reach"), [(0, 0.0), (ALL_ONES, np.sqrt(106.0 * np.log(2.0)))])
def test_normals_are_finite_at_both_ends_and_reach_8_57_sigma(word, reach, monkeypatch):
    monkeypatch.setattr(
        randomness, "philox4x32", lambda counter, key: tuple(np.full_like(counter[0], word) for _ in range(4))
    )
    z = Draws(0, np.arange(2)).normals(Stream.NOISE, 0, 3)
    np.testing.assert_allclose(np.hypot(z[..., 0], z[..., 1]), reach, rtol=1e-12)
    assert Draws(0, np.arange(2)).uniforms(Stream.NOISE, 0, 3).max() < 1.0


def test_uniforms_are_uniform():
    u = Draws(5, np.arange(500)).uniforms(Stream.SHUFFLE, 0, 500).ravel()
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_bits_are_fair_and_independent_of_their_neighbours():
    bits = Draws(5, np.arange(400)).bits(Stream.BITS, 0, 1000)
    assert bits.dtype == np.uint8
    signs = 1.0 - 2.0 * bits
    for product in (signs, signs[:, 1:] * signs[:, :-1], signs[:, 32:] * signs[:, :-32], signs[1:] * signs[:-1]):
        assert abs(product.mean()) < 4.0 / np.sqrt(product.size)


def test_bits_are_those_of_the_words_most_significant_first():
    draws = Draws(9, np.array([3]))
    expected = "".join(f"{int(word[0, 0]):032b}" for word in draws.words(Stream.BITS, 0, 1))
    assert "".join(map(str, draws.bits(Stream.BITS, 0, 128)[0])) == expected


def test_a_permutation_is_one_and_depends_on_its_address():
    orders = [permutation(seed, 1000, draw) for seed, draw in itertools.product((0, 1), (0, 1))]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(permutation(0, 1000), orders[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed must be in \[0, 2\*\*63\), got -1"),
        ({"seed": 2**63}, r"seed must be in \[0, 2\*\*63\)"),
        ({"samples": [0, -1]}, r"sample must be in \[0, 2\*\*32\), got \[-1, 0\]"),
        ({"samples": [2**32]}, r"sample must be in \[0, 2\*\*32\)"),
        ({"draw": -5}, r"draw must be in \[0, 2\*\*32\)"),
    ],
)
def test_an_address_out_of_range_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Draws(**{"seed": 0, "samples": [0], **arguments})


@pytest.mark.parametrize("point", [-(2**27) - 1, 2**27])
def test_a_point_that_would_reach_into_another_stream_is_refused(point):
    with pytest.raises(ArgumentError, match=r"point must be in \[-2\*\*27, 2\*\*27\)"):
        Draws(0, np.arange(1)).normals(Stream.NOISE, point, 1)


def test_what_is_taken_within_another_stream_is_a_stream_of_its_own_for_each_purpose():
    samples = np.arange(50)
    plain, within = Draws(3, samples), Draws(3, samples, within=Stream.HEADER)
    blocks = [
        draws.words(stream, 6000, 4)[0]
        for draws in (plain, within)
        for stream in (Stream.NOISE, Stream.FADING, Stream.PILOTS, Stream.HEADER)
    ]
    # 1600 words of 32 bits: two alike by chance with probability 3e-4, for this seed not.
    assert len(np.unique(blocks)) == np.size(blocks)


def test_words_within_a_stream_are_addressed_by_their_purpose_in_the_upper_four_bits():
    words = Draws(9, np.array([5]), 2, Stream.HEADER).words(Stream.FADING, -500, 3)
    counter = [np.array([int(Stream.FADING) << 28 | i for i in range(3)]), *(np.full(3, n) for n in (5, 2))]
    expected = philox4x32((*counter, np.full(3, (int(Stream.HEADER) << 28) + 2**27 - 500)), 9)
    np.testing.assert_array_equal(np.concatenate(words), np.stack(expected))


def test_more_numbers_than_a_purpose_has_are_refused():
    with pytest.raises(ArgumentError, match=r"^count must be in \[0, 2\*\*28\]"):
        Draws(0, np.arange(0)).words(Stream.NOISE, 0, 2**28 + 1)


@pytest.mark.parametrize("within", [None, Stream.HEADER])
def test_numbers_from_a_later_start_are_those_of_the_whole(within):
    draws = Draws(3, np.arange(4), 1, within)
    whole = draws.normals(Stream.PILOTS, 6000, 9)
    np.testing.assert_array_equal(draws.normals(Stream.PILOTS, 6000, 4, start=5), whole[:, 5:])
    for start, count in ((2**28, 1), (-1, 1)):
        with pytest.raises(
            ArgumentError, match=rf"^count must be in \[0, 2\*\*28\], behind the first {start}, got {count}"
        ):
            draws.words(Stream.PILOTS, 0, count, start)
