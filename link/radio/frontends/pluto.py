"""A PlutoSDR through libiio, on USB or the network.

Two threads move the buffers, since a call of libiio returns when the device is done with it: `send` and `recv` only touch
queues, and so wait no longer than they are told. Samples that overflow while nobody receives are lost in the device, which
tells that some are, not how many.

Full scale of I and Q is 1 both ways: 2^15 of the transmitter's 16 bits, 2^11 of the receiver's 12. A sample beyond it is
clipped. On closing, the transmitter is left at its highest attenuation.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.signal import firwin

from link.errors import ArgumentError, DriverUnavailable, RadioError
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples

_T = TypeVar("_T")

LOWEST_ADC_HZ: Final = 25e6
"""The converters run no slower, at 12 times the sample rate at most, or 48 times with the programmable filter's 4."""
LOWEST_RATE_HZ: Final = LOWEST_ADC_HZ / 48
MOST_ATTENUATION_DB: Final = -89.75
TX_FULL_SCALE: Final = 2.0**15
RX_FULL_SCALE: Final = 2.0**11
_TAPS: Final = 128
_STATUS: Final = 0x8000_0088
_OVERFLOW: Final = 4


class Spec(FrontEndSpec):
    """A PlutoSDR, its frequencies in Hz and gains in dB as its driver has them; one of `rx_gain_db` and `agc` is given."""

    kind: ClassVar[str] = "pluto"
    needs: ClassVar[str | None] = "pip install 'hardpath[pluto]' && apt-get install libiio0"

    uri: str = Field(min_length=1, description="usb:, ip:192.168.2.1, ip:pluto.local ... as `iio_info -s` lists them")
    sample_rate_hz: Annotated[float, Field(ge=np.ceil(LOWEST_RATE_HZ), le=61.44e6)]
    tx_frequency_hz: Annotated[int, Field(ge=46_875_001, le=6_000_000_000)]
    rx_frequency_hz: Annotated[int, Field(ge=70_000_000, le=6_000_000_000)]
    tx_gain_db: Annotated[float, Field(ge=MOST_ATTENUATION_DB, le=0, description="0 is the most that it sends")]
    rx_gain_db: Annotated[float, Field(ge=-10, le=77)] | None = None
    agc: Literal["slow_attack", "fast_attack", "hybrid"] | None = None
    bandwidth_hz: Annotated[int, Field(ge=200_000, le=56_000_000)] | None = None
    """Of the analogue filters; None takes the sample rate, within what there is."""
    buffer_samples: Annotated[int, Field(ge=64, le=1 << 22)] = 1 << 15
    kernel_buffers: Annotated[int, Field(ge=2, le=64)] = 4
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    """After which a device that does not answer is gone."""

    @model_validator(mode="after")
    def _one_gain(self) -> Self:
        if (self.rx_gain_db is None) == (self.agc is None):
            raise ArgumentError("rx_gain_db", "or agc must be given, and not both")
        return self

    def build(self) -> Pluto:
        driver()
        return Pluto(self)

    def probe(self) -> list[dict[str, Any]]:
        return scan()


def driver() -> ModuleType:
    """libiio's Python module.

    Raises
    ------
    DriverUnavailable
        If it or the library is not installed.
    """
    try:
        import iio
    except (ImportError, OSError, AttributeError):  # without the library the module looks for its functions elsewhere
        raise DriverUnavailable("pluto", "libiio", str(Spec.needs)) from None
    if iio.version[0] != 0:
        raise DriverUnavailable("pluto", "libiio 0.x", f"libiio {iio.version[0]}.{iio.version[1]} is there")
    module: ModuleType = iio
    return module


def scan() -> list[dict[str, Any]]:
    """The Plutos that are attached: `uri` and `description` of each.

    Raises
    ------
    DriverUnavailable
        If libiio is not installed.
    """
    try:
        found = driver().scan_contexts()
    except OSError:
        return []
    return [{"uri": uri, "description": text} for uri, text in found.items() if "pluto" in text.lower()]


class _Devices(NamedTuple):
    context: Any
    phy: Any
    tx: Any
    rx: Any


class _Buffers(NamedTuple):
    tx: Any
    rx: Any


