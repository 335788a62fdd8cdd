"""tritonclient as it comes, against our server."""

import asyncio
from functools import partial
from queue import SimpleQueue

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

DATATYPES = {"float32": "FP32", "uint8": "UINT8", "object": "BYTES"}


def tensor(name, array):
    given = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
    given.set_data_from_numpy(array)
    return given


@pytest.fixture(scope="module")
def client(inference):
    with triton.InferenceServerClient(inference.address) as connected:
        yield connected


def test_it_sees_server_and_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny.link")
    assert client.is_model_ready("tiny.link", "1")
    assert not client.is_model_ready("tiny.link", "2")
    assert client.get_server_metadata().name == "hardpath"
    assert [output.name for output in client.get_model_metadata("tiny.transmitter").outputs][:2] == ["mode", "indices"]
    assert client.get_model_config("tiny.link").config.max_batch_size == 64
    assert [model.name for model in client.get_model_repository_index().models] == [
        "tiny.transmitter",
        "tiny.receiver",
        "tiny.link",
    ]


def test_it_sends_over_transmitter_and_receiver_what_the_library_does(client, link, images):
    sent = client.infer("tiny.transmitter", [tensor("image", images)], request_id="7")
    assert sent.get_response().id == "7"
    symbols = sent.as_numpy("symbols")
    np.testing.assert_array_equal(symbols, link.transmitter({"image": images}).symbols, strict=True)
    no = np.full(symbols.shape[:2], 0.5, dtype=np.float32)
    found = client.infer("tiny.receiver", [tensor("symbols", symbols), tensor("no", no)])
    wanted = link.receiver(symbols, no)
    np.testing.assert_array_equal(found.as_numpy("llr"), wanted.llr, strict=True)
    names = [link.manifest.task.classes[index].encode() for index in wanted.decisions]
    assert found.as_numpy("class_names").tolist() == names


def test_it_passes_options_outputs_and_classes(client, images):
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1), triton.InferRequestedOutput("y")]
    parameters = {"snr_db": 3, "channel": "rayleigh", "seed": 11}
    ask = partial(client.infer, "tiny.link", [tensor("image", images)], outputs=outputs)
    result = ask(parameters=parameters, timeout=5_000_000, priority=1)
    assert result.get_response().parameters["snr_db"].double_param == 3.0
    assert result.as_numpy("y").shape == (len(images), 4, 2)
    score, index, name = result.as_numpy("probabilities")[0, 0].decode().split(":")
    assert float(score) > 1 / 3
    assert name == ("disc", "ring", "star")[int(index)]
    np.testing.assert_array_equal(ask(parameters=parameters).as_numpy("y"), result.as_numpy("y"))


def test_it_sends_texts(oip, text_bundle_path, text_link):
    texts = ["a fine film", "dull"]
    with oip.serving([text_bundle_path]) as server, triton.InferenceServerClient(server.address) as client:
        given = np.array([text.encode() for text in texts], dtype=np.object_)
        for array in (given, given[:, None]):
            result = client.infer("tiny.transmitter", [tensor("text", array)])
            np.testing.assert_array_equal(result.as_numpy("bits"), text_link.transmitter({"text": texts}).bits)


def test_it_streams(client, images):
    replies = SimpleQueue()
    client.start_stream(lambda result, error: replies.put((result, error)))
    for number in range(20):
        client.async_stream_infer(
            "tiny.link",
            [tensor("image", images[:1])],
            request_id=str(number),
            parameters={"snr_db": 99 if number == 5 else 9},
            enable_empty_final_response=True,
        )
    results = [replies.get(timeout=20) for _ in range(20)]
    client.stop_stream()
    assert str(results.pop(5)[1]) == "parameters.snr_db must be in [-30, 60], got 99"
    assert [result.get_response().id for result, _ in results] == [str(n) for n in range(20) if n != 5]


def test_it_calls_and_streams_asynchronously(inference, images):
    async def requests():
        for number in range(3):
            inputs = [tensor("image", images[:1])]
            yield {"model_name": "tiny.transmitter", "inputs": inputs, "request_id": str(number)}

    async def run():
        async with triton_aio.InferenceServerClient(inference.address) as client:
            calls = [client.infer("tiny.link", [tensor("image", images)], parameters={"seed": n}) for n in range(9)]
            results = await asyncio.gather(*calls)
            streamed = [item async for item in client.stream_infer(requests())]
        return results, streamed

    results, streamed = asyncio.run(run())
    assert [result.get_response().parameters["seed"].int64_param for result in results] == list(range(9))
    assert [(result.get_response().id, error) for result, error in streamed] == [("0", None), ("1", None), ("2", None)]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client.get_model_metadata("tin.link"), "NOT_FOUND"),
        (lambda client: client.unload_model("tiny"), "UNIMPLEMENTED"),
        (lambda client: client.load_model("tiny"), "UNIMPLEMENTED"),
        (lambda client: client.get_trace_settings(), "UNIMPLEMENTED"),
        (lambda client: client.get_log_settings(), "UNIMPLEMENTED"),
        (lambda client: client.register_system_shared_memory("region", "/key", 64), "UNIMPLEMENTED"),
        (lambda client: client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 64), "UNIMPLEMENTED"),
        (lambda client: client.infer("tiny.link", []), "INVALID_ARGUMENT"),
    ],
)
def test_it_is_told_in_one_line_what_is_not_there(client, call, code, caplog):
    with pytest.raises(InferenceServerException) as refused:
        call(client)
    assert not caplog.records
    assert refused.value.status() == f"StatusCode.{code}"
    assert refused.value.message()
    assert "\n" not in refused.value.message()


def test_a_tensor_in_shared_memory_is_refused_by_its_name_whatever_is_beside_it(client):
    shared = triton.InferInput("symbols", [1, 4, 2], "FP32")
    shared.set_shared_memory("region", 32)
    for inputs in ([shared], [shared, tensor("no", np.ones((1, 4), np.float32))]):
        with pytest.raises(InferenceServerException) as refused:
            client.infer("tiny.receiver", inputs)
        field, _, why = refused.value.message().partition(" ")
        assert field.startswith("inputs.symbols.parameters.shared_memory_")
        assert why == "is unknown: tensors come within the message"


def test_it_may_forget_shared_memory_that_there_never_was(client):
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
