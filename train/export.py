"""Checkpoint to bundle: two ONNX graphs, compared with torch before they are called done, and their manifest."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.chain import Link
from link.errors import BundleError
from link.interface import (
    MODE_INPUT,
    OWN_CHOICE,
    SNR_INPUT,
    TensorSpec,
    mode_input,
    receiver_inputs,
    receiver_outputs,
    transmitter_outputs,
)
from link.manifest import GraphSpec, LlrSpec, Manifest, Mode, ReceiverSpec, TokenizerSpec
from link.randomness import Draws, Stream
from train.agreement import parts
from train.answers import answer, follows
from train.graphs import RECEIVED, ReceiverGraph, TransmitterGraph
from train.receivers import Source, sources_of
from train.tasks import Split, Task, TextTask, receiver_inputs_of
from train.transceiver import Transceiver

OPSET: Final = 18
CHECKED_ROWS: Final = 360
"""Rows of the validation set that graphs and torch are compared on: a large encoder takes seconds for hundreds."""
BATCH_SIZES: Final = (1, 2, 7, 64, 256)
SYMBOL_TOLERANCE: Final = 1e-6
LLR_TOLERANCE: Final = 1e-3
LOGIT_TOLERANCE: Final = 1e-3
_GOLDEN: Final = (5.0**0.5 - 1.0) / 2.0
_SNR: Final = "Es/N0 as the transmitter has it, dB; beyond the range of training its nearer end counts."


def export(
    checkpoint_path: Path,
    bundle_path: Path,
    *,
    name: str | None = None,
    data_folder: Path | None = None,
    also: Mapping[str, Path] | None = None,
) -> Manifest:
    """Write a checkpoint's bundle, and check it before it takes its place.

    The graphs must pass onnx.checker, load, agree with torch on the validation set, and give each sample the same bits in
    every batch. An older bundle in that place is replaced only then.

    Parameters
    ----------
    checkpoint_path : Path
        Of a checkpoint, or of a run (its best).
    bundle_path : Path
    name : str, optional
        Of the bundle; the recipe's where absent.
    data_folder : Path, optional
        Files of the task's data set, where it needs any.
    also : mapping of str to Path, optional
        Further receivers by name: checkpoints, or runs, whose heads were trained behind this one's transmitter.

    Raises
    ------
    CheckpointError
        If a checkpoint cannot be read.
    BundleError
        If the graphs do not agree with torch, a transmitter in `also` is another, or `bundle_path` holds something else.
    """
    sources = sources_of(checkpoint_path, also)
    sample = _first_rows(sources[0].task.load(data_folder).validation, CHECKED_ROWS)
    if bundle_path.exists() and not _is_bundle(bundle_path):
        raise BundleError(f"{bundle_path} exists and is no bundle; name another place")
    bundle_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundle_path.parent, prefix=f".{bundle_path.name}-") as temporary:
        staged = Path(temporary) / "bundle"
        staged.mkdir()
        try:
            manifest = write_bundle(staged, sources, sample, name=name)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BundleError(f"{checkpoint_path} gives no valid manifest: {where}: {first['msg']}") from None
        check_bundle(staged, sources[0].model, sources[0].task, sample)
        for source in sources[1:]:
            own = sample
            if any(spec.name not in sample.inputs for spec in receiver_inputs_of(source.task)):
                own = _first_rows(source.task.load(data_folder).validation, CHECKED_ROWS)
            check_receiver(Link(load_bundle(staged, source.name)), source.model, source.task, own)
        if bundle_path.exists():
            bundle_path.rename(Path(temporary) / "replaced")
        staged.rename(bundle_path)
    return manifest


def write_bundle(folder: Path, sources: Sequence[Source], sample: Split, *, name: str | None = None) -> Manifest:
    """Write the graphs and the manifest into `folder`, unchecked. `sample` gives the exporter rows to trace."""
    first, *others = sources
    model, task, checkpoint = first.model, first.task, first.checkpoint
    link = model.recipe
    inputs = {spec.name: torch.from_numpy(sample.inputs[spec.name][:3]) for spec in task.inputs}
    takes = task.inputs
    if model.router is not None:
        low, high = model.router.snr_db
        takes = (
            *takes,
            TensorSpec(name=SNR_INPUT, dtype="float32", shape=("batch",), low=low, high=high, description=_SNR),
        )
        inputs[SNR_INPUT] = torch.zeros(len(next(iter(inputs.values()))))
    if link.modes:
        takes = (*takes, mode_input(len(link.rates)))
        inputs[MODE_INPUT] = torch.full((len(next(iter(inputs.values()))),), OWN_CHOICE)
    export_graph(TransmitterGraph(model), inputs, transmitter_outputs(link.rates), folder / "transmitter.onnx")
    manifest = Manifest(
        name=name or checkpoint.recipe.name,
        task=first.answers,
        modes=modes_of(model),
        default_mode=link.default_mode,
        header=checkpoint.recipe.header if link.modes else None,
        llr=LlrSpec(demapper=link.demapper, clip=link.llr_clip),
        tokenizer=_write_tokenizer(folder, task),
        transmitter=GraphSpec(
            file="transmitter.onnx",
            sha256=sha256(folder / "transmitter.onnx"),
            inputs=takes,
            outputs=transmitter_outputs(link.rates),
        ),
        receiver=_write_receiver(folder / "receiver.onnx", first),
        provenance=first.provenance,
        receiver_name=first.name,
        receivers=tuple(
            ReceiverSpec(
                name=source.name,
                task=source.answers,
                graph=_write_receiver(folder / f"receiver-{source.name}.onnx", source),
                provenance=source.provenance,
            )
            for source in others
        ),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _write_receiver(file: Path, source: Source) -> GraphSpec:
    """Trace a receiver into a file, and describe it."""
    side = receiver_inputs_of(source.task)
    link = source.model.recipe
    outputs = receiver_outputs(link.rates, len(source.task.classes), source.answers.positions)
    received = {
        "symbols": torch.zeros(3, link.num_symbols, 2),
        "no": torch.ones(3, link.num_symbols),
        "mode": torch.zeros(3, dtype=torch.int64),
        "llr_in": torch.zeros(3, link.num_bits),
        **{spec.name: _any_rows(spec) for spec in side},
    }
    export_graph(ReceiverGraph(source.model), received, outputs, file)
    return GraphSpec(file=file.name, sha256=sha256(file), inputs=receiver_inputs(link.rates, side), outputs=outputs)


def _any_rows(spec: TensorSpec) -> Tensor:
    """Three rows within the range of an input."""
    value = min(max(0.0, spec.low or 0.0), np.inf if spec.high is None else spec.high)
    return torch.from_numpy(np.full((3, *spec.sizes), value, dtype=spec.dtype))


def _write_tokenizer(folder: Path, task: Task) -> TokenizerSpec | None:
    """Write the task's tokenizer into the bundle, where it has one."""
    if not hasattr(task, "tokenizer"):
        return None
    text_task = cast(TextTask, task)
    file = folder / "tokenizer.json"
    file.write_text(text_task.tokenizer_json, encoding="utf-8")
    made = text_task.tokenizer
    return TokenizerSpec(sha256=sha256(file), length=made.length, pad_id=made.pad_id, pad_token=made.pad_token)


