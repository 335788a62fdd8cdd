import logging
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from link.bundle import load_bundle
from link.errors import ArgumentError, BundleError, OutOfMemory
from link.session import CudaSession, open_session

CUDA = "CUDAExecutionProvider"
BATCH = np.random.default_rng(3).normal(size=(7, 3, 2)).astype(np.float32)
OUTPUTS = ["symbols", "bits"]


@pytest.mark.parametrize(
    "program",
    [
        "from link.session import onnx_runtime; onnx_runtime()",
        "from hardpath.inspection import diagnosis; diagnosis()",
    ],
)
def test_loading_onnx_runtime_writes_nothing_into_the_users_folder(tmp_path, program):
    elsewhere = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environ = {key: value for key, value in os.environ.items() if key not in elsewhere}
    subprocess.run([sys.executable, "-c", program], env=environ | {"HOME": str(tmp_path)}, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []


class Elsewhere:
    """onnxruntime.InferenceSession on a machine of one's choice: takes what was asked for, and runs on the CPU."""

    def __init__(self, monkeypatch, *, reports):
        self.asked = []
        real = onnxruntime.InferenceSession

        def build(graph, sess_options, providers, **options):
            self.asked.append((providers, options))
            session = real(graph, sess_options=sess_options, providers=["CPUExecutionProvider"])
            session.get_providers = lambda: list(reports)
            return session

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "InferenceSession", build)


@pytest.mark.parametrize("reports", [["CPUExecutionProvider"], ["CPUExecutionProvider", CUDA], []])
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_session_that_falls_back_to_the_cpu_is_refused_with_what_it_took(bundle, monkeypatch, reports, device):
    Elsewhere(monkeypatch, reports=reports)
    message = (
        f"^device must be one that .*: asked for {CUDA}, it took {', '.join(reports) or 'nothing'} .*, got '{device}'$"
    )
    with pytest.raises(ArgumentError, match=message):
        open_session(bundle, bundle.manifest.transmitter, 1, device)


def test_a_gpu_is_asked_for_by_number_with_its_memory_and_without_fall_back(bundle, monkeypatch):
    machine = Elsewhere(monkeypatch, reports=[CUDA, "CPUExecutionProvider"])
    session = open_session(bundle, bundle.manifest.transmitter, 1, "cuda:2", memory_bytes=2**30)
    (((provider, given),), options) = machine.asked[0]
    assert isinstance(session, CudaSession)
    assert (provider, given["device_id"], given["gpu_mem_limit"]) == (CUDA, "2", str(2**30))
    assert options == {"enable_fallback": 0}


def test_without_a_limit_a_gpu_is_told_none(bundle, monkeypatch):
    machine = Elsewhere(monkeypatch, reports=[CUDA])
    open_session(bundle, bundle.manifest.transmitter, 1, "cuda")
    assert "gpu_mem_limit" not in machine.asked[0][0][0][1]


