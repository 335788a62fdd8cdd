"""Requests that choose the mode: they get it and nobody else does, and a server that cannot give it says so."""

import asyncio

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.chaos.questions import make_questions
from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError, ServerError
from link.randomness import Draws
from serve.client import AsyncClient, Client
from serve.engine.programs import Encode, EncodeJob, Transmit, TransmitJob
from serve.messages import convert
from serve.messages.manifest import model_from_message
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1.link_pb2_grpc import LinkServiceStub
from serve.results import Settings
from serve.server import Server

ROWS = 12
SNR_DB = -3.0
IN_TURN = np.arange(ROWS) % 4 - 1
ASKED = (None, -1, 0, 2, IN_TURN)


@pytest.fixture(scope="module")
def link(steered_bundle):
    return Link(load_bundle(steered_bundle))


@pytest.fixture(scope="module")
def steered(steered_bundle):
    with Server(steered_bundle, port=0) as running:
        yield running


@pytest.fixture(scope="module")
def rings(steered):
    with Client(steered.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def stub(steered):
    with grpc.insecure_channel(steered.address) as channel:
        yield LinkServiceStub(channel)


@pytest.fixture(scope="module")
def inputs(latents_of):
    return latents_of(np.arange(ROWS) % 3).inputs


def assert_same(left, right):
    for name, expected in left._asdict().items():
        if name != "timing":
            np.testing.assert_array_equal(getattr(right, name), expected, err_msg=name)


def carried(link, inputs, mode, offset=0):
    return link.transmit(inputs, build_channel("awgn"), SNR_DB, Draws(7, offset + np.arange(ROWS)), mode=mode)


@pytest.mark.parametrize("mode", ASKED)
def test_what_is_sent_received_and_decided_is_what_the_link_makes_of_that_mode(rings, link, inputs, mode):
    expected = carried(link, inputs, mode)
    reply = rings.transmit(inputs, snr_db=SNR_DB, mode=mode, seed=7, include_llr=True, include_symbols=True)
    assert_same(expected.sent, reply.sent)
    assert_same(expected.header, reply.header)
    assert_same(expected.decoded, reply.decoded)
    np.testing.assert_array_equal(reply.y, expected.received.y)
    assert_same(expected.sent, rings.encode(inputs, snr_db=SNR_DB, mode=mode))
    if mode is not None:
        asked = np.broadcast_to(mode, ROWS)
        np.testing.assert_array_equal(reply.sent.mode[asked >= 0], asked[asked >= 0])


def test_the_modes_of_a_reply_asked_for_again_give_the_reply_again(rings, inputs):
    own = rings.transmit(inputs, snr_db=5.0, seed=7, include_llr=True)
    again = rings.transmit(inputs, mode=own.sent.mode, include_llr=True, **vars(own.settings))
    for name in ("sent", "header", "decoded"):
        assert_same(getattr(own, name), getattr(again, name))


def test_a_mode_for_all_needs_no_estimate_and_one_left_open_does(rings, link, inputs):
    assert_same(link.transmitter(inputs, mode=1), rings.encode(inputs, mode=1))
    with pytest.raises(ArgumentError, match="snr_db is missing"):
        rings.encode(inputs, mode=IN_TURN)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (3, r"^mode must be in \[0, 3\), or -1 for the transmitter's own choice, got 3$"),
        ([-2] + [0] * (ROWS - 1), r"^mode must be in \[0, 3\), or -1 for the transmitter's own choice, got -2$"),
        ([1], "^mode must hold one mode a sample, got 1 for 12$"),
        ([], "^mode must be an integer, or hold one mode a sample$"),
        (np.array([], dtype=int), "^mode must hold one mode a sample, got 0 for 12$"),
        ([[1] * ROWS], "^mode must be an integer, or hold one mode a sample$"),
        ([[1], [1, 1]], "^mode must be an integer, or hold one mode a sample$"),
        (1.0, "^mode must be an integer"),
        ("robust", "^mode must be an integer"),
        (2**31, "^mode must be an integer"),
        (-(2**63), "^mode must be an integer"),
    ],
)
def test_a_wrong_mode_is_refused_in_one_line(rings, inputs, mode, message):
    for call in (rings.encode, rings.transmit):
        with pytest.raises(ArgumentError, match=message) as caught:
            call(inputs, snr_db=SNR_DB, mode=mode)
        assert caught.value.field == "mode"


