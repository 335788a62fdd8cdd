"""The same counts on a GPU, where there is one."""

import numpy as np
import onnxruntime
import pytest
import torch

from link.ber import ModemSpec, ber
from link.chain import Link
from link.channel import Awgn, Csi, Fading
from link.errors import ArgumentError, OutOfMemory
from link.modem import Modem
from link.runtime import Receiver, Transmitter
from link.session import CudaSession
from link.sweep import SweepSpec, sweep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("order", [4, 64, 1024])
@pytest.mark.parametrize("demapper", ["max-log", "app"])
@pytest.mark.parametrize("channel", [Awgn(), Fading(1), Fading(8), Fading(8, 6.0, Csi("lmmse", 2))], ids=str)
def test_a_modem_counts_on_a_gpu_what_it_counts_on_the_host(order, demapper, channel):
    # Normals of the two may differ in their last digits, and then a decision on a threshold: once in some 10^9 symbols.
    # Sums of exponentials differ in float32, and then the sign of an LLR near 0: on torch's CPU 3 in 150,000 bits.
    engines = ("numpy", "cuda")
    host, gpu = (Modem(order, channel, demapper, 256, seed=4, engine=engine).count(12.0, 3, 200) for engine in engines)
    assert abs(gpu.bit_errors - host.bit_errors) <= (1e-4 * host.bit_errors if demapper == "app" else 0)


def test_a_modem_sweep_names_the_gpu_and_finds_the_same():
    spec = ModemSpec(snr_db=(6.0, 12.0), order=16, blocks=2)
    host, gpu = (ber(spec, device=device) for device in ("numpy", "cuda"))
    assert gpu.points == host.points
    assert (gpu.provenance.device, gpu.provenance.generator) == ("cuda", "philox4x32-10 cuda")


with_graphs = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no CUDA device"
)


@with_graphs
def test_a_bundle_is_swept_on_a_gpu(bundle):
    latents = np.random.default_rng(4).normal(size=(90, 3, 2)).astype(np.float32)
    spec = SweepSpec(snr_db=(3.0,), draws=4)
    host, gpu = (
        sweep(Link(bundle, device=device), {"latent": latents}, np.arange(90) % 3, spec) for device in ("cpu", "cuda")
    )
    # A near-tie may be decided otherwise: graphs round differently there.
    assert abs(gpu.points[0].correct - host.points[0].correct) <= 2
    assert gpu.provenance.device == "cuda"


def latents(rows):
    """Points within 0.3 rad of a codeword's angle, where the half way to the next is pi / 8 = 0.39: no near-ties."""
    random = np.random.default_rng(5)
    angles = random.integers(8, size=(rows, 3)) * np.pi / 4 + random.uniform(-0.3, 0.3, size=(rows, 3))
    return {"latent": np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)}


@with_graphs
@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_a_bundle_on_a_gpu_sends_and_finds_what_it_does_on_the_cpu(bundle, rows):
    transmitter, receiver = Transmitter(bundle, device="cuda"), Receiver(bundle, device="cuda")
    assert isinstance(transmitter._session, CudaSession)
    sent, wanted = transmitter(latents(rows)), Transmitter(bundle)(latents(rows))
    for name, got, want in zip(sent._fields, sent, wanted, strict=True):
        assert got.dtype == want.dtype, name
        np.testing.assert_allclose(got, want, atol=1e-6, err_msg=name)
    no = np.full(sent.symbols.shape[:2], 0.1, dtype=np.float32)
    found, expected = receiver(sent.symbols, no), Receiver(bundle)(sent.symbols, no)
    # LLRs are at most 40, and float32 has 24 bits: 40 * 2^-24 = 2.4e-6 for each of some ten roundings.
    np.testing.assert_allclose(found.llr, expected.llr, atol=2.4e-5)
    # A logit is a sum of probabilities, which move by at most what the sum of their LLRs (3 a token, 3 tokens) does.
    np.testing.assert_allclose(found.logits, expected.logits, atol=9 * 2.4e-5)


@with_graphs
def test_a_gpu_that_is_not_there_is_refused(bundle):
    with pytest.raises(ArgumentError, match=r"^device must be"):
        Transmitter(bundle, device=f"cuda:{torch.cuda.device_count()}")


@with_graphs
def test_a_batch_beyond_the_limit_of_memory_is_answered_in_halves_and_a_row_beyond_it_is_told(bundle, caplog):
    batch = latents(2**16)  # its distances to the codewords alone are 2^16 * 3 * 8 * 4 bytes = 6 MiB
    found = Transmitter(bundle, device="cuda", memory_bytes=4 * 2**20)(batch)
    assert "run in halves" in caplog.text
    assert np.array_equal(found.bits, Transmitter(bundle, device="cuda")(batch).bits)
    with pytest.raises(OutOfMemory, match="no memory"):
        Transmitter(bundle, device="cuda", memory_bytes=256)(latents(1))
