"""Parameters of a request of the Open Inference Protocol: options of the link, and Triton's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from link.errors import ArgumentError
from serve.pb.inference import grpc_service_pb2 as pb

TIMEOUT: Final = "timeout"
"""Microseconds that a request may take."""
FINAL: Final = "triton_final_response"
"""Whether a reply of a stream is the last one to its request: here each request has one."""

# What Triton's clients may send and what changes no answer here: one queue serves all, and each request has one reply.
_IGNORED: Final = frozenset({"priority", "triton_enable_empty_final_response"})
_SEQUENCE: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class Options(NamedTuple):
    """What a request asks for beside its tensors.

    Attributes
    ----------
    link : dict of str to value
        Options of the link, those that were given.
    timeout_s : float, optional
        Seconds that the request may take.
    """

    link: dict[str, Any]
    timeout_s: float | None = None


NOTHING: Final = Options({})


def options_from_message(parameters: Mapping[str, pb.InferParameter], known: Collection[str]) -> Options:
    """The parameters of a request.

    Clients pass on what their users give, so a number may come as any kind of number, or as a text.

    Parameters
    ----------
    parameters : mapping of str to InferParameter
    known : collection of str
        Options of the link that the model takes.

    Raises
    ------
    ArgumentError
        If a parameter is unknown or of no use to the model, or its value is of the wrong kind.
    """
    if not parameters:
        return NOTHING
    link: dict[str, Any] = {}
    timeout_s = None
    for name, message in parameters.items():
        read = _LINK.get(name)
        if read is not None and name in known:
            link[name] = read(f"parameters.{name}", message)
        elif name == TIMEOUT:
            timeout_s = _timeout_s(message)
        elif name in _SEQUENCE:
            raise ArgumentError(f"parameters.{name}", "must be absent: samples are independent of each other")
        elif name not in _IGNORED:
            raise ArgumentError(f"parameters.{name}", f"is unknown; this model takes {', '.join((*known, TIMEOUT))}")
    return Options(link, timeout_s)


def options_to_message(
    options: Mapping[str, Any], message: pb.ModelInferResponse, written: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write into a reply which options were used, but for those that are written: as parameters, they give it again."""
    parameters = message.parameters
    for name, value in options.items():
        if value is not None and (name not in written or written[name] != value):
            setattr(parameters[name], _FIELDS[name], value)


def _number(field: str, message: pb.InferParameter) -> float:
    kind = message.WhichOneof("parameter_choice")
    if kind == "double_param":
        return message.double_param
    try:
        return float(_value(message, kind))
    except (TypeError, ValueError):
        raise ArgumentError(field, f"must be a number, got {_said(message, kind)}") from None


def _integer(field: str, message: pb.InferParameter) -> int:
    kind = message.WhichOneof("parameter_choice")
    if kind == "int64_param":
        return message.int64_param
    value: Any = None
    try:
        value = _value(message, kind)
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(field, f"must be an integer, got {_said(message, kind)}") from None
    if isinstance(value, float) and value != number:
        raise ArgumentError(field, f"must be an integer, got {value:g}")
    return number


def _text(field: str, message: pb.InferParameter) -> str:
    kind = message.WhichOneof("parameter_choice")
    if kind != "string_param":
        raise ArgumentError(field, f"must be a text, got {_said(message, kind)}")
    return message.string_param


def _value(message: pb.InferParameter, kind: str | None) -> Any:
    """The value of a parameter that may be a number, or the text of one."""
    if kind is None or kind == "bool_param":
        raise TypeError
    return getattr(message, kind)


def _said(message: pb.InferParameter, kind: str | None) -> str:
    return "nothing" if kind is None else repr(getattr(message, kind))


def _timeout_s(message: pb.InferParameter) -> float | None:
    """Triton's clients count in microseconds, and 0 means none."""
    microseconds = _integer(f"parameters.{TIMEOUT}", message)
    if microseconds < 0:
        raise ArgumentError(f"parameters.{TIMEOUT}", f"must be at least 0 microseconds, got {microseconds}")
    return 1e-6 * microseconds or None


_Reader = Callable[[str, pb.InferParameter], Any]
_LINK: Final[Mapping[str, _Reader]] = {
    "snr_db": _number,
    "channel": _text,
    "block_symbols": _integer,
    "k_factor_db": _number,
    "seed": _integer,
    "sample_offset": _integer,
    "draw": _integer,
    "snr_error_db": _number,
    "csi": _text,
    "pilots": _integer,
    "no_offset_db": _number,
    "mode": _integer,
}
_KINDS: Final[Mapping[_Reader, str]] = {_number: "double_param", _integer: "int64_param", _text: "string_param"}
_FIELDS: Final = {name: _KINDS[read] for name, read in _LINK.items()}
