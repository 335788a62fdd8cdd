"""Raw texts over gRPC: a real server whose bundle carries a tokenizer."""

import logging
from contextlib import nullcontext

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link.channel import build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1.link_pb2_grpc import LinkServiceStub

TEXTS = ["a fine film", "dull", "one \U0001f600 \u6620\u753b", "a dull film and a fine one"]
CUT = [False, False, False, True]


@pytest.fixture(scope="module")
def stub(text_server):
    with grpc.insecure_channel(text_server.address) as channel:
        yield LinkServiceStub(channel)


def strings(*texts):
    return pb.Tensor(shape=[len(texts)], string_values=texts)


def transmit(**inputs):
    return pb.TransmitRequest(inputs=inputs, settings=pb.LinkSettings(snr_db=3.0, seed=4))


@pytest.mark.parametrize("texts", [TEXTS, tuple(TEXTS), np.array(TEXTS), {"text": TEXTS}])
def test_the_server_answers_texts_as_the_link_does_in_process_bit_for_bit(text_client, text_link, texts):
    expected = text_link.transmit({"text": TEXTS}, build_channel("awgn"), 3.0, Draws(4, np.arange(len(TEXTS))))
    reply = text_client.transmit(texts, snr_db=3.0, seed=4, include_llr=True, include_symbols=True)
    for left, right in ((expected.sent, reply.sent), (expected.decoded, reply.decoded)):
        for name, value in left._asdict().items():
            np.testing.assert_array_equal(getattr(right, name), value, err_msg=name, strict=True)
    np.testing.assert_array_equal(reply.y, expected.received.y, strict=True)
    assert reply.truncated.tolist() == CUT


def test_texts_and_the_integers_that_they_become_get_one_answer(text_client, text_link):
    encoded = text_link.bundle.tokenizer()(TEXTS)
    integers = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
    texts = text_client.transmit(TEXTS, snr_db=3.0, include_llr=True)
    same = text_client.transmit(integers, snr_db=3.0, include_llr=True)
    np.testing.assert_array_equal(same.decoded.llr, texts.decoded.llr, strict=True)
    np.testing.assert_array_equal(same.sent.bits, texts.sent.bits, strict=True)
    assert len(np.unique(texts.sent.bits, axis=0)) > 2
    assert same.truncated is None


def test_encode_takes_texts_and_says_which_were_cut(text_client, text_link, stub, caplog):
    with caplog.at_level(logging.WARNING, logger="serve"):
        sent = text_client.encode(TEXTS)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 4 texts have too many tokens for the model: cut"
    ]
    for expected, found in zip(text_link.transmitter({"text": TEXTS}), sent, strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)
    assert list(stub.Encode(pb.EncodeRequest(inputs={"text": strings(*TEXTS)})).truncated) == CUT


def test_a_model_that_reads_no_texts_says_nothing_of_cutting(client, images):
    assert client.transmit(images, snr_db=3.0).truncated is None


def test_the_server_s_log_does_not_count_what_the_reply_says(text_client, caplog):
    with caplog.at_level(logging.WARNING):
        text_client.transmit(TEXTS, snr_db=3.0)
    assert caplog.records == []


def test_the_client_learns_how_the_model_reads_texts(text_client, text_link, client):
    assert text_client.model().manifest == text_link.manifest
    assert text_client.model().manifest.tokenizer.length == 6
    assert text_client.model().manifest.input_names == ("text",)
    assert client.model().manifest.tokenizer is None


def test_json_shows_texts_as_texts(stub):
    reply = stub.GetModel(pb.GetModelRequest())
    assert (reply.model.tokenizer.text, reply.model.tokenizer.length) == ("text", 6)
    assert strings("a", "b").string_values == ["a", "b"]


REFUSED = {
    "an empty text": (transmit(text=strings("a", "", "b")), "inputs.text[1] is empty"),
    "white space": (transmit(text=strings(" \n")), "inputs.text[0] is empty"),
    "a NUL": (transmit(text=strings("a\0")), "inputs.text[0] must not hold a NUL character"),
    "numbers": (
        transmit(text=pb.Tensor(shape=[1], float32_values=[1.0])),
        "inputs.text[0] must be a string, got float32",
    ),
    "a table": (
        transmit(text=pb.Tensor(shape=[1, 2], string_values=["a", "b"])),
        "inputs.text must be a list of texts, got an array of shape (1, 2)",
    ),
    "a text alone": (
        transmit(text=pb.Tensor(string_values=["a"])),
        "inputs.text must be a list of texts, got an array of shape ()",
    ),
    "too many": (transmit(text=strings(*"a" * 65)), "inputs.text must hold at most 64 samples, got 65"),
    "nothing": (transmit(), "inputs.text is missing"),
    "another input": (transmit(image=strings("a")), "inputs.image is unknown; this bundle takes text"),
    "both forms": (
        transmit(text=strings("a"), input_ids=pb.Tensor(shape=[1, 6], int64_values=[1] * 6)),
        "inputs.input_ids must be absent where inputs.text is given",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_text_is_named_by_its_row(stub, case):
    request, message = REFUSED[case]
    with pytest.raises(grpc.RpcError) as refused:
        stub.Transmit(request, timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == message


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a fine film", "x must be a list of texts, got a single one: put it into a list"),
        (["a", ""], "inputs.text[1] is empty"),
        (["a", 7], "inputs.text[1] must be a string, got int"),
        (["a", "\ud83d"], "inputs.text[1] must not hold half of a surrogate pair"),
        (np.ones((1, 8, 8)), "inputs.text must be a list of texts, got an array of shape (1, 8, 8)"),
    ],
)
def test_the_client_names_a_wrong_text_by_its_row(text_client, texts, message):
    for call in (text_client.encode, lambda x: text_client.transmit(x, snr_db=3.0)):
        with pytest.raises(ArgumentError) as refused:
            call(texts)
        assert str(refused.value) == message


anything = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(anything, min_size=1, max_size=4))
def test_no_text_is_the_server_s_fault(stub, texts):
    wrong = any(not text.strip() or "\0" in text for text in texts)
    with pytest.raises(grpc.RpcError) if wrong else nullcontext() as refused:
        assert len(stub.Transmit(transmit(text=strings(*texts)), timeout=20).decoded.decisions) == len(texts)
    assert not wrong or refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


FLAGS = {"dull": (False, False), "tour de force": (False, True), "a dull film and a fine one": (True, False)}


@pytest.mark.parametrize("streamed", [False, True])
def test_each_request_is_told_which_of_its_own_texts_were_cut_or_are_unknown(stub, streamed):
    """Also where several requests go together."""
    texts = list(FLAGS)
    batches = [texts, texts[::-1], texts[1:2], texts[2:], texts[:1]] * 8
    requests = [transmit(text=strings(*batch)) for batch in batches]
    if streamed:
        messages = [pb.TransmitStreamRequest(request=request) for request in requests]
        replies = [reply.response for reply in stub.TransmitStream(iter(messages), timeout=60)]
    else:
        calls = [stub.Transmit.future(request, timeout=60) for request in requests]
        replies = [call.result() for call in calls]
    for batch, reply in zip(batches, replies, strict=True):
        assert list(zip(reply.truncated, reply.unknown, strict=True)) == [FLAGS[text] for text in batch]


def test_encode_says_which_texts_are_unknown(stub):
    reply = stub.Encode(pb.EncodeRequest(inputs={"text": strings(*FLAGS)}), timeout=20)
    assert list(zip(reply.truncated, reply.unknown, strict=True)) == list(FLAGS.values())
