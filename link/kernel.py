"""The fused Monte-Carlo kernel: bits, mapper, channel, decision and count, tile by tile in the cache.

The one second writing of stages that link.randomness, link.constellation and link.channel hold, compiled by numba, and held
to the first writing by test:

    payload      the same bits
    normals      a few ulp from NumPy's (link.box_muller)
    symbols, y   the same operations, in the same order and precision
    decisions    those of the signs of the max-log LLRs of the same y (`_decide`)

So its counts are those of the array path, unless a received amplitude falls within a rounding of a threshold: once in some
10^8 symbols.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.box_muller import pairs_at, philox_block
from link.channel.csi import num_blocks
from link.channel.fading import Fading, fading_blocks
from link.compiled import compiled, count_ones, inlined
from link.constellation import bits_per_symbol, split_unit_amplitude, unit_amplitude
from link.randomness import Stream, last_word
from link.snr import millidecibels, no_from_esn0_db

TILE_SYMBOLS: Final = 1024
"""Symbols that pass all stages before the next do; a multiple of 64, so that a tile's bits begin with a block of words."""

CALL_SYMBOLS: Final = 2**24
"""Symbols, about, counted in one compiled call: sums stay below 2**63, and Ctrl-C is heard."""

_ROOT_2: Final = math.sqrt(2.0)


class _Qam(NamedTuple):
    """A constellation; in float32 what the array path has in float32.

    Attributes
    ----------
    width : int
        Bits a symbol.
    ones : int
        As many bits, all 1.
    side, least : float32
        Half the number of amplitudes, and the least of them in units of d.
    d, scale : float32
        Unit amplitude, and 0.5 / d.
    high, low : float32
        d in two parts (link.constellation.split_unit_amplitude).
    """

    width: int
    ones: int
    side: Any
    least: Any
    d: Any
    scale: Any
    high: Any
    low: Any


class _Air(NamedTuple):
    """A channel at one SNR.

    Attributes
    ----------
    frame_symbols : int
    blocks : int
        Gains a frame; 0 over AWGN.
    mean, spread : float
        Of the gains: their mean, and the root of their variance.
    deviation : float
        Of the noise, a dimension.
    bits, noise, fading : int
        Last word of the counters of each stream.
    """

    frame_symbols: int
    blocks: int
    mean: float
    spread: float
    deviation: float
    bits: int
    noise: int
    fading: int


class _Tile(NamedTuple):
    """Where everything stands in a tile of `rows` frames, or of a part of one frame.

    Attributes
    ----------
    rows, words : int
        Frames, and blocks of payload words of each.
    symbol, row : (rows * symbols,) int64
        Each symbol's number in its frame, or in the part of it, and its row.
    place, shift : (rows * symbols,) int64
        Where each symbol's bits begin: at which word, and how many bits are behind them in this word and its successor.
    word, word_row : (rows * words,) int64
        Each payload block's number in its frame, and its row.
    gain, gain_row : (rows * blocks,) int64
        Each gain's number in its frame, and its row.
    block : (frame_symbols,) int64
        Fading block of each symbol of a frame.
    """

    rows: int
    words: int
    symbol: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    shift: NDArray[np.int64]
    word: NDArray[np.int64]
    word_row: NDArray[np.int64]
    gain: NDArray[np.int64]
    gain_row: NDArray[np.int64]
    block: NDArray[np.int64]


@inlined
def _payload(
    seed: int,
    words: NDArray[Any],
    rows: NDArray[Any],
    first: int,
    sample: int,
    last: int,
    payload: NDArray[Any],
    count: int,
) -> None:
    """The 32-bit words of payload bits, four a block, each with its successor behind it."""
    for i in range(count):
        w0, w1, w2, w3 = philox_block(first + words[i], sample + rows[i], 0, last, seed)
        payload[4 * i], payload[4 * i + 1], payload[4 * i + 2], payload[4 * i + 3] = w0, w1, w2, w3
    payload[4 * count] = 0
    for i in range(4 * count):
        payload[i] = (payload[i] << 32) | payload[i + 1]


@inlined
def _every_other(bits: int) -> int:
    """Bits 0, 2, ..., 10, moved together."""
    bits = bits & 0x555
    bits = (bits | (bits >> 1)) & 0x333
    bits = (bits | (bits >> 2)) & 0x30F
    return (bits | (bits >> 4)) & 0x3F


@inlined
def _labels(
    payload: NDArray[Any],
    places: NDArray[Any],
    shifts: NDArray[Any],
    ones: int,
    bits: NDArray[Any],
    labels: tuple[NDArray[Any], NDArray[Any]],
    count: int,
) -> None:
    """Labels of the two amplitudes of each symbol, every bit inverted: then the place of an amplitude has its Gray code."""
    for i in range(count):
        bits[i] = payload[places[i]] >> shifts[i]
    for i in range(count):
        inverted = (bits[i] ^ ones) & ones
        labels[0][i] = np.int32(_every_other(inverted >> 1))
        labels[1][i] = np.int32(_every_other(inverted))


