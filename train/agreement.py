"""Whether two implementations of one transmitter make the same decisions, and how far float32 lets them differ.

The checkpoint in torch is the reference; the exported graphs and a server are held to it. Integers and bits must be equal
and floats equal to float32, where what float32 costs is *measured*: the checkpoint in float32 against a copy of itself in
float64. Two results rounded in different orders lie up to twice that far apart, and the greatest error of another order may
exceed the greatest seen in this one, so `SAFETY` is 4.

A decision may differ only in a near-tie. Moving a token z by dz and rounding each score by e moves the difference of two
scores, 2 z.(c1 - c2) - (|c1|^2 - |c2|^2), by at most 2 |dz| |c1 - c2| + 2 e. Where two implementations choose c1 and c2 and
the scores of both, in float64, lie within SAFETY times that of the best, rounding explains it. Otherwise nothing does.
The router's choice of a mode is held to the same rule, by its logits.
Near-ties are counted. A graph that needs more than one in 10,000 decisions (one, where there are fewer) is different, unless
the checkpoint itself decides as many otherwise in float64, to a factor of SAFETY: among hundreds of codewords ties are near.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from link.bits import group, label_bits
from link.codebook import nearest, scores
from link.constellation import bits_per_symbol, map_bits
from link.interface import OWN_CHOICE
from link.runtime import Transmission
from train.graphs import TransmitterGraph
from train.mode_codec import ModeCodec
from train.transceiver import Transceiver

SAFETY: Final = 4.0
NEAR_TIE_RATE: Final = 1e-4
LISTED: Final = 20
ROWS: Final = 4096
"""Samples that go through an implementation at once."""

EPS32: Final = float(np.finfo(np.float32).eps)
# An amplitude is an exact integer times d: one rounding of d, one of the product.
_SYMBOL_TOLERANCE: Final = SAFETY * EPS32 * 2.0


class Frozen(BaseModel):
    """Base of what verification reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NearTie(Frozen):
    """A token that two implementations quantise differently for no other reason than rounding, or a sample they route so.

    Attributes
    ----------
    implementation : str
    sample, token : int
        Token -1 is the sample's mode.
    chosen, reference : int
        Codeword, or mode, of the implementation, and of the checkpoint.
    gap, bound : float
        Distance of the two scores, and the largest that rounding explains.
    """

    implementation: str
    sample: int
    token: int
    chosen: int
    reference: int
    gap: float
    bound: float


class TransmitterAgreement(Frozen):
    """What the comparison of the transmitters found; no noise.

    Attributes
    ----------
    implementations : tuple of str
        Those held to the checkpoint.
    samples, tokens : int
        Compared with each implementation.
    latent_error : float
        Greatest distance of a token in float32 from the same in float64.
    score_error : float
        Greatest error of a score in float32.
    near_ties, allowed : int
        Tokens that differ in some implementation for no other reason than rounding, and how many may.
    listed : tuple of NearTie
        The first of them.
    findings : tuple of str
        What is different, in words; empty when all agree.
    """

    implementations: tuple[str, ...]
    samples: int
    tokens: int
    latent_error: float
    score_error: float
    near_ties: int
    allowed: int
    listed: tuple[NearTie, ...]
    findings: tuple[str, ...]


def transmitter_agreement(
    model: Transceiver,
    inputs: Sequence[Tensor],
    sent: dict[str, Transmission],
    snr_db: NDArray[np.float32] | None = None,
) -> TransmitterAgreement:
    """Compare transmitters with the hard path of a checkpoint.

    Parameters
    ----------
    model : Transceiver
        In evaluation mode.
    inputs : sequence of (n, ...) Tensor
        In the order of the task's specification.
    sent : dict of name to Transmission
        What each implementation makes of the same inputs.
    snr_db : (n,) float32, optional
        Estimates of Es/N0, dB, that they had, where there is a router.
    """
    reference = checkpoint_transmission(model, inputs, snr_db=snr_db)
    rounding = _measure_rounding(model, inputs, snr_db)
    findings: list[str] = []
    ties: list[NearTie] = []
    for name, other in {"checkpoint": reference, **sent}.items():
        wrong = _interface_findings(reference, other)
        if not wrong:
            found, wrong = _mode_findings(name, reference, other, rounding)
            ties += found
        if not wrong:
            for number, codec in enumerate(model.modes):
                rows = np.flatnonzero((reference.mode == number) & (other.mode == number))
                found, texts = _index_findings(name, reference, other, rounding, codec, rows)
                ties += found
                wrong += texts
            wrong += _chain_findings(model, other)
        findings += [f"{name}: {text}" for text in wrong]
    allowed = allowed_near_ties(reference.indices.size, rounding.exchanged)
    for name in sent:
        count = sum(tie.implementation == name for tie in ties)
        if count > allowed:
            findings.append(f"{name}: {count} near-ties where {allowed} are allowed")
    return TransmitterAgreement(
        implementations=tuple(sent),
        samples=len(reference.indices),
        tokens=reference.indices.size,
        latent_error=rounding.latent_error,
        score_error=rounding.score_error,
        near_ties=len(ties),
        allowed=allowed,
        listed=tuple(ties[:LISTED]),
        findings=tuple(findings),
    )


