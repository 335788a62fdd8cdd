"""What to try, as data: words, and changes of a recipe's keys from the values that it has now."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from train.recipe import Recipe


class Change(NamedTuple):
    """Another value of one key.

    Attributes
    ----------
    key : str
        With its section: `loss.lambda_vq`.
    how : str
        `times` and `plus` start from the value now, `to` does not, `at-least` and `at-most` leave a value beyond theirs.
    amount : float
    start : float
        For `times`, in place of a value of 0.
    least, most : float, optional
        Where the new value stops. A change that would turn back there is none.
    """

    key: str
    how: Literal["times", "plus", "to", "at-least", "at-most"]
    amount: float
    start: float = 0.0
    least: float | None = None
    most: float | None = None

    def setting(self, recipe: Recipe) -> str | None:
        """`key=value` as --set takes it; None where the recipe has no such number, or it stands there already.

        Examples
        --------
        >>> from train.recipe_file import load_recipe
        >>> Change("schedule.temp_freeze_floor", "plus", 0.1, most=0.8).setting(load_recipe("digits"))
        'schedule.temp_freeze_floor=0.8'
        """
        now = _value(recipe, self.key)
        if now is None:
            return None
        new = self._new(now)
        if self.least is not None:
            new = max(new, min(self.least, now))
        if self.most is not None:
            new = min(new, max(self.most, now))
        # Four digits: 0.7 + 0.1 is 0.8 and not a hair below.
        new = round(new) if isinstance(now, int) else float(f"{new:.4g}")
        return None if new == now else f"{self.key}={json.dumps(new)}"

    def _new(self, now: float) -> float:
        match self.how:
            case "times":
                return now * self.amount if now else self.start
            case "plus":
                return now + self.amount
            case "to":
                return self.amount
            case "at-least":
                return max(now, self.amount)
            case "at-most":
                return min(now, self.amount)


class Remedy(NamedTuple):
    """One thing to try."""

    text: str
    changes: tuple[Change, ...] = ()

    def settings(self, recipe: Recipe) -> tuple[str, ...] | None:
        """Its changes as --set takes them; None where it has some and none is left, or the recipe refuses them together."""
        settings = tuple(filter(None, (change.setting(recipe) for change in self.changes)))
        if not settings:
            return None if self.changes else ()
        values: dict[str, Any] = recipe.model_dump()
        for setting in settings:
            key, _, value = setting.partition("=")
            *sections, last = key.split(".")
            inner = values
            for section in sections:
                inner = inner[section]
            inner[last] = json.loads(value)
        try:
            Recipe.model_validate(values)
        except ValidationError:
            return None
        return settings


def _value(recipe: Recipe, key: str) -> float | None:
    found: Any = recipe.model_dump()
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
