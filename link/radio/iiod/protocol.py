"""The IIOD protocol, as libiio 0.2x speaks it: one connection's commands and the answers to them.

    VERSION                                   TIMEOUT ms            GETTRIG dev
    PRINT                                     EXIT                  SETTRIG dev [trigger]
    READ  dev [INPUT|OUTPUT channel] attr     READ  dev DEBUG|BUFFER attr
    WRITE dev [INPUT|OUTPUT channel] attr n   WRITE dev DEBUG|BUFFER attr n       and n bytes
    SET dev BUFFERS_COUNT n                   OPEN dev samples mask [CYCLIC]      CLOSE dev
    READBUF dev n                             WRITEBUF dev n                      and, once answered, n bytes

A command is a line. The answer is a line with a number, a negative errno where the command is not carried out, and text
where the number says how long it is. Source: libiio's iiod, https://github.com/analogdevicesinc/libiio, branch libiio-v0.
A text compressed (ZPRINT) and the binary protocol of libiio 1 (BINARY) are refused, which has clients go on in plain text.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from link.errors import RadioError
from link.radio.iiod.attributes import MOST_TEXT, Attribute, Device, Refused
from link.radio.iiod.pluto import Buffer, Pluto

_log = logging.getLogger(__name__)

MOST_LINE: Final = 1024
MOST_TIMEOUT_S: Final = 60.0


class Hangup(Exception):
    """The connection cannot go on."""


class Session:
    """One connection and its buffers."""

    def __init__(self, pluto: Pluto, lines: BinaryIO, out: Callable[[bytes], None]) -> None:
        self._pluto, self._in, self._out = pluto, lines, out
        self._counts: dict[str, int] = {}
        self._buffers: dict[str, Buffer] = {}
        self._commands: dict[str, Callable[[list[str]], int | bytes | None]] = {
            "VERSION": self._version,
            "PRINT": lambda words: _text(self._pluto.xml.encode(), words, 0),
            "TIMEOUT": self._timeout,
            "GETTRIG": lambda words: self._trigger(words, 1, 1),
            "SETTRIG": lambda words: self._trigger(words, 1, 2),
            "READ": self._read,
            "WRITE": self._write,
            "SET": self._set,
            "OPEN": self._open,
            "CLOSE": self._close,
            "READBUF": self._read_buffer,
            "WRITEBUF": self._write_buffer,
        }

    def run(self) -> None:
        """Answer commands until the connection ends."""
        try:
            while line := self._in.readline(MOST_LINE):
                words = line.decode("ascii", "replace").split()
                if not line.endswith(b"\n"):
                    self._say(-errno.EINVAL)
                    return
                if words == ["EXIT"]:
                    return
                if words:
                    self._carry_out(words)
        except Hangup as reason:
            _log.info("hung up: %s", reason)
        finally:
            for device in list(self._buffers):
                self._release(device)

    def _carry_out(self, words: list[str]) -> None:
        try:
            command = self._commands.get(words[0])
            if command is None:
                raise Refused(errno.EINVAL, "no such command")
            answer = command(words[1:])
        except Refused as refused:
            _log.debug("%s: refused: %s", " ".join(words)[:80], refused)
            answer = -refused.errno
        except RadioError as error:
            _log.warning("%s: %s", " ".join(words)[:80], error)
            answer = -errno.EIO
        if isinstance(answer, int):
            self._say(answer)
        elif answer is not None:
            self._out(answer)

    def _say(self, number: int) -> None:
        self._out(b"%d\n" % number)

    def _version(self, words: list[str]) -> bytes:
        _count(words, 0)
        return b"0.24.hardpat\n"  # seven characters stand where iiod names its commit

    def _timeout(self, words: list[str]) -> int:
        _count(words, 1)
        # 0 stands for no limit: there is one all the same, so that nothing hangs.
        self._pluto.timeout_s = min(_integer(words[0], 1 << 32) / 1000 or MOST_TIMEOUT_S, MOST_TIMEOUT_S)
        return 0

    def _trigger(self, words: list[str], least: int, most: int) -> int:
        _count(words, least, most)
        self._pluto.device(words[0])
        return -errno.ENOENT  # no device of a Pluto has a trigger

    def _read(self, words: list[str]) -> bytes:
        value = self._attribute(words).setting.read()
        return _text(value.encode() + b"\0", [], 0)  # iiod counts the end of the string

    def _write(self, words: list[str]) -> int:
        if len(words) < 3:
            raise Hangup("a WRITE without its length")
        size = self._payload_size(words[-1])
        value = self._take(size).rstrip(b"\0").decode("ascii", "replace").strip()
        self._attribute(words[:-1]).setting.write(value)
        return size

    def _attribute(self, words: list[str]) -> Attribute:
        """The attribute that `dev [INPUT|OUTPUT channel | DEBUG | BUFFER] attr` names."""
        _count(words, 2, 4)
        device, place, name = self._pluto.device(words[0]), words[1:-1], words[-1]
        for attribute in _group(device, place):
            if attribute.name == name:
                return attribute
        raise Refused(errno.ENOENT, f"{device.name} has no attribute {name} there")

    def _set(self, words: list[str]) -> int:
        _count(words, 3)
        device, what, count = words
        if what != "BUFFERS_COUNT":
            raise Refused(errno.EINVAL, "only BUFFERS_COUNT can be set")
        self._counts[self._pluto.device(device).id] = _integer(count, 64, least=1)
        return 0

    def _open(self, words: list[str]) -> int:
        _count(words, 3, 4)
        device = self._pluto.device(words[0]).id
        if device in self._buffers:
            raise Refused(errno.EBUSY, "it is open")
        if words[3:] not in ([], ["CYCLIC"]):
            raise Refused(errno.EINVAL, "must be CYCLIC or nothing")
        try:
            mask = int(words[2], 16)
        except ValueError:
            raise Refused(errno.EINVAL, "a mask must be hexadecimal") from None
        self._buffers[device] = self._pluto.open(
            device, _integer(words[1], 1 << 32, least=1), mask, len(words) == 4, self._counts.get(device, 4)
        )
        return 0

    def _close(self, words: list[str]) -> int:
        _count(words, 1)
        self._release(self._buffer(words[0]).device)
        return 0

    def _release(self, device: str) -> None:
        del self._buffers[device]
        self._pluto.close(device)

    def _read_buffer(self, words: list[str]) -> bytes:
        _count(words, 2)
        buffer = self._buffer(words[0])
        samples = buffer.samples(_integer(words[1], 1 << 32, least=1))
        iq = self._pluto.read(buffer, samples, self._pluto.timeout_s)
        data = iq[:, buffer.columns].astype("<i2").tobytes()
        return b"%d\n%08x\n" % (len(data), buffer.mask) + data

    def _write_buffer(self, words: list[str]) -> int:
        _count(words, 2)
        buffer, size = self._buffer(words[0]), _integer(words[1], 1 << 32, least=1)
        samples = buffer.samples(size)
        self._pluto.check_writes(buffer)
        self._say(size)  # only now does the client send them
        iq: NDArray[np.int16] = np.zeros((samples, 2), np.int16)
        iq[:, buffer.columns] = np.frombuffer(self._take(size), "<i2").reshape(samples, -1)
        self._pluto.write(buffer, iq, self._pluto.timeout_s)
        return size

    def _buffer(self, name: str) -> Buffer:
        device = self._pluto.device(name).id
        if device not in self._buffers:
            raise Refused(errno.EBADF, "it is not open")
        return self._buffers[device]

    def _payload_size(self, word: str) -> int:
        """What cannot be told from commands that follow it ends the connection."""
        try:
            return _integer(word, MOST_TEXT)
        except Refused as refused:
            self._say(-refused.errno)
            raise Hangup("bytes of unknown length") from None

    def _take(self, size: int) -> bytes:
        data = self._in.read(size)
        if len(data) < size:
            raise Hangup("it ended within a command")
        return data


def _group(device: Device, place: list[str]) -> tuple[Attribute, ...]:
    """The attributes of a device, of its buffer, of its debugging or of a channel."""
    match place:
        case []:
            return device.attributes
        case ["DEBUG"]:
            return device.debug
        case ["BUFFER"]:
            return device.buffer
        case ["INPUT" | "OUTPUT" as direction, name]:
            for channel in device.channels:
                if name in (channel.id, channel.name) and channel.output == (direction == "OUTPUT"):
                    return channel.attributes
            raise Refused(errno.ENOENT, f"{device.name} has no {direction.lower()} {name}")
    raise Refused(errno.EINVAL, "must be INPUT or OUTPUT and a channel, DEBUG or BUFFER")


def _text(text: bytes, words: list[str], expected: int) -> bytes:
    _count(words, expected)
    return b"%d\n%s\n" % (len(text), text)


def _count(words: list[str], least: int, most: int | None = None) -> None:
    if not least <= len(words) <= (least if most is None else most):
        raise Refused(errno.EINVAL, "too few or too many words")


def _integer(word: str, most: int, least: int = 0) -> int:
    if not (word.isdigit() and len(word) <= 20 and least <= int(word) <= most):
        raise Refused(errno.EINVAL, f"must be an integer in [{least}, {most}]")
    return int(word)
