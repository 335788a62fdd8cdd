"""An OFDM carrier: where symbols and pilots lie in time and frequency, and gains between pilots.

    slot              14 OFDM symbols, 1 ms at 15 kHz, half of it at 30 kHz, ...
    resource block    12 subcarriers
    pilots            every other subcarrier of the OFDM symbols that PILOT_SYMBOLS names: the demodulation reference signals
                      of 3GPP TS 38.211, section 7.4.1.1, type 1, one symbol each, mapping type A
    data              all other resource elements

A sample's symbols are few beside a slot's resource elements. They are scattered over the whole carrier: symbol i takes data
element i g mod D of the D that its slots have, counted along the subcarriers and then from one OFDM symbol to the next. The
stride g has no common divisor with D. It is a whole number of OFDM symbols and the golden section of one, which spreads any
run of symbols evenly over the carrier (after Crozier 2000, "New high-spread high-distance interleavers for turbo-codes");
the whole number is the one that spreads it most evenly over the slot too. The other elements belong to other samples, which
share the slot and its pilots: a sample pays for pilots in proportion.

A receiver that estimates does so slot by slot, from the pilots of the resource block that it looks at and of two neighbours
on either side. Either way the estimate is linear in the least-squares gains at the pilots,

    h_hat = A h_ls                         h_ls = h_p + CN(0, no)
    linear   A interpolates along the subcarriers, then from one pilot symbol to the next; beyond the last it extrapolates
    Wiener   A = R_hp (R_pp + no I)^-1     E|h - h_hat|^2 = R(0) - A R_ph

(van de Beek, Edfors, Sandell, Wilson, Borjesson 1995, "On channel estimation in OFDM systems", VTC.) Linear interpolation
knows no prior: what it takes for its error is the noise that comes through, no sum |A|^2, and not how far the gains bend
between pilots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError

SYMBOLS: Final = 14
"""OFDM symbols a slot, with the normal cyclic prefix."""

SUBCARRIERS: Final = 12
"""Subcarriers a resource block."""

SPACINGS_KHZ: Final = (15, 30, 60, 120)

RESOURCE_BLOCKS_MAX: Final = 275
"""Of a 5G carrier (TS 38.211, table 4.4.2-1)."""

PILOT_SYMBOLS: Final = {0: (), 1: (2,), 2: (2, 11), 3: (2, 7, 11), 4: (2, 5, 8, 11)}
"""OFDM symbols of a slot that hold pilots, by how many there are (TS 38.211, table 7.4.1.1.2-3)."""

_PILOT_COMB: Final = 2
_NEIGHBOURS: Final = 2
_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0

_RUN: Final = 32
"""Symbols that are to lie far apart."""


class Covariance(Protocol):
    """Of the gains of a channel that is stationary in time and frequency."""

    def __call__(self, lag_s: NDArray[np.float64], offset_hz: NDArray[np.float64]) -> NDArray[np.complex128]:
        """E[h(t + lag, f + offset) h*(t, f)] for n lags and m offsets, (n, m)."""
        ...


class Elements(NamedTuple):
    """Resource elements.

    Attributes
    ----------
    symbol : (S,) int64
        OFDM symbol, counted through all slots.
    subcarrier : (S,) int64
        In [0, 12 resource blocks).
    """

    symbol: NDArray[np.int64]
    subcarrier: NDArray[np.int64]


class Interpolation(NamedTuple):
    """How the gains at S resource elements follow from those at pilots.

    Attributes
    ----------
    pilot : (S, n) int64
        The pilots that each element's estimate is made of, by their place among `Carrier.pilots`.
    weight : (S, n) complex128
        A.
    error_variance : (S,) float64
        E|h - h_hat|^2, as the receiver has it.
    """

    pilot: NDArray[np.int64]
    weight: NDArray[np.complex128]
    error_variance: NDArray[np.float64]

    def __call__(self, h_ls: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """(B, S) estimates from (B, pilots) least-squares gains, added up in an order that no batch changes."""
        h_hat = np.zeros((len(h_ls), len(self.pilot)), dtype=np.complex128)
        for pilot, weight in zip(self.pilot.T, self.weight.T, strict=True):
            h_hat += weight * h_ls[:, pilot]
        return h_hat


@dataclass(frozen=True)
class Carrier:
    """A grid of resource elements.

    Parameters
    ----------
    resource_blocks : int
        In [1, 275]; 51 at 30 kHz is a carrier of 20 MHz (TS 38.101-1, table 5.3.2-1).
    spacing_khz : int
        Subcarrier spacing, one of SPACINGS_KHZ.
    pilot_symbols : int
        OFDM symbols of a slot that hold pilots, a key of PILOT_SYMBOLS.

    Raises
    ------
    ArgumentError
        If one is out of range.

    Examples
    --------
    >>> Carrier(resource_blocks=1, pilot_symbols=2).place(4)
    Elements(symbol=array([0, 5, 9, 0]), subcarrier=array([0, 1, 8, 9]))
    """

    resource_blocks: int = 51
    spacing_khz: int = 30
    pilot_symbols: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.resource_blocks <= RESOURCE_BLOCKS_MAX:
            raise ArgumentError("resource_blocks", f"must be in [1, {RESOURCE_BLOCKS_MAX}], got {self.resource_blocks}")
        if self.spacing_khz not in SPACINGS_KHZ:
            raise ArgumentError(
                "spacing_khz", f"must be one of {', '.join(map(str, SPACINGS_KHZ))}, got {self.spacing_khz}"
            )
        if self.pilot_symbols not in PILOT_SYMBOLS:
            most = max(PILOT_SYMBOLS)
            raise ArgumentError("pilots", f"must be at most {most} OFDM symbols a slot, got {self.pilot_symbols}")

    @property
    def subcarriers(self) -> int:
        return SUBCARRIERS * self.resource_blocks

    @property
    def symbol_s(self) -> float:
        """Duration of an OFDM symbol and its prefix: a fourteenth of a slot, seconds."""
        return 15e-3 / (SYMBOLS * self.spacing_khz)

    @property
    def prefix_s(self) -> float:
        """Duration of the normal cyclic prefix, seconds (TS 38.211, section 5.3.1; every seventh or later is longer)."""
        return 144.0 / (2048.0 * 1e3 * self.spacing_khz)

    @property
    def slot_pilots(self) -> int:
        """Pilots a slot."""
        return self.pilot_symbols * (self.subcarriers // _PILOT_COMB)

    @property
    def slot_data(self) -> int:
        """Data elements a slot."""
        return SYMBOLS * self.subcarriers - self.slot_pilots

    def slots(self, num_symbols: int) -> int:
        """Slots that so many symbols take."""
        return -(-num_symbols // self.slot_data)

    def share_of_pilots(self, num_symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pilots that go with so many symbols, in proportion and rounded up.

        Examples
        --------
        >>> Carrier(pilot_symbols=2).share_of_pilots(np.array([0, 1, 32]))
        array([0, 1, 3])
        """
        return np.asarray(-(-num_symbols * self.slot_pilots // self.slot_data), dtype=np.int64)

    def frequencies(self, subcarrier: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of subcarriers, Hz, 0 in the middle of the carrier."""
        return np.asarray((subcarrier - self.subcarriers // 2) * (1e3 * self.spacing_khz))

    def place(self, num_symbols: int) -> Elements:
        """Where the symbols of a sample lie."""
        slots = self.slots(num_symbols)
        data = np.flatnonzero(np.tile(~self._is_pilot.reshape(-1), slots))
        stride = _coprime_near(self._stride, len(data))
        taken = data[np.arange(num_symbols, dtype=np.int64) * stride % max(len(data), 1)]
        return Elements(*np.divmod(taken, self.subcarriers))

    def pilots(self, slots: int) -> Elements:
        """Where the pilots of so many slots lie, slot by slot and along the subcarriers first."""
        return Elements(*np.divmod(np.flatnonzero(np.tile(self._is_pilot.reshape(-1), slots)), self.subcarriers))

    def linear(self, elements: Elements, no: float) -> Interpolation:
        """Interpolation along straight lines, told the noise variance `no` of a pilot."""
        window, pilot = self._windows(elements)
        slot_symbol = np.asarray(PILOT_SYMBOLS[self.pilot_symbols])
        in_time = _straight(elements.symbol % SYMBOLS, slot_symbol)
        in_frequency = _straight(elements.subcarrier - window * SUBCARRIERS, self._window_pilots)
        weight = (in_time[:, :, None] * in_frequency[:, None, :]).reshape(len(pilot), -1)
        return Interpolation(pilot, weight.astype(np.complex128), no * np.sum(weight * weight, axis=-1))

    def wiener(self, elements: Elements, no: float, covariance: Covariance) -> Interpolation:
        """The linear estimate of least mean squared error for gains of that covariance."""
        window, pilot = self._windows(elements)
        spacing_hz = 1e3 * self.spacing_khz
        pilot_symbol = np.repeat(PILOT_SYMBOLS[self.pilot_symbols], len(self._window_pilots))
        pilot_subcarrier = np.tile(self._window_pilots, self.pilot_symbols)

        def correlate(symbol: NDArray[np.int64], subcarrier: NDArray[np.int64]) -> NDArray[np.complex128]:
            """E[h h_p*] of elements within the window with its pilots; the table holds each lag and offset once."""
            lag, offset = symbol[:, None] - pilot_symbol, subcarrier[:, None] - pilot_subcarrier
            lags, offsets = np.arange(lag.min(), lag.max() + 1), np.arange(offset.min(), offset.max() + 1)
            table = covariance(lags * self.symbol_s, offsets * spacing_hz)
            return np.asarray(table[lag - lags[0], offset - offsets[0]])

        heard = correlate(pilot_symbol, pilot_subcarrier) + no * np.eye(len(pilot_symbol))
        cross = correlate(elements.symbol % SYMBOLS, elements.subcarrier - window * SUBCARRIERS)
        weight = np.asarray(np.linalg.solve(heard.T, cross.T).T, dtype=np.complex128)
        power = covariance(np.zeros(1), np.zeros(1))[0, 0].real
        error = power - np.sum(weight * np.conj(cross), axis=-1).real
        return Interpolation(
            pilot, weight, np.maximum(error, 0.0)
        )  # where next to nothing is left, rounding may take it

    @cached_property
    def _stride(self) -> int:
        """Data elements from one symbol of a sample to the next; see the head of this module."""
        multiples = np.arange(1, _RUN + 1)

        def spread(whole: int) -> float:
            places = multiples * (whole + _GOLDEN) * self.subcarriers / self.slot_data
            return float(np.min(multiples * np.abs(places - np.round(places))))

        return round((max(range(SYMBOLS - 2), key=spread) + _GOLDEN) * self.subcarriers)

    @cached_property
    def _is_pilot(self) -> NDArray[np.bool_]:
        """Which elements of a slot are pilots, (14, subcarriers)."""
        pilot = np.zeros((SYMBOLS, self.subcarriers), dtype=np.bool_)
        pilot[list(PILOT_SYMBOLS[self.pilot_symbols]), ::_PILOT_COMB] = True
        return pilot

    @cached_property
    def _window_pilots(self) -> NDArray[np.int64]:
        """Subcarriers of one window, counted from its first, that hold pilots."""
        blocks = min(self.resource_blocks, 2 * _NEIGHBOURS + 1)
        return np.arange(0, SUBCARRIERS * blocks, _PILOT_COMB, dtype=np.int64)

    def _windows(self, elements: Elements) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first resource block of each element's window, (S,), and the pilots of the window, (S, n)."""
        block = elements.subcarrier // SUBCARRIERS
        last = max(self.resource_blocks - (2 * _NEIGHBOURS + 1), 0)
        window = np.clip(block - _NEIGHBOURS, 0, last)
        in_symbol = self.subcarriers // _PILOT_COMB
        row = (elements.symbol // SYMBOLS)[:, None] * self.pilot_symbols + np.arange(self.pilot_symbols)
        along = window[:, None] * (SUBCARRIERS // _PILOT_COMB) + np.arange(len(self._window_pilots))
        pilot = row[:, :, None] * in_symbol + along[:, None, :]
        return window, pilot.reshape(len(block), -1)


def _straight(at: NDArray[np.int64], knots: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of each knot in the value at each place of straight lines through them, (S, knots)."""
    weight = np.zeros((len(at), len(knots)))
    rows = np.arange(len(at))
    if len(knots) == 1:
        weight[:, 0] = 1.0
        return weight
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    share = (at - knots[left]) / (knots[left + 1] - knots[left])
    weight[rows, left], weight[rows, left + 1] = 1.0 - share, share
    return weight


def _coprime_near(wish: int, length: int) -> int:
    """The whole number nearest to `wish` without a common divisor with `length`, the lesser of two."""
    near = (number for step in count() for number in (wish - step, wish + step))
    return next(number for number in near if number > 0 and math.gcd(number, length) == 1)
