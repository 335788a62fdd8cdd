import numpy as np
import pytest

from link.channel.multipath import Multipath
from link.channel.ofdm import PILOT_SYMBOLS, SYMBOLS, Carrier
from link.errors import ArgumentError


@pytest.mark.parametrize("pilots", PILOT_SYMBOLS)
@pytest.mark.parametrize("blocks", [1, 3, 25, 51])
@pytest.mark.parametrize("num_symbols", [1, 7, 32, 200, 3000])
def test_each_symbol_has_a_data_element_of_its_own(pilots, blocks, num_symbols):
    carrier = Carrier(blocks, 30, pilots)
    symbol, subcarrier = carrier.place(num_symbols)
    slots = carrier.slots(num_symbols)
    assert (slots - 1) * carrier.slot_data < num_symbols <= slots * carrier.slot_data
    assert ((symbol >= 0) & (symbol < SYMBOLS * slots) & (subcarrier >= 0) & (subcarrier < 12 * blocks)).all()
    assert len(set(zip(symbol.tolist(), subcarrier.tolist(), strict=True))) == num_symbols
    on_pilots = np.isin(symbol % SYMBOLS, PILOT_SYMBOLS[pilots]) & (subcarrier % 2 == 0)
    assert not on_pilots.any()
    assert len(carrier.pilots(slots).symbol) == slots * carrier.slot_pilots
    assert slots * (carrier.slot_data + carrier.slot_pilots) == SYMBOLS * slots * 12 * blocks


