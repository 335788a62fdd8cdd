"""Transmit over the radio of a server: what it answers, and what it refuses."""

import asyncio

import grpc
import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import RADIO
from link.errors import ArgumentError, DriverUnavailable, ServerError
from link.radio.channel import RadioChannel
from link.randomness import Draws
from link.semantic import clean_decisions
from serve.client import AsyncClient
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb

LOOPBACK = "[frontend]\nkind = 'loopback'\n"
IMPAIRED = "[frontend]\nkind = 'impaired'\ncfo = 2e-4\ntaps = [0.9, 0, 0, '0.3j']\ndelay_samples = 3.25\n"
OPTIONS = ("block_symbols", "k_factor_db", "csi", "pilots", "no_offset_db")


@pytest.fixture(scope="module")
def loopback(with_radio, bundle_path):
    with with_radio(bundle_path, LOOPBACK) as server:
        yield server


@pytest.fixture(scope="module")
def impaired(with_radio, bundle_path):
    with with_radio(bundle_path, IMPAIRED) as server:
        yield server


def ask(images, **settings):
    return pb.TransmitRequest(
        inputs={"image": tensor_to_message("image", images)}, settings=pb.LinkSettings(**{"channel": RADIO} | settings)
    )


def test_over_a_loopback_the_decisions_are_those_of_the_clean_chain(loopback, link, images):
    reply = loopback.client.transmit(images, channel=RADIO)
    assert reply.decoded.decisions.tolist() == clean_decisions(link, {"image": images}).tolist()
    assert reply.bit_errors.tolist() == [0] * len(images)
    assert (reply.frames.frames, reply.frames.lost, reply.frames.crc_failed) == (1, 0, 0)
    assert reply.frames.snr_db > 30.0
    assert reply.frames.evm < 0.03
    assert reply.frames.papr_db > 0.0
    assert reply.num_pilots.sum() > 0
    assert (reply.settings.channel, reply.settings.snr_db) == (RADIO, None)


def test_over_a_simulated_radio_the_reply_is_what_the_link_answers_in_process_bit_for_bit(impaired, link, images):
    reply = impaired.client.transmit(
        images, snr_db=7.0, channel=RADIO, seed=5, sample_offset=3, draw=2, include_llr=True, include_symbols=True
    )
    with RadioChannel(impaired.spec) as radio:
        expected = link.transmit({"image": images}, radio, 7.0, Draws(5, 3 + np.arange(len(images)), 2))
    assert reply.bit_errors.sum() > 0
    np.testing.assert_array_equal(reply.y, expected.received.y, strict=True)
    np.testing.assert_array_equal(reply.no, expected.received.no, strict=True)
    np.testing.assert_array_equal(reply.decoded.llr, expected.decoded.llr, strict=True)
    np.testing.assert_array_equal(reply.num_pilots, expected.received.num_pilots)
    assert reply.frames == pytest.approx(expected.received.frames, rel=1e-12)
    again = impaired.client.transmit(images, include_symbols=True, **vars(reply.settings))
    np.testing.assert_array_equal(again.y, reply.y)


def test_a_lost_frame_is_an_erasure_and_counted(impaired, images):
    reply = impaired.client.transmit(images, snr_db=-25.0, channel=RADIO, include_llr=True, include_symbols=True)
    assert (reply.frames.frames, reply.frames.lost) == (1, 1)
    assert (reply.frames.snr_db, reply.frames.evm) == (None, None)
    assert not reply.decoded.llr.any()
    assert np.isinf(reply.no).all()


