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

from link.array import Array, namespace
from link.errors import ArgumentError
from link.hdp import GaussianHdp, Hdp, infer
from link.hsmm import Hsmm, forward_backward
from link.log_space import log_softmax, log_sum_exp

_SMALLEST: Final = 1e-30
"""A responsibility that underflowed is all but impossible, and its log a number."""


class Sequence(NamedTuple):
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


def emissions(tables: Sequence, logits: Array, codes: Array | None = None, present: Array | None = None) -> Array:
    """ln p(window | class), up to a constant of the window, (..., T, C).

    Parameters
    ----------
    tables : Sequence
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
    log_r = namespace(found).log(found + _SMALLEST)
    said = log_sum_exp(log_r[..., :, None] + tables.log_classes, axis=-2)
    return evidence + tables.share * (said - tables.log_prior)


def smoothed(tables: Sequence, logits: Array, codes: Array | None = None, present: Array | None = None) -> Array:
    """ln P(class of each window | recording), (..., T, C): what is decided by argmax.

    Parameters and Raises as for `emissions`.
    """
    found = emissions(tables, logits, codes, present)
    if tables.hsmm is None:
        return log_softmax(found + tables.log_prior)
    return forward_backward(tables.hsmm, found, present).log_marginals
