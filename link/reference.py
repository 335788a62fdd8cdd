"""What a sweep's channel should measure, where a closed form is known."""

from __future__ import annotations

import numpy as np

from link import theory
from link.capacity import normal_approximation_bler
from link.channel import Awgn, Channel, Fading
from link.csi_theory import ber_estimated
from link.modem_spec import ModemSpec


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


def ber_theory(spec: ModemSpec, snr_db: float) -> float | None:
    """Bit error rate of an uncoded modem; None with a code, or where no closed form is known."""
    if spec.coded:
        return None
    return bit_error_rate(spec.order, snr_db, spec.build_channel(), spec.demapper, spec.no_offset_db)


def bler_normal(spec: ModemSpec, snr_db: float) -> float | None:
    """Block error rate of about the best code of this length over AWGN (link.capacity); None uncoded, and over fading."""
    if not spec.coded or spec.channel != "awgn":
        return None
    return float(normal_approximation_bler(spec.code_k, spec.symbols_a_frame, snr_db, spec.order))
