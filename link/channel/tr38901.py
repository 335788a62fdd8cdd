"""The link-level channels of 3GPP TR 38.901 over OFDM: tdl-a to tdl-e and cdl-a to cdl-e.

    x ──> resource elements of a slot ──> h(t, f) x + w ──> one tap ──> y, no
          link.channel.ofdm               link.channel.multipath

    h(t, f) = sum over paths of a_p(t) exp(-j 2 pi f tau_p)        E|h|^2 = 1

Each OFDM symbol sees its channel as constant, within a cyclic prefix that is longer than the last path: no interference
between symbols. Motion makes some between subcarriers, at most (2 pi f_D / spacing)^2 / 24 of the signal (Li, Cimini 2001,
"Bounds on the interchannel interference of OFDM in time-varying impairments", IEEE Trans. Commun. 49): -48 dB at 30 km/h,
3.5 GHz and 30 kHz. It is left out.

A sample has a realisation of its own, as if the slots that samples travel in lay far apart. **Its randomness has an
address**, although Sionna's has none: Sionna computes the paths, many samples at a time, from numbers that are Philox's at
(seed, sample, draw, SNR). So a sample hears the same in any batch, order or worker, to the last bit; but LMMSE's filter is
the solution of linear equations, whose last digits may depend on the machine and on how many threads its LAPACK has.

Knowledge of the gains is as in link.channel.csi, where `pilots` counts the OFDM symbols of a slot that hold pilots, each of
energy 1. Where the receiver estimates, it is told (no + E|h - h_hat|^2) / |h_hat|^2, whose error depends on where the
resource element lies between the pilots. LMMSE knows the second moments of the gains, Doppler included, and not the phase of
a line of sight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.array import Array
from link.channel.awgn import add_noise
from link.channel.base import Received, erase_unsent, require_rows
from link.channel.csi import PERFECT, Csi, gain_report, multiply, one_tap
from link.channel.fence import require_sionna
from link.channel.multipath import Multipath, Realisation
from link.channel.ofdm import SYMBOLS, Carrier, Elements, Interpolation
from link.constellation import points
from link.device import HOST_ENGINES, arrays
from link.errors import ArgumentError
from link.randomness import Draws, Stream
from link.snr import millidecibels, no_from_esn0_db, told_no

_ROW_SLOTS: Final = 64
"""Slots of all samples that go through Sionna at once: bounds memory, changes no result."""

_SEQUENCE: Final = points(4) @ np.array([1.0, 1j])
"""Pilots, (4,), in turn: the points of QPSK."""


@dataclass(frozen=True)
class _Frame:
    """What samples of one length have in common."""

    carrier: Carrier
    multipath: Multipath
    csi: Csi
    num_symbols: int


class _Gains(NamedTuple):
    """Of B samples' payload, (B, S): true, as the receiver takes them, and E|h - h_hat|^2 of each element, as it has it."""

    true: NDArray[np.complex128]
    estimated: NDArray[np.complex128]
    error_variance: NDArray[np.float64] | float


