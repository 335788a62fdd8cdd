"""A sweep over SNR: the deployed link, point by point, with counts and intervals.

    inputs ──encode once──> symbols ──┬── point, draw, rows ──> channel ──> receiver ──> counts ──> point ──> points.jsonl
                                      └── next rows, next draw, next point

Noise is addressed by (seed, sample, draw, SNR), with a sample's row as its number. So how many rows go at once, the order of the
points and an interruption change no count, and one point can be run alone.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from link.chain import Link
from link.channel import Channel
from link.constellation import bits_per_symbol
from link.errors import ArgumentError
from link.montecarlo import clustered_proportion, noise_proportion
from link.randomness import Draws
from link.results import ResultsFolder, SweepPoint, SweepProvenance, SweepResult, SweepSpec
from link.runtime import Transmission, as_tensor, check_inputs
from link.snr import millidecibels

__all__ = ["Progress", "SweepPoint", "SweepProvenance", "SweepResult", "SweepSpec", "parse_grid", "receptions", "sweep"]

Progress: TypeAlias = Callable[[SweepPoint, int, int], None]
"""Called with a point that has just finished, the number of finished points, and the number of all."""

CHUNK_ROWS: Final = 256
"""Receptions that go through the receiver at once: bounds memory, changes no result."""

_GRID_MAX: Final = 10_000


class _Counts(NamedTuple):
    """One entry a reception, (samples * draws,), draw by draw."""

    correct: NDArray[np.bool_]
    bit_errors: NDArray[np.int64]
    index_errors: NDArray[np.int64]
    abs_llr: NDArray[np.float64]


def sweep(
    link: Link,
    inputs: Mapping[str, ArrayLike],
    labels: ArrayLike,
    spec: SweepSpec,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> SweepResult:
    """Send a data set over the link at each SNR of a grid.

    Parameters
    ----------
    link : Link
    inputs : mapping of name to (n, ...) array
        The task's inputs.
    labels : (n,) int
        The right class of each sample, in [0, classes).
    spec : SweepSpec
    out : Path, optional
        Results folder; a sweep that was interrupted there goes on. None writes nothing.
    progress : callable, optional
        See Progress; not called for points found on disk.
    chunk_rows : int
        Receptions decoded at once.

    Returns
    -------
    SweepResult
        Points in the order of the grid.

    Raises
    ------
    ArgumentError
        If inputs or labels are of the wrong shape or out of range.
    ResultsError
        If `out` holds another sweep or cannot be read.
    """
    if chunk_rows < 1:
        raise ArgumentError("chunk_rows", f"must be at least 1, got {chunk_rows}")
    tensors = check_inputs(link.manifest.transmitter.inputs, inputs)
    classes = len(link.manifest.task.classes)
    truth = as_tensor("labels", labels, "int64", (len(next(iter(tensors.values()))),))
    if not ((truth >= 0) & (truth < classes)).all():
        raise ArgumentError("labels", f"must be in [0, {classes}), got [{truth.min()}, {truth.max()}]")
    provenance = _provenance(link, {**tensors, "labels": truth})
    folder = None if out is None else ResultsFolder(out, spec, provenance)
    finished = {} if folder is None else dict(folder.finished)

    channel = spec.build_channel()
    sent: Transmission | None = None
    for snr_db in spec.snr_db:
        if millidecibels(snr_db) in finished:
            continue
        if sent is None:
            sent = _encode(link, tensors, chunk_rows)
        point = _point(
            link, sent, truth, channel, snr_db, spec, _count(link, sent, truth, channel, snr_db, spec, chunk_rows)
        )
        if folder is not None:
            folder.append(point)
        finished[millidecibels(snr_db)] = point
        if progress is not None:
            progress(point, len(finished), len(spec.snr_db))
    points = tuple(finished[millidecibels(snr_db)] for snr_db in spec.snr_db)
    result = SweepResult(points=points, provenance=provenance, spec=spec)
    if folder is not None:
        folder.close(result)
    return result


def parse_grid(text: str) -> tuple[float, ...]:
    """An SNR grid as a user writes it: `first:last:step` with both ends, or points with commas between.

    Raises
    ------
    ArgumentError
        If it is neither, or the steps do not lead from the first to the last.

    Examples
    --------
    >>> parse_grid("-6:18:6")
    (-6.0, 0.0, 6.0, 12.0, 18.0)
    >>> parse_grid("6,12")
    (6.0, 12.0)
    """
    expected = f"must be first:last:step or points with commas between, in dB (-6:18:3 or 6,12), got {text!r}"
    try:
        parts = [float(part) for part in text.split(":" if ":" in text else ",")]
    except ValueError:
        raise ArgumentError("snr_db", expected) from None
    if not np.isfinite(parts).all() or (":" in text and len(parts) != 3):
        raise ArgumentError("snr_db", expected)
    if ":" not in text:
        return tuple(parts)
    first, last, step = parts
    steps = (last - first) / step if step else -1.0
    if not 0 <= steps < _GRID_MAX or abs(steps - round(steps)) > 1e-6:
        raise ArgumentError("snr_db", f"must reach {last:g} from {first:g} in whole steps of {step:g} dB, got {text!r}")
    # Rounded to the nanodecibel, so that 0:0.3:0.1 ends at 0.3 and not a hair above.
    return tuple(round(first + i * step, 9) for i in range(round(steps) + 1))


def receptions(samples: int, draws: int, rows: int) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
    """All receptions of a point, at most `rows` at a time: their places, sample numbers and draw numbers.

    Examples
    --------
    >>> [(sample.tolist(), draw.tolist()) for _, sample, draw in receptions(2, 2, 3)]
    [([0, 1, 0], [0, 0, 1]), ([1], [1])]
    """
    for start in range(0, samples * draws, rows):
        stop = min(start + rows, samples * draws)
        draw, sample = np.divmod(np.arange(start, stop, dtype=np.int64), samples)
        yield slice(start, stop), sample, draw


def _encode(link: Link, tensors: Mapping[str, NDArray[np.generic]], rows: int) -> Transmission:
    length = len(next(iter(tensors.values())))
    parts = [
        link.transmitter({name: value[start : start + rows] for name, value in tensors.items()})
        for start in range(0, length, rows)
    ]
    return Transmission(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _count(
    link: Link,
    sent: Transmission,
    truth: NDArray[np.int64],
    channel: Channel,
    snr_db: float,
    spec: SweepSpec,
    rows: int,
) -> _Counts:
    total = len(truth) * spec.draws
    counts = _Counts(
        np.empty(total, np.bool_), np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.float64)
    )
    for place, sample, draw in receptions(len(truth), spec.draws, rows):
        chunk = Transmission(*(field[sample] for field in sent))
        decoded = link.carry(chunk, channel, snr_db, Draws(spec.seed, sample, draw)).decoded
        payload = np.arange(chunk.bits.shape[1]) < chunk.num_bits[:, None]
        counts.correct[place] = decoded.decisions == truth[sample]
        counts.bit_errors[place] = np.sum(((decoded.llr > 0) != chunk.bits) & payload, axis=-1)
        counts.index_errors[place] = np.sum(decoded.indices_hat != chunk.indices, axis=-1)
        counts.abs_llr[place] = np.sum(np.abs(decoded.llr) * payload, axis=-1, dtype=np.float64)
    return counts


def _point(
    link: Link,
    sent: Transmission,
    truth: NDArray[np.int64],
    channel: Channel,
    snr_db: float,
    spec: SweepSpec,
    counts: _Counts,
) -> SweepPoint:
    samples, decisions = len(truth), len(counts.correct)
    correct = int(counts.correct.sum())
    bits = np.tile(sent.num_bits, spec.draws)
    indices = np.full(decisions, sent.indices.shape[1])
    orders = np.array([mode.order for mode in link.manifest.modes])[sent.mode]
    widths = np.array([bits_per_symbol(order) for order in orders])
    return SweepPoint(
        snr_db=snr_db,
        samples=samples,
        draws=spec.draws,
        decisions=decisions,
        correct=correct,
        accuracy=clustered_proportion(
            counts.correct.reshape(spec.draws, samples).sum(axis=0), np.full(samples, spec.draws), spec.confidence
        ),
        accuracy_noise=noise_proportion(correct, decisions, spec.confidence),
        bit_errors=int(counts.bit_errors.sum()),
        bits=int(bits.sum()),
        ber=clustered_proportion(counts.bit_errors, bits, spec.confidence),
        index_errors=int(counts.index_errors.sum()),
        indices=int(indices.sum()),
        index_error_rate=clustered_proportion(counts.index_errors, indices, spec.confidence),
        symbols=int(sent.num_symbols.sum()) * spec.draws,
        symbols_per_sample=float(sent.num_symbols.mean()),
        bits_per_sample=float((sent.num_symbols * widths).mean()),
        mean_abs_llr=float(counts.abs_llr.sum() / bits.sum()),
        ber_theory=None,
    )


def _provenance(link: Link, data: Mapping[str, NDArray[np.generic]]) -> SweepProvenance:
    import onnxruntime

    manifest = link.manifest
    return SweepProvenance(
        hardpath=version("hardpath"),
        bundle=f"{manifest.name}:{manifest.version}",
        transmitter_sha256=manifest.transmitter.sha256,
        receiver_sha256=manifest.receiver.sha256,
        data_sha256=_data_sha256(data),
        libraries={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "scipy": scipy.__version__,
        },
    )


def _data_sha256(data: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(data):
        array = np.ascontiguousarray(data[name], dtype=data[name].dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
