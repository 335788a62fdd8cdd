"""The LDPC codes of 5G (3GPP TS 38.212, section 5.3.2), through Sionna, and a decoder that stops when it is done.

    bits (k) ──encode, puncture──> bits (n)        LLRs (n) ──belief propagation──> bits (k)

Base graph and lifting size follow from k and k/n as in sections 7.2.2 and 5.2.2; there is neither a CRC nor segmentation, so
a frame is one code block. Coded bits leave in the code's own order: the interleaver of section 5.4.2.2, which puts
systematic bits on the best protected bits of a symbol, is left out, since QPSK has none, and fading is link.channel's to
interleave.

Sionna's decoder runs all its iterations for all frames. Here a frame leaves as soon as its decisions satisfy every parity
check, and the others go on from where they are. At (512, 1024) and 20 iterations that is 1.4, 2.6 and 3.1 times as fast at
Eb/N0 of 1.5, 2.5 and 4 dB. A frame's decisions depend on its own LLRs alone.

**Sign of the LLR**: llr = ln P(b = 1) / P(b = 0). Positive means one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from link.channel.fence import import_sionna, require_sionna
from link.errors import ArgumentError

CHECK_NODES: Final = ("boxplus-phi", "boxplus", "minsum", "offset-minsum")
"""Updates of a check node: the sum-product rule in two forms, and its approximations."""

K_MIN: Final = 12
K_MAX: Final = 8448

_K_GRAPH_2: Final = 3824
"""Most information bits that base graph 2 serves at all rates below 2/3."""

ITERATIONS_MAX: Final = 1000

_ROWS: Final = 64
"""Frames that are decoded at once: bounds memory, changes no result."""


def coded_bits(k: int) -> tuple[int, int]:
    """Fewest and most coded bits for k information bits: rates up to 948/1024, and down to 1/5, or 1/3 where k > 3824.

    Examples
    --------
    >>> coded_bits(512)
    (554, 2560)
    """
    return -(-k * 1024 // 948), (5 if k <= _K_GRAPH_2 else 3) * k


@dataclass(frozen=True)
class Ldpc:
    """An LDPC code of 5G and its decoder.

    Parameters
    ----------
    k : int
        Information bits a frame, in [12, 8448].
    n : int
        Coded bits a frame; see `coded_bits`.
    iterations : int
        Most iterations of belief propagation with a flooding schedule, in [1, 1000].
    check_node : str
        One of CHECK_NODES.

    Raises
    ------
    ArgumentError
        If 5G has no such code, or an option is out of range.
    MissingExtra
        If Sionna is not installed.

    Notes
    -----
    The first bits of a frame are never sent. Near the highest rate some codes of few bits have too few checks to recover
    them by belief propagation, noise or not: (12, 13), (36, 39) or (123, 133).

    Examples
    --------
    >>> code = Ldpc(64, 128)
    >>> bits = np.tile(np.array([0, 1], dtype=np.uint8), (1, 32))
    >>> llr = 8.0 * code.encode(bits).astype(np.float32) - 4.0
    >>> bool((code.decode(llr) == bits).all())
    True
    """

    k: int
    n: int
    iterations: int = 20
    check_node: str = "boxplus-phi"

    def __post_init__(self) -> None:
        if not K_MIN <= self.k <= K_MAX:
            raise ArgumentError("k", f"must be in [{K_MIN}, {K_MAX}], got {self.k}")
        fewest, most = coded_bits(self.k)
        if not fewest <= self.n <= most:
            raise ArgumentError("n", f"must be in [{fewest}, {most}] for k = {self.k}, got {self.n}")
        if not 1 <= self.iterations <= ITERATIONS_MAX:
            raise ArgumentError("iterations", f"must be in [1, {ITERATIONS_MAX}], got {self.iterations}")
        if self.check_node not in CHECK_NODES:
            raise ArgumentError("check_node", f"must be one of {', '.join(CHECK_NODES)}, got {self.check_node!r}")
        require_sionna()

    @property
    def rate(self) -> float:
        """k/n."""
        return self.k / self.n

    def encode(self, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codewords of frames.

        Parameters
        ----------
        bits : (B, k) uint8

        Returns
        -------
        (B, n) uint8

        Raises
        ------
        ArgumentError
            If `bits` has another shape, or holds anything but 0 and 1.
        """
        if bits.ndim != 2 or bits.shape[1] != self.k or not ((bits == 0) | (bits == 1)).all():
            raise ArgumentError("bits", f"must be (B, {self.k}) of 0 and 1, got shape {bits.shape}")
        import torch

        coder = _coder(self)
        with torch.inference_mode():
            coded = coder.encoder(torch.from_numpy(bits.astype(np.float32)))
        return np.asarray(coded.numpy().astype(np.uint8))

    def decode(self, llr: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Information bits of received frames.

        Parameters
        ----------
        llr : (B, n) float32
            ln P(b = 1) / P(b = 0) of the coded bits; Sionna's decoder clips them at 20.

        Returns
        -------
        (B, k) uint8
            Of a frame that satisfies every parity check, or of what the last iteration made of it.

        Raises
        ------
        ArgumentError
            If `llr` has another shape, or holds NaN.
        """
        if llr.ndim != 2 or llr.shape[1] != self.n or np.isnan(llr).any():
            raise ArgumentError("llr", f"must be (B, {self.n}) without NaN, got shape {llr.shape}")
        coder = _coder(self)
        decided = np.empty((len(llr), self.k), dtype=np.uint8)
        for start in range(0, len(llr), _ROWS):
            decided[start : start + _ROWS] = coder.decode(
                llr[start : start + _ROWS].astype(np.float32), self.iterations
            )
        return decided


def repeat_bits(coded: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """Coded bits in turn, (B, n), as often as it takes to fill (B, length) channel bits: rates below those of a code.

    Examples
    --------
    >>> repeat_bits(np.array([[0, 1, 1]], dtype=np.uint8), 5)
    array([[0, 1, 1, 0, 1]], dtype=uint8)
    """
    return coded[:, np.arange(length) % coded.shape[1]]


def combine_repeats(llr: NDArray[np.floating[Any]], n: int) -> NDArray[np.float32]:
    """LLRs of channel bits, (B, length), to those of the n coded bits that they repeat, (B, n): the sum over repeats.

    Examples
    --------
    >>> combine_repeats(np.array([[1.0, -2.0, 3.0, 0.5, 0.5]]), 3)
    array([[ 1.5, -1.5,  3. ]], dtype=float32)
    """
    combined = np.zeros((len(llr), n))
    for start in range(0, llr.shape[1], n):
        heard = llr[:, start : start + n]
        combined[:, : heard.shape[1]] += heard
    return combined.astype(np.float32)


class _Coder:
    """Sionna's encoder and decoder of one code, on the CPU and in single precision."""

    def __init__(self, code: Ldpc) -> None:
        import_sionna()
        from sionna.phy.fec import ldpc

        where = {"precision": "single", "device": "cpu"}
        self.encoder: Any = ldpc.LDPC5GEncoder(code.k, code.n, **where)
        self.totals: Any = None
        self.one_at_a_time = Lock()
        self.decoder: Any = ldpc.LDPC5GDecoder(
            self.encoder,
            cn_update=code.check_node,
            vn_update=self._update_variables,
            return_state=True,
            **where,
        )
        self.checks = self.decoder.pcm.astype(np.float32)

    def decode(self, llr: NDArray[np.float32], iterations: int) -> NDArray[np.uint8]:
        """Iterate, and let go of frames that satisfy all checks; the messages of the others are handed on."""
        import torch

        decided = np.empty((len(llr), self.encoder.k), dtype=np.uint8)
        going, heard, messages = np.arange(len(llr)), torch.from_numpy(llr), None
        with self.one_at_a_time, torch.inference_mode():
            for _ in range(iterations):
                bits, messages = self.decoder(heard, num_iter=1, msg_v2c=messages)
                decided[going] = bits.numpy()
                codeword = (self.totals <= 0.0).numpy().astype(np.float32)
                unsatisfied = np.flatnonzero(np.any((self.checks @ codeword.T) % 2.0, axis=0))
                if not len(unsatisfied):
                    break
                if len(unsatisfied) < len(going):
                    going, kept = going[unsatisfied], torch.from_numpy(unsatisfied)
                    heard, messages = heard[kept], messages[kept]
        return decided

    def _update_variables(self, *arguments: Any) -> Any:
        """Sionna's own update, whose totals, ln P(0) / P(1) of every bit of the code, are kept for the parity checks."""
        from sionna.phy.fec.ldpc import vn_update_sum

        messages, self.totals = vn_update_sum(*arguments)
        return messages, self.totals


@lru_cache(maxsize=16)
def _coder(code: Ldpc) -> _Coder:
    return _Coder(code)
