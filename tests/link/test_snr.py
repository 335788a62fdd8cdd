import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import ArgumentError
from link.snr import (
    NO_MIN,
    SNR_DB_MAX,
    SNR_DB_MIN,
    esn0_db_from_ebn0_db,
    millidecibels,
    no_from_esn0_db,
)

in_range = st.floats(SNR_DB_MIN, SNR_DB_MAX)


@given(in_range)
def test_the_noise_variance_is_one_over_esn0(esn0_db):
    assert -10.0 * math.log10(no_from_esn0_db(esn0_db)) == pytest.approx(esn0_db, abs=1e-9)


def test_the_range_ends_at_the_least_variance_that_a_receiver_is_told():
    assert no_from_esn0_db(SNR_DB_MAX) == pytest.approx(NO_MIN, rel=1e-12)


@pytest.mark.parametrize("esn0_db", [-30.1, 60.001, math.inf, -math.inf, math.nan])
def test_an_snr_out_of_range_is_refused_with_the_range(esn0_db):
    for function in (no_from_esn0_db, millidecibels):
        with pytest.raises(ArgumentError, match=r"snr_db must be in \[-30, 60\], got"):
            function(esn0_db)


def test_a_point_is_its_snr_in_millidecibels():
    # 1000 * 1.001 is 1000.99...: all points, since only some of them round.
    points = range(-30_000, 60_001)
    assert [millidecibels(point / 1000.0) for point in points] == list(points)


def test_ebn0_counts_information_bits():
    # Rate 1/2 over 16-QAM: two information bits a symbol, 3.01 dB.
    assert esn0_db_from_ebn0_db(1.0, 4, 0.5) == pytest.approx(1.0 + 10.0 * math.log10(2.0))


@pytest.mark.parametrize(("bits_per_symbol", "code_rate"), [(0, 1.0), (4, 0.0), (4, 1.5)])
def test_a_code_rate_outside_of_its_range_is_refused(bits_per_symbol, code_rate):
    with pytest.raises(ArgumentError, match="code_rate"):
        esn0_db_from_ebn0_db(0.0, bits_per_symbol, code_rate)
