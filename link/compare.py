"""Are two sweeps different? A paired test on common random numbers.

Noise has an address, so two bundles (or two receivers of one modem) that were swept with the same seed, data and channel met
*the same* noise, reception by reception. Their difference then varies far less than either of them:

    var(a - b) = var(a) + var(b) - 2 cov(a, b)

The independent unit is the sample, which is the same in every draw and at every SNR; of a modem it is the block. The
interval is Student's over the differences of units. The p-value is that of a randomisation test: where neither is better,
a unit's difference is as likely as its negative (Fisher 1935, "The Design of Experiments", section 21; the test is exact
but for the 9,999 random sign changes that stand for all of them).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.special import stdtrit

from link.ber_results import BerResult
from link.errors import ArgumentError, ResultsError
from link.modem import ErrorCounts
from link.modem_spec import ModemSpec
from link.montecarlo import CONFIDENCE
from link.randomness import Draws, Stream
from link.rare import RareSums
from link.results import SweepResult
from link.semantic import PassCounts
from link.simulator.block import Task
from link.simulator.folder import RESULTS_NAME
from link.simulator.journal import Journal
from link.snr import millidecibels

_FLIPS: Final = 9999
UNITS_MIN: Final = 6
"""Fewer units have no sign change as rare as 1 in 20, and a variance that is a guess."""
_SIGNS: Final = 2**22
"""Signs at a time: bounds memory, changes no result."""
_FREE: Final = frozenset({"snr_db", "draws", "blocks", "target_errors", "rel_width", "confidence"})
"""Fields of a spec that may differ: they change how much was run, and not what."""
_OF_RECEIVER: Final = frozenset({"demapper", "csi", "pilots", "no_offset_db", "iterations"})
"""What a receiver knows or does: it changes no noise."""


class Difference(BaseModel):
    """Of two sweeps at one SNR, or over all that they share: a minus b.

    Attributes
    ----------
    snr_db : float or None
        Es/N0, dB; None over all points together.
    units : int
        Samples, or blocks of a modem.
    a, b, difference : float
        Accuracies; of a modem bit error rates.
    low, high : float or None
        Interval of the difference; None where fewer than 6 units say too little. Where no unit differs, it is what so many
        units without a difference leave open, (1 - confidence)^(1 / units) from 1.
    p_value : float or None
        Of a difference as large or larger where there is none; None as above.
    gain : float or None
        Units that a comparison on independent noise and data would need, over those of this one; None where the two never
        differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    snr_db: float | None
    units: int
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    gain: float | None


