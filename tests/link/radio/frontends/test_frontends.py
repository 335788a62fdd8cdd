import numpy as np
import pytest

from link.errors import ArgumentError, RadioError
from link.radio.frontends import KINDS, frontend_spec, spec_type


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_itself(kind):
    assert spec_type(kind).kind == kind


def test_an_unknown_kind_is_told_with_those_there_are():
    with pytest.raises(ArgumentError, match=rf"kind must be one of {', '.join(KINDS)}, got 'wire'"):
        frontend_spec("wire", {})


def test_an_unknown_option_is_told_with_its_kind():
    with pytest.raises(ArgumentError, match=r"^loopback\.gain is no option of loopback, which has none$"):
        frontend_spec("loopback", {"gain": 3})


def test_a_loopback_gives_back_what_was_sent_however_it_is_cut():
    sent = np.arange(10).astype(np.complex64)
    with frontend_spec("loopback", {}).build() as cable:
        for part in np.split(sent, [1, 7]):
            assert cable.send(part, 0.1) == len(part)
        got = []
        while len(block := cable.recv(4, 0.1).samples):
            got.append(block)
    assert max(map(len, got)) <= 4
    assert np.array_equal(np.concatenate(got), sent)


def test_a_closed_loopback_says_so():
    cable = frontend_spec("loopback", {}).build()
    with pytest.raises(RadioError, match="the loopback is not open"):
        cable.send(np.zeros(1, np.complex64), 0.1)


def test_a_loopback_keeps_what_was_sent_and_not_what_the_caller_writes_there_later():
    sent = np.ones(4, np.complex64)
    with frontend_spec("loopback", {}).build() as cable:
        cable.send(sent, 0.1)
        sent[:] = 0
        assert (cable.recv(4, 0.1).samples == 1).all()
