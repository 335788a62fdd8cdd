"""Decode for those who bring their own modem: hard bits, or LLRs alone; and what a receiver knows of the channel."""

import asyncio

import grpc
import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError
from link.randomness import Draws
from serve.client import AsyncClient, Client
from serve.pb.inference import grpc_service_pb2 as oip
from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

HARD_LLR = 20.0
NAMES = ("decisions", "probabilities", "logits", "indices_hat", "llr")
DTYPES = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1", "BOOL": "?"}
DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64"}


@pytest.fixture(scope="module")
def infer(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def call(model, arrays, outputs, **parameters):
            kinds = {int: "int64_param", float: "double_param", str: "string_param"}
            request = oip.ModelInferRequest(
                model_name=model,
                inputs=[
                    oip.ModelInferRequest.InferInputTensor(
                        name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape
                    )
                    for name, array in arrays.items()
                ],
                raw_input_contents=[array.tobytes() for array in arrays.values()],
                outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
            )
            for name, value in parameters.items():
                setattr(request.parameters[name], kinds[type(value)], value)
            reply = stub.ModelInfer(request, timeout=20)
            return {
                output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(tuple(output.shape))
                for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
            }

        yield call


def of(decoded):
    return {name: getattr(decoded, name) for name in NAMES}


@pytest.fixture(scope="module")
def decode(server, client, infer):
    """Decode over each API; the asynchronous client sends two samples a request."""

    def in_pieces(**arrays):
        async def run():
            async with AsyncClient(server.address, max_batch=2) as split:
                return of(await split.decode(**arrays, include_llr=True))

        return asyncio.run(run())

    return {
        "hardpath.v1": lambda **arrays: of(client.decode(**arrays, include_llr=True)),
        "pieces": in_pieces,
        "inference": lambda **arrays: infer("tiny.receiver", arrays, NAMES),
    }


APIS = ("hardpath.v1", "pieces", "inference")


def alone(link, llr):
    """What the receiver makes of LLRs where no symbol was received."""
    symbols = np.zeros((len(llr), link.manifest.num_symbols, 2), np.float32)
    no = np.full(symbols.shape[:2], np.inf, np.float32)
    return link.receiver(symbols, no, llr_in=llr)


def assert_same(found, expected):
    for name in ("llr", "indices_hat", "decisions"):
        np.testing.assert_array_equal(found[name], getattr(expected, name), err_msg=name)
    # A matrix product of another height may add in another order: 10 terms of float32, magnitudes below 8.
    np.testing.assert_allclose(found["logits"], expected.logits, rtol=0, atol=10 * 8 * 2**-23)


@pytest.mark.parametrize("api", APIS)
def test_hard_bits_give_back_the_codewords_that_were_sent(decode, link, images, api):
    sent = link.transmitter({"image": images})
    found = decode[api](bits=sent.bits)
    np.testing.assert_array_equal(found["indices_hat"], sent.indices)
    np.testing.assert_array_equal(found["llr"], np.where(sent.bits == 1, HARD_LLR, -HARD_LLR))
    assert_same(found, alone(link, np.where(sent.bits == 1, HARD_LLR, -HARD_LLR).astype(np.float32)))


@pytest.mark.parametrize("api", APIS)
def test_a_bit_that_is_flipped_changes_its_own_codeword_alone(decode, link, images, api):
    sent = link.transmitter({"image": images})
    bits = sent.bits.copy()
    bits[:, 4] ^= 1  # of the second token of three bits each
    found = decode[api](bits=bits)
    changed = found["indices_hat"] != sent.indices
    assert changed[:, 1].all()
    assert not np.delete(changed, 1, axis=1).any()


@pytest.mark.parametrize("api", APIS)
def test_llrs_alone_decide(decode, link, images, api):
    llr = np.random.default_rng(3).normal(0.0, 4.0, size=(len(images), 15)).astype(np.float32)
    llr[0, :3] = (30.0, -30.0, 0.0)  # beyond what the model clips at
    found = decode[api](llr_in=llr)
    np.testing.assert_array_equal(found["llr"], np.clip(llr, -HARD_LLR, HARD_LLR))
    assert_same(found, alone(link, llr))


@pytest.mark.parametrize("api", APIS)
def test_what_a_modem_of_ones_own_demaps_is_decoded_as_the_symbols_are(decode, link, images, api):
    passed = link.transmit({"image": images}, build_channel("awgn"), 6.0, Draws(1, np.arange(len(images))))
    assert_same(decode[api](llr_in=passed.decoded.llr), passed.decoded)


BITS = np.zeros((2, 15), np.uint8)
SYMBOLS, NO, LLR = np.zeros((2, 4, 2), np.float32), np.ones((2, 4), np.float32), np.zeros((2, 15), np.float32)


@pytest.mark.parametrize(
    ("arrays", "field", "text"),
    [
        ({"bits": BITS + 2}, "bits", "must be 0 or 1"),
        ({"bits": BITS[:, :14]}, "bits", "must have shape (batch, 15)"),
        ({"bits": BITS, "symbols": SYMBOLS}, "symbols", "must be absent where bits are given"),
        ({"bits": BITS, "no": NO}, "no", "must be absent where bits are given"),
        ({"bits": BITS, "llr_in": LLR}, "llr_in", "must be absent where bits are given"),
        ({"llr_in": LLR, "no": NO}, "no", "must be absent where symbols are"),
        ({"llr_in": LLR[:, :14]}, "llr_in", "must have shape"),
        ({"llr_in": np.full_like(LLR, np.nan)}, "llr_in", "must be finite"),
        ({"symbols": SYMBOLS}, "no", "is missing"),
        ({"no": NO}, "symbols", "is missing"),
    ],
)
def test_what_does_not_fit_together_is_named(client, infer, arrays, field, text):
    with pytest.raises(ArgumentError) as refused:
        client.decode(**arrays)
    assert refused.value.field == field
    assert text in str(refused.value)
    with pytest.raises(grpc.RpcError) as refused:
        infer("tiny.receiver", arrays, NAMES)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().removeprefix("inputs.").startswith(field)


CSI = [
    {"csi": "ls", "pilots": 1},
    {"csi": "lmmse", "pilots": 3, "no_offset_db": -2.0},
    {"no_offset_db": 3.0},
]


@pytest.mark.parametrize("options", CSI)
def test_what_the_receiver_knows_of_the_channel_passes_the_wire(client, infer, link, images, options):
    channel = {"channel": "rayleigh", "block_symbols": 2} | options
    built = build_channel(**({"name": "rayleigh", "block_symbols": 2} | options))
    expected = link.transmit({"image": images}, built, 5.0, Draws(2, np.arange(len(images))))
    perfect = link.transmit({"image": images}, build_channel("rayleigh", block_symbols=2), 5.0, Draws(2, np.arange(7)))
    assert (expected.decoded.llr != perfect.decoded.llr).any()

    reply = client.transmit(images, snr_db=5.0, seed=2, include_llr=True, include_symbols=True, **channel)
    np.testing.assert_array_equal(reply.y, expected.received.y)
    np.testing.assert_array_equal(reply.no, expected.received.no)
    np.testing.assert_array_equal(reply.decoded.llr, expected.decoded.llr)
    if "pilots" in options:
        assert reply.num_pilots.tolist() == [2 * options["pilots"]] * len(images)  # four symbols are two blocks
        np.testing.assert_array_equal(reply.num_pilots, expected.received.num_pilots)
    else:
        assert reply.num_pilots is None
    used = vars(reply.settings)
    assert {name: used[name] for name in options} == options

    found = infer("tiny.link", {"image": images}, ("y", "no", "llr"), snr_db=5.0, seed=2, **channel)
    for name, array in (("y", reply.y), ("no", reply.no), ("llr", reply.decoded.llr)):
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_hard_bits_of_several_modes_are_decoded_by_the_mode_that_is_given(serving, routed_bundle, latents_of):
    own_link = Link(load_bundle(routed_bundle))
    modes = np.array([0, 1, 2, 2, 1, 0])
    sent = own_link.transmitter(latents_of(modes).inputs, 12.0)
    assert len(set(sent.mode.tolist())) > 1
    with serving(routed_bundle) as own, Client(own.address) as client:
        found = client.decode(bits=sent.bits, mode=sent.mode, include_llr=True)
    hard = np.where(sent.bits == 1, HARD_LLR, -HARD_LLR).astype(np.float32)
    symbols = np.zeros((len(modes), own_link.manifest.num_symbols, 2), np.float32)
    no = np.full(symbols.shape[:2], np.inf, np.float32)
    expected = own_link.receiver(symbols, no, sent.mode, hard)
    for name in ("llr", "indices_hat", "decisions", "logits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for row, mode in enumerate(sent.mode):
        tokens = own_link.manifest.modes[mode].tokens
        np.testing.assert_array_equal(found.indices_hat[row, :tokens], sent.indices[row, :tokens])
