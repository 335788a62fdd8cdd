import numpy as np
import pytest

from link.channel import build_channel
from link.constellation import app_llr, map_bits
from link.randomness import Draws
from link.text_frame import TextFrame, sentence_budgets

AWGN = build_channel("awgn")


def frame_of(budgets, k, seed=0, first=0):
    bits = np.random.default_rng(seed).integers(0, 2, k, dtype=np.uint8)
    return TextFrame(np.arange(first, first + len(budgets)), np.array(budgets), ("",) * len(budgets), bits)


@pytest.mark.parametrize("symbols_per_word", [1.0, 2.5, 4.0, 7.3])
def test_budgets_add_up_to_the_words_times_the_budget(symbols_per_word):
    words = np.random.default_rng(0).integers(1, 40, 500)
    budgets = sentence_budgets(words, symbols_per_word)
    assert (abs(np.cumsum(budgets) - symbols_per_word * np.cumsum(words)) <= 0.5).all()
    assert (abs(budgets - symbols_per_word * words) <= 1.0).all()
    assert budgets.min() >= 1


def test_symbols_are_dealt_out_evenly_along_the_codeword():
    frame = frame_of([5, 20, 75], 100)
    sentence, place = frame._dealt
    assert sorted(zip(sentence.tolist(), place.tolist(), strict=True)) == [
        (i, j) for i, budget in enumerate((5, 20, 75)) for j in range(budget)
    ]
    for stretch in range(0, 100, 20):
        assert np.bincount(sentence[stretch : stretch + 20]).tolist() == [1, 4, 15]
    for i in range(3):
        assert (np.diff(place[sentence == i]) == 1).all()
    assert frame_of([4, 4], 12)._dealt[0].tolist() == [0, 1] * 4


@pytest.mark.parametrize("order", [4, 16, 64])
def test_a_symbol_has_its_bits_from_all_of_the_codeword_the_first_on_the_best_protected(order):
    frame = frame_of([30, 10, 21], 80)
    code = frame.code(order, 20)
    x = frame.modulate(order, code)
    assert x.shape == (3, 30, 2)
    coded = code.encode(frame.bits[None])[0]
    assert len(coded) == frame.symbols * int(np.log2(order))
    for number, (sentence, place) in enumerate(zip(*frame._dealt, strict=True)):
        bits = coded[number :: frame.symbols].astype(np.float32)
        np.testing.assert_array_equal(x[sentence, place], map_bits(bits[None])[0])
    for sentence, budget in enumerate(frame.budgets):
        assert not x[sentence, budget:].any()


@pytest.mark.parametrize(
    ("order", "k"), [(4, 100), (16, 100), (64, 300), (4, 12)]
)  # the last repeats a code of rate 1/5
def test_what_is_heard_says_the_coded_bits_where_there_is_no_noise_to_speak_of(order, k):
    frame = frame_of([40, 33, 27], k)
    code = frame.code(order, 20)
    assert code.n == min(100 * int(np.log2(order)), 5 * k)
    heard = frame.receive(frame.modulate(order, code), order, code, AWGN, 40.0, seed=1, draws=2)
    assert heard.llr.shape == (2, code.n)
    assert heard.pilots == 0
    np.testing.assert_array_equal(heard.llr > 0, np.tile(code.encode(frame.bits[None]), (2, 1)) == 1)
    np.testing.assert_array_equal(code.decode(heard.llr), np.tile(frame.bits, (2, 1)))


@pytest.mark.parametrize(("channel", "block_symbols"), [("awgn", 0), ("rayleigh", 0), ("rayleigh", 4)])
def test_a_sentence_meets_the_noise_of_its_row_and_draw(channel, block_symbols):
    frame = frame_of([12, 9], 36, first=5)
    code = frame.code(4, 20)
    x = frame.modulate(4, code)
    carrier = build_channel(channel, block_symbols=block_symbols)
    heard = frame.receive(x, 4, code, carrier, 3.0, seed=9, draws=3)
    for draw in range(3):
        expected = np.zeros(42)
        for number, row in enumerate(frame.rows):
            alone = carrier(
                x[number : number + 1], frame.budgets[number : number + 1], 3.0, Draws(9, np.array([row]), draw)
            )
            llr = app_llr(alone.y.astype(np.float64), alone.no.astype(np.float64), 4)[0]
            sentence, place = frame._dealt
            for at in np.flatnonzero(sentence == number):
                expected[[at, at + 21]] = llr[place[at]]
        np.testing.assert_allclose(heard.llr[draw], expected, rtol=1e-5)


def test_repeats_of_a_bit_are_added():
    """A code of rate 1/5 whose 60 bits are sent over and over: at -9 dB only their sum tells them."""
    frame = frame_of([300, 300], 12)
    code = frame.code(4, 20)
    heard = frame.receive(frame.modulate(4, code), 4, code, AWGN, -9.0, seed=0, draws=1)
    # The mean |LLR| of one reception of a bit at Es/N0 = snr is near 2 snr for small snr, that of 20 added up 20 times that.
    assert np.abs(heard.llr).mean() > 10 * 2 * 10**-0.9
    np.testing.assert_array_equal(code.decode(heard.llr)[0], frame.bits)


def test_pilots_are_told():
    frame = frame_of([12, 9], 20)
    code = frame.code(4, 20)
    channel = build_channel("rayleigh", csi="ls", pilots=2)
    assert frame.receive(frame.modulate(4, code), 4, code, channel, 9.0, seed=0, draws=3).pilots == 2 * 2 * 3


def test_a_frame_fits_where_5g_has_its_rate():
    frame = frame_of([10], 37)
    assert [order for order in (4, 16, 64) if frame.fits(order)] == [16, 64]
    assert frame.bits_per_symbol == 3.7
    assert frame_of([10], 38).fits(16) is False  # 38/40 is above 948/1024