class Pluto(FrontEnd):
    """See `Spec`."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._devices: _Devices | None = None
        self._threads: list[threading.Thread] = []
        self._turn = threading.Condition()
        self._reset()

    def _reset(self) -> None:
        self._ending = False
        self._failure: str | None = None
        self._outgoing: deque[Samples] = deque()
        self._incoming: deque[Block] = deque()
        self._buffers: _Buffers | None = None

    @property
    def capabilities(self) -> Capabilities:
        spec = self._spec
        return Capabilities(
            sample_rate_hz=spec.sample_rate_hz, real_time=True, chunk=spec.buffer_samples, full_scale=1.0
        )

    def open(self) -> None:
        if self._devices is not None:
            return
        iio, spec = driver(), self._spec
        self._reset()
        try:
            context = iio.Context(spec.uri)
            context.set_timeout(round(spec.timeout_s * 1000))
        except OSError as error:
            raise RadioError(f"no PlutoSDR at {spec.uri}: {error.strerror}") from None
        names = ("ad9361-phy", "cf-ad9361-dds-core-lpc", "cf-ad9361-lpc")
        found = [context.find_device(name) for name in names]
        if not all(found):
            raise RadioError(f"{spec.uri} is no PlutoSDR: it has no {names[found.index(None)]}")
        devices = _Devices(context, *found)
        self._set_up(devices)
        try:
            buffers = _Buffers(*(iio.Buffer(device, spec.buffer_samples, False) for device in (devices.tx, devices.rx)))
        except OSError as error:
            why = "another program has it" if error.errno == errno.EBUSY else error.strerror
            raise RadioError(f"the PlutoSDR at {spec.uri} opens no buffer: {why}") from None
        self._devices, self._buffers = devices, buffers
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (
                ("pluto rx", partial(self._receive, buffers.rx, devices.rx)),
                ("pluto tx", partial(self._transmit, buffers.tx)),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _set_up(self, devices: _Devices) -> None:
        """Apply the settings, and make sure that it took them."""
        spec, phy = self._spec, devices.phy
        bandwidth = spec.bandwidth_hz or round(min(max(spec.sample_rate_hz, 200e3), 40e6))
        try:
            for tone in devices.tx.channels:
                if "raw" in tone.attrs:
                    _set(tone, "raw", 0)
            sent, received = phy.find_channel("voltage0", True), phy.find_channel("voltage0", False)
            _set(sent, "hardwaregain", spec.tx_gain_db)
            _set_rate(phy, received, spec.sample_rate_hz)
            for channel in (sent, received):
                _set(channel, "rf_bandwidth", bandwidth)
            for name, frequency in (("altvoltage0", spec.rx_frequency_hz), ("altvoltage1", spec.tx_frequency_hz)):
                _set(phy.find_channel(name, True), "frequency", frequency)
            _set(received, "gain_control_mode", spec.agc or "manual")
            if spec.rx_gain_db is not None:
                _set(received, "hardwaregain", spec.rx_gain_db)
            for device in (devices.tx, devices.rx):
                device.set_kernel_buffers_count(spec.kernel_buffers)
                for at in range(2):
                    device.find_channel(f"voltage{at}", device is devices.tx).enabled = True
            rate = _number(received, "sampling_frequency")
        except OSError as error:
            raise RadioError(f"the PlutoSDR at {spec.uri} cannot be set up: {error.strerror}") from None
        except (AttributeError, KeyError):  # of a channel that is not found
            raise RadioError(f"{spec.uri} is no PlutoSDR: it lacks channels or attributes of one") from None
        if abs(rate - spec.sample_rate_hz) > max(2.0, 1e-6 * spec.sample_rate_hz):
            raise RadioError(f"the PlutoSDR runs at {rate:.0f} samples a second, not at {spec.sample_rate_hz:.0f}")

    def send(self, samples: Samples, timeout_s: float) -> int:
        with self._turn:
            self._check()
            taken = samples[: self._wait_for(self._room, timeout_s)]
            if len(taken):
                self._outgoing.append(np.array(taken, dtype=np.complex64))
                self._turn.notify_all()
            return len(taken)

    def recv(self, most: int, timeout_s: float) -> Block:
        with self._turn:
            self._check(anyway=False)
            if most < 1 or not self._wait_for(lambda: self._incoming, timeout_s):
                return Block()
            first = self._incoming.popleft()
            if len(first.samples) > most:
                self._incoming.appendleft(Block(first.samples[most:]))
            self._turn.notify_all()
            return Block(first.samples[:most], first.lost)

    def close(self) -> None:
        devices, self._devices = self._devices, None
        if devices is None:
            return
        with self._turn:
            self._ending = True
            self._turn.notify_all()
        # A buffer on its way is waited for: one that is cancelled is free only when the device comes to notice.
        for thread in self._threads:
            thread.join(self._spec.timeout_s)
        if any(thread.is_alive() for thread in self._threads):
            for buffer in self._buffers or ():
                buffer.cancel()
            for thread in self._threads:
                thread.join(1)
        with contextlib.suppress(OSError):
            _set(devices.phy.find_channel("voltage0", True), "hardwaregain", MOST_ATTENUATION_DB)
        self._threads, self._buffers = [], None

    def facts(self) -> dict[str, str | float | int | bool]:
        if self._devices is None:
            return {}
        context, phy = self._devices.context, self._devices.phy
        facts: dict[str, str | float | int | bool] = {"uri": self._spec.uri}
        for name, key in (("model", "hw_model"), ("serial", "hw_serial"), ("firmware", "fw_version")):
            if key in context.attrs:
                facts[name] = context.attrs[key]
        with contextlib.suppress(OSError, AttributeError, KeyError):  # older firmware tells less
            facts["temperature_c"] = _number(phy.find_channel("temp0", False), "input") / 1000
            received = phy.find_channel("voltage0", False)
            facts["rx_gain_db"], facts["rssi_db"] = (_number(received, name) for name in ("hardwaregain", "rssi"))
            facts["tx_gain_db"] = _number(phy.find_channel("voltage0", True), "hardwaregain")
        return facts

    def _room(self) -> int:
        """Samples that the queue to the device still takes."""
        return self._spec.buffer_samples * self._spec.kernel_buffers - sum(map(len, self._outgoing))

    def _wait_for(self, there: Callable[[], _T], timeout_s: float) -> _T:
        """What is there once something is, or nothing in time; called with the turn held.

        Raises
        ------
        RadioError
            If the device is gone meanwhile.
        """
        self._turn.wait_for(lambda: there() or self._failure, timeout_s)
        if not there():
            self._check()  # nothing is left to hand over
        return there()

    def _check(self, anyway: bool = True) -> None:
        """Raise if the device is gone; what it received before is handed over first unless `anyway`."""
        if self._devices is None:
            raise RadioError("the PlutoSDR is not open")
        if self._failure is not None and (anyway or not self._incoming):
            raise RadioError(self._failure)

    def _run(self, work: Callable[[], None]) -> None:
        """Run a thread's work; what ends it ends the other one too, and is told to whoever calls next."""
        try:
            work()
        except OSError as error:
            with self._turn:
                if not self._ending:
                    self._failure = f"the PlutoSDR at {self._spec.uri} is gone: {error.strerror}"
                self._ending = True
                self._turn.notify_all()

    def _receive(self, buffer: Any, device: Any) -> None:
        """Hand over buffer after buffer; where nobody takes them the device overflows, and says so."""
        device.reg_write(_STATUS, _OVERFLOW)
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._ending or len(self._incoming) < self._spec.kernel_buffers)
                if self._ending:
                    return
            buffer.refill()
            iq = np.frombuffer(buffer.read(), "<i2").astype(np.float32) / np.float32(RX_FULL_SCALE)
            overflowed = device.reg_read(_STATUS) & _OVERFLOW
            if overflowed:
                device.reg_write(_STATUS, _OVERFLOW)
            with self._turn:
                self._incoming.append(Block(iq.view(np.complex64), None if overflowed else 0))
                self._turn.notify_all()

    def _transmit(self, buffer: Any) -> None:
        """Push what is to be sent, as much at a time as there is."""
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._ending or self._outgoing)
                if self._ending:
                    return
                samples = self._outgoing.popleft()
                self._turn.notify_all()
            for start in range(0, len(samples), self._spec.buffer_samples):
                part = samples[start : start + self._spec.buffer_samples]
                buffer.write(bytearray(_quantise(part).tobytes()))
                buffer.push(len(part))


