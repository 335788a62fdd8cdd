"""Soft = hard = ONNX = server: whether a bundle does what its checkpoint was trained to do.

    manifest      the bundle's tables and the graphs' constants against the checkpoint      entry by entry
    transmitter   torch, transmitter.onnx and a server, no noise                            bit by bit
    receiver      torch, receiver.onnx and a server on the same received symbols            to float32
    paths         the soft surrogate against the two graphs, on the same noise              statistically

The first three are exact but for near-ties (`train.agreement`) and must hold before the fourth is worth its draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from link.bundle import Bundle, sha256
from link.chain import Link
from link.provenance import code_version, library_versions
from link.runtime import Receiver, Transmission, Transmitter
from link.sequential import DifferenceTest, Verdict, combine
from link.truth import UNJUDGED, read_truth
from train import checkpoint as checkpoints
from train.agreement import TransmitterAgreement, checkpoint_transmission, parts, transmitter_agreement
from train.checkpoint import Checkpoint
from train.contract import ContractAgreement, contract_agreement
from train.equivalence import Paths, PointResult, Surrogate, compare_at, surrogate
from train.questions import ask
from train.reception import Answer, Receive, ReceiverAgreement, receiver_agreement
from train.receptions import Case
from train.schedule import Phase
from train.transceiver import Transceiver
from train.verdict import Verification, VerifySettings, render, summarise

__all__ = ["Progress", "Remote", "Verification", "VerifySettings", "render", "verify"]

Progress = Callable[[str, float], None]
"""Called with what is being done, and the fraction of all that is done."""

# Shares of the work, for the progress bar.
_RECEIVER_FROM, _PATHS_FROM = 0.05, 0.25


class Remote(Protocol):
    """A client of a server that holds the bundle."""

    def encode(self, inputs: Mapping[str, ArrayLike], /, *, snr_db: float | None = None) -> Transmission:
        """As link.runtime.Transmitter, all rows at one SNR."""
        ...

    def decode(
        self,
        symbols: ArrayLike,
        no: ArrayLike,
        *,
        mode: ArrayLike | None = None,
        llr_in: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        include_llr: bool = False,
    ) -> Answer:
        """As link.runtime.Receiver; with LLRs, which a server may leave out unless asked."""
        ...


def verify(
    bundle: Bundle,
    checkpoint: Path | str,
    inputs: Mapping[str, ArrayLike],
    labels: ArrayLike | Sequence[str],
    settings: VerifySettings | None = None,
    remote: Remote | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare a bundle, and a server that holds it, with the checkpoint it came from.

    Parameters
    ----------
    bundle : Bundle
        With the receiver looked at that is to be verified.
    checkpoint : Path or str
        A checkpoint, or a run (its best): that of the receiver.
    inputs : mapping of name to (n, ...) array
        As for link.chain.Link.tensors.
    labels : (n,) or (n, T) int
        As for link.sweep.sweep.
    settings : VerifySettings, optional
    remote : Remote, optional
    progress : callable, optional
        See Progress.

    Raises
    ------
    ArgumentError
        If inputs or labels are wrong.
    BundleError
        If a graph cannot be loaded.
    CheckpointError
        If the checkpoint cannot be read.
    """
    settings = settings or VerifySettings()
    tell = progress or (lambda what, fraction: None)
    described, trained = checkpoints.load(checkpoint)
    model, task = ask(trained, checkpoints.task_of(described), bundle.manifest.task.question)
    link = Link(bundle)
    graphs = link.transmitter, link.receiver
    rows = _check(link, inputs, labels)
    contract = contract_agreement(bundle, model, task, described.recipe.header)
    found = _Found(contract)
    if contract.comparable:
        found = _compare(found, graphs, described, model, rows, remote, settings, tell)
    tell("done", 1.0)
    findings = found.findings()
    verdict = Verdict.DIFFERENT if findings else combine([point.verdict for point in found.points])
    checkpoint_sha256 = sha256(checkpoints.checkpoint_file(checkpoint))
    return Verification(
        verdict=verdict,
        summary=summarise(verdict, findings, found.points, found.surrogate, settings),
        notes=_notes(bundle, described, checkpoint_sha256, found, settings),
        bundle=bundle.manifest.name,
        transmitter_sha256=bundle.manifest.transmitter.sha256,
        receiver_sha256=bundle.manifest.receiver.sha256,
        checkpoint_sha256=checkpoint_sha256,
        checkpoint_epoch=described.epoch,
        code_version=code_version(),
        libraries=library_versions("torch", "numpy", "onnx", "onnxruntime"),
        settings=settings,
        samples=len(rows.labels),
        with_server=remote is not None,
        manifest=contract,
        transmitter=found.transmitter,
        receiver=found.receiver,
        surrogate=found.surrogate,
        points=found.points,
        two_sided=Verdict.DIFFERENT if findings else combine([point.two_sided for point in found.points]),
    )


