"""A software-defined radio through SoapySDR: any for which there is a SoapySDR module.

Run with SoapySDR 0.8 itself, on its audio module: finding, opening and setting a device, reception as CF32 and as CS16,
overflow, a device that goes. Never run, for no device does it without hardware: transmission, time stamps, and with them the
count of what an overflow lost. They follow SoapySDR's documentation, and their tests show them a stand-in of the module.

https://pothosware.github.io/SoapySDR/doxygen/latest/classSoapySDR_1_1Device.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from link.errors import ArgumentError, RadioError
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples
from link.radio.frontends.soapysdr import INSTALL, soapysdr

FORMATS: Final = ("CF32", "CS16")
"""Those that are spoken, the better first."""

CS16_FULL_SCALE: Final = 32768.0
"""1.0 in CS16, as SoapySDR's own converters have it."""

_RATE_TOLERANCE: Final = 1e-6
_FREQUENCY_TOLERANCE: Final = 1e-5
"""Steps of a synthesizer are far below it, and so is what an oscillator is off."""
_AHEAD: Final = 1.01
_STATUS_MAX: Final = 16


class Spec(FrontEndSpec):
    """A device of SoapySDR, and how it is set.

    Attributes
    ----------
    device : str
        Which one, as SoapySDR writes it: "driver=lime" or "driver=rtlsdr,serial=00000001"; `probe` lists them.
    sample_rate_hz : float
        In both directions.
    sends, receives : bool
        Which directions are used.
    tunable : bool
        False for a device that has no tuner, such as a sound card: nothing is tuned then, and no frequency is given.
    rx_frequency_hz, tx_frequency_hz : float
        Of the carrier; to be given for each direction that is used.
    rx_gain_db : float or None
        None for the device's automatic gain where it has one, and else for what it has set.
    tx_gain_db : float
        To be given where it sends.
    rx_antenna, tx_antenna : str or None
        None for the device's own choice.
    rx_channel, tx_channel : int
    bandwidth_hz : float or None
        Of its analogue filters, in both directions; None for the device's own choice.
    rx_stream, tx_stream : str
        Further arguments of the stream, as SoapySDR writes them: "chan=stereo_iq".
    """

    kind: ClassVar[str] = "soapy"
    needs: ClassVar[str | None] = INSTALL

    device: str = Field(min_length=1)
    sample_rate_hz: float = Field(gt=0)
    sends: bool = True
    receives: bool = True
    tunable: bool = True
    rx_frequency_hz: float | None = Field(default=None, ge=0)
    tx_frequency_hz: float | None = Field(default=None, ge=0)
    rx_gain_db: float | None = None
    tx_gain_db: float | None = None
    rx_antenna: str | None = None
    tx_antenna: str | None = None
    rx_channel: int = Field(default=0, ge=0)
    tx_channel: int = Field(default=0, ge=0)
    bandwidth_hz: float | None = Field(default=None, gt=0)
    rx_stream: str = ""
    tx_stream: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not (self.sends or self.receives):
            raise ArgumentError("receives", "must be true where sends is false")
        for used, name in ((self.receives, "rx_frequency_hz"), (self.sends, "tx_frequency_hz")):
            given = getattr(self, name) is not None
            if used and self.tunable and not given:
                raise ArgumentError(name, "must be given; of a device without a tuner say that tunable is false")
            if given and not self.tunable:
                raise ArgumentError(name, "must not be given where tunable is false")
        if self.sends and self.tx_gain_db is None:
            raise ArgumentError("tx_gain_db", "must be given")
        for name in ("rx_stream", "tx_stream"):
            markup = getattr(self, name)
            if markup and not all("=" in part for part in markup.split(",")):
                raise ArgumentError(name, f"must be KEY=VALUE,KEY=VALUE, got {markup!r}")
        return self

    def build(self) -> Soapy:
        return Soapy(self, soapysdr())

    def probe(self) -> list[dict[str, Any]]:
        return [dict(found) for found in soapysdr().Device.enumerate()]


