"""Inside Ray: a deployment that answers ModelInfer, one run of ONNX Runtime a request.

python -m benchmarks.serving.peers.ray_serve_model GRPC_PORT HTTP_PORT NAME=GRAPH ...
"""

from __future__ import annotations

import signal
import sys
from typing import Any, Final

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from tritonclient.grpc import service_pb2 as pb

_SERVICER: Final = "tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"


class Onnx:
    """The graphs by name."""

    def __init__(self, graphs: dict[str, str]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for name, graph in graphs.items()
        }

    async def ModelInfer(self, request: Any) -> Any:
        """Answer a request."""
        names = [output.name for output in request.outputs]
        feed = {
            tensor.name: np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        found = self._sessions[request.model_name].run(names, feed)
        return pb.ModelInferResponse(
            model_name=request.model_name,
            outputs=[
                pb.ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=value.shape)
                for name, value in zip(names, found, strict=True)
            ],
            raw_output_contents=[value.tobytes() for value in found],
        )


def main() -> None:
    """Serve until SIGTERM."""
    grpc_port, http_port = int(sys.argv[1]), int(sys.argv[2])
    graphs = dict(argument.split("=", 1) for argument in sys.argv[3:])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": http_port},
        grpc_options={"port": grpc_port, "grpc_servicer_functions": [_SERVICER]},
    )
    deployment: Any = serve.deployment(max_ongoing_requests=256, logging_config={"enable_access_log": False})
    serve.run(deployment(Onnx).bind(graphs), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
