"""Two front ends as one; frames from a sound card to SoapySDR, over a sound server."""

import numpy as np
import pytest

from link.errors import ArgumentError, RadioError
from link.radio.channel import RadioChannel
from link.radio.frontends import frontend_spec
from link.radio.frontends.loopback import Loopback
from link.radio.frontends.pair import Pair
from link.radio.modem.frame import decide
from link.radio.spec import RadioSpec
from link.randomness import Draws

CARD = {"kind": "audio", "output_device": "pulse", "latency": 0.05, "receives": False}
EAR = {
    "kind": "soapy",
    "device": "driver=audio",
    "sample_rate_hz": 48e3,
    "sends": False,
    "tunable": False,
    "rx_stream": "chan=stereo_iq",
}


def qam16(frames, seed=3):
    points = np.array([a + 1j * b for a in (-3, -1, 1, 3) for b in (-3, -1, 1, 3)]) / np.sqrt(10)
    return list(np.random.default_rng(seed).choice(points, (frames, 1024)))


def test_frames_go_from_a_sound_card_to_soapysdr_whole(listening):
    spec = RadioSpec(
        frontend={"kind": "pair", "send": CARD, "recv": EAR}, amplitude=0.3, latency_s=1.5, tail_samples=4800
    )
    payloads = qam16(4)
    with RadioChannel(spec) as radio:
        drop = radio.drop(payloads, None, Draws(0, np.zeros(1, np.int64)))
    assert sorted(drop.frames) == [0, 1, 2, 3]
    for place, frame in drop.frames.items():
        assert frame.crc_ok
        assert np.array_equal(decide(frame.payload, 16), decide(payloads[place], 16))
        assert frame.snr_db > 30.0


def test_what_one_sends_the_other_receives_and_closing_closes_both():
    one, other = Loopback(), Loopback()
    with Pair(one, other) as pair:
        assert pair.send(np.ones(3, np.complex64), 0.1) == 3
        assert len(pair.recv(8, 0.0).samples) == 0
        assert one.recv(8, 0.0).samples.tolist() == [1, 1, 1]
    for end in (one, other):
        with pytest.raises(RadioError, match="is not open"):
            end.recv(1, 0.0)


def test_its_description_goes_to_json_and_back():
    spec = RadioSpec(frontend={"kind": "pair", "send": CARD, "recv": EAR})
    again = RadioSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.frontend.recv.rx_stream == "chan=stereo_iq"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"send": {"kind": "loopback"}}, "pair.recv must be given"),
        ({"send": {"kind": "wire"}, "recv": {"kind": "loopback"}}, "kind must be one of loopback"),
        ({"send": {"kind": "zmq"}, "recv": {"kind": "loopback"}}, "send must be given, or recv, or both"),
    ],
)
def test_what_is_wrong_with_an_end_is_told(options, said):
    with pytest.raises(ArgumentError, match=said):
        frontend_spec("pair", options)


def test_a_simulated_end_is_refused():
    with pytest.raises(ArgumentError, match="send must be a device or a program, got impaired"):
        frontend_spec("pair", {"send": {"kind": "impaired"}, "recv": {"kind": "loopback"}}).build()


def test_two_rates_are_refused_and_both_ends_let_go_of():
    class At(Loopback):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        @property
        def capabilities(self):
            return Loopback.capabilities.__class__(sample_rate_hz=self.rate)

    one, other = At(1e6), At(2e6)
    with pytest.raises(RadioError, match=r"one sample rate, but sends at 1e\+06 and receives at 2e\+06"):
        Pair(one, other).open()
    with pytest.raises(RadioError, match="is not open"):
        one.recv(1, 0.0)
