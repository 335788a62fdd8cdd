"""Streams of a sound card, through PortAudio and its Python module sounddevice: frames held on their way in and out.

PortAudio calls from a thread of its own, once a block. That thread never waits but for a moment's lock, and whoever waits
for it does so for a bounded time: of a device that goes PortAudio tells, or stands still, or never lets go, as it happens.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.errors import DriverUnavailable, RadioError

log = logging.getLogger(__name__)

SILENT_S: Final = 3.0
"""A stream that has not called for so long is gone, though PortAudio does not say so."""
CLOSE_S: Final = 2.0
_RATE_TOLERANCE: Final = 1e-6


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


PORTAUDIO: Final = _PortAudio()


class Settings(NamedTuple):
    """Of a stream.

    Attributes
    ----------
    sample_rate_hz : float
    channels : int
    latency : float or {"low", "high"}
        Seconds that the sound system holds, or its own proposal.
    frames : int
        How many are held here at most.
    """

    sample_rate_hz: float
    channels: int
    latency: float | Literal["low", "high"]
    frames: int


class _Flow:
    """A stream of PortAudio in one direction, and what is held on its way.

    `waiting` guards all that follows it; `over` is set once the stream has ended without being told to.
    """

    def __init__(
        self, asked: int | str | None, settings: Settings, driver: Any, kind: Literal["input", "output"]
    ) -> None:
        self._kind = kind
        self._driver = driver
        self._channels = settings.channels
        self._limit = max(1, settings.frames)
        self._frames: deque[NDArray[np.float32]] = deque()
        self._count = 0
        self._waiting = threading.Condition()
        self._over = False
        self._called_at = time.monotonic()
        self._faults = 0
        open_stream = driver.InputStream if kind == "input" else driver.OutputStream
        self._device = _find(driver, kind, asked)
        stream = None
        try:
            stream = open_stream(
                device=self._device["index"],
                latency=settings.latency,
                callback=self._called,
                finished_callback=self._finished,
                clip_off=True,
                dither_off=True,
                samplerate=settings.sample_rate_hz,
                channels=settings.channels,
                dtype="float32",
            )
            stream.start()
        except Exception as error:  # PortAudioError; ValueError of sounddevice
            if stream is not None:
                with suppress(Exception):
                    stream.close()
            raise RadioError(
                f"sound card {self._device['name']!r} does not take {settings.channels} {kind} channels at "
                f"{settings.sample_rate_hz:g} Hz ({_line(error)}): its own rate is {self._device['default_samplerate']:g} Hz"
            ) from error
        self._stream = stream
        if abs(stream.samplerate / settings.sample_rate_hz - 1) > _RATE_TOLERANCE:
            self.close()
            raise RadioError(
                f"sound card {self._device['name']!r} made {stream.samplerate:g} of {settings.sample_rate_hz:g} Hz"
            )

    def close(self) -> None:
        """Let go; of a device that is gone PortAudio may never let go, and is left to it."""
        ending = threading.Thread(target=self._end, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        if ending.is_alive():
            log.warning("sound card %r is gone, and PortAudio does not let go of it", self._device["name"])
            PORTAUDIO.leave_running(self._driver)

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
        if time.monotonic() >= self._called_at + SILENT_S:
            raise RadioError(f"sound card {self._device['name']!r} is gone: its {self._kind} stands still")

    def _wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until it is ready, it is late, or the device is gone, which raises RadioError; `waiting` is held."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self._require()
            now = time.monotonic()
            if now >= deadline:
                return
            self._waiting.wait(max(0.0, min(deadline, self._called_at + SILENT_S) - now))


class Input(_Flow):
    """What is received. Where nobody takes it what is new is dropped, and counted."""

    def __init__(self, asked: int | str | None, settings: Settings, driver: Any) -> None:
        self._lost: deque[int | None] = deque()
        """What is missing in front of each of the frames held."""
        self._missing: int | None = 0
        super().__init__(asked, settings, driver, "input")

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
            return np.zeros((0, self._channels), np.float32), 0
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


class Output(_Flow):
    """What is to be sent; silence where nothing is."""

    def __init__(self, asked: int | str | None, settings: Settings, driver: Any) -> None:
        super().__init__(asked, settings, driver, "output")

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
