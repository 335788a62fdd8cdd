"""Points of a sweep, as a client has them."""

from __future__ import annotations

from typing import NamedTuple

from serve.pb.hardpath.v1 import link_pb2 as pb


class Rate(NamedTuple):
    """A rate and its confidence interval."""

    value: float
    low: float
    high: float


class SweepPoint(NamedTuple):
    """What one SNR gave, over all samples and draws; as link.results.SweepPoint, of which it has what the server sends.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    samples, draws, correct : int
        Of samples * draws decisions, `correct` are right.
    accuracy, accuracy_noise : Rate
        The same share, with the interval over samples and noise, and over the noise for these samples.
    bit_errors, bits : int
        Payload bits of the receptions whose header was right.
    ber : Rate or None
        None where no bit was judged.
    symbols_per_sample, bits_per_sample : float
        As sent; padding, headers and pilots included.
    mean_abs_llr : float or None
        Nats.
    stopped_by : str
        What ended the point: "target" or "limit".
    """

    snr_db: float
    samples: int
    draws: int
    correct: int
    accuracy: Rate
    accuracy_noise: Rate
    bit_errors: int
    bits: int
    ber: Rate | None
    symbols_per_sample: float
    bits_per_sample: float
    mean_abs_llr: float | None
    stopped_by: str


def point_from_message(reply: pb.SweepResponse) -> SweepPoint:
    """One point of a sweep."""
    point = reply.point
    return SweepPoint(
        snr_db=point.snr_db,
        samples=point.samples,
        draws=point.draws,
        correct=point.correct,
        accuracy=_rate(point.accuracy),
        accuracy_noise=_rate(point.accuracy_noise),
        bit_errors=point.bit_errors,
        bits=point.bits,
        ber=_rate(point.ber) if point.HasField("ber") else None,
        symbols_per_sample=point.symbols_per_sample,
        bits_per_sample=point.bits_per_sample,
        mean_abs_llr=point.mean_abs_llr if point.HasField("mean_abs_llr") else None,
        stopped_by=point.stopped_by,
    )


def _rate(message: pb.Rate) -> Rate:
    return Rate(message.value, message.low, message.high)