def _quantise(samples: Samples) -> NDArray[np.int16]:
    """(n, 2) int16: I and Q at the transmitter's full scale, clipped."""
    iq = np.ascontiguousarray(samples).view(np.float32).reshape(-1, 2)
    levels: NDArray[np.int16] = np.clip(np.rint(iq * TX_FULL_SCALE), -TX_FULL_SCALE, TX_FULL_SCALE - 1).astype("<i2")
    return levels


def _set(channel: Any, name: str, value: object) -> None:
    channel.attrs[name].value = str(value)


def _number(channel: Any, name: str) -> float:
    return float(channel.attrs[name].value.split()[0])


def _set_rate(phy: Any, channel: Any, rate_hz: float) -> None:
    """Set the sample rate; below 25 MHz / 12 with the programmable filter, which halves the rate twice more."""
    fir = phy.find_channel("out", False)
    if fir.attrs["voltage_filter_fir_en"].value.strip() != "0":
        if _number(channel, "sampling_frequency") <= LOWEST_ADC_HZ / 12:
            _set(channel, "sampling_frequency", 3_000_000)  # a rate at which the filter can be taken out
        _set(fir, "voltage_filter_fir_en", 0)
    if rate_hz <= LOWEST_ADC_HZ / 12:
        # Two is the gain at 0 Hz that the interpolator by four needs; the receiver takes the 6 dB off.
        taps = np.rint(firwin(_TAPS, 0.9 / 4) * 2 * (1 << 15)).astype(int)
        lines = ["RX 3 GAIN -6 DEC 4", "TX 3 GAIN 0 INT 4", *(f"{tap},{tap}" for tap in taps), ""]
        _set(channel, "sampling_frequency", 3_000_000)
        phy.attrs["filter_fir_config"].value = "\n".join(lines)
        _set(fir, "voltage_filter_fir_en", 1)
    _set(channel, "sampling_frequency", round(rate_hz))
