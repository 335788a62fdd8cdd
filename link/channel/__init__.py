"""Channels by name: what stands between transmitter.onnx and receiver.onnx."""

from __future__ import annotations

from typing import Final

from link.channel.awgn import Awgn
from link.channel.base import Channel, Received
from link.channel.csi import CSI, Csi
from link.channel.fading import Fading
from link.errors import ArgumentError

TR38901: Final = tuple(f"{family}-{letter}" for family in ("tdl", "cdl") for letter in "abcde")
"""Channels of 3GPP TR 38.901 over OFDM; they need the extra `sim`, and seconds to import it when they are first called."""

RADIO: Final = "radio"
"""What a channel is called that is a radio (link.radio)."""

CHANNELS: Final = ("awgn", "rayleigh", "rayleigh-fast", "rician", "rician-fast", *TR38901)

__all__ = ["CHANNELS", "CSI", "RADIO", "TR38901", "Awgn", "Channel", "Csi", "Fading", "Received", "build_channel"]


def build_channel(
    name: str,
    *,
    block_symbols: int = 0,
    k_factor_db: float = 6.0,
    csi: str = "perfect",
    pilots: int = 0,
    no_offset_db: float = 0.0,
    delay_spread_ns: float = 100.0,
    speed_kmh: float = 30.0,
    carrier_ghz: float = 3.5,
    spacing_khz: int = 30,
    resource_blocks: int = 51,
) -> Channel:
    """The channel of that name, and what its receiver knows of it.

    Parameters
    ----------
    name : str
        One of CHANNELS. Plain `rayleigh` and `rician` are block fading, `-fast` fades each symbol anew.
    block_symbols : int
        Symbols that fade together in block fading; 0 stands for all symbols of a sample.
    k_factor_db : float
        Power of the line of sight over that of the scattered paths, for Rician fading.
    csi : str
        How the receiver comes by the gains of block fading and of TR 38.901, one of CSI; `perfect` for the other channels.
    pilots : int
        Pilot symbols a fading block, in [1, 1024]; for TR 38.901, OFDM symbols a slot that hold pilots, in [1, 4]; 0 where
        csi is perfect.
    no_offset_db : float
        In [-30, 30]: dB that the noise variance the receiver is told lies above the true one.
    delay_spread_ns, speed_kmh, carrier_ghz : float
        Of TR 38.901: root mean square delay spread in [0, 1000] ns, speed of the user in [0, 500] km/h, carrier frequency in
        [0.5, 100] GHz.
    spacing_khz, resource_blocks : int
        Of the OFDM carrier for TR 38.901: subcarrier spacing (15, 30, 60 or 120 kHz), resource blocks in [1, 275].

    Raises
    ------
    ArgumentError
        If the name is unknown or an option is out of range, or means nothing for this channel.
    MissingExtra
        If the channel is one of TR38901 and Sionna is not installed.
    """
    if name not in CHANNELS:
        raise ArgumentError("channel", f"must be one of {', '.join(CHANNELS)}, got {name!r}")
    knowledge = Csi(csi, pilots)
    if name == "awgn":
        if not knowledge.perfect:
            raise ArgumentError("csi", f"must be perfect over awgn, where no gain is to be estimated, got {csi!r}")
        return Awgn(no_offset_db)
    if name in TR38901:
        from link.channel.tr38901 import Tr38901

        return Tr38901(
            name,
            knowledge,
            no_offset_db,
            delay_spread_ns=delay_spread_ns,
            speed_kmh=speed_kmh,
            carrier_ghz=carrier_ghz,
            spacing_khz=spacing_khz,
            resource_blocks=resource_blocks,
        )
    family, _, speed = name.partition("-")
    return Fading(
        block_symbols=1 if speed == "fast" else block_symbols,
        k_factor_db=k_factor_db if family == "rician" else None,
        csi=knowledge,
        no_offset_db=no_offset_db,
    )