class Tr38901:
    """A TDL or CDL over an OFDM carrier.

    Parameters
    ----------
    name : str
        One of link.channel.TR38901.
    csi : Csi
        What the receiver knows of the gains; `pilots` is OFDM symbols a slot, in [1, 4].
    no_offset_db : float
        In [-30, 30]: dB that the noise variance the receiver is told lies above the true one.
    delay_spread_ns, speed_kmh, carrier_ghz : float
        See link.channel.multipath.Multipath.
    spacing_khz, resource_blocks : int
        See link.channel.ofdm.Carrier.

    Raises
    ------
    ArgumentError
        If an option is out of range, or the last path comes after the cyclic prefix.
    MissingExtra
        If Sionna is not installed.

    Examples
    --------
    >>> x = np.ones((2, 16, 2), dtype=np.float32)
    >>> received = Tr38901("tdl-c", Csi("lmmse", 2))(x, np.array([16, 13]), 12.0, Draws(0, np.arange(2)))
    >>> received.num_pilots
    array([2, 1])
    """

    def __init__(
        self,
        name: str,
        csi: Csi = PERFECT,
        no_offset_db: float = 0.0,
        *,
        delay_spread_ns: float = 100.0,
        speed_kmh: float = 30.0,
        carrier_ghz: float = 3.5,
        spacing_khz: int = 30,
        resource_blocks: int = 51,
    ) -> None:
        require_sionna()
        told_no(1.0, no_offset_db)
        self.name = name
        self.csi = csi
        self.no_offset_db = no_offset_db
        self.multipath = Multipath(name, delay_spread_ns, speed_kmh, carrier_ghz)
        self.carrier = Carrier(resource_blocks, spacing_khz, csi.pilots)
        if self.multipath.longest_delay_s > self.carrier.prefix_s:
            most = 1e9 * self.carrier.prefix_s / (self.multipath.longest_delay_s / (delay_spread_ns * 1e-9))
            raise ArgumentError(
                "delay_spread_ns",
                f"must be at most {most:.0f} for {name} at {spacing_khz} kHz, whose cyclic prefix is "
                f"{1e9 * self.carrier.prefix_s:.0f} ns, got {delay_spread_ns:g}",
            )

    def __call__(self, x: Array, num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        require_rows(x, num_symbols, draws)
        no = no_from_esn0_db(snr_db)
        told = told_no(no, self.no_offset_db)
        point = millidecibels(snr_db)
        host = draws if draws.engine in HOST_ENGINES else replace(draws, engine="numpy")
        h = np.zeros(x.shape, dtype=np.float64)
        h[..., 0] = 1.0
        h_hat, error_variance = h.copy(), np.zeros(x.shape[:-1])
        for count in np.unique(num_symbols[num_symbols > 0]).tolist():
            frame = _Frame(self.carrier, self.multipath, self.csi, count)
            rows = np.flatnonzero(num_symbols == count)
            step = max(_ROW_SLOTS // self.carrier.slots(count), 1)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                own = replace(host, samples=host.samples[some], draw=np.asarray(host.draw)[some])
                gains = self._gains(frame, no, told, point, own)
                h[some, :count], h_hat[some, :count] = _pairs(gains.true), _pairs(gains.estimated)
                error_variance[some, :count] = gains.error_variance
        put = arrays(draws.engine).put
        noisy = add_noise(multiply(put(h), x), no, draws.normals(Stream.NOISE, point, x.shape[1]))
        y, variances = erase_unsent(*one_tap(noisy, put(h_hat), told, put(error_variance)), num_symbols)
        report = gain_report(h, h_hat, num_symbols)
        return Received(y, variances, num_symbols, report, self.carrier.share_of_pilots(num_symbols))

    def _gains(self, frame: _Frame, no: float, told: float, point: int, draws: Draws) -> _Gains:
        carrier, slots = frame.carrier, frame.carrier.slots(frame.num_symbols)
        paths = frame.multipath.realise(SYMBOLS * slots, 1.0 / carrier.symbol_s, point, draws)
        h = _response(paths, carrier, _payload(carrier, frame.num_symbols))
        if self.csi.perfect:
            return _Gains(h, h, 0.0)
        pilots = carrier.pilots(slots)
        p = np.resize(_SEQUENCE, len(pilots.symbol))
        noise = draws.normals(Stream.PILOTS, point, len(p))
        h_ls = (
            _response(paths, carrier, pilots) * p + np.sqrt(no / 2.0) * noise.view(np.complex128)[..., 0]
        ) * p.conj()
        interpolate = _interpolation(frame, told)
        return _Gains(h, interpolate(h_ls), interpolate.error_variance)


@lru_cache(maxsize=8)
def _payload(carrier: Carrier, num_symbols: int) -> Elements:
    return carrier.place(num_symbols)


@lru_cache(maxsize=8)
def _interpolation(frame: _Frame, told: float) -> Interpolation:
    """From pilots to payload, for a receiver that is told this noise variance."""
    elements = _payload(frame.carrier, frame.num_symbols)
    if frame.csi.kind == "ls":
        return frame.carrier.linear(elements, told)
    return frame.carrier.wiener(elements, told, frame.multipath.covariance)


def _response(paths: Realisation, carrier: Carrier, elements: Elements) -> NDArray[np.complex128]:
    """Gains at resource elements, (B, S): paths are added up one by one, in an order that no batch changes."""
    frequency = carrier.frequencies(elements.subcarrier)
    h = np.zeros((len(paths.coefficients), len(frequency)), dtype=np.complex128)
    for path, delay in enumerate(paths.delays):
        h += paths.coefficients[:, path, elements.symbol] * np.exp(-2j * np.pi * delay * frequency)
    return h


def _pairs(values: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Complex numbers as (real, imaginary) pairs, (..., 2)."""
    return np.stack([values.real, values.imag], axis=-1)
