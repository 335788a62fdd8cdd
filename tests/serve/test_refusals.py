import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link.errors import ArgumentError
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1.link_pb2_grpc import LinkServiceStub

IMAGE = pb.Tensor(shape=[1, 8, 8], float32_values=[1.0] * 64)
SYMBOLS = pb.Tensor(shape=[1, 4, 2], float32_values=[0.5] * 8)
NO = pb.Tensor(shape=[1, 4], float32_values=[0.1] * 4)


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield LinkServiceStub(channel)


def transmit(image=IMAGE, inputs=None, **changes):
    wanted = {"snr_db": 10.0} | changes
    return pb.TransmitRequest(
        inputs={"image": image} if inputs is None else inputs,
        settings=pb.LinkSettings(**{name: value for name, value in wanted.items() if value is not None}),
    )


def decode(**changes):
    wanted = {"symbols": SYMBOLS, "no": NO} | changes
    return pb.DecodeRequest(**{name: value for name, value in wanted.items() if value is not None})


def floats(*shape, value=1.0):
    return pb.Tensor(shape=shape, float32_values=[value] * int(np.prod(shape)))


REFUSED = {
    "missing input": (transmit(inputs={}), "inputs.image", "is missing"),
    "unknown input": (transmit(inputs={"image": IMAGE, "text": IMAGE}), "inputs.text", "is unknown"),
    "wrong shape": (transmit(floats(1, 8, 9)), "inputs.image", "must have shape (batch, 8, 8), got (1, 8, 9)"),
    "no batch dimension": (transmit(floats(8, 8)), "inputs.image", "must have shape"),
    "a number for an array": (transmit(floats()), "inputs.image", "must have shape"),
    "NaN": (transmit(floats(1, 8, 8, value=np.nan)), "inputs.image", "must be finite"),
    "value out of range": (transmit(floats(1, 8, 8, value=17.0)), "inputs.image", "must be in [0, 16], got [17, 17]"),
    "data short of the shape": (transmit(pb.Tensor(shape=[1, 8, 8], float32_values=[1.0])), "inputs.image.shape", ""),
    "huge shape": (transmit(pb.Tensor(shape=[2**31 - 1] * 8, float32_values=[1.0])), "inputs.image.shape", ""),
    "no data": (transmit(pb.Tensor(shape=[1, 8, 8])), "inputs.image", "must have exactly one of"),
    "no rows": (
        transmit(pb.Tensor(shape=[0, 8, 8])),
        "inputs.image",
        "must hold at least one value, got shape (0, 8, 8)",
    ),
    "data type at odds": (
        transmit(pb.Tensor(shape=[1, 8, 8], float32_values=[1.0] * 64, data_type=pb.DATA_TYPE_UINT8)),
        "inputs.image.data_type",
        "must agree with float32_values",
    ),
    "texts for numbers": (
        transmit(pb.Tensor(shape=[1], string_values=["a"])),
        "inputs.image",
        "must hold numbers, got dtype object",
    ),
    "batch too large": (transmit(floats(65, 8, 8)), "inputs.image", "must hold at most 64 samples, got 65"),
    "no settings": (pb.TransmitRequest(inputs={"image": IMAGE}), "settings.snr_db", "is missing"),
    "no snr": (transmit(snr_db=None), "settings.snr_db", "is missing"),
    "snr too high": (transmit(snr_db=99.0), "settings.snr_db", "must be in [-30, 60], got 99"),
    "snr too low": (transmit(snr_db=-31.0), "settings.snr_db", "must be in [-30, 60]"),
    "snr NaN": (transmit(snr_db=np.nan), "settings.snr_db", "must be in [-30, 60], got nan"),
    "unknown channel": (transmit(channel="tin-can"), "settings.channel", "must be one of awgn, "),
    "seed negative": (transmit(seed=-1), "settings.seed", "must be in [0, 2**63)"),
    "draw too large": (transmit(draw=2**32), "settings.draw", "must be in [0, 2**32)"),
    "sample offset negative": (transmit(sample_offset=-1), "settings.sample_offset", "must be in [0, 2**32 - 1]"),
    "last sample past the end": (transmit(sample_offset=2**32), "settings.sample_offset", "must be in [0, 2**32 - 1]"),
    "block negative": (
        transmit(channel="rayleigh", block_symbols=-1),
        "settings.block_symbols",
        "must be in [0, 2**31)",
    ),
    "block negative, no use for it": (
        transmit(block_symbols=-1),
        "settings.block_symbols",
        "must be 0 for channel 'awgn'",
    ),
    "block of fast fading": (transmit(channel="rician-fast", block_symbols=4), "settings.block_symbols", "must be 0"),
    "k-factor too high": (transmit(channel="rician", k_factor_db=41.0), "settings.k_factor_db", "must be in [-20, 40]"),
    "k-factor NaN": (transmit(channel="rician", k_factor_db=np.nan), "settings.k_factor_db", "must be in [-20, 40]"),
    "error of an estimate that nobody makes": (transmit(snr_error_db=1.0), "settings.snr_error_db", "must be 0"),
    "error of an estimate NaN": (transmit(snr_error_db=np.nan), "settings.snr_error_db", "must be in [-30, 30]"),
    "encode with an estimate that nobody looks at": (
        pb.EncodeRequest(inputs={"image": IMAGE}, snr_db=3.0),
        "snr_db",
        "must be absent",
    ),
    "k-factor of no Rician channel": (transmit(k_factor_db=3.0), "settings.k_factor_db", "must be absent"),
    "encode without input": (pb.EncodeRequest(), "inputs.image", "is missing"),
    "decode without symbols": (decode(symbols=None), "symbols", "is missing"),
    "decode without noise variance": (decode(no=None), "no", "is missing"),
    "too many symbols": (decode(symbols=floats(1, 5, 2)), "symbols", "must have shape (batch, 4, 2)"),
    "symbols infinite": (decode(symbols=floats(1, 4, 2, value=np.inf)), "symbols", "must be finite"),
    "too many samples to decode": (decode(symbols=floats(65, 4, 2)), "symbols", "must hold at most 64 samples"),
    "noise variance of another batch": (decode(no=floats(2, 4)), "no", "must have shape (1, 4), got (2, 4)"),
    "noise variance zero": (decode(no=floats(1, 4, value=0.0)), "no", "must be at least 1e-06"),
    "noise variance NaN": (decode(no=floats(1, 4, value=np.nan)), "no", "must be at least 1e-06"),
    "mode unknown": (decode(mode=[1]), "mode", "must be in [0, 1)"),
    "mode negative": (decode(mode=[-1]), "mode", "must be in [0, 1)"),
    "modes of another batch": (decode(mode=[0, 0]), "mode", "must have shape (1), got (2)"),
    "llr_in too short": (decode(llr_in=floats(1, 14)), "llr_in", "must have shape (1, 15)"),
    "llr_in infinite": (decode(llr_in=floats(1, 15, value=np.inf)), "llr_in", "must be finite"),
}


