"""Ray Serve's gRPC proxy in front of one replica, with the messages of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.serving.environments import python, versions
from benchmarks.serving.subjects import ROOT, Command, Graph, free_port

_ALIAS: Final = """\
from tritonclient.grpc.service_pb2 import *
"""
"""The messages' classes say that they are in a module of this name, and Ray pickles messages by it."""
ABOUT: Final = "gRPC proxy, one replica, ONNX Runtime once a request"


def about(cache: Path) -> str:
    """Version and backend."""
    return f"{versions(python(cache, 'ray_serve'), 'ray', 'onnxruntime')}; {ABOUT}"


def command(cache: Path, graphs: Sequence[Graph], folder: Path) -> Command:
    """How to start it; what it has to import goes into `folder`.

    Raises
    ------
    Absent
        If it is not installed.
    """
    interpreter, port = python(cache, "ray_serve"), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grpc_service_pb2.py").write_text(_ALIAS)
    arguments = [
        *(str(interpreter), "-m", "benchmarks.serving.peers.ray_serve_model"),
        *(str(port), str(free_port())),
        *(f"{graph.name}={graph.file}" for graph in graphs),
    ]
    environment = {"PYTHONPATH": f"{ROOT}:{folder}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    return Command(arguments, f"127.0.0.1:{port}", environment)
