"""The modem: against theory, against its own stages, and however it is split."""

import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link import modem as modem_module
from link import theory
from link.bits import group, ungroup
from link.channel import Awgn, Csi, Fading
from link.constellation import ORDERS, app_llr, bits_per_symbol, map_bits, max_log_llr
from link.errors import ArgumentError
from link.modem import DEMAPPERS, ErrorCounts, Modem, count_wrong, decide, demap, llrs
from link.randomness import Draws, Stream

HOST = ("numba", "numpy")
PILOTS = Fading(4, csi=Csi("lmmse", 2))
# Each order at a bit error rate between 0.2 and 4 %.
SNR_DB = dict(zip(ORDERS, (7.0, 14.0, 20.0, 26.0, 31.0, 36.0), strict=True))


class Silence:
    """A channel of the user's own, which the kernel knows nothing of."""

    name = "silence"

    def __call__(self, x, num_symbols, snr_db, draws):
        return Awgn()(np.zeros_like(x), num_symbols, snr_db, draws)


def standard_error(squares, total, units):
    """Of a mean over independent units, from their sum of squares and their sum."""
    return math.sqrt((squares / units - (total / units) ** 2) / units)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (Awgn(), theory.ber_awgn),
        (Fading(1), theory.ber_rayleigh),
        (Fading(1, 6.0), lambda order, snr_db: theory.ber_rician(order, snr_db, 6.0)),
    ],
    ids=["awgn", "rayleigh-fast", "rician-fast"],
)
def test_the_bit_error_rate_is_theorys_where_symbols_are_independent(channel, expected, order):
    width, symbols = bits_per_symbol(order), 256 * 1024
    counts = Modem(order, channel, frame_symbols=1024, engine="numba").count(SNR_DB[order], 0, 256)
    error = standard_error(counts.symbol_squares, counts.bit_errors, symbols) / width
    assert abs(counts.bit_errors / (symbols * width) - float(expected(order, SNR_DB[order]))) < 4.0 * error


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (Fading(), theory.ber_rayleigh),
        (Fading(8), theory.ber_rayleigh),
        (Fading(0, 6.0), lambda order, snr_db: theory.ber_rician(order, snr_db, 6.0)),
    ],
    ids=["rayleigh", "rayleigh blocks", "rician"],
)
def test_the_bit_error_rate_is_theorys_where_frames_are_independent(channel, expected, order):
    width, frames = bits_per_symbol(order), 10_000
    counts = Modem(order, channel, frame_symbols=32, engine="numba").count(SNR_DB[order], 0, frames)
    error = standard_error(counts.frame_squares, counts.bit_errors, frames) / (32 * width)
    assert abs(counts.bit_errors / (frames * 32 * width) - float(expected(order, SNR_DB[order]))) < 4.0 * error


def test_block_fading_errors_are_clustered_in_frames():
    # Else the frame would be no unit of its own, and the test above could take the symbol.
    counts = Modem(16, Fading(), frame_symbols=32, engine="numba").count(14.0, 0, 2000)
    by_frame = standard_error(counts.frame_squares, counts.bit_errors, 2000) / 32
    by_symbol = standard_error(counts.symbol_squares, counts.bit_errors, 2000 * 32)
    assert by_frame > 3.0 * by_symbol


@pytest.mark.parametrize("engine", [*HOST, "torch"])
@pytest.mark.parametrize("channel", [Awgn(), Fading(5)], ids=["awgn", "rayleigh"])
def test_frames_may_be_split_among_calls(channel, engine):
    modem = Modem(16, channel, frame_symbols=50, seed=3, engine=engine)
    for cut in (0, 3, 10):
        parts = modem.count(10.0, 100, cut), modem.count(10.0, 100 + cut, 10 - cut)
        assert ErrorCounts.total(parts) == modem.count(10.0, 100, 10)


