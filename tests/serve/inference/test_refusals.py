import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.pb.inference import grpc_service_pb2 as pb

IMAGE = np.ones((1, 8, 8), dtype=np.float32)
SYMBOLS = np.full((1, 4, 2), 0.5, dtype=np.float32)
NO = np.full((1, 4), 0.1, dtype=np.float32)
GOOD = {"image": IMAGE}
RECEIVED = {"symbols": SYMBOLS, "no": NO}


def contents(name, datatype, shape, **fields):
    """An input with typed contents."""
    typed = pb.InferTensorContents(**fields)
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, contents=typed)


def typed(*inputs, model="tiny.transmitter"):
    return pb.ModelInferRequest(model_name=model, inputs=inputs)


def raw(*contents, datatype="FP32", shape=(1, 8, 8), model="tiny.transmitter", name="image"):
    inputs = [pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)]
    return pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=contents)


def asking(model, inputs, **fields):
    """A request that is made once there is something to make it with; `change` spoils it."""
    change = fields.pop("change", lambda message: None)

    def make(request):
        message = request(model, inputs, **fields)
        change(message)
        return message

    return make


def link(inputs=GOOD, **parameters):
    return asking("tiny.link", inputs, parameters=parameters)


def encode(change):
    return asking("tiny.transmitter", GOOD, change=change)


def receive(**changes):
    return asking("tiny.receiver", RECEIVED | changes)


def wanting(name, **parameters):
    def change(message):
        for parameter, value in parameters.items():
            message.outputs[0].parameters[parameter].int64_param = value

    return asking("tiny.link", GOOD, outputs=[name], change=change)


def come_twice(message):
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])


