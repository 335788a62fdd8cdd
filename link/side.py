"""Side inputs of a receiver: what it has of its own, as side information at the decoder (Wyner and Ziv 1976).

    symbols, no, mode, llr_in, [question, ...] ──> receiver.onnx
    └─── what the link gives ──┘  └ side inputs, named by the task and given by whoever asks

They never pass the channel, so a task must name them: an input of the graph that nobody names would be a way past it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from link.interface import TensorSpec


def side_inputs(inputs: Sequence[TensorSpec], names: Collection[str]) -> tuple[TensorSpec, ...]:
    """Those of a receiver's inputs that its task names as its own."""
    return tuple(spec for spec in inputs if spec.name in names)


def check_side_inputs(
    inputs: Sequence[TensorSpec], names: Sequence[str], linked: Collection[str], sent: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """The side inputs among a receiver's inputs, once they are found in order.

    Parameters
    ----------
    inputs : sequence of TensorSpec
        All of the receiver.
    names : sequence of str
        The task's own, in order.
    linked : collection of str
        Names that are the link's.
    sent : sequence of TensorSpec
        Of the transmitter: an input of both ends is the same at both.

    Raises
    ------
    ValueError
        If one is missing, given twice, in another place than behind the link's inputs, named as one of these, no rows of a
        batch, or another one at the transmitter.
    """
    side = side_inputs(inputs, names)
    for spec in side:
        if spec.name in linked:
            raise ValueError(f"{spec.name} is one of the link's, and cannot be the task's own")
    if tuple(spec.name for spec in side) != tuple(names) or tuple(inputs[len(inputs) - len(side) :]) != side:
        raise ValueError(f"the task's own, {', '.join(names)}, must stand behind those of the link, each once")
    others = {spec.name: (spec.dtype, *spec.shape) for spec in sent}
    for spec in side:
        if spec.shape[:1] != ("batch",) or "batch" in spec.shape[1:]:
            raise ValueError(f"{spec.name} must have one batch, in front, got ({', '.join(map(str, spec.shape))})")
        other = others.get(spec.name, (spec.dtype, *spec.shape))
        if other != (spec.dtype, *spec.shape):
            raise ValueError(
                f"{spec.name} is {spec.dtype} ({', '.join(map(str, spec.shape))}) where the transmitter has "
                f"{other[0]} ({', '.join(map(str, other[1:]))})"
            )
    return side
