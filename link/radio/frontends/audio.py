"""A sound card as a radio, through PortAudio: complex baseband on two channels, or a real carrier on one.

    iq        left is I, right is Q: a cable from line out to line in, or what expects baseband on a sound card
    passband  I and Q on a real carrier, as link/radio/passband.py has it: a speaker and a microphone will do

Either way I and Q reach from -1 to 1, and come back as they were sent but for the way. In passband what is received comes
later by the delay of the low-pass. No block says when it was taken, since not every sound system knows.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from link.errors import ArgumentError, DriverUnavailable, RadioError, require_range
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples
from link.radio.passband import WIDEST, DownConverter, UpConverter, room

log = logging.getLogger(__name__)

_RATE_TOLERANCE: Final = 1e-6
_ROOM_MIN: Final = 1 / 200
"""Of a carrier, in cycles a sample: closer to 0 or 1/2 the low-pass has thousands of taps."""
_SILENT_S: Final = 3.0
"""A stream that has not called for so long is gone, though PortAudio does not say so."""
_CLOSE_S: Final = 2.0


class Spec(FrontEndSpec):
    """A sound card, and how samples go over it.

    Attributes
    ----------
    mode : {"iq", "passband"}
    carrier_hz : float
        Of the passband; to be given there.
    bandwidth_hz : float or None
        What the low-pass of the passband lets through, both sides of the carrier together; None for all that it can.
    input_device, output_device : int, str or None
        Number or part of a name, which `probe` lists; None for the system's default.
    sample_rate_hz : float
    latency : float or {"low", "high"}
        Seconds that the sound system holds each way, or its own proposal.
    buffer_s : float
        Seconds that are held here each way, for a program that is late.
    sends, receives : bool
    """

    kind: ClassVar[str] = "audio"
    needs: ClassVar[str | None] = "pip install 'hardpath[audio]' && apt-get install libportaudio2"

    mode: Literal["iq", "passband"] = "iq"
    carrier_hz: float | None = Field(default=None, gt=0)
    bandwidth_hz: float | None = Field(default=None, gt=0)
    input_device: int | str | None = None
    output_device: int | str | None = None
    sample_rate_hz: float = Field(default=48_000.0, gt=0)
    latency: float | Literal["low", "high"] = "high"
    buffer_s: float = Field(default=2.0, gt=0, le=60)
    sends: bool = True
    receives: bool = True

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not (self.sends or self.receives):
            raise ArgumentError("receives", "must be true where sends is false")
        if isinstance(self.latency, float) and self.latency <= 0:
            raise ArgumentError("latency", f"must be above 0, got {self.latency:g}")
        if self.mode == "iq":
            for name in ("carrier_hz", "bandwidth_hz"):
                if getattr(self, name) is not None:
                    raise ArgumentError(name, "must not be given but in mode passband")
            return self
        if self.carrier_hz is None:
            raise ArgumentError("carrier_hz", "must be given in mode passband")
        rate = self.sample_rate_hz
        require_range("carrier_hz", self.carrier_hz, _ROOM_MIN * rate, (0.5 - _ROOM_MIN) * rate)
        if self.bandwidth_hz is not None:
            require_range("bandwidth_hz", self.bandwidth_hz, 0, 2 * WIDEST * room(self.carrier_hz / rate) * rate)
        return self

    def build(self) -> Audio:
        return Audio(self, sounddevice())

    def probe(self) -> list[dict[str, Any]]:
        driver = sounddevice()
        _PORTAUDIO.look(driver)
        return [dict(device) for device in driver.query_devices()]


def sounddevice() -> Any:
    """The module sounddevice, with its PortAudio.

    Raises
    ------
    DriverUnavailable
        If either is not installed.
    """
    try:
        import sounddevice as module
    except ImportError:
        raise DriverUnavailable("audio", "sounddevice", "pip install 'hardpath[audio]'") from None
    except OSError:
        raise DriverUnavailable("audio", "PortAudio", "apt-get install libportaudio2") from None
    return module


class _PortAudio:
    """PortAudio lists the devices when it is started, once a process: it is started anew while nobody has a stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def look(self, driver: Any) -> None:
        with self._lock:
            self._list(driver)

    def enter(self, driver: Any) -> None:
        with self._lock:
            self._list(driver)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1

    def leave_running(self, driver: Any) -> None:
        """Neither list again nor end: either would wait for a stream that does not end."""
        with self._lock:
            self._users += 1
        atexit.unregister(driver._exit_handler)

    def _list(self, driver: Any) -> None:
        if self._users:
            return
        with suppress(driver.PortAudioError):
            driver._terminate()
        try:
            driver._initialize()
        except driver.PortAudioError as error:
            raise RadioError(f"PortAudio does not start: {_line(error)}") from error


_PORTAUDIO: Final = _PortAudio()


