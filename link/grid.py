"""What to sweep: the SNR grid, the channel, and how often."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from link.channel import RADIO, TR38901, Channel, build_channel
from link.errors import ArgumentError
from link.montecarlo import CONFIDENCE
from link.radio.spec import RadioSpec
from link.randomness import SEED_MAX
from link.simulator.rule import Rule
from link.snr import SNR_ERROR_DB_MAX, millidecibels

_OF_SIMULATED: Final = (
    "block_symbols",
    "k_factor_db",
    "csi",
    "pilots",
    "no_offset_db",
    "delay_spread_ns",
    "speed_kmh",
    "carrier_ghz",
    "spacing_khz",
    "resource_blocks",
)
"""Options of simulated channels."""
_POINTS_MAX: Final = 10_000
_SHOWN: Final = 80
"""Letters of a wrong value that a message repeats."""


class GridSpec(BaseModel, ABC):
    """What every sweep is asked: the SNR grid, the channel, the seed, and when a point ends.

    A field outside its range is an ArgumentError that names it.

    Attributes
    ----------
    snr_db : tuple of float
        Es/N0 of each point, dB, in [-30, 60]; no two the same to 0.001 dB, since they would share their noise.
    channel : str
        One of link.channel.CHANNELS.
    block_symbols : int
        Symbols that fade together, for block fading; 0 stands for all of a sample.
    k_factor_db : float
        Rician K-factor, dB, in [-20, 40].
    csi : str
        How the receiver comes by the gains of block fading, one of link.channel.CSI.
    pilots : int
        Pilot symbols a fading block, in [1, 1024]; 0 where csi is perfect.
    no_offset_db : float
        The noise variance that the receiver is told is higher than the true one by this, dB, in [-30, 30].
    delay_spread_ns, speed_kmh, carrier_ghz, spacing_khz, resource_blocks
        Of the channels of TR 38.901, see link.channel.build_channel.
    seed : int
        Key of the random generator, in [0, 2**63).
    confidence : float
        Two-sided coverage that intervals aim at, in (0, 1).
    target_errors : int or None
        A point ends with so many independent units in error, see link.simulator.Rule.
    rel_width : float or None
        A point ends with an interval of its error rate of this width over the rate, in [0.001, 10].
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    snr_db: Annotated[tuple[float, ...], Field(min_length=1, max_length=_POINTS_MAX)]
    channel: str = "awgn"
    block_symbols: int = 0
    k_factor_db: float = 6.0
    csi: str = "perfect"
    pilots: int = 0
    no_offset_db: float = 0.0
    delay_spread_ns: float = 100.0
    speed_kmh: float = 30.0
    carrier_ghz: float = 3.5
    spacing_khz: int = 30
    resource_blocks: int = 51
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] = 0
    confidence: Annotated[float, Field(gt=0, lt=1)] = CONFIDENCE
    target_errors: int | None = None
    rel_width: float | None = None

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _one_line(error) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[int] = set()
        for snr_db in self.snr_db:
            if (point := millidecibels(snr_db)) in seen:
                raise ArgumentError("snr_db", f"must hold each point once (to 0.001 dB), got {snr_db:g} twice")
            seen.add(point)
        if not self.over_radio:
            self.build_channel()
        self.rule  # noqa: B018 (checks the targets)
        return self

    @property
    @abstractmethod
    def limit(self) -> int:
        """Blocks (draws) at most."""

    @property
    def over_radio(self) -> bool:
        """Whether a radio stands where a simulated channel would."""
        return False

    @property
    def rule(self) -> Rule:
        """When a point ends."""
        return Rule(self.limit, self.target_errors, self.rel_width, self.confidence)

    def build_channel(self) -> Channel:
        """The channel asked for."""
        return build_channel(
            self.channel,
            block_symbols=self.block_symbols,
            k_factor_db=self.k_factor_db,
            csi=self.csi,
            pilots=self.pilots,
            no_offset_db=self.no_offset_db,
            delay_spread_ns=self.delay_spread_ns,
            speed_kmh=self.speed_kmh,
            carrier_ghz=self.carrier_ghz,
            spacing_khz=self.spacing_khz,
            resource_blocks=self.resource_blocks,
        )

    @property
    def knowledge(self) -> str:
        """What the receiver does not know of the channel, for a title; empty where it knows all.

        Examples
        --------
        >>> SweepSpec(snr_db=(6.0,), channel="rayleigh", csi="lmmse", pilots=2, no_offset_db=-3.0).knowledge
        'lmmse CSI from 2 pilots a block, noise variance told 3 dB too low'
        """
        parts = []
        if self.csi != "perfect":
            what = "OFDM symbol" if self.channel in TR38901 else "pilot"
            of = "slot" if self.channel in TR38901 else "block"
            parts.append(f"{self.csi} CSI from {self.pilots} {what}{'s' * (self.pilots > 1)} a {of}")
        if self.no_offset_db:
            side = "high" if self.no_offset_db > 0.0 else "low"
            parts.append(f"noise variance told {abs(self.no_offset_db):g} dB too {side}")
        return ", ".join(parts)


