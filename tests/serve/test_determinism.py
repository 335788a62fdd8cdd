"""One batch, however it is split, over whatever API it comes and whoever else is in the same runs: one answer.

Symbols received, noise variances, indices, bits and LLRs are compared bit for bit. Logits are matrix products: of another
height they may add in another order, 10 terms of float32, magnitudes below 8.
"""

import asyncio
import itertools
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link.channel import build_channel
from link.randomness import Draws
from serve.client import AsyncClient
from serve.messages.tensor import tensor_from_message, tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.inference import grpc_service_pb2 as oip
from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

ROWS = 24
TOLERANCE = 10 * 8 * 2**-23
PLACES = {"event loop": (1, 1.0), "worker": (1, 0.0), "three workers": (3, 0.0)}
"""Where runs are made: workers, and seconds below which a run is made on the event loop."""
NAMES = ("y", "no", "indices", "bits", "llr", "indices_hat", "bit_errors", "logits")
DTYPES = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}

addresses = st.fixed_dictionaries(
    {
        "snr_db": st.sampled_from([-5.0, 0.0, 4.5]),
        "seed": st.integers(0, 3) | st.integers(0, 2**63 - 1),
        "sample_offset": st.integers(0, 3) | st.integers(0, 2**32 - ROWS),
        "draw": st.integers(0, 2) | st.integers(0, 2**32 - 1),
    }
)
channels = st.sampled_from(
    [
        {},
        {"channel": "rayleigh", "block_symbols": 2, "csi": "lmmse", "pilots": 2},
        {"channel": "rayleigh", "block_symbols": 2, "csi": "ls", "pilots": 1, "no_offset_db": 2.0},
        {"channel": "rician", "k_factor_db": 3.0},
        {"channel": "rayleigh-fast"},
    ]
)
borders = st.sets(st.integers(1, ROWS - 1), max_size=5).map(sorted)


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(8).uniform(0.0, 16.0, size=(ROWS, 8, 8)).astype(np.float32)


def expected_of(link, batch, options):
    channel = {
        name: value
        for name, value in options.items()
        if name not in ("snr_db", "seed", "sample_offset", "draw", "channel")
    }
    draws = Draws(options["seed"], options["sample_offset"] + np.arange(len(batch)), options["draw"])
    found = link.transmit(
        {"image": batch}, build_channel(options.get("channel", "awgn"), **channel), options["snr_db"], draws
    )
    return {
        "y": found.received.y,
        "no": found.received.no,
        "indices": found.sent.indices,
        "bits": found.sent.bits,
        "llr": found.decoded.llr,
        "indices_hat": found.decoded.indices_hat,
        "bit_errors": ((found.decoded.llr > 0) != found.sent.bits.astype(bool)).sum(axis=1),
        "logits": found.decoded.logits,
    }


def parts(batch, options, split):
    """The requests of one batch: rows, and the options that address the same noise."""
    for first, last in itertools.pairwise((0, *split, len(batch))):
        yield batch[first:last], options | {"sample_offset": options["sample_offset"] + first}


def to_message(images, options):
    return pb.TransmitRequest(
        inputs={"image": tensor_to_message("image", images, pb.TENSOR_FORMAT_RAW)},
        settings=pb.LinkSettings(**options),
        tensor_format=pb.TENSOR_FORMAT_RAW,
        include_llr=True,
        include_symbols=True,
    )


def from_message(reply):
    places = {"y": reply.received, "no": reply.received, "indices": reply.sent, "bits": reply.sent}
    found = {
        name: tensor_from_message(name, getattr(places.get(name, reply.decoded), name))
        for name in NAMES
        if name != "bit_errors"
    }
    return found | {"bit_errors": np.array(reply.bit_errors)}


def unary(own, requests):
    calls = [own.stub.Transmit.future(to_message(*request), timeout=60) for request in requests]
    return [from_message(call.result()) for call in calls]


def streamed(own, requests):
    messages = [pb.TransmitStreamRequest(request=to_message(*request)) for request in requests]
    return [from_message(reply.response) for reply in own.stub.TransmitStream(iter(messages), timeout=60)]


def infer_request(images, options):
    fields = {int: "int64_param", float: "double_param", str: "string_param"}
    message = oip.ModelInferRequest(
        model_name="tiny.link",
        inputs=[oip.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=images.shape)],
        raw_input_contents=[images.tobytes()],
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in NAMES],
    )
    for name, value in options.items():
        setattr(message.parameters[name], fields[type(value)], value)
    return message


