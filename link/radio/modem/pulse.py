"""The root-raised-cosine pulse: symbols to samples, and the matched filter.

    s[n] = sum_k a_k p[n - k sps]        y = s * p[-n]        sum_n p[n]^2 = 1

so the energy of a symbol is the same in symbols and in samples, and noise of variance N0 a sample is noise of variance N0 a
symbol behind the matched filter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from link.radio.frontend import Samples


class Pulse(BaseModel):
    """A root-raised-cosine pulse.

    Attributes
    ----------
    samples_per_symbol : int
    rolloff : float
        Excess bandwidth; the signal takes (1 + rolloff) / samples_per_symbol of the sample rate.
    span : int
        Symbols on either side of its middle that it is cut to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    samples_per_symbol: Annotated[int, Field(ge=2, le=32, multiple_of=2)] = 4
    rolloff: Annotated[float, Field(ge=0.1, le=1.0)] = 0.35
    span: Annotated[int, Field(ge=4, le=64)] = 10

    @property
    def taps(self) -> NDArray[np.float32]:
        """The pulse, (2 span sps + 1,), of energy 1."""
        return _taps(self.samples_per_symbol, self.rolloff, self.span)

    @property
    def reach(self) -> int:
        """Samples on either side of a symbol that its pulse takes."""
        return self.span * self.samples_per_symbol

    def shape(self, symbols: NDArray[np.complexfloating]) -> Samples:
        """Samples of a sequence of symbols, symbol k at sample `reach + k samples_per_symbol`."""
        from scipy.signal import upfirdn  # half a second, which a radio's description need not take

        return np.asarray(upfirdn(self.taps, symbols.astype(np.complex64), self.samples_per_symbol))

    def match(self, samples: Samples) -> Samples:
        """The matched filter, of no delay: as many samples as there are, of which `reach` at either end lack some input."""
        from scipy.signal import oaconvolve

        return np.asarray(oaconvolve(samples, self.taps, mode="same"), dtype=np.complex64)

    def correlation(self, lag: ArrayLike) -> NDArray[np.float64]:
        """Autocorrelation of the pulse, a raised cosine; `lag` in symbols."""
        t = np.abs(np.asarray(lag, dtype=np.float64))
        corner = np.isclose(2.0 * self.rolloff * t, 1.0)
        safe = np.where(corner, 0.0, t)
        found = np.sinc(safe) * np.cos(np.pi * self.rolloff * safe) / (1.0 - (2.0 * self.rolloff * safe) ** 2)
        return np.where(corner, np.pi / 4.0 * np.sinc(0.5 / self.rolloff), found)


@lru_cache(maxsize=16)
def _taps(samples_per_symbol: int, rolloff: float, span: int) -> NDArray[np.float32]:
    reach = span * samples_per_symbol
    taps = root_raised_cosine(np.arange(-reach, reach + 1) / samples_per_symbol, rolloff)
    normalised: NDArray[np.float32] = (taps / np.sqrt(np.sum(taps**2))).astype(np.float32)
    normalised.flags.writeable = False
    return normalised


def root_raised_cosine(t: ArrayLike, rolloff: float) -> NDArray[np.float64]:
    """The pulse at times in symbols, of energy 1 over all time (Proakis and Salehi 2008, "Digital Communications", 9.2).

    Examples
    --------
    >>> root_raised_cosine([0.0, 1.0, 1 / 1.4], 0.35).round(4)
    array([ 1.0956, -0.0847,  0.2606])
    """
    t = np.asarray(t, dtype=np.float64)
    b = rolloff
    middle, corner = np.isclose(t, 0.0), np.isclose(np.abs(4.0 * b * t), 1.0)
    safe = np.where(middle | corner, 0.123, t)
    x = np.pi * safe
    found = (np.sin(x * (1.0 - b)) + 4.0 * b * safe * np.cos(x * (1.0 + b))) / (x * (1.0 - (4.0 * b * safe) ** 2))
    at_corner = (1.0 + 2.0 / np.pi) * np.sin(np.pi / (4.0 * b)) + (1.0 - 2.0 / np.pi) * np.cos(np.pi / (4.0 * b))
    return np.where(middle, 1.0 - b + 4.0 * b / np.pi, np.where(corner, b / np.sqrt(2.0) * at_corner, found))


def peak_to_average_db(samples: Samples) -> float:
    """Peak over mean power, dB, of samples that are not all zero; silence before and behind does not count."""
    power = np.abs(samples) ** 2
    sent = np.flatnonzero(power > 0.0)
    return float(10.0 * np.log10(power.max() / power[sent[0] : sent[-1] + 1].mean()))