@given(
    st.sampled_from(HOST),
    st.sampled_from(ORDERS),
    st.integers(1, 200),
    st.integers(0, 2**32 - 60),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_any_split_counts_the_same(engine, order, frame_symbols, first, frames, cut):
    modem = Modem(order, Fading(7), frame_symbols=frame_symbols, engine=engine)
    cut = min(cut, frames)
    parts = modem.count(12.0, first, cut), modem.count(12.0, first + cut, frames - cut)
    assert ErrorCounts.total(parts) == modem.count(12.0, first, frames)


@pytest.mark.parametrize("demapper", DEMAPPERS)
@pytest.mark.parametrize("channel", [Awgn(3.0), Fading(5), PILOTS], ids=["awgn", "rayleigh", "pilots"])
def test_the_size_of_a_tile_changes_nothing(channel, demapper, monkeypatch):
    modem = Modem(64, channel, demapper, frame_symbols=30, engine="numpy")
    whole = modem.count(8.0, 0, 40)
    draws = Draws(0, np.arange(40))
    bits = draws.bits(Stream.BITS, 8000, 30 * 6 - 1)
    llr = llrs(bits, 64, channel, 8.0, draws, demapper)
    for symbols in (1, 7, 64):
        monkeypatch.setattr(modem_module, "_TILE_SYMBOLS", symbols)
        assert modem.count(8.0, 0, 40) == whole
        np.testing.assert_array_equal(llrs(bits, 64, channel, 8.0, draws, demapper), llr)


@pytest.mark.parametrize("engine", HOST)
@pytest.mark.parametrize("channel", [Awgn, Fading], ids=["awgn", "rayleigh"])
def test_a_wrong_noise_variance_changes_no_decision_of_max_log(channel, engine):
    counts = {
        Modem(64, channel(no_offset_db=offset), frame_symbols=100, engine=engine).count(15.0, 0, 60)
        for offset in (-30.0, 0.0, 12.5, 30.0)
    }
    assert len(counts) == 1


@pytest.mark.parametrize("demapper", DEMAPPERS)
@pytest.mark.parametrize("order", ORDERS)
def test_the_array_path_is_the_projects_own_stages(order, demapper):
    width, frames = bits_per_symbol(order), np.arange(4, 10)
    draws = Draws(8, frames)
    bits = draws.bits(Stream.BITS, 9000, 21 * width)
    received = PILOTS(map_bits(group(bits.astype(np.float32), width)), np.full(6, 21), 9.0, draws)
    llr = {"max-log": max_log_llr, "app": app_llr}[demapper](received.y, received.no, order)
    wrong = (llr > 0.0) != group(bits, width)
    of_symbol, of_frame = wrong.sum(axis=-1), wrong.sum(axis=(-2, -1))
    assert Modem(order, PILOTS, demapper, 21, seed=8).count(9.0, 4, 6) == (
        wrong.sum(),
        (of_symbol > 0).sum(),
        (of_symbol**2).sum(),
        (of_frame > 0).sum(),
        (of_frame**2).sum(),
    )
    np.testing.assert_array_equal(llrs(bits, order, PILOTS, 9.0, draws, demapper), ungroup(llr, 21 * width))


@pytest.mark.parametrize("demapper", DEMAPPERS)
@pytest.mark.parametrize(
    "channel",
    [Awgn(), Awgn(-3.0), Fading(), Fading(1), Fading(5, 3.0), PILOTS],
    ids=["awgn", "told", "rayleigh", "fast", "rician", "pilots"],
)
def test_torch_counts_what_numpy_counts(channel, demapper):
    for order in ORDERS[:5]:
        numpy, torch = (
            Modem(order, channel, demapper, 40, engine=engine).count(SNR_DB[order] - 3.0, 0, 50)
            for engine in ("numpy", "torch")
        )
        assert torch == numpy
        assert numpy.bit_errors > 0


def test_normals_from_numba_change_no_count_of_the_array_path():
    for order in ORDERS[:3]:
        counts = {Modem(order, Awgn(), "app", 64, engine=engine).count(SNR_DB[order] - 3.0, 0, 50) for engine in HOST}
        assert len(counts) == 1


def test_frames_that_are_not_full_are_padded_and_their_padding_is_not_returned():
    bits = Draws(0, np.arange(3)).bits(Stream.BITS, 0, 13)
    draws = Draws(1, np.arange(3))
    padded = np.concatenate([bits, np.zeros((3, 5), dtype=np.uint8)], axis=-1)
    found = llrs(bits, 64, Awgn(), 30.0, draws)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, llrs(padded, 64, Awgn(), 30.0, draws)[:, :13])
    np.testing.assert_array_equal(decide(found), bits)
    assert llrs(bits[:0], 64, Awgn(), 30.0, draws.rows(slice(0))).shape == (0, 13)


@pytest.mark.parametrize("demapper", DEMAPPERS)
@pytest.mark.parametrize("shape", [(100,), (3, 40)])
def test_tiles_are_demapped_as_the_whole_is(shape, demapper):
    generator = np.random.default_rng(0)
    y, no = generator.normal(size=(*shape, 2)).astype(np.float32), generator.uniform(0.1, 1.0, shape).astype(np.float32)
    whole = {"max-log": max_log_llr, "app": app_llr}[demapper](y, no, 256)
    for tile in (1, 16, 99, 1000):
        np.testing.assert_array_equal(demap(y, no, 256, demapper, tile), whole)


