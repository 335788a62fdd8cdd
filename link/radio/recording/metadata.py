"""What the metadata of a SigMF recording says of its data.

Read with tolerance: what a replay needs must be right, and all else is passed over. Specification: SigMF 1.2,
https://sigmf.org, on captures and on Non-Conforming Datasets. Fields of hardpath's own carry the prefix `hardpath:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

_DATATYPE: Final = re.compile(r"(?P<kind>[cr])(?P<type>f32|f64|[iu](?:8|16|32))(?:_(?P<order>le|be))?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Part(BaseModel):
    """What a replay reads of an object; all else is ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class GlobalFields(_Part):
    """The global object."""

    datatype: str = Field(alias="core:datatype")
    sample_rate: Annotated[float, Field(gt=0)] | None = Field(None, alias="core:sample_rate")
    num_channels: Annotated[int, Field(ge=1)] = Field(1, alias="core:num_channels")
    offset: _Count = Field(0, alias="core:offset")
    dataset: str | None = Field(None, alias="core:dataset")
    trailing_bytes: _Count = Field(0, alias="core:trailing_bytes")
    metadata_only: bool = Field(False, alias="core:metadata_only")
    sha512: str | None = Field(None, alias="core:sha512")
    recorder: Any = Field(None, alias="core:recorder")
    hw: Any = Field(None, alias="core:hw")
    full_scale: Annotated[float, Field(gt=0)] = Field(1.0, alias="hardpath:full_scale")
    seed: int | None = Field(None, alias="hardpath:seed")
    radio: dict[str, Any] | None = Field(None, alias="hardpath:radio")


class Capture(_Part):
    """Where a stretch of samples begins."""

    sample_start: _Count = Field(alias="core:sample_start")
    header_bytes: _Count = Field(0, alias="core:header_bytes")
    global_index: _Count | None = Field(None, alias="core:global_index")
    datetime: Any = Field(None, alias="core:datetime")
    frequency: float | None = Field(None, alias="core:frequency")
    lost: _Count | None = Field(None, alias="hardpath:lost")
    time_ns: int | None = Field(None, alias="hardpath:time_ns")


class Metadata(_Part):
    """Metadata of a recording."""

    globals: GlobalFields = Field(alias="global")
    captures: list[Capture] = []
    annotations: list[dict[str, Any]] = []


class Segment(NamedTuple):
    """Samples that stand together, in the file as in the stream.

    Attributes
    ----------
    start, length : int
        Index of the first one among the samples of the recording, and how many there are.
    byte : int
        Where the first one stands in the data.
    lost : int or None
        Samples of the stream missing in front of it; None where nobody knows how many.
    time_ns : int or None
        When the first one was taken, nanoseconds by the recording device's clock.
    """

    start: int
    length: int
    byte: int
    lost: int | None = 0
    time_ns: int | None = None


def component_type(datatype: str) -> np.dtype[Any]:
    """Type of I and of Q in the data.

    Raises
    ------
    ValueError
        If SigMF has no such type, or it is of real samples.

    Examples
    --------
    >>> component_type("ci16_be")
    dtype('>i2')
    """
    match = _DATATYPE.fullmatch(datatype.lower())
    if match is None:
        raise ValueError(f"its datatype {datatype!r} is unknown")
    if match["kind"] == "r":
        raise ValueError(f"it holds real samples ({datatype}), and a radio needs complex ones")
    bits = int(match["type"][1:])
    return np.dtype(f"{'>' if match['order'] == 'be' else '<'}{match['type'][0]}{bits // 8}")


def segments(said: Metadata, data_bytes: int, size: int) -> Iterator[Segment]:
    """What the captures say of so many bytes of data, of which a sample takes `size`.

    Raises
    ------
    ValueError
        If that cannot be.
    """
    captures = said.captures
    skipped = said.globals.trailing_bytes + sum(capture.header_bytes for capture in captures)
    samples, rest = divmod(data_bytes - skipped, size)
    if samples < 0:
        raise ValueError(f"its data has {data_bytes} bytes, of which {skipped} are no samples by its metadata")
    if rest:
        raise ValueError(f"its data is no whole number of samples: {data_bytes - skipped} bytes, {size} a sample")
    starts = [capture.sample_start - said.globals.offset for capture in captures]
    if starts != sorted(starts) or (starts and starts[0] < 0):
        raise ValueError("its captures are not in order")
    if starts and starts[-1] > samples:
        raise ValueError(f"a capture starts at sample {starts[-1]}, but its data ends at {samples}")
    if not starts or starts[0] > 0:
        yield Segment(0, starts[0] if starts else samples, 0)
    header = 0
    lost: int | None = 0
    for index, capture in enumerate(captures):
        header += capture.header_bytes
        count = (starts[index + 1] if index + 1 < len(captures) else samples) - starts[index]
        lost = add_lost(lost, _lost(captures[index - 1] if index else None, capture))
        if count:
            yield Segment(starts[index], count, header + starts[index] * size, lost, _time_ns(capture))
            lost = 0


def _lost(before: Capture | None, capture: Capture) -> int | None:
    """Samples missing in front of a capture: as hardpath says, or else by the jump of `core:global_index`.

    An index that jumps back is of a stream that started again: nobody knows what was in between.
    """
    if "lost" in capture.model_fields_set:
        return capture.lost
    if before is None:
        return 0
    there, here = (c.sample_start if c.global_index is None else c.global_index for c in (before, capture))
    jump = (here - there) - (capture.sample_start - before.sample_start)
    return jump if jump >= 0 else None


def add_lost(one: int | None, other: int | None) -> int | None:
    """Samples lost in two gaps that met: unknown where either is."""
    return None if one is None or other is None else one + other


def _time_ns(capture: Capture) -> int | None:
    if capture.time_ns is not None:
        return capture.time_ns
    try:
        moment = datetime.fromisoformat(capture.datetime)
    except (TypeError, ValueError):
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def annotation_end(annotation: dict[str, Any]) -> int:
    """Index behind its last sample; 0 where it does not say."""
    start, count = (annotation.get(f"core:{name}", 0) for name in ("sample_start", "sample_count"))
    return start + count if isinstance(start, int) and isinstance(count, int) else 0
