"""Modes that a request of the Open Inference Protocol chooses: those of hardpath.v1, as a parameter or an input."""

import grpc
import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.randomness import Draws
from serve.pb.inference import grpc_service_pb2 as pb

ROWS = 8
IN_TURN = np.arange(ROWS) % 4 - 1
SENT = ["mode", "indices", "bits", "num_bits", "symbols", "num_symbols"]


@pytest.fixture(scope="module")
def link(steered_bundle):
    return Link(load_bundle(steered_bundle))


@pytest.fixture(scope="module")
def steered(steered_bundle, oip):
    with oip.serving([steered_bundle]) as server:
        yield server.stub


@pytest.fixture(scope="module")
def latents(latents_of):
    return latents_of(np.arange(ROWS) % 3).inputs


def assert_sent(found, sent):
    for name in SENT:
        np.testing.assert_array_equal(found[name], getattr(sent, name), err_msg=name)


@pytest.mark.parametrize("value", [2, 2.0, "2"])
def test_the_transmitter_sends_in_the_mode_of_the_parameter(steered, oip, link, latents, value):
    reply = steered.ModelInfer(oip.request("rings.transmitter", latents, parameters={"mode": value, "snr_db": 15.0}))
    assert_sent(oip.arrays(reply), link.transmitter(latents, mode=2))
    assert oip.options(reply) == {"mode": 2, "snr_db": 15.0}


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_the_transmitter_sends_each_sample_in_the_mode_of_the_input(steered, oip, link, latents, dtype):
    given = latents | {"mode": IN_TURN.astype(dtype)}
    reply = steered.ModelInfer(oip.request("rings.transmitter", given, parameters={"snr_db": 4.0}))
    assert_sent(oip.arrays(reply), link.transmitter(latents, 4.0, IN_TURN))
    assert oip.options(reply) == {"snr_db": 4.0}


def test_a_reply_names_the_parameters_that_were_used_and_no_default_beside_inputs(steered, oip, latents):
    estimates = latents | {"snr_db": np.full(ROWS, 4.0, dtype=np.float32)}
    reply = steered.ModelInfer(oip.request("rings.transmitter", estimates, parameters={"mode": 1}))
    assert oip.options(reply) == {"mode": 1}
    assert oip.options(steered.ModelInfer(oip.request("rings.transmitter", latents))) == {"snr_db": 12.0}


@pytest.mark.parametrize("each", [False, True])
def test_the_link_carries_the_mode_that_is_asked_for(steered, oip, link, latents, each):
    mode = IN_TURN if each else 1
    asked, parameters = (latents | {"mode": IN_TURN}, {}) if each else (latents, {"mode": 1})
    parameters |= {"snr_db": -2.0, "seed": 5}
    outputs = [*SENT, "mode_hat", "header_lost", "header_wrong", "llr"]
    request = oip.request("rings.link", asked, parameters=parameters, outputs=outputs)
    reply = steered.ModelInfer(request)
    found = oip.arrays(reply)
    expected = link.transmit(latents, build_channel("awgn"), -2.0, Draws(5, np.arange(ROWS)), mode=mode)
    assert_sent(found, expected.sent)
    np.testing.assert_array_equal(found["mode_hat"], expected.header.mode)
    np.testing.assert_array_equal(found["llr"], expected.decoded.llr)
    assert ("mode" in reply.parameters) == (not each)
    again = oip.request("rings.link", asked, parameters=oip.options(reply), outputs=outputs)
    assert steered.ModelInfer(again) == reply


@pytest.mark.parametrize("model", ["rings.transmitter", "rings.link"])
@pytest.mark.parametrize(
    ("each", "one", "message"),
    [
        (None, 3, "parameters.mode must be in [0, 3), or -1 for the transmitter's own choice, got 3"),
        (None, 1.5, "parameters.mode must be an integer, got 1.5"),
        (None, "robust", "parameters.mode must be an integer, got 'robust'"),
        ([0] * 7 + [-3], None, "inputs.mode must be in [0, 3), or -1 for the transmitter's own choice, got -3"),
        ([0.0] * 8, None, "inputs.mode must hold integers (int64), got dtype float64"),
        ([0, 1], None, "inputs.mode must have shape (8), got (2)"),
        ([0] * 8, 1, "inputs.mode must be given once, got an input and a parameter"),
    ],
)
def test_a_wrong_mode_is_named_by_where_it_came_from(steered, oip, latents, model, each, one, message):
    given = latents if each is None else latents | {"mode": np.array(each)}
    request = oip.request(model, given, parameters={} if one is None else {"mode": one})
    with pytest.raises(grpc.RpcError) as refused:
        steered.ModelInfer(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == message


def test_clients_that_fill_every_input_ask_for_no_mode(steered):
    """Metadata cannot say what is optional, and zeros would be mode 0."""
    for name, expected in (("rings.transmitter", ["latent", "snr_db"]), ("rings.link", ["latent"])):
        metadata = steered.ModelMetadata(pb.ModelMetadataRequest(name=name))
        assert [tensor.name for tensor in metadata.inputs] == expected
        config = steered.ModelConfig(pb.ModelConfigRequest(name=name)).config
        assert [tensor.name for tensor in config.input] == expected
        assert config.parameters["mode"].string_value == ""


def test_a_bundle_of_before_there_was_a_choice_takes_no_mode(routed_stub, oip, latents):
    for model in ("rings.transmitter", "rings.link"):
        assert routed_stub.ModelInfer(oip.request(model, latents, parameters={"mode": -1}))
        for request, message in (
            (oip.request(model, latents, parameters={"mode": 1}), "parameters.mode must be absent: this bundle was"),
            (oip.request(model, latents | {"mode": np.zeros(8, np.int64)}), "inputs.mode is unknown; this model takes"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                routed_stub.ModelInfer(request)
            assert refused.value.details().startswith(message)