@pytest.mark.parametrize("pilots", PILOT_SYMBOLS)
@pytest.mark.parametrize("blocks", [25, 51, 106, 275])
def test_a_few_symbols_are_spread_over_the_whole_slot_and_the_whole_carrier(pilots, blocks):
    carrier = Carrier(blocks, 30, pilots)
    symbol, subcarrier = carrier.place(32)
    for place, extent, parts in ((symbol, SYMBOLS, 7), (subcarrier, carrier.subcarriers, 4)):
        held = np.bincount(place * parts // extent, minlength=parts)
        assert 0.5 <= parts * held.min() / 32 <= parts * held.max() / 32 < 1.75


def test_a_slot_of_51_blocks_at_30_khz_is_half_a_millisecond_and_18_megahertz():
    carrier = Carrier(51, 30, 2)
    assert SYMBOLS * carrier.symbol_s == pytest.approx(0.5e-3, rel=1e-15)
    assert carrier.prefix_s == pytest.approx(2.34375e-6, rel=1e-15)  # 144 of 2048 samples of the symbol proper
    frequencies = carrier.frequencies(np.arange(carrier.subcarriers))
    assert (frequencies[0], frequencies[306], frequencies[-1]) == (-9.18e6, 0.0, 9.15e6)


def test_a_sample_pays_for_its_share_of_the_pilots():
    carrier = Carrier(51, 30, 2)
    assert (carrier.slot_pilots, carrier.slot_data) == (612, 7956)
    # 612 / 7956 = 1 / 13.
    assert carrier.share_of_pilots(np.array([0, 1, 13, 14, 7956])).tolist() == [0, 1, 1, 2, 612]
    assert Carrier(51, 30, 0).share_of_pilots(np.array([0, 500])).tolist() == [0, 0]


@pytest.mark.parametrize("pilots", [1, 2, 3, 4])
@pytest.mark.parametrize("blocks", [1, 2, 51])
def test_linear_interpolation_is_exact_where_gains_lie_on_straight_lines(pilots, blocks):
    carrier = Carrier(blocks, 30, pilots)

    def gain(elements):
        in_slot = elements.symbol % SYMBOLS if pilots > 1 else np.zeros(len(elements.symbol))
        return (1.0 + 0.2j * in_slot) * (2.0 - 0.01 * elements.subcarrier) + elements.symbol // SYMBOLS

    elements = carrier.place(3 * carrier.slot_data // 2)
    interpolate = carrier.linear(elements, 0.1)
    np.testing.assert_allclose(interpolate(gain(carrier.pilots(2))[None])[0], gain(elements), rtol=1e-12, atol=1e-12)


def test_linear_interpolation_takes_the_noise_that_comes_through_for_its_error():
    carrier = Carrier(2, 30, 2)
    interpolation = carrier.linear(carrier.place(carrier.slot_data), 0.3)
    noise = np.random.default_rng(0).normal(size=(2, 1000, carrier.slot_pilots)) * np.sqrt(0.15)
    through = interpolation(noise[0] + 1j * noise[1])
    # |CN(0, v)|^2 has mean v and standard deviation v.
    measured = np.mean(np.abs(through) ** 2, axis=0)
    assert (np.abs(measured / interpolation.error_variance - 1.0) < 5.5 / np.sqrt(1000)).all()


def constant(lag, offset):
    return np.ones((len(lag), len(offset)), dtype=np.complex128)


@pytest.mark.parametrize("blocks", [1, 4, 51])
def test_the_wiener_filter_averages_the_window_where_the_gain_is_one_and_the_same(blocks):
    carrier, no = Carrier(blocks, 30, 2), 0.5
    interpolation = carrier.wiener(carrier.place(100), no, constant)
    n = 2 * 6 * min(blocks, 5)
    np.testing.assert_allclose(interpolation.weight, np.full((100, n), 1.0 / (n + no)), rtol=1e-9)
    np.testing.assert_allclose(interpolation.error_variance, np.full(100, no / (n + no)), rtol=1e-9)


@pytest.mark.parametrize("blocks", [1, 51])
def test_each_element_looks_at_the_pilots_of_its_own_slot_around_its_own_block(blocks):
    carrier = Carrier(blocks, 30, 3)
    elements = carrier.place(2 * carrier.slot_data)
    pilots = carrier.pilots(2)
    seen = carrier.linear(elements, 0.1).pilot
    assert (pilots.symbol[seen] // SYMBOLS == elements.symbol[:, None] // SYMBOLS).all()
    first, last = (edge(pilots.subcarrier[seen] // 12, axis=1) for edge in (np.min, np.max))
    block = elements.subcarrier // 12
    inside = (block >= 2) & (block < blocks - 2)
    assert (first[inside] == block[inside] - 2).all()
    assert (last[inside] == block[inside] + 2).all()
    assert (last - first + 1 == min(blocks, 5)).all()
    assert ((first <= block) & (block <= last)).all()


@pytest.mark.parametrize("pilots", [1, 2])
@pytest.mark.parametrize("no", [0.001, 0.1, 1.0])
def test_the_wiener_filter_errs_less_than_straight_lines_at_every_element(pilots, no):
    """Mean squared error of any A: R(0) - 2 Re A R_ph + A (R_pp + no I) A^H, with R of the true gains."""
    carrier = Carrier(6, 30, pilots)
    covariance = Multipath("tdl-c", delay_spread_ns=200.0, speed_kmh=120.0).covariance
    elements, at = carrier.place(300), carrier.pilots(1)

    def correlation(a, b):
        lag, offset = a.symbol[:, None] - b.symbol, a.subcarrier[:, None] - b.subcarrier
        table = covariance(np.arange(-13, 14) * carrier.symbol_s, np.arange(-72, 73) * 30e3)
        return table[lag + 13, offset + 72]

    def error(interpolation):
        a = np.zeros((300, len(at.symbol)), dtype=np.complex128)
        np.put_along_axis(a, interpolation.pilot, interpolation.weight, axis=1)
        r_hp, r_pp = correlation(elements, at), correlation(at, at) + no * np.eye(len(at.symbol))
        return 1.0 - 2.0 * np.sum(a * r_hp.conj(), axis=1).real + np.sum((a @ r_pp) * a.conj(), axis=1).real

    wiener, linear = carrier.wiener(elements, no, covariance), carrier.linear(elements, no)
    np.testing.assert_allclose(wiener.error_variance, error(wiener), rtol=1e-6, atol=1e-12)
    assert (error(wiener) < error(linear)).all()
    assert (linear.error_variance < error(linear)).all()  # it knows nothing of how gains bend


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resource_blocks": 0}, r"resource_blocks must be in \[1, 275\], got 0"),
        ({"resource_blocks": 276}, r"resource_blocks must be in \[1, 275\], got 276"),
        ({"spacing_khz": 20}, "spacing_khz must be one of 15, 30, 60, 120, got 20"),
        ({"pilot_symbols": 5}, "pilots must be at most 4 OFDM symbols a slot, got 5"),
    ],
)
def test_a_carrier_that_5g_does_not_have_is_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        Carrier(**options)
