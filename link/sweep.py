"""A sweep over SNR: the deployed link, point by point, with counts and intervals.

    inputs ──encode once──> symbols ──┬── point, draw, rows ──> channel ──> receiver ──> counts ──> point ──> results
                                      └── on any number of workers, until the point has seen enough (link.simulator)

Noise is addressed by (seed, sample, draw, SNR), with a sample's row as its number. So how many rows go at once (always whole
frames, where samples share headers), the order of the points, the workers and an interruption change no count, and one point
can be run alone.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.chain import Link, require_snr_error
from link.channel.frames import FrameCounts
from link.errors import ArgumentError
from link.grid import SweepSpec, parse_grid
from link.manifest import Mode
from link.montecarlo import ClusterSums, Proportion, cluster_sums, clustered_proportion, noise_proportion
from link.provenance import code_version, library_versions
from link.randomness import Draws
from link.reference import bit_error_rate
from link.results import RadioPoint, SweepPoint, SweepProvenance, SweepResult, TextPoint
from link.semantic import CHUNK_ROWS, HEADER_COUNTS, PassCounts, SemanticPasses, summed
from link.simulator import Answer, Watch
from link.simulator.block import total
from link.simulator.conduct import conduct
from link.stopping import unit_error_rate
from link.text_quality import COUNTS, TextStatistics, bleu_scores, interval
from link.truth import read_truth

__all__ = ["Progress", "SweepPoint", "SweepProvenance", "SweepResult", "SweepSpec", "parse_grid", "sweep"]

Progress: TypeAlias = Callable[[SweepPoint, int, int], None]
"""Called with a point that has just finished, how many are finished, and how many there are."""

MAX_DECISIONS: Final = 10**8
"""At a point: their counts are held in memory."""

_RESAMPLES: Final = 1000
"""Of a bootstrap over samples."""


def sweep(
    link: Link,
    inputs: Mapping[str, ArrayLike],
    labels: ArrayLike | Sequence[str],
    spec: SweepSpec,
    *,
    out: Path | None = None,
    workers: int = 1,
    backend: str = "loky",
    max_time: float | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> SweepResult:
    """Send a data set over the link at each SNR of a grid.

    Parameters
    ----------
    link : Link
    inputs : mapping of name to (n, ...) array
        The task's inputs at both ends; as for link.chain.Link.tensors.
    labels : (n,) or (n, T) int, or sequence of n str
        The right class of each sample, in [0, classes); where a text is answered, that text, or the right piece at each
        position, -1 where there is none.
    spec : SweepSpec
    out : Path, optional
        Results folder; a sweep that was interrupted there goes on. None writes nothing.
    workers, backend
        See link.simulator.open_pool. They change no result.
    max_time : float, optional
        Seconds after which each point ends with the draws that it has.
    progress : callable, optional
        See Progress; not called for points found on disk.
    watch : callable, optional
        See link.simulator.Watch.
    chunk_rows : int
        Receptions decoded at once; rounded down to whole frames, where samples share headers, and up to one.

    Returns
    -------
    SweepResult
        Points in the order of the grid; absent are those that time did not suffice for.

    Raises
    ------
    ArgumentError
        If inputs or labels are of the wrong shape or out of range, or an error of the SNR is given where there is no router.
    RadioError
        If a radio is not there, or gone; what was found before is on disk.
    ResultsError
        If `out` holds another sweep or cannot be read.
    WorkerError
        If workers died, twice at the same task.
    Interrupted
        On Ctrl-C, with what was found, once it is on disk; a KeyboardInterrupt.
    """
    if chunk_rows < 1:
        raise ArgumentError("chunk_rows", f"must be at least 1, got {chunk_rows}")
    require_snr_error(spec.snr_error_db, link.manifest.routed)
    tensors = link.tensors(inputs)
    rows = len(next(iter(tensors.values())))
    truth, texts = read_truth("labels", labels, rows, link.manifest.task, link.receiver.tokenizer)
    if spec.radio is not None and workers > 1 and not spec.radio.frontend.simulated:
        raise ArgumentError("workers", f"must be 1 for a {spec.radio.frontend.kind} radio, which is one, got {workers}")
    if truth.size * spec.draws > MAX_DECISIONS:
        raise ArgumentError("draws", f"must be at most {MAX_DECISIONS // truth.size} for {len(truth)} samples")
    passes = SemanticPasses(link, tensors, truth, spec, chunk_rows, texts=texts)
    provenance = _provenance(passes)
    with passes:
        return conduct(
            passes,
            spec,
            {"provenance": provenance, "spec": spec},
            point=lambda answer: _point(passes, answer),
            result=lambda points: SweepResult(points=points, provenance=provenance, spec=spec),
            out=out,
            workers=workers,
            backend=backend,
            max_time=max_time,
            progress=progress,
            watch=watch,
        )


def accuracies(correct: NDArray[np.bool_], spec: SweepSpec) -> tuple[Proportion, Proportion]:
    """Accuracy over samples and noise, and over noise alone, from (draws, samples) decisions."""
    of_sample = correct.sum(axis=0)
    return (
        clustered_proportion(of_sample, np.full(len(of_sample), spec.draws), spec.confidence),
        noise_proportion(int(correct.sum()), correct.size, spec.confidence),
    )


def _point(passes: SemanticPasses, answer: Answer) -> SweepPoint:
    """What the draws of a point say together."""
    blocks: list[PassCounts] = answer.blocks
    spec, manifest = passes.spec, passes.link.manifest
    samples, draws = len(passes.truth), len(blocks) // passes.stride
    receptions = samples * draws
    of_sample = np.zeros(samples, np.int64)
    for block in blocks:
        of_sample[block.first_row : block.first_row + block.rows] += block.right
    correct = int(of_sample.sum())
    bits, indices = summed(b.bit_errors for b in blocks), summed(b.index_errors for b in blocks)
    headers = dict(zip(HEADER_COUNTS, map(sum, zip(*(b.header_counts for b in blocks), strict=True)), strict=True))
    pilots = headers.pop("pilot_symbols") + sum(b.pilot_symbols for b in blocks)
    payload = sum(b.payload_symbols for b in blocks)
    symbols = payload + headers["header_symbols"] + pilots
    mode_samples = tuple(map(sum, zip(*(b.mode_samples for b in blocks), strict=True)))
    used = [mode for mode, count in zip(manifest.modes, mode_samples, strict=True) if count]
    return SweepPoint(
        snr_db=answer.snr_db,
        samples=samples,
        draws=draws,
        decisions=draws * int(passes.decisions.sum()),
        correct=correct,
        accuracy=clustered_proportion(of_sample, draws * passes.decisions, spec.confidence),
        accuracy_noise=_accuracy_noise(passes, blocks),
        bit_errors=bits.successes,
        bits=bits.trials,
        ber=bits.proportion(spec.confidence) if bits.trials else None,
        index_errors=indices.successes,
        indices=indices.trials,
        index_error_rate=indices.proportion(spec.confidence) if indices.trials else None,
        symbols=symbols,
        symbols_per_sample=symbols / receptions,
        bits_per_sample=(sum(b.payload_bits for b in blocks) + 2 * headers["header_symbols"]) / receptions,
        es_db=10.0 * math.log10(math.fsum(b.energy for b in blocks) / payload),
        mean_abs_llr=math.fsum(b.abs_llr for b in blocks) / bits.trials if bits.trials else None,
        ber_theory=_ber_theory(passes, used[0], answer.snr_db) if len(used) == 1 else None,
        stopped_by=answer.ending,
        mode_samples=mode_samples,
        pilot_symbols=pilots,
        radio=_radio_point(blocks) if spec.radio is not None else None,
        text=None if manifest.task.text is None else _text_point(passes, blocks, draws, symbols),
        **headers,
    )


def _text_point(passes: SemanticPasses, blocks: Sequence[PassCounts], draws: int, symbols: int) -> TextPoint:
    counts = np.zeros((len(passes.truth), COUNTS), np.int64)
    for block in blocks:
        counts[block.first_row : block.first_row + block.rows] += np.reshape(block.texts, (block.rows, COUNTS))
    spec = passes.spec
    if len(counts) > 1:
        scores = interval(counts, Draws(spec.seed, np.arange(_RESAMPLES)), spec.confidence)
    else:  # of one sample there is no telling what another would give
        scores = tuple(Proportion(value=score, low=0.0, high=1.0) for score in bleu_scores(counts[0]).tolist())
    words = draws * passes.words
    return TextPoint(
        bleu_1=scores[0],
        bleu_2=scores[1],
        bleu_3=scores[2],
        bleu_4=scores[3],
        exact=TextStatistics.total(counts).exact,
        words=words,
        symbols_per_word=symbols / words,
    )


def _radio_point(blocks: Sequence[PassCounts]) -> RadioPoint:
    counts = reduce(FrameCounts.plus, (FrameCounts._make(block.frames) for block in blocks))
    return RadioPoint(
        frames=counts.frames,
        frames_lost=counts.lost,
        crc_failed=counts.crc_failed,
        gaps=counts.gaps,
        clipped=counts.clipped,
        measured_snr_db=counts.snr_db,
        evm=counts.evm,
        papr_db=counts.papr_db,
    )


def _ber_theory(passes: SemanticPasses, mode: Mode, snr_db: float) -> float | None:
    spec, demapper = passes.spec, passes.link.manifest.llr.demapper
    return bit_error_rate(mode.order, snr_db, spec.build_channel(), demapper, spec.no_offset_db, mode.num_bits)


def _accuracy_noise(passes: SemanticPasses, blocks: Sequence[PassCounts]) -> Proportion:
    """Of the noise alone, for these samples."""
    tally, rule = total([passes.tally(block) for block in blocks]), passes.spec.rule
    if passes.truth.ndim > 1:
        sums = reduce(ClusterSums.plus, (cluster_sums(block.right, block.judged) for block in blocks))
        return sums.proportion(passes.spec.confidence)
    if not rule.sequential:
        return noise_proportion(tally.units - tally.unit_errors, tally.units, passes.spec.confidence)
    wrong = unit_error_rate(tally, len(passes.truth), rule.unit_target(tally), passes.spec.confidence)
    return Proportion(value=1.0 - wrong.value, low=1.0 - wrong.high, high=1.0 - wrong.low)


def _provenance(passes: SemanticPasses) -> SweepProvenance:
    manifest = passes.link.manifest
    return SweepProvenance(
        hardpath=code_version(),
        bundle=f"{manifest.name}:{manifest.version}",
        transmitter_sha256=manifest.transmitter.sha256,
        receiver_sha256=manifest.receiver.sha256,
        data_sha256=_data_sha256({**passes.tensors, "labels": passes.truth}),
        libraries={
            "python": platform.python_version(),
            **library_versions("numpy", "numba", "scipy", "onnxruntime", "onnxruntime-gpu"),
        },
        generator=f"philox4x32-10 {passes.engine}",
        device=passes.link.device,
    )


def _data_sha256(data: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(data):
        array = np.ascontiguousarray(data[name], dtype=data[name].dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
