"""What a semantic link has to beat: decide at the transmitter, send the decision.

    decision ──> ceil(log2 K) bits ──scheme──> QPSK ──> channel ──> LLRs ──scheme──> class
                 class number, MSB first       same symbols, same channel,
                                               same noise as the semantic link

A scheme spends exactly the semantic link's symbols, and the channel is the very object (noise, and pilots where gains are
estimated, addressed by the same seed, sample, draw and SNR), so the curves differ in what was sent and in nothing else. The
transmitter must run the whole model, and the receiver learns the class and nothing more: that is what a baseline gives up.

    link.repetition   each sample alone, its bits sent in turn as often as they fit
    link.separate     many samples together in one frame of a channel code
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from link.bits import group, ungroup
from link.channel import Channel
from link.constellation import bits_per_symbol, map_bits, max_log_llr
from link.device import host_engine
from link.errors import ArgumentError
from link.grid import SweepSpec
from link.montecarlo import Proportion, clustered_proportion, effective_trials, wilson
from link.randomness import Draws
from link.sweep import accuracies
from link.truth import check_classes

ORDER: Final = 4
"""QPSK: of all square QAM the one whose bits share no power, and whose max-log LLRs are exact."""

_CHUNK_ROWS: Final = 4096


class Scheme(Protocol):
    """How class numbers become bits for QPSK, and LLRs class numbers.

    Attributes
    ----------
    num_symbols : int
        QPSK symbols a sample.
    """

    num_symbols: int

    def encode(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Class numbers of frames, (F, g), to the bits of each sample, (F, g, 2 num_symbols)."""
        ...

    def decode(self, llr: NDArray[np.float64]) -> NDArray[np.int64]:
        """LLRs, (F, g, 2 num_symbols), to class numbers, (F, g)."""
        ...


