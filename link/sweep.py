"""A sweep over SNR: the deployed link, point by point, with counts and intervals.

    inputs ──encode once──> symbols ──┬── point, draw, rows ──> channel ──> receiver ──> counts ──> point ──> points.jsonl
                                      └── next rows, next draw, next point

A bundle with a router encodes at each point anew, since what it sends depends on the SNR.

Noise is addressed by (seed, sample, draw, SNR), with a sample's row as its number. So how many rows go at once (always whole
frames, where samples share headers), the order of the points and an interruption change no count, and one point can be run
alone.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link import theory
from link.chain import Link, require_snr_error
from link.channel import Awgn, Channel, Fading
from link.constellation import bits_per_symbol
from link.csi_theory import ber_estimated
from link.errors import ArgumentError
from link.grid import SweepSpec, parse_grid
from link.header import HeaderOutcome
from link.lock import locked
from link.manifest import Manifest, Mode
from link.montecarlo import Proportion, clustered_proportion, noise_proportion
from link.provenance import code_version, library_versions
from link.randomness import Draws
from link.results import ResultsFolder, SweepPoint, SweepProvenance, SweepResult
from link.runtime import Transmission, as_tensor
from link.snr import millidecibels

__all__ = ["Progress", "SweepPoint", "SweepProvenance", "SweepResult", "SweepSpec", "parse_grid", "receptions", "sweep"]

Progress: TypeAlias = Callable[[SweepPoint, int, int], None]
"""Called with a point that has just finished, how many are finished, and how many there are."""

MAX_DECISIONS: Final = 10**8
"""At a point: their counts are held in memory."""

CHUNK_ROWS: Final = 256
"""Receptions that go through the receiver at once: bounds memory, changes no result."""


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
        The task's inputs; as for link.runtime.Transmitter.
    labels : (n,) int
        The right class of each sample, in [0, classes).
    spec : SweepSpec
    out : Path, optional
        Results folder; a sweep that was interrupted there goes on. None writes nothing.
    progress : callable, optional
        See Progress; not called for points found on disk.
    chunk_rows : int
        Receptions decoded at once; rounded down to whole frames, where samples share headers, and up to one.

    Returns
    -------
    SweepResult
        Points in the order of the grid.

    Raises
    ------
    ArgumentError
        If inputs or labels are of the wrong shape or out of range, or an error of the SNR is given where there is no router.
    ResultsError
        If `out` holds another sweep or cannot be read.
    """
    if chunk_rows < 1:
        raise ArgumentError("chunk_rows", f"must be at least 1, got {chunk_rows}")
    require_snr_error(spec.snr_error_db, link.manifest.routed)
    tensors = link.transmitter.tensors(inputs)
    truth = check_classes("labels", labels, len(next(iter(tensors.values()))), len(link.manifest.task.classes))
    if len(truth) * spec.draws > MAX_DECISIONS:
        raise ArgumentError("draws", f"must be at most {MAX_DECISIONS // len(truth)} for {len(truth)} samples")
    provenance = _provenance(link, {**tensors, "labels": truth})
    with nullcontext() if out is None else locked(out):
        return _sweep(link, tensors, truth, spec, provenance, out, progress, chunk_rows)


def _sweep(
    link: Link,
    tensors: Mapping[str, NDArray[Any]],
    truth: NDArray[np.int64],
    spec: SweepSpec,
    provenance: SweepProvenance,
    out: Path | None,
    progress: Progress | None,
    chunk_rows: int,
) -> SweepResult:
    """Run the points that are not on disk yet."""
    folder = None if out is None else ResultsFolder(out, spec, provenance)
    finished = {} if folder is None else dict(folder.finished)
    missing = [snr_db for snr_db in spec.snr_db if millidecibels(snr_db) not in finished]
    if missing:
        sent = None
        for snr_db in missing:
            if sent is None or link.manifest.routed:
                sent = _encode(link, tensors, chunk_rows, snr_db, spec.snr_error_db)
            point = _Transmitted(link, sent, truth, spec, spec.build_channel(), chunk_rows).point(snr_db)
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


