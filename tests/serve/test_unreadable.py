"""Bytes that are no message of the method's kind."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from serve.pb.hardpath.v1 import link_pb2 as pb

SERVICE = "/hardpath.v1.LinkService"
WAIT_S = 20
CUT = pb.TransmitRequest(settings=pb.LinkSettings(snr_db=3.0, channel="rayleigh")).SerializeToString()[:-3]
NOT_UTF_8 = b"\x32\x01\xff"  # model, of one byte


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as connected:
        yield connected


@pytest.mark.parametrize("data", [CUT, NOT_UTF_8, b"\xff" * 100, b"\x0b" * 20_000])
def test_they_are_refused_as_a_wrong_argument(channel, data, caplog):
    method = channel.unary_unary(f"{SERVICE}/Transmit")
    with pytest.raises(grpc.RpcError) as refused:
        method(data, timeout=WAIT_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    assert rpc_status.from_call(refused.value).details[0].Unpack(bad)
    (violation,) = bad.field_violations
    assert (violation.field, violation.description) == ("request", "must be a serialized hardpath.v1.TransmitRequest")
    others = "opentelemetry"  # a test before may have left an exporter that finds nobody
    assert [record for record in caplog.records if not record.name.startswith(others)] == []


@pytest.mark.parametrize("method", [f"{SERVICE}/Sweep", "/grpc.health.v1.Health/Watch"])
def test_a_call_with_many_replies_refuses_them_too(channel, method):
    with pytest.raises(grpc.RpcError) as refused:
        next(channel.unary_stream(method)(b"\xff", timeout=WAIT_S))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_health_refuses_them_too(channel):
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff", timeout=WAIT_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_tells_which_of_its_requests_it_was_and_goes_on(channel, images):
    image = pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=[1, 8, 8], raw=images[:1].tobytes())
    request = pb.TransmitRequest(inputs={"image": image}, settings=pb.LinkSettings(snr_db=12.0))
    good = pb.TransmitStreamRequest(request=request).SerializeToString()
    method = channel.stream_stream(
        f"{SERVICE}/TransmitStream", response_deserializer=pb.TransmitStreamResponse.FromString
    )
    replies = list(method(iter([good, b"\xff", good]), timeout=WAIT_S))
    assert [reply.index for reply in replies] == [0, 1, 2]
    assert [reply.WhichOneof("outcome") for reply in replies] == ["response", "failure", "response"]
    failure = replies[1].failure
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "request")
