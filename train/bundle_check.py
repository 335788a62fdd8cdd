"""Whether the graphs of a bundle do what torch does, and a sample stands alone in every batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.bundle import load_bundle
from link.chain import Link
from link.errors import BundleError
from link.interface import OWN_CHOICE
from link.randomness import Draws, Stream
from train.agreement import parts
from train.answers import answer, follows
from train.graphs import TransmitterGraph
from train.tasks import Split, Task, receiver_inputs_of
from train.transceiver import Transceiver

BATCH_SIZES: Final = (1, 2, 7, 64, 256)
SYMBOL_TOLERANCE: Final = 1e-6
LLR_TOLERANCE: Final = 1e-3
LOGIT_TOLERANCE: Final = 1e-3
_FEW_TIES: Final = 2
"""Tokens that may be exchanged however few there are: of some hundred, 512 codewords leave one in ten exports with a tie."""
_GOLDEN: Final = (5.0**0.5 - 1.0) / 2.0


def check_bundle(folder: Path, model: Transceiver, task: Task, sample: Split) -> None:
    """Compare the graphs with torch on a split, and each sample with itself in other batches.

    Raises
    ------
    BundleError
        If they differ by more than float32 explains, or a bit depends on the batch.
    """
    link = Link(load_bundle(folder))
    inputs = {spec.name: sample.inputs[spec.name] for spec in task.inputs}
    snr_db = spread_snr(model, len(sample))
    _check_transmitter(link, model, inputs, snr_db)
    if link.manifest.takes_mode:  # all of them in turn, the transmitter's own choice among them
        in_turn = np.arange(len(sample)) % (1 + len(link.manifest.modes)) + OWN_CHOICE
        _check_transmitter(link, model, inputs, snr_db, in_turn)
    _check_batch_invariance(link, inputs, snr_db)
    check_receiver(link, model, task, sample)


def _check_transmitter(
    link: Link,
    model: Transceiver,
    inputs: Mapping[str, NDArray[Any]],
    snr_db: NDArray[np.float32] | None,
    mode: NDArray[np.int64] | None = None,
) -> None:
    sent = link.transmitter(inputs, snr_db, mode)
    told: list[NDArray[Any]] = [] if snr_db is None else [snr_db]
    if model.recipe.modes:
        told.append(np.full(len(sent.mode), OWN_CHOICE) if mode is None else mode)
    with torch.no_grad():
        expected = TransmitterGraph(model)(*map(torch.from_numpy, (*inputs.values(), *told)))
    routed = float((sent.mode == expected[0].numpy()).mean())
    if routed < 1.0 - 1e-2:
        raise BundleError(f"transmitter.onnx and torch choose the same mode for only {routed:.2%} of the samples")
    agreeing = sent.indices == expected[1].numpy()
    if (~agreeing).sum() > max(_FEW_TIES, 1e-3 * agreeing.size):
        share = float(agreeing.mean())
        raise BundleError(f"transmitter.onnx and torch choose the same codeword in only {share:.2%} of the tokens")
    same = (sent.indices == expected[1].numpy()).all(axis=1) & (sent.mode == expected[0].numpy())
    for name, wanted in zip(sent._fields, expected, strict=True):
        found = getattr(sent, name).astype(np.float64)
        worst = float(np.abs(found - wanted.numpy())[same].max(initial=0.0))
        if not worst <= SYMBOL_TOLERANCE:
            raise BundleError(
                f"{name} of transmitter.onnx and torch differ by {worst:.2e} where their codewords are the same, "
                f"more than {SYMBOL_TOLERANCE:g}"
            )


def spread_snr(model: Transceiver, rows: int) -> NDArray[np.float32] | None:
    """Estimates of Es/N0, (rows,), over all of the router's range and in no order; None where there is no router."""
    if model.router is None:
        return None
    low, high = model.router.snr_db
    return (low + (high - low) * (np.arange(rows) * _GOLDEN % 1.0)).astype(np.float32)


@torch.no_grad()
def _tokens(model: Transceiver, task: Task, sample: Split) -> Tensor:
    """Tokens (n, N, D) of a split, some rows at a time."""
    rows = [torch.from_numpy(sample.inputs[spec.name]) for spec in task.inputs]
    return torch.cat([model.encode(*(tensor[part] for tensor in rows)) for part in parts(len(sample))])


def _check_batch_invariance(link: Link, inputs: Mapping[str, NDArray[Any]], snr_db: NDArray[np.float32] | None) -> None:
    whole = link.transmitter(inputs, snr_db)
    rows = len(whole.bits)
    for size in BATCH_SIZES:
        chunks = [
            link.transmitter(
                {key: value[start : start + size] for key, value in inputs.items()},
                None if snr_db is None else snr_db[start : start + size],
            )
            for start in range(0, rows, size)
        ]
        bits, mode = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("bits", "mode"))
        changed = int(((bits != whole.bits).any(axis=1) | (mode != whole.mode)).sum())
        if changed:
            raise BundleError(
                f"{changed} of {rows} samples are sent as other bits in batches of {size} than all at once"
            )


def check_receiver(link: Link, model: Transceiver, task: Task, sample: Split) -> None:
    """Compare a receiver's graph with torch on what is received of a split, in all modes in turn.

    Where pieces follow from those before, the first that is another counts as one, and no score from there on: rounding
    may exchange two that tie, and what follows is another text.

    Raises
    ------
    BundleError
        If they differ by more than float32 explains.
    """
    tokens = _tokens(model, task, sample)
    side = {spec.name: sample.inputs[spec.name] for spec in receiver_inputs_of(task)}
    mode = torch.arange(len(tokens)) % len(model.recipe.rates)
    with torch.no_grad():
        symbols = model.send_hard(tokens, mode).symbols.numpy()
    rows, length = symbols.shape[:2]
    noise = Draws(0, np.arange(rows)).normals(Stream.NOISE, 0, length)
    y = (symbols + 0.3 * noise).astype(np.float32)
    no = np.full((rows, length), 0.18, dtype=np.float32)
    llr_in = noise.repeat(-(-link.manifest.num_bits // (2 * length)), axis=1).reshape(rows, -1)[
        :, : link.manifest.num_bits
    ]
    heard = link.receiver(y, no, mode.numpy(), llr_in, side)
    with torch.no_grad():
        given = torch.from_numpy(llr_in.astype(np.float32))
        own = [torch.from_numpy(values) for values in side.values()]
        expected = model.receive(torch.from_numpy(y), torch.from_numpy(no), given, mode, answers=False)
        said = answer(model.head, expected.embedding, own)
    file = link.manifest.receiver.file
    same = heard.decisions == said.decisions.numpy()
    scores: Any = ...
    if follows(model.head):
        scores = np.logical_and.accumulate(same, axis=1)
        same = scores | ~np.pad(scores[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    for name, found, wanted, where, tolerance in (
        ("llr", heard.llr, expected.llr, ..., LLR_TOLERANCE),
        ("logits" if heard.log_prob is None else "log_prob", heard.score, said.score, scores, LOGIT_TOLERANCE),
    ):
        worst = float(np.abs(found - wanted.numpy())[where].max(initial=0.0))
        if not worst <= tolerance:
            raise BundleError(f"{name} of {file} and torch differ by {worst:.2e}, more than {tolerance:g}")
    for name, alike in (
        ("find the same codeword", heard.indices_hat == expected.indices_hat.numpy()),
        ("answer the same", same),
    ):
        agreeing = float(alike.mean())
        if agreeing < 1.0 - 1e-3:
            raise BundleError(f"{file} and torch {name} in only {agreeing:.2%} of the places")
