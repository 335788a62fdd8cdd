"""One frame, from where it begins to its payload.

half symbols ──> channel, from the preamble ──> equaliser ──> header
└──> channel again, header and preamble known ──> equaliser ──> gain at the pilots ──> payload, noise, CRC
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.constellation import max_log_llr
from link.radio.frontend import Samples
from link.radio.modem.detection import Detection
from link.radio.modem.equalizer import (
    Equaliser,
    Response,
    Span,
    equalise,
    estimate_impaired,
    estimate_response,
    mmse_equaliser,
    one_tap_equaliser,
)
from link.radio.modem.frame import (
    PILOT,
    FrameSpec,
    Header,
    Layout,
    add_repeats,
    as_pairs,
    decide,
    layout,
    nearest_points,
    payload_crc,
    preamble,
    turns,
    write_header,
)
from link.radio.modem.noise import estimate_no, jump_errors
from link.radio.modem.options import ReceiverSpec
from link.radio.modem.pulse import Pulse
from link.radio.modem.sampling import half_symbols
from link.radio.modem.tracking import TimingSlope, pilot_frequency, smooth_gain, timing_slope
from link.snr import NO_MIN

_EQUALISER_MORE: Final = Span(20, 12)
"""Symbols that the equaliser reaches beyond the channel's response: what cancels an echo has an echo itself."""
_RESIDUAL_MAX: Final = 0.25
"""Carrier offset that detection leaves at most, cycles a Zadoff-Chu sequence: five standard deviations at -8 dB."""
_GAIN_MIN: Final = 0.01
"""Least gain at a pilot, over the frame's: what fades deeper is not amplified any further."""


class ReceivedFrame(NamedTuple):
    """A frame whose header was read.

    Attributes
    ----------
    header : Header
    payload : (length,) complex128
        Equalised symbols, Es = 1, unbiased.
    no : (length,) float64
        Their noise variance, residual interference included; equal but where the channel fades within the frame.
    crc_ok : bool or None
        Whether the payload's bits came through whole; None where its constellation is not known.
    start : float
        Sample in which its first symbol stands.
    symbols : int
        Of the frame, from its preamble on.
    cfo : float
        Carrier frequency offset, cycles a sample.
    clock : float
        By how much the receiver's clock is faster, as a ratio less 1.
    amplitude : float
        At the matched filter, of a symbol of Es = 1.
    evm : float
        Root mean square error of the symbols behind the preamble, from the nearest points where they are not known, over the
        constellation's RMS.
    """

    header: Header
    payload: NDArray[np.complex128]
    no: NDArray[np.float64]
    crc_ok: bool | None
    start: float
    symbols: int
    cfo: float
    clock: float
    amplitude: float
    evm: float

    @property
    def order(self) -> int | None:
        """Of the payload's constellation."""
        return self.header.order

    @property
    def snr_db(self) -> float:
        """Es/N0 behind the equaliser, dB."""
        return float(-10.0 * np.log10(self.no.mean()))

    @property
    def llr(self) -> NDArray[np.float32] | None:
        """Max-log LLRs of the payload's bits, (length, bits a symbol), MSB first; None of a constellation not known."""
        if self.header.order is None:
            return None
        return np.asarray(max_log_llr(as_pairs(self.payload), self.no, self.header.order), dtype=np.float32)


class Head(NamedTuple):
    """What a preamble tells.

    Attributes
    ----------
    response : Response
        First estimate of the channel.
    equaliser : Equaliser
        For it.
    llr : (n,) float
        Of the header's bits, repeats added up.
    """

    response: Response
    equaliser: Equaliser
    llr: NDArray[np.floating]


class Body(NamedTuple):
    """What is behind it.

    Attributes
    ----------
    frame : ReceivedFrame
    slope : TimingSlope
        What is left of the clock's offset.
    """

    frame: ReceivedFrame
    slope: TimingSlope