class _Rows(NamedTuple):
    """The samples: what is sent as arrays by name and as tensors in order, what the receiver has of its own, the labels."""

    inputs: dict[str, NDArray[Any]]
    tensors: list[Tensor]
    side: dict[str, NDArray[Any]]
    labels: NDArray[np.int64]


class _Found(NamedTuple):
    """What each comparison found, so far."""

    contract: ContractAgreement
    transmitter: TransmitterAgreement | None = None
    receiver: ReceiverAgreement | None = None
    surrogate: Surrogate | None = None
    points: tuple[PointResult, ...] = ()

    def findings(self) -> list[str]:
        """What the exact comparisons found different, each with its stage."""
        return [
            *self.contract.findings,
            *(f"transmitter, {text}" for text in (self.transmitter.findings if self.transmitter else ())),
            *(f"receiver, {text}" for text in (self.receiver.findings if self.receiver else ())),
        ]


def _check(link: Link, inputs: Mapping[str, ArrayLike], labels: ArrayLike | Sequence[str]) -> _Rows:
    arrays = link.tensors(inputs)
    sent = {spec.name: arrays[spec.name] for spec in link.manifest.task_inputs}
    tensors = [torch.from_numpy(values) for values in sent.values()]
    known = read_truth("labels", labels, len(tensors[0]), link.manifest.task, link.receiver.tokenizer)
    return _Rows(sent, tensors, link.side(arrays), known.labels)


def _compare(
    found: _Found,
    graphs: tuple[Transmitter, Receiver],
    described: Checkpoint,
    model: Transceiver,
    rows: _Rows,
    remote: Remote | None,
    settings: VerifySettings,
    tell: Progress,
) -> _Found:
    """Transmitter and receiver, exactly; then, if all agree, soft against hard."""
    transmitter, receiver = graphs
    tell("transmitter", 0.0)
    several = len(receiver.manifest.modes) > 1
    snr_db = _spread(settings.snr_db, len(rows.labels)) if receiver.manifest.routed else None
    sent = _encode(transmitter, rows.inputs, snr_db)
    sents = {"onnx": sent}
    receivers: dict[str, Receive] = {"onnx": lambda case: receiver(case.y, case.no, case.mode, case.llr_in, case.side)}
    if remote is not None:
        sents["server"] = _encode(remote.encode, rows.inputs, snr_db)
        receivers["server"] = lambda case: remote.decode(
            case.y, case.no, llr_in=case.llr_in, include_llr=True, **_beside(case)
        )
    transmitters = transmitter_agreement(model, rows.tensors, sents, snr_db)
    # A receiver is not to be blamed for what a wrong transmitter sends.
    known = sent
    if several:
        in_turn = np.arange(len(rows.labels)) % len(receiver.manifest.modes)
        known = checkpoint_transmission(model, rows.tensors, mode=in_turn)
    elif transmitters.findings:
        known = checkpoint_transmission(model, rows.tensors)
    found = found._replace(
        transmitter=transmitters,
        receiver=receiver_agreement(
            model,
            receiver.manifest,
            known,
            receivers,
            settings.snr_db,
            settings.seed,
            lambda fraction: tell("receiver", _RECEIVER_FROM + (_PATHS_FROM - _RECEIVER_FROM) * fraction),
            rows.side,
        ),
    )
    if found.findings():
        return found
    measured, points = _compare_paths(graphs, described, model, rows, settings, tell)
    return found._replace(surrogate=measured, points=points)


def _beside(case: Case) -> dict[str, Any]:
    """What only some receivers are told."""
    mode: dict[str, Any] = {} if case.mode is None else {"mode": case.mode}
    return mode | ({"inputs": case.side} if case.side else {})


