"""A radio link in software, with every fault that a real one has, each set by an option.

    sent ─> transmitter's IQ imbalance, DC ─> taps ─> delay ─> receiver's clock ─> CFO, phase noise ─> noise
                                                                                                         │
    received <─ gaps <─ converter (bits) <─ gain <─ DC <─ receiver's IQ imbalance <──────────────────────┘

What is received is a function of what was sent, the options, the SNR and the address of the draws, however the streams are
cut into calls. There is no time but that of the samples: what is determined by those sent comes out at once, and nothing
comes, not even noise, where nothing is sent. So whoever sends pads a burst by the memory of the link: the taps' length, the
delay, and 13 samples where a fractional delay or a clock offset interpolates.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ValidationInfo, model_validator

from link.errors import ArgumentError, RadioError
from link.radio.frontend import EMPTY, Block, Capabilities, FrontEndSpec, Samples, SimulatedFrontEnd
from link.radio.frontends import impairments
from link.randomness import SEED_MAX, Draws
from link.snr import SNR_DB_MAX, SNR_DB_MIN, millidecibels

HOLDS: Final = 1 << 22
"""Samples that may be on their way before `send` takes no more."""
_PIECE: Final = 1 << 13
_LARGEST: Final = 1e6
"""Of a tap or an offset: beyond, samples do not fit into complex64."""


def _between(low: float, high: float) -> AfterValidator:
    def check(value: Any, info: ValidationInfo) -> Any:
        if value is not None and not low <= value <= high:
            raise ArgumentError(str(info.field_name), f"must be in [{low:g}, {high:g}], got {value}")
        return value

    return AfterValidator(check)


def _complex(value: Any, info: ValidationInfo) -> complex:
    """A number, a pair [re, im], or text such as "0.3j"."""
    try:
        found = complex(*value) if isinstance(value, list | tuple) else complex(value)
    except (TypeError, ValueError):
        raise ArgumentError(
            str(info.field_name), f'must be made of numbers, pairs [re, im] or texts as "0.3j", got {value!r}'
        ) from None
    if not (math.isfinite(found.real) and math.isfinite(found.imag)):
        raise ArgumentError(str(info.field_name), f"must be finite, got {value!r}")
    if abs(found) > _LARGEST:
        raise ArgumentError(str(info.field_name), f"must be at most {_LARGEST:g} in magnitude, got {value!r}")
    return found


Complex = Annotated[complex, BeforeValidator(_complex)]
Decibels = Annotated[float, _between(-200.0, 200.0)]
Imbalance = Annotated[float, _between(-20.0, 20.0)]
Degrees = Annotated[float, _between(-90.0, 90.0)]


class Spec(FrontEndSpec):
    """What is wrong with the link; nothing, unless told.

    Attributes
    ----------
    snr_db : float or None
        Es/N0 in dB, in [-30, 60], behind a matched filter for a pulse and symbols of unit energy: the noise has variance
        N0 = 10^(-snr_db / 10) a complex sample. None: no noise. `Impaired.at` sets another.
    seed : int
        Of noise and phase noise, in [0, 2**63), until `Impaired.at` gives draws.
    cfo : float
        Carrier frequency offset, cycles a sample, in [-0.5, 0.5].
    cfo_drift : float
        Its change, cycles a sample per sample, in [-1e-3, 1e-3].
    phase : float
        Carrier phase at the first sample, rad, in [-2 pi, 2 pi].
    phase_noise : float
        Variance of its steps (Wiener), rad^2 a sample, in [0, 1].
    clock_ppm : float
        How much faster the receiver's sampling clock is than the sender's, ppm, in [-1000, 1000].
    delay_samples : float
        Samples, fractions allowed, in [0, 1e6].
    taps : complex numbers
        Impulse response at the sample rate, 1 to 256 of them, each a number, a pair [re, im] or a text such as "0.3j", of
        magnitude 1e6 at most; not normalised.
    tx_iq_gain_db, tx_iq_phase_deg : float
        Gain of Q against I at the sender, dB in [-20, 20], and error of its right angle, degrees in [-90, 90].
    iq_gain_db, iq_phase_deg : float
        The same at the receiver.
    tx_dc, dc : complex
        Added at the sender (its carrier leaks), and at the receiver.
    gain_db : float
        Gain in front of the converter, dB, in [-200, 200].
    bits : int or None
        Bits of the receiver's converter for I and for Q, in [2, 24]; None: no converter.
    full_scale : float
        Amplitude of I or Q beyond which the converter clips, in [1e-6, 1e6].
    gap_every, gap_samples : int or None
        After every `gap_every` received samples, `gap_samples` are lost; at least 1, both or neither.
    gap_counted : bool
        Whether the device says how many were lost, or only that some were.
    dies_after : int or None
        How many samples are taken before the device is gone, until it is opened again; at least 0.
    sample_rate_hz : float or None
        For the record alone: nothing waits for it. In [1, 1e12].
    """

    kind: ClassVar[str] = "impaired"
    simulated: ClassVar[bool] = True

    snr_db: Annotated[float | None, _between(SNR_DB_MIN, SNR_DB_MAX)] = None
    seed: Annotated[int, _between(0, SEED_MAX)] = 0
    cfo: Annotated[float, _between(-0.5, 0.5)] = 0.0
    cfo_drift: Annotated[float, _between(-1e-3, 1e-3)] = 0.0
    phase: Annotated[float, _between(-2.0 * math.pi, 2.0 * math.pi)] = 0.0
    phase_noise: Annotated[float, _between(0.0, 1.0)] = 0.0
    clock_ppm: Annotated[float, _between(-1000.0, 1000.0)] = 0.0
    delay_samples: Annotated[float, _between(0.0, 1e6)] = 0.0
    taps: tuple[Complex, ...] = (1.0 + 0.0j,)
    tx_iq_gain_db: Imbalance = 0.0
    tx_iq_phase_deg: Degrees = 0.0
    iq_gain_db: Imbalance = 0.0
    iq_phase_deg: Degrees = 0.0
    tx_dc: Complex = 0.0j
    dc: Complex = 0.0j
    gain_db: Decibels = 0.0
    bits: Annotated[int | None, _between(2, 24)] = None
    full_scale: Annotated[float, _between(1e-6, 1e6)] = 1.0
    gap_every: Annotated[int | None, _between(1, 2**62)] = None
    gap_samples: Annotated[int | None, _between(1, 2**62)] = None
    gap_counted: bool = True
    dies_after: Annotated[int | None, _between(0, 2**62)] = None
    sample_rate_hz: Annotated[float | None, _between(1.0, 1e12)] = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 1 <= len(self.taps) <= 256:
            raise ArgumentError("taps", f"must be 1 to 256 numbers, got {len(self.taps)}")
        for given, other in (("gap_every", "gap_samples"), ("gap_samples", "gap_every")):
            if getattr(self, given) is not None and getattr(self, other) is None:
                raise ArgumentError(other, f"must be given with {given}")
        return self

    def build(self) -> Impaired:
        return Impaired(self)


class Impaired(SimulatedFrontEnd):
    """A link with the faults of a `Spec`. What `at` sets holds until it sets something else, also over a close and an open.

    Examples
    --------
    >>> with Impaired(Spec(taps=(0, "0.5j"), dc=1)) as link:
    ...     link.send(np.array([1, 2, 0], dtype=np.complex64), 0.1), link.recv(8, 0.1).samples
    (3, array([1.+0.j , 1.+0.5j, 1.+1.j ], dtype=complex64))
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._snr_db = spec.snr_db
        self._draws = Draws(spec.seed, np.zeros(1, dtype=np.int64))
        self._path: _Path | None = None
        self._taken = 0

    @property
    def capabilities(self) -> Capabilities:
        spec = self._spec
        return Capabilities(
            sample_rate_hz=spec.sample_rate_hz,
            full_scale=None if spec.bits is None else spec.full_scale,
            sets_noise=True,
            exclusive=False,
        )

    def open(self) -> None:
        if self._path is None:
            self._path, self._taken = _Path(self._spec, self._snr_db, self._draws), 0

    def at(self, snr_db: float, draws: Draws) -> None:
        self._opened()
        self._path = _Path(self._spec, snr_db, draws)
        self._snr_db, self._draws = snr_db, draws

    def send(self, samples: Samples, timeout_s: float) -> int:
        path = self._opened()
        taken = min(len(samples), max(0, HOLDS - path.held))
        if self._spec.dies_after is not None:
            taken = min(taken, self._spec.dies_after - self._taken)
        for start in range(0, taken, _PIECE):
            path.push(samples[start : min(start + _PIECE, taken)])
        self._taken += taken
        return taken

    def recv(self, most: int, timeout_s: float) -> Block:
        return self._opened().pull(most)

    def close(self) -> None:
        self._path = None

    def _opened(self) -> _Path:
        if self._path is None:
            raise RadioError("the simulated device is not open")
        if self._spec.dies_after is not None and self._taken >= self._spec.dies_after:
            raise RadioError("the simulated device is gone")
        return self._path


