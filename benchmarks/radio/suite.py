"""What a radio link is held to: each case run, and what it should have given beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import brentq

from benchmarks.radio.cases import Case, count, random_payloads, run_case
from benchmarks.radio.flowgraph import Flowgraph, channel_model
from link import theory
from link.chain import Link
from link.grid import SweepSpec
from link.radio.channel import RadioChannel
from link.radio.modem.bound import linear_equaliser_sinr
from link.radio.modem.detection import Detector
from link.radio.modem.frame import FrameSpec
from link.radio.modem.modem import Modem
from link.radio.modem.options import ModemOptions, ReceiverSpec
from link.radio.modem.pulse import Pulse
from link.radio.spec import RadioSpec
from link.randomness import Draws, Stream
from link.results import SweepPoint
from link.sweep import sweep

ORDER: Final = 16
ECHOES: Final = (0.9, 0.0, 0.0, 0.3j, 0.0, 0.0, -0.2)
_ROUNDS: Final = 7


class Setting(NamedTuple):
    """A case of the table.

    Attributes
    ----------
    name : str
    snr_db : float
        Es/N0 of the channel model's noise, dB.
    frames : int
    cfo : float
        Cycles a sample.
    clock : float
        GNU Radio's epsilon.
    taps : tuple of complex
    limit_db : float or None
        Most that may be lost against the bound.
    """

    name: str
    snr_db: float
    frames: int
    cfo: float = 0.0
    clock: float = 1.0
    taps: tuple[complex, ...] = (1.0,)
    limit_db: float | None = 0.5

    @property
    def stage(self) -> Any:
        """GNU Radio's block for it."""
        return channel_model(
            noise_voltage=10.0 ** (-self.snr_db / 20.0),
            frequency_offset=self.cfo,
            epsilon=self.clock,
            taps=self.taps,
            seed=3 + round(self.snr_db),
        )

    @property
    def bound_db(self) -> float:
        """SINR behind the best linear equaliser, dB: Es/N0 where there are no echoes."""
        return float(10.0 * np.log10(linear_equaliser_sinr(self.taps, 10.0 ** (-self.snr_db / 10.0), Pulse())))


def settings(scale: float = 1.0) -> list[Setting]:
    """The table; `scale` is the share of the frames that is sent."""

    def frames(snr_db: float) -> int:
        return max(10, round(scale * {20: 800, 16: 200}.get(round(snr_db), 100)))

    return [
        *(Setting("AWGN", snr, frames(snr)) for snr in (8, 10, 12, 14, 16)),
        *(Setting("CFO 1e-3", snr, frames(snr), cfo=1e-3) for snr in (8, 12, 16)),
        *(Setting("3 taps, CFO 1e-3", snr, frames(snr), 1e-3, 1.0, ECHOES, 1.0) for snr in (8, 12, 16, 20)),
        *(Setting("100 ppm", snr, frames(snr), clock=1.0001, limit_db=0.7) for snr in (8, 12, 16)),
    ]


class Row(NamedTuple):
    """A setting and what came of it; `loss_db` by bit errors: how much less noise theory would need to make as many."""

    setting: Setting
    case: Case
    ber_bound: float
    loss_db: float


def ber_table(rows: Sequence[Setting]) -> list[Row]:
    """Run each setting."""
    found = []
    for setting in rows:
        case = run_case([setting.stage], frames=setting.frames, order=ORDER, seed=round(setting.snr_db))
        found.append(Row(setting, case, bit_error_rate(setting.bound_db), setting.bound_db - snr_of(case.ber)))
    return found


def bit_error_rate(snr_db: float) -> float:
    """Of 16-QAM over AWGN."""
    return float(np.mean(theory.bit_error_rates(ORDER, snr_db)))


def snr_of(ber: float) -> float:
    """Es/N0 in dB at which 16-QAM over AWGN has that bit error rate."""
    return float(brentq(lambda snr_db: np.log(bit_error_rate(snr_db) / ber), -20.0, 30.0))


ABLATIONS: Final[dict[str, ReceiverSpec]] = {
    "all": ReceiverSpec(),
    "no CFO correction": ReceiverSpec(correct_cfo=False),
    "no pilots": ReceiverSpec(track_phase=False),
    "one tap": ReceiverSpec(equalise=False),
}


def ablations(scale: float = 1.0) -> dict[str, Case]:
    """The link with echoes and CFO at 16 dB, without one of the receiver's parts each."""
    setting = Setting("", 16, max(10, round(60 * scale)), 1e-3, 1.0, ECHOES)
    return {
        name: run_case([setting.stage], frames=setting.frames, order=ORDER, modem=ModemOptions(receiver=receiver))
        for name, receiver in ABLATIONS.items()
    }


class Semantic(NamedTuple):
    """A bundle's accuracy over GNU Radio, and over AWGN at the SINR that its receiver measured."""

    radio: SweepPoint
    awgn: SweepPoint

    @property
    def difference(self) -> float:
        """Of the accuracies."""
        return self.radio.accuracy.value - self.awgn.accuracy.value

    @property
    def half_width(self) -> float:
        """Of the two-sample interval over the noise, for these samples."""
        first, second = (point.accuracy_noise for point in (self.radio, self.awgn))
        return math.hypot(first.high - first.low, second.high - second.low) / 2.0