ONES = [1.0] * 64
REFUSED = {
    "missing input": (link({}), "inputs.image", "is missing"),
    "unknown input": (link({"text": IMAGE}), "inputs.text", "is unknown; this model takes image"),
    "input twice": (encode(come_twice), "inputs.image", "must be given once"),
    "raw and typed contents": (
        encode(lambda message: message.inputs[0].contents.fp32_contents.extend(ONES)),
        "inputs.image.contents",
        "must be absent",
    ),
    "raw contents of fewer inputs": (raw(b"", b""), "raw_input_contents", "for each of the 1 inputs, got 2"),
    "shared memory": (
        encode(lambda message: message.inputs[0].parameters["shared_memory_region"].SetInParent()),
        "inputs.image.parameters.shared_memory_region",
        "tensors come within the message",
    ),
    "too few bytes": (raw(bytes(255)), "inputs.image", "of FP32 with 256 bytes, got 255"),
    "too many bytes": (raw(bytes(257)), "inputs.image", "with 256 bytes, got 257"),
    "huge shape": (raw(b"", shape=[1, *[2**62] * 7]), "inputs.image", "bytes, got 0"),
    "negative size": (raw(b"", shape=[1, -1, 8]), "inputs.image.shape", "at least 1, got [1, -1, 8]"),
    "no sample": (raw(b"", shape=[0, 8, 8]), "inputs.image.shape", "at least 1"),
    "no shape": (raw(b"", shape=[]), "inputs.image.shape", "must have 1 to 8 sizes, got 0"),
    "nine sizes": (raw(b"", shape=[1] * 9), "inputs.image.shape", "must have 1 to 8 sizes, got 9"),
    "wrong shape": (link({"image": IMAGE[:, :7]}), "inputs.image", "must have shape (batch, 8, 8), got (1, 7, 8)"),
    "too many samples": (link({"image": np.zeros((65, 8, 8), np.float32)}), "inputs.image", "at most 64 samples"),
    "unknown datatype": (raw(bytes(256), datatype="FP8"), "inputs.image.datatype", "must be one of BOOL, UINT8"),
    "texts for numbers": (raw(bytes(4), datatype="BYTES"), "inputs.image.datatype", "must be one of BOOL"),
    "NaN": (link({"image": IMAGE * np.float32(np.nan)}), "inputs.image", "must be finite"),
    "out of range": (link({"image": 17.0 * IMAGE}), "inputs.image", "must be in [0, 16], got [17, 17]"),
    "beyond float32": (link({"image": 1e300 * IMAGE.astype(np.float64)}), "inputs.image", "must be finite in float32"),
    "fractions for integers": (
        receive(mode=np.array([0.5])),
        "inputs.mode",
        "must hold integers",
    ),
    "typed contents short": (
        typed(contents("image", "FP32", [1, 8, 8], fp32_contents=ONES[1:])),
        "inputs.image",
        "with 64 fp32_contents, got 63",
    ),
    "contents of another type": (
        typed(contents("image", "FP32", [1, 8, 8], fp64_contents=ONES)),
        "inputs.image",
        "with 64 fp32_contents, got 0",
    ),
    "half precision typed": (typed(contents("image", "FP16", [1, 8, 8])), "inputs.image", "raw_input_contents"),
    "no contents": (typed(contents("image", "INT64", [1, 8, 8])), "inputs.image", "64 int64_contents, got 0"),
    "receiver without symbols": (asking("tiny.receiver", {}), "inputs.symbols", "is missing"),
    "receiver without variances": (asking("tiny.receiver", {"symbols": SYMBOLS}), "inputs.no", "is missing"),
    "variance zero": (receive(no=0 * NO), "inputs.no", "must be at least 1e-06"),
    "bits beside symbols": (
        receive(bits=np.zeros((1, 15), np.uint8)),
        "inputs.symbols",
        "must be absent",
    ),
    "mode unknown": (receive(mode=np.array([1])), "inputs.mode", "in [0, 1)"),
    "unknown output": (wanting("z"), "outputs.z", "is unknown; this model has decisions, class_names"),
    "output twice": (
        asking("tiny.link", GOOD, outputs=["y", "y"]),
        "outputs.y",
        "must be wanted once",
    ),
    "classes of no scores": (
        wanting("bits", classification=1),
        "outputs.bits.parameters.classification",
        "must be absent",
    ),
    "more classes than there are": (
        wanting("logits", classification=4),
        "outputs.logits.parameters.classification",
        "must be in [1, 3], got 4",
    ),
    "no classes": (
        wanting("logits", classification=0),
        "outputs.logits.parameters.classification",
        "must be an integer of at least 1",
    ),
    "unknown parameter of an output": (
        wanting("logits", shared_memory_offset=4),
        "outputs.logits.parameters.shared_memory_offset",
        "is unknown",
    ),
    "unknown parameter": (link(snr=3.0), "parameters.snr", "is unknown; this model takes snr_db, channel"),
    "a parameter of no use": (
        asking("tiny.receiver", RECEIVED, parameters={"snr_db": 3.0}),
        "parameters.snr_db",
        "is unknown; this model takes timeout",
    ),
    "an estimate that nobody looks at": (
        asking("tiny.transmitter", GOOD, parameters={"snr_db": 3.0}),
        "parameters.snr_db",
        "must be absent",
    ),
    "sequence": (link(sequence_id=3), "parameters.sequence_id", "samples are independent"),
    "snr too high": (link(snr_db=99.0), "parameters.snr_db", "must be in [-30, 60], got 99"),
    "snr not a number": (link(snr_db="nan"), "parameters.snr_db", "must be in [-30, 60], got nan"),
    "snr no number": (link(snr_db="ten"), "parameters.snr_db", "must be a number, got 'ten'"),
    "snr a truth value": (link(snr_db=True), "parameters.snr_db", "must be a number, got True"),
    "seed fractional": (link(seed=0.5), "parameters.seed", "must be an integer, got 0.5"),
    "seed infinite": (link(seed=float("inf")), "parameters.seed", "must be an integer"),
    "seed negative": (link(seed=-1), "parameters.seed", "must be in [0, 2**63)"),
    "seed of a hundred digits": (link(seed="9" * 100), "parameters.seed", "must be in [0, 2**63)"),
    "seed of many thousand digits": (link(seed="9" * 9999), "parameters.seed", "must be an integer"),
    "parameter without value": (
        asking("tiny.link", GOOD, change=lambda message: message.parameters["seed"].SetInParent()),
        "parameters.seed",
        "must be an integer, got nothing",
    ),
    "channel a number": (link(channel=3), "parameters.channel", "must be a text, got 3"),
    "channel unknown": (link(channel="tin-can"), "parameters.channel", "must be one of awgn"),
    "block of no block fading": (link(block_symbols=4), "parameters.block_symbols", "must be 0"),
    "timeout negative": (link(timeout=-1), "parameters.timeout", "must be at least 0 microseconds"),
    "another version": (asking("tiny.link", GOOD, model_version="2"), "model_version", "must be 1 or empty"),
}


