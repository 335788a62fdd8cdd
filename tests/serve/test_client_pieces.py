"""A batch in pieces gives what it gives as one, by a real server: each array the same, wherever it is cut."""

import asyncio

import numpy as np
import pytest

from link.errors import ArgumentError
from serve.client import AsyncClient, Client
from serve.config.schema import LimitsConfig
from serve.messages.tensor import MESSAGE_BYTES
from serve.results import Timing
from serve.server import Server

# A matrix product of another height may add in another order: 10 terms of float32, magnitudes below 8.
ROUNDING = 10 * 8 * 2**-23


def assert_same(left, right):
    """All but times; logits and what follows from them up to rounding."""
    for name, expected in left._asdict().items():
        found = getattr(right, name)
        if isinstance(expected, Timing):
            continue
        if hasattr(expected, "_asdict"):
            assert_same(expected, found)
        elif name in ("logits", "probabilities"):
            np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)
        else:
            np.testing.assert_array_equal(found, expected, err_msg=name, strict=isinstance(expected, np.ndarray))


@pytest.mark.parametrize("most", [1, 2, 3, 5])
@pytest.mark.parametrize("channel", ["awgn", "rician"])
def test_transmit(client, server, images, channel, most):
    options = {"snr_db": 1.0, "channel": channel, "seed": 3, "sample_offset": 5, "draw": 2}
    whole = client.transmit(images, include_llr=True, include_symbols=True, **options)
    with Client(server.address, max_batch=most) as cutting:
        assert_same(whole, cutting.transmit(images, include_llr=True, include_symbols=True, **options))
        rows = [images[:4], images[4:]]
        streamed = list(cutting.transmit_stream(rows, include_llr=True, include_symbols=True, **options))
    np.testing.assert_array_equal(np.concatenate([part.y for part in streamed]), whole.y)
    np.testing.assert_array_equal(np.concatenate([part.decoded.llr for part in streamed]), whole.decoded.llr)


def test_transmit_with_asyncio(client, server, images):
    whole = client.transmit(images, snr_db=1.0, seed=3, include_llr=True, include_symbols=True)

    async def run():
        async with AsyncClient(server.address, max_batch=2) as cutting:
            return await cutting.transmit(images, snr_db=1.0, seed=3, include_llr=True, include_symbols=True)

    assert_same(whole, asyncio.run(run()))


@pytest.mark.parametrize("offset", [0, 2, 7])
@pytest.mark.parametrize("most", [4, 7, 12])
def test_transmit_of_frames_that_share_a_header(modes_bundle, latents_of, most, offset):
    inputs = latents_of(np.random.default_rng(1).integers(3, size=30)).inputs
    options = {"snr_db": -4.0, "seed": 1, "sample_offset": offset, "include_llr": True, "include_symbols": True}
    with Server(modes_bundle, port=0) as server:
        with Client(server.address) as client, Client(server.address, max_batch=most) as cutting:
            whole = client.transmit(inputs, **options)
            assert whole.header.headers_lost + whole.header.headers_wrong
            assert_same(whole, cutting.transmit(inputs, **options))
        with (
            Client(server.address, max_batch=3) as cutting,
            pytest.raises(ArgumentError, match="a frame of this model has 4"),
        ):
            cutting.transmit(inputs, **options)


def test_encode_and_decode(client, server, images):
    sent = client.encode(images)
    decoded = client.decode(sent.symbols, 0.2, include_llr=True)
    with Client(server.address, max_batch=3) as cutting:
        assert_same(sent, cutting.encode({"image": images}))
        assert_same(decoded, cutting.decode(sent.symbols, 0.2, include_llr=True))
        assert_same(decoded, cutting.decode(sent.symbols, 0.2, mode=[0] * len(images), include_llr=True))


def test_texts(text_client, text_server, caplog):
    texts = ["a fine film", "dull", "a dull film and a fine one", "one", "fine " * 9]
    whole = text_client.transmit(texts, snr_db=3.0)
    with Client(text_server.address, max_batch=2) as cutting:
        found = cutting.transmit(texts, snr_db=3.0)
        np.testing.assert_array_equal(found.truncated, whole.truncated)
        np.testing.assert_array_equal(found.bit_errors, whole.bit_errors)
        cutting.encode(texts)
        assert [record.getMessage() for record in caplog.records] == [
            "2 of 5 texts have too many tokens for the model: cut"
        ]
        with pytest.raises(ArgumentError, match=r"^inputs\.text\[3\] is empty$"):
            cutting.transmit(["a", "a", "a", ""], snr_db=3.0)


def test_a_batch_larger_than_the_server_takes(server, link, images):
    batch = np.tile(images, (30, 1, 1))
    with Client(server.address) as client:
        sent = client.encode(batch)
    np.testing.assert_array_equal(sent.bits, np.tile(link.transmitter({"image": images}).bits, (30, 1)))


def test_the_client_makes_no_larger_request_than_a_server_takes_by_default():
    assert LimitsConfig().message_bytes == MESSAGE_BYTES