@inlined
def _amplitude(label: Any, qam: _Qam) -> Any:
    """The amplitude that link.constellation.map_bits gives a label; places are counted from the least one."""
    place = label ^ (label >> 1)
    place = place ^ (place >> 2)
    place = np.int32(place ^ (place >> 4))
    return (np.float32(np.int32(2 * place)) + qam.least) * qam.d


@inlined
def _add_noise(
    labels: NDArray[Any], qam: _Qam, noise: NDArray[Any], deviation: float, y: NDArray[Any], count: int
) -> None:
    """One dimension of link.channel.Awgn."""
    for i in range(count):
        y[i] = np.float32(_amplitude(labels[i], qam) + noise[i] * deviation)


@inlined
def _fade(
    labels: tuple[NDArray[Any], NDArray[Any]],
    qam: _Qam,
    gains: tuple[NDArray[Any], NDArray[Any]],
    noise: tuple[NDArray[Any], NDArray[Any]],
    deviation: float,
    y: tuple[NDArray[Any], NDArray[Any]],
    count: int,
) -> None:
    """link.channel.Fading with known gains: y = h* (h x + w) / |h|^2."""
    for i in range(count):
        a, b = gains[0][i], gains[1][i]
        x0, x1 = np.float64(_amplitude(labels[0][i], qam)), np.float64(_amplitude(labels[1][i], qam))
        heard0 = (a * x0 - b * x1) + noise[0][i] * deviation
        heard1 = (a * x1 + b * x0) + noise[1][i] * deviation
        power = a * a + b * b
        y[0][i] = np.float32((a * heard0 + b * heard1) / power)
        y[1][i] = np.float32((a * heard1 - b * heard0) / power)


@inlined
def _decide(y: NDArray[Any], labels: NDArray[Any], qam: _Qam, wrong: NDArray[Any], count: int) -> None:
    """Count the bits of one dimension that the signs of their max-log LLRs get wrong, without the magnitudes.

    With max_log_llr's words: a bit's magnitude is slope * steps * (steps + outward), where slope > 0, steps is an integer of
    at least 1 and outward is +r or -r. As long as |r| < 1 all magnitudes are positive, whatever the noise variance, and the
    signs spell the label of the nearest amplitude c. |r| is more by a rounding where c was found on the wrong side of a
    threshold, and by any amount where there is no further amplitude. In the first case the one bit that the threshold
    divides has steps = 1 and outward = -|r| and so the opposite sign: the label is that of the neighbour. At |r| = 1 its LLR
    is 0, which is decided as 0. Here r d is compared with d instead of r with 1: a quotient of float32 numbers rounds to 1
    only where they are equal, since two that differ do so by more than 2^-24 of either.
    """
    one, zero = np.float32(1.0), np.float32(0.0)
    for i in range(count):
        nearest = min(max(np.floor(y[i] * qam.scale), -qam.side), qam.side - one)
        amplitude = nearest + nearest + one
        residual = (y[i] - amplitude * qam.high) - amplitude * qam.low
        step = one if residual >= qam.d else (-one if residual <= -qam.d else zero)
        beyond = min(max(nearest + step, -qam.side), qam.side - one)
        here, there = np.int32(nearest + qam.side), np.int32(beyond + qam.side)
        here, there = np.int32(here ^ (here >> 1)), np.int32(there ^ (there >> 1))
        label = there if abs(residual) > qam.d else np.int32(here | there)
        wrong[i] += count_ones(np.int32(label ^ labels[i]))


@compiled
def _count(
    seed: int, first_frame: int, frames: int, qam: _Qam, air: _Air, tile: _Tile
) -> tuple[int, int, int, int, int]:
    """Counts of frames, in the order of link.modem.ErrorCounts."""
    symbols, blocks = len(tile.symbol), len(tile.gain)
    rows_max, length_max = tile.rows, symbols // tile.rows
    payload = np.empty(4 * len(tile.word) + 1, dtype=np.int64)
    bits = np.empty(symbols, dtype=np.int32)
    labels = np.empty(symbols, dtype=np.int32), np.empty(symbols, dtype=np.int32)
    noise = np.empty(symbols), np.empty(symbols)
    gains = np.empty(blocks), np.empty(blocks)
    faded = np.empty(symbols), np.empty(symbols)
    y = np.empty(symbols, dtype=np.float32), np.empty(symbols, dtype=np.float32)
    wrong = np.empty(symbols, dtype=np.int32)
    of_row = np.empty(rows_max, dtype=np.int64)
    bit_errors = symbol_errors = symbol_squares = frame_errors = frame_squares = 0
    for frame in range(first_frame, first_frame + frames, rows_max):
        rows = min(rows_max, first_frame + frames - frame)
        if air.blocks:
            pairs_at(seed, tile.gain, tile.gain_row, 0, frame, air.fading, gains, rows * air.blocks)
            for i in range(rows * air.blocks):
                gains[0][i] = air.spread * (gains[0][i] / _ROOT_2) + air.mean
                gains[1][i] = air.spread * (gains[1][i] / _ROOT_2)
        of_row[:rows] = 0
        for start in range(0, air.frame_symbols, length_max):
            length = min(length_max, air.frame_symbols - start)
            count = rows * length
            _payload(
                seed, tile.word, tile.word_row, (start * qam.width) >> 7, frame, air.bits, payload, rows * tile.words
            )
            _labels(payload, tile.place, tile.shift, qam.ones, bits, labels, count)
            pairs_at(seed, tile.symbol, tile.row, start, frame, air.noise, noise, count)
            if air.blocks:
                for i in range(count):
                    gain = tile.row[i] * air.blocks + tile.block[start + tile.symbol[i]]
                    faded[0][i], faded[1][i] = gains[0][gain], gains[1][gain]
                _fade(labels, qam, faded, noise, air.deviation, y, count)
            else:
                _add_noise(labels[0], qam, noise[0], air.deviation, y[0], count)
                _add_noise(labels[1], qam, noise[1], air.deviation, y[1], count)
            wrong[:count] = 0
            _decide(y[0], labels[0], qam, wrong, count)
            _decide(y[1], labels[1], qam, wrong, count)
            for i in range(count):
                symbol_errors += wrong[i] > 0
                symbol_squares += wrong[i] * wrong[i]
            for row in range(rows):
                for i in range(row * length, (row + 1) * length):
                    of_row[row] += wrong[i]
        for row in range(rows):
            bit_errors += of_row[row]
            frame_errors += of_row[row] > 0
            frame_squares += of_row[row] * of_row[row]
    return bit_errors, symbol_errors, symbol_squares, frame_errors, frame_squares


