"""Bit and block error rates of a modem over SNR, uncoded or coded, with theory beside them.

    bits ──[LDPC]──> Gray QAM ──> channel ──> LLRs ──[LDPC]──> errors ──┬── blocks of frames, on any number of workers
                                                                       └── until the point has seen enough (link.simulator)

Error rates too small to count are estimated by importance sampling (link.rare), block by block in the same way.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from link.ber_results import BerPoint, BerProvenance, BerResult
from link.capacity import capacity, rayleigh_capacity
from link.channel import TR38901
from link.channel.fec import Ldpc
from link.coded import CodedModem
from link.device import HOST_ENGINES, arrays, cuda_number
from link.errors import ArgumentError
from link.modem import ErrorCounts, Modem
from link.modem_spec import ModemSpec
from link.provenance import code_version, library_versions
from link.rare import RareSums, rare_block, rare_estimate
from link.reference import ber_theory, bler_normal
from link.simulator import Answer, Watch, Workload
from link.simulator.block import total
from link.simulator.conduct import conduct
from link.stopping import Tally, effective_errors, error_rate, unit_error_rate

__all__ = ["BerPoint", "BerProgress", "BerProvenance", "BerResult", "ModemSpec", "ber", "build_modem"]

BerProgress: TypeAlias = Callable[[BerPoint, int, int], None]
"""Called with a point that has just finished, how many are finished, and how many there are."""


class _Blocks(Workload, Protocol):
    """A workload that knows what its blocks say of an error rate."""

    @property
    def generator(self) -> str:
        """What draws, for the provenance."""
        ...

    @property
    def interval(self) -> str:
        """Method of the intervals."""
        ...

    def estimate(self, answer: Answer) -> dict[str, Any]:
        """The fields of a BerPoint that depend on how errors are counted."""
        ...


class CountedBlocks:
    """Frames over a modem, whose errors are counted."""

    interval: ClassVar[str] = "stage-wise (link.stopping)"

    block_type: ClassVar[type[ErrorCounts]] = ErrorCounts
    stride: ClassVar[int] = 1

    def __init__(self, spec: ModemSpec, device: str = "cpu") -> None:
        self.spec = spec
        self.modem = build_modem(spec, device)
        self.generator = f"philox4x32-10 {self.modem.engine}"
        self.symbols_are_units = not spec.coded and (spec.channel == "awgn" or spec.channel.endswith("-fast"))

    def run(self, snr_db: float, block: int) -> ErrorCounts:
        """Send the frames of a block."""
        frames = self.spec.frames_a_block
        return self.modem.count(snr_db, block * frames, frames)

    def tally(self, block: ErrorCounts) -> Tally:
        """Errors of a block, by what is independent."""
        frames, spec = self.spec.frames_a_block, self.spec
        block.require_fit(frames, 0 if spec.coded else spec.symbols_a_frame, spec.bits_a_frame)
        bits = frames * spec.bits_a_frame
        if self.symbols_are_units:
            symbols = frames * spec.symbols_a_frame
            return Tally(symbols, block.symbol_errors, bits, block.bit_errors, block.symbol_squares)
        return Tally(frames, block.frame_errors, bits, block.bit_errors, block.frame_squares)

    def estimate(self, answer: Answer) -> dict[str, Any]:
        """Rates with intervals that are valid under the rule that ended the point."""
        spec, counts = self.spec, ErrorCounts.total(answer.blocks)
        tally = total([self.tally(block) for block in answer.blocks])
        block_units, target = tally.units // len(answer.blocks), spec.rule.unit_target(tally)
        frames = len(answer.blocks) * spec.frames_a_block
        return {
            "frames": frames,
            "symbols": frames * spec.symbols_a_frame,
            "bits": tally.trials,
            "bit_errors": counts.bit_errors,
            "ber": error_rate(tally, block_units, target, spec.confidence),
            "units": tally.units,
            "unit_errors": tally.unit_errors,
            "frame_errors": counts.frame_errors,
            "effective_errors": effective_errors(tally),
            "equivalent_bits": None,
            "ser" if self.symbols_are_units else "bler": unit_error_rate(tally, block_units, target, spec.confidence),
        }


@dataclass(frozen=True)
class RareBlocks:
    """Symbols over AWGN whose noise is drawn where it does harm."""

    spec: ModemSpec
    block_type: ClassVar[type[RareSums]] = RareSums
    stride: ClassVar[int] = 1
    generator: ClassVar[str] = "philox4x32-10 numpy"
    interval: ClassVar[str] = "normal, of importance sampling (link.rare)"

    def run(self, snr_db: float, block: int) -> RareSums:
        """Draw the symbols of a block."""
        spec = self.spec
        return rare_block(spec.order, snr_db, spec.demapper, spec.no_offset_db, spec.seed, block)

    def tally(self, block: RareSums) -> Tally:
        """Weights for errors."""
        bits = block.symbols * self.spec.bits_a_symbol
        return Tally(block.symbols, 0, bits, block.weighted, block.squares)

    def estimate(self, answer: Answer) -> dict[str, Any]:
        """A mean of weights, and its normal interval."""
        found = rare_estimate(answer.blocks, self.spec.confidence)
        width = self.spec.bits_a_symbol
        return {
            "frames": None,
            "symbols": found.symbols,
            "bits": found.symbols * width,
            "bit_errors": None,
            "ber": found.ber,
            "units": found.symbols,
            "unit_errors": None,
            "frame_errors": None,
            "effective_errors": found.effective_errors,
            "equivalent_bits": found.equivalent_symbols * width,
        }


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
    _require_device(device)
    if device == "cpu":
        if spec.coded:
            code = Ldpc(spec.code_k, spec.code_n, spec.iterations)
            return CodedModem(spec.order, channel, code, spec.demapper, spec.seed)
        return Modem(spec.order, channel, spec.demapper, spec.symbols_a_frame, spec.seed)
    if spec.coded or spec.channel in TR38901:
        what = "a code" if spec.coded else spec.channel
        raise ArgumentError("device", f"must be cpu with {what}, which Sionna computes there, got {device!r}")
    return Modem(spec.order, channel, spec.demapper, spec.symbols_a_frame, spec.seed, engine=device)


def _require_device(device: str) -> None:
    """Raise ArgumentError unless there is a device of that name here."""
    if device != "cpu":
        if device not in (*HOST_ENGINES, "torch") and cuda_number(device) is None:
            raise ArgumentError("device", f"must be cpu, numpy, numba, torch, cuda or cuda:N, got {device!r}")
        try:
            arrays(device)
        except ArgumentError as error:
            raise ArgumentError("device", error.message) from None


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
    Interrupted
        On Ctrl-C, with what was found, once it is on disk; a KeyboardInterrupt.
    """
    work: _Blocks = CountedBlocks(spec, device) if spec.sampling == "plain" else RareBlocks(spec)
    if spec.sampling == "importance" and device != "cpu":
        raise ArgumentError("device", f"must be cpu with importance sampling, got {device!r}")
    provenance = BerProvenance(
        hardpath=code_version(),
        generator=work.generator,
        device=device,
        interval=work.interval,
        libraries={"python": platform.python_version(), **library_versions("numpy", "numba", "torch", "sionna-no-rt")},
    )
    return conduct(
        work,
        spec,
        {"provenance": provenance, "spec": spec},
        point=lambda answer: _point(work, spec, answer),
        result=lambda points: BerResult(points=points, provenance=provenance, spec=spec),
        out=out,
        workers=workers,
        backend=backend,
        max_time=max_time,
        progress=progress,
        watch=watch,
    )


def _point(work: _Blocks, spec: ModemSpec, answer: Answer) -> BerPoint:
    snr_db = answer.snr_db
    known = spec.channel.startswith("rayleigh") and spec.csi == "perfect"
    reach = capacity if spec.channel == "awgn" else rayleigh_capacity if known else None
    return BerPoint(
        snr_db=snr_db,
        ebn0_db=snr_db - spec.ebn0_offset_db,
        blocks=len(answer.blocks),
        stopped_by=answer.ending,
        ber_theory=ber_theory(spec, snr_db),
        capacity=None if reach is None else float(reach(snr_db, spec.order)),
        bler_normal=bler_normal(spec, snr_db),
        **work.estimate(answer),
    )
