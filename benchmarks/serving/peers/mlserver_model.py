"""Inside MLServer: a runtime for ONNX graphs, one run a request."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):  # type: ignore[misc]
    """A graph of one input."""

    async def load(self) -> bool:
        """Open it."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request."""
        (given,) = payload.inputs
        names = [output.name for output in payload.outputs]
        x = np.asarray(NumpyCodec.decode_input(given), dtype=np.float32)
        found = self._session.run(names, {given.name: x})
        outputs = [NumpyCodec.encode_output(name, value) for name, value in zip(names, found, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