class _Stream(NamedTuple):
    """A stream of one direction. `handle` is SoapySDR's, `form` one of `FORMATS`, `chunk` in samples."""

    handle: Any
    form: str
    chunk: int


class Soapy(FrontEnd):
    """A device of SoapySDR. `driver` is the module SoapySDR."""

    def __init__(self, spec: Spec, driver: Any) -> None:
        self._spec = spec
        self._driver = driver
        self._device: Any = None
        self._rx: _Stream | None = None
        self._tx: _Stream | None = None
        self._has_time = False

    @property
    def capabilities(self) -> Capabilities:
        open_streams = [stream for stream in (self._rx, self._tx) if stream is not None]
        return Capabilities(
            sends=self._spec.sends,
            receives=self._spec.receives,
            sample_rate_hz=self._spec.sample_rate_hz,
            chunk=max((stream.chunk for stream in open_streams), default=Capabilities.chunk),
            full_scale=1.0,
            timestamps=self._has_time,
            real_time=True,
        )

    def open(self) -> None:
        if self._device is not None:
            return
        spec, sdr = self._spec, self._driver
        try:
            with self._told():
                self._device = sdr.Device(spec.device)
                both = spec.sends and spec.receives
                if both and not self._device.getFullDuplex(sdr.SOAPY_SDR_RX, spec.rx_channel):
                    raise self._error("is half duplex: it sends or receives, and sends or receives must be false")
                if spec.receives:
                    self._rx = self._start(sdr.SOAPY_SDR_RX, "rx")
                if spec.sends:
                    self._tx = self._start(sdr.SOAPY_SDR_TX, "tx")
                self._has_time = bool(spec.receives and self._device.hasHardwareTime())
        except BaseException:
            self.close()
            raise
        self._started = time.monotonic()
        self._taken = 0
        self._gap = False
        self._anchor: tuple[int, int] | None = None
        """A time stamp in ns, and how many samples were taken since."""
        self._underflows = 0
        self._tells_status = True

    def send(self, samples: Samples, timeout_s: float) -> int:
        stream, sdr = self._stream(self._tx, "send"), self._driver
        if not len(samples):
            return 0
        data = _encode(samples, stream.form)
        deadline = time.monotonic() + timeout_s
        while True:
            with self._told():
                code = self._device.writeStream(
                    stream.handle, [data], len(samples), timeoutUs=_microseconds(deadline - time.monotonic())
                ).ret
            if code >= 0:
                self._count_underflows(stream)
                return int(code)
            if code == sdr.SOAPY_SDR_UNDERFLOW:
                self._underflows += 1
            elif code != sdr.SOAPY_SDR_TIMEOUT:
                raise self._error(f"does not send: {sdr.errToStr(code)}")
            if time.monotonic() >= deadline:
                return 0

    def recv(self, most: int, timeout_s: float) -> Block:
        stream, sdr = self._stream(self._rx, "receive"), self._driver
        most = min(most, Capabilities.chunk)
        if most < 1:
            return Block()
        buffer = np.empty(2 * most, np.float32 if stream.form == "CF32" else np.int16)
        deadline = time.monotonic() + timeout_s
        while True:
            with self._told():
                got = self._device.readStream(
                    stream.handle, [buffer], most, timeoutUs=_microseconds(deadline - time.monotonic())
                )
            if got.ret > 0:
                return self._block(_decode(buffer[: 2 * got.ret], stream.form), got)
            if got.ret in (sdr.SOAPY_SDR_OVERFLOW, sdr.SOAPY_SDR_CORRUPTION):
                self._gap = True
            elif got.ret not in (0, sdr.SOAPY_SDR_TIMEOUT):
                raise self._error(f"does not receive: {sdr.errToStr(got.ret)}")
            if time.monotonic() >= deadline:
                return Block()

    def close(self) -> None:
        device, streams = self._device, (self._rx, self._tx)
        self._device = self._rx = self._tx = None
        if device is None:
            return
        for stream in streams:
            if stream is not None:
                for end in (device.deactivateStream, device.closeStream):
                    with suppress(Exception):
                        end(stream.handle)
        with suppress(Exception):
            device.close()

    def facts(self) -> dict[str, str | float | int | bool]:
        if self._device is None:
            return {}
        with self._told():
            device, sdr, spec = self._device, self._driver, self._spec
            told: dict[str, str | float | int | bool] = dict(device.getHardwareInfo())
            told |= {"driver": device.getDriverKey(), "hardware": device.getHardwareKey()}
            for name, direction, stream in (("rx", sdr.SOAPY_SDR_RX, self._rx), ("tx", sdr.SOAPY_SDR_TX, self._tx)):
                if stream is None:
                    continue
                channel = getattr(spec, f"{name}_channel")
                told |= {
                    f"{name}_sample_rate_hz": device.getSampleRate(direction, channel),
                    f"{name}_bandwidth_hz": device.getBandwidth(direction, channel),
                    f"{name}_gain_db": device.getGain(direction, channel),
                    f"{name}_gain_automatic": device.getGainMode(direction, channel),
                    f"{name}_antenna": device.getAntenna(direction, channel),
                    f"{name}_format": stream.form,
                }
                if spec.tunable:
                    told[f"{name}_frequency_hz"] = device.getFrequency(direction, channel)
            if self._tx is not None:
                told["tx_underflows"] = self._underflows
        return told

    def _start(self, direction: int, name: str) -> _Stream:
        """Set a direction, and see that the device has taken it; `name` is rx or tx."""
        spec, device = self._spec, self._device
        channel: int = getattr(spec, f"{name}_channel")
        if channel >= (there := device.getNumChannels(direction)):
            raise self._error(f"has no {name} channel {channel}: it has {there}")
        at = (direction, channel)
        # Asked as well as read back: SoapySDR's audio module, for one, gives back any rate that it is told.
        rates = device.getSampleRateRange(*at)
        self._require(f"{name} sample rates", spec.sample_rate_hz, rates, "Hz")
        device.setSampleRate(*at, spec.sample_rate_hz)
        actual = device.getSampleRate(*at)
        if abs(actual / spec.sample_rate_hz - 1) > _RATE_TOLERANCE:
            raise self._error(
                f"made {actual:.10g} of a {name} sample rate of {spec.sample_rate_hz:.10g} Hz: it has {_listed(rates)} Hz"
            )
        if (antenna := getattr(spec, f"{name}_antenna")) is not None:
            if antenna not in (known := device.listAntennas(*at)):
                raise self._error(f"has no {name} antenna {antenna!r}: it has {', '.join(known)}")
            device.setAntenna(*at, antenna)
        self._tune(at, name)
        if (gain := getattr(spec, f"{name}_gain_db")) is not None:
            self._require(f"{name} gains", gain, [device.getGainRange(*at)], "dB")
            if device.hasGainMode(*at):
                device.setGainMode(*at, False)
            device.setGain(*at, gain)
        elif device.hasGainMode(*at):
            device.setGainMode(*at, True)
        if spec.bandwidth_hz is not None:
            device.setBandwidth(*at, spec.bandwidth_hz)
        spoken = device.getStreamFormats(*at)
        form = next((form for form in FORMATS if form in spoken), None)
        if form is None:
            raise self._error(f"has {name} streams of {', '.join(spoken)}, and none of {', '.join(FORMATS)}")
        markup: str = getattr(spec, f"{name}_stream")
        arguments = dict(part.strip().split("=", 1) for part in markup.split(",")) if markup else {}
        handle = device.setupStream(direction, form, [channel], arguments)
        chunk = max(1, int(device.getStreamMTU(handle)))
        if code := device.activateStream(handle):
            device.closeStream(handle)
            raise self._error(f"does not start its {name} stream: {self._driver.errToStr(code)}")
        return _Stream(handle, form, chunk)

    def _tune(self, at: tuple[int, int], name: str) -> None:
        asked, device = getattr(self._spec, f"{name}_frequency_hz"), self._device
        ranges = device.getFrequencyRange(*at)
        if asked is None:
            if name == "tx" and any(span.maximum() > 0 for span in ranges):
                raise self._error("has a tuner: tx_frequency_hz must be given")
            return
        self._require(f"{name} frequencies", asked, ranges, "Hz")
        device.setFrequency(*at, asked)
        actual = device.getFrequency(*at)
        if abs(actual - asked) > _FREQUENCY_TOLERANCE * asked:
            raise self._error(f"tuned {name} to {actual:.10g} Hz instead of {asked:.10g} Hz")

    def _block(self, samples: Samples, got: Any) -> Block:
        rate = self._spec.sample_rate_hz
        self._taken += len(samples)
        if self._taken > rate * (1.0 + _AHEAD * (time.monotonic() - self._started)):
            # What becomes of SoapySDR's audio module once its sound server is gone: the last block, again and again.
            raise self._error("gives samples faster than its clock runs: it is gone, and its driver does not say so")
        lost: int | None = None if self._gap else 0
        taken_ns = int(got.timeNs) if got.flags & self._driver.SOAPY_SDR_HAS_TIME else None
        if taken_ns is not None:
            if self._anchor is not None:
                missing = round((taken_ns - self._anchor[0]) * rate / 1e9) - self._anchor[1]
                lost = missing if missing >= 0 else lost
            self._anchor = (taken_ns, len(samples))
        elif self._gap or self._anchor is None:
            self._anchor = None
        else:
            self._anchor = (self._anchor[0], self._anchor[1] + len(samples))
        self._gap = bool(got.flags & self._driver.SOAPY_SDR_END_ABRUPT)
        return Block(samples, lost, taken_ns)

    def _count_underflows(self, stream: _Stream) -> None:
        for _ in range(_STATUS_MAX):
            if not self._tells_status:
                return
            with self._told():
                code = self._device.readStreamStatus(stream.handle, timeoutUs=0).ret
            self._tells_status = code != self._driver.SOAPY_SDR_NOT_SUPPORTED
            if code != self._driver.SOAPY_SDR_UNDERFLOW:
                return
            self._underflows += 1

    def _require(self, what: str, value: float, ranges: Any, unit: str) -> None:
        """Raise RadioError where a value is in none of the ranges, if there are any."""
        slack = 1e-9 * abs(value)
        if len(ranges) and not any(span.minimum() - slack <= value <= span.maximum() + slack for span in ranges):
            raise self._error(f"has {what} of {_listed(ranges)} {unit}, got {value:.10g}")

    def _stream(self, stream: _Stream | None, verb: str) -> _Stream:
        if self._device is None:
            raise self._error("is not open")
        if stream is None:
            raise self._error(f"was not opened to {verb}")
        return stream

    def _error(self, message: str) -> RadioError:
        return RadioError(f"SoapySDR device {self._spec.device!r} {message}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a driver raises, which may be anything, as RadioError."""
        try:
            yield
        except RadioError:
            raise
        except Exception as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise self._error(f"cannot be used: {first}") from error


def _decode(interleaved: NDArray[Any], form: str) -> Samples:
    """Samples from (I, Q, I, Q, ...); a copy."""
    scale = np.float32(1.0 if form == "CF32" else 1 / CS16_FULL_SCALE)
    scaled: NDArray[np.float32] = np.multiply(interleaved, scale, dtype=np.float32)
    return scaled.view(np.complex64)


def _encode(samples: Samples, form: str) -> NDArray[Any]:
    """(I, Q, I, Q, ...) from samples; CS16 clips, and rounds to the nearest."""
    interleaved = np.ascontiguousarray(samples, np.complex64).view(np.float32)
    if form == "CF32":
        return interleaved
    scaled = np.rint(interleaved * np.float32(CS16_FULL_SCALE))
    clipped: NDArray[Any] = np.clip(scaled, -CS16_FULL_SCALE, CS16_FULL_SCALE - 1).astype(np.int16)
    return clipped


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def _listed(ranges: Any) -> str:
    """Ranges of SoapySDR, for people."""
    spans = ((span.minimum(), span.maximum()) for span in ranges)
    return ", ".join(f"{low:.10g}" if low == high else f"{low:.10g} to {high:.10g}" for low, high in spans)
