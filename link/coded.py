"""The coded link: messages through encoder, mapper, channel, demapper and decoder, and what comes out wrong.

    message (k) ──encode──> bits (n) ──interleave──> link.modem.llrs ──> LLRs (n) ──decode──> message (k), compared, counted

The interleaver is that of 3GPP TS 38.212, section 5.4.2.2: written by rows, one a bit of a symbol, and read by columns, so
that the code's first bits, the systematic ones, are the better protected bits of the symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from link.bits import block_interleaver
from link.channel import Channel
from link.channel.fec import Ldpc
from link.constellation import bits_per_symbol
from link.device import host_engine
from link.modem import ErrorCounts, count_wrong, llrs
from link.randomness import Draws, Stream
from link.snr import millidecibels

_TILE_FRAMES: Final = 128


@dataclass(frozen=True)
class CodedModem:
    """Gray square QAM behind a code; a frame is one codeword, padded to whole symbols.

    Parameters
    ----------
    order : int
        QAM order.
    channel : Channel
    code : Ldpc
    demapper : {"max-log", "app"}
    seed : int
    """

    order: int
    channel: Channel
    code: Ldpc
    demapper: Literal["max-log", "app"] = "max-log"
    seed: int = 0

    @property
    def engine(self) -> str:
        """What draws the normals, see link.device."""
        return host_engine()

    def count(self, snr_db: float, first_frame: int, frames: int) -> ErrorCounts:
        """Send some frames; as link.modem.Modem.count, of the messages' bits. Symbols are not judged."""
        last = first_frame + frames
        return ErrorCounts.total(
            self._count(snr_db, first, min(_TILE_FRAMES, last - first))
            for first in range(first_frame, last, _TILE_FRAMES)
        )

    def _count(self, snr_db: float, first: int, frames: int) -> ErrorCounts:
        draws = Draws(self.seed, np.arange(first, first + frames), engine=self.engine)
        message = draws.bits(Stream.BITS, millidecibels(snr_db), self.code.k)
        order = block_interleaver(self.code.n, bits_per_symbol(self.order))
        llr = llrs(self.code.encode(message)[:, order], self.order, self.channel, snr_db, draws, self.demapper)
        wrong = count_wrong(self.code.decode(llr[:, np.argsort(order)]) != message, 1)
        return wrong._replace(symbol_errors=0, symbol_squares=0)