def _compare_paths(
    graphs: tuple[Transmitter, Receiver],
    described: Checkpoint,
    model: Transceiver,
    rows: _Rows,
    settings: VerifySettings,
    tell: Progress,
) -> tuple[Surrogate, tuple[PointResult, ...]]:
    """Soft against hard at each SNR; with a router, both in the modes that transmitter.onnx chooses there."""
    transmitter, receiver = graphs
    manifest = receiver.manifest
    points: list[PointResult] = []
    measured: list[Surrogate] = []
    paths: Paths | None = None
    for index, snr_db in enumerate(settings.snr_db):

        def told(fraction: float, index: int = index, snr_db: float = snr_db) -> None:
            share = (index + fraction) / len(settings.snr_db)
            tell(f"soft and hard at {snr_db:g} dB", _PATHS_FROM + (1.0 - _PATHS_FROM) * share)

        if paths is None or manifest.routed:
            estimates = np.full(len(rows.labels), snr_db, np.float32) if manifest.routed else None
            sent = _encode(transmitter, rows.inputs, estimates)
            soft_symbols, found = surrogate(
                model,
                rows.tensors,
                described.vq_temp,
                sent.symbols,
                described.symbol_temp,
                sent.mode if len(manifest.modes) > 1 else None,
            )
            measured.append(found)
            paths = Paths(model, soft_symbols, receiver, sent, rows.labels, manifest.header, rows.side)
        judged = None if rows.labels.ndim == 1 else rows.labels != UNJUDGED
        test = DifferenceTest(settings.margin, settings.alpha, len(settings.snr_db), judged)
        points.append(compare_at(paths, snr_db, test, settings.seed, settings.max_draws, told))
    return _mean(measured), tuple(points)


def _mean(measured: Sequence[Surrogate]) -> Surrogate:
    """How soft the surrogate is on average over the SNRs."""
    if len(measured) == 1:
        return measured[0]
    names = ("h_assign", "soft_es_db", "hard_es_db")
    return measured[0].model_copy(
        update={name: float(np.mean([getattr(each, name) for each in measured])) for name in names}
    )


def _spread(snr_db: Sequence[float], rows: int) -> NDArray[np.float32]:
    """The SNRs shared out over the rows, each to rows that follow one another."""
    return np.asarray(snr_db, dtype=np.float32)[np.arange(rows) * len(snr_db) // rows]


def _encode(
    encode: Callable[..., Transmission], inputs: Mapping[str, NDArray[Any]], snr_db: NDArray[np.float32] | None
) -> Transmission:
    """All rows, some at a time; those at one SNR together, where there is a router."""
    rows = len(next(iter(inputs.values())))
    starts = [0] if snr_db is None else [0, *(1 + np.flatnonzero(np.diff(snr_db)))]
    chunks = []
    for start, stop in zip(starts, [*starts[1:], rows], strict=True):
        at = {} if snr_db is None else {"snr_db": float(snr_db[start])}
        for part in parts(stop - start):
            chosen = slice(start + part.start, start + part.stop)
            chunks.append(encode({name: value[chosen] for name, value in inputs.items()}, **at))
    return Transmission(*(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _notes(
    bundle: Bundle, described: Checkpoint, checkpoint_sha256: str, found: _Found, settings: VerifySettings
) -> tuple[str, ...]:
    """What qualifies the verdict."""
    notes = []
    if bundle.manifest.provenance.checkpoint_sha256 != checkpoint_sha256:
        notes.append("the bundle was exported from another checkpoint file, by the hash in its manifest")
    if described.phase is Phase.LEARNING:
        notes.append("the checkpoint is of the learning phase: the hard path was never aligned")
    notes += _better_notes(found.points, settings.margin)
    return tuple(notes)


def _better_notes(points: Sequence[PointResult], margin: float) -> list[str]:
    better = [point for point in points if point.two_sided is Verdict.DIFFERENT and point.delta < 0.0]
    if not better:
        return []
    where = ", ".join(f"{point.snr_db:g}" for point in better)
    return [
        f"at {where} dB the hard path is more accurate than the soft one by more than the margin of {margin:g}: soft "
        "symbols carry less energy"
    ]