def receptions(
    samples: int, draws: int, rows: int, frame_samples: int = 1
) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
    """All receptions of a point, at most `rows` at a time: their places, sample numbers and draw numbers.

    No frame is cut: where `rows` is less than a frame, a frame goes at a time.

    Examples
    --------
    >>> [(sample.tolist(), draw.tolist()) for _, sample, draw in receptions(2, 2, 3)]
    [([0, 1, 0], [0, 0, 1]), ([1], [1])]
    >>> [sample.tolist() for _, sample, _ in receptions(5, 2, 3, frame_samples=2)]
    [[0, 1], [2, 3, 4], [0, 1], [2, 3, 4]]
    """
    start, end = 0, samples * draws
    while start < end:
        stop = min(start + rows, end)
        if stop < end:
            stop -= stop % samples % frame_samples
        if stop <= start:
            stop = min(start + frame_samples, start - start % samples + samples)
        draw, sample = np.divmod(np.arange(start, stop, dtype=np.int64), samples)
        yield slice(start, stop), sample, draw
        start = stop


def check_classes(field: str, values: ArrayLike, samples: int | None, classes: int) -> NDArray[np.int64]:
    """Class numbers as (samples,) int64.

    Raises
    ------
    ArgumentError
        If they have another shape or are not in [0, classes).
    """
    numbers: NDArray[np.int64] = as_tensor(field, values, "int64", (samples,))
    if not ((numbers >= 0) & (numbers < classes)).all():
        raise ArgumentError(field, f"must be in [0, {classes}), got [{numbers.min()}, {numbers.max()}]")
    return numbers


def accuracies(correct: NDArray[np.bool_], spec: SweepSpec) -> tuple[Proportion, Proportion]:
    """Accuracy over samples and noise, and over noise alone, from (draws, samples) decisions."""
    of_sample = correct.sum(axis=0)
    return (
        clustered_proportion(of_sample, np.full(len(of_sample), spec.draws), spec.confidence),
        noise_proportion(int(correct.sum()), correct.size, spec.confidence),
    )


@dataclass(frozen=True)
class _Transmitted:
    """An encoded data set, ready to be carried at any SNR."""

    link: Link
    sent: Transmission
    truth: NDArray[np.int64]
    spec: SweepSpec
    channel: Channel
    chunk_rows: int

    def point(self, snr_db: float) -> SweepPoint:
        sent, spec, manifest = self.sent, self.spec, self.link.manifest
        samples, decisions = len(self.truth), len(self.truth) * spec.draws
        correct = np.empty(decisions, np.bool_)
        bit_errors, index_errors = np.empty(decisions, np.int64), np.empty(decisions, np.int64)
        bits, indices = np.empty(decisions, np.int64), np.empty(decisions, np.int64)
        abs_llr = np.empty(decisions, np.float64)
        counts, pilots = _HeaderCounts(), 0
        tokens = np.array([mode.tokens for mode in manifest.modes])
        frame_samples = 1 if manifest.header is None else manifest.header.frame_samples
        for place, sample, draw in receptions(samples, spec.draws, self.chunk_rows, frame_samples):
            chunk = Transmission._make(field[sample] for field in sent)
            result = self.link.carry(chunk, self.channel, snr_db, Draws(spec.seed, sample, draw))
            decoded, right = result.decoded, np.ones(len(sample), np.bool_)
            pilots += result.received.pilot_symbols
            if result.header is not None:
                counts, right = counts.plus(result.header), result.header.right
            judged = np.arange(manifest.num_bits) < np.where(right, chunk.num_bits, 0)[:, None]
            compared = np.arange(manifest.num_tokens) < np.where(right, tokens[chunk.mode], 0)[:, None]
            correct[place] = decoded.decisions == self.truth[sample]
            bits[place], indices[place] = judged.sum(axis=-1), compared.sum(axis=-1)
            bit_errors[place] = np.sum(((decoded.llr > 0) != chunk.bits) & judged, axis=-1)
            index_errors[place] = np.sum((decoded.indices_hat != chunk.indices) & compared, axis=-1)
            abs_llr[place] = np.sum(np.abs(decoded.llr) * judged, axis=-1, dtype=np.float64)
        accuracy, accuracy_noise = accuracies(correct.reshape(spec.draws, samples), spec)
        used = np.unique(sent.mode)
        symbol_bits = np.array([bits_per_symbol(mode.order) for mode in manifest.modes])[sent.mode]
        symbols = int(sent.num_symbols.sum()) * spec.draws + counts.symbols + counts.pilots + pilots
        sent_bits = int((sent.num_symbols * symbol_bits).sum()) * spec.draws + 2 * counts.symbols
        total = int(bits.sum())
        return SweepPoint(
            snr_db=snr_db,
            samples=samples,
            draws=spec.draws,
            decisions=decisions,
            correct=int(correct.sum()),
            accuracy=accuracy,
            accuracy_noise=accuracy_noise,
            bit_errors=int(bit_errors.sum()),
            bits=total,
            ber=clustered_proportion(bit_errors, bits, spec.confidence) if total else None,
            index_errors=int(index_errors.sum()),
            indices=int(indices.sum()),
            index_error_rate=clustered_proportion(index_errors, indices, spec.confidence) if total else None,
            symbols=symbols,
            symbols_per_sample=symbols / decisions,
            bits_per_sample=sent_bits / decisions,
            es_db=10.0 * math.log10(float(np.square(sent.symbols).sum(dtype=np.float64) / sent.num_symbols.sum())),
            mean_abs_llr=float(abs_llr.sum() / total) if total else None,
            ber_theory=_ber_theory(manifest, manifest.modes[used[0]], spec, snr_db) if len(used) == 1 else None,
            mode_samples=tuple((np.bincount(sent.mode, minlength=len(manifest.modes)) * spec.draws).tolist()),
            headers=counts.headers,
            headers_lost=counts.lost,
            headers_wrong=counts.wrong,
            header_symbols=counts.symbols,
            pilot_symbols=counts.pilots + pilots,
        )


