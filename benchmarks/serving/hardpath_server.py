"""The server under test: `hardpath serve`, asked over hardpath.v1 and over the Open Inference Protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import oip
from benchmarks.serving.load import Call
from benchmarks.serving.process import Process, ask
from benchmarks.serving.subjects import OUTPUT, Command, Graph
from serve.messages import convert
from serve.pb.hardpath.v1 import link_pb2 as pb

V1: Final = "/hardpath.v1.LinkService/"
GAP: Final = 1e-5
"""Greatest difference of a symbol from that of ONNX Runtime in this process: a row's arithmetic may depend on its batch."""
SNR_DB: Final = 10.0


def command(bundle: Path, metrics_port: int | None = None) -> Command:
    """How to start it on a free port, with its metrics on another where one is given."""
    environment = {} if metrics_port is None else {"HARDPATH_SERVE_LISTEN_METRICS_PORT": str(metrics_port)}
    arguments = [sys.executable, "-m", "hardpath", "serve", str(bundle), "--port", "0"]
    return Command(arguments, environment=environment)


def infer(graph: Graph, rows: NDArray[np.float32]) -> Call:
    """ModelInfer of the transmitter: what every server of the comparison is asked."""
    return Call(oip.INFER, oip.request(graph.name, {graph.takes.name: rows}, [OUTPUT]), len(rows))


def encode(graph: Graph, rows: NDArray[np.float32]) -> Call:
    """hardpath.v1's Encode."""
    request = pb.EncodeRequest(
        inputs=convert.inputs_to_message({graph.takes.name: rows}), tensor_format=pb.TENSOR_FORMAT_RAW
    )
    return Call(f"{V1}Encode", request.SerializeToString(), len(rows))


def transmit(name: str, rows: NDArray[Any]) -> Call:
    """hardpath.v1's Transmit over AWGN, with what it answers by default."""
    request = pb.TransmitRequest(
        inputs=convert.inputs_to_message({name: rows}),
        settings=pb.LinkSettings(snr_db=SNR_DB, seed=1),
        tensor_format=pb.TENSOR_FORMAT_RAW,
    )
    return Call(f"{V1}Transmit", request.SerializeToString(), len(rows))


def check_infer(expected: NDArray[np.float32]) -> Callable[[bytes], None]:
    """Whether a reply of ModelInfer holds these symbols."""
    return lambda reply: _same(oip.outputs_of(reply)[OUTPUT], expected)


def check_encode(expected: NDArray[np.float32]) -> Callable[[bytes], None]:
    """Whether a reply of Encode holds these symbols."""

    def check(reply: bytes) -> None:
        sent = convert.transmission_from_message(pb.EncodeResponse.FromString(reply))
        _same(sent.symbols, expected)

    return check


def check_transmit(decisions: Sequence[int]) -> Callable[[bytes], None]:
    """Whether a reply of Transmit holds these decisions."""

    def check(reply: bytes) -> None:
        decoded = pb.TransmitResponse.FromString(reply).decoded
        assert [decision.class_index for decision in decoded.decisions] == list(decisions), "other decisions"

    return check


def speaks_oip(process: Process, call: Call) -> bool:
    """Whether it answers the Open Inference Protocol."""
    try:
        ask(process.address, call)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return False
        raise
    return True


def _same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape, f"{found.shape} instead of {expected.shape}"
    gap = float(np.abs(found - expected).max())
    assert gap <= GAP, f"symbols differ by {gap:.1e}"
