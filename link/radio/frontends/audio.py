"""A sound card as a radio, through PortAudio: complex baseband on two channels, or a real carrier on one.

    iq        left is I, right is Q: a cable from line out to line in, or what expects baseband on a sound card
    passband  I and Q on a real carrier, as link/radio/frontends/passband.py has it: a speaker and a microphone will do

Either way I and Q reach from -1 to 1, and come back as they were sent but for the way. In passband what is received comes
later by the delay of the low-pass. No block says when it was taken, since not every sound system knows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from link.errors import ArgumentError, RadioError, require_range
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples
from link.radio.frontends.passband import WIDEST, DownConverter, UpConverter, room
from link.radio.frontends.portaudio import PORTAUDIO, Input, Output, Settings, sounddevice

_ROOM_MIN: Final = 1 / 200
"""Of a carrier, in cycles a sample: closer to 0 or 1/2 the low-pass has thousands of taps."""


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
        PORTAUDIO.look(driver)
        return [dict(device) for device in driver.query_devices()]


class Audio(FrontEnd):
    """A sound card. `driver` is the module sounddevice."""

    def __init__(self, spec: Spec, driver: Any) -> None:
        self._spec = spec
        self._driver = driver
        self._held = False
        self._input: Input | None = None
        self._output: Output | None = None
        self._up: UpConverter | None = None
        self._down: DownConverter | None = None

    @property
    def capabilities(self) -> Capabilities:
        spec = self._spec
        rate = spec.sample_rate_hz
        return Capabilities(spec.sends, spec.receives, rate, real_time=True, chunk=1 << 12, full_scale=1.0)

    def open(self) -> None:
        if self._held:
            return
        spec = self._spec
        PORTAUDIO.enter(self._driver)
        self._held = True
        try:
            if spec.carrier_hz is not None:
                nu = spec.carrier_hz / spec.sample_rate_hz
                widest = WIDEST * room(nu)
                edge = widest if spec.bandwidth_hz is None else min(widest, spec.bandwidth_hz / 2 / spec.sample_rate_hz)
                self._up, self._down = UpConverter(nu), DownConverter(nu, edge)
            channels = 2 if spec.mode == "iq" else 1
            settings = Settings(spec.sample_rate_hz, channels, spec.latency, round(spec.buffer_s * spec.sample_rate_hz))
            if spec.receives:
                self._input = Input(spec.input_device, settings, self._driver)
            if spec.sends:
                self._output = Output(spec.output_device, settings, self._driver)
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
            PORTAUDIO.leave()

    def facts(self) -> dict[str, str | float | int | bool]:
        told: dict[str, str | float | int | bool] = {}
        for name, stream in (("input", self._input), ("output", self._output)):
            if stream is not None:
                told |= {f"{name}_{fact}": value for fact, value in stream.facts().items()}
        return told
