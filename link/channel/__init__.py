"""Channels by name: what stands between transmitter.onnx and receiver.onnx."""

from __future__ import annotations

from typing import Final

from link.channel.awgn import Awgn
from link.channel.base import Channel, Received
from link.channel.fading import Fading
from link.errors import ArgumentError

CHANNELS: Final = ("awgn", "rayleigh", "rayleigh-fast", "rician", "rician-fast")

__all__ = ["CHANNELS", "Awgn", "Channel", "Fading", "Received", "build_channel"]


def build_channel(name: str, *, block_symbols: int = 0, k_factor_db: float = 6.0) -> Channel:
    """The channel of that name, with perfect channel state information at the receiver.

    Parameters
    ----------
    name : str
        One of CHANNELS. Plain `rayleigh` and `rician` are block fading, `-fast` fades each symbol anew.
    block_symbols : int
        Symbols that fade together in block fading; 0 stands for all symbols of a sample.
    k_factor_db : float
        Power of the line of sight over that of the scattered paths, for Rician fading.

    Raises
    ------
    ArgumentError
        If the name is unknown or an option is out of range.
    """
    if name not in CHANNELS:
        raise ArgumentError("channel", f"must be one of {', '.join(CHANNELS)}, got {name!r}")
    if name == "awgn":
        return Awgn()
    family, _, speed = name.partition("-")
    return Fading(
        block_symbols=1 if speed == "fast" else block_symbols,
        k_factor_db=k_factor_db if family == "rician" else None,
    )
