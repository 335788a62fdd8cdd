"""The contract of a bundle: what training hands to everything else.

Interfaces of the graphs, modes and their header, LLRs, tokenizer, task and where it all comes from; strict: unknown keys are
refused. `link.bundle` reads it from disk and holds the files to it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from link.errors import ArgumentError
from link.interface import MODE_INPUT, SNR_INPUT, TensorSpec, receiver_inputs, receiver_outputs, transmitter_outputs
from link.rate import Rate
from link.side import check_side_inputs, side_inputs
from link.task import TaskSpec as TaskSpec
from link.task import TextSpec as TextSpec

SCHEMA_VERSION: Final = 1
MODES_MAX: Final = 32
"""What the header's first block can name."""
LLR_CONVENTION: Final = "ln P(b=1)/P(b=0)"
_TOLD: Final = {SNR_INPUT: ("Es/N0 in dB", ("float32", "batch")), MODE_INPUT: ("a mode", ("int64", "batch"))}

ReceiverName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,255}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GraphSpec(_Frozen):
    """One ONNX file and its interface."""

    file: FileName
    sha256: Sha256
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Mode(Rate):
    """One codebook with one constellation.

    Attributes
    ----------
    labels : tuple of int
        Label of each codeword; a permutation of 0 to codewords - 1.
    log_prior : tuple of float
        Log of each codeword's usage in training, smoothed, nats.
    """

    labels: tuple[int, ...]
    log_prior: tuple[Annotated[float, Field(le=0)], ...]

    @model_validator(mode="after")
    def _check_tables(self) -> Mode:
        if len(self.labels) != self.codewords or sorted(self.labels) != list(range(self.codewords)):
            raise ValueError(f"labels must be a permutation of 0 to {self.codewords - 1}")
        if len(self.log_prior) != self.codewords or not math.isclose(
            math.fsum(map(math.exp, self.log_prior)), 1.0, abs_tol=1e-4
        ):
            raise ValueError("log_prior must hold one log probability a codeword, summing to 1")
        return self


class LlrSpec(_Frozen):
    """How the receiver demaps: the sign, the demapper, and where LLRs are clipped."""

    convention: Literal["ln P(b=1)/P(b=0)"] = LLR_CONVENTION
    demapper: Literal["max-log", "app"]
    clip: Annotated[float, Field(gt=0)]


class HeaderSpec(_Frozen):
    """How the modes of a frame's samples are sent, where there are several; see link.header.

    Attributes
    ----------
    code : str
        Of a block, first-order Reed-Muller on QPSK: 6 bits in 16 symbols (`rm-1-5`), 5 in 8 (`rm-1-4`) or 4 in 4
        (`rm-1-3`).
    repeats : int
        Times that a block's symbols are sent.
    frame_samples : int
        Samples that share a header.
    threshold : float
        A block whose metric is below is lost; the metric's mean is 1, and 0 for a codeword that was not sent.

    Notes
    -----
    The defaults, by the exact rates of link.header_theory: with 4 repeats a block is right with probability 0.997 at -6 dB,
    where 64 symbols shared by 32 samples cost 2 a sample; with 2 it would be 0.93, with 8 the cost would double. At a
    threshold of 0.5, half way between a codeword sent and one not sent, 0.20 % are lost and 0.11 % wrong there; at 0.4 a
    tenth as many are lost and a third more wrong, at 0.6 six times as many are lost and half as many wrong. Where noise
    alone reaches the threshold, some 6 dB below, hardly anything is lost any more and all errors are wrong headers.
    """

    code: Literal["rm-1-3", "rm-1-4", "rm-1-5"] = "rm-1-5"
    repeats: Annotated[int, Field(ge=1, le=64)] = 4
    frame_samples: Annotated[int, Field(ge=1, le=64)] = 32
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5


class TokenizerSpec(_Frozen):
    """How a text becomes two inputs of the transmitter; a caller gives the text in their place.

    Attributes
    ----------
    length : int
        Tokens of every text, special ones included: longer texts are cut, shorter ones padded.
    pad_id, pad_token
        Of the padding.
    text : str
        What callers call the text.
    input_ids, attention_mask : str
        The inputs that it becomes, (batch, length) int64 each.
    """

    file: FileName = "tokenizer.json"
    sha256: Sha256
    length: Annotated[int, Field(ge=1, le=65536)]
    pad_id: Annotated[int, Field(ge=0)]
    pad_token: Annotated[str, Field(min_length=1)]
    text: Annotated[str, Field(min_length=1)] = "text"
    input_ids: str = "input_ids"
    attention_mask: str = "attention_mask"

    @property
    def becomes(self) -> tuple[str, str]:
        """Names of the inputs that the text becomes."""
        return self.input_ids, self.attention_mask


