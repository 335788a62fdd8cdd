"""Attributes of an IIO device: what a program reads and writes as text, a setting each.

A write that a Pluto's driver refuses raises `Refused` with the driver's errno, which is all that the protocol carries.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MOST_TEXT = 1 << 16
"""Bytes that an attribute takes at most; the longest is the configuration of a filter of 128 taps."""


class Refused(Exception):
    """A command that is not carried out.

    Attributes
    ----------
    errno : int
        Why, positive.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.errno = number


class Setting(Protocol):
    """What an attribute reads and writes."""

    def read(self) -> str: ...

    def write(self, text: str) -> None: ...


@dataclass
class Number:
    """A number in [low, high], rounded to whole steps; `form` is how it is read."""

    value: float
    low: float
    high: float
    step: float = 1.0
    form: str = "{:.0f}"

    def read(self) -> str:
        return self.form.format(self.value)

    def write(self, text: str) -> None:
        value = parse_number(text)
        if not self.low <= value <= self.high:
            raise Refused(errno.EINVAL, f"must be in [{self.low:g}, {self.high:g}], got {value:g}")
        self.value = round(value / self.step) * self.step


@dataclass
class Choice:
    """One of a few words."""

    value: str
    choices: tuple[str, ...]

    def read(self) -> str:
        return self.value

    def write(self, text: str) -> None:
        if text not in self.choices:
            raise Refused(errno.EINVAL, f"must be one of {', '.join(self.choices)}")
        self.value = text


@dataclass(frozen=True)
class Measured:
    """What can be read and not written."""

    read: Callable[[], str]

    def write(self, text: str) -> None:
        raise Refused(errno.EACCES, "cannot be written")


def constant(text: str) -> Measured:
    """An attribute that stays as it is."""
    return Measured(lambda: text)


class Attribute(NamedTuple):
    """An attribute and its name, and the file of it that libiio's programs may name instead."""

    name: str
    setting: Setting
    filename: str


@dataclass(frozen=True)
class Channel:
    """A channel of a device; `scan` is the place and format of its samples, None where it has none."""

    id: str
    output: bool
    attributes: tuple[Attribute, ...]
    name: str | None = None
    scan: tuple[int, str] | None = None


@dataclass(frozen=True)
class Device:
    """A device as libiio sees it."""

    id: str
    name: str
    channels: tuple[Channel, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    debug: tuple[Attribute, ...] = ()
    buffer: tuple[Attribute, ...] = ()


def parse_number(text: str) -> float:
    """The finite number at the start of a text such as `-10.5 dB`.

    Raises
    ------
    Refused
        If there is none.
    """
    first = text.split()[:1]
    try:
        value = float(first[0])
    except (ValueError, IndexError):
        raise Refused(errno.EINVAL, f"must be a number, got {text[:32]!r}") from None
    if not math.isfinite(value):
        raise Refused(errno.EINVAL, "must be finite")
    return value
