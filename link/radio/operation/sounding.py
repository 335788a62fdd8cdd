"""Measures a radio link by one burst that is known in all its symbols, and by silence behind it.

delay       c(tau) = sum_k a*[k] y(t + tau + k T) over all known symbols of a frame, y behind the matched filter, without the
            carrier's and the clock's offset, at steps of T/2. The correlation of a frame with itself is conjugate symmetric
            about its peak, whatever the symbols: they put no error on the place of the peak of |c|, which is found on c
            interpolated within its band. Multipath moves it towards the middle of the response
clock       slope of the least-squares line through arrival over departure of all frames; the delay is where it begins. Both
            are taken at the middle of a frame, so that an error of the frame's own clock estimate does not enter
noise       variance of what is received while nothing is sent

Intervals of 95 % are Student's, over frames, and of the line's coefficients.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import stdtrit

from link.errors import RadioError, require_range
from link.radio.channel import Drop, RadioChannel
from link.radio.exchange import exchange
from link.radio.frontend import Samples
from link.radio.modem.demodulator import ReceivedFrame
from link.radio.modem.frame import assemble
from link.radio.modem.options import ModemOptions
from link.radio.modem.sampling import half_symbols
from link.radio.operation.calibration import Calibration, Estimate
from link.radio.operation.traffic import RandomTraffic, TrafficSpec
from link.radio.spec import RadioSpec
from link.snr import NO_MIN, SNR_DB_MAX, SNR_DB_MIN

FRAMES_MIN: Final = 4
FRAMES_MAX: Final = 1024
_LAGS: Final = 24
"""Half symbols on either side that the correlation is interpolated from."""
_SEARCHED: Final = 4
"""Half symbols that detection may be off by."""
_BETA: Final = 8.0
"""Of the Kaiser window of the interpolation: its images are 80 dB down."""
_SILENCE: Final = 1 << 16
_COVERAGE: Final = 0.975
_CLOCK_MAX_PPM: Final = 1000.0


class Arrival(NamedTuple):
    """A frame as it came.

    Attributes
    ----------
    middle : float
        Where its middle stands among the samples that it was received from.
    gain : float
        Amplitude of a symbol of Es = 1 behind the matched filter.
    """

    middle: float
    gain: float


class Line(NamedTuple):
    """A least-squares line.

    Attributes
    ----------
    start, slope : Estimate
    """

    start: Estimate
    slope: Estimate


def sound(radio: RadioChannel, frames: int = 32, seed: int = 0) -> Calibration:
    """Measure a radio, opened anew.

    Parameters
    ----------
    radio : RadioChannel
    frames : int
        In the burst, in [4, 1024].
    seed : int
        Of the payloads.

    Raises
    ------
    ArgumentError
        If `frames` is out of range.
    RadioError
        If the device is not there, or gone, or cannot both send and receive; if fewer than 4 frames came back, or came in
        front of a gap.
    """
    require_range("frames", frames, FRAMES_MIN, FRAMES_MAX)
    radio.close()
    radio.frontend.open()
    able = radio.frontend.capabilities
    if not (able.sends and able.receives):
        raise RadioError(f"a {radio.spec.frontend.kind} radio that does not both send and receive cannot be calibrated")
    spec = TrafficSpec(order=4, seed=seed, exchange_frames=frames)
    traffic = RandomTraffic(spec, radio.spec.modem.frame.payload_symbols)
    drop = traffic.burst(radio, 0)
    found = list(drop.frames.values())
    if len(found) < FRAMES_MIN:
        raise RadioError(f"{len(found)} of {frames} frames came back: too few to calibrate by")
    in_front = sorted(place for place, run in drop.runs.items() if run == 0)
    if len(in_front) < FRAMES_MIN:
        raise RadioError(f"{len(in_front)} of {frames} frames came back in front of a gap: too few to calibrate by")
    departures = middles(radio.spec.modem, drop)[in_front]
    run = drop.capture.runs[0]
    symbols = [_symbols(radio.spec.modem, drop, place) for place in in_front]
    arrivals = [
        arrival(run, drop.frames[place], known, radio.spec.modem)
        for place, known in zip(in_front, symbols, strict=True)
    ]
    ahead = 0 if able.real_time else drop.capture.drained
    line = fit_line(departures, np.array([came.middle for came in arrivals]) + ahead - departures)
    no = mean([frame.no.mean() for frame in found])
    gain = mean([came.gain / radio.spec.amplitude for came in arrivals])
    quiet = _silence(radio)
    dc = complex(quiet.mean()) if len(quiet) else 0j
    floor = float(np.mean(np.abs(quiet - dc) ** 2)) if len(quiet) else 0.0
    return Calibration(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        frames_sent=frames,
        frames=len(found),
        delay_samples=line.start,
        cfo=mean([frame.cfo for frame in found]),
        clock_ppm=_scaled(line.slope, 1e6),
        gain_db=_decibels(gain, 20.0),
        snr_db=_decibels(no, -10.0),
        noise_floor_db=10.0 * math.log10(floor) if floor else None,
        dc=abs(dc),
    )


def calibrated(spec: RadioSpec, found: Calibration) -> RadioSpec:
    """A radio with what a calibration found: the receiver's clock, and the SNR at full power, by which others are set.

    Without noise there is no such SNR: less power would be as good.

    Raises
    ------
    RadioError
        If the clock is off by more than a receiver corrects.
    """
    if abs(found.clock_ppm.value) > _CLOCK_MAX_PPM:
        raise RadioError(f"the clock is off by {found.clock_ppm.value:g} ppm, and {_CLOCK_MAX_PPM:g} is the most")
    receiver = spec.modem.receiver.model_copy(update={"clock_ppm": found.clock_ppm.value})
    noisy = found.noise_floor_db is not None
    return spec.model_copy(
        update={
            "modem": spec.modem.model_copy(update={"receiver": receiver}),
            "full_snr_db": min(max(found.snr_db.value, SNR_DB_MIN), SNR_DB_MAX) if noisy else spec.full_snr_db,
            "calibration": found,
        }
    )


def arrival(samples: Samples, frame: ReceivedFrame, known: NDArray[np.complex128], modem: ModemOptions) -> Arrival:
    """When a frame came, by the correlation with its symbols.

    Parameters
    ----------
    samples : (n,) complex64
    frame : ReceivedFrame
    known : (m,) complex128
        Its symbols, from the preamble on.
    modem : ModemOptions
    """
    count = len(known)
    y = half_symbols(
        samples - samples.mean(), modem.pulse, frame.start, frame.cfo, -_LAGS, 2 * (count + _LAGS), frame.clock
    )
    lags = np.arange(-_LAGS, _LAGS + 1)
    c = np.array([np.vdot(known, y[_LAGS + lag :][: 2 * count : 2]) for lag in lags[:-1]] + [0.0])
    power = np.abs(c) ** 2
    searched = np.abs(lags) <= _SEARCHED
    best = float(lags[searched][power[searched].argmax()])

    def less(lag: float) -> float:
        apart = lag - lags
        window = np.i0(_BETA * np.sqrt(np.maximum(0.0, 1.0 - (apart / (_LAGS - _SEARCHED)) ** 2))) / np.i0(_BETA)
        window[np.abs(apart) > _LAGS - _SEARCHED] = 0.0
        return -float(np.abs(np.sum(c * np.sinc(apart) * window)))

    peak = minimize_scalar(less, bounds=(best - 1.0, best + 1.0), method="bounded", options={"xatol": 1e-6})
    step = 0.5 * modem.pulse.samples_per_symbol * (1.0 + frame.clock)
    return Arrival(frame.start + (float(peak.x) + count - 1) * step, -float(peak.fun) / count)


def middles(modem: ModemOptions, drop: Drop) -> NDArray[np.float64]:
    """Where the middle of each frame of a burst stands among the samples sent."""
    frame, step = modem.frame, modem.pulse.samples_per_symbol
    sizes = np.array([frame.frame_symbols(header.length) for header in drop.burst.headers])
    first = np.cumsum(sizes) - sizes + frame.guard_symbols
    return np.asarray(modem.pulse.reach + step * (first + 0.5 * (sizes - frame.guard_symbols - 1)))


def fit_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    """The least-squares line through points, three of them at least, with the intervals of its coefficients."""
    count, middle = len(x), x.mean()
    spread = float(np.sum((x - middle) ** 2))
    slope = float(np.sum((x - middle) * y)) / spread
    start = float(y.mean()) - slope * float(middle)
    variance = float(np.sum((y - start - slope * x) ** 2)) / (count - 2)
    t = float(stdtrit(count - 2.0, _COVERAGE))
    halves = t * math.sqrt(variance * (1.0 / count + middle**2 / spread)), t * math.sqrt(variance / spread)
    return Line(
        *(Estimate(value=v, low=v - half, high=v + half) for v, half in zip((start, slope), halves, strict=True))
    )


def mean(values: ArrayLike) -> Estimate:
    """Mean of values, two of them at least, with Student's interval."""
    data = np.asarray(values, dtype=np.float64)
    half = float(stdtrit(len(data) - 1.0, _COVERAGE)) * float(data.std(ddof=1)) / math.sqrt(len(data))
    value = float(data.mean())
    return Estimate(value=value, low=value - half, high=value + half)


def _symbols(modem: ModemOptions, drop: Drop, place: int) -> NDArray[np.complex128]:
    """Of a frame of a burst, from the preamble on."""
    return assemble(drop.payloads[place], drop.burst.headers[place], modem.frame)[modem.frame.guard_symbols :]


def _silence(radio: RadioChannel) -> Samples:
    """What is received while nothing is sent."""
    spec = radio.spec
    nothing = np.zeros(_SILENCE + spec.tail_samples, dtype=np.complex64)
    capture = exchange(radio.frontend, nothing, timeout_s=spec.timeout_s, latency_s=spec.latency_s)
    runs = capture.runs
    return runs[0][spec.tail_samples :] if len(runs) == 1 else np.concatenate(runs) if runs else nothing[:0]


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor)


def _decibels(estimate: Estimate, factor: float) -> Estimate:
    """In dB; `factor` is negative where the figure is noise over signal."""
    value, *ends = (
        factor * math.log10(max(number, NO_MIN)) for number in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value=value, low=min(ends), high=max(ends))
