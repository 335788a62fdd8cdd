"""The chain of a bundle with several modes: what the header decides, and what it costs."""

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import CHANNELS, Awgn, build_channel
from link.errors import ArgumentError
from link.header_theory import uniform_rates
from link.randomness import Draws
from link.reed_muller import encode
from link.snr import no_from_esn0_db

ROWS = 160
DEFAULT = 1


@pytest.fixture(scope="module")
def link(modes_bundle):
    return Link(load_bundle(modes_bundle))


@pytest.fixture(scope="module")
def routed(routed_bundle):
    return Link(load_bundle(routed_bundle))


@pytest.fixture(scope="module")
def latents(latents_of):
    modes = np.random.default_rng(1).integers(3, size=ROWS)
    modes[: ROWS // 2] = np.repeat(modes[: ROWS // 8], 4)  # half of the frames are uniform
    return latents_of(modes).inputs


def rows_of(inputs, rows):
    return {name: value[rows] for name, value in inputs.items()}


@pytest.mark.parametrize("name", CHANNELS)
def test_without_noise_to_speak_of_every_codeword_arrives_in_its_mode(link, latents, name):
    result = link.transmit(latents, build_channel(name), 60.0, Draws(1, np.arange(ROWS)))
    assert result.header.right.all()
    np.testing.assert_array_equal(result.header.mode, result.sent.mode)
    np.testing.assert_array_equal(result.decoded.indices_hat, result.sent.indices)


def test_a_sample_whose_header_was_lost_is_the_default_modes_answer_to_an_erased_sample(link, latents):
    result = link.transmit(latents, Awgn(), -3.0, Draws(2, np.arange(ROWS)))
    lost = result.header.lost
    assert 0 < lost.sum() < ROWS
    erased = link.receiver(np.zeros((1, 5, 2)), np.full((1, 5), np.inf), [DEFAULT])
    assert (result.decoded.llr[lost] == 0.0).all()
    assert (result.decoded.indices_hat[lost] == erased.indices_hat).all()
    np.testing.assert_array_equal(result.decoded.logits[lost], np.repeat(erased.logits, lost.sum(), axis=0))
    assert (result.header.mode[lost] == DEFAULT).all()
    assert (result.received.y[lost] == 0.0).all()
    assert np.isinf(result.received.no[lost]).all()


def test_a_wrong_header_is_decoded_as_it_says(link, latents):
    result = link.transmit(latents, Awgn(), -6.0, Draws(2, np.arange(ROWS)))
    wrong = np.flatnonzero(result.header.wrong)
    assert len(wrong) > 5
    draws = Draws(2, np.arange(ROWS))
    channel = Awgn()(result.sent.symbols, result.sent.num_symbols, -6.0, draws)
    sizes = np.array([3, 5, 2])
    for row in wrong:
        decoded_as = result.header.mode[row]
        assert decoded_as != result.sent.mode[row]
        y, no = channel.y[row : row + 1].copy(), channel.no[row : row + 1].copy()
        y[:, sizes[decoded_as] :], no[:, sizes[decoded_as] :] = 0.0, np.inf
        alone = link.receiver(y, no, [decoded_as])
        np.testing.assert_array_equal(result.decoded.llr[row], alone.llr[0])
        np.testing.assert_array_equal(result.decoded.indices_hat[row], alone.indices_hat[0])
        # Symbols that were not sent are erased although the decoded mode has them.
        heard = np.isfinite(result.received.no[row]).sum()
        assert heard == min(sizes[decoded_as], result.sent.num_symbols[row])


def test_what_is_received_right_is_what_a_receiver_that_knows_the_mode_finds(link, latents):
    draws = Draws(2, np.arange(ROWS))
    result = link.transmit(latents, Awgn(), -3.0, draws)
    channel = Awgn()(result.sent.symbols, result.sent.num_symbols, -3.0, draws)
    genie = link.receiver(channel.y, channel.no, result.sent.mode)
    right = result.header.right
    assert 0 < right.sum() < ROWS
    for name in ("llr", "indices_hat", "logits"):
        np.testing.assert_array_equal(getattr(result.decoded, name)[right], getattr(genie, name)[right])


class Silent:
    """A channel that replaces every header by the block that it is told to."""

    name = "silent"

    def __init__(self, message):
        self.message = message

    def __call__(self, x, num_symbols, snr_db, draws):
        if draws.within is not None:
            x = np.tile(encode(self.message), (len(x), 1, 1)).astype(np.float32)
            num_symbols = np.full(len(x), 16)
        return Awgn()(x, num_symbols, snr_db, draws)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_receiver_knows_the_mode_from_the_header_alone(link, latents, mode):
    """Whatever was sent, all samples are decoded in the mode that the symbols of the header name."""
    result = link.transmit(latents, Silent(mode << 1 | 1), 20.0, Draws(3, np.arange(ROWS)))
    assert (result.header.mode == mode).all()
    assert not result.header.lost.any()
    np.testing.assert_array_equal(result.header.wrong, result.sent.mode != mode)
    expected = link.receiver(result.received.y, result.received.no, np.full(ROWS, mode))
    np.testing.assert_array_equal(result.decoded.logits, expected.logits)


def test_a_header_that_names_no_mode_of_the_bundle_is_lost(link, latents):
    result = link.transmit(latents, Silent(3 << 1 | 1), 20.0, Draws(3, np.arange(ROWS)))
    assert result.header.lost.all()
    assert result.header.headers_lost == result.header.headers == ROWS // 4


@pytest.mark.parametrize("name", CHANNELS)
def test_neither_order_nor_a_split_at_frame_borders_changes_a_sample(link, latents, name):
    channel = build_channel(name)
    offset = 6  # frames begin at 8, 12, ...: the first and the last are not full
    whole = link.transmit(latents, channel, -4.0, Draws(4, offset + np.arange(ROWS)))
    assert 0 < whole.header.right.sum() < ROWS
    order = np.random.default_rng(2).permutation(ROWS)
    for rows in (order, np.arange(2), np.arange(2, 54), np.arange(54, ROWS)):
        part = link.transmit(rows_of(latents, rows), channel, -4.0, Draws(4, offset + rows))
        for field in ("mode", "lost", "wrong", "symbols"):
            np.testing.assert_array_equal(getattr(part.header, field), getattr(whole.header, field)[rows])
        np.testing.assert_array_equal(part.received.y, whole.received.y[rows])
        np.testing.assert_array_equal(part.received.no, whole.received.no[rows])
        np.testing.assert_array_equal(part.decoded.llr, whole.decoded.llr[rows])
        np.testing.assert_array_equal(part.decoded.indices_hat, whole.decoded.indices_hat[rows])
        np.testing.assert_array_equal(part.decoded.decisions, whole.decoded.decisions[rows])


def test_the_payload_sees_the_noise_that_it_would_see_without_a_header(link, latents):
    """So a bundle's points at two header designs differ in the headers alone."""
    draws = Draws(5, np.arange(ROWS))
    result = link.transmit(latents, Awgn(), 12.0, draws)
    plain = Awgn()(result.sent.symbols, result.sent.num_symbols, 12.0, draws)
    right = result.header.right
    assert right.all()
    np.testing.assert_array_equal(result.received.y, plain.y)


def test_headers_are_lost_over_the_link_as_often_as_the_closed_form_says(link, latents_of):
    """2000 frames in one mode at -3 dB; five deviations of a binomial are exceeded in 6 of 10^7 seeds."""
    frames = 2000
    inputs = latents_of(np.full(4 * frames, 2)).inputs
    header = link.transmit(inputs, Awgn(), -3.0, Draws(6, np.arange(4 * frames))).header
    rates = uniform_rates(-3.0, link.manifest.header, 3, 2)
    for count, rate in ((header.headers_lost, rates.lost), (header.headers_wrong, rates.wrong)):
        assert abs(count - frames * rate) < 5 * np.sqrt(frames * rate * (1 - rate))
    assert header.lost.sum() == 4 * header.headers_lost
    assert header.wrong.sum() == 4 * header.headers_wrong
    assert header.header_symbols == 16 * frames
    np.testing.assert_array_equal(header.symbols, 4.0)


def test_a_sample_twice_in_a_draw_is_refused_where_headers_are_shared(link, latents):
    with pytest.raises(ArgumentError, match="samples must hold each number once a draw"):
        link.transmit(rows_of(latents, np.arange(2)), Awgn(), 0.0, Draws(0, np.array([1, 1])))


@pytest.mark.parametrize(("snr_db", "error", "mode"), [(9.0, 0.0, 0), (9.0, -2.0, 1), (-1.0, 1.5, 1), (-30.0, -9.0, 2)])
def test_a_router_sees_the_snr_with_its_error_and_the_channel_without(routed, latents_of, snr_db, error, mode):
    inputs = latents_of(np.zeros(8, dtype=int)).inputs
    result = routed.transmit(inputs, Awgn(), snr_db, Draws(7, np.arange(8)), snr_error_db=error)
    assert result.sent.mode.tolist() == [mode] * 8
    sent = result.received.no[np.isfinite(result.received.no)]
    if len(sent):
        np.testing.assert_allclose(sent, no_from_esn0_db(snr_db), rtol=1e-6)


def test_an_error_of_an_estimate_that_nobody_makes_is_refused(link, routed, latents):
    draws = Draws(0, np.arange(ROWS))
    with pytest.raises(ArgumentError, match=r"snr_error_db must be 0 for a bundle without a router, got 3"):
        link.transmit(latents, Awgn(), 0.0, draws, snr_error_db=3.0)
    for error in (31.0, np.nan):
        with pytest.raises(ArgumentError, match=r"snr_error_db must be in \[-30, 30\]"):
            routed.transmit(latents, Awgn(), 0.0, draws, snr_error_db=error)
    with pytest.raises(ArgumentError, match=r"snr_db must be in \[-30, 60\], got 99"):
        routed.transmit(latents, Awgn(), 99.0, draws)


def test_a_bundle_of_one_mode_sends_no_header(bundle):
    latent = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    result = Link(bundle).transmit({"latent": latent}, Awgn(), 3.0, Draws(1, np.zeros(5)))
    assert result.header is None
