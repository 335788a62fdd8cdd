"""Results of pieces of a batch as the result of the batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from link.channel.frames import FrameCounts
from link.header import HeaderOutcome
from link.runtime import Transmission
from serve.results import Timing

logger = logging.getLogger(__name__)

Rows = TypeVar("Rows", bound=NamedTuple)


class EncodedPart(NamedTuple):
    """What Encode gave of a piece, and how many of its texts were cut, or say nothing to the model."""

    sent: Transmission
    cut: int
    unknown: int


def transmissions(parts: Sequence[EncodedPart]) -> Transmission:
    """What Encode gave, of which the log counts texts that were cut, and those that say nothing to the model."""
    sent = rows([part.sent for part in parts])
    cut, unknown = sum(part.cut for part in parts), sum(part.unknown for part in parts)
    if cut:
        logger.warning("%d of %d texts have too many tokens for the model: cut", cut, len(sent.mode))
    if unknown:
        logger.warning("%d of %d texts have no token that the model knows", unknown, len(sent.mode))
    return sent


def columns(result: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of what a result has one of a sample, by name; what is not about samples has none."""
    found: dict[str, tuple[int, ...]] = {}
    for name, value in getattr(result, "_asdict", dict[str, Any])().items():
        if isinstance(value, np.ndarray):
            found[name] = value.shape
        elif hasattr(value, "_fields"):
            found |= {f"{name}.{inner}": shape for inner, shape in columns(value).items()}
        elif isinstance(value, tuple):
            found[name] = (len(value),)
    return found


def rows(parts: Sequence[Rows]) -> Rows:
    """Field by field: what there is one of a sample comes one after another, counts and times are summed.

    Settings and versions are those of the first piece.
    """
    if len(parts) == 1:
        return parts[0]
    kind: Any = type(parts[0])
    return cast("Rows", kind(*map(_column, zip(*parts, strict=True))))


def _column(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    if isinstance(first, Timing):
        return Timing(*map(sum, zip(*values, strict=True)))
    if isinstance(first, HeaderOutcome):  # no frame is parted, so headers add up
        kind: Any = HeaderOutcome
        return kind(*map(_header_column, zip(*values, strict=True)))
    if isinstance(first, FrameCounts):
        return reduce(FrameCounts.plus, values)
    if hasattr(first, "_fields"):
        return rows(values)
    return tuple(chain.from_iterable(values)) if isinstance(first, tuple) else first


def _header_column(values: Sequence[Any]) -> Any:
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return None if values[0] is None else sum(values)
