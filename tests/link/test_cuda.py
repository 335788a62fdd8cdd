"""The same counts on a GPU, where there is one."""

import numpy as np
import onnxruntime
import pytest
import torch

from link.ber import ModemSpec, ber
from link.chain import Link
from link.channel import Awgn, Csi, Fading
from link.modem import Modem
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


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no CUDA device")
def test_a_bundle_is_swept_on_a_gpu(bundle):
    latents = np.random.default_rng(4).normal(size=(90, 3, 2)).astype(np.float32)
    spec = SweepSpec(snr_db=(3.0,), draws=4)
    host, gpu = (
        sweep(Link(bundle, device=device), {"latent": latents}, np.arange(90) % 3, spec) for device in ("cpu", "cuda")
    )
    # A near-tie may be decided otherwise: graphs round differently there.
    assert abs(gpu.points[0].correct - host.points[0].correct) <= 2
    assert gpu.provenance.device == "cuda"
