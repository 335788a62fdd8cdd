"""Front ends by kind, each imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, FieldSerializationInfo, PlainSerializer, ValidationError

from link.errors import ArgumentError
from link.radio.frontend import FrontEndSpec

KINDS: Final = ("loopback", "impaired", "zmq", "soapy", "pluto", "audio", "sigmf", "pair")


def spec_type(kind: str) -> type[FrontEndSpec]:
    """The options of a kind of front end.

    Raises
    ------
    ArgumentError
        If there is no such kind.
    """
    if kind not in KINDS:
        raise ArgumentError("kind", f"must be one of {', '.join(KINDS)}, got {kind!r}")
    found: type[FrontEndSpec] = import_module(f"{__name__}.{kind}").Spec
    return found


def frontend_spec(kind: str, options: Mapping[str, Any]) -> FrontEndSpec:
    """Options of a front end, checked.

    Raises
    ------
    ArgumentError
        If there is no such kind, or an option is unknown, missing or out of range; it names kind and option.
    """
    try:
        return spec_type(kind).model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ArgumentError):
            raise ArgumentError(f"{kind}.{cause.field}", cause.message) from None
        where = ".".join(str(part) for part in (kind, *first["loc"]))
        if first["type"] == "missing":
            raise ArgumentError(where, "must be given") from None
        if first["type"] == "extra_forbidden":
            known = ", ".join(spec_type(kind).model_fields)
            raise ArgumentError(where, f"is no option of {kind}, which has {known or 'none'}") from None
        raise ArgumentError(where, f"{first['msg'].removeprefix('Input ')}, got {first['input']!r}") from None


def _of_kind(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    options = dict(value)
    return frontend_spec(str(options.pop("kind", "")), options)


def _with_kind(value: FrontEndSpec, info: FieldSerializationInfo) -> dict[str, Any]:
    return {"kind": value.kind, **value.model_dump(mode=info.mode, exclude_none=info.exclude_none)}


AnyFrontEndSpec: TypeAlias = Annotated[FrontEndSpec, BeforeValidator(_of_kind), PlainSerializer(_with_kind)]
"""A field of a model that holds options of any kind; given, and written, as a table with the kind."""
