"""A radio in words: its front end, its modem, and how its SNR comes about."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from link.errors import ArgumentError
from link.radio.frontends import AnyFrontEndSpec
from link.radio.modem.options import ModemOptions
from link.radio.operation.calibration import Calibration, Estimate

_FILE_BYTES_MAX: Final = 2**20
_SHOWN_MAX: Final = 80
"""Characters of a wrong value."""


class RadioSpec(BaseModel):
    """A radio.

    Attributes
    ----------
    frontend : FrontEndSpec
        Given as a table with its kind and its options.
    modem : ModemOptions
    amplitude : float
        Of symbols of Es = 1: the RMS of I and Q together is amplitude / sqrt(samples_per_symbol). A front end with a full
        scale clips beyond it.
    full_snr_db : float or None
        Es/N0 at the receiver at that amplitude, dB, as a calibration finds it. Where it is given, a lower SNR is had by
        sending with less power. Where it is absent, and the front end is no simulation, the SNR is what it is.
    tail_samples : int
        Silence sent behind a burst: what filters, delays and software on the way hold back is silence then.
    timeout_s : float
        A radio that takes and gives no sample for so long is given up.
    latency_s : float
        How long a device is listened to behind a burst.
    calibration : Calibration or None
        What was measured of it; kept for people, while `full_snr_db` and the receiver's `clock_ppm` are what is gone by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    frontend: AnyFrontEndSpec
    modem: ModemOptions = ModemOptions()
    amplitude: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    full_snr_db: Annotated[float, Field(ge=-30.0, le=60.0)] | None = None
    tail_samples: Annotated[int, Field(ge=0, le=1 << 22)] = 512
    timeout_s: Annotated[float, Field(ge=0.05, le=600.0)] = 2.0
    latency_s: Annotated[float, Field(ge=0.0, le=60.0)] = 0.2
    calibration: Calibration | None = None

    @property
    def sets_snr(self) -> bool:
        """Whether an SNR that is asked for comes about."""
        return self.frontend.simulated or self.full_snr_db is not None


def load_radio(file: Path) -> RadioSpec:
    """A radio from a TOML file.

    Raises
    ------
    ArgumentError
        If it cannot be read, is no TOML, or a setting is unknown or out of range; it names the file and the setting.
    """
    try:
        with file.open("rb") as stream:  # of a device there is no size to ask for
            text = stream.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise ArgumentError(str(file), f"must hold at most {_FILE_BYTES_MAX} bytes")
        settings = tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise ArgumentError(str(file), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ArgumentError(str(file), "is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ArgumentError(str(file), f"is no TOML: {error}") from None
    except RecursionError:
        raise ArgumentError(str(file), "is no TOML of a radio: its tables or lists are too deep") from None
    try:
        return RadioSpec.model_validate(settings)
    except ArgumentError as error:
        raise ArgumentError(f"{file}: {error.field}", error.message) from None
    except ValidationError as error:
        raise _in_one_line(str(file), error) from None


def radio_toml(spec: RadioSpec) -> str:
    """A radio as a TOML file, which `load_radio` reads as the same radio; settings that are absent are left out.

    Examples
    --------
    >>> print(radio_toml(RadioSpec(frontend={"kind": "loopback"})).partition("[modem")[0])
    amplitude = 1.0
    tail_samples = 512
    timeout_s = 2.0
    latency_s = 0.2
    <BLANKLINE>
    [frontend]
    kind = "loopback"
    <BLANKLINE>
    <BLANKLINE>
    """
    return "\n".join(_table("", spec.model_dump(mode="json", exclude_none=True))).lstrip("\n") + "\n"


def _table(name: str, settings: dict[str, Any]) -> Iterator[str]:
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict) or _is_inline(value)}
    if plain and name:
        yield f"\n[{name}]"
    for key, value in plain.items():
        yield f"{key} = {_value(value)}"
    for key, value in settings.items():
        if key not in plain:
            yield from _table(f"{name}.{key}" if name else key, value)


def _is_inline(value: dict[str, Any]) -> bool:
    """An estimate stands on its line."""
    return value.keys() == Estimate.model_fields.keys()


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_value(item)}' for key, item in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's strings are TOML's but for DEL, which TOML wants escaped; its numbers and truth values are TOML's.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _in_one_line(file: str, error: ValidationError) -> ArgumentError:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    where = ".".join(str(part) for part in first["loc"])
    if isinstance(cause, ArgumentError):
        return ArgumentError(
            f"{file}: {cause.field if where == 'frontend' else f'{where}.{cause.field}'}", cause.message
        )
    if first["type"] == "missing":
        return ArgumentError(f"{file}: {where}", "must be given")
    if first["type"] == "extra_forbidden":
        return ArgumentError(f"{file}: {where}", "is no setting of a radio")
    return ArgumentError(f"{file}: {where}", f"{first['msg'].removeprefix('Input ')}, got {_short(first['input'])}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
