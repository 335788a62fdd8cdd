"""Triton itself, from the wheel of PyTriton: its C++ server with the python backend, which runs ONNX Runtime.

The wheel has no ONNX backend, so rows pass through shared memory to a process of Python and back; batching, queues and gRPC
are Triton's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.serving.environments import Absent, python, site_packages, versions
from benchmarks.serving.subjects import Command, Graph, free_port

ABOUT: Final = "Triton 2.51, python backend, dynamic batching"
_MODEL: Final = Path(__file__).with_name("triton_model.py")
_CONFIG: Final = """\
backend: "python"
max_batch_size: 256
input [{{ name: "{takes}" data_type: TYPE_FP32 dims: {takes_shape} }}]
output [{{ name: "{gives}" data_type: TYPE_FP32 dims: {gives_shape} }}]
dynamic_batching {{}}
instance_group [{{ count: 1 kind: KIND_CPU }}]
parameters [{{ key: "graph" value: {{ string_value: "{file}" }} }}]
"""


def about(cache: Path) -> str:
    """Version and backend."""
    return f"{ABOUT}; {versions(python(cache, 'triton'), 'nvidia-pytriton', 'onnxruntime')}"


def command(cache: Path, graphs: Sequence[Graph], folder: Path) -> Command:
    """How to start it; its model repository goes into `folder`.

    Raises
    ------
    Absent
        If it is not installed, or this Python has no shared library for its backend.
    """
    interpreter = python(cache, "triton")
    packages = site_packages(interpreter)
    tritonserver = packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = tritonserver / "python_backend_stubs" / version / "triton_python_backend_stub"
    libraries = Path(sysconfig.get_config_var("LIBDIR"))
    if not stub.is_file() or not (libraries / f"libpython{version}.so.1.0").is_file():
        raise Absent(f"its python backend needs libpython{version}.so, which this interpreter was built without")
    backend = folder / "backends" / "python"
    shutil.copytree(tritonserver / "backends" / "python", backend, dirs_exist_ok=True)
    shutil.copy(stub, backend)
    for graph in graphs:
        model = folder / "models" / graph.name
        (model / "1").mkdir(parents=True, exist_ok=True)
        shutil.copy(_MODEL, model / "1" / "model.py")
        (model / "config.pbtxt").write_text(
            _CONFIG.format(
                takes=graph.takes.name,
                takes_shape=list(graph.takes.shape[1:]),
                gives=graph.gives.name,
                gives_shape=list(graph.gives.shape[1:]),
                file=graph.file,
            )
        )
    port = free_port()
    arguments = [
        str(tritonserver / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        *("--grpc-address=127.0.0.1", f"--grpc-port={port}"),
        *("--allow-http=false", "--allow-metrics=false", "--log-info=false"),
    ]
    environment = {
        "LD_LIBRARY_PATH": f"{packages / 'nvidia_pytriton.libs'}:{libraries}",
        # The backend's interpreter looks for its prefix there.
        "PATH": f"{interpreter.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
    }
    return Command(arguments, f"127.0.0.1:{port}", environment)
