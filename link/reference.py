"""What a sweep's channel should measure, where a closed form is known."""

from __future__ import annotations

import numpy as np

from link import theory
from link.channel import Awgn, Channel, Fading
from link.csi_theory import ber_estimated


def bit_error_rate(
    order: int, snr_db: float, channel: Channel, demapper: str, no_offset_db: float = 0.0, num_bits: int | None = None
) -> float | None:
    """Error rate of bits decided by the signs of their LLRs, for equally likely bits; None where no closed form is known.

    It decides for the nearest amplitude, as max-log LLRs do whatever the noise variance they are told. Those of the exact
    demapper do not, but for QPSK.

    Parameters
    ----------
    order : int
        QAM order.
    snr_db : float
        Es/N0, dB.
    channel : Channel
    demapper : {"max-log", "app"}
    no_offset_db : float
        dB that the noise variance the receiver is told lies above the true one.
    num_bits : int, optional
        Where only the first bits of the last symbol are judged: bits of a sample. Over fading they fail as the mean does.
    """
    if no_offset_db and demapper == "app" and order > 4:
        return None
    if isinstance(channel, Awgn):
        rates = theory.bit_error_rates(order, snr_db)
        return float(np.resize(rates, num_bits or len(rates)).mean())
    if not isinstance(channel, Fading):
        return None
    if not channel.csi.perfect:
        return ber_estimated(order, snr_db, channel)
    if channel.k_factor_db is None:
        return float(theory.ber_rayleigh(order, snr_db))
    return float(theory.ber_rician(order, snr_db, channel.k_factor_db))
