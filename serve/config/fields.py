"""Every field of a server's configuration by its key: what is allowed, which variable sets it, how a value is read.

listen.port    HARDPATH_SERVE_LISTEN_PORT    an integer in [0, 65535]
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from link.errors import ArgumentError
from serve.config.schema import ServerConfig

PREFIX: Final = "HARDPATH_SERVE_"
_TYPES: Final = {"integer": "an integer", "number": "a number", "boolean": "true or false"}


@dataclass(frozen=True)
class ConfigField:
    """One field.

    Attributes
    ----------
    key : str
        As a TOML file has it: `section.name`, or `name` at the top.
    default : object
        None where absent.
    description : str
        What it is, and its unit.
    """

    key: str
    default: Any
    description: str
    _kind: Any

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        """Made when it is first asked for: a server reads a few of its fields, and is to start fast."""
        return TypeAdapter(self._kind, config=ConfigDict(allow_inf_nan=False))

    @cached_property
    def allowed(self) -> str:
        """Values that it takes, in words."""
        return _allowed(self._adapter.json_schema())

    @property
    def variable(self) -> str:
        """The environment's variable that sets it."""
        return PREFIX + self.key.upper().replace(".", "_")

    @property
    def holds_paths(self) -> bool:
        """Whether it names files or folders."""
        return self.allowed.startswith(("a path", "a list of paths"))

    def read(self, value: Any, source: str) -> Any:
        """A value with the type that TOML gave it.

        Raises
        ------
        ArgumentError
            If it is not allowed; the error names `source`, the key, what is allowed and the value.
        """
        try:
            return self._adapter.validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError:
            raise self._refused(value, source) from None

    def parse(self, text: str, source: str) -> Any:
        """A value from text, as a variable or a flag gives it; errors as for `read`."""
        parts = text.split(os.pathsep) if isinstance(self.default, tuple) else text
        try:
            if isinstance(parts, list):
                return self._adapter.validate_json(json.dumps(parts), strict=True)
            return self._adapter.validate_strings(parts)
        except ValidationError:
            raise self._refused(text, source) from None

    def _refused(self, value: Any, source: str) -> ArgumentError:
        return ArgumentError(f"{source}: {self.key}", f"must be {self.allowed}, got {_shown(value)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """What was meant by an unknown name, as the end of an error.

    Examples
    --------
    >>> nearest("listen.prot", FIELDS)
    '; did you mean listen.port?'
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def toml_value(value: Any) -> str:
    """A value as TOML has it.

    Examples
    --------
    >>> toml_value((Path("a"), Path("b"))), toml_value(True), toml_value(0.5)
    ('["a", "b"]', 'true', '0.5')
    """
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str | Path):
        # JSON's strings are TOML's but for DEL, which TOML wants escaped.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def markdown_table() -> str:
    """All fields as the table that the documentation holds."""
    rows = ["| key | default | allowed | what it is |", "|---|---|---|---|"]
    for field in FIELDS.values():
        default = "absent" if field.default is None else f"`{toml_value(field.default)}`"
        rows.append(f"| `{field.key}` | {default} | {field.allowed} | {field.description} |")
    return "\n".join(rows) + "\n"


def _fields(model: type[BaseModel], section: str = "") -> Iterator[ConfigField]:
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, f"{name}.")
        else:
            yield _field(section + name, info)


def _field(key: str, info: FieldInfo) -> ConfigField:
    kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return ConfigField(key, info.default, info.description or "", kind)


def _allowed(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    found = choices[0]
    if "allowed" in found:
        return str(found["allowed"])
    if "enum" in found:
        return "one of " + ", ".join(found["enum"])
    if found["type"] == "array":
        return f"a list of paths, at most {found['maxItems']}"
    words = _TYPES[found["type"]]
    return f"{words} in [{found['minimum']}, {found['maximum']}]" if "minimum" in found else words


def _shown(value: Any) -> str:
    """A value in an error, on one line and not too long."""
    if isinstance(value, str):
        value = re.sub(r"(?<=://)[^@/]*@", "***@", value)  # a user and a password
    text = (
        repr(str(value)) if not isinstance(value, bool | int | float | list | dict) else json.dumps(value, default=str)
    )
    return text if len(text) <= 80 else f"{text[:77]}..."


FIELDS: Final[Mapping[str, ConfigField]] = {field.key: field for field in _fields(ServerConfig)}
"""By key, in the order of the model."""
