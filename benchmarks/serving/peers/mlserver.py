"""MLServer with a runtime of its own for ONNX graphs, since it brings none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.serving.environments import python, versions
from benchmarks.serving.subjects import ROOT, Command, Graph, free_port

ABOUT: Final = "gRPC, its own runtime over ONNX Runtime in the server's process"
_RUNTIME: Final = "benchmarks.serving.peers.mlserver_model.OnnxRuntime"


def about(cache: Path) -> str:
    """Version and backend."""
    return f"{versions(python(cache, 'mlserver'), 'mlserver', 'onnxruntime')}; {ABOUT}"


def command(cache: Path, graphs: Sequence[Graph], folder: Path) -> Command:
    """How to start it; its settings go into `folder`.

    Raises
    ------
    Absent
        If it is not installed.
    """
    interpreter = python(cache, "mlserver")
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_port": free_port(),
        # In the server's own process: a graph of microseconds is not worth a way to another.
        "parallel_workers": 0,
        "grpc_max_message_length": 64 * 2**20,
        "logging_settings": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    for graph in graphs:
        model = folder / graph.name
        model.mkdir(exist_ok=True)
        described = {"name": graph.name, "implementation": _RUNTIME, "parameters": {"uri": str(graph.file)}}
        (model / "model-settings.json").write_text(json.dumps(described))
    return Command(
        [str(interpreter.with_name("mlserver")), "start", str(folder)],
        f"127.0.0.1:{port}",
        {"PYTHONPATH": str(ROOT)},
    )
