"""What a transmitter is told beside its samples: what it takes Es/N0 for, and the mode to send each sample in.

mode -1, or none ──> the transmitter's own choice: its router's, by Es/N0 and sample; without one the default mode
mode 0 to M-1    ──> that one
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError
from link.interface import OWN_CHOICE, SNR_INPUT
from link.manifest import Manifest
from link.snr import SNR_DB_MAX, SNR_DB_MIN
from link.tensors import as_tensor, within


def read_mode(manifest: Manifest, mode: ArrayLike | None, batch: int) -> NDArray[np.int64] | None:
    """The modes asked for, (B,), as transmitter.onnx takes them.

    Parameters
    ----------
    manifest : Manifest
    mode : int or (B,) int, optional
        In [0, M), or -1 for the transmitter's own choice; of a bundle with one mode, that.
    batch : int
        B.

    Returns
    -------
    (B,) int64 or None
        None where all is left to the transmitter.

    Raises
    ------
    ArgumentError
        If one is out of range, or the bundle is of a time when nobody could ask for a mode.
    """
    if mode is None:
        return None
    asked = as_tensor("mode", _each(mode, batch), "int64", (batch,))
    modes = len(manifest.modes)
    if not within(asked, OWN_CHOICE, modes - 1):
        wrong = asked[(asked < OWN_CHOICE) | (asked >= modes)][0]
        raise ArgumentError(
            "mode", f"must be in [0, {modes}), or {OWN_CHOICE} for the transmitter's own choice, got {wrong}"
        )
    if modes == 1 or (asked == OWN_CHOICE).all():
        return None
    if not manifest.takes_mode:
        raise ArgumentError("mode", "must be absent: this bundle was exported without an input for it; export it again")
    return asked


def read_estimate(
    manifest: Manifest, snr_db: ArrayLike | None, batch: int, mode: NDArray[np.int64] | None = None
) -> NDArray[np.float32] | None:
    """What the transmitter takes Es/N0 for, (B,) dB; None where it has no router.

    Parameters
    ----------
    manifest : Manifest
    snr_db : float or (B,) float, optional
        In [-30, 60]; required where there is a router with something to choose.
    batch : int
        B.
    mode : (B,) int64, optional
        As `read_mode` gave it.

    Raises
    ------
    ArgumentError
        If it is missing, out of range, or given where there is no router.
    """
    if not manifest.routed:
        if snr_db is not None:
            raise ArgumentError(SNR_INPUT, "must be absent: this bundle's transmitter does not look at the channel")
        return None
    if snr_db is None:
        if mode is None or (mode == OWN_CHOICE).any():
            raise ArgumentError(SNR_INPUT, "is missing: this bundle's router chooses by Es/N0, in dB")
        return np.zeros(batch, dtype=np.float32)  # of no meaning: every mode is told
    estimate: NDArray[np.float32] = as_tensor(SNR_INPUT, _each(snr_db, batch), "float32", (batch,), finite=False)
    if not within(estimate, SNR_DB_MIN, SNR_DB_MAX):
        found = f"[{estimate.min():g}, {estimate.max():g}]"
        raise ArgumentError(SNR_INPUT, f"must be in [{SNR_DB_MIN:g}, {SNR_DB_MAX:g}], got {found}")
    return estimate


def _each(value: ArrayLike, batch: int) -> Any:
    """One value for all samples, or what should be one a sample."""
    return np.full(batch, value) if np.ndim(value) == 0 else value
