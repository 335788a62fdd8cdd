import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import ArgumentError
from link.radio.frontends.impaired import Spec as Impaired
from link.radio.frontends.loopback import Spec as Loopback
from link.radio.spec import RadioSpec, load_radio

WHOLE = """
amplitude = 0.25
full_snr_db = 32.5
tail_samples = 4096
timeout_s = 5.0
latency_s = 0.5

[frontend]
kind = "impaired"
taps = [0.9, 0, 0, "0.3j", [-0.2, 0.1]]
cfo = 1e-3
seed = 7

[modem.frame]
zc_length = 105
zc_root = 4
payload_symbols = 512

[modem.pulse]
samples_per_symbol = 8
rolloff = 0.25

[modem.receiver]
echoes_behind = 16
track_phase = false
clock_ppm = -12.5
"""


def written(tmp_path, text):
    file = tmp_path / "radio.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(file):
    with pytest.raises(ArgumentError) as error:
        load_radio(file)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(file))
    return message[len(str(file)) :]


def test_every_setting_of_a_file_is_taken(tmp_path):
    radio = load_radio(written(tmp_path, WHOLE))
    assert radio.frontend == Impaired(taps=(0.9, 0, 0, 0.3j, -0.2 + 0.1j), cfo=1e-3, seed=7)
    assert (radio.amplitude, radio.full_snr_db, radio.tail_samples, radio.timeout_s, radio.latency_s) == (
        0.25,
        32.5,
        4096,
        5.0,
        0.5,
    )
    frame, pulse, receiver = radio.modem.frame, radio.modem.pulse, radio.modem.receiver
    assert (frame.zc_length, frame.zc_root, frame.payload_symbols, frame.pilot_spacing) == (105, 4, 512, 16)
    assert (pulse.samples_per_symbol, pulse.rolloff) == (8, 0.25)
    assert (receiver.echoes_behind, receiver.track_phase, receiver.clock_ppm) == (16, False, -12.5)


def test_a_radio_goes_through_json_and_back_with_its_front_end(tmp_path):
    radio = load_radio(written(tmp_path, WHOLE))
    for text in (radio.model_dump_json(), json.dumps(radio.model_dump(mode="json"))):
        assert RadioSpec.model_validate_json(text) == radio
        assert json.loads(text)["frontend"]["kind"] == "impaired"
    assert RadioSpec.model_validate(radio.model_dump()) == radio


finite = st.floats(-10, 10)


@given(
    st.lists(st.builds(complex, finite, finite), min_size=1, max_size=5),
    st.floats(-0.5, 0.5),
    st.none() | st.integers(2, 24),
    st.floats(1e-3, 1e3),
    st.none() | st.floats(-30, 60),
)
def test_any_radio_goes_through_json_and_back(taps, cfo, bits, amplitude, full_snr_db):
    radio = RadioSpec(
        frontend=Impaired(taps=tuple(taps), cfo=cfo, bits=bits), amplitude=amplitude, full_snr_db=full_snr_db
    )
    assert RadioSpec.model_validate_json(radio.model_dump_json()) == radio


def test_a_front_end_may_be_given_as_one_or_as_a_table():
    assert RadioSpec(frontend=Loopback()) == RadioSpec(frontend={"kind": "loopback"})
    given_as = {"kind": "impaired", "cfo": 0.1}
    assert RadioSpec(frontend=given_as).frontend.cfo == 0.1
    assert given_as == {"kind": "impaired", "cfo": 0.1}, "and the table is the caller's"


def test_an_snr_comes_about_where_noise_or_power_is_set():
    assert RadioSpec(frontend={"kind": "impaired"}).sets_snr
    assert not RadioSpec(frontend={"kind": "loopback"}).sets_snr
    assert RadioSpec(frontend={"kind": "loopback"}, full_snr_db=20.0).sets_snr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": frontend must be given"),
        ("frontend = 3", ": frontend "),
        ("[frontend]", ": kind must be one of loopback, impaired, .*, got ''"),
        ("[frontend]\nkind = 'wire'", ": kind must be one of loopback, impaired, .*, got 'wire'"),
        ("[frontend]\nkind = 'loopback'\ngain = 3", ": loopback.gain is no option of loopback, which has none"),
        ("[frontend]\nkind = 'impaired'\ncfo = 2.0", r": impaired.cfo must be in \[-0.5, 0.5\], got 2"),
        ("[frontend]\nkind = 'impaired'\ntaps = ['x']", ": impaired.taps must be made of numbers"),
        (
            "[frontend]\nkind = 'loopback'\n[modem.frame]\nzc_length = 64",
            ": modem.frame.zc_length must be an odd multiple",
        ),
        (
            "[frontend]\nkind = 'loopback'\n[modem.pulse]\nrolloff = 2",
            ": modem.pulse.rolloff should be less than .*, got 2",
        ),
        ("[frontend]\nkind = 'loopback'\n[modem.pulse]\nroll = 2", ": modem.pulse.roll is no setting of a radio"),
        ("[frontend]\nkind = 'loopback'\n[modem]\nframe = 1", ": modem.frame .*got 1"),
        ("amplitude = 0\n[frontend]\nkind = 'loopback'", ": amplitude should be greater than 0, got 0"),
        ("amplitude = nan\n[frontend]\nkind = 'loopback'", ": amplitude should be a finite number, got nan"),
        ("timeout_s = 0\n[frontend]\nkind = 'loopback'", ": timeout_s should be greater than or equal to 0.05, got 0"),
        ("full_snr = 3\n[frontend]\nkind = 'loopback'", ": full_snr is no setting of a radio"),
        (
            "[frontend]\nkind = 'loopback'\n[modem.frame]\nzc_length = 33\n[modem.receiver]\nechoes_behind = 28",
            ": modem.receiver.echoes_behind must leave, with echoes_before, at most zc_length = 33 symbols, got 34$",
        ),
        ("a = = 1", " is no TOML: "),
        ("a = " + "[" * 5000 + "]" * 5000, " is no TOML of a radio: its tables or lists are too deep$"),
        (f"amplitude = 1{'0' * 400}\n[frontend]\nkind = 'loopback'", rf": amplitude .*got 1{'0' * 79}\.\.\.$"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_file_and_setting(tmp_path, text, message):
    assert re.match(message, refused(written(tmp_path, text)))


def test_a_file_that_is_none_is_told(tmp_path):
    assert refused(tmp_path / "none.toml") == " cannot be read: No such file or directory"
    assert refused(tmp_path) == " cannot be read: Is a directory"
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refused(binary) == " is no text in UTF-8"
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (2**20 + 1))
    assert refused(large) == " must hold at most 1048576 bytes"
    assert refused(Path("/dev/zero")) == " must hold at most 1048576 bytes"


def test_a_file_may_begin_with_a_mark_of_its_byte_order(tmp_path):
    file = tmp_path / "radio.toml"
    file.write_bytes(b"\xef\xbb\xbf[frontend]\nkind = 'loopback'\n")
    assert load_radio(file) == RadioSpec(frontend={"kind": "loopback"})


def test_nothing_of_a_radio_can_be_changed_behind_its_back():
    radio = RadioSpec(frontend={"kind": "loopback"})
    with pytest.raises(ValueError, match="frozen"):
        radio.amplitude = 2.0
    with pytest.raises(ValueError, match="frozen"):
        radio.modem.frame.zc_length = 105