def call(stub, request):
    method = {pb.TransmitRequest: stub.Transmit, pb.DecodeRequest: stub.Decode, pb.EncodeRequest: stub.Encode}
    return method[type(request)](request, timeout=20)


def error_of(stub, request):
    try:
        call(stub, request)
    except grpc.RpcError as error:
        return error
    return None


def violation_of(error):
    status = rpc_status.from_call(error)
    bad_request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad_request)
    return bad_request.field_violations[0]


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_argument_is_named_with_what_is_allowed(stub, case):
    request, field, text = REFUSED[case]
    with pytest.raises(grpc.RpcError) as refused:
        call(stub, request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violation = violation_of(refused.value)
    assert violation.field == field
    assert text in violation.description
    assert refused.value.details() == f"{field} {violation.description}"


def test_the_requests_that_the_cases_spoil_are_good(stub):
    assert call(stub, transmit()).settings.channel == "awgn"
    assert call(stub, decode()).decoded.decisions[0].class_name in ("disc", "ring", "star")


@pytest.mark.parametrize("name", ["x" * 100_000, "\N{GRINNING FACE}" * 10_000, "", "a.b", "\n"])
def test_a_name_of_any_length_and_alphabet_fits_into_the_answer(stub, name):
    for request in (transmit(inputs={name: IMAGE}), transmit(channel=name or "\0")):
        with pytest.raises(grpc.RpcError) as refused:
            call(stub, request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        # Trailers hold 8 KiB; escapes of other alphabets would take them up.
        assert len(refused.value.details()) < 1000
        assert refused.value.details().isascii()


CLIENT_REFUSED = [
    ({"snr_db": 99.0}, "snr_db"),
    ({"snr_db": "ten"}, "snr_db"),
    ({"snr_db": 5.0, "seed": 2**63}, "seed"),
    ({"snr_db": 5.0, "seed": -1}, "seed"),
    ({"snr_db": 5.0, "seed": 0.5}, "seed"),
    ({"snr_db": 5.0, "draw": 2**64}, "draw"),
    ({"snr_db": 5.0, "block_symbols": 2**31}, "block_symbols"),
    ({"snr_db": 5.0, "channel": 3}, "channel"),
    ({"snr_db": 5.0, "channel": "tin-can"}, "channel"),
    ({"snr_db": 5.0, "k_factor_db": 3.0}, "k_factor_db"),
]


@pytest.mark.parametrize(("options", "field"), CLIENT_REFUSED)
def test_the_client_names_the_argument_as_its_caller_knows_it(client, images, options, field):
    with pytest.raises(ArgumentError, match=f"^{field} must be ") as refused:
        client.transmit(images, **options)
    assert refused.value.field == field


def test_the_client_raises_the_error_that_the_link_raises(client, link, images):
    for wrong in (images[:, :7], images - 9.0, np.array(["a"]), images[:0], np.full((1, 8, 8), 1e300)):
        with pytest.raises(ArgumentError) as here:
            link.transmitter({"image": wrong})
        with pytest.raises(ArgumentError) as there:
            client.encode(wrong)
        assert here.value.field == there.value.field.removesuffix(".shape")


tensors = st.builds(
    pb.Tensor,
    data_type=st.integers(-1, 5),
    shape=st.lists(st.integers(-1, 9) | st.sampled_from([8, 64, 2**31 - 1]), max_size=10),
    float32_values=st.lists(st.floats(width=32), max_size=3) | st.just([1.0] * 64),
    int64_values=st.just([]) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    uint8_values=st.just([]) | st.lists(st.integers(0, 2**32 - 1), max_size=3),
    string_values=st.just([]) | st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=3),
    raw=st.just(b"") | st.binary(max_size=9) | st.just(bytes(256)),
)
images_of_any_kind = (
    st.sampled_from([IMAGE, floats(2, 8, 8), pb.Tensor(shape=[1, 8, 8], int64_values=[3] * 64)]) | tensors
)
requests = st.builds(
    pb.TransmitRequest,
    inputs=st.dictionaries(
        st.just("image") | st.text(st.characters(codec="utf-8"), max_size=4), images_of_any_kind, max_size=2
    ),
    settings=st.none()
    | st.builds(
        pb.LinkSettings,
        snr_db=st.none() | st.floats() | st.floats(-30, 60),
        channel=st.sampled_from(["", "awgn", "rayleigh", "rician", "rayleigh-fast"])
        | st.text(st.characters(codec="utf-8"), max_size=9),
        block_symbols=st.integers(-1, 4) | st.integers(-(2**31), 2**31 - 1),
        k_factor_db=st.none() | st.floats(),
        seed=st.integers(-1, 3) | st.integers(-(2**63), 2**63 - 1),
        sample_offset=st.integers(-1, 3) | st.integers(-(2**63), 2**63 - 1),
        draw=st.integers(-1, 3) | st.integers(-(2**63), 2**63 - 1),
        snr_error_db=st.just(0.0) | st.floats(),
    ),
    tensor_format=st.integers(-1, 4),
    include_llr=st.booleans(),
    include_symbols=st.booleans(),
) | st.builds(
    pb.DecodeRequest,
    symbols=st.just(SYMBOLS) | tensors,
    no=st.just(NO) | tensors,
    mode=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    llr_in=st.none() | tensors,
    tensor_format=st.integers(-1, 4),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests)
def test_no_request_is_the_servers_fault(stub, request):
    error = error_of(stub, request)
    if error is not None:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
        assert violation_of(error).field