class Audio(FrontEnd):
    """A sound card. `driver` is the module sounddevice."""

    def __init__(self, spec: Spec, driver: Any) -> None:
        self._spec = spec
        self._driver = driver
        self._held = False
        self._input: _Input | None = None
        self._output: _Output | None = None
        self._up: UpConverter | None = None
        self._down: DownConverter | None = None

    @property
    def capabilities(self) -> Capabilities:
        spec = self._spec
        return Capabilities(spec.sends, spec.receives, spec.sample_rate_hz, chunk=1 << 12, full_scale=1.0)

    def open(self) -> None:
        if self._held:
            return
        spec = self._spec
        _PORTAUDIO.enter(self._driver)
        self._held = True
        try:
            if spec.carrier_hz is not None:
                nu = spec.carrier_hz / spec.sample_rate_hz
                widest = WIDEST * room(nu)
                edge = widest if spec.bandwidth_hz is None else min(widest, spec.bandwidth_hz / 2 / spec.sample_rate_hz)
                self._up, self._down = UpConverter(nu), DownConverter(nu, edge)
            if spec.receives:
                self._input = _Input(spec, self._driver)
            if spec.sends:
                self._output = _Output(spec, self._driver)
        except BaseException:
            self.close()
            raise

    def send(self, samples: Samples, timeout_s: float) -> int:
        if self._output is None:
            raise RadioError(f"the sound card is not open{' to send' if self._held else ''}")
        part = np.array(samples[: self._output.room(len(samples), timeout_s)], np.complex64)
        self._output.put(part.view(np.float32).reshape(-1, 2) if self._up is None else self._up(part)[:, np.newaxis])
        return len(part)

    def recv(self, most: int, timeout_s: float) -> Block:
        if self._input is None:
            raise RadioError(f"the sound card is not open{' to receive' if self._held else ''}")
        frames, lost = self._input.take(most, timeout_s)
        if self._down is None:
            return Block(frames.view(np.complex64)[:, 0], lost)
        return Block(self._down(frames[:, 0]), lost)

    def close(self) -> None:
        for stream in (self._input, self._output):
            if stream is not None:
                stream.close()
        self._input = self._output = None
        if self._held:
            self._held = False
            _PORTAUDIO.leave()

    def facts(self) -> dict[str, str | float | int | bool]:
        told: dict[str, str | float | int | bool] = {}
        for name, stream in (("input", self._input), ("output", self._output)):
            if stream is not None:
                told |= {f"{name}_{fact}": value for fact, value in stream.facts().items()}
        return told


class _Flow:
    """A stream of PortAudio in one direction, and what is held on its way.

    PortAudio calls from a thread of its own, which never waits but for a moment's lock. `waiting` is held for all that
    follows; `over` is set once the stream has ended without being told to.
    """

    def __init__(self, spec: Spec, driver: Any, kind: Literal["input", "output"]) -> None:
        self._kind = kind
        self._driver = driver
        self._limit = max(1, round(spec.buffer_s * spec.sample_rate_hz))
        self._frames: deque[NDArray[np.float32]] = deque()
        self._count = 0
        self._waiting = threading.Condition()
        self._over = False
        self._called_at = time.monotonic()
        self._faults = 0
        asked = spec.input_device if kind == "input" else spec.output_device
        open_stream = driver.InputStream if kind == "input" else driver.OutputStream
        self._device = _find(driver, kind, asked)
        settings = {"samplerate": spec.sample_rate_hz, "channels": 2 if spec.mode == "iq" else 1, "dtype": "float32"}
        stream = None
        try:
            stream = open_stream(
                device=self._device["index"],
                latency=spec.latency,
                callback=self._called,
                finished_callback=self._finished,
                clip_off=True,
                dither_off=True,
                **settings,
            )
            stream.start()
        except Exception as error:  # PortAudioError; ValueError of sounddevice
            if stream is not None:
                with suppress(Exception):
                    stream.close()
            raise RadioError(
                f"sound card {self._device['name']!r} does not take {settings['channels']} {kind} channels at "
                f"{spec.sample_rate_hz:g} Hz ({_line(error)}): its own rate is {self._device['default_samplerate']:g} Hz"
            ) from error
        self._stream = stream
        if abs(stream.samplerate / spec.sample_rate_hz - 1) > _RATE_TOLERANCE:
            self.close()
            raise RadioError(
                f"sound card {self._device['name']!r} made {stream.samplerate:g} of {spec.sample_rate_hz:g} Hz"
            )

    def close(self) -> None:
        """Let go; of a device that is gone PortAudio may never let go, and is left to it."""
        ending = threading.Thread(target=self._end, daemon=True)
        ending.start()
        ending.join(_CLOSE_S)
        if ending.is_alive():
            log.warning("sound card %r is gone, and PortAudio does not let go of it", self._device["name"])
            _PORTAUDIO.leave_running(self._driver)

    def _end(self) -> None:
        for end in (self._stream.abort, self._stream.close):
            with suppress(Exception):
                end()

    def facts(self) -> dict[str, str | float | int | bool]:
        return {
            "device": self._device["name"],
            "latency_s": self._stream.latency,
            "sample_rate_hz": self._stream.samplerate,
            "overflows" if self._kind == "input" else "underflows": self._faults,
        }

    def _called(self, frames: NDArray[np.float32], count: int, times: Any, status: Any) -> None:
        raise NotImplementedError

    def _finished(self) -> None:
        with self._waiting:
            self._over = True
            self._waiting.notify_all()

    def _require(self) -> None:
        if self._over:
            raise RadioError(f"sound card {self._device['name']!r} is gone: its {self._kind} ended")
        if time.monotonic() >= self._called_at + _SILENT_S:
            raise RadioError(f"sound card {self._device['name']!r} is gone: its {self._kind} stands still")

    def _wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until it is ready, it is late, or the device is gone, which raises RadioError; `waiting` is held."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self._require()
            now = time.monotonic()
            if now >= deadline:
                return
            self._waiting.wait(max(0.0, min(deadline, self._called_at + _SILENT_S) - now))