class Demodulator:
    """Reads one frame.

    Parameters
    ----------
    frame : FrameSpec
    pulse : Pulse
    spec : ReceiverSpec
    """

    def __init__(self, frame: FrameSpec, pulse: Pulse, spec: ReceiverSpec) -> None:
        self.frame = frame
        self.pulse = pulse
        self.spec = spec
        self._span = Span(spec.echoes_before, spec.echoes_behind)
        self._reach = Span(spec.echoes_before + _EQUALISER_MORE.before, spec.echoes_behind + _EQUALISER_MORE.behind)
        self._head = int(layout(frame, 0).header[-1]) + 1
        self._first_known = np.concatenate([np.zeros(self._span.behind), preamble(frame)])

    def read_head(self, samples: Samples, detection: Detection) -> Head:
        """First estimate of the channel, and the LLRs of the header."""
        frame = self.frame
        cfo = detection.cfo if self.spec.correct_cfo else 0.0
        symbols = frame.preamble_symbols + self._head
        y = self._sampled(samples, detection.start, cfo, symbols, self.spec.clock_ppm * 1e-6)
        response = estimate_response(y[2 * self._reach.before :], self._first_known, self._span)
        equaliser = self._equaliser(response)
        body = equalise(y, equaliser.weights, np.arange(frame.preamble_symbols, symbols))
        body *= np.conj(turns(frame, self._head))
        places = layout(frame, 0)
        pilots = places.pilots[places.pilots < self._head]
        seen = body[pilots] / PILOT
        error = max(float(np.mean(np.abs(seen - np.mean(seen)) ** 2)), NO_MIN)
        body /= self._gain(seen, pilots, self._head, error)
        no = max(float(np.mean(np.abs(body[pilots] - PILOT) ** 2)), NO_MIN)
        llr = max_log_llr(as_pairs(body[places.header]), np.full(frame.header_symbols, no), 4)
        return Head(response, equaliser, add_repeats(llr, frame))

    def read_body(self, samples: Samples, detection: Detection, head: Head, header: Header, clock: float) -> Body:
        """The rest of a frame whose header was read.

        Parameters
        ----------
        samples : (n,) complex64
        detection : Detection
        head : Head
        header : Header
        clock : float
            By how much the receiver's clock is faster, as a ratio less 1.
        """
        frame = self.frame
        places = layout(frame, header.length)
        ahead = frame.preamble_symbols
        body_symbols = frame.body_symbols(header.length)
        symbols = ahead + body_symbols
        turned = turns(frame, body_symbols)
        known = self._known(header, places, turned)
        cfo = detection.cfo if self.spec.correct_cfo else 0.0
        y = self._sampled(samples, detection.start, cfo, symbols, clock)
        if self.spec.correct_cfo and self.spec.track_phase:
            pilots = equalise(y, head.equaliser.weights, ahead + places.pilots) / (PILOT * turned[places.pilots])
            residual = pilot_frequency(pilots[:-1], frame.pilot_spacing, _RESIDUAL_MAX / frame.zc_length)
            residual /= self.pulse.samples_per_symbol
            y *= self._turn(residual, len(y))
            cfo += residual
        turn = self._turn(cfo, len(y))
        own = slice(2 * self._reach.before, None)
        response, impairments = estimate_impaired(y[own], known, self._span, turn[own])
        y = y - impairments.image * np.conj(y) * turn**2 - impairments.offset * turn
        weights, modelled = self._equaliser(response)
        body = equalise(y, weights, np.arange(ahead, symbols)) * np.conj(turned)
        seen = body[places.pilots] / PILOT
        gain = self._gain(seen, places.pilots, body_symbols, modelled)
        body /= gain
        payload, check = body[places.payload], body[places.crc]
        late = places.pilots[places.pilots >= self._head]  # the equaliser was not fitted to these
        errors = np.concatenate([body[late] - PILOT, check - nearest_points(check, 4)])
        errors *= np.abs(gain[np.concatenate([late, places.crc])])
        strength = np.abs(gain[places.payload]) ** 2
        variance = estimate_no(payload, strength, header.order, errors, modelled)
        jumps = jump_errors(seen, gain[places.pilots], variance)[np.searchsorted(places.pilots, places.payload) - 1]
        no = (variance + jumps) / strength
        estimate = body.copy()
        estimate[places.pilots], estimate[places.crc] = PILOT, nearest_points(check, 4)
        if header.order is not None:
            estimate[places.payload] = nearest_points(payload, header.order)
        derivative = equalise(_derivative(y), weights, np.arange(ahead, symbols)) * np.conj(turned) / gain
        read = ReceivedFrame(
            header=header,
            payload=payload,
            no=no,
            crc_ok=_crc_ok(payload, check, header),
            start=detection.start,
            symbols=symbols,
            cfo=cfo,
            clock=clock,
            amplitude=float(np.sqrt(np.sum(np.abs(response.taps) ** 2) / 2.0)),
            evm=float(np.sqrt(np.mean(np.abs(body - estimate) ** 2))),
        )
        return Body(read, timing_slope(body, estimate, derivative))

    def _sampled(
        self, samples: Samples, start: float, cfo: float, symbols: int, clock: float
    ) -> NDArray[np.complex128]:
        """Half symbols from the first that the equaliser reaches to the last."""
        count = 2 * (symbols + self._reach.before + self._reach.behind + 1)
        return half_symbols(samples, self.pulse, start, cfo, -2 * self._reach.before, count, clock)

    def _equaliser(self, response: Response) -> Equaliser:
        if self.spec.equalise:
            return mmse_equaliser(response, self._span, self._reach, self.pulse)
        return one_tap_equaliser(response, self._span, self._reach)

    def _gain(
        self, seen: NDArray[np.complex128], pilots: NDArray[np.int64], size: int, no: float
    ) -> NDArray[np.complex128]:
        """Gain of each of `size` symbols from the pilots among them, modulus and phase each along a line between two."""
        if not self.spec.track_phase:
            return np.full(size, np.exp(1j * np.angle(seen[:2].sum())))
        gain = smooth_gain(seen, no)
        places = np.arange(size)
        modulus = np.interp(places, pilots, np.maximum(np.abs(gain), _GAIN_MIN))
        return np.asarray(modulus * np.exp(1j * np.interp(places, pilots, np.unwrap(np.angle(gain)))))

    def _turn(self, cfo: float, count: int) -> NDArray[np.complex128]:
        """By how much removing a carrier offset turns each half symbol."""
        half_symbols_from_start = np.arange(count) - 2 * self._reach.before
        return np.asarray(np.exp(-1j * np.pi * cfo * self.pulse.samples_per_symbol * half_symbols_from_start))

    def _known(self, header: Header, places: Layout, turned: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Symbols from the last of the guard to the header's end, all of them known by now."""
        head = np.full(self._head, PILOT)
        head[places.header] = write_header(header, self.frame)
        return np.concatenate([self._first_known, head * turned[: self._head]])


def _crc_ok(payload: NDArray[np.complex128], check: NDArray[np.complex128], header: Header) -> bool | None:
    """Whether the CRC received is that of the payload received."""
    if header.order is None:
        return None
    return bool((decide(check, 4) == decide(payload_crc(payload, header.mode), 4)).all())


def _derivative(y: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Derivative, a symbol, of what was sampled at two samples a symbol: the ideal differentiator under a window."""
    reach = 8
    k = np.arange(1, reach + 1)
    half = 2.0 * (-1.0) ** k / k * np.cos(0.5 * np.pi * k / (reach + 1)) ** 2
    return np.asarray(np.convolve(y, np.concatenate([-half[::-1], [0.0], half]), mode="same"))
