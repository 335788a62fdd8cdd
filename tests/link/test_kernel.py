"""The fused kernel against the stages that it writes anew, one by one and together."""

import itertools
import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from pathlib import Path

import numba.core.caching
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import link
from link import kernel
from link.bits import label_bits, labels_from_bits
from link.box_muller import _minus_log, normal_pair, normals, philox_block
from link.channel import Awgn, Fading
from link.compiled import compiled
from link.constellation import ORDERS, bits_per_symbol, map_bits, max_log_llr, unit_amplitude
from link.kernel import count_errors
from link.modem import Modem
from link.randomness import SEED_MAX, Draws, Stream, philox4x32

ROOT = Path(link.__file__).parent.parent
ALL_ONES = 0xFFFFFFFF
# kat_vectors of Random123 (Salmon and others), philox4x32 10.
GOLDEN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL_ONES,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0_A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# Where each order makes errors, but not in every symbol.
SNR_DB = dict(zip(ORDERS, (7.0, 12.0, 18.0, 24.0, 30.0, 36.0), strict=True))
CHANNELS = {
    "awgn": Awgn(),
    "rayleigh": Fading(),
    "rayleigh-fast": Fading(1),
    "rayleigh blocks": Fading(5),
    "rician": Fading(0, 6.0),
    "rician-fast": Fading(1, -3.0),
}
# Shorter than a tile, no divisor of one, just one, more than one, and not a multiple.
FRAME_SYMBOLS = (1, 3, 64, 1000, kernel.TILE_SYMBOLS, kernel.TILE_SYMBOLS + 1, 2500)

words = st.integers(0, ALL_ONES)
seeds = st.integers(0, SEED_MAX)


@pytest.mark.parametrize(("counter", "key", "expected"), GOLDEN)
def test_philox_gives_the_published_vectors(counter, key, expected):
    signed = key - 2**64 if key >= 2**63 else key
    assert philox_block(*counter, signed) == expected


@given(st.tuples(words, words, words, words), seeds)
def test_philox_is_that_of_link_randomness(counter, seed):
    expected = philox4x32(tuple(np.array([word]) for word in counter), seed)
    assert philox_block(*counter, seed) == tuple(int(word[0]) for word in expected)


def test_the_logarithm_is_right_to_one_ulp():
    generator = np.random.default_rng(0)
    numerators = np.concatenate(
        [
            generator.integers(1, 2**53, 1000),
            2**53 - (2.0 ** generator.uniform(0, 53, 1000)).astype(np.int64),
            (2.0 ** generator.uniform(0, 53, 1000)).astype(np.int64),
            [1, 2**53 - 1, math.floor(2**53 * math.sqrt(0.5)), math.ceil(2**53 * math.sqrt(0.5))],
        ]
    )
    with localcontext() as context:
        context.prec = 40
        for numerator in numerators:
            x = int(numerator) / 2**53
            true = -Decimal(x).ln()
            assert abs(Decimal(_minus_log(x)) - true) < Decimal(math.ulp(float(true)))
    assert _minus_log(1.0) == 0.0


@given(
    seeds, st.sampled_from(list(Stream)), st.integers(-30_000, 60_000), st.lists(words, min_size=1, max_size=4), words
)
def test_normals_are_those_of_numpy_to_a_few_ulp_of_their_radius(seed, stream, point, samples, draw):
    for within, start in ((None, 0), (Stream.HEADER, 77)):
        numpy, numba = (
            Draws(seed, np.array(samples), draw, within, engine).normals(stream, point, 37, start)
            for engine in ("numpy", "numba")
        )
        radius = np.hypot(numpy[..., 0], numpy[..., 1])[..., None]
        assert numba.dtype == np.float64
        assert (np.abs(numba - numpy) <= 7.0 * 2.0**-52 * radius).all()


def test_float32_normals_are_those_of_float64_rounded():
    samples, draws = np.arange(5), np.arange(5)[::-1]
    double, single = (normals(9, samples, draws, 3, 1 << 28, 101, dtype) for dtype in (np.float64, np.float32))
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_the_tails_of_normals_reach_8_57_sigma():
    # The largest 53-bit uniform: a radius of sqrt(2 * 53 * ln 2).
    reach = math.sqrt(106.0 * math.log(2.0))
    assert reach > 8.57
    assert normal_pair(ALL_ONES, ALL_ONES, 0, 0) == (pytest.approx(reach, rel=1e-15), 0.0)
    # One step lower the radius is less: the last of 53 bits counts.
    assert normal_pair(ALL_ONES, ALL_ONES - (1 << 11), 0, 0)[0] == pytest.approx(
        math.sqrt(104.0 * math.log(2.0)), rel=1e-15
    )
    assert normal_pair(0, 0, 123, 456) == (0.0, 0.0)


def test_angles_at_multiples_of_an_eighth_turn_are_exact():
    radius = normal_pair(1 << 31, 0, 0, 0)[0]
    diagonal = radius * math.sqrt(0.5)
    for eighth in range(8):
        found = normal_pair(1 << 31, 0, eighth << 29, 0)
        expected = [round(math.cos(eighth * math.pi / 4.0), 6), round(math.sin(eighth * math.pi / 4.0), 6)]
        for number, direction in zip(found, expected, strict=True):
            if abs(direction) in (0.0, 1.0):
                assert number == direction * radius
            else:
                assert number == pytest.approx(math.copysign(diagonal, direction), rel=3e-16)


