"""What a receiver makes of a recording whose windows it has received one by one.

    logits (T, C) ─> scale (log softmax - log prior) ────────────────┐
                                                                     + ─> emissions (T, C) ─> HSMM ─> P(class | recording)
    codes (T, N, V) ─> HDP ─> r (T, K) ─> share log sum_k r_k P(c|k) ┘

A window's own decision is a posterior; divided by the prior of its classes it is a likelihood up to a factor, which is what
a model of what follows on what has to be given (Bourlard and Morgan 1994, Connectionist Speech Recognition, chapter 7). The
behaviours that an HDP finds are none of the classes: P(c|k) says what each is evidence of. Either part may be left out: with
neither, a window is decided by itself.

Nothing here knows the transmitter: logits and codes are what `receiver.onnx` made of each window.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.array import Array, namespace
from link.bits import label_bits
from link.codebook import posterior
from link.errors import ArgumentError
from link.hdp import GaussianHdp, Hdp, infer, push
from link.hsmm import Hsmm, forward_backward
from link.log_space import log_softmax, log_sum_exp
from link.manifest import Mode
from link.smoother import FixedLagSmoother, checked_lag

_SMALLEST: Final = 1e-30
"""A responsibility that underflowed is all but impossible, and its log a number."""


class SequenceTables(NamedTuple):
    """The tables of a sequence stage over C classes.

    Attributes
    ----------
    scale : () float
        Of a window's own evidence: below 1 where its probabilities are too sure, or neighbours see the same.
    log_prior : (C,) float
        ln P(c), by which posteriors become likelihoods.
    hdp : Hdp or GaussianHdp, optional
    log_classes : (K, C) float, optional
        ln P(c | behaviour k); where there is an HDP.
    share : () float, optional
        Of what behaviours say; where there is an HDP.
    hsmm : Hsmm, optional
    """

    scale: Array
    log_prior: Array
    hdp: Hdp | GaussianHdp | None = None
    log_classes: Array | None = None
    share: Array | None = None
    hsmm: Hsmm | None = None

    @property
    def classes(self) -> int:
        """C."""
        return int(self.log_prior.shape[0])


def emissions(tables: SequenceTables, logits: Array, codes: Array | None = None, present: Array | None = None) -> Array:
    """ln p(window | class), up to a constant of the window, (..., T, C).

    Parameters
    ----------
    tables : SequenceTables
    logits : (..., T, C) float
        Of each window by itself.
    codes : (..., T, N, V) or (..., T, F) float, or (..., T, N) int64
        As the HDP's tables take them (link.hdp); required where there is one.
    present : (..., T) bool, optional
        Which windows there are, in a batch of recordings of different lengths.

    Raises
    ------
    ArgumentError
        If shapes do not fit, or codes are missing.
    """
    if logits.ndim < 2 or logits.shape[-1] != tables.classes:
        raise ArgumentError("logits", f"must have shape (..., windows, {tables.classes}), got {tuple(logits.shape)}")
    evidence = tables.scale * (log_softmax(logits) - tables.log_prior)
    if tables.hdp is None or tables.log_classes is None:
        return evidence
    if codes is None:
        raise ArgumentError("codes", "must be given: behaviours are inferred from them")
    found = infer(tables.hdp, codes, present).responsibilities
    return evidence + tables.share * (_said(tables.log_classes, found) - tables.log_prior)


def _said(log_classes: Array, responsibilities: Array) -> Array:
    """log sum_k r_k P(c|k): (..., K) to (..., C)."""
    log_r = namespace(responsibilities).log(responsibilities + _SMALLEST)
    return log_sum_exp(log_r[..., :, None] + log_classes, axis=-2)


def smoothed(tables: SequenceTables, logits: Array, codes: Array | None = None, present: Array | None = None) -> Array:
    """ln P(class of each window | recording), (..., T, C): what is decided by argmax.

    Parameters and Raises as for `emissions`.
    """
    found = emissions(tables, logits, codes, present)
    if tables.hsmm is None:
        return log_softmax(found + tables.log_prior)
    return forward_backward(tables.hsmm, found, present).log_marginals


class SequenceStream:
    """A recording's windows as they come, each decided `lag` windows after it.

    Behaviours are inferred from the windows so far and never revised; with the HSMM's smoother, what it says of a window
    equals `smoothed` on all windows until then where there are no behaviours.

    Parameters
    ----------
    tables : SequenceTables
    lag : int
        Windows that a decision waits for; 0 decides at once. Without an HSMM nothing waits.
    """

    def __init__(self, tables: SequenceTables, lag: int = 0) -> None:
        checked_lag(lag)
        self._tables = tables
        self._smoother = None if tables.hsmm is None else FixedLagSmoother(tables.hsmm, lag)
        self._restart()

    def push(self, logits: Array, codes: Array | None = None) -> Array | None:
        """ln P(class) of the window `lag` before the next, (C,), once its logits (C,) and codes (N, V) are here."""
        emission = self._emission(logits, codes)
        if self._smoother is None:
            return log_softmax(emission + self._tables.log_prior)
        return self._smoother.push(emission)

    def flush(self) -> list[Array]:
        """ln P(class) of the windows not decided yet, (C,) each; then it is ready for another recording."""
        self._restart()
        return [] if self._smoother is None else self._smoother.flush()

    def _restart(self) -> None:
        self._state = None if self._tables.hdp is None else self._tables.hdp.prior

    def _emission(self, logits: Array, codes: Array | None) -> Array:
        tables = self._tables
        alone = emissions(tables._replace(hdp=None), logits[None])[0]
        if tables.hdp is None or tables.log_classes is None:
            return alone
        if codes is None:
            raise ArgumentError("codes", "must be given: behaviours are inferred from them")
        found, self._state = push(tables.hdp, self._state, codes)
        return alone + tables.share * (_said(tables.log_classes, found) - tables.log_prior)


def code_probabilities(llr: NDArray[np.float32], mode: Mode) -> NDArray[np.float32]:
    """Probabilities of each token's codes under a flat prior, from LLRs: (..., L) to (..., N, K)."""
    table = label_bits(np.array(mode.labels), mode.index_bits).astype(np.float32)
    of_tokens = llr[..., : mode.num_bits].reshape(*llr.shape[:-1], mode.tokens, mode.index_bits)
    found: NDArray[np.float32] = posterior(of_tokens, table, np.zeros(mode.codewords, dtype=np.float32))
    return found