def allowed_near_ties(decisions: int, exchanged: int = 0) -> int:
    """Near-ties that are allowed among that many decisions, `exchanged` of which float32 itself decides otherwise.

    Examples
    --------
    >>> allowed_near_ties(2880), allowed_near_ties(100_000), allowed_near_ties(100_000, exchanged=5)
    (1, 10, 20)
    """
    return max(1, int(NEAR_TIE_RATE * decisions), int(SAFETY * exchanged))


def parts(rows: int, size: int = ROWS) -> Iterator[slice]:
    """Consecutive slices: of 1, 2 and 7 rows, then of at most `size`, so that no answer is judged at one batch size only.

    Examples
    --------
    >>> [(part.start, part.stop) for part in parts(12)]
    [(0, 1), (1, 3), (3, 10), (10, 12)]
    """
    start = 0
    for wanted in (1, 2, 7, *(size for _ in range(-(-rows // size)))):
        if start < rows:
            yield slice(start, min(start + wanted, rows))
            start += wanted


@torch.no_grad()
def checkpoint_transmission(
    model: Transceiver,
    inputs: Sequence[Tensor],
    *,
    snr_db: NDArray[np.float32] | None = None,
    mode: NDArray[np.int64] | None = None,
) -> Transmission:
    """What the checkpoint's hard path sends, with the interface of transmitter.onnx.

    Parameters
    ----------
    snr_db : (n,) float32, optional
        Where there is a router.
    mode : (n,) int64, optional
        Modes to send in, in place of those that it would choose; where there are several.
    """
    graph = TransmitterGraph(model)
    fed = [*inputs, *([] if snr_db is None else [torch.from_numpy(snr_db)])]
    if model.recipe.modes:
        fed.append(torch.full((len(inputs[0]),), OWN_CHOICE))
    rows = [
        graph(*(tensor[part] for tensor in fed))
        if mode is None
        else graph.send(model.encode(*(tensor[part] for tensor in inputs)), torch.from_numpy(mode[part]))
        for part in parts(len(inputs[0]))
    ]
    return Transmission(*(torch.cat(column).numpy() for column in zip(*rows, strict=True)))


class _Rounding(NamedTuple):
    """Tokens (n, N, D) of the checkpoint in float32, and what float32 costs them and their scores; logits of the router.

    `exchanged` of them have another codeword in float64, in one codebook or another.
    """

    tokens: Tensor
    latent_error: float
    score_error: float
    exchanged: int
    logits: NDArray[np.float64] | None
    logit_error: float


@torch.no_grad()
def _measure_rounding(model: Transceiver, inputs: Sequence[Tensor], snr_db: NDArray[np.float32] | None) -> _Rounding:
    exact = copy.deepcopy(model).double()
    tokens, logits, latent_error, score_error, exchanged, logit_error = [], [], 0.0, 0.0, 0, 0.0
    for part in parts(len(inputs[0])):
        rows = [tensor[part] for tensor in inputs]
        z = model.encode(*rows)
        z64 = exact.encode(*(row.double() if row.is_floating_point() else row for row in rows))
        latent_error = max(latent_error, float((z.double() - z64).norm(dim=-1).max()))
        for codebook in (each.codebook for each in model.codebooks):
            found = scores(z, codebook)
            error = found.double() - scores(z.double(), codebook.double())
            score_error = max(score_error, float(error.abs().max()))
            exchanged += int((found.argmax(dim=-1) != nearest(z64, codebook.double())).sum())
        tokens.append(z)
        if snr_db is not None:
            estimate = torch.from_numpy(snr_db[part])
            logits64 = exact.route(z64, estimate.double())
            logit_error = max(logit_error, float((model.route(z, estimate).double() - logits64).abs().max()))
            logits.append(logits64.numpy())
    return _Rounding(
        torch.cat(tokens),
        latent_error,
        score_error,
        exchanged,
        np.concatenate(logits) if logits else None,
        logit_error,
    )


def _interface_findings(reference: Transmission, other: Transmission) -> list[str]:
    """Outputs of the wrong shape or dtype, and fields that differ although they are constants of the mode."""
    findings = []
    for field, expected in reference._asdict().items():
        got = getattr(other, field)
        if got is None or np.shape(got) != expected.shape or np.asarray(got).dtype != expected.dtype:
            shape, dtype = np.shape(got), np.asarray(got).dtype
            findings.append(f"{field} is {dtype} {shape}, expected {expected.dtype} {expected.shape}")
        elif field in ("num_bits", "num_symbols"):
            wrong = (got != expected) & (other.mode == reference.mode)
            if wrong.any():
                findings.append(f"{field} differs in {int(wrong.sum())} of {len(wrong)} samples")
    return findings


def _mode_findings(
    name: str, reference: Transmission, other: Transmission, rounding: _Rounding
) -> tuple[list[NearTie], list[str]]:
    """Near-ties of the router, and modes that differ for another reason."""
    rows = np.flatnonzero(other.mode != reference.mode)
    if len(rows) == 0:
        return [], []
    text = f"mode differs in {len(rows)} of {len(reference.mode)} samples"
    logits, modes = rounding.logits, other.mode[rows]
    if logits is None or modes.min() < 0 or modes.max() >= logits.shape[1]:
        return [], [text]
    bound = SAFETY * 2.0 * rounding.logit_error
    gap = logits[rows].max(axis=1) - np.minimum(logits[rows, modes], logits[rows, reference.mode[rows]])
    if (gap > bound).any():
        return [], [f"{text}, and rounding does not explain it (first: sample {rows[np.argmax(gap > bound)]})"]
    return [
        NearTie(
            implementation=name,
            sample=int(row),
            token=-1,
            chosen=int(other.mode[row]),
            reference=int(reference.mode[row]),
            gap=float(distance),
            bound=bound,
        )
        for row, distance in zip(rows, gap, strict=True)
    ], []


def _index_findings(
    name: str,
    reference: Transmission,
    other: Transmission,
    rounding: _Rounding,
    codec: ModeCodec,
    samples: NDArray[np.int64],
) -> tuple[list[NearTie], list[str]]:
    """Near-ties, and tokens that differ for another reason, among samples of one mode."""
    differ = (other.indices != reference.indices)[samples, : codec.recipe.tokens]
    rows, columns = np.nonzero(differ)
    if len(rows) == 0:
        return [], []
    rows = samples[rows]
    codebook = codec.quantizer.codebook.double()
    chosen, expected = other.indices[rows, columns], reference.indices[rows, columns]
    if chosen.min() < 0 or chosen.max() >= len(codebook):
        return [], [f"indices lie in [{chosen.min()}, {chosen.max()}], expected [0, {len(codebook) - 1}]"]
    s = scores(rounding.tokens[rows, columns].double(), codebook).numpy()
    pairs = np.stack([chosen, expected], axis=1)
    gap = (s.max(axis=1, keepdims=True) - np.take_along_axis(s, pairs, axis=1)).max(axis=1)
    codewords = codebook.numpy()
    distance = np.linalg.norm(codewords[pairs] - codewords[s.argmax(axis=1)][:, None], axis=-1).max(axis=1)
    bound = SAFETY * 2.0 * (rounding.latent_error * distance + rounding.score_error)
    near = gap <= bound
    ties = [
        NearTie(
            implementation=name,
            sample=int(rows[i]),
            token=int(columns[i]),
            chosen=int(chosen[i]),
            reference=int(expected[i]),
            gap=float(gap[i]),
            bound=float(bound[i]),
        )
        for i in np.flatnonzero(near)
    ]
    wrong = np.flatnonzero(~near)
    if len(wrong) == 0:
        return ties, []
    i = wrong[0]
    return ties, [
        f"{len(wrong)} of {reference.indices.size} tokens are sent as another codeword, and rounding does not explain it "
        f"(first: sample {rows[i]}, token {columns[i]}: {chosen[i]} instead of {expected[i]})"
    ]


def _chain_findings(model: Transceiver, sent: Transmission) -> list[str]:
    """Bits and symbols against those that the implementation's own indices mean by the checkpoint's label tables."""
    bits, symbols = np.zeros_like(sent.bits), np.zeros_like(sent.symbols)
    unused = np.zeros(sent.indices.shape, dtype=bool)
    for number, codec in enumerate(model.modes):
        link = codec.recipe
        rows = np.flatnonzero(sent.mode == number)
        indices = sent.indices[rows, : link.tokens]
        table = label_bits(codec.quantizer.labels.numpy(), link.index_bits)
        if len(rows) and (indices.min() < 0 or indices.max() >= len(table)):
            return []  # reported by _index_findings
        unused[rows, link.tokens :] = True
        bits[rows, : link.num_bits] = table[indices].reshape(len(rows), link.num_bits)
        points = map_bits(group(bits[rows, : link.num_bits].astype(np.float32), bits_per_symbol(link.order)))
        symbols[rows, : link.num_symbols] = points
    findings = []
    if (sent.indices * unused).any():
        findings.append("indices are not 0 past the tokens of the mode")
    if not np.array_equal(sent.bits, bits):
        findings.append(_first_difference("bits", sent.bits != bits, sent.bits, bits))
    wrong = ~(np.abs(sent.symbols - symbols) <= _SYMBOL_TOLERANCE)
    if wrong.any():
        findings.append(_first_difference("symbols", wrong, sent.symbols, symbols))
    return findings


def _first_difference(field: str, wrong: NDArray[np.bool_], got: NDArray[Any], expected: NDArray[Any]) -> str:
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (
        f"{int(wrong.sum())} of {wrong.size} values of {field} are not what the indices mean "
        f"(first: sample {first[0]}, position {first[1]}: {got[first]:g} instead of {expected[first]:g})"
    )
