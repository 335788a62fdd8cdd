"""One line of the table of a diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from train.diagnosis_run import Evidence, Run
from train.remedy import Remedy


class Rule(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    name, symptom, why : str
        What it is called, what is wrong, and what that means, in one line each.
    detect : callable
        From a run to the evidence, or None.
    remedies : tuple of Remedy
        In the order in which to try them.
    awaits : str, optional
        Weight of the loss without whose full value the evidence says little.
    remark : bool
        Whether nothing needs mending.
    """

    name: str
    symptom: str
    why: str
    detect: Callable[[Run], Evidence | None]
    remedies: tuple[Remedy, ...]
    awaits: str | None = None
    remark: bool = False