class SweepSpec(GridSpec):
    """What to sweep a bundle over.

    Attributes
    ----------
    draws : int
        Times that the whole data set is sent at each point, each with its own noise; where a target is set, at most.
    snr_error_db : float
        What a bundle's router takes the SNR for is higher by this, dB, in [-30, 30]; 0 for a bundle without a router.
    radio : RadioSpec or None
        A radio in place of a simulated channel, whose options must then be absent; `channel` is "radio". One that cannot set
        its SNR takes a grid of one point, and has the SNR that it has.

    Examples
    --------
    >>> SweepSpec(snr_db=(6.0, 99.0))
    Traceback (most recent call last):
    ...
    link.errors.ArgumentError: snr_db must be in [-30, 60], got 99
    """

    draws: Annotated[int, Field(ge=1, lt=2**32)] = 1
    snr_error_db: Annotated[float, Field(ge=-SNR_ERROR_DB_MAX, le=SNR_ERROR_DB_MAX)] = 0.0
    radio: RadioSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_radio(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("radio") is not None:
            if fields.get("channel", RADIO) not in (RADIO, "awgn"):
                raise ArgumentError("channel", f"must be absent where a radio is given, got {fields['channel']!r}")
            return {**fields, "channel": RADIO}
        return fields

    @model_validator(mode="after")
    def _check_radio(self) -> Self:
        if self.radio is None:
            return self
        for field in _OF_SIMULATED:
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ArgumentError(field, f"must be absent where a radio is given, got {getattr(self, field)}")
        if len(self.snr_db) > 1 and not self.radio.sets_snr:
            raise ArgumentError(
                "snr_db",
                f"must be one point for a radio ({self.radio.frontend.kind}) that cannot set its SNR, without full_snr_db; "
                f"got {len(self.snr_db)}",
            )
        return self

    @property
    def over_radio(self) -> bool:
        """Whether a radio is given."""
        return self.radio is not None

    @property
    def limit(self) -> int:
        """Draws at most."""
        return self.draws

    def build_channel(self) -> Channel:
        """The channel asked for; a radio is opened by its first call.

        Raises
        ------
        DriverUnavailable
            If a radio's driver is not installed.
        """
        if self.radio is None:
            return super().build_channel()
        from link.radio.channel import RadioChannel  # and SciPy's filters

        return RadioChannel(self.radio)


def parse_grid(text: str, field: str = "snr_db") -> tuple[float, ...]:
    """An SNR grid as a user writes it: `first:last:step` with both ends, or points with commas between.

    Parameters
    ----------
    text : str
    field : str
        What to call it where it is wrong.

    Raises
    ------
    ArgumentError
        If it is neither, or the steps do not lead from the first to the last.

    Examples
    --------
    >>> parse_grid("-6:18:6")
    (-6.0, 0.0, 6.0, 12.0, 18.0)
    >>> parse_grid("6,12")
    (6.0, 12.0)
    """
    shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    expected = f"must be first:last:step or points with commas between, in dB (-6:18:3 or 6,12), got {shown}"
    as_range = ":" in text
    try:
        parts = [float(part) for part in text.split(":" if as_range else ",")]
    except ValueError:
        raise ArgumentError(field, expected) from None
    if not all(map(math.isfinite, parts)) or (as_range and len(parts) != 3):
        raise ArgumentError(field, expected)
    if not as_range:
        return tuple(parts)
    first, last, step = parts
    steps = (last - first) / step if step else -1.0
    if steps >= _POINTS_MAX:
        raise ArgumentError(field, f"must have at most {_POINTS_MAX} points, got {text!r}")
    if steps < 0.0 or abs(steps - round(steps)) > 1e-6:
        raise ArgumentError(field, f"must reach {last:g} from {first:g} in whole steps of {step:g} dB, got {text!r}")
    # Rounded, so that 0:0.3:0.1 ends at 0.3 and not a hair above; + 0.0 turns -0.0 into 0.0.
    return tuple(round(first + i * step, 9) + 0.0 for i in range(round(steps) + 1))


def _one_line(error: ValidationError) -> ArgumentError:
    """The first thing wrong, as every other wrong argument is reported."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ArgumentError):
        return cause
    given = repr(first["input"])
    given = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}..."
    return ArgumentError(str(first["loc"][0]), f"{first['msg'].removeprefix('Input ')}, got {given}")