def violation_of(error):
    bad_request = error_details_pb2.BadRequest()
    assert rpc_status.from_call(error).details[0].Unpack(bad_request)
    return bad_request.field_violations[0]


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_by_its_part_with_what_is_allowed(stub, oip, case):
    made, field, text = REFUSED[case]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(made(oip.request) if callable(made) else made, timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.value.details()
    violation = violation_of(refused.value)
    assert (violation.field, text in violation.description) == (field, True), violation
    assert refused.value.details() == f"{field} {violation.description}"


TEXT_CASES = {
    "cut within a length": (b"\x01\x00\x00", "inputs.text[0]", "got fewer"),
    "cut within an element": (b"\x05\x00\x00\x00film", "inputs.text[0]", "got fewer"),
    "length beyond the message": (b"\xff\xff\xff\xfffilm", "inputs.text[0]", "got fewer"),
    "more than there are": (b"\x01\x00\x00\x00aa", "inputs.text", "got 1 bytes after the last"),
    "no UTF-8": (b"\x01\x00\x00\x00\xff", "inputs.text[0]", "must be a text in UTF-8"),
    "nothing": (b"", "inputs.text[0]", "got fewer"),
    "empty text": (b"\x00\x00\x00\x00", "inputs.text[0]", "is empty"),
}


@pytest.mark.parametrize("case", TEXT_CASES)
def test_bytes_that_hold_no_text_are_refused_by_their_place(text_stub, case):
    content, field, text = TEXT_CASES[case]
    with pytest.raises(grpc.RpcError) as refused:
        text_stub.ModelInfer(raw(content, datatype="BYTES", shape=[1], name="text"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violation = violation_of(refused.value)
    assert violation.field.startswith(field)
    assert text in violation.description


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (lambda: raw(bytes(24), datatype="INT64", shape=[3], name="text"), "inputs.text.datatype"),
        (lambda: raw(b"", datatype="BYTES", shape=[2, 2], name="text"), "inputs.text"),
        (lambda: raw(bytes(4 * 65), datatype="BYTES", shape=[65], name="text"), "inputs.text"),
        (lambda: typed(contents("text", "BYTES", [2], bytes_contents=[b"a"])), "inputs.text"),
    ],
)
def test_a_text_input_takes_texts_alone_and_one_a_sample(text_stub, request_of, field):
    with pytest.raises(grpc.RpcError) as refused:
        text_stub.ModelInfer(request_of())
    assert violation_of(refused.value).field == field


@pytest.mark.parametrize("name", ["", "tiny", "tin.link", ".link", "tiny.codec", "x" * 100_000, "\n.link"])
def test_a_model_that_is_not_there_is_not_found_and_those_that_are_there_are_named(stub, oip, name):
    for call, message in (
        (stub.ModelInfer, oip.request(name, GOOD)),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name=name)),
        (stub.ModelConfig, pb.ModelConfigRequest(name=name)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(message)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert "tiny.transmitter, tiny.receiver, tiny.link" in refused.value.details()
        assert len(refused.value.details()) < 1000
    assert not stub.ModelReady(pb.ModelReadyRequest(name=name)).ready


def test_an_estimate_is_named_by_where_it_came_from(routed_stub, oip, latents_of):
    latents = latents_of([0]).inputs
    estimate = {"snr_db": np.array([99.0], dtype=np.float32)}
    for request, field in (
        (oip.request("rings.transmitter", latents | estimate), "inputs.snr_db"),
        (oip.request("rings.transmitter", latents, parameters={"snr_db": 99}), "parameters.snr_db"),
        (oip.request("rings.transmitter", latents | estimate, parameters={"snr_db": 9}), "inputs.snr_db"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            routed_stub.ModelInfer(request)
        assert violation_of(refused.value).field == field


def test_a_request_whose_time_is_over_is_not_computed(inference, oip):
    del inference.runs[:]
    with pytest.raises(grpc.RpcError) as refused:
        inference.stub.ModelInfer(oip.request("tiny.transmitter", GOOD, parameters={"timeout": 1}))
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not inference.runs


@pytest.mark.parametrize(
    "array",
    [
        IMAGE.astype(np.float64),
        IMAGE.astype(np.float16),
        IMAGE.astype(np.int32),
        IMAGE.astype(np.int64),
        IMAGE.astype(np.uint8),
        IMAGE.astype(bool),
    ],
    ids=lambda array: array.dtype.name,
)
def test_a_type_that_the_graph_s_own_holds_is_taken(stub, oip, array):
    assert stub.ModelInfer(oip.request("tiny.transmitter", {"image": array})) == stub.ModelInfer(
        oip.request("tiny.transmitter", GOOD)
    )


def test_raw_contents_and_typed_contents_are_the_same(stub, oip):
    image = np.arange(64.0, dtype=np.float32).reshape(1, 8, 8) / 4.0
    wanted = stub.ModelInfer(oip.request("tiny.transmitter", {"image": image}))
    values = image.ravel().tolist()
    for datatype, fields in {
        "FP32": {"fp32_contents": values},
        "FP64": {"fp64_contents": values},
    }.items():
        assert stub.ModelInfer(typed(contents("image", datatype, [1, 8, 8], **fields))) == wanted
    whole = np.round(image)
    wanted = stub.ModelInfer(oip.request("tiny.transmitter", {"image": whole}))
    integers = whole.astype(int).ravel().tolist()
    for datatype, field in {
        "INT8": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT64": "uint64_contents",
    }.items():
        assert stub.ModelInfer(typed(contents("image", datatype, [1, 8, 8], **{field: integers}))) == wanted
    upper = (whole.view(np.uint32) >> 16).astype("<u2")  # of a whole number up to 16 the lower half is 0
    assert stub.ModelInfer(raw(upper.tobytes(), datatype="BF16")) == wanted


words = st.sampled_from(["", "image", "tiny.link", "snr_db", "FP32", "BYTES", "bits"]) | st.text(
    st.characters(codec="utf-8"), max_size=4
)
values = st.builds(pb.InferParameter) | st.one_of(
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 20)),
    st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(pb.InferParameter, double_param=st.floats() | st.floats(-30.0, 60.0)),
    st.builds(pb.InferParameter, string_param=words | st.sampled_from(["awgn", "rayleigh", "ls", "1e3", "inf"])),
)
NAMES = (
    *("snr_db", "channel", "block_symbols", "k_factor_db", "seed", "sample_offset", "draw", "snr_error_db", "csi"),
    *("pilots", "no_offset_db", "timeout", "priority", "sequence_id", "classification"),
)
parameters = st.dictionaries(st.sampled_from(NAMES) | words, values, max_size=3)
some_contents = st.builds(
    pb.InferTensorContents,
    fp32_contents=st.just([1.0] * 64) | st.lists(st.floats(width=32), max_size=3),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    bool_contents=st.lists(st.booleans(), max_size=3),
    bytes_contents=st.lists(st.binary(max_size=4), max_size=3),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["image", "symbols", "no", "mode", "bits", "text"]) | words,
    datatype=st.sampled_from(["FP32", "FP64", "INT64", "UINT8", "BOOL", "BYTES", "FP16", "BF16"]) | words,
    shape=st.sampled_from([[1, 8, 8], [1, 4, 2], [1, 4], [1, 15], [1]])
    | st.lists(st.integers(-1, 9) | st.sampled_from([2**31, 2**63 - 1, -(2**63)]), max_size=9),
    parameters=st.just({}) | parameters,
    contents=st.none() | some_contents,
)
wanted = st.builds(
    pb.ModelInferRequest.InferRequestedOutputTensor,
    name=st.sampled_from(["decisions", "logits", "bits", "y", "class_names"]) | words,
    parameters=st.just({}) | parameters,
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["tiny.transmitter", "tiny.receiver", "tiny.link"]) | words,
    model_version=st.sampled_from(["", "1"]) | words,
    id=words,
    parameters=parameters,
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(wanted, max_size=3),
    raw_input_contents=st.just([]) | st.just([bytes(256)]) | st.lists(st.binary(max_size=40), max_size=3),
)


def error_of(stub, request):
    try:
        stub.ModelInfer(request, timeout=20)
    except grpc.RpcError as error:
        return error
    return None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests)
def test_no_request_is_the_servers_fault(stub, text_stub, request):
    for held in (stub, text_stub):
        error = error_of(held, request)
        if error is not None and error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED):
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
            assert violation_of(error).field
