import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from link.constellation import ORDERS, points, unit_amplitude
from link.radio.modem import convolutional
from link.radio.modem.frame import (
    CRC_SYMBOLS,
    MODES,
    PILOT,
    VERSION,
    FrameSpec,
    Header,
    add_repeats,
    assemble,
    decide,
    layout,
    mode_of,
    nearest_points,
    payload_crc,
    preamble,
    quarter_turns,
    read_headers,
    turns,
    write_header,
)

headers = st.builds(
    Header, st.integers(0, 15), st.integers(0, 15), st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)
)


@st.composite
def specs(draw):
    length = 6 * draw(st.integers(5, 30)) + 3
    root = draw(st.sampled_from([u for u in range(1, length) if math.gcd(u, length) == 1]))
    return FrameSpec(
        zc_length=length,
        zc_root=root,
        preamble_repeats=draw(st.integers(2, 8)),
        header_repeats=draw(st.integers(1, 8)),
        pilot_spacing=draw(st.integers(4, 64)),
        payload_symbols=draw(st.integers(16, 8192)),
        guard_symbols=draw(st.integers(8, 256)),
    )


def qam(order, count, seed=0):
    pairs = points(order)[np.random.default_rng(seed).integers(order, size=count)]
    return pairs[:, 0] + 1j * pairs[:, 1]


def bits_of(number, width):
    return [int(digit) for digit in format(number, f"0{width}b")]


def crc16(bits):
    """CRC-16-CCITT by long division: x^16 + x^12 + x^5 + 1, from all ones on."""
    register = 0xFFFF
    for bit in bits:
        register = (register << 1 ^ (0x1021 if (register >> 15) ^ bit else 0)) & 0xFFFF
    return register


def header_llr(symbols):
    """LLRs of QPSK bits as they stand: I carries even bits, Q odd ones, and a one is negative."""
    return -np.stack([symbols.real, symbols.imag], axis=-1)


@pytest.mark.parametrize("length", [33, 63, 105])
def test_a_zadoff_chu_sequence_is_of_amplitude_one_and_unlike_itself_moved(length):
    for root in (u for u in range(1, length) if math.gcd(u, length) == 1):
        sequence = preamble(FrameSpec(zc_length=length, zc_root=root))[:length]
        np.testing.assert_allclose(np.abs(sequence), 1, rtol=0, atol=1e-14)
        correlation = np.fft.ifft(np.abs(np.fft.fft(sequence)) ** 2) / length
        np.testing.assert_allclose(correlation, np.arange(length) == 0, rtol=0, atol=1e-11)


def test_the_preamble_is_one_sequence_again_and_again():
    found = preamble(FrameSpec(preamble_repeats=4))
    assert found.shape == (4 * 63,)
    assert (found.reshape(4, 63) == found[:63]).all()


@given(specs(), st.integers(0, 8192))
def test_the_layout_gives_each_place_to_one_thing(spec, length):
    length = min(length, spec.payload_symbols)
    places = layout(spec, length)
    assert (len(places.header), len(places.payload), len(places.crc)) == (spec.header_symbols, length, CRC_SYMBOLS)
    together = np.concatenate(places)
    assert np.array_equal(np.sort(together), np.arange(spec.body_symbols(length)))
    assert np.array_equal(
        np.concatenate([places.header, places.payload, places.crc]), np.sort(together[len(places.pilots) :])
    )
    assert places.pilots[0] == 0
    assert places.pilots[-1] == len(together) - 1
    assert np.array_equal(places.pilots[:-1], np.arange(len(places.pilots) - 1) * spec.pilot_spacing)
    assert np.diff(places.pilots)[-1] <= spec.pilot_spacing


@given(specs(), st.integers(1, 600), st.sampled_from(MODES[1:]))
def test_a_frame_is_assembled_as_its_layout_says(spec, length, order):
    length = min(length, spec.payload_symbols)
    payload, header = qam(order, length), Header(VERSION, MODES.index(order), 513, length)
    found = assemble(payload, header, spec)
    assert len(found) == spec.frame_symbols(length)
    guard, ahead = spec.guard_symbols, spec.guard_symbols + spec.preamble_symbols
    assert not found[:guard].any()
    assert np.array_equal(found[guard:ahead], preamble(spec))
    body, places = found[ahead:] / turns(spec, len(found) - ahead), layout(spec, length)
    for place, wanted in (
        (places.pilots, PILOT),
        (places.header, write_header(header, spec)),
        (places.payload, payload),
        (places.crc, payload_crc(payload, header.mode)),
    ):
        np.testing.assert_allclose(body[place], np.broadcast_to(wanted, len(place)), rtol=0, atol=1e-15)


def test_quarter_turns_make_whatever_is_sent_white_of_zero_mean_and_circular():
    count = 1 << 13
    found = quarter_turns(count)
    assert set(found.tolist()) == {1, 1j, -1, -1j}
    # Of n independent turns these sums have mean square n: |sum|^2 / n is beyond 25 in one of 10^11 such sequences.
    assert abs(found.sum()) ** 2 < 25 * count
    assert abs((found**2).sum()) ** 2 < 25 * count
    for lag in range(1, 65):
        assert abs(np.vdot(found[lag:], found[:-lag])) ** 2 < 25 * count
    assert np.array_equal(turns(FrameSpec(), 100), found[:100]), "a shorter frame begins as a longer one does"


