"""The counter-based generator that every draw in hardpath comes from.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a key and a counter
into four 32-bit words without any state. Here

    key      64 bits    the seed
    counter  4 x 32     word | sample | draw | stream (4 bits) and point (28 bits)

so that each number has an address: the third noise symbol of sample 17 in draw 2 at 6 dB is the same number whatever else is
in the batch, in whatever order it is asked for, on whatever machine. A point is its SNR in millidecibels, not its place in
a grid. No global generator is read or set.

The integers are computed in int64 with wrap-around, which NumPy and torch share, so one implementation serves both. Of
normals NumPy's are the reference; every other engine's (link.device) are those of the same uniforms, a few ulp apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.array import Array, namespace
from link.device import HOST_ENGINES, arrays
from link.errors import ArgumentError

SEED_MAX: Final = 2**63 - 1

WORD_MASK: Final = 0xFFFFFFFF
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10
_POINT_BIAS: Final = 2**27
_COUNT_MAX: Final = 2**28
_BLOCK_BITS: Final = 128
_UNIT_53: Final = 2.0**-53


class Stream(IntEnum):
    """What a number is for; each stream is independent of the others."""

    BITS = 0
    NOISE = 1
    FADING = 2
    PILOTS = 3
    HEADER = 4
    TRAINING_NOISE = 5
    TRAINING_SNR = 6
    AUGMENTATION = 7
    SHUFFLE = 8
    INITIALISATION = 9
    RESTART = 10
    SPLIT = 11
    ROUTING = 12
    RARE = 13
    RADIO = 14


def philox4x32(counter: tuple[Array, Array, Array, Array], key: int) -> tuple[Array, Array, Array, Array]:
    """Ten rounds of Philox4x32.

    Parameters
    ----------
    counter : four int64 arrays of one shape
        Each word in [0, 2**32).
    key : int
        64 bits, the low word first.

    Returns
    -------
    four int64 arrays
        Words in [0, 2**32).

    Examples
    --------
    >>> zero = np.zeros(1, dtype=np.int64)
    >>> [hex(int(word[0])) for word in philox4x32((zero, zero, zero, zero), 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & WORD_MASK, (key >> 32) & WORD_MASK
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & WORD_MASK) ^ c1 ^ k0,
            p1 & WORD_MASK,
            ((p0 >> 32) & WORD_MASK) ^ c3 ^ k1,
            p0 & WORD_MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & WORD_MASK, (k1 + WEYL[1]) & WORD_MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Draws:
    """The addresses of one batch's random numbers.

    Parameters
    ----------
    seed : int
        In [0, 2**63).
    samples : (B,) int64
        Each row's own number in [0, 2**32), stable across batches and runs.
    draw : int or (B,) int64
        Which repetition, in [0, 2**32).
    within : Stream, optional
        Stream that all numbers are taken from; the stream asked for then stands in the upper four bits of the word. So a
        channel that asks for noise and fading can carry something beside the payload with randomness of its own.
    engine : str
        What computes the numbers, and where they lie (link.device); the integers are the same in all.

    Raises
    ------
    ArgumentError
        If a number is out of its range, or the engine unknown or not there.
    MissingExtra
        If torch is asked for and not installed.

    Examples
    --------
    >>> together = Draws(seed=7, samples=np.arange(4)).normals(Stream.NOISE, 6000, 3)
    >>> alone = Draws(seed=7, samples=np.array([2])).normals(Stream.NOISE, 6000, 3)
    >>> bool((together[2] == alone[0]).all())
    True
    """

    seed: int
    samples: NDArray[np.int64]
    draw: int | NDArray[np.int64] = 0
    within: Stream | None = None
    engine: str = "numpy"

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= SEED_MAX:
            raise ArgumentError("seed", f"must be in [0, 2**63), got {self.seed}")
        object.__setattr__(self, "samples", _words("sample", self.samples))
        object.__setattr__(self, "draw", np.broadcast_to(_words("draw", self.draw), self.samples.shape))
        arrays(self.engine)

    def rows(self, rows: slice) -> Draws:
        """Those of some samples alone, which are the same numbers."""
        return replace(self, samples=self.samples[rows], draw=np.asarray(self.draw)[rows])

    def words(self, stream: Stream, point: int, count: int, start: int = 0) -> tuple[Array, ...]:
        """Four (B, count) int64 arrays of 32-bit words, blocks from `start` on of each sample; start + count <= 2**28."""
        first, last = self._address(stream, point, count, start)
        xp, device = engine = arrays(self.engine)
        shape = (*self.samples.shape, count)
        counter = (
            xp.broadcast_to(first + xp.arange(count, dtype=xp.int64, device=device), shape),
            xp.broadcast_to(engine.put(self.samples)[..., None], shape),
            xp.broadcast_to(engine.put(np.asarray(self.draw))[..., None], shape),
            xp.full(shape, last, dtype=xp.int64, device=device),
        )
        return philox4x32(counter, self.seed)

    def normals(self, stream: Stream, point: int, count: int, start: int = 0) -> Array:
        """(B, count, 2) standard normals by Box and Muller (1958), one block a pair; their tails reach 8.57 sigma."""
        if self.engine == "numba":
            from link.box_muller import normals

            first, last = self._address(stream, point, count, start)
            samples, draw = self.samples.ravel(), np.ravel(self.draw)
            return normals(self.seed, samples, draw, first, last, count).reshape(*self.samples.shape, count, 2)
        w0, w1, w2, w3 = self.words(stream, point, count, start)
        xp = namespace(w0)
        radius = xp.sqrt(-2.0 * xp.log(1.0 - _uniform(w0, w1)))
        angle = (2.0 * np.pi) * _uniform(w2, w3)
        return xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=-1)

    def uniforms(self, stream: Stream, point: int, count: int, start: int = 0) -> Array:
        """(B, count) uniforms in [0, 1) of 53 bits, one block each, from block `start` on."""
        w0, w1, _, _ = self.words(stream, point, count, start)
        return _uniform(w0, w1)

    def bits(self, stream: Stream, point: int, count: int) -> Array:
        """(B, count) fair bits, uint8."""
        xp, device = arrays(self.engine)
        length = -(-count // _BLOCK_BITS)
        blocks = xp.stack(self.words(stream, point, length), axis=-1)
        shape = (*self.samples.shape, length * _BLOCK_BITS)
        if self.engine in HOST_ENGINES:
            return np.unpackbits(blocks.astype(">u4").view(np.uint8), axis=-1).reshape(shape)[..., :count]
        shifts = xp.arange(31, -1, -1, dtype=xp.int64, device=device)
        return xp.astype(xp.reshape((blocks[..., None] >> shifts) & 1, shape)[..., :count], xp.uint8)

    def _address(self, stream: Stream, point: int, count: int, start: int) -> tuple[int, int]:
        """First word of the counter at its start, and the fourth."""
        if not (start >= 0 and 0 <= count <= _COUNT_MAX - start):
            raise ArgumentError("count", f"must be in [0, 2**28], behind the first {start}, got {count}")
        if self.within is None:
            return start, last_word(stream, point)
        return (stream << 28) + start, last_word(self.within, point)


def last_word(stream: int, point: int) -> int:
    """Fourth word of the counter: the stream in the upper 4 bits, the point, at most 2**27 from 0, in the others.

    Raises
    ------
    ArgumentError
        If `point` is out of range.
    """
    if not -_POINT_BIAS <= point < _POINT_BIAS:
        raise ArgumentError("point", f"must be in [-2**27, 2**27), got {point}")
    return (stream << 28) | (point + _POINT_BIAS)


def permutation(seed: int, length: int, draw: int = 0) -> NDArray[np.int64]:
    """A random order of `length` rows, the same for a given seed and draw."""
    keys = Draws(seed, np.arange(length), draw).uniforms(Stream.SHUFFLE, 0, 1)[:, 0]
    return np.argsort(keys, kind="stable")


def _uniform(high: Array, low: Array) -> Array:
    xp = namespace(high)
    return xp.astype((high << 21) | (low >> 11), xp.float64) * _UNIT_53


def _words(field: str, values: ArrayLike) -> NDArray[np.int64]:
    words = np.asarray(values, dtype=np.int64)
    if words.size and not (words.min() >= 0 and words.max() <= WORD_MASK):
        raise ArgumentError(field, f"must be in [0, 2**32), got [{words.min()}, {words.max()}]")
    return words
