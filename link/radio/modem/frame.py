"""A frame: one burst of symbols that a receiver finds, and can make sense of, by itself.

    | guard | preamble             | P | header | P | header | P | ... | P | payload | P | ... | CRC | P |
      zeros   Zadoff-Chu, repeated   pilots, every 16th symbol; the last symbol is one too

preamble    a Zadoff-Chu sequence (Chu 1972) repeated, for detection, carrier frequency and the channel's first estimate
header      version, mode, sequence number, payload length and a CRC-16, coded at rate 1/2, QPSK, and the whole repeated:
            it is read several dB below the payload. Once read it is known, and the channel is estimated from it again
payload     symbols of one constellation, which the mode names, each turned by a quarter-turn of a fixed pseudorandom
            sequence: whatever is sent is white, of zero mean and circular, and its constellation is as it was
CRC-32      over the payload's bits, QPSK. It counts frames that came through whole, and changes no decision

Mode 0 is a payload of no known constellation: it is carried as well, with a CRC of nothing. The guard holds
the echoes of the frame before.
"""

from __future__ import annotations

import zlib
from binascii import crc_hqx
from functools import lru_cache
from typing import Annotated, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from link.bits import group, label_bits, labels_from_bits
from link.constellation import ORDERS, map_bits, max_log_llr, unit_amplitude
from link.errors import ArgumentError
from link.radio.modem import convolutional
from link.randomness import Draws, Stream

VERSION: Final = 1
"""Of the frame: a receiver takes no other."""

SEQUENCES: Final = 1 << 16
MODES: Final = (None, *ORDERS)
"""Order of the square QAM by mode; None where the constellation is not known."""

_FIELDS: Final = (("version", 4), ("mode", 4), ("sequence", 16), ("length", 16))
_HEADER_BITS: Final = sum(width for _, width in _FIELDS) + 16
_HEADER_SYMBOLS: Final = convolutional.coded_bits(_HEADER_BITS) // 2
CRC_SYMBOLS: Final = 16
_ON_POINT: Final = 1e-3
"""Of half the distance between two points: a symbol that is nearer is on the point."""


class Header(NamedTuple):
    """What a frame says of itself.

    Attributes
    ----------
    version : int
        Of the frame's format.
    mode : int
        Index into MODES.
    sequence : int
        Counts frames modulo 2^16.
    length : int
        Payload symbols.
    """

    version: int
    mode: int
    sequence: int
    length: int

    @property
    def order(self) -> int | None:
        """Of the payload's constellation; None where it is not known."""
        return MODES[self.mode]


class FrameSpec(BaseModel):
    """The sizes of a frame.

    Attributes
    ----------
    zc_length, zc_root : int
        Of the Zadoff-Chu sequence; coprime, the length odd.
    preamble_repeats : int
        Times that it is sent.
    header_repeats : int
        Times that the header is sent; each doubling reads it 3 dB further down.
    pilot_spacing : int
        Every so manyeth symbol behind the preamble is a pilot.
    payload_symbols : int
        At most in a frame.
    guard_symbols : int
        Silence in front of a frame; longer than the longest echo.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    zc_length: Annotated[int, Field(ge=31, le=1023)] = 63
    zc_root: Annotated[int, Field(ge=1)] = 2
    preamble_repeats: Annotated[int, Field(ge=2, le=8)] = 2
    header_repeats: Annotated[int, Field(ge=1, le=8)] = 2
    pilot_spacing: Annotated[int, Field(ge=4, le=64)] = 16
    payload_symbols: Annotated[int, Field(ge=16, le=8192)] = 1024
    guard_symbols: Annotated[int, Field(ge=8, le=256)] = 16

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.zc_length % 6 != 3:  # thirds, and odd
            raise ArgumentError("zc_length", f"must be an odd multiple of 3, got {self.zc_length}")
        if not (self.zc_root < self.zc_length and np.gcd(self.zc_root, self.zc_length) == 1):
            raise ArgumentError("zc_root", f"must be below zc_length and coprime to it, got {self.zc_root}")
        return self

    @property
    def preamble_symbols(self) -> int:
        """Symbols of all repeats."""
        return self.zc_length * self.preamble_repeats

    @property
    def header_symbols(self) -> int:
        """Symbols of the header, repeats included and pilots not."""
        return _HEADER_SYMBOLS * self.header_repeats

    def body_symbols(self, length: int) -> int:
        """Symbols behind the preamble of a frame of `length` payload symbols, pilots included."""
        data = self.header_symbols + length + CRC_SYMBOLS
        return data + -(-data // (self.pilot_spacing - 1)) + 1

    def frame_symbols(self, length: int) -> int:
        """All symbols of a frame, the guard included.

        Examples
        --------
        >>> FrameSpec().frame_symbols(1024)
        1385
        """
        return self.guard_symbols + self.preamble_symbols + self.body_symbols(length)


class Layout(NamedTuple):
    """Where things are behind the preamble of a frame of a given length, as places from the first symbol there.

    Attributes
    ----------
    pilots, header, payload, crc : (n,) int64
    """

    pilots: NDArray[np.int64]
    header: NDArray[np.int64]
    payload: NDArray[np.int64]
    crc: NDArray[np.int64]


@lru_cache(maxsize=256)
def layout(spec: FrameSpec, length: int) -> Layout:
    """The places of a frame's symbols."""
    size = spec.body_symbols(length)
    places = np.arange(size, dtype=np.int64)
    is_pilot = (places % spec.pilot_spacing == 0) | (places == size - 1)
    data = places[~is_pilot]
    header, payload, crc = np.split(data, [spec.header_symbols, spec.header_symbols + length])
    return Layout(places[is_pilot], header, payload, crc)


