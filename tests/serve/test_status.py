import logging

import grpc
import pytest
from google.rpc import error_details_pb2

from link.errors import (
    ArgumentError,
    BundleError,
    DriverUnavailable,
    HardpathError,
    MissingExtra,
    OutOfMemory,
    RadioError,
    ServerError,
)
from serve.engine.errors import NoRadio
from serve.messages.status import status_of
from serve.pb.hardpath.v1 import link_pb2 as pb

CODES = [
    (ArgumentError("seed", "must be less"), grpc.StatusCode.INVALID_ARGUMENT),
    (MissingExtra("sionna", "sim"), grpc.StatusCode.UNIMPLEMENTED),
    (OutOfMemory("the GPU is full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ServerError("gone"), grpc.StatusCode.UNAVAILABLE),
    (BundleError("broken"), grpc.StatusCode.FAILED_PRECONDITION),
    (RadioError("the peer is gone"), grpc.StatusCode.UNAVAILABLE),
    (DriverUnavailable("zmq", "pyzmq", "pip install pyzmq"), grpc.StatusCode.FAILED_PRECONDITION),
    (NoRadio(), grpc.StatusCode.FAILED_PRECONDITION),
    (HardpathError("other"), grpc.StatusCode.FAILED_PRECONDITION),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status_and_says_what_it_is(error, code):
    status = status_of(error, pb.GetModelRequest())
    assert status.code == code.value[0]
    assert status.message == str(error)


def test_who_asked_for_a_radio_that_is_gone_is_told_when_to_try_again_and_for_one_without_driver_not():
    status = status_of(RadioError("the peer is gone"), pb.TransmitRequest())
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() > 0
    assert not status_of(DriverUnavailable("zmq", "pyzmq", "pip install pyzmq"), pb.TransmitRequest()).details


@pytest.mark.parametrize("error", [RuntimeError("/secret/path"), ValueError("/secret/path"), MemoryError()])
def test_anything_else_is_internal_and_told_to_the_log_only(error, caplog):
    with caplog.at_level(logging.ERROR, "serve.messages.status"):
        status = status_of(error, pb.GetModelRequest())
    request = error_details_pb2.RequestInfo()
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert status.details[0].Unpack(request)
    assert request.request_id in status.message
    assert "secret" not in str(status)
    assert request.request_id in caplog.text
    assert repr(error.args[0] if error.args else type(error).__name__).strip("'") in caplog.text


@pytest.mark.parametrize(
    ("request_type", "path"),
    [(pb.TransmitRequest, "settings.snr_db"), (pb.DecodeRequest, "snr_db")],
)
def test_an_argument_is_named_by_its_place_in_the_request(request_type, path):
    status = status_of(ArgumentError("snr_db", "must be less"), request_type())
    violation = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(violation)
    assert violation.field_violations[0].field == path
    assert violation.field_violations[0].description == "must be less"