@pytest.mark.parametrize("order", ORDERS)
def test_labels_are_every_other_bit_and_amplitudes_those_of_the_mapper(order):
    width, qam = bits_per_symbol(order), kernel._qam(order)
    bits = label_bits(np.arange(order), width)
    expected = map_bits(bits[:, None, :].astype(np.float32))[:, 0]
    for symbol in range(order):
        inverted = symbol ^ (order - 1)
        labels = kernel._every_other(inverted >> 1), kernel._every_other(inverted)
        assert labels == tuple(int(labels_from_bits(1 - bits[symbol, first::2])) for first in (0, 1))
        assert [kernel._amplitude(np.int32(label), qam) for label in labels] == expected[symbol].tolist()


def around(values, ulps):
    """Each float32 and its neighbours, so many on either side."""
    values = values.astype(np.float32)
    below, above = [values], [values]
    for _ in range(ulps):
        below.append(np.nextafter(below[-1], np.float32(-np.inf)))
        above.append(np.nextafter(above[-1], np.float32(np.inf)))
    return np.unique(np.concatenate(below + above))


@pytest.mark.parametrize("order", ORDERS)
def test_decisions_are_the_signs_of_max_log_llrs_whatever_the_noise_variance_is_told(order):
    side, d = math.isqrt(order), unit_amplitude(order)
    generator = np.random.default_rng(order)
    thresholds = np.arange(-side - 2, side + 3) * d
    y = np.concatenate(
        [around(thresholds, 6), generator.normal(size=2000), generator.normal(size=200) * 1e3, [1e10, -1e10, 0.0, -0.0]]
    ).astype(np.float32)
    sent = np.zeros(len(y), dtype=np.int32)
    ties = 0
    for no in (1e-6, 0.37, 1e22):
        llr = max_log_llr(np.stack([y, y], axis=-1), np.full(len(y), no, dtype=np.float32), order)[:, 0::2]
        decided = labels_from_bits(llr > 0.0)
        ties += int((llr == 0.0).any(axis=-1).sum())
        for label in range(side):
            wrong = np.zeros(len(y), dtype=np.int32)
            # Labels are held inverted.
            sent[:] = label ^ (side - 1)
            kernel._decide(y, sent, kernel._qam(order), wrong, len(y))
            expected = [(int(other) ^ label).bit_count() for other in decided]
            np.testing.assert_array_equal(wrong, expected)
    assert ties >= 3  # at least the threshold 0 is met exactly, at each variance


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("order", ORDERS)
def test_counts_are_those_of_the_array_path(order, name):
    channel = CHANNELS[name]
    fading = channel if isinstance(channel, Fading) else None
    for frame_symbols in FRAME_SYMBOLS:
        frames = max(2, 3000 // frame_symbols)
        twin = Modem(order, channel, frame_symbols=frame_symbols, seed=5, engine="numpy")
        found = count_errors(order, SNR_DB[order], frame_symbols, 11, frames, 5, fading)
        assert found == twin.count(SNR_DB[order], 11, frames)
        assert 0 < found[1] < frame_symbols * frames


@given(
    seeds,
    st.sampled_from(ORDERS),
    st.integers(-30_000, 60_000),
    st.sampled_from(sorted(CHANNELS)),
    st.integers(1, 300),
    st.integers(0, 2**32 - 40),
)
def test_counts_are_those_of_the_array_path_at_any_address(seed, order, point, name, frame_symbols, first_frame):
    channel = CHANNELS[name]
    counts = [
        Modem(order, channel, frame_symbols=frame_symbols, seed=seed, engine=engine).count(
            point / 1000.0, first_frame, 7
        )
        for engine in ("numba", "numpy")
    ]
    assert counts[0] == counts[1]


def test_frames_are_counted_in_any_number_of_calls(monkeypatch):
    whole = count_errors(64, 15.0, 100, 3, 50, 1)
    monkeypatch.setattr(kernel, "CALL_SYMBOLS", 700)
    assert count_errors(64, 15.0, 100, 3, 50, 1) == whole


def test_kernels_find_the_same_numbers_without_this_machines_vectors(tmp_path):
    code = """
import hashlib, numpy as np
from link.box_muller import normals
from link.channel import Fading
from link.kernel import count_errors
samples = np.arange(50)
print(hashlib.sha256(normals(7, samples, samples, 0, 5, 1001).tobytes()).hexdigest())
print(count_errors(64, 20.0, 300, 0, 50, 1), count_errors(256, 24.0, 300, 0, 50, 1, Fading(7, 3.0)))
"""
    plain = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout
        for env in (os.environ, plain)
    ]
    assert found[0] == found[1]


def test_kernels_run_where_no_cache_can_be_written(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])

    def total(count):
        return sum(range(count))

    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(total)
    assert compiled(total)(5) == 10


def test_the_tests_above_send_every_label_and_fill_tiles_with_one_frame_with_several_and_with_parts_of_one():
    draws = Draws(5, np.arange(11, 14))
    for order in ORDERS[:4]:
        bits = draws.bits(Stream.BITS, 12_000, 2500 * bits_per_symbol(order))
        labels = labels_from_bits(bits.reshape(-1, bits_per_symbol(order)))
        assert len(np.unique(labels)) == order
    sizes = [kernel._tile(size, 4, 0, None).rows for size in FRAME_SYMBOLS]
    assert min(sizes) == 1
    assert all(a > b or a == b == 1 for a, b in itertools.pairwise(sizes))
