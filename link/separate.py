"""Separate source and channel coding at equal channel uses: decided classes, many to a frame, in an LDPC code of 5G.

    classes of g samples ──> g ceil(log2 K) bits ──LDPC, repeat──> 2 S g bits ──> S QPSK symbols of each sample ──> channel
    classes <── bits <──belief propagation──── LLRs, repeats added <──────────────────────────────────────────────────┘

A code needs length: g samples share a frame, in which the g S symbols of the semantic link carry one codeword. 5G codes
down to a rate of 1/5 (1/3 for long frames); what is left of the symbols repeats coded bits in turn. Coded bits are dealt out
to the samples one by one, so a codeword meets the fading and the noise of all samples of its frame. That is what this
baseline has over a semantic link, whose samples stand alone: diversity over g fades, at the price of waiting for g samples,
and of losing many of them when a frame is lost. See link.baseline. The code comes with the extra `sim`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.baseline import ORDER, BaselinePoint, label_width, sweep_baseline
from link.bits import label_bits, labels_from_bits
from link.channel.fec import K_MAX, K_MIN, Ldpc, coded_bits, combine_repeats, repeat_bits
from link.constellation import bits_per_symbol
from link.errors import ArgumentError
from link.grid import SweepSpec

FRAME_SAMPLES: Final = 128
"""Samples a frame: 512 information bits for ten classes."""


class Separate:
    """Code the class numbers of a frame's samples together.

    A number that no class has may be decided for, where a frame is lost; it is answered as it is, and wrong.

    Parameters
    ----------
    num_classes : int
        At least 2.
    num_symbols : int
        QPSK symbols a sample; the rate, ceil(log2 num_classes) / (2 num_symbols), is at most 948/1024.
    iterations : int
        Most iterations of the decoder, in [1, 1000].
    check_node : str
        One of link.channel.fec.CHECK_NODES.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """

    def __init__(
        self, num_classes: int, num_symbols: int, iterations: int = 20, check_node: str = "boxplus-phi"
    ) -> None:
        self.num_symbols = num_symbols
        self.iterations = iterations
        self.check_node = check_node
        self._width = label_width(num_classes)

    def code(self, frame_samples: int) -> Ldpc:
        """The code of a frame of so many samples.

        Raises
        ------
        ArgumentError
            If the frame has too few or too many bits for a code, or the rate is too high.
        MissingExtra
            If Sionna is not installed.
        """
        k = frame_samples * self._width
        if not K_MIN <= k <= K_MAX:
            raise ArgumentError(
                "frame_samples",
                f"must be in [{-(-K_MIN // self._width)}, {K_MAX // self._width}] for {self._width} bits a sample, "
                f"got {frame_samples}",
            )
        fewest, most = coded_bits(k)
        channel_bits = frame_samples * self._sample_bits
        if channel_bits < fewest:
            raise ArgumentError(
                "num_symbols",
                f"must be at least {-(-fewest // (frame_samples * bits_per_symbol(ORDER)))} for {self._width} bits a "
                f"sample in an LDPC code, got {self.num_symbols}",
            )
        return Ldpc(k, min(channel_bits, most), self.iterations, self.check_node)

    def encode(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        frames, samples = labels.shape
        code = self.code(samples)
        coded = code.encode(label_bits(labels, self._width).reshape(frames, code.k))
        sent = repeat_bits(coded, samples * self._sample_bits)
        return sent.reshape(frames, self._sample_bits, samples).swapaxes(1, 2)

    def decode(self, llr: NDArray[np.float64]) -> NDArray[np.int64]:
        frames, samples, _ = llr.shape
        code = self.code(samples)
        heard = llr.swapaxes(1, 2).reshape(frames, samples * self._sample_bits)
        decided = code.decode(combine_repeats(heard, code.n))
        return labels_from_bits(decided.reshape(frames, samples, self._width))

    @property
    def _sample_bits(self) -> int:
        return self.num_symbols * bits_per_symbol(ORDER)


def sweep_separate(
    decisions: ArrayLike,
    labels: ArrayLike,
    spec: SweepSpec,
    *,
    num_classes: int,
    num_symbols: int,
    frame_samples: int = FRAME_SAMPLES,
    iterations: int = 20,
) -> tuple[BaselinePoint, ...]:
    """Separate source and channel coding at each point of a sweep, to lay beside it.

    Parameters
    ----------
    decisions, labels, spec
        See link.baseline.sweep_baseline.
    num_classes, num_symbols, iterations : int
        See `Separate`; give the semantic link's symbols a sample.
    frame_samples : int
        Fewest samples of a frame.

    Returns
    -------
    tuple of BaselinePoint
        In the order of the grid.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    MissingExtra
        If Sionna is not installed.

    Examples
    --------
    >>> labels = np.arange(200) % 10
    >>> (point,) = sweep_separate(labels, labels, SweepSpec(snr_db=(0.0,)), num_classes=10, num_symbols=8)
    >>> point.correct, point.symbols_per_sample
    (200, 8.0)
    """
    scheme = Separate(num_classes, num_symbols, iterations)
    return sweep_baseline(scheme, decisions, labels, spec, num_classes=num_classes, frame_samples=frame_samples)