class Comparison(BaseModel):
    """Two sweeps side by side.

    Attributes
    ----------
    metric : str
        "accuracy" or "ber".
    points : tuple of Difference
        One for each SNR of both.
    overall : Difference
        Over all of them, a unit's rates averaged first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    points: tuple[Difference, ...]
    overall: Difference


class Found(NamedTuple):
    """A results folder that was read: its result, and the blocks that each point is made of."""

    result: SweepResult | BerResult
    blocks: Mapping[int, list[Any]]


def read_result(folder: Path) -> SweepResult | BerResult:
    """results.json of a sweep.

    Raises
    ------
    ResultsError
        If it is missing or cannot be read.
    """
    file = folder / RESULTS_NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = SweepResult if "bundle" in content["provenance"] else BerResult
        result = kind.model_validate(content)
        if not {millidecibels(point.snr_db) for point in result.points} <= set(map(millidecibels, result.spec.snr_db)):
            raise ValueError("it has a point that is not in its grid")
        return result
    except FileNotFoundError:
        raise ResultsError(f"{folder} holds no finished sweep: it has no {RESULTS_NAME}") from None
    except (KeyError, TypeError, RecursionError):
        raise ResultsError(f"{file} cannot be read: it is not what a sweep writes") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ResultsError(f"{file} cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file} cannot be read: {error}") from None


def read_sweep(folder: Path) -> Found:
    """A sweep with its blocks.

    Raises
    ------
    ResultsError
        If a file is missing or cannot be read.
    """
    result = read_result(folder)
    block_type: type[Any] = PassCounts if isinstance(result, SweepResult) else ErrorCounts
    if isinstance(result, BerResult) and result.spec.sampling == "importance":
        block_type = RareSums
    names = {millidecibels(snr_db) for snr_db in result.spec.snr_db}
    blocks: dict[int, dict[int, Any]] = {name: {} for name in names}
    for task, found in Journal(folder, block_type).read(names, repair=False):
        for block in found:
            _require_fit(folder, task, block, result)
        blocks[millidecibels(task.snr_db)] |= dict(enumerate(found, start=task.first))
    prefixes = {}
    for point in result.points:
        held = blocks[millidecibels(point.snr_db)]
        count = _num_blocks(point, held)
        if count < 1 or not all(number in held for number in range(count)):
            raise ResultsError(f"{folder}: lacks blocks of {point.snr_db:g} dB: run its sweep again")
        prefixes[millidecibels(point.snr_db)] = [held[number] for number in range(count)]
    return Found(result, prefixes)


def compare(a: Found, b: Found, confidence: float = CONFIDENCE) -> Comparison:
    """Test whether two sweeps differ, at each SNR that both have and over all of them.

    Parameters
    ----------
    a, b : Found
    confidence : float
        Of the intervals, in (0, 1).

    Raises
    ------
    ArgumentError
        If they are not of one kind, or did not meet the same data and noise.
    """
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", f"must be in (0, 1), got {confidence:g}")
    _require_pair(a.result, b.result)
    common = [point.snr_db for point in a.result.points if millidecibels(point.snr_db) in b.blocks]
    if not common:
        raise ArgumentError("b", "has no SNR in common with a")
    rates = [_rates(a, b, millidecibels(snr_db)) for snr_db in common]
    points = tuple(_difference(snr_db, *pair, confidence) for snr_db, pair in zip(common, rates, strict=True))
    units = min(len(pair[0]) for pair in rates)
    mean_a, mean_b = (np.mean([pair[side][:units] for pair in rates], axis=0) for side in (0, 1))
    metric = "accuracy" if isinstance(a.result, SweepResult) else "ber"
    return Comparison(metric=metric, points=points, overall=_difference(None, mean_a, mean_b, confidence))


def _require_fit(folder: Path, task: Task, block: Any, result: SweepResult | BerResult) -> None:
    """Refuse counts that no run can have found; sums of importance sampling are compared with nothing."""
    spec = result.spec
    try:
        if isinstance(block, ErrorCounts) and isinstance(spec, ModemSpec):
            block.require_fit(spec.frames_a_block, 0 if spec.coded else spec.symbols_a_frame, spec.bits_a_frame)
        elif isinstance(block, PassCounts) and isinstance(result, SweepResult) and result.points:
            block.require_fit(result.points[0].samples)
    except ValueError as error:
        raise ResultsError(f"{folder}: {task} cannot be right: {error}") from None


def _num_blocks(point: Any, held: Mapping[int, Any]) -> int:
    """Blocks that a point is made of."""
    if not hasattr(point, "draws"):
        return int(point.blocks)
    rows, count = 0, 0
    while rows < point.receptions and count in held:
        rows += held[count].rows
        count += 1
    return count if rows == point.receptions else count + 1


def _require_pair(a: SweepResult | BerResult, b: SweepResult | BerResult) -> None:
    if type(a) is not type(b):
        raise ArgumentError("b", "is a sweep of another kind: a bundle and a modem cannot be compared")
    if "importance" in (getattr(a.spec, "sampling", ""), getattr(b.spec, "sampling", "")):
        raise ArgumentError(
            "b", "cannot be compared in pairs: importance sampling draws noise of its own for each receiver"
        )
    there, here = a.spec.model_dump(), b.spec.model_dump()
    free = _FREE | _OF_RECEIVER
    differing = [name for name in there if name not in free and there[name] != here[name]]
    if differing:
        what = "; ".join(f"{name} is {there[name]} and {here[name]}" for name in differing)
        raise ArgumentError("b", f"did not meet the noise of a: {what}")
    if getattr(a.provenance, "data_sha256", None) != getattr(b.provenance, "data_sha256", None):
        raise ArgumentError("b", "was swept on other data than a (data_sha256 differs)")
    # Its first word; what makes normals of its numbers follows, and differs by a few ulp (link.device).
    one, other = (result.provenance.generator.partition(" ")[0] for result in (a, b))
    if one != other:
        raise ArgumentError("b", f"has noise of another generator: {one} and {other}")


def _rates(a: Found, b: Found, name: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rate of each unit on either side, over the draws (blocks) that both have."""
    count = min(len(a.blocks[name]), len(b.blocks[name]))
    sides = a.blocks[name][:count], b.blocks[name][:count]
    if isinstance(a.result, BerResult):
        bits = a.result.spec.bits_a_frame * a.result.spec.frames_a_block
        first, second = (np.array([block.bit_errors / bits for block in blocks]) for blocks in sides)
    else:
        first, second = (_of_samples(blocks) for blocks in sides)
    return first, second


def _of_samples(blocks: list[PassCounts]) -> NDArray[np.float64]:
    right = np.zeros(max(block.first_row + block.rows for block in blocks))
    sent = np.zeros_like(right)
    for block in blocks:
        rows = slice(block.first_row, block.first_row + block.rows)
        right[rows] += block.right
        sent[rows] += block.judged
    return np.asarray(right / sent)


def _difference(snr_db: float | None, a: NDArray[np.float64], b: NDArray[np.float64], confidence: float) -> Difference:
    delta = a - b
    n, mean = len(delta), float(delta.mean())
    enough = n >= UNITS_MIN
    paired = float(delta.var(ddof=1)) if enough else math.nan
    apart = float(a.var(ddof=1) + b.var(ddof=1)) if enough else math.nan
    half = float(stdtrit(n - 1, 0.5 + 0.5 * confidence)) * math.sqrt(paired / n) if enough else math.nan
    if not delta.any():
        half = 1.0 - (1.0 - confidence) ** (1.0 / n)
    return Difference(
        snr_db=snr_db,
        units=n,
        a=float(a.mean()),
        b=float(b.mean()),
        difference=mean,
        low=max(-1.0, mean - half) if enough else None,
        high=min(1.0, mean + half) if enough else None,
        p_value=_p_value(delta) if enough else None,
        gain=apart / paired if paired > 0.0 else None,
    )


def _p_value(delta: NDArray[np.float64]) -> float:
    """Share of random sign changes that make the sum as far from 0 as it is."""
    found = delta[delta != 0.0]
    if not len(found):
        return 1.0
    extreme, step = 1, max(1, _SIGNS // len(found))
    for first in range(0, _FLIPS, step):
        flips = np.arange(first, min(first + step, _FLIPS))
        signs = 1.0 - 2.0 * Draws(0, flips).bits(Stream.SHUFFLE, 0, len(found))
        # Sums in another order differ by rounding, and ties are as far.
        extreme += int(np.sum(np.abs(signs @ found) >= abs(found.sum()) * (1.0 - 1e-12)))
    return extreme / (_FLIPS + 1)