def export_graph(module: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[TensorSpec, ...], file: Path) -> None:
    """Trace a module into one ONNX file whose first dimension, `batch`, is dynamic, and pass it through onnx.checker."""
    shapes: tuple[Any, ...] = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    # What a forward takes as *inputs, or *side, is one argument to the exporter.
    if isinstance(module, TransmitterGraph):
        shapes = (shapes,)
    elif isinstance(module, ReceiverGraph) and len(shapes) > RECEIVED:
        shapes = (*shapes[:RECEIVED], shapes[RECEIVED:])
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[spec.name for spec in outputs],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)
    model = onnx.load(file)
    for node in model.graph.node:  # where in which file of which machine each was traced
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


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
    agreeing = float((sent.indices == expected[1].numpy()).mean())
    if agreeing < 1.0 - 1e-3:
        raise BundleError(f"transmitter.onnx and torch choose the same codeword in only {agreeing:.2%} of the tokens")
    same = (sent.indices == expected[1].numpy()).all(axis=1) & (sent.mode == expected[0].numpy())
    for name, wanted in zip(sent._fields, expected, strict=True):
        found = getattr(sent, name).astype(np.float64)
        worst = float(np.abs(found - wanted.numpy())[same].max(initial=0.0))
        if not worst <= SYMBOL_TOLERANCE:
            raise BundleError(
                f"{name} of transmitter.onnx and torch differ by {worst:.2e} where their codewords are the same, "
                f"more than {SYMBOL_TOLERANCE:g}"
            )


def modes_of(model: Transceiver) -> tuple[Mode, ...]:
    """The manifest's entries for a model."""
    return tuple(
        Mode(
            tokens=codec.recipe.tokens,
            codewords=codec.recipe.codewords,
            order=codec.recipe.order,
            labels=tuple(int(label) for label in codec.quantizer.labels),
            log_prior=tuple(float(value) for value in codec.quantizer.log_prior),
        )
        for codec in model.modes
    )


def spread_snr(model: Transceiver, rows: int) -> NDArray[np.float32] | None:
    """Estimates of Es/N0, (rows,), over all of the router's range and in no order; None where there is no router."""
    if model.router is None:
        return None
    low, high = model.router.snr_db
    return (low + (high - low) * (np.arange(rows) * _GOLDEN % 1.0)).astype(np.float32)


def _first_rows(split: Split, rows: int) -> Split:
    return Split({name: values[:rows] for name, values in split.inputs.items()}, split.labels[:rows])


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


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle of any version, whole or not; others have a manifest.json too."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.keys() >= {"schema_version", "transmitter", "receiver"}


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hold back what torch's exporter says of itself: packages it lacks, constants it does not fold, deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
