"""The header: which mode each sample was sent in, protected, sent and counted.

Theory of operation. The samples whose numbers share the quotient `number // frame_samples` make a frame, and a frame has one
header. It consists of blocks of k bits, 6 with the code rm-1-5, each coded and repeated as link.reed_muller has it:

    head        base mode, 5 bits (so at most 32 modes); uniform, 1 bit: every sample of the frame is sent in the base mode;
                in ceil(6 / k) blocks, padded with zeros
    modes       only where the frame is not uniform: each sample's mode in ceil(log2(modes)) bits, in the order of the
                sample numbers, k bits a block whatever sample they belong to, the last block padded with zeros

The base mode is the most frequent one, the lowest on ties. How many samples a frame has is known at both ends: it is full
but at the two ends of a transmission. Where a bundle has one mode there is no header.

The header goes through the payload's channel, in front of the payload, as a row of symbols of its own: same SNR, same kind
of fading, but with gains, noise and pilots of its own (stream HEADER, addressed by the frame's number where the payload has
the sample's), so its fades are independent of the payload's. The receiver decodes the head, and the modes where it says
that there are any. The header is

    lost    if a block's metric is below the threshold, a mode is named that the bundle does not have, or the head's padding
            is not zeros: every sample of the frame is erased (y = 0, no = inf) and decoded in the default mode
    wrong   if it is accepted and names another mode than that of a sample: this sample is decoded as it says

and link.header_theory has how often that is.

A sample's first symbol is found without the header, as if each were a packet. Symbols that the decoded mode has and the sent
one has not are received as erased; blocks that were not sent are, too, and so lost. A sample's rate counts its share of the
header: the symbols of its frame's header over the samples of the frame; pilots are counted apart.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bits import group, label_bits, labels_from_bits
from link.channel import Channel
from link.channel.frames import FrameCounts
from link.errors import ArgumentError
from link.manifest import MODES_MAX, HeaderSpec
from link.randomness import Draws, Stream
from link.reed_muller import CODES, decode, encode

HEAD_BITS: Final = 6
"""Base mode, and whether the frame is uniform."""


class Frames(NamedTuple):
    """Which rows of a batch share a header.

    Attributes
    ----------
    frame : (B,) int64
        Each row's frame, counted from 0 in this batch.
    place : (B,) int64
        Its place in the frame, by sample number.
    number, draw : (F,) int64
        Each frame's number, and the repetition it belongs to.
    size : (F,) int64
        Samples of each frame.
    """

    frame: NDArray[np.int64]
    place: NDArray[np.int64]
    number: NDArray[np.int64]
    draw: NDArray[np.int64]
    size: NDArray[np.int64]


class HeaderOutcome(NamedTuple):
    """What became of a batch's headers.

    Attributes
    ----------
    mode : (B,) int64
        What the receiver decodes each sample as; the default mode where the header was lost.
    lost : (B,) bool
        Samples whose header was lost.
    wrong : (B,) bool
        Samples whose header was accepted and names another mode than theirs.
    symbols : (B,) float64
        Each sample's share of its frame's header symbols.
    headers, headers_lost, headers_wrong : int
        Frames; those whose header was lost, and those of which it was wrong for any sample.
    header_symbols : int
        Symbols of all headers.
    pilot_symbols : int
        Pilots that were sent with them, from which their gains are estimated.
    carried_in : FrameCounts or None
        What became of a radio's frames that carried them; None where there are none.
    """

    mode: NDArray[np.int64]
    lost: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    symbols: NDArray[np.float64]
    headers: int
    headers_lost: int
    headers_wrong: int
    header_symbols: int
    pilot_symbols: int = 0
    carried_in: FrameCounts | None = None

    @property
    def right(self) -> NDArray[np.bool_]:
        """Samples that are decoded in the mode they were sent in, because their header says so, (B,)."""
        return ~(self.lost | self.wrong)


def frames_of(draws: Draws, frame_samples: int) -> Frames:
    """The frames that a batch's samples make.

    Raises
    ------
    ArgumentError
        If `frame_samples` is below 1, there is no sample, or one is there twice in one draw: its frame could not hold both.

    Examples
    --------
    >>> frames = frames_of(Draws(seed=0, samples=np.array([5, 2, 3, 4])), 4)
    >>> frames.frame, frames.place, frames.number
    (array([1, 0, 0, 1]), array([1, 0, 1, 0]), array([0, 1]))
    """
    if frame_samples < 1:
        raise ArgumentError("frame_samples", f"must be at least 1, got {frame_samples}")
    if draws.samples.ndim != 1 or not len(draws.samples):
        raise ArgumentError("samples", f"must be a list of at least one number, got shape {draws.samples.shape}")
    repetition = np.asarray(draws.draw)
    order = np.lexsort((draws.samples, repetition))
    samples, repetitions = draws.samples[order], repetition[order]
    numbers = samples // frame_samples
    same_draw = repetitions[1:] == repetitions[:-1]
    if (same_draw & (samples[1:] == samples[:-1])).any():
        raise ArgumentError(
            "samples", "must hold each number once a draw, since samples share a header by their numbers"
        )
    first = np.concatenate([[True], ~same_draw | (numbers[1:] != numbers[:-1])])
    starts = np.flatnonzero(first)
    frame, place = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    frame[order] = np.cumsum(first) - 1
    place[order] = np.arange(len(order)) - starts[frame[order]]
    return Frames(frame, place, numbers[starts], repetitions[starts], np.bincount(frame).astype(np.int64))


def head_blocks(spec: HeaderSpec) -> int:
    """Blocks of the head."""
    return -(-HEAD_BITS // CODES[spec.code].message_bits)


def mode_blocks(size: ArrayLike, width: int, spec: HeaderSpec) -> NDArray[np.int64]:
    """Blocks that name the modes, of `width` bits each, of frames of (...) samples."""
    return np.asarray(-(-np.asarray(size) * width // CODES[spec.code].message_bits))


def write_headers(
    modes: NDArray[np.int64], frames: Frames, spec: HeaderSpec, num_modes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The headers of a batch.

    Parameters
    ----------
    modes : (B,) int64
        In [0, num_modes).
    frames : Frames
    spec : HeaderSpec
    num_modes : int
        2 to 32.

    Returns
    -------
    symbols : (F, H, 2) float32
        QPSK symbols as (I, Q), Es = 1; H is the most that a frame sends, 0 past a frame's own.
    num_symbols : (F,) int64
        Symbols of each header.

    Raises
    ------
    ArgumentError
        If `num_modes` or a mode is out of range, `modes` are not one integer a row, or a frame is longer than `spec` has it.
    """
    width, code = _width(num_modes), CODES[spec.code]
    modes = _checked_modes(modes, frames, num_modes)
    _require_frames(frames, spec)
    counts = np.zeros((len(frames.size), num_modes), np.int64)
    np.add.at(counts, (frames.frame, modes), 1)
    base = np.argmax(counts, axis=-1)
    uniform = counts.max(axis=-1) == frames.size
    grid = np.zeros((len(frames.size), spec.frame_samples), np.int64)
    grid[frames.frame, frames.place] = modes
    head, named = label_bits(base << 1 | uniform, HEAD_BITS), label_bits(grid, width).reshape(len(grid), -1)
    messages = np.concatenate([labels_from_bits(group(bits, code.message_bits)) for bits in (head, named)], axis=1)
    blocks = head_blocks(spec) + np.where(uniform, 0, mode_blocks(frames.size, width, spec))
    symbols = encode(messages[:, : blocks.max()], spec.repeats, code)
    sent = np.arange(symbols.shape[1]) < blocks[:, None]
    symbols = np.where(sent[..., None, None], symbols, np.float32(0.0))
    return symbols.reshape(len(grid), -1, 2), blocks * (code.symbols * spec.repeats)


