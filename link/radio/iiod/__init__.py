"""A PlutoSDR that is none: an IIOD server in front of any front end, for programs that drive a Pluto.

    pyadi-iio, gr-iio, ... ── libiio ──TCP──> server ──> protocol ──┬──> phy      settings: rate, gains, frequencies
                                                                    └──> stream   samples <──> the front end

`context` describes the devices as libiio asks for them. Nothing here knows of frames.

Examples
--------
>>> from link.radio.frontends.loopback import Loopback
>>> with PlutoServer(Loopback(), port=0) as server:
...     server.uri.startswith("ip:127.0.0.1:")
True
"""

from __future__ import annotations

from link.radio.iiod.server import PlutoServer

__all__ = ["PlutoServer"]
