"""Requests that are no messages: bytes that cannot be parsed as what a method takes.

gRPC answers them UNKNOWN, as a fault of the server, with a traceback in the log for each. Here they are refused as any other
wrong argument: the deserializer hands on that it could not read, and what stands in front of a method says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message

from link.errors import ArgumentError


class Unreadable(NamedTuple):
    """What stands in place of a message; methods that take one message never see it, those that take a stream do."""

    kind: type[Message]

    @property
    def error(self) -> ArgumentError:
        """What its sender is told."""
        return ArgumentError("request", f"must be a serialized {self.kind.DESCRIPTOR.full_name}")


def reader(kind: type[Message]) -> Callable[[bytes], Message | Unreadable]:
    """A deserializer that does not raise."""

    def read(data: bytes) -> Message | Unreadable:
        try:
            return kind.FromString(data)
        except DecodeError:
            return Unreadable(kind)

    return read
