from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from link.channel import build_channel
from link.codebook import softmax
from link.randomness import Draws
from serve.results import Settings

CHANNELS = [
    ("awgn", {}),
    ("rayleigh", {"block_symbols": 2}),
    ("rayleigh", {"block_symbols": 2**31 - 1}),
    ("rayleigh-fast", {}),
    ("rician", {"k_factor_db": 3.0}),
    ("rician-fast", {}),
]


def assert_same(left, right):
    for name, expected in left._asdict().items():
        np.testing.assert_array_equal(
            getattr(right, name), expected, err_msg=name, strict=isinstance(expected, np.ndarray)
        )


@pytest.mark.parametrize(("channel", "options"), CHANNELS)
def test_the_server_answers_what_the_link_answers_in_process_bit_for_bit(client, link, images, channel, options):
    draws = Draws(seed=9, samples=3 + np.arange(len(images)), draw=2)
    expected = link.transmit({"image": images}, build_channel(channel, **options), 4.5, draws)

    reply = client.transmit(
        images,
        snr_db=4.5,
        channel=channel,
        seed=9,
        sample_offset=3,
        draw=2,
        include_llr=True,
        include_symbols=True,
        **options,
    )

    assert_same(expected.sent, reply.sent)
    np.testing.assert_array_equal(reply.y, expected.received.y, strict=True)
    np.testing.assert_array_equal(reply.no, expected.received.no, strict=True)
    assert_same(expected.decoded, reply.decoded)
    np.testing.assert_array_equal(reply.decoded.decisions, expected.decoded.decisions, strict=True)
    np.testing.assert_array_equal(reply.decoded.probabilities, softmax(expected.decoded.logits), strict=True)


def test_encode_and_decode_are_the_transmitter_and_the_receiver(client, link, images):
    sent = client.encode({"image": images})
    assert_same(link.transmitter({"image": images}), sent)

    llr_in = np.linspace(-2.0, 2.0, sent.bits.size, dtype=np.float32).reshape(sent.bits.shape)
    decoded = client.decode(sent.symbols, 0.1, mode=[0] * len(images), llr_in=llr_in, include_llr=True)
    no = np.full(sent.symbols.shape[:2], 0.1, dtype=np.float32)
    assert_same(link.receiver(sent.symbols, no, llr_in=llr_in), decoded)
    assert decoded.class_names == tuple(link.manifest.task.classes[i] for i in decoded.decisions)


def test_erased_symbols_pass_the_wire(client, link, images):
    sent = link.transmitter({"image": images})
    no = np.full(sent.symbols.shape[:2], 0.1, dtype=np.float32)
    no[:, 1] = np.inf
    assert_same(link.receiver(sent.symbols, no), client.decode(sent.symbols, no, include_llr=True))


@pytest.mark.parametrize("channel", ["awgn", "rician"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_sample_gets_the_same_reply_whatever_batch_it_comes_in(client, images, channel, size):
    options = {"snr_db": 3.0, "channel": channel, "seed": 1, "include_llr": True, "include_symbols": True}
    whole = client.transmit(images, sample_offset=10, **options)
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        part = client.transmit(images[rows], sample_offset=10 + start, **options)
        assert_same(type(whole.sent)(*(value[rows] for value in whole.sent)), part.sent)
        np.testing.assert_array_equal(part.y, whole.y[rows])
        np.testing.assert_array_equal(part.no, whole.no[rows])
        np.testing.assert_array_equal(part.bit_errors, whole.bit_errors[rows])
        np.testing.assert_array_equal(part.decoded.llr, whole.decoded.llr[rows])
        np.testing.assert_array_equal(part.decoded.indices_hat, whole.decoded.indices_hat[rows])
        np.testing.assert_array_equal(part.decoded.decisions, whole.decoded.decisions[rows])
        # A matrix product of another height may add in another order: 10 terms of float32, magnitudes below 8.
        np.testing.assert_allclose(part.decoded.logits, whole.decoded.logits[rows], rtol=0, atol=10 * 8 * 2**-23)


def test_seed_draw_and_offset_each_change_the_noise(client, images):
    def received(**address):
        return client.transmit(images, snr_db=0.0, include_symbols=True, **address).y

    base = received()
    for address in ({"seed": 1}, {"draw": 1}, {"sample_offset": len(images)}):
        assert (received(**address) != base).all(axis=(1, 2)).all(), address
    np.testing.assert_array_equal(received(seed=0, draw=0, sample_offset=0), base)


def test_the_echo_holds_the_settings_as_used_and_replays_the_reply(client, images):
    first = client.transmit(
        images, snr_db=5.25, channel="rician", seed=2**63 - 1, sample_offset=2**32 - 7, draw=2**32 - 1
    )
    assert first.settings == Settings(5.25, "rician", 0, 6.0, 2**63 - 1, 2**32 - 7, 2**32 - 1)
    again = client.transmit(images, **vars(first.settings))
    assert again.settings == first.settings
    assert_same(first.decoded._replace(llr=None), again.decoded)


@pytest.mark.parametrize("channel", ["awgn", "rayleigh", "rayleigh-fast", "rician", "rician-fast"])
def test_every_echo_may_be_sent_again(client, images, channel):
    settings = client.transmit(images, snr_db=5.0, channel=channel).settings
    assert client.transmit(images, **vars(settings)).settings == settings


def test_bit_errors_count_payload_bits_that_the_signs_of_the_llrs_get_wrong(client, images):
    reply = client.transmit(images, snr_db=-5.0, include_llr=True)
    expected = [
        sum(int(llr > 0) != bit for llr, bit in zip(row, bits, strict=True))
        for row, bits in zip(reply.decoded.llr.tolist(), reply.sent.bits.tolist(), strict=True)
    ]
    assert reply.bit_errors.tolist() == expected
    assert sum(expected) > 0
    assert client.transmit(images, snr_db=60.0).bit_errors.tolist() == [0] * len(images)


def test_what_was_not_asked_for_is_not_sent(client, images):
    reply = client.transmit(images, snr_db=5.0)
    assert reply.decoded.llr is None
    assert reply.sent.symbols is None
    assert reply.y is None
    assert reply.no is None


def test_the_time_of_each_stage_is_told(client, images):
    *stages, queue = client.transmit(images, snr_db=5.0).timing
    assert all(0.0 < spent < 60e6 for spent in stages)
    assert 0.0 <= queue < 60e6


def test_the_client_learns_the_whole_manifest(client, server, link):
    info = client.model()
    assert info.manifest == link.manifest
    assert info == server.engine.model().info
    assert info.max_batch == 64
    assert "rician" in info.channels


def test_plain_lists_and_float64_are_taken_as_the_link_takes_them(client, link, images):
    doubles = images.astype(np.float64) + 1e-12
    assert_same(link.transmitter({"image": doubles}), client.encode(doubles.tolist()))


def test_any_number_of_threads_may_call_at_once(client, link, images):
    def decisions(seed):
        return client.transmit(images, snr_db=-2.0, seed=seed).decoded.decisions.tolist()

    expected = [
        link.transmit(
            {"image": images}, build_channel("awgn"), -2.0, Draws(seed, np.arange(len(images)))
        ).decoded.decisions.tolist()
        for seed in range(40)
    ]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decisions, range(40))) == expected