@lru_cache(maxsize=16)
def preamble(spec: FrameSpec) -> NDArray[np.complex128]:
    """Symbols of the preamble, all of amplitude 1."""
    n = np.arange(spec.zc_length)
    return np.tile(np.exp(-1j * np.pi * spec.zc_root * n * (n + 1) / spec.zc_length), spec.preamble_repeats)


@lru_cache(maxsize=4)
def quarter_turns(count: int) -> NDArray[np.complex128]:
    """The first numbers of a fixed pseudorandom sequence of 1, j, -1 and -j."""
    bits = Draws(0, np.zeros(1, dtype=np.int64)).bits(Stream.PILOTS, 0, 2 * count)[0]
    return np.array([1.0, 1j, -1.0, -1j])[labels_from_bits(bits.reshape(-1, 2))]


def turns(spec: FrameSpec, size: int) -> NDArray[np.complex128]:
    """By how much each of the first `size` symbols behind the preamble is turned; a pilot is (1 + j) / sqrt(2), turned."""
    return quarter_turns(spec.body_symbols(spec.payload_symbols))[:size]


PILOT: Final = complex(1.0, 1.0) / np.sqrt(2.0)


def write_header(header: Header, spec: FrameSpec) -> NDArray[np.complex128]:
    """Symbols of a header, not turned, (header_symbols,)."""
    bits = np.concatenate([label_bits(getattr(header, name), width) for name, width in _FIELDS])
    check = label_bits(crc_hqx(np.packbits(bits).tobytes(), 0xFFFF), 16)
    coded = convolutional.encode(np.concatenate([bits, check]))
    return np.tile(as_complex(map_bits(group(coded.astype(np.float64), 2))), spec.header_repeats)


def read_headers(llr: NDArray[np.floating]) -> list[Header | None]:
    """Headers from the LLRs of their bits, repeats added up, (n, 2 _HEADER_SYMBOLS); None where the CRC is wrong."""
    found: list[Header | None] = []
    for bits in convolutional.decode(llr):
        payload, check = bits[:-16], int(labels_from_bits(bits[-16:]))
        if crc_hqx(np.packbits(payload).tobytes(), 0xFFFF) != check:
            found.append(None)
            continue
        ends = np.cumsum([width for _, width in _FIELDS])[:-1]
        found.append(Header(*(int(labels_from_bits(part)) for part in np.split(payload, ends))))
    return found


def add_repeats(llr: NDArray[np.floating], spec: FrameSpec) -> NDArray[np.floating]:
    """LLRs of a header's bits, (..., header_symbols, 2), repeats added up, (..., 2 _HEADER_SYMBOLS)."""
    return np.asarray(llr.reshape(*llr.shape[:-2], spec.header_repeats, 2 * _HEADER_SYMBOLS).sum(axis=-2))


def payload_crc(payload: NDArray[np.complexfloating], mode: int) -> NDArray[np.complex128]:
    """Symbols of the CRC-32 of a payload's bits, decided by the nearest points, not turned, (CRC_SYMBOLS,)."""
    order = MODES[mode]
    crc = 0 if order is None else zlib.crc32(np.packbits(decide(payload, order)).tobytes())
    return as_complex(map_bits(group(label_bits(crc, 32).astype(np.float64), 2)))


def assemble(payload: NDArray[np.complexfloating], header: Header, spec: FrameSpec) -> NDArray[np.complex128]:
    """Symbols of a frame, the guard included, (frame_symbols,).

    Parameters
    ----------
    payload : (length,) complex
        Es = 1.
    header : Header
    spec : FrameSpec
    """
    places = layout(spec, len(payload))
    body = np.empty(spec.body_symbols(len(payload)), dtype=np.complex128)
    body[places.pilots] = PILOT
    body[places.header] = write_header(header, spec)
    body[places.payload] = payload
    body[places.crc] = payload_crc(payload, header.mode)
    return np.concatenate([np.zeros(spec.guard_symbols), preamble(spec), body * turns(spec, len(body))])


def mode_of(payload: NDArray[np.complexfloating]) -> int:
    """The mode of a payload: that of the square QAM on whose points all symbols lie, or 0.

    The amplitudes of no two orders share a value, so one symbol tells.

    Examples
    --------
    >>> [mode_of(np.array([amplitude * (1 + 3j)]) / np.sqrt(10)) for amplitude in (1.0, 1.01)]
    [2, 0]
    """
    for mode, order in enumerate(MODES):
        if order is None:
            continue
        if np.abs(payload - nearest_points(payload, order)).max(initial=0.0) < _ON_POINT * unit_amplitude(order):
            return mode
    return 0


def decide(symbols: NDArray[np.complexfloating], order: int) -> NDArray[np.uint8]:
    """Bits of the nearest points, (n, m) uint8, MSB first."""
    return np.asarray(max_log_llr(as_pairs(symbols), np.ones(len(symbols)), order) > 0.0, dtype=np.uint8)


def nearest_points(symbols: NDArray[np.complexfloating], order: int) -> NDArray[np.complex128]:
    """The nearest points of a constellation."""
    return as_complex(map_bits(decide(symbols, order).astype(np.float64)))


def as_complex(pairs: NDArray[np.floating]) -> NDArray[np.complex128]:
    """(I, Q) pairs as complex numbers."""
    return pairs[..., 0] + 1j * pairs[..., 1].astype(np.float64)


def as_pairs(symbols: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Complex numbers as (I, Q) pairs."""
    return np.stack([symbols.real, symbols.imag], axis=-1).astype(np.float64)
