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
from link.manifest import GraphSpec, LlrSpec, Manifest, Mode, ReceiverSpec, TaskSpec, TokenizerSpec
from link.sequence_file import write_sequence
from link.task import SequenceSpec
from train.bundle_check import check_bundle, check_receiver
from train.graphs import RECEIVED, ReceiverGraph, TransmitterGraph
from train.receivers import Source, sources_of
from train.tasks import Split, Task, TextTask, receiver_inputs_of
from train.transceiver import Transceiver

OPSET: Final = 18
CHECKED_ROWS: Final = 360
"""Rows of the validation set that graphs and torch are compared on: a large encoder takes seconds for hundreds."""
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
        task=_write_answers(folder, "sequence.npz", first),
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
                task=_write_answers(folder, f"sequence-{source.name}.npz", source),
                graph=_write_receiver(folder / f"receiver-{source.name}.onnx", source),
                provenance=source.provenance,
            )
            for source in others
        ),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _write_answers(folder: Path, name: str, source: Source) -> TaskSpec:
    """Write by what windows of a recording are decided together, where there is such a thing, and describe the answers."""
    if source.sequence is None:
        return source.answers
    write_sequence(source.sequence, folder / name)
    held = {"hdp": source.sequence.hdp, "hsmm": source.sequence.hsmm}
    parts = tuple(part for part, tables in held.items() if tables is not None)
    spec = SequenceSpec.model_validate({"file": name, "sha256": sha256(folder / name), "parts": parts})
    return source.answers.model_copy(update={"sequence": spec})


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


def _first_rows(split: Split, rows: int) -> Split:
    return Split({name: values[:rows] for name, values in split.inputs.items()}, split.labels[:rows])


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
