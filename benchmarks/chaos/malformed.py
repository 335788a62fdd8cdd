"""Requests that went wrong on the way to being valid: fields out of range, missing or contradictory, and broken bytes.

A strategy knows nothing of any one API: it walks the descriptors of a valid message and spoils what it finds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_INT32: Final = (0, 1, -1, 7, 2**31 - 1, -(2**31))
_INT64: Final = (*_INT32, 2**32, 2**53 + 1, 2**63 - 1, -(2**63))
_UINT32: Final = (0, 1, 2, 255, 256, 2**32 - 1)
_UINT64: Final = (*_UINT32, 2**63, 2**64 - 1)
_FLOATS: Final = (0.0, -0.0, 1.0, -1.0, 1e-45, 3.4e38, -3.4e38, float("nan"), float("inf"), -float("inf"))
_DOUBLES: Final = (*_FLOATS, 5e-324, 1.7e308, 30.0, 60.0001, -30.0001)
_TEXTS: Final = (
    "",
    " ",
    "awgn",
    "rician",
    "FP32",
    "INT64",
    "BYTES",
    "../../etc/passwd",
    "a\0b",
    "ü\U0001f600\u202e",
    "x" * 5000,
)
_BYTES: Final = (b"", b"\0", b"\xff" * 7, struct.pack("<f", float("nan")) * 64, b"\xff\xff\xff\x7f" * 16)
_HOSTILE: Final[dict[int, tuple[Any, ...]]] = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT32: _UINT32,
    FieldDescriptor.CPPTYPE_UINT64: _UINT64,
    FieldDescriptor.CPPTYPE_FLOAT: _FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: _DOUBLES,
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 5, 99, -1, 2**31 - 1),
}
_START_GROUP, _END_GROUP = b"\x7b", b"\x7c"  # of field 15, which no message here has


@st.composite
def malformed_messages(draw: st.DrawFn, valid: Message) -> Message:
    """A copy of a valid message with one to three of its fields spoilt; by chance it may still be valid."""
    message = type(valid)()
    message.CopyFrom(valid)
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from(list(_nodes(message))))
        fields: list[Any] = list(node.DESCRIPTOR.fields)
        _spoil(draw, node, draw(st.sampled_from(fields)))
    return message


@st.composite
def malformed_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """A serialized message that was cut, or had bits flipped, bytes put in or left out, or nonsense nested behind it."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        # Most of a message is the elements of tensors: what its structure suffers from is near its ends.
        place = draw(st.integers(0, min(len(data), 40)) | st.integers(0, len(data)) | st.just(max(len(data) - 40, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "nest", "repeat"]))
        if kind == "flip" and data:
            data[min(place, len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[place:]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 12))]
        elif kind == "nest":
            depth = draw(st.sampled_from([1, 99, 101, 20_000]))
            data += _START_GROUP * depth + _END_GROUP * (depth - draw(st.integers(0, 1)))
        elif kind == "repeat":
            data += data[place : place + 64]
    return bytes(data)


def _nodes(message: Message) -> Iterator[Message]:
    """The message and all that are in it; those more often that hold more fields that can be spoilt."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if _is_map(field):
            for key in sorted(value):
                if isinstance(value[key], Message):
                    yield from _nodes(value[key])
        elif field.is_repeated:
            for item in value:
                yield from _nodes(item)
        else:
            yield from _nodes(value)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _spoil(draw: st.DrawFn, message: Message, field: FieldDescriptor) -> None:
    if draw(st.integers(0, 4)) == 0:
        message.ClearField(field.name)
    elif _is_map(field):
        _spoil_map(draw, getattr(message, field.name))
    elif field.is_repeated:
        _spoil_repeated(draw, getattr(message, field.name), field)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, draw(_values(field)))


def _spoil_map(draw: st.DrawFn, values: Any) -> None:
    keys = sorted(values)
    name = draw(st.sampled_from(_TEXTS))
    kind = draw(st.sampled_from(["empty", "another", "renamed"]))
    if kind == "empty" or not keys:
        _ = values[name]  # which puts an empty message there
        return
    values[name].CopyFrom(values[keys[0]])
    if kind == "renamed" and name != keys[0]:
        del values[keys[0]]


def _spoil_repeated(draw: st.DrawFn, values: Any, field: FieldDescriptor) -> None:
    kind = draw(st.sampled_from(["append", "drop", "double", "replace", "many"]))
    if field.message_type is not None:
        if kind == "append":
            values.add()
        elif values and kind in ("double", "many"):
            values.append(values[0])
        elif values:
            del values[-1]
        return
    if kind == "append":
        values.append(draw(_values(field)))
    elif kind == "many":
        value = draw(_values(field))
        longest = 100 if isinstance(value, str | bytes) else 70_000  # for the message to stay within its limit
        values.extend([value] * draw(st.sampled_from([9, longest])))
    elif kind == "double":
        values.extend(list(values))
    elif values and kind == "drop":
        del values[-1]
    elif values:
        values[draw(st.integers(0, len(values) - 1))] = draw(_values(field))


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """What breaks those who do not look, and what is merely anything."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.sampled_from(_BYTES) | st.binary(max_size=300)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.sampled_from(_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    hostile = st.sampled_from(_HOSTILE[field.cpp_type])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64):
        return hostile | st.integers(-(2**31), 2**31 - 1)
    return hostile
