"""Channels by name: what stands between transmitter.onnx and receiver.onnx."""

from __future__ import annotations

from typing import Final

from link.channel.awgn import Awgn
from link.channel.base import Channel, Received
from link.channel.csi import CSI, Csi
from link.channel.fading import Fading
from link.errors import ArgumentError

CHANNELS: Final = ("awgn", "rayleigh", "rayleigh-fast", "rician", "rician-fast")

__all__ = ["CHANNELS", "CSI", "Awgn", "Channel", "Csi", "Fading", "Received", "build_channel"]


def build_channel(
    name: str,
    *,
    block_symbols: int = 0,
    k_factor_db: float = 6.0,
    csi: str = "perfect",
    pilots: int = 0,
    no_offset_db: float = 0.0,
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
        How the receiver comes by the gains of block fading, one of CSI; `perfect` for the other channels.
    pilots : int
        Pilot symbols a fading block, in [1, 1024]; 0 where csi is perfect.
    no_offset_db : float
        In [-30, 30]: dB that the noise variance the receiver is told lies above the true one.

    Raises
    ------
    ArgumentError
        If the name is unknown or an option is out of range, or means nothing for this channel.
    """
    if name not in CHANNELS:
        raise ArgumentError("channel", f"must be one of {', '.join(CHANNELS)}, got {name!r}")
    knowledge = Csi(csi, pilots)
    if name == "awgn":
        if not knowledge.perfect:
            raise ArgumentError("csi", f"must be perfect over awgn, where no gain is to be estimated, got {csi!r}")
        return Awgn(no_offset_db)
    family, _, speed = name.partition("-")
    return Fading(
        block_symbols=1 if speed == "fast" else block_symbols,
        k_factor_db=k_factor_db if family == "rician" else None,
        csi=knowledge,
        no_offset_db=no_offset_db,
    )
