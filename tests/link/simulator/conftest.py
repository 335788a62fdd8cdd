"""A workload without a link: units that fail with a probability of their own point, some of them badly."""

import os
import signal
import sys
from typing import ClassVar, NamedTuple

import cloudpickle
import numpy as np
import pytest

from link.randomness import Draws, Stream
from link.snr import millidecibels
from link.stopping import Tally

UNITS, BITS = 200, 4


class Counts(NamedTuple):
    unit_errors: int
    errors: int
    squares: int
    note: str = "n"
    pair: tuple[int, int] = (1, 2)


class Coins:
    """Block `block` at `snr_db`: units fail with probability 10^(-snr / 10), up to four bits of each.

    `dies` names blocks whose worker is killed, as often as there are lines to write in its file.
    """

    block_type: ClassVar = Counts

    def __init__(self, seed=0, stride=1, dies=None):
        self.seed, self.stride, self.dies = seed, stride, dies or {}

    def run(self, snr_db, block):
        if block in self.dies:
            file, times = self.dies[block]
            with open(file, "a+") as stream:
                stream.seek(0)
                if len(stream.read()) < times:
                    stream.write("x")
                    stream.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
        uniforms = Draws(self.seed, np.array([block])).uniforms(Stream.NOISE, millidecibels(snr_db), UNITS)[0]
        p = 10.0 ** (-snr_db / 10.0)
        wrong = np.where(uniforms < p, 1 + (uniforms / p * BITS).astype(int), 0)
        return Counts(int((wrong > 0).sum()), int(wrong.sum()), int((wrong**2).sum()))

    def tally(self, block):
        return Tally(UNITS, block.unit_errors, UNITS * BITS, block.errors, block.squares)


# Workers cannot import a test's conftest: the class goes to them with the object.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="session")
def coins():
    return Coins