class Provenance(_Frozen):
    """Where the bundle comes from.

    Attributes
    ----------
    accuracy : mapping of Es/N0 in dB, as text, to accuracy
        Hard path on the validation set.
    facts : mapping
        What the task knew of its data, but for the tokenizer.
    """

    recipe: dict[str, Any]
    seed: int
    epoch: int
    phase: str
    temperature: float
    assignment_scale: float
    checkpoint_sha256: Sha256
    code_version: str
    libraries: dict[str, str]
    accuracy: dict[str, float]
    facts: dict[str, Any] = Field(default_factory=dict)


class ReceiverSpec(_Frozen):
    """A further receiver of what the transmitter sends: its task, its graph, and where it comes from."""

    name: ReceiverName
    task: TaskSpec
    graph: GraphSpec
    provenance: Provenance


class Manifest(_Frozen):
    """Everything that a transmitter and a receiver must agree on.

    Where a bundle has several receivers, `task`, `receiver` and `provenance` are of the one that is looked at: the first as
    the bundle lies on disk, any other in the manifest that `for_receiver` gives.

    Attributes
    ----------
    receiver_name : str
        Of the receiver that is looked at.
    receivers : tuple of ReceiverSpec
        The others.
    modes : tuple of Mode
        1 to 32. Where several differ in size the arrays of the graphs have the size of the largest: a sample's indices past
        its mode's tokens, its bits past its mode's bits and its symbols past its mode's symbols are 0 and not sent.
    default_mode : int
        What the receiver assumes where it knows none: that of a sample whose header was lost.
    header : HeaderSpec or None
        Present where, and only where, there are several modes.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    version: Annotated[int, Field(ge=1)] = 1
    task: TaskSpec
    modes: tuple[Mode, ...]
    default_mode: Annotated[int, Field(ge=0)] = 0
    header: HeaderSpec | None = None
    llr: LlrSpec
    transmitter: GraphSpec
    receiver: GraphSpec
    provenance: Provenance
    tokenizer: TokenizerSpec | None = None
    receiver_name: ReceiverName = "receiver"
    receivers: tuple[ReceiverSpec, ...] = ()

    @property
    def receiver_names(self) -> tuple[str, ...]:
        """Names of all receivers, the one that is looked at first."""
        return self.receiver_name, *(spec.name for spec in self.receivers)

    def for_receiver(self, name: str) -> Manifest:
        """The same with another receiver looked at.

        Raises
        ------
        ArgumentError
            If there is none of that name.
        """
        if name == self.receiver_name:
            return self
        chosen = next((spec for spec in self.receivers if spec.name == name), None)
        if chosen is None:
            known = ", ".join(sorted(self.receiver_names))
            raise ArgumentError("receiver", f"must be one of {known}, got {name!r}")
        left = ReceiverSpec(name=self.receiver_name, task=self.task, graph=self.receiver, provenance=self.provenance)
        return self.model_copy(
            update={
                "receiver_name": chosen.name,
                "task": chosen.task,
                "receiver": chosen.graph,
                "provenance": chosen.provenance,
                "receivers": tuple(left if spec is chosen else spec for spec in self.receivers),
            }
        )

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """What a sample is given as: its inputs at either end, and a text in place of those that it becomes."""
        return self.given_as(self.sample_inputs)

    @cached_property
    def side_inputs(self) -> tuple[TensorSpec, ...]:
        """What the receiver has of its own: its inputs behind those that it receives; none in most bundles."""
        return side_inputs(self.receiver.inputs, self.task.receiver_inputs)

    @cached_property
    def sample_inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs of a sample: the transmitter's, and those that the receiver alone has."""
        sent = {spec.name for spec in self.task_inputs}
        return (*self.task_inputs, *(spec for spec in self.side_inputs if spec.name not in sent))

    def given_as(self, specs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
        """Names that some inputs are given under: a text, first, in place of those that it becomes."""
        text = self.text_of(specs)
        names = tuple(spec.name for spec in specs)
        return names if text is None else (text.text, *(name for name in names if name not in text.becomes))

    def text_of(self, specs: tuple[TensorSpec, ...]) -> TokenizerSpec | None:
        """The tokenizer, where some of these inputs are made of a text."""
        names = {spec.name for spec in specs}
        return None if self.tokenizer is None or names.isdisjoint(self.tokenizer.becomes) else self.tokenizer

    @cached_property
    def routed(self) -> bool:
        """Whether the transmitter chooses by its own estimate of Es/N0, the input `snr_db`."""
        return any(spec.name == SNR_INPUT for spec in self.transmitter.inputs)

    @cached_property
    def takes_mode(self) -> bool:
        """Whether a caller may choose among the modes, by the input `mode_in`; older bundles have none."""
        return any(spec.name == MODE_INPUT for spec in self._told)

    @cached_property
    def task_inputs(self) -> tuple[TensorSpec, ...]:
        """The transmitter's inputs that a sample has: all but `snr_db` and, where there are several modes, `mode_in`."""
        return tuple(spec for spec in self.transmitter.inputs if spec not in self._told)

    @cached_property
    def _told(self) -> tuple[TensorSpec, ...]:
        """The transmitter's inputs that are no sample's: see link.choice."""
        names = (SNR_INPUT,) if len(self.modes) == 1 else (SNR_INPUT, MODE_INPUT)
        return tuple(spec for spec in self.transmitter.inputs if spec.name in names)

    @cached_property
    def num_tokens(self) -> int:
        """N: tokens of the longest mode."""
        return max(mode.tokens for mode in self.modes)

    @cached_property
    def num_bits(self) -> int:
        """L: payload bits of the longest mode."""
        return max(mode.num_bits for mode in self.modes)

    @cached_property
    def num_symbols(self) -> int:
        """S: symbols of the longest mode."""
        return max(mode.num_symbols for mode in self.modes)

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if not 1 <= len(self.modes) <= MODES_MAX:
            raise ValueError(f"modes: a bundle has 1 to {MODES_MAX}, got {len(self.modes)}")
        if (self.header is None) == (len(self.modes) > 1):
            raise ValueError(
                f"header must be {'given' if self.header is None else 'absent'} for {len(self.modes)} mode"
                f"{'s' if len(self.modes) > 1 else ''}"
            )
        if self.default_mode >= len(self.modes):
            raise ValueError(f"default_mode must be below {len(self.modes)}, got {self.default_mode}")
        if not self.task_inputs:
            told = " and ".join(spec.name for spec in self._told) or "none"
            raise ValueError(f"transmitter.inputs: must hold an input of the task beside {told}")
        for spec in self._told:
            what, signature = _TOLD[spec.name]
            if (spec.dtype, *spec.shape) != signature:
                raise ValueError(
                    f"transmitter.inputs: {spec.name} is {_signature((spec.dtype, *spec.shape))} where {what} is "
                    f"{_signature(signature)}"
                )
        for name, tensors, wanted in (
            ("transmitter.outputs", self.transmitter.outputs, transmitter_outputs(self.modes)),
            *self._interfaces("receiver", self.receiver, self.task),
            *(beside for spec in self.receivers for beside in self._interfaces(spec.name, spec.graph, spec.task)),
        ):
            found, expected = _signatures(tensors), _signatures(wanted)
            for tensor_name in sorted(found.keys() | expected.keys()):
                if found.get(tensor_name) != expected.get(tensor_name):
                    raise ValueError(
                        f"{name}: {tensor_name} is {_signature(found.get(tensor_name))} where modes and task mean "
                        f"{_signature(expected.get(tensor_name))}"
                    )
        if len(set(self.receiver_names)) < len(self.receiver_names):
            raise ValueError(f"receivers: each has a name of its own, got {', '.join(self.receiver_names)}")
        return self

    @model_validator(mode="after")
    def _check_tokenizer(self) -> Manifest:
        spec = self.tokenizer
        if spec is None:
            if any(task.text is not None for task in (self.task, *(other.task for other in self.receivers))):
                raise ValueError("tokenizer: must be there where a text is answered")
            return self
        ends = {"transmitter": self.task_inputs, "receiver": self.side_inputs} | {
            other.name: side_inputs(other.graph.inputs, other.task.receiver_inputs) for other in self.receivers
        }
        inputs = {end: _signatures(specs) for end, specs in ends.items()}
        if any(spec.text in names for names in inputs.values()) or spec.input_ids == spec.attention_mask:
            raise ValueError(
                f"tokenizer: {', '.join((spec.text, *spec.becomes))} must be three names, the first no input"
            )
        wanted = ("int64", "batch", spec.length)
        # An end reads a text or not; that some end does is what the tokenizer is there for.
        reading = {end: names for end, names in inputs.items() if not names.keys().isdisjoint(spec.becomes)}
        for end, names in (reading or {"transmitter": inputs["transmitter"]}).items():
            for name in spec.becomes:
                if names.get(name) != wanted:
                    raise ValueError(
                        f"{end}.inputs: {name} is {_signature(names.get(name))} where the tokenizer means "
                        f"{_signature(wanted)}"
                    )
        return self

    def _interfaces(
        self, name: str, graph: GraphSpec, task: TaskSpec
    ) -> tuple[tuple[str, tuple[TensorSpec, ...], tuple[TensorSpec, ...]], ...]:
        """A receiver's inputs and outputs beside what modes and task make of them."""
        linked = {spec.name for spec in (*receiver_inputs(self.modes), *self._told)}
        try:
            side = check_side_inputs(graph.inputs, task.receiver_inputs, linked, self.transmitter.inputs)
        except ValueError as error:
            raise ValueError(f"{name}.inputs: {error}") from None
        return (
            (f"{name}.inputs", graph.inputs, receiver_inputs(self.modes, side)),
            (f"{name}.outputs", graph.outputs, receiver_outputs(self.modes, len(task.classes), task.positions)),
        )


def _signatures(tensors: tuple[TensorSpec, ...]) -> dict[str, tuple[str | int, ...]]:
    """Dtype and shape by name."""
    return {tensor.name: (tensor.dtype, *tensor.shape) for tensor in tensors}


def _signature(tensor: tuple[str | int, ...] | None) -> str:
    return "absent" if tensor is None else f"{tensor[0]} ({', '.join(map(str, tensor[1:]))})"
