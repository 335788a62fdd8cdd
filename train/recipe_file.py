"""Recipes as TOML: by name or path, with presets and single values over them.

A preset is a fragment of a recipe, train/recipes/presets/NAME.toml. Later wins: presets that a recipe file names itself
(`presets = ["basic"]`), the file's own values, presets named with --preset, values named with --set.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from link.errors import RecipeError
from train.recipe import Recipe


def recipe_names() -> list[str]:
    """Names of the recipes that come with hardpath."""
    return _names(_recipes())


def preset_names() -> list[str]:
    """Names of the presets that come with hardpath."""
    return _names(_recipes() / "presets")


def preset_sections(name: str) -> tuple[str, ...]:
    """Sections that a preset sets.

    Examples
    --------
    >>> preset_sections("anneal")
    ('schedule', 'loss')
    """
    return tuple(_preset(name))


def load_recipe(
    source: str,
    overrides: Mapping[str, str] | None = None,
    presets: Sequence[str] = (),
    *,
    sections: Sequence[str] | None = None,
) -> Recipe:
    """Read a recipe by name or by path.

    Parameters
    ----------
    source : str
    overrides : mapping of str to str, optional
        `section.key` to a value in TOML syntax, over everything else; the section may be left out where one has the key.
    presets : sequence of str
        Names of presets, over the recipe's values, the last one on top.
    sections : sequence of str, optional
        What is taken of `presets`; all of each where absent.

    Raises
    ------
    RecipeError
        If it is not found, is no TOML, or a key or value is wrong; an unknown key is answered with the nearest known one.
    """
    text, origin = _read(source)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin} is no TOML: {error}") from None
    own = values.pop("presets", [])
    if not isinstance(own, list) or not all(isinstance(name, str) for name in own):
        raise RecipeError(f"{origin}: presets must be a list of names, got {own!r}")
    over = [
        {key: value for key, value in _preset(name).items() if sections is None or key in sections} for name in presets
    ]
    values = _overlay([*map(_preset, own), values, *over])
    for key, value in (overrides or {}).items():
        _override(values, _full_key(key), value)
    named = [*own, *presets]
    return parse_recipe(values, f"{origin} with preset {' and '.join(named)}" if named else origin)


def parse_recipe(values: Mapping[str, Any], origin: str) -> Recipe:
    """Validate a recipe's values; `origin` names them in errors."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{origin}: unknown key {key}{_suggest(key)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(": ".join(filter(None, (origin, key, message)))) from None


def _recipes() -> Traversable:
    return resources.files("train") / "recipes"


def _names(folder: Traversable) -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise RecipeError(f"no preset {name!r}: name one of {', '.join(preset_names())}")
    return tomllib.loads((_recipes() / "presets" / f"{name}.toml").read_text(encoding="utf-8"))


def _overlay(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The layers' values, table by table; later wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            under = merged.get(key)
            tables = isinstance(under, dict) and isinstance(value, dict)
            merged[key] = _overlay([cast(dict[str, Any], under), value]) if tables else value
    return merged


def _read(source: str) -> tuple[str, str]:
    names = recipe_names()
    if source in names:
        return (_recipes() / f"{source}.toml").read_text(encoding="utf-8"), f"recipe {source}"
    path = Path(source)
    if not path.is_file():
        raise RecipeError(f"no recipe {source!r}: name one of {', '.join(names)}, or a TOML file")
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None


def _override(values: dict[str, Any], key: str, value: str) -> None:
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{key} is no key of a recipe{_suggest(key)}")
    values[last] = parsed


def _full_key(key: str) -> str:
    """The key with its section, where it was named without and only one has it; the shallowest where they are nested."""
    if key == "presets":
        raise RecipeError("presets are no value to set: name them with --preset, or in the recipe's file")
    if key.split(".")[0] in Recipe.model_fields:
        return key
    found = [known for known in _keys(Recipe) if known.endswith(f".{key}")]
    nearest = [known for known in found if known.count(".") == min(each.count(".") for each in found)]
    if len(nearest) > 1:
        raise RecipeError(f"{key} is a key of several sections: name one of {', '.join(nearest)}")
    return nearest[0] if nearest else key


def _suggest(key: str) -> str:
    known = _keys(Recipe)
    by_last = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1) or [
        by_last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], by_last, n=1)
    ]
    # All of them would fill a screen: of a section, the name is enough.
    sections = dict.fromkeys(name if "." not in name else f"{name.split('.')[0]}.*" for name in known)
    return f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(sections)}"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
