"""The interface of the graphs, spelled out: other implementations read bundles too."""

from link.interface import receiver_inputs, receiver_outputs, transmitter_outputs
from link.rate import Rate

# 9 bits in 3 symbols, the same in 5, and 8 bits in 4: most tokens, bits and symbols are of different modes.
MODES = (
    Rate(tokens=3, codewords=8, order=16),
    Rate(tokens=3, codewords=8, order=4),
    Rate(tokens=4, codewords=4, order=4),
)


def spelled(tensors):
    return [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]


def test_a_transmitter_answers_with_arrays_of_the_size_of_the_largest_mode():
    assert spelled(transmitter_outputs(MODES)) == [
        ("mode", "int64", ("batch",)),
        ("indices", "int64", ("batch", 4)),
        ("bits", "uint8", ("batch", 9)),
        ("num_bits", "int64", ("batch",)),
        ("symbols", "float32", ("batch", 5, 2)),
        ("num_symbols", "int64", ("batch",)),
    ]


def test_a_receiver_takes_symbols_and_answers_with_scores():
    assert spelled(receiver_inputs(MODES)) == [
        ("symbols", "float32", ("batch", 5, 2)),
        ("no", "float32", ("batch", 5)),
        ("mode", "int64", ("batch",)),
        ("llr_in", "float32", ("batch", 9)),
    ]
    assert spelled(receiver_outputs(MODES, 7)) == [
        ("llr", "float32", ("batch", 9)),
        ("indices_hat", "int64", ("batch", 4)),
        ("logits", "float32", ("batch", 7)),
    ]
