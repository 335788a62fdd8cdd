"""Results of pieces of a batch as the result of the batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from link.header import HeaderOutcome
from link.runtime import Transmission
from serve.results import Decoded, Timing, Transmitted

logger = logging.getLogger(__name__)

Rows = TypeVar("Rows", bound=NamedTuple)


def transmissions(parts: Sequence[tuple[Transmission, int, int]]) -> Transmission:
    """What Encode gave, of which the log counts texts that were cut, and those that say nothing to the model."""
    sent = _rows([part[0] for part in parts])
    cut, unknown = sum(part[1] for part in parts), sum(part[2] for part in parts)
    if cut:
        logger.warning("%d of %d texts have too many tokens for the model: cut", cut, len(sent.mode))
    if unknown:
        logger.warning("%d of %d texts have no token that the model knows", unknown, len(sent.mode))
    return sent


def decoded(parts: Sequence[Decoded]) -> Decoded:
    """What Decode gave."""
    return _rows(parts)


def transmitted(parts: Sequence[Transmitted]) -> Transmitted:
    """What Transmit gave; times are summed, and the settings are those of the first piece."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return first._replace(
        sent=_rows([part.sent for part in parts]),
        y=_row(part.y for part in parts),
        no=_row(part.no for part in parts),
        decoded=_rows([part.decoded for part in parts]),
        bit_errors=_row(part.bit_errors for part in parts),
        timing=Timing(*map(sum, zip(*(part.timing for part in parts), strict=True))),
        header=_header([part.header for part in parts if part.header is not None]),
        truncated=_row(part.truncated for part in parts),
    )


def _header(parts: Sequence[HeaderOutcome]) -> HeaderOutcome | None:
    """No frame is parted, so counts add up."""
    if not parts:
        return None
    kind: Any = HeaderOutcome
    columns = zip(*parts, strict=True)
    return cast(
        "HeaderOutcome",
        kind(*(np.concatenate(c) if isinstance(c[0], np.ndarray) else sum(c) for c in columns)),
    )


def _rows(parts: Sequence[Rows]) -> Rows:
    """Field by field: arrays and tuples one after another."""
    if len(parts) == 1:
        return parts[0]
    kind: Any = type(parts[0])
    return cast("Rows", kind(*map(_row, zip(*parts, strict=True))))


def _row(values: Any) -> Any:
    several = list(values)
    if several[0] is None:
        return None
    if isinstance(several[0], tuple):
        return tuple(item for value in several for item in value)
    return np.concatenate(several)