@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_demapping_65536_symbols_of_1024_qam_takes_less_than_16_mib(demapper):
    y = np.random.default_rng(0).normal(size=(65_536, 2)).astype(np.float32)
    no = np.full(65_536, 0.1, dtype=np.float32)
    tracemalloc.start()
    try:
        demap(y, no, 1024, demapper)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The LLRs alone are 2.5 MiB.
    assert 65_536 * 10 * 4 <= peak < 16 * 2**20


def test_squares_are_of_the_wrong_bits_of_each_symbol_and_of_each_frame():
    wrong = np.array([[1, 1, 0, 0, 1, 0], [0] * 6, [1, 0, 0, 1, 1, 1]], dtype=bool)
    assert count_wrong(wrong, 2) == ErrorCounts(7, 5, 4 + 1 + 1 + 1 + 4, 2, 9 + 16)
    for counts in (count_wrong(wrong, 2), *(Modem(4, Awgn(), engine=engine).count(0.0, 0, 2) for engine in HOST)):
        assert all(type(count) is int for count in counts)
    assert ErrorCounts.total([]) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("channel", "demapper", "fused"),
    [
        (Awgn(), "max-log", True),
        (Fading(3), "max-log", True),
        (Awgn(), "app", False),
        (PILOTS, "max-log", False),
        (Silence(), "max-log", False),
    ],
    ids=["awgn", "fading", "app", "pilots", "foreign"],
)
def test_the_engine_says_what_makes_the_numbers(channel, demapper, fused):
    modem = Modem(16, channel, demapper)
    assert (modem.engine, modem.fused) == ("numba", fused)
    assert not Modem(16, channel, demapper, engine="numpy").fused


def test_a_channel_of_the_users_own_is_what_is_counted():
    # Nothing is sent, so half the bits are wrong: 2560 of 5120, with a standard deviation of 36.
    for engine in ("auto", "numba"):
        counts = Modem(4, Silence(), frame_symbols=256, engine=engine).count(10.0, 0, 10)
        assert abs(counts.bit_errors - 2560) < 4 * 36


@pytest.mark.parametrize("engine", HOST)
def test_seeds_and_points_are_other_noise_and_other_payload(engine):
    counts = {
        Modem(16, Awgn(), frame_symbols=1000, seed=seed, engine=engine).count(snr_db, 0, 10)
        for seed, snr_db in ((0, 10.0), (1, 10.0), (2**32, 10.0), (0, 10.001))
    }
    assert len(counts) == 4


def test_no_frames_hold_no_errors_and_the_last_frame_can_be_sent():
    for engine in (*HOST, "torch"):
        modem = Modem(16, Awgn(), frame_symbols=8, engine=engine)
        assert modem.count(0.0, 7, 0) == (0, 0, 0, 0, 0)
        assert modem.count(0.0, 2**32 - 1, 1).bit_errors > 0


def test_a_modem_goes_to_another_process_as_it_is():
    modem = Modem(16, Fading(3), frame_symbols=20, seed=4)
    again = pickle.loads(pickle.dumps(modem))
    assert again.engine == modem.engine
    assert again.count(10.0, 0, 30) == modem.count(10.0, 0, 30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": 8}, "^order must be one of 4, 16, 64, 256, 1024, 4096, got 8$"),
        ({"demapper": "hard"}, "^demapper must be one of max-log, app, got 'hard'$"),
        ({"frame_symbols": 0}, r"^frame_symbols must be in \[1, 1048576\], got 0$"),
        ({"frame_symbols": 2**20 + 1}, "^frame_symbols must be in"),
        ({"seed": -1}, r"^seed must be in \[0, 2\*\*63\), got -1$"),
        ({"engine": "abacus"}, "^engine must be numpy, numba, torch, cuda or cuda:N, got 'abacus'$"),
        ({"engine": "cuda:99"}, "^engine must be on a device that is there, torch sees .*, got 'cuda:99'$"),
    ],
)
def test_a_field_out_of_its_range_is_refused(fields, message):
    with pytest.raises(ArgumentError, match=message):
        Modem(**{"order": 16, "channel": Awgn(), **fields})


@pytest.mark.parametrize("engine", HOST)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((61.0, 0, 1), r"^snr_db must be in \[-30, 60\], got 61$"),
        ((10.0, -1, 1), r"^first_frame must be in \[0, 2\*\*32\), got -1$"),
        ((10.0, 2**32, 0), r"^first_frame must be in \[0, 2\*\*32\), got 4294967296$"),
        ((10.0, 5, -1), r"^frames must be in \[0, 2\*\*32 - first_frame\], got -1$"),
        ((10.0, 5, 2**32 - 4), r"^frames must be in"),
    ],
)
def test_frames_that_are_not_there_are_refused(arguments, message, engine):
    with pytest.raises(ArgumentError, match=message):
        Modem(16, Awgn(), frame_symbols=8, engine=engine).count(*arguments)
