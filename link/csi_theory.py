"""Bit error rates of Gray square QAM over block fading whose gains the receiver estimates from pilots, in closed form.

In the terms of link.channel.csi: given h_hat, the equalised symbol is Gaussian around beta x,

    y / h_hat = beta x + n,    n ~ CN(0, (no + g no/P |x|^2) / |h_hat|^2)

with beta = 1 for LMMSE and, over Rayleigh fading, beta = g for least squares. So a bit fails with a sum of Gaussian tails at
the distances t - beta x to the thresholds t of its label, as with a known gain, but for each point of the constellation by
itself, since the noise grows with |x|^2; and h_hat is complex Gaussian, as h is, so each tail is averaged by the formulas of
link.theory. For QPSK over Rayleigh fading that is

    (1 - mu / sqrt(2 - mu^2)) / 2,    mu^2 = g / (1 + no)

mu the correlation of h_hat with a received symbol (Proakis 2001, "Digital Communications", 4th ed., appendix C, for four
phases); least squares and LMMSE then fail alike, since they differ by a positive factor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from link.bits import label_bits
from link.channel import Fading
from link.constellation import bits_per_symbol, unit_amplitude
from link.snr import no_from_esn0_db, told_no
from link.theory import rayleigh_tail, rician_tail


def ber_estimated(order: int, esn0_db: float, fading: Fading) -> float | None:
    """Bit error rate of hard decisions behind estimated gains, the mean over a symbol's bits.

    Parameters
    ----------
    order : int
        QAM order.
    esn0_db : float
        Mean Es/N0 in dB.
    fading : Fading
        Block fading with csi `ls` or `lmmse`.

    Returns
    -------
    float or None
        None where no closed form is known: over Rician fading for least squares, and for LMMSE that is told a wrong noise
        variance, since the equalised symbol then lies beside beta x by a share of the line of sight over h_hat.

    Examples
    --------
    >>> from link.channel import Csi
    >>> round(ber_estimated(4, 10.0, Fading(csi=Csi("lmmse", 1))), 5)
    0.08041
    >>> ber_estimated(4, 10.0, Fading(k_factor_db=6.0, csi=Csi("ls", 1)))
    """
    mean, variance = fading.moments
    lmmse = fading.csi.kind == "lmmse"
    if mean and not (lmmse and fading.no_offset_db == 0.0):
        return None
    no = no_from_esn0_db(esn0_db)
    pilot_no = no / fading.csi.pilots
    g = variance / (variance + pilot_no)
    told = told_no(pilot_no, fading.no_offset_db)
    factor = variance / (variance + told) if lmmse else 1.0
    beta, scattered = g / factor, factor**2 * (variance + pilot_no)
    power = mean**2 + scattered
    return _ber(order, beta, no / power, g * pilot_no / power, mean**2 / scattered)


def _ber(order: int, beta: float, no: float, error: float, k: float) -> float:
    """Mean over points and bits of the tails of noise no + error |x|^2 over a gain of mean 1 and Rician factor k."""
    levels = 2 ** (bits_per_symbol(order) // 2)
    d = unit_amplitude(order)
    amplitudes = (2.0 * np.arange(levels) + 1.0 - levels) * d
    thresholds = (amplitudes[1:] + amplitudes[:-1]) / 2.0
    steps = np.arange(levels)
    labels = label_bits(steps ^ (steps >> 1), bits_per_symbol(order) // 2).astype(np.int64)
    upper = amplitudes[levels // 2 :]
    total = 0.0
    # By symmetry the upper half of the amplitudes stands for all, in both dimensions.
    for sent, amplitude in enumerate(upper, start=levels // 2):
        side = np.where(steps[1:] > sent, 1.0, -1.0)
        variances = no + error * (amplitude**2 + upper**2)
        tails = _tail(side * (thresholds - beta * amplitude), variances[:, None], k).mean(axis=0)
        wrong = labels != labels[sent]
        # A tail beyond a threshold counts where a bit turns wrong behind it, and is taken back where it turns right.
        turns = (wrong[1:].astype(np.int64) - wrong[:-1]).sum(axis=1) * side
        total += float(turns @ tails)
    return float(total / (len(upper) * labels.shape[1]))


def _tail(distance: NDArray[np.float64], variance: NDArray[np.float64], k: float) -> NDArray[np.float64]:
    """E[Q(distance sqrt(2 gain / variance))]; a distance below 0 is one beyond the threshold."""
    c = distance**2 / variance
    tail = rician_tail(c, k) if k else rayleigh_tail(c)
    return np.asarray(np.where(distance < 0.0, 1.0 - tail, tail))
