"""The receivers that a bundle gets: one for each question of a checkpoint's task, and those of heads trained behind it.

run A ─┬─ transmitter ──────────────────────────────> transmitter.onnx
├─ head of its first question ───────────────> receiver.onnx
└─ head of its second question ──────────────> receiver-SECOND.onnx
run B, trained behind run A's transmitter ── head ──> receiver-NAME.onnx
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from link.bundle import sha256
from link.errors import ArgumentError, BundleError
from link.manifest import Provenance, TaskSpec
from link.provenance import library_versions
from link.sequence import SequenceTables
from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint
from train.questions import ask
from train.sequence_run import load_sequence
from train.tasks import TOKENIZER_FACT, Task, questions_of, receiver_inputs_of, text_of
from train.transceiver import Transceiver
from train.transmitter import transmitter_sha256


class Source(NamedTuple):
    """What a receiver is made of.

    Attributes
    ----------
    name : str
        Of the receiver.
    model : Transceiver
        As it is deployed, with the head of the receiver's question alone.
    task : Task
        Of that question alone.
    question : str or None
        Where the checkpoint's task has several.
    checkpoint : Checkpoint
    checkpoint_sha256 : str
        Of its file.
    sequence : SequenceTables or None
        By which windows of a recording are decided together.
    """

    name: str
    model: Transceiver
    task: Task
    question: str | None
    checkpoint: Checkpoint
    checkpoint_sha256: str
    sequence: SequenceTables | None = None

    @property
    def answers(self) -> TaskSpec:
        """Task and classes, as the manifest says them, without the sequence's file."""
        names = tuple(spec.name for spec in receiver_inputs_of(self.task))
        return TaskSpec(
            name=self.task.name,
            classes=self.task.classes,
            question=self.question,
            text=text_of(self.task),
            receiver_inputs=names,
        )

    @property
    def provenance(self) -> Provenance:
        """Where it comes from, as the manifest says it."""
        found = self.checkpoint
        return Provenance(
            recipe=found.recipe.model_dump(mode="json"),
            seed=found.recipe.seed,
            epoch=found.epoch,
            phase=found.phase.value,
            temperature=found.vq_temp,
            assignment_scale=float(self.model.quantizer.scale),
            checkpoint_sha256=self.checkpoint_sha256,
            code_version=found.code_version,
            libraries=library_versions("torch", "numpy", "onnx", "onnxscript", "onnxruntime"),
            accuracy=found.hard_accuracy,
            facts={name: value for name, value in found.facts.items() if name != TOKENIZER_FACT},
        )


def sources_of(checkpoint_path: Path, also: Mapping[str, Path] | None = None) -> tuple[Source, ...]:
    """The receivers of a checkpoint, and of others whose transmitter is the same, by the names that they are to have.

    The receivers of a task of several questions bear the names of these, a single one that of its recipe. Of another
    checkpoint with several questions each receiver is NAME-QUESTION.

    Raises
    ------
    CheckpointError
        If a checkpoint cannot be read.
    BundleError
        If one was saved in warm-up, or has another transmitter than the first.
    ArgumentError
        If two receivers would have one name.
    """
    sources = [*_read(checkpoint_path)]
    first = sources[0].model
    expected = transmitter_sha256(first) if also else ""
    for name, path in (also or {}).items():
        more = [*_read(path, name)]
        if transmitter_sha256(more[0].model) != expected:
            raise BundleError(
                f"{path} has another transmitter than {checkpoint_path}: train its head with --transmitter {checkpoint_path}"
            )
        sources += more
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError("--also", f"gives two receivers the name {name}: each needs one of its own")
    return tuple(sources)


def _read(path: Path, name: str | None = None) -> Iterator[Source]:
    found, trained = checkpoints.load(path)
    if not found.hard_accuracy:
        raise BundleError(f"{path} was saved in warm-up, before it had a codebook; train on")
    task, hash_of_file = checkpoints.task_of(found), sha256(checkpoints.checkpoint_file(path))
    questions = tuple(questions_of(task)) or (None,)
    stage = load_sequence(path)
    sequence = None if stage is None else stage.arrays()
    for question in questions:
        own = found.recipe.name if question is None else question
        if name is not None:
            own = name if question is None else f"{name}-{question}"
        yield Source(own, *ask(trained.deployed(), task, question), question, found, hash_of_file, sequence)
