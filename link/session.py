"""A graph of a bundle in ONNX Runtime, on the device that was asked for and on no other.

ONNX Runtime takes the CPU where it cannot have the GPU that it was asked for, when a graph is loaded and again when it runs,
and says so to standard error at most. Here the first is an error, and the second is switched off.

On a GPU the channel stays on the host. What it would save is small: 64 samples of 32 symbols are 16 KiB, which a bus of
25 GB/s carries in 0.7 us; a copy costs some 10 us to begin, whatever its size, and three would be saved (symbols down, y and
no up): 30 us of a run of two graphs with 20 to 60 kernels of 5 us each. All other outputs go to the host in any case, since
replies and bit errors are made of them; and the noise of a sample is to be the same bits on every device, while a GPU's
normals are NumPy's but for the last digits (link.device). These figures are computed, not measured. At 4096 samples of 1000
symbols (33 MB a copy, 1.3 ms) it would pay; such work is a sweep's, whose engines do run on a GPU.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from link.bundle import Bundle
from link.device import cuda_number
from link.errors import ArgumentError, BundleError, MissingExtra, OutOfMemory
from link.interface import TensorSpec
from link.manifest import GraphSpec

if TYPE_CHECKING:
    import onnxruntime as ort

_ORT_DTYPES: Final = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}
_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"
_RECORD_PLACES: Final = "session.record_ep_graph_assignment_info"

_NO_MEMORY: Final = (
    "out of memory",
    "failed to allocate memory",
    "memory allocation failed",
    "is smaller than requested bytes",
    "alloc_failed",
)
"""How CUDA, cuBLAS, cuDNN and ONNX Runtime's allocators say it; there is no class of exceptions for it."""

logger = logging.getLogger(__name__)


class Session(Protocol):
    """A graph that is loaded."""

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], /) -> list[NDArray[Any]]:
        """The outputs of these names for inputs by name; rows in, rows out."""
        ...


class CudaSession:
    """A graph on a GPU.

    Inputs and outputs are bound to the host, so that each crosses the bus once, wherever ONNX Runtime placed the nodes that
    read and write them.

    Where the GPU has no memory for a batch, its halves are run one after the other, and halves of these, down to a row: a
    sample stands alone, so the answer is the same.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], /) -> list[NDArray[Any]]:
        """As Session.run.

        Raises
        ------
        OutOfMemory
            If there is no memory for a single row.
        """
        try:
            return self._run(outputs, feed)
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            if not is_out_of_memory(error):
                raise
            rows = len(next(iter(feed.values())))
            if rows == 1:
                raise OutOfMemory(f"the GPU has no memory for a run: {_first_line(error)}") from None
        logger.warning("the GPU has no memory for %d rows: run in halves", rows)
        half = rows // 2
        parts = [
            self.run(outputs, {name: array[part] for name, array in feed.items()})
            for part in (slice(half), slice(half, None))
        ]
        return [np.concatenate(found) for found in zip(*parts, strict=True)]

    def _run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        found: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return found


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception of ONNX Runtime says that a device has no memory left.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA failure 2: out of memory ; GPU=0")), is_out_of_memory(RuntimeError("bad shape"))
    (True, False)
    """
    text = str(error).lower()
    return any(words in text for words in _NO_MEMORY)


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