class _Input(_Flow):
    """What is received. Where nobody takes it what is new is dropped, and counted."""

    def __init__(self, spec: Spec, driver: Any) -> None:
        self._lost: deque[int | None] = deque()
        """What is missing in front of each of the frames held."""
        self._missing: int | None = 0
        super().__init__(spec, driver, "input")

    def take(self, most: int, timeout_s: float) -> tuple[NDArray[np.float32], int | None]:
        """Frames up to the next gap, and what is missing in front of them; none where none came in time."""
        with self._waiting:
            self._wait(lambda: self._count > 0, timeout_s)
            lost = self._lost[0] if self._count else 0
            parts: list[NDArray[np.float32]] = []
            left = most = max(most, 0)
            while self._frames and left > 0 and (not parts or self._lost[0] == 0):
                first = self._frames.popleft()
                self._lost.popleft()
                if len(first) > left:
                    self._frames.appendleft(first[left:])
                    self._lost.appendleft(0)
                parts.append(first[:left])
                left -= len(parts[-1])
            self._count -= most - left
        if not parts:
            return np.zeros((0, 2), np.float32), 0
        return np.concatenate(parts), lost

    def _called(self, frames: NDArray[np.float32], count: int, times: Any, status: Any) -> None:
        with self._waiting:
            self._called_at = time.monotonic()
            if status.input_overflow:
                self._faults += 1
                self._missing = None
            if self._count + count > self._limit:
                self._missing = None if self._missing is None else self._missing + count
                return
            self._frames.append(frames.copy())
            self._lost.append(self._missing)
            self._missing = 0
            self._count += count
            self._waiting.notify_all()


class _Output(_Flow):
    """What is to be sent; silence where nothing is."""

    def __init__(self, spec: Spec, driver: Any) -> None:
        super().__init__(spec, driver, "output")

    def room(self, wanted: int, timeout_s: float) -> int:
        """For how many frames there is room, once there is for any."""
        with self._waiting:
            self._require()
            self._wait(lambda: self._count < self._limit, timeout_s)
            return min(wanted, self._limit - self._count)

    def put(self, frames: NDArray[np.float32]) -> None:
        with self._waiting:
            if len(frames):
                self._frames.append(frames)
                self._count += len(frames)

    def _called(self, frames: NDArray[np.float32], count: int, times: Any, status: Any) -> None:
        with self._waiting:
            self._called_at = time.monotonic()
            self._faults += bool(status.output_underflow)
            at = 0
            while at < count and self._frames:
                first = self._frames.popleft()
                part = first[: count - at]
                frames[at : at + len(part)] = part
                at += len(part)
                if len(part) < len(first):
                    self._frames.appendleft(first[len(part) :])
            frames[at:] = 0
            self._count -= at
            self._waiting.notify_all()


def _find(driver: Any, kind: Literal["input", "output"], asked: int | str | None) -> Any:
    """PortAudio's entry of a device."""
    try:
        return driver.query_devices(int(asked) if isinstance(asked, str) and asked.isdecimal() else asked, kind)
    except Exception as error:  # PortAudioError, ValueError
        able = [entry["name"] for entry in driver.query_devices() if entry[f"max_{kind}_channels"] > 0]
        if not able:
            raise RadioError(f"there is no sound card for {kind}") from error
        what = "default sound card" if asked is None else f"one sound card {asked!r}"
        raise RadioError(f"there is no {what} for {kind}: there are {', '.join(map(repr, able))}") from error


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
