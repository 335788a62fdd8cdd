"""The deployed chain, end to end.

    inputs ──> transmitter.onnx ──> symbols ──> channel ──> y, no ──> receiver.onnx ──> decisions
               VQ, labels, bits,    [B,S,2]     noise,      [B,S,2]   LLRs, posterior
               grouping, QAM                    fading      [B,S]     mean, head

Nothing passes the channel but symbols. Randomness is addressed by (seed, sample, draw, SNR), so the result of a sample does
not depend on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from link.channel import Channel, Received
from link.manifest import Bundle
from link.randomness import Draws
from link.runtime import Receiver, Reception, Transmission, Transmitter


@dataclass(frozen=True)
class LinkResult:
    """One pass of a batch over the link."""

    sent: Transmission
    received: Received
    decoded: Reception


class Link:
    """A bundle's transmitter and receiver, to be joined by a channel.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        Threads inside one operation of ONNX Runtime.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.transmitter = Transmitter(bundle, threads)
        self.receiver = Receiver(bundle, threads)

    def transmit(self, inputs: Mapping[str, ArrayLike], channel: Channel, snr_db: float, draws: Draws) -> LinkResult:
        """Encode, carry and decode a batch.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
        channel : Channel
        snr_db : float
            Es/N0 in dB, in [-30, 60].
        draws : Draws
            One sample number a row.

        Raises
        ------
        ArgumentError
            If an input or the SNR is out of range.
        """
        return self.carry(self.transmitter(inputs), channel, snr_db, draws)

    def carry(self, sent: Transmission, channel: Channel, snr_db: float, draws: Draws) -> LinkResult:
        """Carry and decode what was sent; a sweep encodes once and calls this for each point and draw."""
        received = channel(sent.symbols, sent.num_symbols, snr_db, draws)
        return LinkResult(sent, received, self.receiver(received.y, received.no, sent.mode))
