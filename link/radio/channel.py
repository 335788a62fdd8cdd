"""A radio as a channel: what link.channel asks of one, by frames over a front end.

    x [B, S, 2] ──pack──> frames ──modem──> samples ──front end──> samples ──modem──> frames ──unpack──> y, no
    rows of one            many rows                 loopback,                                  a lost frame's rows:
    constellation          a frame                   device, ...                                y = 0, no = inf

Rows are packed whole, in the order of their constellations, and a row goes into several frames only where it is longer than
one. Which rows a lost frame takes with it therefore depends on what is sent together: over a radio it is the call, and not
the sample, that stands alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from link.channel.base import Received, erase_unsent, require_rows
from link.channel.frames import FrameCounts
from link.errors import ArgumentError, RadioError
from link.radio.exchange import Capture, exchange
from link.radio.frontend import FrontEnd, SimulatedFrontEnd
from link.radio.modem.demodulator import ReceivedFrame
from link.radio.modem.frame import SEQUENCES, as_complex, as_pairs, mode_of
from link.radio.modem.modem import Burst, Modem
from link.radio.spec import RadioSpec
from link.randomness import Draws
from link.snr import NO_MIN


class Drop(NamedTuple):
    """One exchange of frames over the radio.

    Attributes
    ----------
    burst : Burst
        What was sent.
    payloads : list of (n,) complex
        In its frames.
    frames : dict of int to ReceivedFrame
        What came back, by its place in the burst.
    runs : dict of int to int
        In which of the capture's runs each of them was.
    capture : Capture
    headers_lost, other_versions : int
        See link.radio.modem.receiver.Reception.
    """

    burst: Burst
    payloads: list[NDArray[np.complex128]]
    frames: dict[int, ReceivedFrame]
    runs: dict[int, int]
    capture: Capture
    headers_lost: int
    other_versions: int


class RadioChannel:
    """Carries symbols over a radio. A context manager: the device is let go of on exit; it is taken hold of when needed.

    Calls from several threads take their turn.

    Parameters
    ----------
    spec : RadioSpec
    frontend : FrontEnd, optional
        In place of the one that `spec` describes, such as one that records.
    watch : callable, optional
        Is told of each drop, in its turn.

    Examples
    --------
    >>> x = np.full((2, 3, 2), 0.5**0.5, dtype=np.float32)
    >>> spec = RadioSpec(frontend={"kind": "loopback"})
    >>> with RadioChannel(spec) as radio:
    ...     received = radio(x, np.array([3, 3]), 10.0, Draws(0, np.arange(2)))
    >>> bool(np.abs(received.y - x).max() < 0.01), int(received.pilot_symbols)
    (True, 293)
    """

    def __init__(
        self, spec: RadioSpec, frontend: FrontEnd | None = None, watch: Callable[[Drop], None] | None = None
    ) -> None:
        self.spec = spec
        self.name = f"radio ({spec.frontend.kind})"
        self.modem = Modem(spec.modem)
        self._frontend = spec.frontend.build() if frontend is None else frontend
        self._watch = watch
        self._sequence = 0
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[type[RadioChannel], tuple[RadioSpec]]:
        """A radio goes to another process as its description, and is opened there anew."""
        return RadioChannel, (self.spec,)

    @property
    def frontend(self) -> FrontEnd:
        """What sends and receives."""
        return self._frontend

    def attached(self, timeout_s: float) -> bool:
        """Take hold of the device, and look for so long for who is at its other side; nothing is sent.

        Raises
        ------
        DriverUnavailable, RadioError
            If the device is not there, or gone. The next call tries again.
        """
        with self._turn:
            try:
                self._frontend.open()
                return self._frontend.attached(timeout_s)
            except RadioError:
                self._frontend.close()
                raise

    def close(self) -> None:
        """Let go of the device."""
        self._frontend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, x: Any, num_symbols: NDArray[np.int64], snr_db: float | None, draws: Draws) -> Received:
        """Carry a batch; see link.channel.Channel. At no SNR it is sent as it is, at full amplitude.

        Raises
        ------
        ArgumentError
            If the SNR is above what the radio reaches, `x` is on a GPU or not finite, or the front end plays a recording.
        DriverUnavailable, RadioError
            If the device is not there, or gone. The next call tries again.
        """
        require_rows(x, num_symbols, draws)
        if not isinstance(x, np.ndarray):
            raise ArgumentError("engine", f"must be one of NumPy arrays for a radio, got {draws.engine!r}")
        sent = np.arange(x.shape[1]) < num_symbols[:, None]
        symbols = as_complex(x[sent])
        if not np.isfinite(symbols).all():
            raise ArgumentError("x", "must be finite: a radio sends what it is given")
        packs = list(_packed(symbols, num_symbols, self.spec.modem.frame.payload_symbols))
        y, no = np.zeros(len(symbols), dtype=np.complex128), np.full(len(symbols), np.inf)
        if not packs:
            return Received(np.zeros_like(x), np.full(x.shape[:2], np.inf, np.float32), num_symbols)
        drop = self.drop([symbols[pack] for pack in packs], snr_db, draws)
        for place, frame in drop.frames.items():
            y[packs[place]], no[packs[place]] = frame.payload, frame.no
        received, variances = np.zeros_like(x, dtype=np.float32), np.full(x.shape[:2], np.inf, dtype=np.float32)
        received[sent], variances[sent] = as_pairs(y), np.maximum(no, NO_MIN)
        more = drop.burst.symbols - len(symbols)
        shares = np.diff(np.round(np.cumsum(num_symbols) * (more / len(symbols))), prepend=0.0).astype(np.int64)
        y, no = erase_unsent(received, variances, num_symbols)
        return Received(y, no, num_symbols, num_pilots=shares, frames=_counts(drop))

    def drop(self, payloads: list[NDArray[np.complex128]], snr_db: float | None, draws: Draws) -> Drop:
        """Send payloads, a frame each, and receive them.

        Parameters
        ----------
        payloads : list of (n,) complex
            Es = 1.
        snr_db : float or None
            Es/N0 in dB; None as it is, at full amplitude.
        draws : Draws
            Their first row addresses the randomness of a simulated front end.

        Raises
        ------
        As for a call.
        """
        with self._turn:
            try:
                drop = self._drop(payloads, snr_db, draws)
            except RadioError:
                self._frontend.close()
                raise
            if self._watch is not None:
                self._watch(drop)
            return drop

    def _drop(self, payloads: list[NDArray[np.complex128]], snr_db: float | None, draws: Draws) -> Drop:
        frontend, spec = self._frontend, self.spec
        frontend.open()
        able = frontend.capabilities
        if not (able.sends or able.real_time):  # what was recorded is no answer to what is sent now
            raise ArgumentError(
                "frontend",
                f"must be one that sends: {spec.frontend.kind} plays a recording, as `hardpath radio replay` does",
            )
        amplitude = spec.amplitude
        if isinstance(frontend, SimulatedFrontEnd) and frontend.capabilities.sets_noise:
            if snr_db is not None:
                frontend.at(snr_db, draws)
            self._sequence = 0
        elif spec.full_snr_db is not None and snr_db is not None:
            if snr_db > spec.full_snr_db:
                raise ArgumentError(
                    "snr_db", f"must be at most {spec.full_snr_db:g}, the radio's at full power, got {snr_db:g}"
                )
            amplitude *= 10.0 ** ((snr_db - spec.full_snr_db) / 20.0)
        burst = self.modem.send(payloads, self._sequence)
        self._sequence = (self._sequence + len(payloads)) % SEQUENCES
        silence = np.zeros(spec.tail_samples, dtype=np.complex64)
        samples = np.concatenate([burst.samples * np.float32(amplitude), silence])
        capture = exchange(frontend, samples, timeout_s=spec.timeout_s, latency_s=spec.latency_s)
        return self._read(burst, payloads, capture)

    def _read(self, burst: Burst, payloads: list[NDArray[np.complex128]], capture: Capture) -> Drop:
        """The frames of a burst in what was received."""
        first = burst.headers[0].sequence if burst.headers else 0
        found: dict[int, ReceivedFrame] = {}
        runs: dict[int, int] = {}
        headers_lost, others = 0, 0
        for number, run in enumerate(capture.runs):
            reception = self.modem.receive(run)
            headers_lost += reception.headers_lost
            others += reception.other_versions
            for frame in reception.frames:
                place = (frame.header.sequence - first) % SEQUENCES
                # Another burst's frame, or one that nobody sent, is none of these; nor is a second of the same number.
                if place < len(payloads) and frame.header == burst.headers[place] and place not in found:
                    found[place], runs[place] = frame, number
        return Drop(burst, payloads, found, runs, capture, headers_lost, others)


def _packed(symbols: NDArray[np.complex128], num_symbols: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    """The places in `symbols` of each frame's, at most so many, whole rows where they fit."""
    ends = np.cumsum(num_symbols)
    for rows in _of_one_mode(symbols, num_symbols, ends):
        places = np.concatenate([np.arange(ends[row] - num_symbols[row], ends[row]) for row in rows])
        borders = np.cumsum(num_symbols[rows])
        first = 0
        while first < len(places):
            whole = int(borders[borders <= first + most].max(initial=0))
            last = whole if whole > first else min(first + most, len(places))
            yield places[first:last]
            first = last


def _of_one_mode(
    symbols: NDArray[np.complex128], num_symbols: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Rows whose symbols are of one constellation; rows without symbols are in none."""
    rows = np.flatnonzero(num_symbols)
    if not len(rows):
        return
    if mode_of(symbols):
        yield rows
        return
    modes = np.array([mode_of(symbols[ends[row] - num_symbols[row] : ends[row]]) for row in rows])
    for mode in np.unique(modes):
        yield rows[modes == mode]


def _counts(drop: Drop) -> FrameCounts:
    frames = drop.frames.values()
    return FrameCounts(
        frames=len(drop.burst.headers),
        lost=len(drop.burst.headers) - len(frames),
        crc_failed=sum(frame.crc_ok is False for frame in frames),
        gaps=drop.capture.gaps,
        clipped=drop.capture.clipped,
        no=float(sum(frame.no.mean() for frame in frames)),
        squared_evm=sum(frame.evm**2 for frame in frames),
        papr=10.0 ** (drop.burst.papr_db / 10.0),
    )
