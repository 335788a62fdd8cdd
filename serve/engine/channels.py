"""The channel that a request's settings ask for, simulated or a radio; an option that it has no use for is refused."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from link.chain import Link, require_snr_error
from link.channel import Channel, build_channel
from link.choice import read_estimate
from link.errors import ArgumentError, require_range
from link.randomness import SEED_MAX
from link.snr import SNR_DB_MAX, SNR_DB_MIN
from serve.results import Settings

if TYPE_CHECKING:
    from link.radio.spec import RadioSpec

_NUMBERS: Final = 2**32


@lru_cache(maxsize=256)
def channel_of(
    name: str, block_symbols: int, k_factor_db: float | None, csi: str, pilots: int, no_offset_db: float
) -> Channel:
    """The channel asked for; an option that it has no use for is refused, lest it be believed to matter."""
    given: dict[str, Any] = {} if k_factor_db is None else {"k_factor_db": k_factor_db}
    channel = build_channel(
        name, block_symbols=block_symbols, csi=csi, pilots=pilots, no_offset_db=no_offset_db, **given
    )
    if block_symbols and getattr(channel, "block_symbols", 0) != block_symbols:
        raise ArgumentError("block_symbols", f"must be 0 for channel {name!r}, got {block_symbols}")
    if given and getattr(channel, "k_factor_db", None) is None:
        raise ArgumentError("k_factor_db", f"must be absent for channel {name!r}, got {k_factor_db:g}")
    return channel


def require_address(settings: Settings, rows: int) -> None:
    """Raise ArgumentError unless seed, draw and the numbers of so many samples are in their ranges."""
    if not 0 <= settings.seed <= SEED_MAX:
        raise ArgumentError("seed", f"must be in [0, 2**63), got {settings.seed}")
    if not 0 <= settings.draw < _NUMBERS:
        raise ArgumentError("draw", f"must be in [0, 2**32), got {settings.draw}")
    if not 0 <= settings.sample_offset <= _NUMBERS - rows:
        raise ArgumentError(
            "sample_offset", f"must be in [0, 2**32 - {rows}] for {rows} samples, got {settings.sample_offset}"
        )


def as_used(settings: Settings, channel: Channel) -> Settings:
    """Settings with the defaults of their channel filled in."""
    return Settings(
        snr_db=settings.snr_db,
        channel=settings.channel or "awgn",
        block_symbols=getattr(channel, "block_symbols", 0),
        k_factor_db=getattr(channel, "k_factor_db", None),
        seed=settings.seed,
        sample_offset=settings.sample_offset,
        draw=settings.draw,
        snr_error_db=settings.snr_error_db,
        csi=settings.csi or "perfect",
        pilots=settings.pilots,
        no_offset_db=settings.no_offset_db,
    )


def estimate_over(
    spec: RadioSpec, link: Link, settings: Settings, rows: int, mode: NDArray[np.int64] | None
) -> NDArray[np.float32] | None:
    """What a router takes the SNR for over a radio, (rows,) dB; None where the model has no router.

    Parameters
    ----------
    spec : RadioSpec
    link : Link
    settings : Settings
    rows : int
    mode : (rows,) int64, optional
        Modes asked for.

    Raises
    ------
    ArgumentError
        If an option of simulated channels is given; if the SNR is missing where the radio sets it or a router has to choose
        by it, out of range, or given where it would do nothing.
    """
    for name in ("block_symbols", "k_factor_db", "csi", "pilots", "no_offset_db"):
        if (value := getattr(settings, name)) not in (None, 0, "", "perfect"):
            raise ArgumentError(name, f"must be absent over a radio, got {value}")
    if settings.snr_db is None:
        if spec.sets_snr:
            raise ArgumentError("snr_db", "is missing: give Es/N0 in dB, which this radio sets")
        require_snr_error(settings.snr_error_db, link.manifest.routed)
        return read_estimate(link.manifest, None, rows, mode)
    if not spec.sets_snr and not link.manifest.routed:
        kind = spec.frontend.kind
        raise ArgumentError("snr_db", f"must be absent: this radio ({kind}) cannot set it, got {settings.snr_db:g}")
    require_range("snr_db", settings.snr_db, SNR_DB_MIN, SNR_DB_MAX)
    estimate = link.estimate(settings.snr_db, settings.snr_error_db)
    return None if estimate is None else np.full(rows, estimate, dtype=np.float32)
