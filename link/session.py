"""A graph of a bundle in ONNX Runtime."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from link.bundle import Bundle
from link.device import cuda_number
from link.errors import ArgumentError, BundleError, MissingExtra
from link.interface import TensorSpec
from link.manifest import GraphSpec

if TYPE_CHECKING:
    import onnxruntime as ort

_ORT_DTYPES: Final = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"


def onnx_runtime() -> ModuleType:
    """The module, with its telemetry off.

    Release 1.31, when it is imported, writes a number for this machine and a database below the user's folder, for events
    that it sends to its maker. It looks at the variable then and never again; one that is set already is left as it is.

    Raises
    ------
    MissingExtra
        If it is not installed.
    """
    os.environ.setdefault(_TELEMETRY, "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError:
        raise MissingExtra("onnxruntime", "cpu") from None


def open_session(bundle: Bundle, spec: GraphSpec, threads: int, device: str) -> ort.InferenceSession:
    """Load a graph, and hold its interface against the manifest's.

    Parameters
    ----------
    bundle : Bundle
    spec : GraphSpec
    threads : int
        Threads inside one operation.
    device : str
        "cpu", or "cuda" or "cuda:N" for a GPU.

    Raises
    ------
    ArgumentError
        If ONNX Runtime has no such device.
    BundleError
        If the graph cannot be loaded, or its interface is not the manifest's.
    MissingExtra
        If onnxruntime is not installed.
    """
    ort = onnx_runtime()
    provider = _provider(device, ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Weights in files of their own would be loaded without a hash: nothing lies below the null device.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        graph = bundle.file(spec).read_bytes()
        session = ort.InferenceSession(graph, sess_options=options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        if "external data" in str(error).lower():
            raise BundleError(
                f"{bundle.path}: {spec.file} keeps weights in files of their own, which no hash covers: save it as one file"
            ) from None
        raise BundleError(
            f"{bundle.path}: {spec.file} is no graph that ONNX Runtime can load: {_first_line(error)}"
        ) from None
    _check_interface(bundle, spec, "inputs", spec.inputs, session.get_inputs())
    _check_interface(bundle, spec, "outputs", spec.outputs, session.get_outputs())
    return session


def _provider(device: str, available: Sequence[str]) -> str | tuple[str, dict[str, int]]:
    """What runs the graphs."""
    if device == "cpu":
        return "CPUExecutionProvider"
    number = cuda_number(device)
    if number is None:
        raise ArgumentError("device", f"must be cpu, cuda or cuda:N, got {device!r}")
    if "CUDAExecutionProvider" not in available:
        raise ArgumentError(
            "device", f"must be cpu: this ONNX Runtime has no CUDA, which comes with hardpath[gpu], got {device!r}"
        )
    return "CUDAExecutionProvider", {"device_id": number}


def _check_interface(
    bundle: Bundle, spec: GraphSpec, kind: str, wanted: tuple[TensorSpec, ...], found: list[Any]
) -> None:
    want = {(tensor.name, tensor.dtype, tensor.shape) for tensor in wanted}
    have = {(tensor.name, _ORT_DTYPES.get(tensor.type, tensor.type), tuple(tensor.shape)) for tensor in found}
    if want != have:
        raise BundleError(
            f"{bundle.path}: {kind} of {spec.file} are not those of the manifest: "
            f"missing {sorted(map(str, want - have))}, unknown {sorted(map(str, have - want))}"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
