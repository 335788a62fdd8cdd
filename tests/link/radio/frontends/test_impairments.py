from fractions import Fraction

import numpy as np
import pytest

from link.radio.frontends import impairments
from link.randomness import Draws, Stream


@pytest.mark.parametrize(
    ("cfo", "drift", "phase"), [(1e-3, 0.0, 0.0), (-0.37, 0.0, 1.0), (0.1, 1e-7, -2.0), (0, -1e-9, 0)]
)
@pytest.mark.parametrize("start", [0, 4090, 10**9, 10**12 + 17])
def test_the_carrier_turns_by_its_formula_however_late(cfo, drift, phase, start):
    f, d = Fraction(cfo), Fraction(drift)
    exact = [float((f * n + d * n * n / 2) % 1) for n in range(start, start + 50)]
    turned = np.exp(1j * impairments.carrier(start, 50, cfo, drift, phase))
    # In a stretch of 4096 samples the frequency, below 1, is rounded (4096 * 2^-53 cycles), as are up to 4096 turns (2^-41)
    # and their radians (2 pi 4096 * 2^-53, below 2^-38).
    np.testing.assert_allclose(turned, np.exp(2j * np.pi * np.array(exact) + 1j * phase), rtol=0, atol=2.0**-37)


def test_random_numbers_go_on_where_the_counter_ends():
    randomness = impairments.Randomness(Draws(3, np.array([5]), 2), 6000)
    edge = 1 << 28
    found = randomness.pairs(Stream.NOISE, edge - 3, 6)
    np.testing.assert_array_equal(found[:3], randomness.pairs(Stream.NOISE, edge - 3, 3))
    np.testing.assert_array_equal(found[3:], randomness.pairs(Stream.NOISE, edge, 3))
    assert not np.isin(found[3:], randomness.pairs(Stream.NOISE, 0, 3)).any()


@pytest.mark.parametrize("stretch", [999, 1000 * 1000])
@pytest.mark.parametrize("point", [-30_000, 60_000])
def test_random_numbers_never_run_out(stretch, point):
    randomness = impairments.Randomness(Draws(3, np.array([5])), point)
    assert np.isfinite(randomness.pairs(Stream.NOISE, stretch << 28, 4)).all()


def test_what_is_sent_beside_the_payload_has_randomness_of_its_own():
    payload, header = (
        impairments.Randomness(Draws(3, np.array([5]), 2, within), 6000) for within in (None, Stream.HEADER)
    )
    drawn = [source.pairs(stream, 0, 100) for source in (payload, header) for stream in (Stream.NOISE, Stream.FADING)]
    assert len({pairs.tobytes() for pairs in drawn}) == 4
