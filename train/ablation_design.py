"""What an ablation compares: schedules x conditions x training seeds, as the command names them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from link.errors import ArgumentError
from link.grid import SweepSpec
from train.defects import DEFECTS, TOGETHER, check_defects
from train.recipe import Recipe
from train.recipe_file import load_recipe, preset_names, preset_sections

OWN_SCHEDULE: Final = "own"
TWO_PHASE: Final = "two-phase"
_ALIASES: Final = {TWO_PHASE: "basic"}

Defects = tuple[str, ...]


class Ablation(BaseModel):
    """What to compare.

    Attributes
    ----------
    recipe : str
        Name of a recipe or a TOML file.
    schedules : tuple of str
        Presets that have one; `own` is the recipe's, `two-phase` is basic.
    conditions : tuple of tuple of str
        Defects of each; the empty one is the clean system.
    seeds : tuple of int
        Of training.
    overrides : mapping of str to str
        As `load_recipe` takes them, over schedules too.
    snr_db, channels, draws, noise_seed
        Of the measurement on the test split: Es/N0 in dB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    schedules: tuple[str, ...]
    conditions: tuple[Defects, ...]
    seeds: tuple[int, ...]
    overrides: dict[str, str] = {}
    snr_db: tuple[float, ...]
    channels: tuple[str, ...]
    draws: int
    noise_seed: int = 0

    def specs(self) -> dict[str, SweepSpec]:
        """What is measured over each channel.

        Raises
        ------
        ArgumentError
            If channel, SNR or draws are out of range.
        """
        return {
            channel: SweepSpec(snr_db=self.snr_db, channel=channel, draws=self.draws, seed=self.noise_seed)
            for channel in self.channels
        }

    def cases(self) -> list[Case]:
        """Every run, seed by seed: an ablation that is cut short has whole comparisons."""
        return [
            Case(schedule, defects, seed, self.recipe_of(schedule, defects, seed))
            for seed in self.seeds
            for schedule in self.schedules
            for defects in self.conditions
        ]

    def recipe_of(self, schedule: str, defects: Defects, seed: int) -> Recipe:
        """The recipe of one run."""
        presets = [] if schedule == OWN_SCHEDULE else [_ALIASES.get(schedule, schedule)]
        own = {"seed": str(seed), "defects": json.dumps(list(defects))}
        return load_recipe(self.recipe, self.overrides | own, presets, sections=("schedule",))


class Case(NamedTuple):
    """One run."""

    schedule: str
    defects: Defects
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """Where it lies in the ablation's folder."""
        return Path("runs") / self.schedule / condition_name(self.defects) / f"seed-{self.seed}"

    def text(self) -> str:
        """The run in words."""
        return f"{self.schedule}, {condition_name(self.defects)}, seed {self.seed}"


def parse_schedules(text: str) -> tuple[str, ...]:
    """Names of schedules with commas between.

    Raises
    ------
    ArgumentError
        If one is no preset with a schedule.

    Examples
    --------
    >>> parse_schedules("two-phase,anneal")
    ('two-phase', 'anneal')
    """
    known = [
        OWN_SCHEDULE,
        TWO_PHASE,
        *(name for name in preset_names() if "schedule" in preset_sections(name)),
    ]
    names = _names(text, "schedules")
    for name in names:
        if name not in known:
            raise ArgumentError("schedules", f"must be of {', '.join(known)}, got {name!r}")
    return names


def parse_conditions(text: str) -> tuple[Defects, ...]:
    """Conditions with commas between: defects joined by +, `none`, `all`, or one of the two designs.

    `alone` is the clean system and each defect switched on alone; `without` is the system that has them all (but
    the two that are another's) and that system with each one switched off alone.

    Raises
    ------
    ArgumentError
        If a defect is unknown.

    Examples
    --------
    >>> parse_conditions("none,batch-power+no-scale")
    ((), ('batch-power', 'no-scale'))
    """
    conditions: list[Defects] = []
    for word in _names(text, "defects"):
        if word == "alone":
            conditions += [(), *((name,) for name in DEFECTS)]
        elif word == "without":
            conditions += [TOGETHER, *(tuple(kept for kept in TOGETHER if kept != name) for name in TOGETHER)]
        elif word in ("none", "all"):
            conditions.append(() if word == "none" else TOGETHER)
        else:
            given = word.split("+")
            try:
                check_defects(given)
            except ValueError as error:
                raise ArgumentError("defects", f"cannot be {word!r}: {error}") from None
            conditions.append(tuple(name for name in DEFECTS if name in given))
    return tuple(dict.fromkeys(conditions))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds as first:end, the end excluded, or with commas between.

    Raises
    ------
    ArgumentError
        If they are neither.

    Examples
    --------
    >>> parse_seeds("0:3"), parse_seeds("4,7")
    ((0, 1, 2), (4, 7))
    """
    try:
        first, colon, end = text.partition(":")
        seeds = tuple(range(int(first), int(end))) if colon else tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ArgumentError("seeds", f"must be first:end (0:3 is 0, 1 and 2) or different numbers, got {text!r}")
    return seeds


def condition_name(defects: Sequence[str]) -> str:
    """A condition in short.

    Examples
    --------
    >>> condition_name(()), condition_name(TOGETHER), condition_name(TOGETHER[1:])
    ('none', 'all', 'all-but-batch-power')
    """
    missing = [name for name in TOGETHER if name not in defects]
    if not defects:
        return "none"
    if not missing and len(defects) == len(TOGETHER):
        return "all"
    if len(missing) == 1 and len(defects) == len(TOGETHER) - 1:
        return f"all-but-{missing[0]}"
    return "+".join(defects)


def _names(text: str, field: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ArgumentError(field, f"must be names with commas between, got {text!r}")
    return tuple(dict.fromkeys(names))
