"""Whether the receivers agree: the checkpoint, receiver.onnx and a server on the same received symbols.

    transmitter.onnx ──> symbols ──> AWGN at each SNR ──┬── as received
                                                        ├── some symbols erased (y = 0, no = inf)
                                                        ├── no told 4 times too small, too large, and uneven
                                                        └── with llr_in
                         nothing (no = inf), llr_in = +-clip, spelling known codewords

A receiver that ignores `no` answers the first row right and fails the third; the last one tests the label table, the clip
and the order of bits and tokens against the manifest alone. Float32 is measured, as in `train.agreement`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.manifest import Manifest
from link.runtime import Transmission
from train.agreement import EPS32, ROWS, SAFETY, Frozen, allowed_near_ties, parts
from train.answers import answer, follows, score_of
from train.pieces import END_ID
from train.receptions import Case, Known, channel_cases, noiseless_case, saturated_cases
from train.transceiver import Heard, Transceiver


class Answer(Protocol):
    """What a receiver answers: link.runtime.Reception, or what a client of a server returns."""

    @property
    def llr(self) -> NDArray[np.float32] | None: ...

    @property
    def indices_hat(self) -> NDArray[np.int64]: ...

    @property
    def decisions(self) -> NDArray[np.int64]: ...

    @property
    def score(self) -> NDArray[np.float32]: ...


Receive = Callable[["Case"], Answer]


class ReceiverAgreement(Frozen):
    """What the comparison of the receivers found.

    Attributes
    ----------
    implementations : tuple of str
        Those held to the checkpoint.
    cases, receptions : int
        Compared with each implementation.
    llr_difference, llr_tolerance, logit_difference, logit_tolerance : float
        Greatest difference from the checkpoint and greatest tolerance, over all cases; each case is held to its own. Of a
        text the log probabilities of its pieces stand for the logits.
    near_ties, allowed : int
        Codewords and answers decided otherwise for no other reason than rounding, and how many each implementation may.
    findings : tuple of str
        What is different, in words.
    """

    implementations: tuple[str, ...]
    cases: int
    receptions: int
    llr_difference: float
    llr_tolerance: float
    logit_difference: float
    logit_tolerance: float
    near_ties: int
    allowed: int
    findings: tuple[str, ...]


def receiver_agreement(
    model: Transceiver,
    manifest: Manifest,
    sent: Transmission,
    receivers: Mapping[str, Receive],
    snr_db: Sequence[float],
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
    side: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> ReceiverAgreement:
    """Compare receivers with a checkpoint's.

    Parameters
    ----------
    model : Transceiver
        In evaluation mode.
    manifest : Manifest
        Its tables say what saturated LLRs and symbols without noise must be decoded to.
    sent : Transmission
        Of all samples; where there are several modes, in all of them.
    receivers : mapping of name to callable
    snr_db : sequence of float
        Es/N0, dB.
    seed : int
        Of the noise.
    progress : callable
        Told the fraction that is done.
    side : mapping of name to (n, ...) array
        What the receiver has of its own for each sample, in the order of its inputs.
    """
    comparison = _Comparison(model, tuple(receivers), manifest.task.positions)
    for done, snr in enumerate(snr_db):
        for case in channel_cases(sent.symbols, manifest.num_bits, snr, seed):
            mode = sent.mode if len(manifest.modes) > 1 else None
            comparison.add(case._replace(mode=mode, side=side), receivers)
        progress((done + 1) / len(snr_db))
    for known in (*saturated_cases(manifest), noiseless_case(manifest, sent)):
        own = {name: values[np.arange(len(known.case.y)) % len(values)] for name, values in side.items()}
        comparison.add(known.case._replace(side=own), receivers, known)
    return comparison.result()


class _Expected(NamedTuple):
    """The checkpoint's answer to a case, the same in float64, and what float32 costs."""

    llr: NDArray[np.float32]
    indices_hat: NDArray[np.int64]
    decisions: NDArray[np.int64]
    score: NDArray[np.float32]
    log_posterior: NDArray[np.float64]
    llr_tolerance: float
    score_tolerance: float
    posterior_tolerance: float


