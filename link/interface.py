"""What the graphs of a bundle take and answer: names, dtypes and shapes, which follow from its modes and its answers.

    task inputs [, snr_db] [, mode_in] ──> transmitter.onnx ──> mode, indices, bits, num_bits, symbols, num_symbols
    symbols, no, mode, llr_in [, side inputs] ──> receiver.onnx ──> llr, indices_hat, and logits, or pieces and log_prob

Side inputs are what the receiver has of its own (a question to answer, say): they never pass the channel, and the manifest
names them beside the task. Where modes differ in size, arrays have the size of the largest. What each tensor means stands
with those who run the graphs: `link.runtime.Transmission`, `Receiver` and `Reception`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from link.rate import Rate

SNR_INPUT: Final = "snr_db"
"""Input of a transmitter that routes: its own estimate of Es/N0, dB."""

MODE_INPUT: Final = "mode_in"
"""Input of a transmitter of several modes: the mode to send each sample in, or OWN_CHOICE. (`mode` is what is sent.)"""

OWN_CHOICE: Final = -1
"""The mode of a sample that the transmitter chooses itself."""

DType = Literal["float32", "int64", "uint8"]
Dimension = Annotated[int, Field(ge=1)] | Literal["batch"]


class TensorSpec(BaseModel):
    """Name, dtype and shape of one input or output of a graph, and the range of an input."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    dtype: DType
    shape: tuple[Dimension, ...]
    low: float | None = None
    high: float | None = None
    description: str = ""

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The shape without the batch."""
        return tuple(size for size in self.shape if size != "batch")


def transmitter_outputs(modes: Iterable[Rate]) -> tuple[TensorSpec, ...]:
    """Outputs of a transmitter with these modes.

    Examples
    --------
    >>> modes = [Rate(tokens=3, codewords=8, order=16), Rate(tokens=3, codewords=8, order=4)]
    >>> [(tensor.name, *tensor.shape) for tensor in transmitter_outputs(modes)][1:5]
    [('indices', 'batch', 3), ('bits', 'batch', 9), ('num_bits', 'batch'), ('symbols', 'batch', 5, 2)]
    """
    largest = _Largest.of(modes)
    return (
        _tensor("mode", "int64"),
        _tensor("indices", "int64", largest.tokens),
        _tensor("bits", "uint8", largest.bits),
        _tensor("num_bits", "int64"),
        _tensor("symbols", "float32", largest.symbols, 2),
        _tensor("num_symbols", "int64"),
    )


def text_inputs(length: int, tokens: int) -> tuple[TensorSpec, TensorSpec]:
    """What a text becomes, of `length` places, for who knows so many tokens.

    Examples
    --------
    >>> [(tensor.name, *tensor.shape) for tensor in text_inputs(64, 30_522)]
    [('input_ids', 'batch', 64), ('attention_mask', 'batch', 64)]
    """
    ids, mask = (
        ("input_ids", tokens - 1, "Tokens of a text, special ones included, padded to the full length."),
        ("attention_mask", 1, "1 where a token is, else 0."),
    )
    made = [
        TensorSpec(name=name, dtype="int64", shape=("batch", length), low=0, high=high, description=description)
        for name, high, description in (ids, mask)
    ]
    return made[0], made[1]


def mode_input(modes: int) -> TensorSpec:
    """Input of a transmitter with so many modes by which a caller chooses among them."""
    description = f"mode to send the sample in; {OWN_CHOICE}: the transmitter's own choice"
    return TensorSpec(
        name=MODE_INPUT, dtype="int64", shape=("batch",), low=OWN_CHOICE, high=modes - 1, description=description
    )


def receiver_inputs(modes: Iterable[Rate], side: Iterable[TensorSpec] = ()) -> tuple[TensorSpec, ...]:
    """Inputs of a receiver with these modes, and behind them those that it has of its own."""
    largest = _Largest.of(modes)
    return (
        _tensor("symbols", "float32", largest.symbols, 2),
        _tensor("no", "float32", largest.symbols),
        _tensor("mode", "int64"),
        _tensor("llr_in", "float32", largest.bits),
        *side,
    )


def receiver_outputs(modes: Iterable[Rate], classes: int, positions: int = 0) -> tuple[TensorSpec, ...]:
    """Outputs of a receiver with these modes that tells so many classes apart, or names a piece of a text at each position.

    Examples
    --------
    >>> mode = Rate(tokens=3, codewords=8, order=16)
    >>> [tensor.name for tensor in receiver_outputs([mode], classes=0, positions=3)]
    ['llr', 'indices_hat', 'pieces', 'log_prob']
    """
    largest = _Largest.of(modes)
    answers: tuple[tuple[str, DType, int], ...] = (("logits", "float32", classes),)
    if positions:
        answers = ("pieces", "int64", positions), ("log_prob", "float32", positions)
    return (
        _tensor("llr", "float32", largest.bits),
        _tensor("indices_hat", "int64", largest.tokens),
        *(_tensor(*answer) for answer in answers),
    )


class _Largest(NamedTuple):
    """Of all modes, each count by itself."""

    tokens: int
    bits: int
    symbols: int

    @classmethod
    def of(cls, modes: Iterable[Rate]) -> _Largest:
        counts = [(mode.tokens, mode.num_bits, mode.num_symbols) for mode in modes]
        return cls(*map(max, zip(*counts, strict=True)))


def _tensor(name: str, dtype: DType, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *shape))
