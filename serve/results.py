"""What an engine answers, and so what a client gets: arrays, whatever lies between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.channel.frames import FrameCounts
from link.header import HeaderOutcome
from link.manifest import Manifest
from link.runtime import Transmission


@dataclass(frozen=True)
class Settings:
    """The channel, its SNR, and the address of the randomness.

    The settings in a result are those that were used, defaults filled in: given again with the same inputs they give the
    same result.

    Attributes
    ----------
    snr_db : float or None
        Es/N0 in dB, in [-30, 60]. Over a radio that cannot set it, what a model's router takes it for, and else None.
    channel : str
        One of link.channel.CHANNELS, or RADIO; empty stands for awgn.
    block_symbols : int
        Symbols that fade together in block fading, at least 0; 0 stands for all symbols of a sample.
    k_factor_db : float, optional
        Rician K-factor in dB, in [-20, 40]; 6 where absent.
    seed : int
        In [0, 2**63).
    sample_offset : int
        Row i is sample number `sample_offset` + i, in [0, 2**32).
    draw : int
        Which repetition, in [0, 2**32).
    snr_error_db : float
        What a model's router takes the SNR for is higher by this, dB, in [-30, 30]; 0 for a model without a router.
    csi : str
        How the receiver comes by the gains of block fading, one of link.channel.CSI; "perfect" where there is none.
    pilots : int
        Pilot symbols a fading block, in [1, 1024]; 0 where csi is perfect.
    no_offset_db : float
        The noise variance that the receiver is told is higher than the true one by this, dB, in [-30, 30].
    """

    snr_db: float | None
    channel: str = "awgn"
    block_symbols: int = 0
    k_factor_db: float | None = None
    seed: int = 0
    sample_offset: int = 0
    draw: int = 0
    snr_error_db: float = 0.0
    csi: str = "perfect"
    pilots: int = 0
    no_offset_db: float = 0.0


class Timing(NamedTuple):
    """Time spent on a request, in microseconds; what was computed together took all of it the same time."""

    transmitter_us: float = 0.0
    channel_us: float = 0.0
    receiver_us: float = 0.0
    queue_us: float = 0.0


class Encoded(NamedTuple):
    """What the transmitter made of a batch.

    Attributes
    ----------
    sent : link.runtime.Transmission
    truncated : (B,) bool, optional
        Whether each text had more tokens than the model takes, and was cut; None where no texts were given.
    unknown : (B,) bool, optional
        Whether each text has no token that the model knows; None where no texts were given.
    timing : Timing
    """

    sent: Transmission
    truncated: NDArray[np.bool_] | None
    unknown: NDArray[np.bool_] | None
    timing: Timing


class Decoded(NamedTuple):
    """What the receiver finds.

    Attributes
    ----------
    decisions : (B,) or (B, T) int64
        Class of each sample, the highest logit and the lowest index on ties; or the pieces of its text.
    answers : tuple of B str
        Names of the classes, or the texts.
    probabilities : (B, C) float32, optional
        Softmax of the logits; None where texts are answered.
    logits : (B, C) float32, optional
        None where texts are answered.
    indices_hat : (B, N) int64
        Most likely codewords.
    llr : (B, L) float32, optional
        ln P(b=1)/P(b=0); None where it was not asked for.
    timing : Timing, optional
        None where it is part of a whole transmission, which has its own.
    log_prob : (B, T) float32, optional
        Log of the probability of each piece, nats; None where classes are answered.
    truncated, unknown : (B,) bool, optional
        Of the texts that the receiver was given of its own, as of Encoded; None where it was given none, and where this is
        part of a whole transmission.
    """

    decisions: NDArray[np.int64]
    answers: tuple[str, ...]
    probabilities: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None
    indices_hat: NDArray[np.int64]
    llr: NDArray[np.float32] | None
    timing: Timing | None = None
    log_prob: NDArray[np.float32] | None = None
    truncated: NDArray[np.bool_] | None = None
    unknown: NDArray[np.bool_] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The answers, as a caller knows them who asks for classes."""
        return self.answers

    @property
    def pieces(self) -> NDArray[np.int64] | None:
        """The pieces of the texts; None where classes are answered."""
        return None if self.log_prob is None else self.decisions

    @property
    def score(self) -> NDArray[np.float32]:
        """Logits of the classes, or log probabilities of the pieces."""
        score = self.logits if self.log_prob is None else self.log_prob
        assert score is not None
        return score


