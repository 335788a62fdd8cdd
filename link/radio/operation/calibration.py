"""What a radio link was found to be like; a radio's file keeps it. `link.radio.operation.sounding` measures it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Estimate(BaseModel):
    """A figure with its interval of 95 %."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


class Calibration(BaseModel):
    """What was measured.

    Attributes
    ----------
    measured : str
        When, UTC.
    frames_sent, frames : int
        Of the burst, and those of them that were received.
    delay_samples : Estimate
        From the first sample of the burst to its place among the samples received, counted from when the front end was
        opened; of one that goes by a clock of its own, from when the burst was handed over.
    cfo : Estimate
        Carrier frequency offset, cycles a sample.
    clock_ppm : Estimate
        What the receiver's clock is faster by.
    gain_db : Estimate
        Amplitude received over amplitude sent.
    snr_db : Estimate
        Es/N0 behind the equaliser at the radio's amplitude.
    noise_floor_db : float or None
        Power of a sample received while nothing is sent, less that of their mean, over that of amplitude 1; None where there
        is none.
    dc : float
        Amplitude of that mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    measured: str
    frames_sent: Annotated[int, Field(ge=0)]
    frames: Annotated[int, Field(ge=0)]
    delay_samples: Estimate
    cfo: Estimate
    clock_ppm: Estimate
    gain_db: Estimate
    snr_db: Estimate
    noise_floor_db: float | None = None
    dc: float
