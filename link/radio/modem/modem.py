"""The modem: symbols to samples and back, with nothing in between that knows what the symbols mean.

payloads ──frames, pulses──> samples          samples ──frame receiver──> payloads, noise variance, what was lost
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.blas import one_blas_thread
from link.radio.frontend import Samples
from link.radio.modem.frame import SEQUENCES, VERSION, Header, assemble, mode_of
from link.radio.modem.options import ModemOptions
from link.radio.modem.pulse import peak_to_average_db
from link.radio.modem.receiver import FrameReceiver, Reception


class Burst(NamedTuple):
    """Frames as samples.

    Attributes
    ----------
    samples : (n,) complex64
        Symbols of Es = 1 have unit energy.
    headers : list of Header
        Of the frames, in the order sent.
    symbols : int
        Of all frames, guards, preambles, headers, pilots and CRCs included.
    papr_db : float
        Peak over mean power.
    """

    samples: Samples
    headers: list[Header]
    symbols: int
    papr_db: float


class Modem:
    """A transmitter and a receiver of frames.

    Parameters
    ----------
    options : ModemOptions

    Examples
    --------
    >>> modem = Modem(ModemOptions())
    >>> burst = modem.send([np.array([1 + 1j, 1 - 1j]) / np.sqrt(2)], first_sequence=7)
    >>> frame = modem.receive(burst.samples).frames[0]
    >>> frame.header.sequence, frame.crc_ok, bool(np.abs(frame.payload - [0.7071 + 0.7071j, 0.7071 - 0.7071j]).max() < 0.01)
    (7, True, True)
    """

    def __init__(self, options: ModemOptions) -> None:
        self.options = options
        self._receiver = FrameReceiver(options.frame, options.pulse, options.receiver)

    def send(self, payloads: Sequence[NDArray[np.complexfloating]], first_sequence: int = 0) -> Burst:
        """Samples that carry payloads, a frame each.

        Parameters
        ----------
        payloads : sequence of (n,) complex
            Es = 1; at most `payload_symbols` each.
        first_sequence : int
            Number of the first frame.
        """
        frame = self.options.frame
        headers = [
            Header(VERSION, mode_of(payload), (first_sequence + i) % SEQUENCES, len(payload))
            for i, payload in enumerate(payloads)
        ]
        symbols = np.concatenate(
            [assemble(payload, header, frame) for payload, header in zip(payloads, headers, strict=True)]
        )
        samples = self.options.pulse.shape(symbols)
        return Burst(samples, headers, len(symbols), peak_to_average_db(samples))

    def receive(self, samples: Samples) -> Reception:
        """Frames in a run of samples without gaps, to the last bit the same on any number of cores."""
        with one_blas_thread():
            return self._receiver.receive(samples)
