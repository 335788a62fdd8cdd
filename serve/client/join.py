"""Results of pieces of a batch as the result of the batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from link.header import HeaderOutcome
from link.runtime import Transmission
from serve.results import Timing

logger = logging.getLogger(__name__)

Rows = TypeVar("Rows", bound=NamedTuple)


def transmissions(parts: Sequence[tuple[Transmission, int, int]]) -> Transmission:
    """What Encode gave, of which the log counts texts that were cut, and those that say nothing to the model."""
    sent = rows([part[0] for part in parts])
    cut, unknown = sum(part[1] for part in parts), sum(part[2] for part in parts)
    if cut:
        logger.warning("%d of %d texts have too many tokens for the model: cut", cut, len(sent.mode))
    if unknown:
        logger.warning("%d of %d texts have no token that the model knows", unknown, len(sent.mode))
    return sent


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
        columns = zip(*values, strict=True)
        return kind(*(np.concatenate(c) if isinstance(c[0], np.ndarray) else sum(c) for c in columns))
    if hasattr(first, "_fields"):
        return rows(values)
    return tuple(chain.from_iterable(values)) if isinstance(first, tuple) else first
