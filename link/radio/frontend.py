"""What a front end is: samples in, samples out, and nothing that knows of frames.

    open ──> send, recv, send, recv, ... ──> close

`send` and `recv` never wait longer than they are told, take or give fewer samples than there are rather than wait, and are
called in turn by one thread: so a program that sends more than the device holds reads in between, and can always be
stopped. Samples are complex64 at complex baseband. What is missing from the stream is said and never filled in by guessing.

A front end is described by a `FrontEndSpec` of its own, which knows the options and builds the front end; drivers are
imported when it is built. Both stand in one file, link/radio/frontends/KIND.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from link.randomness import Draws

Samples: TypeAlias = NDArray[np.complex64]

EMPTY: Samples = np.zeros(0, dtype=np.complex64)
EMPTY.flags.writeable = False


class Block(NamedTuple):
    """What one `recv` gave.

    Attributes
    ----------
    samples : (n,) complex64
        In order; empty where none came in time.
    lost : int or None
        Samples that are missing in front of these: 0 where none is, None where some are and nobody can tell how many.
    time_ns : int or None
        When the first one was taken, by the device's clock; None where it has none.
    """

    samples: Samples = EMPTY
    lost: int | None = 0
    time_ns: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a front end can do.

    Attributes
    ----------
    sends, receives : bool
    sample_rate_hz : float or None
        None where nobody knows, or it means nothing.
    real_time : bool
        Whether samples go on by a clock of their own, read or not; elsewhere they go as fast as the programs take them.
    chunk : int
        Samples that it best takes or gives at once.
    full_scale : float or None
        Amplitude of I or Q beyond which it clips; None where there is no such limit.
    timestamps : bool
        Whether blocks say when they were taken.
    sets_noise : bool
        Whether it is simulated, and its noise is set by `SimulatedFrontEnd.at`.
    exclusive : bool
        Whether a second one of this description cannot be opened at the same time.
    """

    sends: bool = True
    receives: bool = True
    sample_rate_hz: float | None = None
    real_time: bool = False
    chunk: int = 1 << 16
    full_scale: float | None = None
    timestamps: bool = False
    sets_noise: bool = False
    exclusive: bool = True


class FrontEnd(ABC):
    """A device, or what stands for one. A context manager: open on entry, closed on exit."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do; of a device, once it is open."""

    @abstractmethod
    def open(self) -> None:
        """Take hold of the device; does nothing where it is held.

        Raises
        ------
        DriverUnavailable
            If its driver is not installed.
        RadioError
            If it is not there, or does not take the settings.
        RecordingError
            If a recording cannot be played.
        """

    @abstractmethod
    def send(self, samples: Samples, timeout_s: float) -> int:
        """Hand over samples, the first ones first; how many were taken, 0 where there was no room in time.

        Raises
        ------
        RadioError
            If the device is gone or was not opened.
        """

    @abstractmethod
    def recv(self, most: int, timeout_s: float) -> Block:
        """Take at most so many samples, fewer where fewer are there, none where none came in time; errors as for `send`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; raises nothing, and does nothing where it is closed."""

    def attached(self, timeout_s: float) -> bool:
        """Whether who is at the other side shows within that time, as far as can be told of an open one without sending.

        Raises
        ------
        RadioError
            As for `send`.
        """
        return True

    def facts(self) -> dict[str, str | float | int | bool]:
        """What a device says of itself once it is open, for people: its serial number, gains, temperatures."""
        return {}

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SimulatedFrontEnd(FrontEnd):
    """A front end whose noise is set, and drawn by address."""

    @abstractmethod
    def at(self, snr_db: float, draws: Draws) -> None:
        """From here on simulate Es/N0 = `snr_db` for symbols of unit energy, with randomness of the first row of `draws`.

        Samples on their way are dropped: the link is as just opened, and the setting outlives that it is closed.
        """


class FrontEndSpec(BaseModel, ABC):
    """Options of a kind of front end. Subclasses are named `Spec`, in link/radio/frontends/KIND.py.

    Frequencies and powers have no default in any of them: what may be sent where is for whoever holds the licence to say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    needs: ClassVar[str | None] = None
    """What to install for it, as a command; None where nothing is needed."""
    simulated: ClassVar[bool] = False
    """Whether the noise is set by `SimulatedFrontEnd.at`."""

    @abstractmethod
    def build(self) -> FrontEnd:
        """The front end, not yet open.

        Raises
        ------
        DriverUnavailable
            If its driver is not installed.
        """

    def probe(self) -> list[dict[str, Any]]:
        """What is attached of this kind, a device an entry; empty where nothing is, or where there is nothing to look for.

        Raises
        ------
        DriverUnavailable
            If its driver is not installed.
        """
        return []
