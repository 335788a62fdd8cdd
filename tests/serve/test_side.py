"""A receiver with inputs of its own, served: each call gives the answers of the link in this process."""

import asyncio

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError
from link.randomness import Draws
from serve.client import AsyncClient, Client
from serve.engine.means import Means
from serve.engine.model import Model
from serve.server import Server

TEXTS = ["a fine film", "dull", "a dull film and a fine one", "one", "film", "a", "one and one"]


@pytest.fixture(scope="module")
def link(asked_bundle_path):
    return Link(load_bundle(asked_bundle_path))


@pytest.fixture(scope="module")
def server(asked_bundle_path):
    with Server(asked_bundle_path, port=0, max_batch=64) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def integers(link):
    encoded = link.bundle.tokenizer()(TEXTS)
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}


@pytest.fixture(scope="module")
def received(link, images):
    received = link.transmit({"image": images, "text": TEXTS}, Awgn(), 6.0, Draws(2, np.arange(len(images)))).received
    return received.y, received.no


def test_the_model_says_what_its_receiver_has_of_its_own(link, client):
    manifest = client.model().manifest
    assert manifest == link.manifest
    assert manifest.task.receiver_inputs == ("input_ids", "attention_mask")
    assert manifest.input_names == ("text", "image")


@pytest.mark.parametrize("as_integers", [False, True])
def test_decode_takes_the_receivers_own_inputs(link, client, received, integers, as_integers):
    own = integers if as_integers else {"text": TEXTS}
    expected = link.receiver(*received, inputs=own)
    found = client.decode(*received, inputs=own, include_llr=True)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.llr, expected.llr)
    turned = client.decode(*received, inputs={"text": TEXTS[::-1]})
    assert np.abs(turned.logits - found.logits).max() > 0.1


def test_decode_says_which_of_the_receivers_own_texts_were_cut_or_say_nothing(server, received, integers):
    texts = [*TEXTS[:6], "\U0001f600"]
    for client in (Client(server.address), Client(server.address, max_batch=2)):
        with client:
            found = client.decode(*received, inputs={"text": texts})
            assert found.truncated.tolist() == [False, False, True, False, False, False, False]
            assert found.unknown.tolist() == [False] * 6 + [True]
            given = client.decode(*received, inputs=integers)
            assert given.truncated is given.unknown is None


def test_a_batch_in_pieces_keeps_each_sample_beside_its_own_inputs(server, client, received):
    whole = client.decode(*received, inputs={"text": TEXTS})
    with Client(server.address, max_batch=2) as cutting:
        np.testing.assert_array_equal(cutting.decode(*received, inputs={"text": TEXTS}).logits, whole.logits)


def test_requests_that_are_joined_keep_their_own_inputs(server, client, received, integers):
    expected = client.decode(*received, inputs=integers).logits

    async def each():
        async with AsyncClient(server.address) as connected:

            async def one(row):
                part = [values[row : row + 1] for values in received]
                own = {name: values[row : row + 1] for name, values in integers.items()}
                return (await connected.decode(*part, inputs=own)).logits[0]

            return await asyncio.gather(*(one(row) for row in range(len(TEXTS))))

    np.testing.assert_allclose(asyncio.run(each()), expected, atol=1e-5)


def test_transmit_gives_each_end_its_own(link, client, images):
    found = client.transmit({"image": images, "text": TEXTS}, snr_db=3.0, seed=4)
    expected = link.transmit({"image": images, "text": TEXTS}, Awgn(), 3.0, Draws(4, np.arange(len(images))))
    np.testing.assert_array_equal(found.decoded.logits, expected.decoded.logits)
    np.testing.assert_array_equal(found.sent.bits, expected.sent.bits)
    assert found.truncated.tolist() == [False, False, True, False, False, False, False]


def test_a_served_sweep_is_the_sweep_of_the_link(link, client, images):
    (point,) = client.sweep({"image": images, "text": TEXTS}, [3.0], labels=[0, 1, 2, 0, 1, 2, 0], draws=2)
    from link.sweep import SweepSpec, sweep

    (expected,) = sweep(
        link, {"image": images, "text": TEXTS}, [0, 1, 2, 0, 1, 2, 0], SweepSpec(snr_db=(3.0,), draws=2)
    ).points
    assert point.correct == expected.correct


def test_encode_takes_what_is_sent_alone(link, client, images):
    np.testing.assert_array_equal(client.encode({"image": images}).bits, link.transmitter({"image": images}).bits)
    with pytest.raises(ArgumentError, match=r"inputs\.text is unknown; this bundle takes image"):
        client.encode({"image": images, "text": TEXTS})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs.text is missing"),
        ({"question": TEXTS}, "inputs.question is unknown; this bundle takes text"),
        (
            {"input_ids": np.ones((7, 6), int), "attention_mask": np.eye(7, 6, dtype=int)},
            "inputs.attention_mask must have a token in each row, got none in row 6",
        ),
        ({"text": TEXTS[:2]}, "inputs.text must hold as many texts as there are samples, 7, got 2"),
        ({"symbols": np.zeros((7, 4, 2), np.float32)}, "inputs.symbols is no input of the receiver's own"),
    ],
)
def test_a_wrong_input_of_the_receiver_is_named(client, received, inputs, message):
    with pytest.raises(ArgumentError) as refused:
        client.decode(*received, inputs=inputs)
    assert message in str(refused.value)


def test_what_each_operation_costs_is_known_before_the_first_call(asked_bundle_path):
    costs = Model(load_bundle(asked_bundle_path), Means()).costs
    assert [operation for operation, cost in costs.items() if not cost.known] == []


def test_a_receiver_without_any_refuses_what_it_is_given(bundle_path, received):
    with Server(bundle_path, port=0) as server, Client(server.address) as client:
        with pytest.raises(ArgumentError, match=r"inputs\.text is unknown"):
            client.decode(*received, inputs={"text": TEXTS})
        assert client.model().manifest.task.receiver_inputs == ()