class _HeaderCounts(NamedTuple):
    """Headers of a point, so far."""

    headers: int = 0
    lost: int = 0
    wrong: int = 0
    symbols: int = 0
    pilots: int = 0

    def plus(self, header: HeaderOutcome) -> _HeaderCounts:
        return _HeaderCounts(
            self.headers + header.headers,
            self.lost + header.headers_lost,
            self.wrong + header.headers_wrong,
            self.symbols + header.header_symbols,
            self.pilots + header.pilot_symbols,
        )


def _ber_theory(manifest: Manifest, mode: Mode, spec: SweepSpec, snr_db: float) -> float | None:
    """Error rate of the payload bits, where a closed form is known; over fading the mean of a symbol's bits.

    It decides for the nearest amplitude, as max-log LLRs do whatever the noise variance they are told. Those of the exact
    demapper do not, but for QPSK.
    """
    channel = spec.build_channel()
    if spec.no_offset_db and manifest.llr.demapper == "app" and mode.order > 4:
        return None
    if isinstance(channel, Awgn):
        rates = theory.bit_error_rates(mode.order, snr_db)
        return float(np.resize(rates, mode.num_bits).mean())
    if not isinstance(channel, Fading):
        return None
    if not channel.csi.perfect:
        return ber_estimated(mode.order, snr_db, channel)
    if channel.k_factor_db is None:
        return float(theory.ber_rayleigh(mode.order, snr_db))
    return float(theory.ber_rician(mode.order, snr_db, channel.k_factor_db))


def _encode(
    link: Link, tensors: Mapping[str, NDArray[Any]], rows: int, snr_db: float, snr_error_db: float
) -> Transmission:
    length = len(next(iter(tensors.values())))
    parts = [
        link.encode({name: value[start : start + rows] for name, value in tensors.items()}, snr_db, snr_error_db)
        for start in range(0, length, rows)
    ]
    return Transmission._make(np.concatenate(field) for field in zip(*parts, strict=True))


def _provenance(link: Link, data: Mapping[str, NDArray[Any]]) -> SweepProvenance:
    manifest = link.manifest
    return SweepProvenance(
        hardpath=code_version(),
        bundle=f"{manifest.name}:{manifest.version}",
        transmitter_sha256=manifest.transmitter.sha256,
        receiver_sha256=manifest.receiver.sha256,
        data_sha256=_data_sha256(data),
        libraries={
            "python": platform.python_version(),
            **library_versions("numpy", "scipy", "onnxruntime", "onnxruntime-gpu"),
        },
    )


def _data_sha256(data: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(data):
        array = np.ascontiguousarray(data[name], dtype=data[name].dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
