"""When a point has seen enough."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from link.errors import ArgumentError
from link.montecarlo import CONFIDENCE
from link.stopping import Tally, effective_errors, errors_for_width, unit_target

BLOCKS_MAX: Final = 10**9


class Ending(StrEnum):
    """What ended a point."""

    TARGET = "target"
    """Errors enough, or an interval narrow enough."""
    LIMIT = "limit"
    """All blocks (draws) that were asked for."""
    MAX_TIME = "max-time"
    INTERRUPT = "interrupt"


@dataclass(frozen=True)
class Rule:
    """A point ends with the first block at which the target is met, or with the last block asked for.

    Where both targets are given, both are met. Both count errors of *independent units* (a symbol over AWGN, a frame over
    fading), since bits that fail together are one piece of evidence: one deep fade ends no point.

    Parameters
    ----------
    limit : int
        Blocks at most, at least 1.
    target_errors : int, optional
        Units in error, at least 1.
    rel_width : float, optional
        Full width of the interval over the error rate, in [0.001, 10].
    confidence : float
        Of that interval.
    """

    limit: int
    target_errors: int | None = None
    rel_width: float | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= BLOCKS_MAX:
            raise ArgumentError("blocks", f"must be in [1, {BLOCKS_MAX:g}], got {self.limit}")
        if self.target_errors is not None and self.target_errors < 1:
            raise ArgumentError("target_errors", f"must be at least 1, got {self.target_errors}")
        self.effective_target  # noqa: B018 (checks rel_width)

    @property
    def sequential(self) -> bool:
        """Whether counts decide when to stop."""
        return self.target_errors is not None or self.rel_width is not None

    @cached_property
    def effective_target(self) -> int | None:
        """Effective errors that make the interval as narrow as asked."""
        return None if self.rel_width is None else errors_for_width(self.rel_width, self.confidence)

    def met(self, tally: Tally) -> bool:
        """Whether the target is reached."""
        return self.sequential and self.share(tally) >= 1.0

    def share(self, tally: Tally) -> float:
        """Evidence found over evidence asked for; 0 where no target is set."""
        shares = []
        if self.target_errors is not None:
            shares.append(tally.unit_errors / self.target_errors)
        if self.effective_target is not None:
            shares.append(effective_errors(tally) / self.effective_target)
        return min(shares, default=0.0)

    def unit_target(self, tally: Tally) -> int | None:
        """The target as units in error, for the interval of a point that ended with `tally`; None where none is set."""
        targets = [] if self.target_errors is None else [self.target_errors]
        if self.effective_target is not None:
            targets.append(unit_target(tally, self.effective_target))
        return max(targets, default=None)
