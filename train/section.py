"""What every section of a recipe is: a frozen model that refuses unknown keys, and the numbers it is made of."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[int, Field(ge=0)]
SnrDb = Annotated[float, Field(ge=-30, le=60)]


class Section(BaseModel):
    """A section of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def nearest_key(key: str, known: Sequence[str]) -> str:
    """What was meant by an unknown key, as the end of an error.

    Examples
    --------
    >>> nearest_key("encodr", ["encoder", "max_length"])
    '; did you mean encoder?'
    """
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}"
