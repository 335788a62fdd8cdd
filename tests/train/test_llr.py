"""LLRs of torch and of receiver.onnx, recomputed from the table of 3GPP TS 38.211 without link's mapper or demapper."""

import itertools
import math

import numpy as np
import torch

AMPLITUDES = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): -1.0, (1, 1): -3.0}
"""16-QAM, section 5.1.4, in units of 1 / sqrt(10): (b0, b2) choose I, (b1, b3) choose Q."""

TABLE = [
    (bits, (AMPLITUDES[bits[0], bits[2]] / math.sqrt(10.0), AMPLITUDES[bits[1], bits[3]] / math.sqrt(10.0)))
    for bits in itertools.product((0, 1), repeat=4)
]


def brute_force(y, no):
    """ln P(b=1)/P(b=0) of each bit of one symbol, from the likelihoods of all 16 points."""
    likelihood = {bits: math.exp(-((y[0] - point[0]) ** 2 + (y[1] - point[1]) ** 2) / no) for bits, point in TABLE}
    return [
        math.log(sum(p for bits, p in likelihood.items() if bits[i]))
        - math.log(sum(p for bits, p in likelihood.items() if not bits[i]))
        for i in range(4)
    ]


def test_torch_and_the_exported_graph_find_the_llrs_of_the_standard(digits_model, digits_link):
    generator = np.random.default_rng(8)
    y = generator.normal(scale=0.7, size=(20, 6, 2)).astype(np.float32)
    no = generator.uniform(0.3, 2.0, size=(20, 6)).astype(np.float32)
    expected = np.array([[brute_force(*pair) for pair in zip(*row, strict=True)] for row in zip(y, no, strict=True)])
    with torch.no_grad():
        in_torch = digits_model.receive(torch.from_numpy(y), torch.from_numpy(no)).llr.numpy()
    in_onnx = digits_link.receiver(y, no).llr
    for found in (in_torch, in_onnx):
        np.testing.assert_allclose(found, expected.reshape(20, 24), rtol=1e-4, atol=1e-4)


def test_the_exported_transmitter_sends_the_points_of_the_standard(digits_link, digits_data):
    sent = digits_link.transmitter(digits_data.test.inputs)
    points = dict(TABLE)
    expected = [[points[tuple(bits)] for bits in row.reshape(6, 4).tolist()] for row in sent.bits]
    np.testing.assert_allclose(sent.symbols, expected, atol=1e-6)
