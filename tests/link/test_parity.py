"""NumPy = torch = ONNX Runtime: the same functions on the same numbers."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

from link.bits import group, label_bits, ungroup
from link.codebook import lookup, nearest, posterior, scores, soft_assignment
from link.constellation import ORDERS, app_llr, bits_per_symbol, map_bits, max_log_llr, unit_amplitude

DEMAPPERS = {"max-log": max_log_llr, "app": app_llr}
DTYPES = (np.float32, np.float64)


def noisy(order, dtype, shape=(4, 25)):
    generator = np.random.default_rng(order)
    return generator.normal(size=(*shape, 2)).astype(dtype), generator.uniform(0.01, 1.0, shape).astype(dtype)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_maps_to_the_same_symbols_bit_by_bit(dtype, order):
    bits = np.random.default_rng(order).uniform(size=(4, 25, bits_per_symbol(order))).astype(dtype)
    symbols = map_bits(torch.from_numpy(bits))
    assert symbols.numpy().dtype == dtype
    np.testing.assert_array_equal(symbols.numpy(), map_bits(bits))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_torch_finds_the_same_llrs(demapper, dtype, order):
    y, no = noisy(order, dtype)
    expected = DEMAPPERS[demapper](y, no, order)
    found = DEMAPPERS[demapper](torch.from_numpy(y), torch.from_numpy(no), order).numpy()
    assert found.dtype == dtype
    # torch divides a number by a tensor as a product with its reciprocal, and its exp and log differ in the last digits.
    roundings = 4.0 if demapper == "max-log" else 32.0
    assert (np.abs(found - expected) <= roundings * np.finfo(dtype).eps * (1.0 + np.abs(expected))).all()


def test_torch_groups_the_same_bits():
    bits = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(np.float32)
    for width in (2, 4, 6, 12):
        grouped = group(torch.from_numpy(bits), width)
        np.testing.assert_array_equal(grouped.numpy(), group(bits, width))
        np.testing.assert_array_equal(ungroup(grouped, 5).numpy(), bits)


def test_torch_finds_the_same_codewords_and_posterior():
    generator = np.random.default_rng(1)
    z, codebook, llr = generator.normal(size=(50, 4)), generator.normal(size=(8, 4)), generator.normal(size=(50, 3))
    table, log_prior = label_bits(generator.permutation(8), 3).astype(float), np.log(generator.dirichlet(np.ones(8)))
    for function, arguments in (
        (scores, (z, codebook)),
        (nearest, (z, codebook)),
        (lookup, (codebook, np.array([[3, 1], [7, 0]]))),
        (posterior, (llr, table, log_prior)),
    ):
        found = function(*map(torch.from_numpy, arguments)).numpy()
        np.testing.assert_allclose(found, function(*arguments), rtol=1e-12, atol=1e-12)
    found = soft_assignment(torch.from_numpy(z), torch.from_numpy(codebook), 0.5, 0.7).numpy()
    np.testing.assert_allclose(found, soft_assignment(z, codebook, 0.5, 0.7), rtol=1e-12)


def test_ties_go_to_the_lowest_index_in_torch_too():
    codebook = torch.tensor([[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert nearest(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), codebook).tolist() == [1, 1]


@pytest.mark.parametrize("order", [4, 16, 256])
def test_gradients_pass_the_mapper(order):
    bits = torch.rand(3, bits_per_symbol(order), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(map_bits, (bits.requires_grad_(),))


@pytest.mark.parametrize("order", [4, 16, 256])
@pytest.mark.parametrize("demapper", DEMAPPERS)
def test_gradients_pass_the_demapper_away_from_its_kinks(demapper, order):
    generator = np.random.default_rng(order)
    side = int(np.sqrt(order))
    # Kinks are at the even multiples of d.
    y = (
        2 * generator.integers(-side // 2, side // 2, (5, 2)) + 1 + generator.uniform(-0.8, 0.8, (5, 2))
    ) * unit_amplitude(order)
    arguments = torch.from_numpy(y).requires_grad_(), torch.from_numpy(generator.uniform(0.1, 1.0, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, no: DEMAPPERS[demapper](y, no, order), arguments)


def test_gradients_of_an_erased_symbol_are_zero():
    y = torch.zeros(1, 2, requires_grad=True)
    for demap in DEMAPPERS.values():
        (gradient,) = torch.autograd.grad(demap(y, torch.full((1,), torch.inf), 16).sum(), y)
        assert (gradient == 0.0).all()


class Physical(torch.nn.Module):
    """Grouping, mapper and both demappers; one payload bit less than the symbols hold."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, bits, y, no):
        symbols = map_bits(group(bits, bits_per_symbol(self.order)))
        return symbols, max_log_llr(y, no, self.order), app_llr(y, no, self.order)


@pytest.mark.parametrize("order", [16, 256])
def test_onnx_runtime_finds_what_numpy_finds(order, trace_onnx, tmp_path):
    m = bits_per_symbol(order)
    file = tmp_path / "physical.onnx"
    names = (["bits", "y", "no"], ["symbols", "max_log", "app"])
    trace_onnx(Physical(order), (torch.zeros(2, 5 * m - 1), torch.zeros(2, 5, 2), torch.ones(2, 5)), *names, file)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 64):
        y, no = noisy(order, np.float32, (batch, 5))
        no[0, 0], y[0, 0] = np.inf, 0.0
        bits = np.random.default_rng(batch).integers(0, 2, (batch, 5 * m - 1)).astype(np.float32)
        symbols, max_log, app = session.run(None, {"bits": bits, "y": y, "no": no})
        np.testing.assert_array_equal(symbols, map_bits(group(bits, m)))
        for found, expected in ((max_log, max_log_llr(y, no, order)), (app, app_llr(y, no, order))):
            # ONNX Runtime folds constants and may fuse a product with a sum: a few roundings.
            assert (np.abs(found - expected) <= 32.0 * np.finfo(np.float32).eps * (1.0 + np.abs(expected))).all()
