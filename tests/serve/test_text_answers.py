"""A model that answers texts: the same pieces, probabilities and texts by every way that a server has."""

import json

import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToJson

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.randomness import Draws
from serve.client import Client
from serve.messages.convert import decoded_from_message, decoded_to_message
from serve.messages.manifest import model_from_message, model_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.server import Server

TEXTS = ["a fine film", "one dull film and a fine one", "and", "a dull one"] * 5
SNR_DB = 6.0


@pytest.fixture(scope="module")
def link(speller_path):
    return Link(load_bundle(speller_path))


@pytest.fixture(scope="module")
def server(speller_path):
    with Server(speller_path, port=0, max_batch=8) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def wanted(link):
    return link.transmit({"text": TEXTS}, build_channel("awgn"), SNR_DB, Draws(4, np.arange(len(TEXTS))))


def held_to(found, decoded, link):
    np.testing.assert_array_equal(found.decisions, decoded.pieces, strict=True)
    np.testing.assert_array_equal(found.log_prob, decoded.log_prob, strict=True)
    np.testing.assert_array_equal(found.indices_hat, decoded.indices_hat, strict=True)
    assert list(found.answers) == link.receiver.texts(decoded.pieces)
    assert (found.logits, found.probabilities) == (None, None)


def test_transmit_answers_texts_in_pieces_of_any_size(client, link, wanted):
    assert len(set(link.receiver.texts(wanted.decoded.pieces))) > 3
    reply = client.transmit({"text": TEXTS}, snr_db=SNR_DB, seed=4)  # more rows than the server takes at once
    held_to(reply.decoded, wanted.decoded, link)


def test_decode_answers_texts(client, link, wanted):
    received = wanted.received
    held_to(client.decode(received.y, received.no), wanted.decoded, link)


def test_a_stream_answers_each_text_as_it_is_rebuilt(client, link, wanted):
    batches = [{"text": TEXTS[:1]}, {"text": TEXTS[1:4]}]
    replies = list(client.transmit_stream(batches, snr_db=SNR_DB, seed=4))
    assert [len(reply.decoded.answers) for reply in replies] == [1, 3]
    assert replies[0].decoded.answers == tuple(link.receiver.texts(wanted.decoded.pieces[:1]))


def test_a_sweep_without_labels_holds_texts_to_what_arrives_without_noise(client, link):
    low, high = client.sweep({"text": TEXTS}, [-10.0, 40.0])
    assert (high.samples, high.accuracy.value) == (len(TEXTS), 1.0)
    assert low.accuracy.value < 0.9


def test_a_sweep_takes_pieces_as_labels_row_by_row(client, wanted):
    labels = wanted.decoded.pieces
    (point,) = client.sweep({"text": TEXTS}, [SNR_DB], labels=labels.ravel(), draws=1, seed=4)
    assert point.correct == labels.size


def test_a_client_knows_that_texts_are_answered(client, link):
    info = client.model()
    assert info.manifest.task == link.manifest.task
    assert model_from_message(model_to_message(info)) == info


def test_a_message_of_texts_is_read_as_it_was_written(client, wanted):
    reply = client.transmit({"text": TEXTS[:3]}, snr_db=SNR_DB, seed=4, include_llr=True).decoded
    for tensor_format in (pb.TENSOR_FORMAT_RAW, pb.TENSOR_FORMAT_VALUES):
        again = decoded_from_message(decoded_to_message(reply, tensor_format, include_llr=True))
        for name, value in reply._asdict().items():
            np.testing.assert_array_equal(getattr(again, name), value)


def test_the_inference_protocol_answers_texts(server, link, wanted):
    client = triton.InferenceServerClient(server.address)
    texts = triton.InferInput("text", [4], "BYTES")
    texts.set_data_from_numpy(np.array([text.encode() for text in TEXTS[:4]], dtype=object))
    reply = client.infer("speller.link", [texts], parameters={"snr_db": SNR_DB, "seed": 4})
    found = [text.decode() for text in reply.as_numpy("texts")]
    assert found == link.receiver.texts(wanted.decoded.pieces[:4])
    np.testing.assert_array_equal(reply.as_numpy("pieces"), wanted.decoded.pieces[:4])
    np.testing.assert_array_equal(reply.as_numpy("log_prob"), wanted.decoded.log_prob[:4])
    assert {output["name"] for output in json.loads(MessageToJson(reply.get_response()))["outputs"]} == {
        "texts",
        "pieces",
        "log_prob",
        "bit_errors",
    }
    client.close()