def semantic(link: Link, inputs: Any, labels: Any, snr_db: float, draws: int) -> Semantic:
    """Send a data set over GNU Radio with echoes, CFO and noise, and over AWGN."""
    setting = Setting("", snr_db, 0, 1e-3, 1.0, ECHOES)
    with Flowgraph([setting.stage]) as graph:
        radio = RadioSpec(
            frontend={"kind": "zmq", **graph.options},
            modem=ModemOptions(frame=FrameSpec(header_repeats=4)),
            tail_samples=2048,
            timeout_s=10.0,
        )
        over_radio = sweep(link, inputs, labels, SweepSpec(snr_db=(snr_db,), draws=draws, radio=radio)).points[0]
    assert over_radio.radio is not None
    measured = over_radio.radio.measured_snr_db
    assert measured is not None
    over_awgn = sweep(link, inputs, labels, SweepSpec(snr_db=(round(measured, 3),), draws=draws)).points[0]
    return Semantic(over_radio, over_awgn)


class Speed(NamedTuple):
    """What the parts cost on one core, medians; `loopback_ms` is what a drop takes beside modulation and reception."""

    detection_ms: float
    transforms_ms: float
    samples: int
    frame_ms: float
    loopback_ms: float

    @property
    def detection_rate(self) -> float:
        """Samples a second."""
        return self.samples / self.detection_ms * 1e3


def speed() -> Speed:
    """Time detection, reception of a frame of 1,024 symbols, and a drop over the loopback."""
    modem = Modem(ModemOptions())
    payloads, _ = random_payloads(100, ORDER, 0)
    samples = modem.send(payloads).samples
    noise = Draws(0, np.zeros(1, dtype=np.int64)).normals(Stream.NOISE, 0, len(samples))[0]
    noisy = (samples + 0.1 * (noise[:, 0] + 1j * noise[:, 1])).astype(np.complex64)
    detector = Detector(FrameSpec(), Pulse())
    one = payloads[:1]
    with RadioChannel(RadioSpec(frontend={"kind": "loopback"})) as radio:
        burst = modem.send(one).samples
        calls = (
            lambda: radio.drop(one, None, Draws(0, np.array([0]))),
            lambda: modem.send(one),
            lambda: modem.receive(burst),
        )
        rounds = [[_milliseconds(call) for call in calls] for _ in range(101)]
    beside = float(np.median([drop - send - receive for drop, send, receive in rounds]))
    return Speed(
        _median(lambda: detector.find(noisy), _ROUNDS),
        _median(lambda: _transforms(len(noisy)), _ROUNDS),
        len(noisy),
        _median(lambda: modem.receive(noisy), _ROUNDS) / len(payloads),
        beside,
    )


def _transforms(samples: int) -> None:
    """The transforms of a detection and nothing else: a block of 8,192 samples, and four of its half rate, for each step."""
    block, half = np.zeros(8192, np.complex64), np.zeros((4, 4096), np.complex64)
    overlap = 2 * Pulse().reach + Pulse().samples_per_symbol * FrameSpec().preamble_symbols
    for _ in range(-(-samples // (len(block) - overlap))):
        fft.fft(block)
        fft.ifft(half)


def _median(call: Callable[[], object], rounds: int) -> float:
    """Milliseconds."""
    call()
    return float(np.median([_milliseconds(call) for _ in range(rounds)]))


def _milliseconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)


class Envelope(NamedTuple):
    """Share of the frames that were found, and bit error rate of those, at each value of one impairment."""

    name: str
    unit: str
    values: tuple[float, ...]
    snrs_db: tuple[float, ...]
    found: NDArray[np.float64]
    loss_db: NDArray[np.float64]


def envelopes(frames: int) -> list[Envelope]:
    """Where frames are found and decoded: CFO, clock offset, and the delay of an echo, at three SNRs, by simulation."""
    sweeps: list[tuple[str, str, tuple[float, ...], Callable[[float], dict[str, Any]]]] = [
        ("carrier offset", "cycles a sample", (0.0, 2e-3, 4e-3, 6e-3, 8e-3, 10e-3, 12e-3, 14e-3), lambda v: {"cfo": v}),
        ("clock offset", "ppm", (0.0, 50.0, 100.0, 200.0, 500.0, 900.0), lambda v: {"clock_ppm": v}),
        (
            "echo of half the amplitude",
            "symbols behind",
            (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 14.0),
            lambda v: {"taps": [1.0, *[0.0] * (round(4 * v) - 1), "0.5j"]},
        ),
    ]
    return [_envelope(name, unit, values, options, frames) for name, unit, values, options in sweeps]


def _envelope(
    name: str, unit: str, values: tuple[float, ...], options: Callable[[float], dict[str, Any]], frames: int
) -> Envelope:
    snrs_db = (0.0, 8.0, 16.0)
    found, loss = (np.full((len(snrs_db), len(values)), np.nan) for _ in range(2))
    payloads, bits = random_payloads(frames, ORDER, 1)
    for column, value in enumerate(values):
        for row, snr_db in enumerate(snrs_db):
            spec = RadioSpec(frontend={"kind": "impaired", "snr_db": snr_db, **options(value)})
            with RadioChannel(spec) as radio:
                case = count(radio, payloads, bits, ORDER, 25)
            found[row, column] = case.found / case.frames
            if case.found:
                taps = [complex(tap) for tap in options(value).get("taps", [1.0])]
                best = linear_equaliser_sinr(taps, 10.0 ** (-snr_db / 10.0), Pulse())
                loss[row, column] = 10.0 * np.log10(best) - case.sinr_db
    return Envelope(name, unit, values, snrs_db, found, loss)