@given(headers)
def test_a_header_is_written_bit_by_bit_as_it_is_described(header):
    spec = FrameSpec(header_repeats=3)
    bits = (
        bits_of(header.version, 4) + bits_of(header.mode, 4) + bits_of(header.sequence, 16) + bits_of(header.length, 16)
    )
    bits += bits_of(crc16(bits), 16)
    coded = convolutional.encode(np.array(bits, dtype=np.uint8)).reshape(-1, 2)
    wanted = ((1 - 2.0 * coded[:, 0]) + 1j * (1 - 2.0 * coded[:, 1])) / math.sqrt(2)
    found = write_header(header, spec)
    assert len(found) == spec.header_symbols == 3 * (40 + 16 + 6)
    np.testing.assert_allclose(found.reshape(3, -1), np.broadcast_to(wanted, (3, 62)), rtol=0, atol=1e-15)


@given(st.lists(headers, min_size=1, max_size=4), st.integers(1, 8))
def test_any_header_is_read_as_it_was_written(several, repeats):
    spec = FrameSpec(header_repeats=repeats)
    llr = np.stack([add_repeats(header_llr(write_header(header, spec)), spec) for header in several])
    assert read_headers(llr) == several


@given(headers, st.integers(1, 2**56 - 1))
def test_a_word_of_a_wrong_checksum_is_no_header(header, change):
    bits = (
        bits_of(header.version, 4) + bits_of(header.mode, 4) + bits_of(header.sequence, 16) + bits_of(header.length, 16)
    )
    word = np.array(bits + bits_of(crc16(bits), 16)) ^ np.array(bits_of(change, 56))
    wrong = crc16(word[:40].tolist()) != int("".join(map(str, word[40:])), 2)
    (found,) = read_headers(2.0 * convolutional.encode(word.astype(np.uint8))[None] - 1.0)
    assert (found is None) == wrong


@pytest.mark.parametrize("width", [1, 2, 16])
def test_one_wrong_bit_or_two_no_further_apart_than_the_checksum_are_always_seen(width):
    header = Header(1, 3, 0xBEEF, 1024)
    bits = (
        bits_of(header.version, 4) + bits_of(header.mode, 4) + bits_of(header.sequence, 16) + bits_of(header.length, 16)
    )
    word = np.array(bits + bits_of(crc16(bits), 16), dtype=np.uint8)
    for first in range(56 - width + 1):
        broken = word.copy()
        broken[[first, first + width - 1]] ^= 1  # one bit where both are the same
        assert read_headers(2.0 * convolutional.encode(broken)[None] - 1.0) == [None]


def test_repeats_of_a_header_are_added_up():
    spec = FrameSpec(header_repeats=4)
    llr = np.random.default_rng(1).normal(size=(2, spec.header_symbols, 2))
    wanted = llr.reshape(2, 4, 124).sum(axis=1)
    np.testing.assert_allclose(add_repeats(llr, spec), wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", ORDERS)
def test_the_mode_is_that_of_the_constellation_and_of_no_other(order):
    for point in qam(order, 50):
        assert MODES[mode_of(np.array([point]))] == order
    payload = qam(order, 200)
    assert MODES[mode_of(payload.astype(np.complex64))] == order, "as symbols come, in float32"
    for error in (2e-3, -2e-3, 2e-3j, 0.5):
        off = payload.copy()
        off[77] += error * unit_amplitude(order)
        assert mode_of(off) == 0
    assert mode_of(payload * 1.01) == 0


@pytest.mark.parametrize("order", ORDERS)
def test_symbols_are_decided_for_the_nearest_point(order):
    generator = np.random.default_rng(order)
    symbols = qam(order, 300) + generator.normal(size=(300, 2)) @ [0.2, 0.2j]
    all_points = points(order) @ [1, 1j]
    wanted = all_points[np.abs(symbols[:, None] - all_points).argmin(axis=-1)]
    np.testing.assert_allclose(nearest_points(symbols, order), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_the_checksum_is_the_crc_32_of_the_payload_s_bits(order):
    payload = qam(order, 100)
    bits = decide(payload, order).ravel()
    octets = bytes(
        int("".join(map(str, octet)), 2) for octet in np.append(bits, np.zeros(-len(bits) % 8, int)).reshape(-1, 8)
    )
    digits = bits_of(zlib.crc32(octets), 32)
    wanted = ((1 - 2.0 * np.array(digits[::2])) + 1j * (1 - 2.0 * np.array(digits[1::2]))) / math.sqrt(2)
    mode = MODES.index(order)
    np.testing.assert_allclose(payload_crc(payload, mode), wanted, rtol=0, atol=1e-15)
    changed = payload.copy()
    changed[50] = -changed[50]
    assert (payload_crc(changed, mode) != payload_crc(payload, mode)).any()
    assert np.array_equal(payload_crc(payload, 0), payload_crc(changed, 0)), (
        "of nothing, where the points are not known"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("zc_length", 64), ("zc_length", 65), ("zc_length", 66), ("zc_root", 63), ("zc_root", 9), ("zc_root", 64)],
)
def test_a_sequence_that_is_none_is_refused(field, value):
    with pytest.raises(ValidationError, match=f"{field} must be .*, got {value}"):
        FrameSpec(**{field: value})