def test_a_request_with_modes_for_other_samples_is_refused_by_the_server(stub, inputs):
    given = {"latent": tensor_to_message("latent", inputs["latent"])}
    transmit = pb.TransmitRequest(inputs=given, settings=pb.LinkSettings(snr_db=0.0), mode=[1, 1])
    for call, request in ((stub.Transmit, transmit), (stub.Encode, pb.EncodeRequest(inputs=given, mode=[1, 1]))):
        with pytest.raises(grpc.RpcError) as refused:
            call(request, timeout=20)
        assert refused.value.details() == "mode must have shape (12), got (2)"


def test_in_a_stream_a_wrong_mode_is_one_requests_failure(stub, inputs):
    given = {"latent": tensor_to_message("latent", inputs["latent"])}
    requests = [
        pb.TransmitStreamRequest(
            request=pb.TransmitRequest(inputs=given, settings=pb.LinkSettings(snr_db=0.0), mode=[mode])
        )
        for mode in (2, 7, 0)
    ]
    first, wrong, last = stub.TransmitStream(iter(requests), timeout=20)
    assert (set(first.response.sent.mode), set(last.response.sent.mode)) == ({2}, {0})
    assert wrong.failure.field == "mode"


@pytest.mark.parametrize("mode", [1, IN_TURN])
def test_pieces_of_a_batch_are_sent_in_the_modes_of_its_rows(steered, rings, inputs, mode):
    whole = rings.transmit(inputs, snr_db=SNR_DB, mode=mode, seed=7, sample_offset=3, include_llr=True)
    with Client(steered.address, max_batch=5) as cutting:
        split = cutting.transmit(inputs, snr_db=SNR_DB, mode=mode, seed=7, sample_offset=3, include_llr=True)
        assert_same(cutting.encode(inputs, snr_db=SNR_DB, mode=mode), rings.encode(inputs, snr_db=SNR_DB, mode=mode))
        with pytest.raises(ArgumentError, match=r"^mode must hold one mode a sample, got 6 for 12$"):
            cutting.transmit(inputs, snr_db=SNR_DB, mode=[0] * 6)
    for name in ("sent", "header", "decoded"):
        assert_same(getattr(whole, name), getattr(split, name))


def test_a_stream_sends_each_batch_in_the_modes_asked_for(rings, inputs):
    for mode in (0, IN_TURN):
        expected = rings.transmit(inputs, snr_db=SNR_DB, mode=mode, seed=7)
        first, second = rings.transmit_stream([inputs, inputs], snr_db=SNR_DB, mode=mode, seed=7)
        assert_same(expected.sent, first.sent)
        assert_same(expected.header, first.header)
        assert_same(first.sent, second.sent)


def test_callers_at_the_same_time_get_their_own_modes(steered, link, inputs):
    async def ask():
        async with AsyncClient(steered.address) as client:
            calls = [
                client.transmit(inputs, snr_db=SNR_DB, mode=mode, seed=7, sample_offset=ROWS * number, include_llr=True)
                for number, mode in enumerate(ASKED * 4)
            ]
            return await asyncio.gather(*calls)

    for number, (mode, reply) in enumerate(zip(ASKED * 4, asyncio.run(ask()), strict=True)):
        expected = carried(link, inputs, mode, ROWS * number)
        assert_same(expected.sent, reply.sent._replace(symbols=expected.sent.symbols))
        np.testing.assert_array_equal(reply.decoded.llr, expected.decoded.llr)


choices = st.integers(1, 4).flatmap(
    lambda rows: st.tuples(
        st.just(rows), st.none() | st.lists(st.integers(-1, 2), min_size=rows, max_size=rows).map(np.array)
    )
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(choices, min_size=2, max_size=5), seed=st.integers(0, 3))
def test_a_request_in_a_run_of_others_modes_is_answered_as_alone(link, latents_of, asked, seed):
    random = np.random.default_rng(seed)
    channel, used = build_channel("awgn"), Settings(SNR_DB, seed=seed)
    encodes, transmits = [], []
    for rows, mode in asked:
        latents = latents_of(random.integers(3, size=rows), seed=int(random.integers(9))).inputs
        estimate = np.full(rows, SNR_DB, dtype=np.float32)
        encodes.append(EncodeJob(rows, latents, estimate, mode))
        transmits.append(TransmitJob(rows, latents, used, channel, estimate, mode))
    for program, jobs in ((Encode(link), encodes), (Transmit(link), transmits)):
        for job, together in zip(jobs, program.run(jobs), strict=True):
            (alone,) = program.run([job])
            assert_same(alone.sent, together.sent)
            if job.mode is not None:
                told = job.mode >= 0
                np.testing.assert_array_equal(together.sent.mode[told], job.mode[told])
            if program.__class__ is Transmit:
                assert_same(alone.header, together.header)
                np.testing.assert_array_equal(together.decoded.llr, alone.decoded.llr)


