"""Random payloads over a channel, and the errors in them."""

from typing import NamedTuple

import numpy as np
import pytest

from link.bits import group
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.randomness import Draws, Stream


class Errors(NamedTuple):
    """Bit errors of each (sample, symbol), and bits in one."""

    counts: np.ndarray
    bits_per_symbol: int

    def assert_rate(self, theory, unit_axes):
        """The rate is the theory's within four standard errors of the mean over independent units.

        `unit_axes` are the axes of `counts` (samples, symbols) that lie inside one unit: bits of one symbol share its noise,
        symbols of one block share its gain.
        """
        units = self.counts.mean(axis=unit_axes) if unit_axes else self.counts
        rates = units.ravel() / self.bits_per_symbol
        error = rates.std(ddof=1) / np.sqrt(rates.size)
        assert abs(rates.mean() - theory) < 4.0 * error
        # A tolerance so wide that it would forgive a decibel says nothing.
        assert error < 0.03 * theory


@pytest.fixture
def count_errors():
    """Function that sends random bits over a channel and counts the errors of hard decisions."""

    def count(channel, order, snr_db, samples=400, symbols=200, seed=1):
        m = bits_per_symbol(order)
        draws = Draws(seed, np.arange(samples))
        bits = draws.bits(Stream.BITS, order, symbols * m)
        x = map_bits(group(bits.astype(np.float32), m))
        received = channel(x, np.full(samples, symbols), snr_db, draws)
        decided = max_log_llr(received.y, received.no, order) > 0.0
        return Errors((decided != group(bits, m)).sum(axis=-1), m)

    return count
