"""What a semantic sweep found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from link.grid import SweepSpec
from link.montecarlo import Proportion
from link.simulator import Ending


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RadioPoint(_Frozen):
    """What became of the frames that a radio sent; fields as in link.channel.frames.FrameCounts.

    Attributes
    ----------
    frames, frames_lost, crc_failed : int
        Sent; not found; received, but not whole.
    gaps, clipped : int
    measured_snr_db : float or None
        Es/N0 behind the equaliser, by the receiver's own estimate, dB.
    evm : float or None
    papr_db : float or None
        Largest of a burst.
    """

    frames: int
    frames_lost: int
    crc_failed: int
    gaps: int
    clipped: int
    measured_snr_db: float | None
    evm: float | None
    papr_db: float | None


class TextPoint(_Frozen):
    """How close answered texts are to those that were meant, over all receptions; see link.text_quality.

    Attributes
    ----------
    bleu_1, bleu_2, bleu_3, bleu_4 : Proportion
        Corpus BLEU up to that order, cumulative, in [0, 1]; the interval is a bootstrap over samples.
    exact : int
        Texts answered to the letter.
    words : int
        Of the texts that were meant, between white space.
    symbols_per_word : float
        As sent, padding, headers and pilots included.
    """

    bleu_1: Proportion
    bleu_2: Proportion
    bleu_3: Proportion
    bleu_4: Proportion
    exact: int
    words: int
    symbols_per_word: float


class SweepPoint(_Frozen):
    """What one SNR gave. Counts are over all receptions: each of the samples in each draw.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    samples, draws, decisions : int
        decisions = samples * draws where a sample has one answer; of texts, the pieces that were meant, in each draw.
    correct : int
    accuracy : Proportion
        Interval over samples and noise: the independent unit is the sample.
    accuracy_noise : Proportion
        The same value, with the interval over the noise for these samples: Wilson's, or the stage-wise one of link.stopping
        where draws went on until a target was met. Of texts the independent unit is a reception, and what sets samples apart
        is part of the interval, which is wider than it need be.
    bit_errors, bits : int
        Payload bits of the receptions whose header was right (all, where there is none); padding is not judged. A bit is
        decided by the sign of its LLR.
    ber : Proportion or None
        Interval over noise; the independent unit is a reception, since its bits may share a fade. None where no header was
        right.
    index_errors, indices : int
        Codewords, of the same receptions: the receiver's most likely one against the one sent.
    index_error_rate : Proportion or None
        As for `ber`.
    symbols : int
        Complex symbols sent, headers and pilots included.
    symbols_per_sample, bits_per_sample : float
        As sent, padding, headers and pilots included; pilots carry no bits.
    es_db : float
        Mean energy of the payload symbols sent, dB. Es/N0 refers to the constellation's mean, 0 dB: what is above 0 is power
        that snr_db does not count.
    mean_abs_llr : float or None
        Mean |LLR| of the payload bits that are judged, nats, after the receiver's clipping.
    ber_theory : float or None
        BER of the constellation for equally likely bits, with gains known or estimated as here; None where none is known,
        or samples were sent in several modes. A reference and no target: a codebook does not use its labels equally often,
        and a bit's error rate depends on the amplitude it is sent with.
    stopped_by : Ending
        Why there are no more draws.
    mode_samples : tuple of int
        Receptions sent in each mode.
    headers, headers_lost, headers_wrong : int
        Frames' headers sent; those that were lost; those that named another mode for any of their samples. 0 where there is
        one mode.
    header_symbols : int
        Symbols of all headers; counted in `symbols`.
    pilot_symbols : int
        Pilots of payload and headers; counted in `symbols`. Over a radio all symbols of its frames that are not payload.
    radio : RadioPoint or None
        None where there was no radio.
    text : TextPoint or None
        None where no texts are answered.
    """

    snr_db: float
    samples: int
    draws: int
    decisions: int
    correct: int
    accuracy: Proportion
    accuracy_noise: Proportion
    bit_errors: int
    bits: int
    ber: Proportion | None
    index_errors: int
    indices: int
    index_error_rate: Proportion | None
    symbols: int
    symbols_per_sample: float
    bits_per_sample: float
    es_db: float
    mean_abs_llr: float | None
    ber_theory: float | None
    stopped_by: Ending
    mode_samples: tuple[int, ...]
    headers: int
    headers_lost: int
    headers_wrong: int
    header_symbols: int
    pilot_symbols: int
    radio: RadioPoint | None = None
    text: TextPoint | None = None

    @property
    def receptions(self) -> int:
        """Times that a sample was sent."""
        return self.samples * self.draws

    @property
    def mode_shares(self) -> tuple[float, ...]:
        """Share of the receptions that were sent in each mode."""
        return tuple(count / self.receptions for count in self.mode_samples)


class SweepProvenance(_Frozen):
    """What made the figures; with the spec, enough to make them again.

    Attributes
    ----------
    hardpath : str
        Version.
    bundle : str
        Name and version of the bundle.
    transmitter_sha256, receiver_sha256, data_sha256 : str
        Of the two graphs, and of inputs and labels as they were read.
    libraries : dict of str to str
    generator, device : str
        Which normals were drawn, and where the graphs ran.
    """

    hardpath: str
    bundle: str
    transmitter_sha256: str
    receiver_sha256: str
    data_sha256: str
    libraries: dict[str, str]
    generator: str
    device: str


class SweepResult(_Frozen):
    """What a sweep found: what results.json holds, and what the command prints with --json.

    Points are in the order of the grid; one that was not simulated is absent.
    """

    points: tuple[SweepPoint, ...]
    provenance: SweepProvenance
    spec: SweepSpec
