"""A server whose model has several modes: the same answers as the link's, headers and all."""

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from serve.client import Client
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1.link_pb2_grpc import LinkServiceStub
from serve.server import Server

ROWS = 30


@pytest.fixture(scope="module")
def servers(modes_bundle, routed_bundle):
    """Client of a server and the link that it should answer like, for a bundle whose sample chooses, and with a router."""
    with (
        Server(modes_bundle, port=0) as fixed,
        Server(routed_bundle, port=0) as routed,
        Client(fixed.address) as of_fixed,
        Client(routed.address) as of_routed,
    ):
        yield {
            "fixed": (of_fixed, Link(load_bundle(modes_bundle))),
            "routed": (of_routed, Link(load_bundle(routed_bundle))),
        }


@pytest.fixture(scope="module")
def inputs(latents_of):
    modes = np.random.default_rng(1).integers(3, size=ROWS)
    modes[:16] = np.repeat(modes[:4], 4)
    return latents_of(modes).inputs


def assert_same(left, right):
    for name, expected in left._asdict().items():
        np.testing.assert_array_equal(
            getattr(right, name), expected, err_msg=name, strict=isinstance(expected, np.ndarray)
        )


@pytest.mark.parametrize("kind", ["fixed", "routed"])
@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_the_server_answers_what_the_link_answers_in_process_bit_for_bit(servers, inputs, kind, channel):
    client, link = servers[kind]
    error = {"fixed": 0.0, "routed": 8.0}[kind]
    expected = link.transmit(inputs, build_channel(channel), -7.0, Draws(9, 3 + np.arange(ROWS), 2), snr_error_db=error)
    reply = client.transmit(
        inputs,
        snr_db=-7.0,
        channel=channel,
        seed=9,
        sample_offset=3,
        draw=2,
        snr_error_db=error,
        include_llr=True,
        include_symbols=True,
    )
    assert expected.header.lost.any() or expected.header.wrong.any()
    assert_same(expected.header, reply.header)
    assert_same(expected.sent, reply.sent)
    assert_same(expected.decoded, reply.decoded)
    np.testing.assert_array_equal(reply.y, expected.received.y, strict=True)
    np.testing.assert_array_equal(reply.no, expected.received.no, strict=True)
    assert reply.settings.snr_error_db == error
    assert_same(reply.header, client.transmit(inputs, **vars(reply.settings)).header)


def test_requests_that_split_at_the_borders_of_frames_get_what_one_request_gets(servers, inputs):
    client, _ = servers["fixed"]
    options = {"snr_db": -4.0, "seed": 1, "include_llr": True}
    whole = client.transmit(inputs, sample_offset=6, **options)
    parts = []
    for rows in (slice(0, 2), slice(2, 18), slice(18, ROWS)):  # samples 6 and 7, then whole frames of 4
        part = client.transmit({"latent": inputs["latent"][rows]}, sample_offset=6 + rows.start, **options)
        np.testing.assert_array_equal(part.decoded.llr, whole.decoded.llr[rows])
        for name in ("mode", "lost", "wrong", "symbols"):
            np.testing.assert_array_equal(getattr(part.header, name), getattr(whole.header, name)[rows])
        parts.append(part.header)
    for name in ("headers", "headers_lost", "headers_wrong", "header_symbols"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole.header, name)


def test_a_model_of_one_mode_has_no_header(client, images):
    assert client.transmit(images, snr_db=3.0).header is None
    assert client.model().manifest.header is None


@pytest.mark.parametrize("kind", ["fixed", "routed"])
def test_the_client_learns_the_whole_manifest(servers, kind):
    client, link = servers[kind]
    assert client.model().manifest == link.manifest
    assert client.model().manifest.header == link.manifest.header


def test_encode_and_decode_are_the_transmitter_and_the_receiver(servers, inputs):
    client, link = servers["fixed"]
    sent = client.encode(inputs["latent"])
    assert_same(link.transmitter(inputs), sent)
    decoded = client.decode(sent.symbols, 0.01, mode=sent.mode, include_llr=True)
    no = np.full(sent.symbols.shape[:2], 0.01, np.float32)
    assert_same(link.receiver(sent.symbols, no, sent.mode), decoded)
    np.testing.assert_array_equal(decoded.indices_hat, sent.indices)
    with pytest.raises(ArgumentError, match=r"mode must be in \[0, 3\)"):
        client.decode(sent.symbols, 0.01, mode=np.full(ROWS, 3))


def test_encode_takes_the_estimate_of_a_router_and_of_nothing_else(servers, inputs):
    client, link = servers["routed"]
    for snr_db in (-5.0, 5.0, 15.0):
        assert_same(link.transmitter(inputs, snr_db), client.encode(inputs["latent"], snr_db=snr_db))
    for wrong, message in ((None, "snr_db is missing"), (99.0, r"snr_db must be in \[-30, 60\]"), ("x", "snr_db must")):
        with pytest.raises(ArgumentError, match=message) as caught:
            client.encode(inputs, snr_db=wrong)
        assert caught.value.field == "snr_db"
    with pytest.raises(ArgumentError, match="snr_db must be absent"):
        servers["fixed"][0].encode(inputs, snr_db=3.0)


def test_a_wrong_error_of_the_estimate_is_named_by_its_path(servers, inputs):
    fixed, routed = (servers[kind][0] for kind in ("fixed", "routed"))
    for client, error in ((fixed, 1.0), (routed, 31.0), (routed, float("nan")), (routed, "x")):
        with pytest.raises(ArgumentError, match=r"^snr_error_db must be ") as caught:
            client.transmit(inputs, snr_db=0.0, snr_error_db=error)
        assert caught.value.field == "snr_error_db"
    request = pb.TransmitRequest(
        inputs={"latent": tensor_to_message("latent", inputs["latent"])},
        settings=pb.LinkSettings(snr_db=0.0, snr_error_db=-31.0),
    )
    with grpc.insecure_channel(routed.address) as channel, pytest.raises(grpc.RpcError) as refused:
        LinkServiceStub(channel).Transmit(request, timeout=20)
    assert refused.value.details() == "settings.snr_error_db must be in [-30, 30], got -31"
    assert rpc_status.from_call(refused.value).details


def test_the_time_of_the_header_is_the_channels(servers, inputs):
    client, _ = servers["fixed"]
    *stages, _ = client.transmit(inputs, snr_db=5.0).timing
    assert all(0.0 < spent < 60e6 for spent in stages)
