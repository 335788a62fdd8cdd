"""Where frames begin: the preamble, found by correlation whatever the carrier's offset.

    samples ──matched filter, every T/2──> y ──┬── partial correlations c_p, thirds of a Zadoff-Chu sequence
                                               └── mean power over the preamble, s^2

    1.  M = mean_p |c_p|^2 / (L s^2)            is 1 in noise; passed by few places that hold no frame
    2.  C = max_f |sum_p c_p e^{-j 2 pi f p}|^2 / (P L s^2)      over carrier offsets: exponential in noise, of mean 1

Thirds (L symbols) bear a carrier offset three times as large as the sequence would, and adding them up over the repeats with
the phase that an offset of f turns them by gives the gain of the whole preamble back. All correlations are products of
spectra, block by block (overlap-save), at two samples a symbol: the matched filter has left nothing beyond.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from link.radio.frontend import Samples
from link.radio.modem.frame import FrameSpec, preamble
from link.radio.modem.peak import peak_offset
from link.radio.modem.pulse import Pulse

_PARTS: Final = 3
_BLOCK: Final = 1 << 13
"""Samples of a spectrum; the arrays of a block stay in a cache."""
_MEAN_POWER_MIN: Final = 1.7
"""First threshold: some per cent of places without a frame pass, and a frame at -6 dB, whose mean is 6, does."""
_COHERENT_MIN: Final = 15.0
"""Second threshold: in noise exceeded once in some 10^5 places, where the header then is none."""
_FAINTEST: Final = 1e-11
"""Mean power over that of its block, of what is still more than the rounding of a spectrum in float32."""
_OFFSETS: Final = 4
"""Carrier offsets tried, as a multiple of the partial correlations: a grid so fine loses at most 0.2 dB."""


class Detection(NamedTuple):
    """A preamble.

    Attributes
    ----------
    start : float
        Sample in whose matched-filter output its first symbol stands.
    cfo : float
        Carrier frequency offset, cycles a sample.
    metric : float
        C: about 1 plus the SNR of the whole preamble.
    """

    start: float
    cfo: float
    metric: float


def ambiguities(detection: Detection, spec: FrameSpec, pulse: Pulse) -> list[Detection]:
    """Where else the same preamble may be: a later Zadoff-Chu sequence looks like one with another carrier offset.

        z[n + d] = c z[n] e^{-j 2 pi u d n / N}

    so a shift by d is an offset of u d cycles a sequence, which for some d is one or two, on either side.
    """
    step = 1.0 / (spec.zc_length * pulse.samples_per_symbol)
    later = pow(spec.zc_root, -1, spec.zc_length)
    shifts = [(cycles, cycles * later % spec.zc_length) for cycles in (1, -1, 2, -2)]
    return [
        Detection(detection.start - d * pulse.samples_per_symbol, detection.cfo + cycles * step, detection.metric)
        for cycles, shift in shifts
        for d in (shift, shift - spec.zc_length)
    ]


class Detector:
    """Finds preambles.

    Parameters
    ----------
    spec : FrameSpec
    pulse : Pulse
    """

    def __init__(self, spec: FrameSpec, pulse: Pulse) -> None:
        self.spec = spec
        self.pulse = pulse
        self._decimation = pulse.samples_per_symbol // 2
        half = _BLOCK // min(2, self._decimation)  # of the block at two samples a symbol: whole for every decimation
        while half < 16 * spec.preamble_symbols:
            half *= 2
        self._block = half * self._decimation

    @property
    def cfo_max(self) -> float:
        """Largest carrier offset that is looked for, cycles a sample: one cycle a Zadoff-Chu sequence."""
        return 1.0 / (self.spec.zc_length * self.pulse.samples_per_symbol)

    @property
    def _part_symbols(self) -> int:
        return self.spec.zc_length // _PARTS

    @cached_property
    def _templates(self) -> NDArray[np.complex64]:
        """Conjugate spectra of each third, at two samples a symbol, (3, half-rate block)."""
        sequence = preamble(self.spec)[: self.spec.zc_length].reshape(_PARTS, -1)
        spread = np.zeros((_PARTS, self._block // self._decimation), dtype=np.complex64)
        spread[:, : 2 * sequence.shape[1] : 2] = sequence
        return np.asarray(np.conj(fft.fft(spread)))

    @cached_property
    def _matched(self) -> NDArray[np.complex64]:
        """Spectrum of the matched filter, of no delay."""
        taps = np.zeros(self._block, dtype=np.complex64)
        taps[: len(self.pulse.taps)] = self.pulse.taps
        return np.asarray(fft.fft(np.roll(taps, -self.pulse.reach)))

    def find(self, samples: Samples) -> list[Detection]:
        """Preambles in a run of samples, first ones first."""
        reach, decimation = self.pulse.reach, self._decimation
        length = 2 * decimation * self.spec.preamble_symbols
        lead = -(-reach // decimation) * decimation
        step = (self._block - lead - reach - length) // decimation * decimation
        found: list[Detection] = []
        for first in range(0, len(samples), step):
            block = np.zeros(self._block, dtype=np.complex64)
            begin, end = first - lead, min(first - lead + self._block, len(samples))
            block[max(0, -begin) : end - begin] = samples[max(0, begin) : end]
            places = min(step, len(samples) - length - first) // decimation
            if places > 0:
                found += self._find(block, begin, lead // decimation, places)
        return self._strongest(found)

    def _find(self, block: Samples, begin: int, first: int, count: int) -> list[Detection]:
        """Candidates among `count` places of a block whose first sample is `begin`."""
        spec, half = self.spec, self._block // self._decimation
        spectrum = fft.fft(block) * self._matched
        folded = spectrum.reshape(self._decimation, half).sum(axis=0) / self._decimation
        y = fft.ifft(folded)
        c = fft.ifft(folded * self._templates)
        period, part = 2 * spec.zc_length, 2 * self._part_symbols
        power = np.cumsum(y.real**2 + y.imag**2, dtype=np.float64)
        window = 2 * spec.preamble_symbols
        places = np.arange(first, first + count)
        mean = (power[places + window - 1] - power[places - 1] if first else 0.0) / window
        mean = np.maximum(mean, max(_FAINTEST * power[-1] / half, 1e-30))
        energy = c.real**2 + c.imag**2
        parts = np.zeros(count, dtype=np.float32)
        shifts = [(p, r * period + p * part) for r in range(spec.preamble_repeats) for p in range(_PARTS)]
        for p, shift in shifts:
            parts += energy[p, first + shift : first + shift + count]
        scale = len(shifts) * self._part_symbols * mean
        passed = np.flatnonzero(parts > _MEAN_POWER_MIN * scale)
        if not len(passed):
            return []
        which = np.array(shifts)
        partial = c[which[:, 0], places[passed, None] + which[:, 1]]
        size = _OFFSETS * len(shifts)
        turned = np.roll(np.abs(fft.fft(partial, size)) ** 2, size // 2, axis=-1)
        widest = size // _PARTS
        best = turned[:, size // 2 - widest : size // 2 + widest + 1].argmax(axis=-1) + size // 2 - widest
        rows = np.arange(len(passed))
        coherent = turned[rows, best] / scale[passed]
        offset = best - size // 2 + peak_offset(turned[rows, best - 1], turned[rows, best], turned[rows, best + 1])
        cfo = offset / size / (part * self._decimation)
        keep = coherent > _COHERENT_MIN
        starts = begin + places[passed] * self._decimation
        return [
            Detection(float(start), float(f), float(metric))
            for start, f, metric in zip(starts[keep], cfo[keep], coherent[keep], strict=True)
        ]

    def _strongest(self, found: list[Detection]) -> list[Detection]:
        """One detection a frame: the strongest within a preamble's length, so that no overlap by a repeat less wins."""
        window = self.pulse.samples_per_symbol * self.spec.preamble_symbols
        kept: list[Detection] = []
        for candidate in found:
            if kept and candidate.start - kept[-1].start < window:
                if candidate.metric > kept[-1].metric:
                    kept[-1] = candidate
            else:
                kept.append(candidate)
        return kept
