import numpy as np
import pytest

from link.bits import group, ungroup
from link.chain import Link
from link.channel import CHANNELS, Awgn, build_channel
from link.constellation import map_bits, max_log_llr
from link.errors import ArgumentError
from link.randomness import Draws, Stream

ROWS = 24


@pytest.fixture(scope="module")
def link(bundle):
    return Link(bundle)


@pytest.fixture(scope="module")
def latent():
    return Draws(0, np.arange(ROWS)).normals(Stream.SPLIT, 0, 3).astype(np.float32)


@pytest.mark.parametrize("name", CHANNELS)
def test_without_noise_to_speak_of_every_codeword_arrives(link, latent, name):
    result = link.transmit({"latent": latent}, build_channel(name), 60.0, Draws(1, np.arange(ROWS)))
    np.testing.assert_array_equal(result.decoded.indices_hat, result.sent.indices)


def test_symbols_are_the_bits_mapped_by_link_itself(link, latent):
    sent = link.transmitter({"latent": latent})
    np.testing.assert_array_equal(sent.symbols, map_bits(group(sent.bits.astype(np.float32), 4)))


def test_llrs_are_those_of_links_own_demapper_clipped(link, latent):
    result = link.transmit({"latent": latent}, Awgn(), 12.0, Draws(1, np.arange(ROWS)))
    received = result.received
    expected = np.clip(ungroup(max_log_llr(received.y, received.no, 16), 9), -40.0, 40.0)
    assert (np.abs(expected) == 40.0).any()
    np.testing.assert_allclose(result.decoded.llr, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_no_sample_depends_on_its_companions(link, latent, name, size):
    channel = build_channel(name)
    together = link.transmit({"latent": latent}, channel, 3.0, Draws(1, np.arange(ROWS)))
    for start in range(0, ROWS, size):
        rows = np.arange(start, min(start + size, ROWS))
        alone = link.transmit({"latent": latent[rows]}, channel, 3.0, Draws(1, rows))
        for name_, part in alone.sent._asdict().items():
            np.testing.assert_array_equal(part, getattr(together.sent, name_)[rows])
        np.testing.assert_array_equal(alone.received.y, together.received.y[rows])
        np.testing.assert_array_equal(alone.decoded.indices_hat, together.decoded.indices_hat[rows])
        np.testing.assert_array_equal(alone.decoded.decisions, together.decoded.decisions[rows])


def test_one_transmission_may_be_carried_many_times(link, latent):
    sent = link.transmitter({"latent": latent})
    draws = [link.carry(sent, Awgn(), 0.0, Draws(1, np.arange(ROWS), draw)) for draw in (0, 1, 0)]
    np.testing.assert_array_equal(draws[0].received.y, draws[2].received.y)
    assert not np.array_equal(draws[0].received.y, draws[1].received.y)


def test_a_wrong_snr_is_named(link, latent):
    with pytest.raises(ArgumentError, match=r"snr_db must be in \[-30, 60\], got 99"):
        link.transmit({"latent": latent}, Awgn(), 99.0, Draws(1, np.arange(ROWS)))


def test_draws_for_another_number_of_samples_are_refused(link, latent):
    with pytest.raises(ArgumentError, match="samples must have shape"):
        link.transmit({"latent": latent}, Awgn(), 0.0, Draws(1, np.arange(1)))
