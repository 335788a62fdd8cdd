"""Bit and block error rates of a modem over SNR, uncoded or coded, with theory beside them.

bits ──[LDPC]──> Gray QAM ──> channel ──> LLRs ──[LDPC]──> errors ──┬── blocks of frames, on any number of workers
└── until the point has seen enough (link.simulator)
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict

from link.capacity import capacity_qam, normal_approximation_bler
from link.channel import TR38901
from link.channel.fec import Ldpc
from link.coded import CodedModem
from link.errors import ArgumentError
from link.grid import ModemSpec
from link.modem import ErrorCounts, Modem
from link.montecarlo import Proportion
from link.provenance import code_version, library_versions
from link.reference import bit_error_rate
from link.simulator import Answer, Ending, Watch
from link.simulator.block import total
from link.simulator.conduct import conduct
from link.stopping import Tally, error_rate, unit_error_rate

__all__ = ["BerPoint", "BerProvenance", "BerResult", "ModemSpec", "ber"]


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
    frames, symbols : int
        Sent; pilots are not counted here.
    bits, bit_errors : int
        Information bits: of the payload uncoded, of the messages with a code.
    ber : Proportion
        With the interval of link.stopping. Where no error was counted, its upper end is what is known.
    units, unit_errors : int
        What is independent of each other: symbols where each meets noise and fading of its own, frames otherwise.
    frame_errors : int
        Frames with a wrong bit.
    bler : Proportion or None
        Of frames, where they are what is independent.
    stopped_by : Ending
    ber_theory : float or None
        None where no closed form is known.
    capacity : float or None
        Mutual information of the constellation with equally likely points over AWGN, bit a symbol; None over other channels.
    bler_normal : float or None
        What the best code of this length and rate may reach, by the normal approximation; None uncoded, and over fading.
    """

    snr_db: float
    ebn0_db: float
    blocks: int
    frames: int
    symbols: int
    bits: int
    bit_errors: int
    ber: Proportion
    units: int
    unit_errors: int
    frame_errors: int
    bler: Proportion | None
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
        Method of the intervals.
    libraries : dict of str to str
    """

    hardpath: str
    generator: str
    device: str
    interval: str = "stage-wise, link.stopping"
    libraries: dict[str, str]


class BerResult(_Frozen):
    """What a sweep found: what results.json holds, and what the command prints with --json.

    Points are in the order of the grid; one that was not simulated is absent.
    """

    points: tuple[BerPoint, ...]
    provenance: BerProvenance
    spec: ModemSpec


BerProgress: TypeAlias = Callable[[BerPoint, int, int], None]
"""Called with a point that has just finished, how many are finished, and how many there are."""


class ModemBlocks:
    """Frames over a modem, block by block; a link.simulator.Workload."""

    block_type: ClassVar[type[ErrorCounts]] = ErrorCounts
    stride: ClassVar[int] = 1

    def __init__(self, spec: ModemSpec, device: str = "cpu") -> None:
        self.spec = spec
        self.modem = build_modem(spec, device)
        self.symbols_are_units = not spec.coded and (spec.channel == "awgn" or spec.channel.endswith("-fast"))

    def run(self, snr_db: float, block: int) -> ErrorCounts:
        """Send the frames of a block."""
        frames = self.spec.frames_a_block
        return self.modem.count(snr_db, block * frames, frames)

    def tally(self, block: ErrorCounts) -> Tally:
        """Errors of a block, by what is independent."""
        frames, spec = self.spec.frames_a_block, self.spec
        bits = frames * spec.bits_a_frame
        if self.symbols_are_units:
            symbols = frames * spec.symbols_a_frame
            return Tally(symbols, block.symbol_errors, bits, block.bit_errors, block.symbol_squares)
        return Tally(frames, block.frame_errors, bits, block.bit_errors, block.frame_squares)


def build_modem(spec: ModemSpec, device: str = "cpu") -> Modem | CodedModem:
    """The modem that a spec asks for.

    Parameters
    ----------
    spec : ModemSpec
    device : str
        "cpu", where numba counts if it can, or a GPU as link.device names it.

    Raises
    ------
    ArgumentError
        If the device is unknown or not there, or the channel or the code cannot use it.
    MissingExtra
        If a package is not installed.
    """
    channel = spec.build_channel()
    if device == "cpu":
        if spec.coded:
            code = Ldpc(spec.code_k, spec.code_n, spec.iterations)
            return CodedModem(spec.order, channel, code, spec.demapper, spec.seed)
        return Modem(spec.order, channel, spec.demapper, spec.symbols_a_frame, spec.seed)
    if spec.coded or spec.channel in TR38901:
        what = "a code" if spec.coded else spec.channel
        raise ArgumentError("device", f"must be cpu with {what}, which Sionna computes there, got {device!r}")
    return Modem(spec.order, channel, spec.demapper, spec.symbols_a_frame, spec.seed, engine=device)


def ber(
    spec: ModemSpec,
    *,
    out: Path | None = None,
    workers: int = 1,
    backend: str = "loky",
    device: str = "cpu",
    max_time: float | None = None,
    progress: BerProgress | None = None,
    watch: Watch | None = None,
) -> BerResult:
    """Count the errors of a modem at each SNR of a grid.

    Parameters
    ----------
    spec : ModemSpec
    out : Path, optional
        Results folder; a sweep that was interrupted there goes on. None writes nothing.
    workers, backend
        See link.simulator.open_pool. They change no result.
    device : str
        Where to compute: "cpu", or what link.device names.
    max_time : float, optional
        Seconds after which each point ends with the blocks that it has.
    progress, watch : callable, optional
        See BerProgress and link.simulator.Watch.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    MissingExtra
        If the channel, the code or the device needs a package that is not installed.
    ResultsError
        If `out` holds another sweep or cannot be read.
    WorkerError
        If workers died, twice at the same task.
    KeyboardInterrupt
        Once what is finished is on disk.
    """
    work = ModemBlocks(spec, device)
    provenance = BerProvenance(
        hardpath=code_version(),
        generator=f"philox4x32-10 {work.modem.engine}",
        device=device,
        libraries={"python": platform.python_version(), **library_versions("numpy", "numba", "torch", "sionna-no-rt")},
    )
    return conduct(
        work,
        spec,
        {"provenance": provenance, "spec": spec},
        point=lambda answer: _point(work, answer),
        result=lambda points: BerResult(points=points, provenance=provenance, spec=spec),
        out=out,
        workers=workers,
        backend=backend,
        max_time=max_time,
        progress=progress,
        watch=watch,
    )


def _point(work: ModemBlocks, answer: Answer) -> BerPoint:
    spec, counts = work.spec, ErrorCounts(*map(sum, zip(*answer.blocks, strict=True)))
    tally = total([work.tally(block) for block in answer.blocks])
    block_units, target = tally.units // len(answer.blocks), spec.rule.unit_target(tally)
    frames = len(answer.blocks) * spec.frames_a_block
    over_awgn = spec.channel == "awgn"
    return BerPoint(
        snr_db=answer.snr_db,
        ebn0_db=answer.snr_db - spec.ebn0_offset_db,
        blocks=len(answer.blocks),
        frames=frames,
        symbols=frames * spec.symbols_a_frame,
        bits=tally.trials,
        bit_errors=tally.errors,
        ber=error_rate(tally, block_units, target, spec.confidence),
        units=tally.units,
        unit_errors=tally.unit_errors,
        frame_errors=counts.frame_errors,
        bler=None if work.symbols_are_units else unit_error_rate(tally, block_units, target, spec.confidence),
        stopped_by=answer.ending,
        ber_theory=None if spec.coded else _ber_theory(work, answer.snr_db),
        capacity=capacity_qam(spec.order, answer.snr_db) if over_awgn else None,
        bler_normal=(
            normal_approximation_bler(spec.code_k, spec.symbols_a_frame, answer.snr_db, spec.order)
            if spec.coded and over_awgn
            else None
        ),
    )


def _ber_theory(work: ModemBlocks, snr_db: float) -> float | None:
    spec = work.spec
    return bit_error_rate(spec.order, snr_db, spec.build_channel(), spec.demapper, spec.no_offset_db)
