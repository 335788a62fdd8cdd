"""What a modem sweep found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from link.modem_spec import ModemSpec
from link.montecarlo import Proportion
from link.simulator import Ending


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BerPoint(_Frozen):
    """What one SNR gave.

    Attributes
    ----------
    snr_db, ebn0_db : float
        Es/N0, and Eb/N0 by information bit, dB.
    blocks : int
        The point is made of the blocks 0 to blocks - 1: `blocks` of a spec without a target replays it.
    frames : int or None
        None with importance sampling, which has none.
    symbols : int
        Sent; pilots are not counted here.
    bits : int
        Information bits: of the payload uncoded, of the messages with a code.
    bit_errors : int or None
        None with importance sampling, which weighs errors and counts none.
    ber : Proportion
        With the interval of link.stopping. Where no error was counted, its upper end is what is known.
    units : int
        What is independent of each other: symbols where each meets noise and fading of its own, frames otherwise.
    unit_errors, frame_errors : int or None
        Those with a wrong bit.
    effective_errors : float
        Errors of equal weight that would tell as much, see link.stopping.effective_errors.
    equivalent_bits : float or None
        With importance sampling: bits that plain counting would need for an interval as narrow.
    ser, bler : Proportion or None
        Error rates of symbols, or of frames: of what is independent.
    stopped_by : Ending
    ber_theory : float or None
        None where no closed form is known.
    capacity : float or None
        Of the constellation with equally likely points, bits a symbol; over Rayleigh fading with known gains the mean.
        None over other channels.
    bler_normal : float or None
        What about the best code of this length and rate reaches, by the normal approximation; None uncoded, and over
        fading.
    """

    snr_db: float
    ebn0_db: float
    blocks: int
    frames: int | None
    symbols: int
    bits: int
    bit_errors: int | None
    ber: Proportion
    units: int
    unit_errors: int | None
    frame_errors: int | None
    effective_errors: float
    equivalent_bits: float | None
    ser: Proportion | None = None
    bler: Proportion | None = None
    stopped_by: Ending
    ber_theory: float | None
    capacity: float | None
    bler_normal: float | None


class BerProvenance(_Frozen):
    """What made the figures; with the spec, enough to make them again.

    Attributes
    ----------
    hardpath : str
        Version.
    generator : str
        Which normals were drawn, and by what.
    device : str
    interval : str
        Method of the intervals, and the module that has its source.
    libraries : dict of str to str
    """

    hardpath: str
    generator: str
    device: str
    interval: str
    libraries: dict[str, str]


class BerResult(_Frozen):
    """What a sweep found: what results.json holds, and what the command prints with --json.

    Points are in the order of the grid; one that was not simulated is absent.
    """

    points: tuple[BerPoint, ...]
    provenance: BerProvenance
    spec: ModemSpec
