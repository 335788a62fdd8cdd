"""The link over sample-level front ends: frames, their receiver, and what only sends and receives samples.

RadioChannel    a radio where link.channel has awgn: one argument of a sweep, a server, or a call
RadioSpec       a radio in words, from a TOML file by `load_radio`
Modem           frames to samples and back
"""

from link.radio.channel import RadioChannel
from link.radio.modem import Modem, ModemOptions
from link.radio.spec import RadioSpec, load_radio

__all__ = ["Modem", "ModemOptions", "RadioChannel", "RadioSpec", "load_radio"]
