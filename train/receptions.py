"""What receivers are compared on: receptions of every kind, and those whose answer the manifest tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.bits import label_bits
from link.channel.awgn import add_noise
from link.codebook import posterior_logits
from link.manifest import Manifest
from link.randomness import Draws, Stream
from link.runtime import Transmission
from link.snr import NO_MIN, millidecibels, no_from_esn0_db

# Not a draw of the statistical comparison, which counts from 0.
_DRAW: Final = 2**32 - 1


_SATURATED_ROWS: Final = 4096


class Case(NamedTuple):
    """One batch of receptions.

    Attributes
    ----------
    name : str
    y : (n, S, 2) float32
    no : (n, S) float32
    llr_in : (n, L) float32 or None
    mode : (n,) int64 or None
        Of each row; None where there is one.
    side : mapping of name to (n, ...) array
        What the receiver has of its own, in the order of its inputs; empty where it has nothing.
    """

    name: str
    y: NDArray[np.float32]
    no: NDArray[np.float32]
    llr_in: NDArray[np.float32] | None = None
    mode: NDArray[np.int64] | None = None
    side: Mapping[str, NDArray[Any]] = MappingProxyType({})


def channel_cases(symbols: NDArray[np.float32], num_bits: int, snr_db: float, seed: int) -> Iterator[Case]:
    """What a receiver may meet at one SNR."""
    rows, length = symbols.shape[:2]
    draws = Draws(seed, np.arange(rows), _DRAW)
    point = millidecibels(snr_db)
    y = add_noise(symbols, no_from_esn0_db(snr_db), draws.normals(Stream.NOISE, point, length)).astype(np.float32)
    no = np.full((rows, length), max(no_from_esn0_db(snr_db), NO_MIN), dtype=np.float32)
    at = f"at {snr_db:g} dB"
    yield Case(f"as received {at}", y, no)
    # Every third symbol, another third in each sample.
    erased = (np.arange(length) + np.arange(rows)[:, None]) % 3 == 0
    yield Case(
        f"with erasures {at}",
        np.where(erased[..., None], np.float32(0), y),
        np.where(erased, np.float32(np.inf), no),
    )
    uneven = np.exp2(4.0 * draws.uniforms(Stream.FADING, point, length) - 2.0)
    for what, factor in (("a quarter of no", 0.25), ("four times no", 4.0), ("uneven no", uneven)):
        yield Case(f"told {what} {at}", y, np.maximum(no * factor, NO_MIN).astype(np.float32))
    given = 4.0 * draws.normals(Stream.BITS, point, -(-num_bits // 2)).reshape(rows, -1)[:, :num_bits]
    yield Case(f"with llr_in {at}", y, no, given.astype(np.float32))


class Known(NamedTuple):
    """A case whose answer the manifest tells: codewords (n, N), and LLRs (n, L) where they are known too."""

    case: Case
    indices_hat: NDArray[np.int64]
    llr: NDArray[np.float32] | None


def saturated_cases(manifest: Manifest) -> Iterator[Known]:
    """Each codeword in each token, spelt by LLRs at the clip and far beyond it; neighbouring tokens differ."""
    for number, mode in enumerate(manifest.modes):
        table = label_bits(mode.labels, mode.index_bits)
        rows = np.arange(min(mode.codewords, _SATURATED_ROWS))
        codewords = (rows[:, None] + np.arange(mode.tokens)) % mode.codewords
        signs = 2.0 * table[codewords].reshape(len(rows), mode.num_bits) - 1.0
        nothing = np.zeros((len(rows), manifest.num_symbols, 2), dtype=np.float32)
        erased = np.full((len(rows), manifest.num_symbols), np.inf, dtype=np.float32)
        llr = np.zeros((len(rows), manifest.num_bits), dtype=np.float32)
        llr[:, : mode.num_bits] = manifest.llr.clip * signs
        several = len(manifest.modes) > 1
        modes, of = (np.full(len(rows), number), f" of mode {number}") if several else (None, "")
        wanted = _padded(_decoded(manifest, number)[codewords], manifest.num_tokens)
        for name, given in (("LLRs at the clip", llr), ("LLRs beyond the clip", 10.0 * llr)):
            yield Known(Case(f"{name}{of}", nothing, erased, given.astype(np.float32), modes), wanted, llr)


def noiseless_case(manifest: Manifest, sent: Transmission) -> Known:
    """The transmitter's own symbols with next to no noise: the receiver finds the codewords that were sent."""
    no = np.full(sent.symbols.shape[:-1], NO_MIN, dtype=np.float32)
    wanted = np.zeros_like(sent.indices)
    for number, mode in enumerate(manifest.modes):
        rows = sent.mode == number
        wanted[rows, : mode.tokens] = _decoded(manifest, number)[sent.indices[rows, : mode.tokens]]
    return Known(
        Case("without noise", sent.symbols, no, mode=sent.mode if len(manifest.modes) > 1 else None), wanted, None
    )


def _decoded(manifest: Manifest, number: int) -> NDArray[np.int64]:
    """What each codeword is decoded to when its bits are certain: itself, unless the clip is too low for the prior."""
    mode = manifest.modes[number]
    bits = label_bits(mode.labels, mode.index_bits).astype(np.float64)
    certain = posterior_logits(manifest.llr.clip * (2.0 * bits - 1.0), bits, np.asarray(mode.log_prior))
    return np.asarray(certain.argmax(axis=-1), dtype=np.int64)


def _padded(indices: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    return np.pad(indices, ((0, 0), (0, tokens - indices.shape[1])))
