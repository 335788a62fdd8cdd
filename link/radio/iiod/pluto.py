"""A simulated Pluto: its devices, settings and samples, shared by the connections to it."""

from __future__ import annotations

import errno
import logging
import threading
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from link.radio.frontend import FrontEnd
from link.radio.iiod.attributes import Device, Refused
from link.radio.iiod.context import RX, TX, context_xml, devices
from link.radio.iiod.phy import Phy
from link.radio.iiod.stream import Stream

_log = logging.getLogger(__name__)

MOST_SAMPLES: Final = 1 << 24
"""Samples that a buffer, or the kernel's buffers together, hold at most: the memory of a Pluto is of that order."""
FIRST_TIMEOUT_S: Final = 2.5
STATUS: Final = 0x8000_0088
"""Register of a converter's core that tells overflow and underflow; its bits are cleared by writing them."""

Side = Literal["tx", "rx"]


@dataclass(frozen=True)
class Buffer:
    """A buffer that a client opened: samples a block, channels as a bit mask, and whether it repeats."""

    device: str
    size: int
    mask: int
    cyclic: bool

    @property
    def side(self) -> Side:
        """Which of the two converters it belongs to."""
        return "tx" if self.device == TX else "rx"

    @property
    def columns(self) -> list[int]:
        """Which of I and Q it carries."""
        return [at for at in range(2) if self.mask >> at & 1]

    def samples(self, size: int) -> int:
        """Samples in so many bytes.

        Raises
        ------
        Refused
            If they are not whole samples, or more than the buffer holds.
        """
        samples, rest = divmod(size, 2 * len(self.columns))
        if rest or samples > self.size:
            raise Refused(errno.EINVAL, f"must be whole samples, at most {self.size}")
        return samples


class Register:
    """Access to the registers of a device: write an address, or an address and a value; read the value."""

    def __init__(self, stream: Stream, side: Side | None) -> None:
        self._stream, self._side = stream, side
        self._address = 0

    def read(self) -> str:
        status = self._side is not None and self._address == STATUS
        return f"0x{self._stream.status(self._side) if status and self._side else 0:X}"

    def write(self, text: str) -> None:
        try:
            address, *value = (int(word, 0) for word in text.split())
        except ValueError:
            raise Refused(errno.EINVAL, "must be an address, or an address and a value") from None
        if len(value) > 1 or not 0 <= address < 1 << 32:
            raise Refused(errno.EINVAL, "must be an address, or an address and a value")
        self._address = address
        if value and self._side and address == STATUS:
            self._stream.status(self._side, clear=value[0])


class Pluto:
    """Devices by id, their description, and the buffers, each of which one client at a time owns.

    Attributes
    ----------
    timeout_s : float
        How long reads and writes of samples wait. It is one for all connections, as in iiod: libiio sets it on the one that
        carries no samples.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self.timeout_s = FIRST_TIMEOUT_S
        self.phy = Phy()
        self.stream = Stream(front_end, self.phy)
        self._front_end = front_end
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        sides: dict[str, Side] = {TX: "tx", RX: "rx"}
        held = devices(self.phy, lambda device: Register(self.stream, sides.get(device)))
        self._devices = {device.id: device for device in held}
        self.xml = context_xml(held)

    def device(self, name: str) -> Device:
        """The device of an id or name.

        Raises
        ------
        Refused
            If there is none.
        """
        for device in self._devices.values():
            if name in (device.id, device.name):
                return device
        raise Refused(errno.ENODEV, f"no device {name}")

    def open(self, device: str, size: int, mask: int, cyclic: bool, count: int) -> Buffer:
        """Open a converter's buffer of so many samples, `count` of which the kernel holds.

        Raises
        ------
        Refused
            If another client has it, or the front end does not run at the rate that is set or cannot do it.
        RadioError
            If the front end was lost, and is still gone.
        """
        if device not in (TX, RX) or not 0 < mask < 4 or (cyclic and device == RX):
            raise Refused(errno.EINVAL, "it has no such buffer")
        if not 0 < size <= MOST_SAMPLES:
            raise Refused(errno.ENOMEM, f"must be at most {MOST_SAMPLES} samples")
        buffer = Buffer(device, size, mask, cyclic)
        self.stream.revive()
        self._check_front_end(buffer.side)
        with self._lock:
            if device in self._taken:
                _log.warning("%s is in use: a second client is refused", self._devices[device].name)
                raise Refused(errno.EBUSY, "another client has it")
            self._taken.add(device)
        room = min(count * size, MOST_SAMPLES)
        if buffer.side == "tx":
            self.stream.open_tx(room, cyclic)
        else:
            self.stream.open_rx(room)
        return buffer

    def _check_front_end(self, side: Side) -> None:
        can = self._front_end.capabilities
        if not (can.sends if side == "tx" else can.receives):
            raise Refused(errno.EOPNOTSUPP, "the front end cannot do that")
        rate = (self.phy.tx_rate if side == "tx" else self.phy.rx_rate).value
        if can.sample_rate_hz is not None and abs(rate - can.sample_rate_hz) > 1e-6 * can.sample_rate_hz:
            _log.warning("refused: the program asks for %.0f Hz, the link runs at %.0f Hz", rate, can.sample_rate_hz)
            raise Refused(errno.EINVAL, "the front end runs at another rate")

    def close(self, device: str) -> None:
        """Close a buffer that is open."""
        if device == TX:
            self.stream.close_tx()
        else:
            self.stream.close_rx()
        with self._lock:
            self._taken.discard(device)

    def check_writes(self, buffer: Buffer) -> None:
        """Raise Refused unless it is a transmitter's."""
        if buffer.side != "tx":
            raise Refused(errno.EINVAL, "a receiver's buffer is not written")

    def read(self, buffer: Buffer, samples: int, timeout_s: float) -> NDArray[np.int16]:
        """As `Stream.read`, of a receiver's buffer."""
        if buffer.side != "rx":
            raise Refused(errno.EINVAL, "a transmitter's buffer is not read")
        return self.stream.read(samples, timeout_s)

    def write(self, buffer: Buffer, iq: NDArray[np.int16], timeout_s: float) -> None:
        """As `Stream.write`."""
        self.stream.write(iq, timeout_s)
