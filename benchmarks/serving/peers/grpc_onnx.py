"""The plainest server of a graph in Python: grpc.aio, and ONNX Runtime once a request.

python -m benchmarks.serving.peers.grpc_onnx NAME=GRAPH ...
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import onnxruntime as ort

from benchmarks.serving import oip


def _session(graph: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])


async def _serve(graphs: dict[str, str]) -> None:
    sessions = {name: _session(graph) for name, graph in graphs.items()}

    async def infer(message: bytes, context: object) -> bytes:
        model, inputs, outputs = oip.asked(message)
        return oip.response(model, dict(zip(outputs, sessions[model].run(outputs, inputs), strict=True)))

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(oip.SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(dict(argument.split("=", 1) for argument in sys.argv[1:])))