def test_nodes_that_run_on_the_cpu_all_the_same_are_counted_in_the_log(bundle, monkeypatch, caplog):
    Elsewhere(monkeypatch, reports=[CUDA])
    with caplog.at_level(logging.INFO, "link.session"):
        open_session(bundle, bundle.manifest.transmitter, 1, "cuda")
    (line,) = caplog.messages
    assert line.startswith("transmitter.onnx on cuda: ")
    on_host, total = (int(word) for word in line.split() if word.isdecimal())
    assert on_host == total > 0


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            "CUDA failure 101: invalid device ordinal ; GPU=7",
            ArgumentError,
            "^device must be .* got 'cuda': CUDA failure",
        ),
        (
            "CUDA failure 2: out of memory ; GPU=0",
            OutOfMemory,
            "^cuda has no memory for transmitter.onnx: CUDA failure",
        ),
        ("Protobuf parsing failed", BundleError, "is no graph that ONNX Runtime can load: Protobuf parsing failed$"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told_from_one_that_is_full_and_from_a_broken_graph(
    bundle, monkeypatch, error, kind, message
):
    def fail(*arguments, **options):
        raise RuntimeError(f"{error}\nand where it was noticed")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(kind, match=message):
        open_session(bundle, bundle.manifest.transmitter, 1, "cuda")


def test_the_cpu_runs_onnx_runtimes_own_session_which_keeps_no_memory_of_large_batches(bundle):
    session = open_session(bundle, bundle.manifest.transmitter, 1, "cpu")
    assert isinstance(session, onnxruntime.InferenceSession)
    assert not session.get_session_options().enable_cpu_mem_arena


def test_bound_arrays_give_what_a_plain_run_gives(bundle):
    plain = open_session(bundle, bundle.manifest.transmitter, 1, "cpu")
    wanted, found = (session.run(OUTPUTS, {"latent": BATCH}) for session in (plain, CudaSession(plain)))
    for want, got in zip(wanted, found, strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)


class Small:
    """A session whose device has memory for a few rows; it counts those of each run."""

    def __init__(self, session, room, said="Failed to allocate memory for requested buffer of size 4096"):
        self._session, self._room, self._said = session, room, said
        self.rows = []

    def io_binding(self):
        binding = self._session.io_binding()
        bind = binding.bind_cpu_input

        def count(name, array):
            self.rows.append(len(array))
            bind(name, array)

        binding.bind_cpu_input = count
        return binding

    def run_with_iobinding(self, binding):
        if self.rows[-1] > self._room:
            raise RuntimeError(self._said)
        self._session.run_with_iobinding(binding)


@pytest.mark.parametrize(("room", "rows"), [(7, [7]), (4, [7, 3, 4]), (2, [7, 3, 1, 2, 4, 2, 2])])
def test_a_batch_that_a_gpu_has_no_memory_for_is_run_in_halves(bundle, room, rows):
    plain = open_session(bundle, bundle.manifest.transmitter, 1, "cpu")
    small = Small(plain, room)
    found = CudaSession(small).run(OUTPUTS, {"latent": BATCH})
    assert small.rows == rows
    for want, got in zip(plain.run(OUTPUTS, {"latent": BATCH}), found, strict=True):
        assert np.array_equal(got, want)


def test_a_gpu_without_memory_for_a_row_says_so_after_as_many_runs_as_there_are_halvings(bundle):
    small = Small(open_session(bundle, bundle.manifest.transmitter, 1, "cpu"), room=0)
    with pytest.raises(OutOfMemory, match=r"^the GPU has no memory for a run: Failed to allocate memory"):
        CudaSession(small).run(OUTPUTS, {"latent": BATCH})
    assert small.rows == [7, 3, 1]


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=a",
        "Available memory of 1024 is smaller than requested bytes of 4096",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_a_full_gpu_is_known_by_what_each_library_says(bundle, said):
    plain = open_session(bundle, bundle.manifest.transmitter, 1, "cpu")
    small = Small(plain, 4, said)
    CudaSession(small).run(OUTPUTS, {"latent": BATCH})
    assert small.rows == [7, 3, 4]


def test_any_other_failure_of_a_gpu_is_raised_at_once(bundle):
    plain = open_session(bundle, bundle.manifest.transmitter, 1, "cpu")
    small = Small(plain, room=0, said="CUDA failure 700: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        CudaSession(small).run(OUTPUTS, {"latent": BATCH})
    assert small.rows == [7]


def test_a_graph_that_is_replaced_between_look_and_load_is_refused(bundle_folder):
    found = load_bundle(bundle_folder)
    spec = found.manifest.transmitter
    (bundle_folder / spec.file).write_bytes((bundle_folder / found.manifest.receiver.file).read_bytes())
    with pytest.raises(BundleError, match=r"transmitter\.onnx was replaced while the bundle was being loaded"):
        open_session(found, spec, 1, "cpu")
    (bundle_folder / spec.file).unlink()
    with pytest.raises(BundleError, match=r"transmitter\.onnx cannot be read: No such file"):
        open_session(found, spec, 1, "cpu")