class Sent(NamedTuple):
    """What was sent; as link.runtime.Transmission, but `symbols` is None where it was not asked for."""

    mode: NDArray[np.int64]
    indices: NDArray[np.int64]
    bits: NDArray[np.uint8]
    num_bits: NDArray[np.int64]
    symbols: NDArray[np.float32] | None
    num_symbols: NDArray[np.int64]


class Transmitted(NamedTuple):
    """One pass of a batch over the link.

    Attributes
    ----------
    sent : Sent
    y : (B, S, 2) float32, optional
        Equalised symbols as (I, Q), Es = 1; None where they were not asked for.
    no : (B, S) float32, optional
        Noise variance per complex symbol; inf where nothing was sent or a radio's frame was lost, None where it was not
        asked for.
    decoded : Decoded
    bit_errors : (B,) int64
        Payload bits that a hard decision on the LLRs gets wrong; of no meaning where the header was not right, or a radio's
        frame was lost.
    settings : Settings
        As used.
    timing : Timing
    header : HeaderOutcome or None
        None where the model has one mode.
    truncated : (B,) bool, optional
        Whether each text had more tokens than the model takes, and was cut; None where no texts were given.
    unknown : (B,) bool, optional
        Whether each text has no token that the model knows; None where no texts were given.
    num_pilots : (B,) int64, optional
        Pilot symbols, and whatever else of a radio's frames, sent with each sample's; None where there are none.
    frames : link.channel.frames.FrameCounts, optional
        What became of a radio's frames, those of headers included; None over a simulated channel.
    """

    sent: Sent
    y: NDArray[np.float32] | None
    no: NDArray[np.float32] | None
    decoded: Decoded
    bit_errors: NDArray[np.int64]
    settings: Settings
    timing: Timing
    header: HeaderOutcome | None = None
    truncated: NDArray[np.bool_] | None = None
    unknown: NDArray[np.bool_] | None = None
    num_pilots: NDArray[np.int64] | None = None
    frames: FrameCounts | None = None


class ModelId(NamedTuple):
    """Which model made a reply.

    Attributes
    ----------
    version : int
        As its manifest has it; exports that nobody numbered share one.
    digest : str
        Hash of its manifest, which no two exports share.
    """

    version: int
    digest: str


@dataclass(frozen=True)
class ModelInfo:
    """The model that a server holds, and what the server takes.

    Attributes
    ----------
    manifest : Manifest
    code_version : str
        Version of hardpath that the server runs.
    channels : tuple of str
        RADIO among them where the server has one.
    max_batch : int
        Most samples in one request.
    digest : str
        Hash of the manifest; empty where the server does not say.
    """

    manifest: Manifest
    code_version: str
    channels: tuple[str, ...]
    max_batch: int
    digest: str = ""


class RadioState(NamedTuple):
    """How a radio is, and what it did since the server started.

    Attributes
    ----------
    kind : str
        Of its front end.
    up : bool
        Whether it was there when it was last used or looked at.
    exchanges : int
        Bursts that were sent and received.
    errors : int
        Calls that failed since it was not there, or went away.
    frames, frames_lost, crc_failed : int
        Sent; not found; received, but not whole.
    waiting : int
        Calls that wait for their turn.
    """

    kind: str
    up: bool
    exchanges: int
    errors: int
    frames: int
    frames_lost: int
    crc_failed: int
    waiting: int
