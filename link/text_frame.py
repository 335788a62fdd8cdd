"""Sentences that share a codeword: their symbols, and what is heard of them.

    k bits ──LDPC, repeat──> m S bits ──QAM──> S symbols, dealt out to g sentences ──> channel ──> LLRs, repeats added

A sentence's symbols are those of its row: with the same seed they meet the noise and the fades that a semantic link's would.
Coded bits are laid over the m bits of the symbols as the interleaver of 3GPP TS 38.212, section 5.4.2.2, does, the
systematic ones on the best protected; and symbols over the sentences so that each stretch of the codeword meets all fades of
its frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.channel import Channel
from link.channel.fec import Ldpc, coded_bits, combine_repeats, repeat_bits
from link.constellation import app_llr, bits_per_symbol, map_bits
from link.device import host_engine
from link.randomness import Draws


class Heard(NamedTuple):
    """What is received of a frame.

    Attributes
    ----------
    llr : (draws, n) float32
        Of the coded bits, ln P(b = 1) / P(b = 0).
    pilots : int
        Pilot symbols of all draws.
    """

    llr: NDArray[np.float32]
    pilots: int


class TextFrame(NamedTuple):
    """Sentences that share a codeword.

    Attributes
    ----------
    rows : (g,) int64
        Their numbers.
    budgets : (g,) int64
        Symbols of each, at least 1.
    kept : tuple of g str
        What is sent of each.
    bits : (k,) uint8
        Of all together.
    """

    rows: NDArray[np.int64]
    budgets: NDArray[np.int64]
    kept: tuple[str, ...]
    bits: NDArray[np.uint8]

    @property
    def symbols(self) -> int:
        """S, of all sentences."""
        return int(self.budgets.sum())

    @property
    def bits_per_symbol(self) -> float:
        """k/S: the rate at which it has to be carried."""
        return len(self.bits) / self.symbols

    def fits(self, order: int) -> bool:
        """Whether 5G has a code of that rate over `order`-QAM."""
        return coded_bits(len(self.bits))[0] <= bits_per_symbol(order) * self.symbols

    def code(self, order: int, iterations: int) -> Ldpc:
        """The code of the lowest rate that fits; what it leaves of the symbols are repeats."""
        k = len(self.bits)
        return Ldpc(k, min(bits_per_symbol(order) * self.symbols, coded_bits(k)[1]), iterations)

    def modulate(self, order: int, code: Ldpc) -> NDArray[np.float32]:
        """Symbols of each sentence, (g, S_max, 2), 0 past its own."""
        width = bits_per_symbol(order)
        coded = repeat_bits(code.encode(self.bits[None]), width * self.symbols)
        x = np.zeros((len(self.rows), int(self.budgets.max()), 2), dtype=np.float32)
        x[self._dealt] = map_bits(coded.reshape(width, self.symbols).T.astype(np.float32)[:, None])[:, 0]
        return x

    def receive(
        self, x: NDArray[np.float32], order: int, code: Ldpc, channel: Channel, snr_db: float, seed: int, draws: int
    ) -> Heard:
        """Carry what `modulate` gave over a channel, in each of so many draws."""
        sentences = len(self.rows)
        addresses = Draws(seed, np.tile(self.rows, draws), np.repeat(np.arange(draws), sentences), engine=host_engine())
        received = channel(np.tile(x, (draws, 1, 1)), np.tile(self.budgets, draws), snr_db, addresses)
        llr = app_llr(received.y.astype(np.float64), received.no.astype(np.float64), order)
        sentence, place = self._dealt
        of_symbols = llr.reshape(draws, sentences, -1, llr.shape[-1])[:, sentence, place]
        return Heard(combine_repeats(of_symbols.swapaxes(1, 2).reshape(draws, -1), code.n), received.pilot_symbols)

    @property
    def _dealt(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sentence and place in it of each symbol of the codeword, (S,): in the order of how far through it the place is."""
        sentence = np.repeat(np.arange(len(self.rows)), self.budgets)
        place = np.arange(self.symbols) - np.repeat(np.cumsum(self.budgets) - self.budgets, self.budgets)
        order = np.lexsort((sentence, (place + 0.5) / self.budgets[sentence]))
        return sentence[order], place[order]


def sentence_budgets(words: NDArray[np.int64], symbols_per_word: float) -> NDArray[np.int64]:
    """Symbols of each sentence: sums over sentences in order are within a symbol of the words times the budget.

    Examples
    --------
    >>> sentence_budgets(np.array([3, 3, 3]), 2.5).tolist()
    [8, 7, 8]
    """
    until = np.floor(symbols_per_word * np.cumsum(words) + 0.5).astype(np.int64)
    return np.asarray(np.diff(until, prepend=0))
