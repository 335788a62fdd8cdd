"""What a row of the benchmark finds: figures, each with its target, and the measurements beside them."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.serving.contest import Standing
from benchmarks.timing import Ratio


class Figure(NamedTuple):
    """One figure.

    Attributes
    ----------
    work : str
        What is done.
    figure : str
        What the value is.
    value : Ratio
        Median over the rounds, and quartiles.
    unit : str
        "x" for ratios; else "ms", "MB", "s", "%".
    at_least, at_most : float, optional
        The target; none where the figure is for comparison only.
    """

    work: str
    figure: str
    value: Ratio
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """In words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g} {self.unit}"
        return "" if self.at_most is None else f"at most {self.at_most:g} {self.unit}"

    @property
    def reached(self) -> bool | None:
        """Whether the median is on the target's side; None where there is no target."""
        for bound, holds in ((self.at_least, operator.ge), (self.at_most, operator.le)):
            if bound is not None:
                return bool(holds(self.value.median, bound))
        return None


@dataclass
class Row:
    """One kind of work.

    Attributes
    ----------
    key : str
        As --only takes it.
    title, text : str
        For people.
    figures : list of Figure
    standings : mapping of case to list of Standing
    notes : list of str
        What was not measured, and why.
    """

    key: str
    title: str
    text: str
    figures: list[Figure] = field(default_factory=list)
    standings: dict[str, list[Standing]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