class BaselinePoint(BaseModel):
    """What one SNR gave; fields as in link.results.SweepPoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    snr_db: float
    samples: int
    draws: int
    decisions: int
    correct: int
    accuracy: Proportion
    accuracy_noise: Proportion
    symbols: int
    symbols_per_sample: float
    bits_per_sample: float


def label_width(num_classes: int) -> int:
    """Bits of a class number.

    Raises
    ------
    ArgumentError
        If there are fewer than two classes.

    Examples
    --------
    >>> label_width(10)
    4
    """
    if num_classes < 2:
        raise ArgumentError("num_classes", f"must be at least 2, got {num_classes}")
    return (num_classes - 1).bit_length()


def send_labels(
    labels: NDArray[np.int64], scheme: Scheme, channel: Channel, snr_db: float, draws: Draws
) -> tuple[NDArray[np.int64], int]:
    """Carry frames of class numbers over a channel.

    Parameters
    ----------
    labels : (F, g) int64
        Class numbers, a frame a row.
    scheme : Scheme
    channel : Channel
    snr_db : float
        Es/N0, dB.
    draws : Draws
        F g sample numbers, frame by frame.

    Returns
    -------
    (F, g) int64, int
        What the receiver answers, and how many pilots were sent.
    """
    length = scheme.num_symbols * bits_per_symbol(ORDER)
    bits = scheme.encode(labels).reshape(labels.size, length)
    x = map_bits(group(bits.astype(np.float32), bits_per_symbol(ORDER)))
    received = channel(x, np.full(labels.size, scheme.num_symbols, dtype=np.int64), snr_db, draws)
    llr = ungroup(max_log_llr(received.y.astype(np.float64), received.no.astype(np.float64), ORDER), length)
    return scheme.decode(llr.reshape(*labels.shape, length)), received.pilot_symbols


def sweep_baseline(
    scheme: Scheme,
    decisions: ArrayLike,
    labels: ArrayLike,
    spec: SweepSpec,
    *,
    num_classes: int,
    frame_samples: int = 1,
) -> tuple[BaselinePoint, ...]:
    """A baseline at each point of a sweep, to lay beside it.

    Parameters
    ----------
    scheme : Scheme
        Give it the semantic link's symbols a sample.
    decisions : (n,) int
        What the model decides at the transmitter, in [0, num_classes).
    labels : (n,) int
        The right classes; rows as in the sweep, since a row is a sample's number.
    spec : SweepSpec
        The sweep's own.
    num_classes : int
        At least 2.
    frame_samples : int
        Fewest samples of a frame. Each draw's samples are divided, in order, into as many frames as that allows, whose sizes
        differ by one at most; fewer samples than that are one frame.

    Returns
    -------
    tuple of BaselinePoint
        In the order of the grid. Intervals take samples of a frame for lost together.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """
    label_width(num_classes)
    decided = check_classes("decisions", decisions, None, num_classes)
    truth = check_classes("labels", labels, len(decided), num_classes)
    channel = spec.build_channel()
    alike = frames_of(len(truth), frame_samples)
    points = []
    for snr_db in spec.snr_db:
        correct = np.empty((spec.draws, len(truth)), np.bool_)
        pilots = 0
        for draw, rows in _receptions(alike, spec.draws):
            draws = Draws(spec.seed, rows.ravel(), np.repeat(draw, rows.shape[1]), engine=host_engine())
            answers, more = send_labels(decided[rows], scheme, channel, snr_db, draws)
            correct[draw[:, None], rows] = answers == truth[rows]
            pilots += more
        accuracy, accuracy_noise = _accuracies(correct, alike, spec)
        symbols = scheme.num_symbols * correct.size + pilots
        points.append(
            BaselinePoint(
                snr_db=snr_db,
                samples=len(truth),
                draws=spec.draws,
                decisions=correct.size,
                correct=int(correct.sum()),
                accuracy=accuracy,
                accuracy_noise=accuracy_noise,
                symbols=symbols,
                symbols_per_sample=symbols / correct.size,
                bits_per_sample=float(scheme.num_symbols * bits_per_symbol(ORDER)),
            )
        )
    return tuple(points)


def frames_of(samples: int, frame_samples: int) -> tuple[NDArray[np.int64], ...]:
    """Samples in order, as many frames as have `frame_samples` each: those of one size together, (F, g).

    Raises
    ------
    ArgumentError
        If `frame_samples` is less than 1.

    Examples
    --------
    >>> [frames.tolist() for frames in frames_of(7, 2)]
    [[[0, 1, 2]], [[3, 4], [5, 6]]]
    """
    if frame_samples < 1:
        raise ArgumentError("frame_samples", f"must be at least 1, got {frame_samples}")
    size, longer = divmod(samples, max(samples // frame_samples, 1))
    border = longer * (size + 1)
    numbers = np.arange(samples, dtype=np.int64)
    alike = numbers[:border].reshape(-1, size + 1), numbers[border:].reshape(-1, max(size, 1))
    return tuple(frames for frames in alike if len(frames))


def _receptions(
    alike: tuple[NDArray[np.int64], ...], draws: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All frames of a point, some thousand samples at a time: their draws, (F,), and their rows, (F, g)."""
    for frames in alike:
        step = max(_CHUNK_ROWS // frames.shape[1], 1)
        for start in range(0, draws * len(frames), step):
            draw, frame = np.divmod(np.arange(start, min(start + step, draws * len(frames))), len(frames))
            yield draw, frames[frame]


def _accuracies(
    correct: NDArray[np.bool_], alike: tuple[NDArray[np.int64], ...], spec: SweepSpec
) -> tuple[Proportion, Proportion]:
    """Accuracy over samples and noise, and over noise alone, from (draws, samples) decisions.

    Samples of a frame are lost together, so given the samples the independent unit is a frame in a draw. Over samples, the
    variance between them and the variance between frames are added, although either has a part of the other: conservative.
    """
    if all(frames.shape[1] == 1 for frames in alike):
        return accuracies(correct, spec)
    starts = np.concatenate([frames[:, 0] for frames in alike])
    of_frame = np.add.reduceat(correct.astype(np.int64), starts, axis=1)
    sizes = np.broadcast_to(np.diff(starts, append=correct.shape[1]), of_frame.shape)
    noise = clustered_proportion(of_frame.ravel(), sizes.ravel(), spec.confidence)
    frame_trials = effective_trials(of_frame.ravel(), sizes.ravel(), spec.confidence)
    of_sample = correct.sum(axis=0)
    sample_trials = effective_trials(of_sample, np.full(len(of_sample), spec.draws), spec.confidence)
    size = 1.0 / (1.0 / frame_trials + 1.0 / sample_trials)
    return wilson(noise.value, size, spec.confidence), noise
