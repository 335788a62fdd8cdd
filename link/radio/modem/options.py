"""What both ends of a link must agree on, and what its receiver does."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from link.errors import ArgumentError
from link.radio.modem.frame import FrameSpec
from link.radio.modem.pulse import Pulse


class ReceiverSpec(BaseModel):
    """What the receiver does. The switches are for seeing what each of its parts is good for.

    Attributes
    ----------
    echoes_before, echoes_behind : int
        Symbols before and behind the strongest path that the channel's response is estimated over.
    correct_cfo, track_phase, equalise, correct_clock : bool
        Without tracking, pilots tell of the noise and of nothing else. Without equaliser, there is one tap.
    clock_ppm : float
        What the receiver's clock is known to be faster by, as a calibration finds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    echoes_before: Annotated[int, Field(ge=2, le=16)] = 5
    echoes_behind: Annotated[int, Field(ge=2, le=64)] = 9
    correct_cfo: bool = True
    track_phase: bool = True
    equalise: bool = True
    correct_clock: bool = True
    clock_ppm: Annotated[float, Field(ge=-1000.0, le=1000.0)] = 0.0


class ModemOptions(BaseModel):
    """Everything that both ends must agree on, and what the receiver does.

    Attributes
    ----------
    frame : FrameSpec
    pulse : Pulse
    receiver : ReceiverSpec
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    frame: FrameSpec = FrameSpec()
    pulse: Pulse = Pulse()
    receiver: ReceiverSpec = ReceiverSpec()

    @model_validator(mode="after")
    def _check(self) -> Self:
        symbols = self.receiver.echoes_before + self.receiver.echoes_behind + 1
        if symbols > self.frame.zc_length:  # a sequence that is repeated tells no more than it does once
            raise ArgumentError(
                "receiver.echoes_behind",
                f"must leave, with echoes_before, at most zc_length = {self.frame.zc_length} symbols, got {symbols}",
            )
        return self