def open_session(
    bundle: Bundle, spec: GraphSpec, threads: int, device: str, memory_bytes: int | None = None
) -> Session:
    """Load a graph, and hold its interface against the manifest's.

    Parameters
    ----------
    bundle : Bundle
    spec : GraphSpec
    threads : int
        Threads inside one operation.
    device : str
        "cpu", or "cuda" or "cuda:N" for a GPU.
    memory_bytes : int, optional
        What the graph may take of a GPU's memory for tensors; absent: all of it. Of no meaning on the CPU.

    Returns
    -------
    Session
        On the CPU ONNX Runtime's own.

    Raises
    ------
    ArgumentError
        If ONNX Runtime has no such device, or cannot use it.
    BundleError
        If the graph cannot be loaded, or its interface is not the manifest's.
    MissingExtra
        If onnxruntime is not installed.
    OutOfMemory
        If the GPU has no memory for the graph.
    """
    ort = onnx_runtime()
    provider, provider_options = _provider(device, memory_bytes, ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena keeps what the largest batch took, for ever: 30 MB after 2048 digits, while runs are no slower without it.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    # Weights in files of their own would be loaded without a hash: nothing lies below the null device.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if provider != _CPU:
        options.add_session_config_entry(_RECORD_PLACES, "1")
    graph = bundle.read(spec)
    try:
        session = ort.InferenceSession(
            graph, sess_options=options, providers=[(provider, provider_options)], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        raise _not_loaded(bundle, spec, device, error) from None
    _require_provider(device, provider, session.get_providers())
    _check_interface(bundle, spec, "inputs", spec.inputs, session.get_inputs())
    _check_interface(bundle, spec, "outputs", spec.outputs, session.get_outputs())
    if provider == _CPU:
        on_host: Session = session
        return on_host
    _tell_places(spec, device, session)
    return CudaSession(session)


def _provider(device: str, memory_bytes: int | None, available: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What runs the graphs, and how."""
    if device == "cpu":
        return _CPU, {}
    number = cuda_number(device)
    if number is None:
        raise ArgumentError("device", f"must be cpu, cuda or cuda:N, got {device!r}")
    if _CUDA not in available:
        raise ArgumentError(
            "device", f"must be cpu: this ONNX Runtime has no CUDA, which comes with hardpath[gpu], got {device!r}"
        )
    options = {
        "device_id": str(number),
        # Batches come in any size, and an exhaustive search would hold up the first of each.
        "cudnn_conv_algo_search": "HEURISTIC",
        # The next power of two, which is the default, would pass a limit that the request itself keeps.
        "arena_extend_strategy": "kSameAsRequested",
        # Copies in the order of the kernels: several workers share a session, and none may read what is not there yet.
        "do_copy_in_default_stream": "1",
    }
    if memory_bytes is not None:
        options["gpu_mem_limit"] = str(memory_bytes)
    return _CUDA, options


def _require_provider(device: str, asked: str, used: Sequence[str]) -> None:
    """Refuse a session that ONNX Runtime opened elsewhere than it was told to."""
    if not used or used[0] != asked:
        raise ArgumentError(
            "device",
            f"must be one that ONNX Runtime can use: asked for {asked}, it took {', '.join(used) or 'nothing'} "
            f"(driver, CUDA or cuDNN are missing or of another version; standard error has its reason), got {device!r}",
        )


def _tell_places(spec: GraphSpec, device: str, session: ort.InferenceSession) -> None:
    """Log how many nodes run on the CPU all the same: computations of shapes do, and what CUDA has no kernel for."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # ONNX Runtime before 1.24
        return
    places = session.get_provider_graph_assignment_info()
    on_host = sum(len(part.get_nodes()) for part in places if part.ep_name == _CPU)
    total = sum(len(part.get_nodes()) for part in places)
    logger.info("%s on %s: %d of %d nodes run on the CPU", spec.file, device, on_host, total)


def _not_loaded(bundle: Bundle, spec: GraphSpec, device: str, error: Exception) -> Exception:
    if "external data" in str(error).lower():
        return BundleError(
            f"{bundle.path}: {spec.file} keeps weights in files of their own, which no hash covers: save it as one file"
        )
    if device != "cpu" and is_out_of_memory(error):
        return OutOfMemory(f"{device} has no memory for {spec.file}: {_first_line(error)}")
    if device != "cpu" and any(word in str(error) for word in ("CUDA", "CUDNN", "CUBLAS")):
        return ArgumentError("device", f"must be one that ONNX Runtime can use, got {device!r}: {_first_line(error)}")
    return BundleError(f"{bundle.path}: {spec.file} is no graph that ONNX Runtime can load: {_first_line(error)}")


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