def test_a_client_knows_whether_requests_may_choose(rings, link, stub):
    assert rings.model().manifest == link.manifest
    assert rings.model().manifest.takes_mode
    message = stub.GetModel(pb.GetModelRequest())
    assert message.model.takes_mode
    # A client from before there was a choice sees the inputs that it has to give, and no other.
    assert [spec.name for spec in message.model.transmitter.inputs] == ["latent", "snr_db"]
    message.model.ClearField("takes_mode")
    assert not model_from_message(message).manifest.takes_mode


def test_a_bundle_of_before_there_was_a_choice_is_served_and_says_that_it_has_none(routed_bundle, inputs):
    link = Link(load_bundle(routed_bundle))
    with Server(routed_bundle, port=0) as server, Client(server.address) as older:
        assert not older.model().manifest.takes_mode
        for mode in (None, -1, [-1] * ROWS):
            assert_same(link.transmitter(inputs, 4.0), older.encode(inputs, snr_db=4.0, mode=mode))
        for call in (older.encode, older.transmit):
            with pytest.raises(
                ArgumentError, match="mode must be absent: this bundle was exported without an input for"
            ):
                call(inputs, snr_db=4.0, mode=0)


def test_a_model_of_one_mode_takes_that_one_alone(client, images):
    assert_same(client.encode(images), client.encode(images, mode=0))
    assert not client.model().manifest.takes_mode
    with pytest.raises(
        ArgumentError, match=r"^mode must be in \[0, 1\), or -1 for the transmitter's own choice, got 1$"
    ):
        client.transmit(images, snr_db=3.0, mode=1)


def test_a_server_that_does_not_hear_the_mode_is_found_out(rings, inputs, monkeypatch):
    """As one does that was built before the field was."""
    monkeypatch.setattr(convert, "mode_from_message", lambda mode: None)
    own = rings.encode(inputs, snr_db=15.0).mode
    assert_same(rings.encode(inputs, snr_db=15.0), rings.encode(inputs, snr_db=15.0, mode=own))
    for call in (rings.encode, rings.transmit):
        with pytest.raises(ArgumentError, match=r"^mode must be absent: the server is older than this option"):
            call(inputs, snr_db=15.0, mode=2)
    with pytest.raises(ArgumentError, match=r"^mode must be absent: the server is older than this option"):
        list(rings.transmit_stream([inputs], snr_db=15.0, mode=2))


def test_a_reply_about_other_samples_than_were_sent_is_a_fault_of_the_server(rings, inputs, monkeypatch):
    read = convert.sent_from_message
    monkeypatch.setattr(
        convert, "sent_from_message", lambda message: read(message)._replace(mode=np.zeros(3, np.int64))
    )
    with pytest.raises(ServerError, match=r"cannot be read: sent\.mode must have 12 rows, got 3"):
        rings.transmit(inputs, snr_db=15.0, mode=[0] * ROWS)


def test_the_questions_of_the_soak_ask_for_modes_and_are_answered(steered, link):
    """As the link answers them in this process: every mode is asked for, one for all samples and one for each."""
    asked = make_questions(link, 36, rows=(1, 3, 8, 2))
    with grpc.insecure_channel(steered.address) as channel:
        for question in asked:
            reply = channel.unary_unary(question.method)(question.request, timeout=20)
            assert question.is_answered_by(reply)
    modes = [tuple(pb.EncodeRequest.FromString(q.request).mode) for q in asked if q.method.endswith("/Encode")]
    assert {len(mode) for mode in modes} >= {0, 1, 3, 8}
    assert set().union(*modes) == {-1, 0, 1, 2}