def read_headers(
    y: NDArray[np.float32], no: NDArray[np.float32], frames: Frames, spec: HeaderSpec, num_modes: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What the receiver makes of the headers of a batch.

    Parameters
    ----------
    y : (F, H, 2) float32
        Equalised symbols as (I, Q), Es = 1.
    no : (F, H) float32
        Noise variance per complex symbol; inf where nothing was sent.
    frames : Frames
        Of which the receiver needs the number of samples in each, and which rows they are.
    spec : HeaderSpec
    num_modes : int

    Returns
    -------
    modes : (B,) int64
        Of no meaning where the header was lost.
    lost : (F,) bool

    Raises
    ------
    ArgumentError
        If `num_modes` is out of range, `y` and `no` are not of these shapes or longer than any header, or a frame is longer
        than `spec` has it.
    """
    width, code, first = _width(num_modes), CODES[spec.code], head_blocks(spec)
    length = code.symbols * spec.repeats
    blocks = first + int(mode_blocks(spec.frame_samples, width, spec))
    _require_frames(frames, spec)
    if np.ndim(y) != 3 or len(y) != len(frames.size) or y.shape[2] != 2 or y.shape[1] > blocks * length:
        wanted = f"({len(frames.size)}, at most {blocks * length}, 2)"
        raise ArgumentError("y", f"must have shape {wanted}, got {np.shape(y)}")
    if np.shape(no) != y.shape[:2]:
        raise ArgumentError("no", f"must have shape {y.shape[:2]}, got {np.shape(no)}")
    unheard = blocks * length - y.shape[1]
    heard = np.pad(y, ((0, 0), (0, unheard), (0, 0))).reshape(len(y), blocks, length, 2)
    variances = np.pad(no, ((0, 0), (0, unheard)), constant_values=np.inf).reshape(len(y), blocks, length)
    messages, metric = decode(heard, variances, spec.repeats, code)
    every = label_bits(messages, code.message_bits)
    head, bits = every[:, :first].reshape(len(y), -1), every[:, first:].reshape(len(y), -1)
    base, uniform = labels_from_bits(head[:, : HEAD_BITS - 1]), head[:, HEAD_BITS - 1].astype(bool)
    grid = labels_from_bits(bits[:, : spec.frame_samples * width].reshape(len(y), spec.frame_samples, width))
    used = np.arange(blocks) < (first + np.where(uniform, 0, mode_blocks(frames.size, width, spec)))[:, None]
    filled = ~uniform[:, None] & (np.arange(spec.frame_samples) < frames.size[:, None])
    silent = ~np.isfinite(variances).any(axis=-1)
    lost = (used & (silent | (metric < spec.threshold))).any(axis=-1)
    lost |= head[:, HEAD_BITS:].any(axis=-1) | (base >= num_modes) | (filled & (grid >= num_modes)).any(axis=-1)
    modes = np.where(uniform[:, None], base[:, None], grid)[frames.frame, frames.place]
    return modes, lost


def carry_headers(
    modes: NDArray[np.int64],
    spec: HeaderSpec,
    num_modes: int,
    default_mode: int,
    channel: Channel,
    snr_db: float,
    draws: Draws,
) -> HeaderOutcome:
    """Send the modes of a batch over a channel, in the headers of its frames.

    Parameters
    ----------
    modes : (B,) int64
        What each sample is sent in.
    spec : HeaderSpec
    num_modes, default_mode : int
        Of the bundle.
    channel : Channel
        The payload's.
    snr_db : float
        Es/N0, dB.
    draws : Draws
        The payload's: one sample number a row, each once a draw.

    Raises
    ------
    ArgumentError
        If a sample is there twice in one draw, or a mode or the number of modes is out of range.
    """
    if not 0 <= default_mode < num_modes:
        raise ArgumentError("default_mode", f"must be in [0, {num_modes}), got {default_mode}")
    frames = frames_of(draws, spec.frame_samples)
    x, num_symbols = write_headers(modes, frames, spec, num_modes)
    received = channel(
        x, num_symbols, snr_db, Draws(draws.seed, frames.number, frames.draw, Stream.HEADER, draws.engine)
    )
    found, frame_lost = read_headers(received.y, received.no, frames, spec, num_modes)
    lost = frame_lost[frames.frame]
    wrong = ~lost & (found != modes)
    return HeaderOutcome(
        mode=np.where(lost, default_mode, found),
        lost=lost,
        wrong=wrong,
        symbols=(num_symbols / frames.size)[frames.frame],
        headers=len(frames.size),
        headers_lost=int(frame_lost.sum()),
        headers_wrong=len(np.unique(frames.frame[wrong])),
        header_symbols=int(num_symbols.sum()),
        pilot_symbols=received.pilot_symbols,
        carried_in=received.frames,
    )


def _width(num_modes: int) -> int:
    """Bits of one sample's mode."""
    if not 2 <= num_modes <= MODES_MAX:
        raise ArgumentError("num_modes", f"must be in [2, {MODES_MAX}], got {num_modes}")
    return (num_modes - 1).bit_length()


def _checked_modes(modes: NDArray[np.int64], frames: Frames, num_modes: int) -> NDArray[np.int64]:
    found = np.asarray(modes)
    if found.dtype.kind not in "iu" or found.shape != frames.frame.shape:
        raise ArgumentError(
            "modes", f"must be {len(frames.frame)} integers, got dtype {found.dtype} and shape {found.shape}"
        )
    if not ((found >= 0) & (found < num_modes)).all():
        raise ArgumentError("modes", f"must be in [0, {num_modes}), got [{found.min()}, {found.max()}]")
    return found.astype(np.int64)


def _require_frames(frames: Frames, spec: HeaderSpec) -> None:
    if frames.size.max() > spec.frame_samples:
        raise ArgumentError("frames", f"must have at most {spec.frame_samples} samples each, got {frames.size.max()}")
