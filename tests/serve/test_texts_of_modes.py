"""Texts for a bundle of several modes with a router: every stage of both, in one process and from another."""

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from link.sweep import SweepSpec, sweep
from serve.client import Client
from serve.server import Server

TEXTS = ["a fine film", "dull", "one", "a dull film and a fine one", "fine and fine", "one dull"]
CUT = [False, False, False, True, False, False]


@pytest.fixture(scope="module")
def folder(routed_bundle, with_tokenizer):
    return with_tokenizer(routed_bundle)


@pytest.fixture(scope="module")
def link(folder):
    return Link(load_bundle(folder))


@pytest.fixture(scope="module")
def client(folder):
    with Server(folder, port=0) as server, Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def integers(link):
    encoded = link.bundle.tokenizer()(TEXTS)
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}


def assert_same(left, right):
    for name, expected in left._asdict().items():
        np.testing.assert_array_equal(
            getattr(right, name), expected, err_msg=name, strict=isinstance(expected, np.ndarray)
        )


def test_a_caller_gives_the_text_alone(link, client):
    assert link.manifest.input_names == ("text",)
    assert client.model().manifest == link.manifest


@pytest.mark.parametrize("snr_db", [-4.0, 4.0, 12.0])
def test_texts_are_routed_as_the_integers_that_they_become(link, integers, snr_db):
    sent = link.transmitter({"text": TEXTS}, snr_db)
    assert_same(link.transmitter(integers, snr_db), sent)
    lowest = {-4.0: 2, 4.0: 1, 12.0: 0}[snr_db]
    assert set(sent.mode.tolist()) <= {lowest, min(lowest + 1, 2)}
    # The comparison can fail: the texts are told apart.
    assert len(np.unique(sent.symbols, axis=0)) > 1


def test_the_estimate_is_asked_for_beside_texts_and_refused_among_the_inputs(link):
    with pytest.raises(ArgumentError, match="snr_db is missing"):
        link.transmitter({"text": TEXTS})
    for inputs in ({"text": TEXTS}, {"input_ids": [[0] * 6], "attention_mask": [[1] * 6]}):
        with pytest.raises(ArgumentError, match=r"inputs\.snr_db is unknown"):
            link.transmitter({**inputs, "snr_db": [3.0]}, 3.0)


def test_a_sweep_of_routed_texts_is_that_of_their_integers(link, integers):
    spec = SweepSpec(snr_db=(-6.0, 10.0), draws=2, snr_error_db=3.0)
    labels = [0, 1, 2, 0, 1, 2]
    found = sweep(link, {"text": TEXTS}, labels, spec)
    assert found == sweep(link, integers, labels, spec)
    assert found.points[0].mode_samples != found.points[1].mode_samples


def test_the_server_routes_texts_as_the_link_does_and_says_which_were_cut_and_what_became_of_headers(link, client):
    expected = link.transmit(
        {"text": TEXTS}, build_channel("awgn"), -7.0, Draws(9, np.arange(len(TEXTS))), snr_error_db=20.0
    )
    reply = client.transmit(TEXTS, snr_db=-7.0, seed=9, snr_error_db=20.0, include_llr=True, include_symbols=True)
    assert_same(expected.header, reply.header)
    assert_same(expected.sent, reply.sent)
    assert_same(expected.decoded, reply.decoded)
    assert reply.truncated.tolist() == CUT


def test_encode_takes_texts_and_the_estimate(link, client):
    assert_same(link.transmitter({"text": TEXTS}, -4.0), client.encode(TEXTS, snr_db=-4.0))
    with pytest.raises(ArgumentError, match="snr_db is missing"):
        client.encode(TEXTS)