def test_a_batch_in_pieces_has_the_frames_of_all_of_them(with_radio, bundle_path, link, images):
    with with_radio(bundle_path, LOOPBACK, limits={"max_batch": 2}) as server:
        reply = server.client.transmit(images, channel=RADIO)
        assert reply.frames.frames == -(-len(images) // 2)
        assert reply.frames.snr_db > 30.0
        assert reply.decoded.decisions.tolist() == clean_decisions(link, {"image": images}).tolist()


def test_headers_go_over_the_radio_and_their_frames_are_counted(with_radio, modes_bundle, latents_of):
    latents = latents_of(np.arange(12) % 3).inputs
    with with_radio(modes_bundle, LOOPBACK) as server:
        reply = server.client.transmit(latents, channel=RADIO)
        assert not reply.header.lost.any()
        assert not reply.header.wrong.any()
        assert reply.frames.frames >= 2
        assert server.radio.state.exchanges == 2
        assert server.radio.state.frames == reply.frames.frames


def test_a_router_over_a_radio_that_cannot_set_the_snr_is_told_what_to_take_it_for(
    with_radio, steered_bundle, latents_of
):
    latents = latents_of(np.arange(12) % 3).inputs
    expected = Link(load_bundle(steered_bundle))
    with with_radio(steered_bundle, LOOPBACK) as server:
        for snr_db in (-7.0, 20.0):
            reply = server.client.transmit(latents, channel=RADIO, snr_db=snr_db)
            assert reply.sent.mode.tolist() == expected.encode(latents, snr_db).mode.tolist()
            assert reply.settings.snr_db == snr_db
        with pytest.raises(ArgumentError, match=r"^snr_db is missing: this bundle's router chooses by Es/N0"):
            server.client.transmit(latents, channel=RADIO)
        assert server.client.transmit(latents, channel=RADIO, mode=1).sent.mode.tolist() == [1] * 12


def test_streams_and_the_client_for_asyncio_go_over_the_radio(loopback, link, images):
    clean = clean_decisions(link, {"image": images}).tolist()
    batches = [images[:3], images[3:5], images[5:]]
    streamed = loopback.client.transmit_stream(iter(batches), channel=RADIO)
    assert [decision for reply in streamed for decision in reply.decoded.decisions] == clean

    async def call():
        async with AsyncClient(loopback.address) as client:
            one = await client.transmit(images, channel=RADIO)
            many = [reply async for reply in client.transmit_stream(iter(batches), channel=RADIO)]
            return one, many

    one, many = asyncio.run(call())
    assert one.decoded.decisions.tolist() == clean
    assert [reply.frames.frames for reply in many] == [1, 1, 1]


def test_a_model_says_whether_there_is_a_radio(loopback, client):
    assert RADIO in loopback.client.model().channels
    assert RADIO not in client.model().channels


def test_the_other_protocol_reaches_the_radio_too(loopback, link, images):
    from serve.pb.inference import grpc_service_pb2 as inference
    from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

    request = inference.ModelInferRequest(model_name="tiny.link", raw_input_contents=[images.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=images.shape)
    request.parameters["channel"].string_param = RADIO
    request.outputs.add(name="decisions")
    reply = GRPCInferenceServiceStub(loopback.channel).ModelInfer(request)
    decisions = np.frombuffer(reply.raw_output_contents[0], dtype="<i8")
    assert decisions.tolist() == clean_decisions(link, {"image": images}).tolist()
    assert reply.parameters["channel"].string_param == RADIO
    assert "snr_db" not in reply.parameters


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_simulated_channels_is_refused_by_its_name(loopback, images, option):
    with pytest.raises(grpc.RpcError) as failed:
        loopback.stub.Transmit(ask(images, **{option: "ls" if option == "csi" else 1}))
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.details().startswith(f"settings.{option} must be absent over a radio")


def test_an_snr_is_wanted_where_the_radio_sets_it_and_refused_where_it_cannot(loopback, impaired, images):
    with pytest.raises(ArgumentError, match=r"^snr_db must be absent: this radio \(loopback\) cannot set it, got 9$"):
        loopback.client.transmit(images, channel=RADIO, snr_db=9.0)
    with pytest.raises(ArgumentError, match=r"^snr_db is missing: give Es/N0 in dB, which this radio sets$"):
        impaired.client.transmit(images, channel=RADIO)
    with pytest.raises(ArgumentError, match=r"^snr_db must be in \[-30, 60\], got 99$"):
        impaired.client.transmit(images, channel=RADIO, snr_db=99.0)
    with pytest.raises(ArgumentError, match=r"^snr_error_db must be 0 for a bundle without a router"):
        loopback.client.transmit(images, channel=RADIO, snr_error_db=1.0)
    with pytest.raises(ArgumentError, match=r"^snr_db is missing: give Es/N0 in dB$"):
        loopback.client.transmit(images)


def test_an_snr_above_that_of_full_power_is_refused(with_radio, bundle_path, images):
    with with_radio(bundle_path, f"full_snr_db = 20.0\n{LOOPBACK}") as server:
        assert server.client.transmit(images, channel=RADIO, snr_db=20.0).frames.lost == 0
        with pytest.raises(ArgumentError, match=r"^snr_db must be at most 20, the radio's at full power, got 21$"):
            server.client.transmit(images, channel=RADIO, snr_db=21.0)
        assert server.radio.state[:4] == ("loopback", True, 1, 0)


def test_a_sweep_is_for_simulated_channels(loopback, images):
    with pytest.raises(ArgumentError, match=r"^channel must be a simulated one for a sweep"):
        list(loopback.client.sweep(images, (0.0,), channel=RADIO))


def test_a_server_without_a_radio_says_so(client, images):
    with pytest.raises(
        ServerError, match="FAILED_PRECONDITION: channel must be a simulated one: this server has no radio"
    ):
        client.transmit(images, channel=RADIO)


def test_a_file_that_describes_no_radio_is_one_line_and_no_server(bundle_path, tmp_path, serving):
    file = tmp_path / "radio.toml"
    for text, line in (
        ("[frontend]\nkind = 'mirror'\n", f"{file}: kind must be one of loopback"),
        ("[frontend]\nkind = 'loopback'\n[pulse]\n", f"{file}: pulse is no setting of a radio"),
    ):
        file.write_text(text)
        with pytest.raises(ArgumentError) as error, serving(bundle_path, radio={"file": file}):
            pass
        assert str(error.value).startswith(line)
    with pytest.raises(ArgumentError, match="cannot be read"), serving(bundle_path, radio={"file": tmp_path / "none"}):
        pass


def test_a_driver_that_is_not_installed_is_one_line_and_no_server(bundle_path, tmp_path, serving, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    file = tmp_path / "radio.toml"
    file.write_text("[frontend]\nkind = 'zmq'\nsend = 'tcp://127.0.0.1:*'\n")
    with pytest.raises(DriverUnavailable, match="pip install"), serving(bundle_path, radio={"file": file}):
        pass