class _Comparison:
    """Collects what differs, case by case."""

    def __init__(self, model: Transceiver, names: tuple[str, ...], positions: int = 0) -> None:
        self._model = model
        self._exact = copy.deepcopy(model).double()
        self._names = names
        self._score = "log_prob" if positions else "logits"
        self._terms = max((m.in_features for m in model.head.modules() if isinstance(m, nn.Linear)), default=1)
        self._wrong: dict[str, dict[str, str]] = {}
        self._near_ties = dict.fromkeys(names, 0)
        self._cases = self._receptions = self._decisions = 0
        self._worst = dict.fromkeys(("llr", "llr_tolerance", self._score, f"{self._score}_tolerance"), 0.0)
        self._rows = max(1, ROWS // max(positions, 1))

    def add(self, case: Case, receivers: Mapping[str, Receive], known: Known | None = None) -> None:
        expected = self._expect(case)
        self._cases += 1
        self._receptions += len(case.y)
        self._decisions += expected.indices_hat.size + expected.decisions.size
        if known is not None:
            self._hold_to_manifest("checkpoint", known, expected.llr, expected.indices_hat)
        for name, receive in receivers.items():
            chunks = [receive(_rows(case, part)) for part in parts(len(case.y), self._rows)]
            llrs = [answer.llr for answer in chunks]
            if any(llr is None for llr in llrs):
                self._report(name, "llr", case.name, "is missing")
                continue
            llr = np.concatenate([llr for llr in llrs if llr is not None])
            indices_hat = np.concatenate([answer.indices_hat for answer in chunks])
            decisions = np.concatenate([answer.decisions for answer in chunks])
            score = np.concatenate([answer.score for answer in chunks])
            if known is not None:
                self._hold_to_manifest(name, known, llr, indices_hat)
            self._floats(name, "llr", case.name, llr, expected.llr, expected.llr_tolerance)
            alike = self._alike(decisions, expected.decisions)
            self._floats(name, self._score, case.name, score, expected.score, expected.score_tolerance, alike)
            self._codewords(name, case.name, indices_hat, expected)
            self._answers(name, case, decisions, expected)

    def result(self) -> ReceiverAgreement:
        findings = [
            f"{key} {next(iter(texts.values()))}"
            + (f" and in {len(texts) - 1} more of {self._cases} cases" if len(texts) > 1 else "")
            for key, texts in self._wrong.items()
        ]
        allowed = allowed_near_ties(self._decisions)
        for name, count in self._near_ties.items():
            if count > allowed:
                findings.append(f"{name}: {count} near-ties where {allowed} are allowed")
        return ReceiverAgreement(
            implementations=self._names,
            cases=self._cases,
            receptions=self._receptions,
            llr_difference=self._worst["llr"],
            llr_tolerance=self._worst["llr_tolerance"],
            logit_difference=self._worst[self._score],
            logit_tolerance=self._worst[f"{self._score}_tolerance"],
            near_ties=sum(self._near_ties.values()),
            allowed=allowed,
            findings=tuple(findings),
        )

    @torch.no_grad()
    def _expect(self, case: Case) -> _Expected:
        single: list[_Said] = []
        double: list[_Said] = []
        for part in parts(len(case.y), self._rows):
            rows = _rows(case, part)
            single.append(_Said.of(self._model, rows))
            double.append(_Said.of(self._exact, rows))
        recipe = self._model.recipe
        llr, llr64 = _join(single, "llr"), _join(double, "llr")
        score, score64 = _join(single, "score"), _join(double, "score")
        alike = self._alike(*(_join(said, "decisions").numpy() for said in (single, double)))
        log_posterior = self._log_posterior(llr64, case.mode)
        llr_tolerance = _tolerance(llr, llr64)
        scale = float(np.abs(log_posterior[np.isfinite(log_posterior)]).max())
        return _Expected(
            llr.numpy(),
            _join(single, "indices_hat").numpy(),
            _join(single, "decisions").numpy(),
            score.numpy(),
            log_posterior,
            llr_tolerance,
            _tolerance(score[alike], score64[alike], self._terms),
            2.0 * (max(rate.index_bits for rate in recipe.rates) * llr_tolerance + SAFETY * EPS32 * scale),
        )

    def _alike(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Any:
        """Which scores of two that decided so, (n,) or (n, T), mean the same.

        Of texts whose pieces follow from those before, those up to the first piece that is another; of all else, every one.
        """
        if not follows(self._model.head) or first.shape != second.shape:
            return ...
        return np.logical_and.accumulate(first == second, axis=1)

    def _log_posterior(self, llr: Tensor, mode: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Log posterior in float64, (n, N, K): -inf past a mode's codewords; past its tokens codeword 0 alone."""
        if mode is None:
            return np.asarray(self._exact.modes[0].log_posterior(llr).numpy())
        link = self._model.recipe
        found = np.full((len(llr), link.tokens, link.codewords), -np.inf)
        found[..., 0] = 0.0
        for number, codec in enumerate(self._exact.modes):
            own, rows = codec.recipe, np.flatnonzero(mode == number)
            posterior = codec.log_posterior(llr[rows, : own.num_bits]).numpy()
            found[rows[:, None, None], np.arange(own.tokens)[:, None], np.arange(own.codewords)] = posterior
        return found

    def _floats(
        self,
        name: str,
        field: str,
        case: str,
        got: NDArray[Any],
        expected: NDArray[Any],
        tolerance: float,
        where: Any = ...,
    ) -> None:
        if got.shape != expected.shape:
            self._report(name, field, case, f"has shape {got.shape}, expected {expected.shape}")
            return
        with np.errstate(invalid="ignore"):
            difference = np.abs(got - expected)[where]
        if not (difference <= tolerance).all():  # NaN is not within any tolerance
            worst = float(difference.max())
            self._report(name, field, case, f"differs by up to {worst:.3g}, float32 explains {tolerance:.1e}")
        finite = np.isfinite(difference)
        self._worst[field] = max(self._worst[field], float(difference.max(initial=0.0, where=finite)))
        self._worst[f"{field}_tolerance"] = max(self._worst[f"{field}_tolerance"], tolerance)

    def _codewords(self, name: str, case: str, got: NDArray[np.int64], expected: _Expected) -> None:
        if got.shape != expected.indices_hat.shape:
            self._report(name, "indices_hat", case, f"has shape {got.shape}, expected {expected.indices_hat.shape}")
            return
        where = np.nonzero(got != expected.indices_hat)
        if len(where[0]) == 0:
            return
        posterior = expected.log_posterior[where]
        chosen = np.stack([got[where], expected.indices_hat[where]], axis=1)
        inside = (chosen >= 0) & (chosen < posterior.shape[-1])
        scores = np.take_along_axis(posterior, np.where(inside, chosen, 0), axis=1)
        gap = posterior.max(axis=1, keepdims=True) - np.where(inside, scores, -np.inf)
        near = (gap <= expected.posterior_tolerance).all(axis=1)
        self._near_ties[name] += int(near.sum())
        if not near.all():
            self._report(name, "indices_hat", case, f"differs in {int((~near).sum())} of {got.size} tokens")

    @torch.no_grad()
    def _answers(self, name: str, case: Case, got: NDArray[np.int64], expected: _Expected) -> None:
        """Classes or pieces that differ: rounding exchanges those alone whose scores tie to twice its tolerance."""
        if got.shape != expected.decisions.shape:
            return  # their scores have another shape too
        rows = np.flatnonzero((got != expected.decisions).reshape(len(got), -1).any(axis=1))
        for start in range(0, len(rows), self._rows):
            part = rows[start : start + self._rows]
            chosen, meant = (torch.from_numpy(each[part]) for each in (got, expected.decisions))
            differ, gap = self._gaps(_rows(case, part), chosen, meant)
            near = gap <= 2.0 * expected.score_tolerance
            self._near_ties[name] += int((differ & near).sum())
            if (differ & ~near).any():
                self._report(
                    name, "answers", case.name, f"differ in {int((differ & ~near).sum())} of {got.size} decisions"
                )

    def _gaps(self, case: Case, chosen: Tensor, meant: Tensor) -> tuple[Tensor, Tensor]:
        """Which decisions (n,) or (n, T) are others than the checkpoint's, and how far apart the scores of both are.

        Where pieces follow from those before, the first that differs in a row is one decision, and the rest follows from it:
        their scores tie, or those of the two texts, a position.
        """
        heard, side = _receive(self._exact, case)
        head, differ = self._exact.head, chosen != meant
        if not follows(head):
            return differ, _apart(head(heard.embedding, *side), chosen, meant)
        first = differ & (differ.cumsum(dim=1) == 1)
        said, other = (head(heard.embedding, *side, told=text) for text in (meant, chosen.clamp_min(0)))
        texts = (_text_score(said, meant) - _text_score(other, chosen.clamp_min(0))).abs() / chosen.shape[1]
        return first, torch.minimum(_apart(said, chosen, meant), texts[:, None])

    def _hold_to_manifest(self, name: str, known: Known, llr: NDArray[Any], indices_hat: NDArray[Any]) -> None:
        if known.llr is not None and not np.array_equal(llr, known.llr):
            self._report(name, "llr", known.case.name, "is not the manifest's clip with the signs of llr_in")
        if not np.array_equal(indices_hat, known.indices_hat):
            self._report(
                name, "indices_hat", known.case.name, "is not the codeword whose label, by the manifest, was sent"
            )

    def _report(self, name: str, field: str, case: str, text: str) -> None:
        self._wrong.setdefault(f"{name}: {field}", {}).setdefault(case, f"{text} ({case})")


class _Said(NamedTuple):
    """What a model makes of receptions."""

    llr: Tensor
    indices_hat: Tensor
    decisions: Tensor
    score: Tensor

    @classmethod
    def of(cls, model: Transceiver, case: Case) -> _Said:
        heard, side = _receive(model, case)
        return cls(heard.llr, heard.indices_hat, *answer(model.head, heard.embedding, side))


def _receive(model: Transceiver, case: Case) -> tuple[Heard, list[Tensor]]:
    """What a model makes of a case, its answer left out, and what it has of its own."""
    dtype = model.quantizer.codebook.dtype
    y, no = (torch.from_numpy(values).to(dtype) for values in (case.y, case.no))
    llr_in = None if case.llr_in is None else torch.from_numpy(case.llr_in).to(dtype)
    side = [torch.from_numpy(values) for values in case.side.values()]
    side = [values.to(dtype) if values.is_floating_point() else values for values in side]
    mode = None if case.mode is None else torch.from_numpy(case.mode)
    return model.receive(y, no, llr_in, mode, side, answers=False), side


def _apart(logits: Tensor, chosen: Tensor, meant: Tensor) -> Tensor:
    """Distance of the scores of two decisions by logits (..., C), nats; infinite where one is none of theirs."""
    inside = (chosen >= 0) & (chosen < logits.shape[-1])
    gap = (score_of(logits, meant) - score_of(logits, chosen * inside)).abs()
    return gap.masked_fill(~inside, torch.inf)


def _text_score(logits: Tensor, pieces: Tensor) -> Tensor:
    """Log probability of each text (n, T) up to its end, by scores (n, T, V), nats; (n,)."""
    ended = (pieces == END_ID).cumsum(dim=1) - (pieces == END_ID).to(torch.int64) > 0
    return score_of(logits, pieces).masked_fill(ended, 0.0).sum(dim=1)


def _rows(case: Case, part: slice | NDArray[np.int64]) -> Case:
    llr_in = None if case.llr_in is None else case.llr_in[part]
    side = {name: values[part] for name, values in case.side.items()}
    return Case(case.name, case.y[part], case.no[part], llr_in, None if case.mode is None else case.mode[part], side)


def _join(said: Sequence[_Said], field: str) -> Tensor:
    return torch.cat([getattr(chunk, field) for chunk in said])


def _tolerance(single: Tensor, double: Tensor, terms: int = 1) -> float:
    """What float32 explains between two results that were rounded in different orders; 0 where the result is NaN.

    Each is a sum of so many `terms`, whose rounding adds up as a random walk does: what was measured may be a lucky sample.
    """
    walk = math.sqrt(terms) * EPS32 * float(double.abs().max())
    explained = SAFETY * (float((single.double() - double).abs().max()) + walk)
    return explained if math.isfinite(explained) else 0.0