def from_infer(reply):
    return {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(tuple(output.shape))
        for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def inferred(own, requests):
    stub = GRPCInferenceServiceStub(own.channel)
    calls = [stub.ModelInfer.future(infer_request(*request), timeout=60) for request in requests]
    return [from_infer(call.result()) for call in calls]


def infer_streamed(own, requests):
    stub = GRPCInferenceServiceStub(own.channel)
    messages = [infer_request(*request) for request in requests]
    return [from_infer(reply.infer_response) for reply in stub.ModelStreamInfer(iter(messages), timeout=60)]


def in_pieces(own, requests):
    """By the client, which splits once more."""

    async def run():
        async with AsyncClient(own.address, max_batch=5) as client:
            asked = (
                client.transmit(images, include_llr=True, include_symbols=True, **options)
                for images, options in requests
            )
            return await asyncio.gather(*asked)

    return [
        {
            "y": reply.y,
            "no": reply.no,
            "indices": reply.sent.indices,
            "bits": reply.sent.bits,
            "llr": reply.decoded.llr,
            "indices_hat": reply.decoded.indices_hat,
            "bit_errors": reply.bit_errors,
            "logits": reply.decoded.logits,
        }
        for reply in asyncio.run(run())
    ]


WAYS = (unary, streamed, inferred, infer_streamed, in_pieces)


class Strangers:
    """Calls with other seeds, SNRs, channels and samples, over and over, some of them wrong."""

    def __init__(self, own):
        random = np.random.default_rng(9)
        self._own, self._stop = own, threading.Event()
        others = [
            ({"snr_db": -5.0, "seed": 0, "sample_offset": 7}, 1),
            ({"snr_db": 4.5, "seed": 1, "draw": 1}, 3),
            ({"snr_db": 0.0, "seed": 2, "channel": "rician", "k_factor_db": 3.0}, 2),
            ({"snr_db": -5.0, "seed": 3, "channel": "rayleigh", "block_symbols": 2, "csi": "lmmse", "pilots": 2}, 1),
            ({"snr_db": 0.0, "seed": 0}, 5),
        ]
        self._requests = [
            to_message(random.uniform(0.0, 16.0, size=(rows, 8, 8)).astype(np.float32), options)
            for options, rows in others
        ]
        self._requests.append(to_message(np.full((1, 8, 8), 17.0, np.float32), others[0][0]))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        under_way = []
        for request in itertools.cycle(self._requests):
            if self._stop.is_set():
                break
            under_way.append(self._own.stub.Transmit.future(request, timeout=60))
            if len(under_way) == 8:
                under_way.pop(0).exception()
        for call in under_way:
            call.exception()

    def close(self):
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module", params=PLACES)
def crowded(request, serving, bundle_path):
    """A server that joins what it can, and has other callers."""
    workers, quick_s = PLACES[request.param]
    batching = {"workers": workers, "max_wait_us": 2000, "max_rows": 64}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("QUICK_S", "QUICK_BESIDE_S"):
            patch.setattr(f"serve.engine.batcher.{name}", quick_s)
        with serving(bundle_path, batching=batching) as own:
            strangers = Strangers(own)
            yield own
            strangers.close()
            counted = own.counted()
            assert counted.executed_requests > 1.5 * counted.executions, "hardly any run had several requests"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(address=addresses, channel=channels, split=borders, way=st.sampled_from(WAYS))
def test_a_batch_has_one_answer_however_it_is_asked_for_and_among_whomever(
    crowded, link, batch, address, channel, split, way
):
    options = address | channel
    expected = expected_of(link, batch, options)
    replies = way(crowded, list(parts(batch, options, split)))
    assert len(replies) == len(split) + 1
    for name in NAMES:
        found = np.concatenate([reply[name] for reply in replies])
        if name == "logits":
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE)
        else:
            np.testing.assert_array_equal(found, expected[name], err_msg=name)


@pytest.mark.parametrize("way", WAYS)
def test_requests_of_one_seed_that_are_joined_keep_their_own_samples(crowded, link, batch, way):
    """The case that runs carry together over one channel: as many numbers as there are requests, in no order."""
    options = {"snr_db": 0.0, "seed": 5, "sample_offset": 0, "draw": 0}
    expected = expected_of(link, batch, options)
    requests = list(parts(batch, options, range(1, ROWS)))
    requests.reverse()
    for _ in range(5):
        replies = way(crowded, requests)
        for name in ("y", "no", "llr", "indices_hat"):
            found = np.concatenate([reply[name] for reply in reversed(replies)])
            np.testing.assert_array_equal(found, expected[name], err_msg=name)
