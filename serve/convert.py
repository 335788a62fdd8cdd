"""Messages to arrays and back: the only code that touches both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError
from link.runtime import Transmission
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.results import Decoded, Sent, Settings, Timing, Transmitted

MAX_DIMENSIONS: Final = 8
DATA_TYPES: Final = {"float32": pb.DATA_TYPE_FLOAT32, "int64": pb.DATA_TYPE_INT64, "uint8": pb.DATA_TYPE_UINT8}

_VALUES: Final = {"float32_values": "float32", "int64_values": "int64", "uint8_values": "uint8"}
_NAMES: Final = {number: name for name, number in DATA_TYPES.items()}
_MODE_MAX: Final = 2**31 - 1


def tensor_from_message(field: str, message: pb.Tensor) -> NDArray[Any]:
    """The array that a message holds; its shape is checked, its meaning is not.

    Raises
    ------
    ArgumentError
        If it holds no data or data twice, if data type or shape are unusable, or if the data do not fill the shape.
    """
    sources = [name for name in (*_VALUES, "raw") if len(getattr(message, name))]
    if len(sources) != 1:
        given = " and ".join(sources) or "none"
        raise ArgumentError(field, f"must have exactly one of {', '.join(_VALUES)} and raw, got {given}")
    source = sources[0]
    dtype = _dtype(field, message, source)
    shape = _shape(field, message)
    if source == "raw":
        array = _from_raw(field, message.raw, dtype)
    else:
        array = np.array(getattr(message, source))
        if dtype == "uint8" and array.max() > 255:
            raise ArgumentError(f"{field}.{source}", f"must be in [0, 255], got {array.max()}")
        array = array.astype(dtype, copy=False)
    if array.size != math.prod(shape):
        wanted = " x ".join(map(str, shape)) or "1"
        raise ArgumentError(f"{field}.shape", f"must multiply to the {array.size} values in {source}, got {wanted}")
    return array.reshape(shape)


def _dtype(field: str, message: pb.Tensor, source: str) -> str:
    stated = _NAMES.get(message.data_type)
    if stated is None and (message.data_type != pb.DATA_TYPE_UNSPECIFIED or source == "raw"):
        known = ", ".join(pb.DataType.Name(number) for number in _NAMES)
        raise ArgumentError(f"{field}.data_type", f"must be one of {known}, got {message.data_type}")
    if source == "raw":
        assert stated is not None
        return stated
    if stated not in (None, _VALUES[source]):
        raise ArgumentError(f"{field}.data_type", f"must agree with {source} or be left out, got {stated}")
    return _VALUES[source]


def _shape(field: str, message: pb.Tensor) -> tuple[int, ...]:
    if len(message.shape) > MAX_DIMENSIONS:
        raise ArgumentError(
            f"{field}.shape", f"must have at most {MAX_DIMENSIONS} dimensions, got {len(message.shape)}"
        )
    if any(size < 1 for size in message.shape):
        raise ArgumentError(f"{field}.shape", f"must hold sizes of at least 1, got {list(message.shape)}")
    return tuple(message.shape)


def _from_raw(field: str, raw: bytes, dtype: str) -> NDArray[Any]:
    stored = np.dtype(dtype).newbyteorder("<")
    if len(raw) % stored.itemsize:
        raise ArgumentError(f"{field}.raw", f"must hold a multiple of {stored.itemsize} bytes, got {len(raw)}")
    return np.frombuffer(raw, stored).astype(dtype, copy=False)


def tensor_to_message(field: str, value: ArrayLike, tensor_format: int = pb.TENSOR_FORMAT_RAW) -> pb.Tensor:
    """An array as a message: float32, int64 or uint8 as its own type, other numbers as the nearest of these.

    Raises
    ------
    ArgumentError
        If `value` is no array of numbers that one of the three types holds.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ArgumentError(field, "must be an array with rows of equal length") from None
    kind = array.dtype.kind
    if kind not in "biuf":
        raise ArgumentError(field, f"must hold numbers, got dtype {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ArgumentError(field, f"must fit into int64, got {array.max()}")
    dtype = "float32" if kind == "f" else "uint8" if array.dtype.itemsize == 1 and kind in "bu" else "int64"
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the receiving end refuses by name
        array = array.astype(dtype, copy=False)
    if array.ndim > MAX_DIMENSIONS:
        raise ArgumentError(field, f"must have at most {MAX_DIMENSIONS} dimensions, got {array.ndim}")
    message = pb.Tensor(data_type=DATA_TYPES[dtype], shape=array.shape)
    if tensor_format == pb.TENSOR_FORMAT_RAW:
        message.raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    else:
        getattr(message, f"{dtype}_values").extend(array.ravel().tolist())
    return message


def inputs_from_message(messages: Mapping[str, pb.Tensor]) -> dict[str, NDArray[Any]]:
    """The inputs of Encode and Transmit."""
    return {name: tensor_from_message(f"inputs.{name}", message) for name, message in messages.items()}


def inputs_to_message(inputs: Mapping[str, ArrayLike]) -> dict[str, pb.Tensor]:
    """Inverse of `inputs_from_message`."""
    return {name: tensor_to_message(f"inputs.{name}", value) for name, value in inputs.items()}


def mode_from_message(modes: Iterable[int]) -> NDArray[np.int64] | None:
    """Modes of a Decode request, None where left out."""
    return np.array(list(modes), dtype=np.int64) if modes else None


def mode_to_message(mode: ArrayLike | None) -> list[int]:
    """Inverse of `mode_from_message`."""
    if mode is None:
        return []
    modes = np.asarray(mode)
    if modes.ndim != 1 or modes.dtype.kind not in "iu" or (modes.size and not 0 <= modes.min() <= modes.max() <= _MODE_MAX):
        raise ArgumentError("mode", "must hold one mode a sample, counted from 0")
    return [int(value) for value in modes]


def settings_from_message(message: pb.LinkSettings) -> Settings:
    """The settings of a Transmit request.

    Raises
    ------
    ArgumentError
        If there is no SNR.
    """
    if not message.HasField("snr_db"):
        raise ArgumentError("snr_db", "is missing: give Es/N0 in dB")
    return Settings(
        snr_db=message.snr_db,
        channel=message.channel or "awgn",
        block_symbols=message.block_symbols,
        k_factor_db=message.k_factor_db if message.HasField("k_factor_db") else None,
        seed=message.seed,
        sample_offset=message.sample_offset,
        draw=message.draw,
    )


def settings_to_message(settings: Settings) -> pb.LinkSettings:
    """Inverse of `settings_from_message`.

    Raises
    ------
    ArgumentError
        If a value does not fit into its field.
    """
    message = pb.LinkSettings()
    for name, value in vars(settings).items():
        if value is None:
            continue
        try:
            setattr(message, name, value)
        except (TypeError, ValueError, OverflowError):
            kind = _KINDS[name]
            raise ArgumentError(name, f"must be {kind}, got {value!r}") from None
    return message


_KINDS: Final = {
    "snr_db": "a number, Es/N0 in dB",
    "channel": "the name of a channel",
    "block_symbols": "an integer in [0, 2**31)",
    "k_factor_db": "a number, in dB",
    "seed": "an integer in [0, 2**63)",
    "sample_offset": "an integer in [0, 2**32)",
    "draw": "an integer in [0, 2**32)",
}


def sent_to_message(sent: Transmission | Sent, tensor_format: int, include_symbols: bool) -> pb.Transmission:
    """What was sent."""
    message = pb.Transmission(
        mode=sent.mode.tolist(),
        indices=tensor_to_message("indices", sent.indices, tensor_format),
        bits=tensor_to_message("bits", sent.bits, tensor_format),
        num_bits=sent.num_bits.tolist(),
        num_symbols=sent.num_symbols.tolist(),
    )
    if include_symbols and sent.symbols is not None:
        message.symbols.CopyFrom(tensor_to_message("symbols", sent.symbols, tensor_format))
    return message


def sent_from_message(message: pb.Transmission) -> Sent:
    """Inverse of `sent_to_message`."""
    return Sent(
        mode=np.array(message.mode, dtype=np.int64),
        indices=tensor_from_message("indices", message.indices),
        bits=tensor_from_message("bits", message.bits),
        num_bits=np.array(message.num_bits, dtype=np.int64),
        symbols=tensor_from_message("symbols", message.symbols) if message.HasField("symbols") else None,
        num_symbols=np.array(message.num_symbols, dtype=np.int64),
    )


def decoded_to_message(decoded: Decoded, tensor_format: int, include_llr: bool) -> pb.Reception:
    """What the receiver found."""
    rows = zip(decoded.decisions.tolist(), decoded.class_names, decoded.probabilities, strict=True)
    message = pb.Reception(
        decisions=[pb.Decision(class_index=i, class_name=name, probability=float(p[i])) for i, name, p in rows],
        probabilities=tensor_to_message("probabilities", decoded.probabilities, tensor_format),
        logits=tensor_to_message("logits", decoded.logits, tensor_format),
        indices_hat=tensor_to_message("indices_hat", decoded.indices_hat, tensor_format),
    )
    if include_llr and decoded.llr is not None:
        message.llr.CopyFrom(tensor_to_message("llr", decoded.llr, tensor_format))
    return message


def decoded_from_message(message: pb.Reception) -> Decoded:
    """Inverse of `decoded_to_message`."""
    return Decoded(
        decisions=np.array([decision.class_index for decision in message.decisions], dtype=np.int64),
        class_names=tuple(decision.class_name for decision in message.decisions),
        probabilities=tensor_from_message("probabilities", message.probabilities),
        logits=tensor_from_message("logits", message.logits),
        indices_hat=tensor_from_message("indices_hat", message.indices_hat),
        llr=tensor_from_message("llr", message.llr) if message.HasField("llr") else None,
    )
