"""Inside Triton: the python backend's model, one run of ONNX Runtime for all requests of a batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as backend  # type: ignore[import-not-found]


class TritonPythonModel:
    """A graph."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open it."""
        config = json.loads(args["model_config"])
        (self._takes,) = (tensor["name"] for tensor in config["input"])
        (self._gives,) = (tensor["name"] for tensor in config["output"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = config["parameters"]["graph"]["string_value"]
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch."""
        rows = [backend.get_input_tensor_by_name(request, self._takes).as_numpy() for request in requests]
        together = np.concatenate(rows) if len(rows) > 1 else rows[0]
        (found,) = self._session.run([self._gives], {self._takes: together})
        parts = np.split(found, np.cumsum([len(row) for row in rows[:-1]])) if len(rows) > 1 else [found]
        return [backend.InferenceResponse([backend.Tensor(self._gives, part)]) for part in parts]
