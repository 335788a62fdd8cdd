"""Frames over what looks like a PlutoSDR: modem, libiio, the server of IIOD, and a simulated link behind it."""

import numpy as np
import pytest

from link.radio.channel import RadioChannel
from link.radio.frontends import frontend_spec
from link.radio.iiod import PlutoServer
from link.radio.spec import RadioSpec
from link.randomness import Draws

pytestmark = pytest.mark.usefixtures("libiio")

FAULTS = {"snr_db": 35.0, "cfo": 2e-4, "taps": [0.9, 0, 0, "0.3j"]}
AMPLITUDE = 0.3


def test_frames_come_through_a_plutosdrs_network_interface_whole():
    points = np.array([a + 1j * b for a in (-3, -1, 1, 3) for b in (-3, -1, 1, 3)]) / np.sqrt(10)
    payloads = list(np.random.default_rng(1).choice(points, (6, 1024)))
    with PlutoServer(frontend_spec("impaired", FAULTS).build(), port=0) as server:
        pluto = {
            "kind": "pluto",
            "uri": server.uri,
            "sample_rate_hz": 2e6,
            "tx_frequency_hz": 2.4e9,
            "rx_frequency_hz": 2.4e9,
            "tx_gain_db": 0.0,
            "rx_gain_db": 0.0,
        }
        with RadioChannel(RadioSpec(frontend=pluto, amplitude=AMPLITUDE, latency_s=0.05)) as radio:
            drops = [radio.drop(payloads, None, Draws(0, np.zeros(1, np.int64))) for _ in range(2)]
    for drop in drops:
        assert sorted(drop.frames) == list(range(6))
        assert drop.capture.clipped == 0
        assert all(frame.crc_ok for frame in drop.frames.values())
        assert np.allclose([frame.cfo for frame in drop.frames.values()], 2e-4, atol=2e-5)
        # Es/N0 of the link at this amplitude, less what echoes cost and what the converters add.
        at_most = FAULTS["snr_db"] + 20.0 * np.log10(AMPLITUDE)
        assert all(at_most - 3.0 < frame.snr_db < at_most for frame in drop.frames.values())
