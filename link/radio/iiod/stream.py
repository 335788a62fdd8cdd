"""The samples of a Pluto: what its transmitter sends passes the front end and comes to its receiver.

A Pluto's converters run all the time. Here time is moved on by whoever needs it: a read asks for n samples, so n samples
are sent, those that programs wrote and zeros behind them. Where nobody reads, a write that finds the transmitter's queue
full moves time on, and what is received meanwhile is held as the kernel's buffers would hold it, and beyond that lost.
A front end with a clock of its own is given no zeros: it runs by itself.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from link.errors import RadioError
from link.radio.frontend import EMPTY, FrontEnd, Samples
from link.radio.iiod.attributes import Refused
from link.radio.iiod.phy import RX_FULL_SCALE, TX_FULL_SCALE, Phy

_log = logging.getLogger(__name__)

LULL_S: Final = 0.05
"""A transmitter that wrote nothing for so long is silent: zeros are sent. Shorter pauses between two writes are none."""
READER_S: Final = 0.2
"""So long a write waits for a reader, which moves time on, before it does so itself."""
WAIT_S: Final = 0.01
LATE_S: Final = 0.1
"""Samples that take longer through the front end are kept there, as a flowgraph keeps some, until more are sent."""
UNDERFLOW, OVERFLOW = 1, 4  # bits of the status register at 0x88 of a converter's core


class Stream:
    """Samples between a program's buffers and a front end, which one thread at a time calls.

    Attributes
    ----------
    saturated : int
        I and Q values that did not fit into the 12 bits of the receiver, so far.
    """

    def __init__(self, front_end: FrontEnd, phy: Phy) -> None:
        self.saturated = 0
        self._front_end, self._phy = front_end, phy
        self._air = threading.Lock()  # held by whoever calls the front end
        self._queue = threading.Condition()  # guards all that is below but what the holder of _air alone touches
        self._closed = self._sending = self._cyclic = self._receiving = False
        self._status = {"tx": 0, "rx": 0}
        self._waiting: deque[Samples] = deque()
        self._queued = self._room = self._hold = 0
        self._loop: Samples | None = None
        self._wrote_at = self._read_at = -np.inf
        # touched by the holder of _air alone:
        self._unsent = EMPTY
        self._held: deque[Samples] = deque()
        self._in_flight = self._sent = 0
        self._came_at = -np.inf
        self._lost = False

    def revive(self) -> None:
        """Open the front end anew where it was lost.

        Raises
        ------
        RadioError
            If it is still gone.
        """
        with self._air:
            if self._lost:
                self._front_end.close()
                self._front_end.open()
                self._held.clear()
                self._unsent, self._in_flight, self._lost = EMPTY, 0, False

    def open_tx(self, room: int, cyclic: bool) -> None:
        """Take the transmitter, with a queue for so many samples; a cyclic one repeats the first write."""
        with self._queue:
            self._sending, self._cyclic, self._room, self._loop = True, cyclic, room, None

    def close_tx(self) -> None:
        """Let go of the transmitter; what is queued is still sent, what repeats is not."""
        with self._queue:
            self._sending, self._loop = False, None

    def open_rx(self, room: int) -> None:
        """Take the receiver: it starts now, and holds so many samples at most that nobody reads."""
        with self._air, self._queue:
            self._receiving, self._hold = True, room
            self._held.clear()

    def close_rx(self) -> None:
        """Let go of the receiver."""
        with self._queue:
            self._receiving = False

    def end(self) -> None:
        """Wake whoever waits; each of them is refused."""
        with self._queue:
            self._closed = True
            self._queue.notify_all()

    def status(self, side: str, clear: int = 0) -> int:
        """The bits of the status register of a side, `tx` or `rx`, after some were cleared."""
        with self._queue:
            self._status[side] &= ~clear
            return self._status[side]

    def write(self, iq: NDArray[np.int16], timeout_s: float) -> None:
        """Queue samples, (n, 2), of 16 bits as (I, Q).

        Raises
        ------
        Refused
            If there was no room in time, or the buffer is cyclic and was written.
        RadioError
            If the front end is gone.
        """
        samples = (iq.astype(np.float32) / np.float32(TX_FULL_SCALE)).view(np.complex64)[:, 0]
        deadline = time.monotonic() + timeout_s
        with self._queue:
            if self._cyclic:
                if self._loop is not None:
                    raise Refused(errno.EBUSY, "a cyclic buffer is written once")
                self._loop = samples
                return
        while not self._enqueue(samples, deadline):
            if time.monotonic() >= deadline:
                raise Refused(errno.ETIMEDOUT, "the transmitter took no samples in time")
            if self._air.acquire(timeout=WAIT_S):
                try:
                    self._move_on(len(samples), deadline)
                finally:
                    self._air.release()

    def _enqueue(self, samples: Samples, deadline: float) -> bool:
        """Queue them once there is room, and whether there was before a reader could have made some."""
        with self._queue:
            patience = min(deadline, time.monotonic() + READER_S)
            while self._queued and self._queued + len(samples) > self._room:
                now = time.monotonic()
                self._check_open()
                if now >= patience or now - self._read_at > READER_S:
                    return False
                self._queue.wait(min(WAIT_S, patience - now))
            self._waiting.append(samples)
            self._queued += len(samples)
            self._wrote_at = time.monotonic()
            self._queue.notify_all()
            return True

    def read(self, count: int, timeout_s: float) -> NDArray[np.int16]:
        """The next samples received, (count, 2), of 12 bits as (I, Q).

        Raises
        ------
        Refused
            If they did not come in time.
        RadioError
            If the front end is gone.
        """
        deadline = time.monotonic() + timeout_s
        parts: list[Samples] = []
        got = 0
        if not self._air.acquire(timeout=timeout_s):
            raise Refused(errno.ETIMEDOUT, "the front end is busy")
        try:
            while got < count:
                part = self._held.popleft() if self._held else self._exchange(count - got, deadline)
                if len(part) > count - got:
                    self._held.appendleft(part[count - got :])
                    part = part[: count - got]
                parts.append(part)
                got += len(part)
                if got < count and time.monotonic() >= deadline:
                    self._held.extendleft(reversed(parts))
                    raise Refused(errno.ETIMEDOUT, f"{got} of {count} samples came in time")
                self._read_at = time.monotonic()
        finally:
            self._air.release()
        return self._quantise(np.concatenate(parts))

    def _quantise(self, samples: Samples) -> NDArray[np.int16]:
        iq = samples.view(np.float32).reshape(-1, 2)
        power = float(np.mean(iq * iq)) * 2
        self._phy.rssi_db = -10 * np.log10(max(power, 1e-12))
        scaled = np.rint(iq * np.float32(RX_FULL_SCALE * self._phy.rx_gain.control(power)))
        clipped = np.clip(scaled, -RX_FULL_SCALE, RX_FULL_SCALE - 1)
        self.saturated += int(np.count_nonzero(clipped != scaled))
        received: NDArray[np.int16] = clipped.astype(np.int16)
        return received

    def _move_on(self, count: int, deadline: float) -> None:
        """Let so many samples' time pass, with nobody reading; called with _air held."""
        passed = 0
        while passed < count and time.monotonic() < deadline:
            before = self._queued
            part = self._exchange(count - passed, deadline)
            passed += max(len(part), before - self._queued)
            with self._queue:
                keep = self._hold - sum(map(len, self._held)) if self._receiving else 0
                if self._receiving and len(part) > keep:
                    self._status["rx"] |= OVERFLOW
            if keep > 0 and len(part):
                self._held.append(part[:keep])

    def _exchange(self, most: int, deadline: float) -> Samples:
        """Send what is due and take what came, at most so many; called with _air held."""
        self._check_open()
        try:
            return self._pass(most, deadline)
        except RadioError:
            self._lost = True
            raise

    def _pass(self, most: int, deadline: float) -> Samples:
        can = self._front_end.capabilities
        if can.sends:
            due = most - self._in_flight if can.sample_rate_hz is None else most
            if due > 0 and not len(self._unsent):
                self._unsent = self._next(min(due, can.chunk), pad=can.sample_rate_hz is None, deadline=deadline)
            if len(self._unsent):
                taken = self._front_end.send(self._unsent, WAIT_S)
                self._unsent = self._unsent[taken:]
                self._in_flight += taken
        if not can.receives:
            return np.zeros(most, np.complex64)
        block = self._front_end.recv(most, WAIT_S)
        if block.lost != 0:
            with self._queue:
                self._status["rx"] |= OVERFLOW
        now = time.monotonic()
        if len(block.samples):
            self._came_at = now
            self._in_flight = max(0, self._in_flight - len(block.samples) - (block.lost or 0))
        elif now - self._came_at > LATE_S:
            self._came_at, self._in_flight = now, 0
        return block.samples

    def _next(self, most: int, pad: bool, deadline: float) -> Samples:
        """At most so many samples to send."""
        with self._queue:
            while not self._waiting and self._sending and self._loop is None:
                now = time.monotonic()
                lull = min(deadline, self._wrote_at + LULL_S)
                if now >= lull or self._closed:
                    break
                self._queue.wait(lull - now)
            if self._waiting:
                samples = self._waiting.popleft()
                if len(samples) > most:
                    self._waiting.appendleft(samples[most:])
                    samples = samples[:most]
                self._queued -= len(samples)
                self._queue.notify_all()
            elif self._loop is not None:
                samples = self._loop[np.arange(self._sent, self._sent + most) % len(self._loop)]
            elif not self._sending and (tones := self._tones(most)) is not None:
                samples = tones
            elif not pad:
                return EMPTY
            else:
                self._status["tx"] |= UNDERFLOW if self._sending else 0
                samples = np.zeros(most, np.complex64)
        sent = self._modulate(samples)
        self._sent += len(sent)
        return sent

    def _tones(self, count: int) -> Samples | None:
        """(count,): the sum of the tone generators, None where all are off."""
        tones = self._phy.tones
        if not any(tone.raw.value == "1" and tone.scale.value for tone in tones):
            return None
        at = (self._sent + np.arange(count)) / self._phy.tx_rate.value
        in_phase, quadrature = (tones[k].wave(at) + tones[k + 1].wave(at) for k in (0, 2))
        return (np.zeros(count) + in_phase + 1j * quadrature).astype(np.complex64)

    def _modulate(self, samples: Samples) -> Samples:
        """Samples at the transmitter's level, as the receiver's oscillator sees them."""
        gain = np.float32(10 ** (self._phy.tx_gain.value / 20))
        offset = (self._phy.tx_lo.value - self._phy.rx_lo.value) / self._phy.rx_rate.value
        if offset == 0:
            return samples * gain
        if abs(offset) > 0.5:
            return np.zeros_like(samples)
        turns = (offset * (self._sent + np.arange(len(samples)))) % 1.0
        shifted: Samples = (samples * gain * np.exp(2j * np.pi * turns)).astype(np.complex64)
        return shifted

    def _check_open(self) -> None:
        if self._closed:
            raise RadioError("the server is ending")