class _Path:
    """Samples on their way, from the first one on."""

    def __init__(self, spec: Spec, snr_db: float | None, draws: Draws) -> None:
        self._spec = spec
        self._queue: deque[Samples] = deque()
        self.held = 0
        self._received = 0
        self._pulled = 0
        point = 0 if snr_db is None else millidecibels(snr_db)
        self._n0 = None if snr_db is None else 10.0 ** (-snr_db / 10.0)
        self._randomness = impairments.Randomness(draws, point)
        self._wander = impairments.PhaseNoise(spec.phase_noise, self._randomness) if spec.phase_noise else None
        self._filters: list[Callable[[impairments.Signal], impairments.Signal]] = []
        if spec.taps != (1.0,):
            self._filters.append(impairments.Multipath(spec.taps))
        if spec.clock_ppm or spec.delay_samples % 1.0:
            self._filters.append(impairments.Resampler(spec.clock_ppm, spec.delay_samples))
        elif spec.delay_samples:
            self._receive(np.zeros(int(spec.delay_samples), dtype=np.complex128))

    def push(self, samples: Samples) -> None:
        spec = self._spec
        signal = samples.astype(np.complex128)
        if spec.tx_iq_gain_db or spec.tx_iq_phase_deg:
            signal = impairments.sent_with_imbalance(signal, spec.tx_iq_gain_db, spec.tx_iq_phase_deg)
        if spec.tx_dc:
            signal += spec.tx_dc
        for filtered in self._filters:
            signal = filtered(signal)
        self._receive(signal)

    def pull(self, most: int) -> Block:
        lost: int | None = 0
        if self._spec.gap_every is not None and self._spec.gap_samples is not None:
            period = self._spec.gap_every + self._spec.gap_samples
            place = self._pulled % period
            if place >= self._spec.gap_every:
                place = (place + len(self._take(period - place))) % period
            most = min(most, max(0, self._spec.gap_every - place))
            if place == 0 and self._pulled:
                lost = self._spec.gap_samples if self._spec.gap_counted else None
        if not self._queue or most == 0:
            return Block()
        return Block(self._take(most), lost)

    def _take(self, most: int) -> Samples:
        """The next samples, as many as there are."""
        parts, missing = [EMPTY], most
        while self._queue and missing:
            first = self._queue.popleft()
            if len(first) > missing:
                self._queue.appendleft(first[missing:])
            parts.append(first[:missing])
            missing -= len(parts[-1])
        found = np.concatenate(parts)
        self._pulled += len(found)
        self.held -= len(found)
        return found

    def _receive(self, signal: impairments.Signal) -> None:
        """The receiver's part of the way, sample by sample."""
        spec, start, count = self._spec, self._received, len(signal)
        if count == 0:
            return
        if spec.cfo or spec.cfo_drift or spec.phase or self._wander is not None:
            phases = impairments.carrier(start, count, spec.cfo, spec.cfo_drift, spec.phase)
            if self._wander is not None:
                phases += self._wander(start, count)
            signal = impairments.rotated(signal, phases)
        if self._n0 is not None:
            signal = signal + impairments.noise(self._randomness, self._n0, start, count)
        if spec.iq_gain_db or spec.iq_phase_deg:
            signal = impairments.received_with_imbalance(signal, spec.iq_gain_db, spec.iq_phase_deg)
        if spec.dc:
            signal = signal + spec.dc
        if spec.gain_db:
            signal = signal * impairments.amplitude(spec.gain_db)
        if spec.bits is not None:
            signal = impairments.quantised(signal, spec.bits, spec.full_scale)
        self._queue.append(signal.astype(np.complex64))
        self._received += count
        self.held += count