def count_errors(
    order: int,
    snr_db: float,
    frame_symbols: int,
    first_frame: int,
    frames: int,
    seed: int,
    fading: Fading | None = None,
) -> tuple[int, ...]:
    """Send frames of payload bits through AWGN or fading with known gains, and count what max-log decides wrong.

    Parameters
    ----------
    order : int
        QAM order.
    snr_db : float
        Es/N0 in dB.
    frame_symbols : int
        Symbols a frame, at least 1.
    first_frame, frames : int
        Frames by number, each a sample of the random generator.
    seed : int
        In [0, 2**63).
    fading : Fading, optional
        With perfect channel state information; AWGN where absent.

    Returns
    -------
    five int
        Bit errors, symbol errors, squares of the bit errors of a symbol, frame errors, and squares of the bit errors of a
        frame, each summed.

    Examples
    --------
    >>> count_errors(16, 12.0, frame_symbols=64, first_frame=0, frames=100, seed=0)
    (700, 679, 742, 100, 5430)
    """
    qam, air = _qam(order), _air(snr_db, frame_symbols, fading)
    tile = _tile(frame_symbols, qam.width, air.blocks, fading)
    step = max(1, CALL_SYMBOLS // frame_symbols)
    totals = [0, 0, 0, 0, 0]
    for frame in range(first_frame, first_frame + frames, step):
        counts = _count(seed, frame, min(step, first_frame + frames - frame), qam, air, tile)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return tuple(totals)


def _qam(order: int) -> _Qam:
    d, side = unit_amplitude(order), math.isqrt(order)
    high, low = split_unit_amplitude(d)
    return _Qam(
        width=bits_per_symbol(order),
        ones=order - 1,
        side=np.float32(side // 2),
        least=np.float32(1 - side),
        d=np.float32(d),
        scale=np.float32(0.5 / d),
        high=np.float32(high),
        low=np.float32(low),
    )


def _air(snr_db: float, frame_symbols: int, fading: Fading | None) -> _Air:
    mean, variance = (0.0, 0.0) if fading is None else fading.moments
    point = millidecibels(snr_db)
    return _Air(
        frame_symbols=frame_symbols,
        blocks=0 if fading is None else int(num_blocks(np.array(frame_symbols), fading.block_symbols)),
        mean=mean,
        spread=math.sqrt(variance),
        deviation=(no_from_esn0_db(snr_db) * 0.5) ** 0.5,
        bits=last_word(Stream.BITS, point),
        noise=last_word(Stream.NOISE, point),
        fading=last_word(Stream.FADING, point),
    )


def _tile(frame_symbols: int, width: int, blocks: int, fading: Fading | None) -> _Tile:
    """As many whole frames as fit, or part of one."""
    length = min(frame_symbols, TILE_SYMBOLS)
    rows = TILE_SYMBOLS // length
    words = -(-length * width // 128)
    row, symbol = np.divmod(np.arange(rows * length), length)
    word_row, word = np.divmod(np.arange(rows * words), words)
    gain_row, gain = np.divmod(np.arange(rows * blocks), max(blocks, 1))
    block = np.zeros(0, dtype=np.int64)
    if fading is not None:
        block = fading_blocks(np.array([frame_symbols]), frame_symbols, fading.block_symbols)[0]
    return _Tile(
        rows=rows,
        words=words,
        symbol=symbol,
        row=row,
        place=row * 4 * words + (symbol * width >> 5),
        shift=64 - width - (symbol * width & 31),
        word=word,
        word_row=word_row,
        gain=gain,
        gain_row=gain_row,
        block=block,
    )
