from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.radio.modem.convolutional import coded_bits, decode, encode

# IEEE 802.11, figure 17-8: by which delays each output bit is the sum of.
DELAYS = ((0, 2, 3, 5, 6), (0, 1, 2, 3, 6))
FREE_DISTANCE = 10
MESSAGES = np.array(list(product((0, 1), repeat=8)), dtype=np.uint8)

messages = st.lists(st.integers(0, 1), min_size=1, max_size=80).map(lambda bits: np.array(bits, dtype=np.uint8))


def signs(bits):
    return 2.0 * bits - 1.0


@given(messages)
def test_each_coded_bit_is_the_sum_of_the_bits_that_the_standard_draws(message):
    padded = [0] * 6 + message.tolist() + [0] * 6
    wanted = [sum(padded[6 + n - delay] for delay in delays) % 2 for n in range(len(message) + 6) for delays in DELAYS]
    assert encode(message).tolist() == wanted
    assert len(wanted) == coded_bits(len(message))


def test_words_of_several_messages_are_those_of_each():
    stacked = MESSAGES.reshape(4, 64, 8)
    found = encode(stacked)
    assert found.shape == (4, 64, coded_bits(8))
    assert np.array_equal(found.reshape(256, -1), np.stack([encode(message) for message in MESSAGES]))


def test_no_two_words_are_nearer_than_the_free_distance():
    assert encode(MESSAGES[1:]).sum(axis=-1).min() == FREE_DISTANCE


@given(messages)
def test_what_was_coded_is_decoded(message):
    assert np.array_equal(decode(signs(encode(message))[None]), message[None])


@pytest.mark.parametrize("deviation", [0.3, 1.0, 3.0])
def test_no_message_correlates_better_than_the_decoded_one(deviation):
    generator = np.random.default_rng(3)
    words = signs(encode(MESSAGES))
    llr = 2 * (words[generator.integers(256, size=300)] + generator.normal(scale=deviation, size=(300, words.shape[1])))
    best = (llr @ words.T).argmax(axis=-1)
    found = decode(llr)
    assert np.array_equal(found, MESSAGES[best])
    if deviation == 3.0:
        hard = decode(np.sign(llr))
        assert (hard != found).any(axis=-1).mean() > 0.1, "soft decisions are weighed by how sure they are"


def test_any_four_errors_are_corrected_and_any_nine_erasures():
    generator = np.random.default_rng(4)
    sent = generator.integers(2, size=(400, 40), dtype=np.uint8)
    word = signs(encode(sent))
    for count, factor in ((4, -1.0), (9, 0.0)):
        changed = word.copy()
        # Next to each other or far apart: both are drawn.
        for row, within in enumerate(generator.choice([12, 30, word.shape[1]], size=len(sent))):
            first = generator.integers(word.shape[1] - within + 1)
            changed[row, first + generator.choice(within, size=count, replace=False)] *= factor
        assert np.array_equal(decode(changed), sent)


def test_words_are_decoded_one_by_one():
    generator = np.random.default_rng(5)
    llr = generator.normal(size=(7, coded_bits(30)))
    assert np.array_equal(decode(llr), np.concatenate([decode(row[None]) for row in llr]))
    assert np.array_equal(decode(1e3 * llr), decode(llr))
