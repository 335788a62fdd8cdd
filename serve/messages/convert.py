"""Messages of hardpath.v1 to arrays and back: with serve.messages.tensor the only code that touches both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.channel import RADIO
from link.channel.frames import FrameCounts
from link.errors import ArgumentError
from link.header import HeaderOutcome
from link.runtime import Transmission
from serve.messages.tensor import tensor_from_message, tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.results import Decoded, Encoded, ModelId, Sent, Settings, Timing, Transmitted

_SETTINGS: Final = {
    "snr_db": "a number: Es/N0 in dB",
    "channel": "the name of a channel",
    "block_symbols": "an integer in [0, 2**31)",
    "k_factor_db": "a number, in dB",
    "seed": "an integer in [0, 2**63)",
    "sample_offset": "an integer in [0, 2**32)",
    "draw": "an integer in [0, 2**32)",
    "snr_error_db": "a number, in dB",
    "csi": "perfect, ls or lmmse",
    "pilots": "an integer in [0, 1024]",
    "no_offset_db": "a number, in dB",
}


class DecodeArguments(NamedTuple):
    """What the receiver is called with; None is what was left out."""

    symbols: NDArray[Any] | None
    no: NDArray[Any] | None
    mode: NDArray[np.int64] | None
    llr_in: NDArray[Any] | None
    bits: NDArray[Any] | None
    inputs: Mapping[str, NDArray[Any]]


def inputs_from_message(messages: Mapping[str, pb.Tensor]) -> dict[str, NDArray[Any]]:
    """The inputs of Encode and Transmit, and those that a receiver has of its own."""
    return {name: tensor_from_message(f"inputs.{name}", message) for name, message in messages.items()}


def inputs_to_message(inputs: Mapping[str, ArrayLike]) -> dict[str, pb.Tensor]:
    """Inverse of `inputs_from_message`."""
    return {name: tensor_to_message(f"inputs.{name}", value) for name, value in inputs.items()}


def mode_from_message(mode: Sequence[int]) -> int | NDArray[np.int64] | None:
    """The modes that an Encode or Transmit request asks for: one for all samples, or one for each."""
    if len(mode) == 1:
        return mode[0]
    return np.array(mode, dtype=np.int64) if mode else None


def mode_to_message(mode: ArrayLike | None, *, for_all: bool = True) -> list[int]:
    """Inverse of `mode_from_message`; where one may not stand `for_all` samples, of Decode's as well.

    Raises
    ------
    ArgumentError
        If it is neither an integer nor a row of integers, or one does not fit into its field.
    """
    if mode is None:
        return []
    try:
        modes: NDArray[Any] = np.asarray(mode)
    except ValueError:  # rows of several lengths
        modes = np.empty((0, 0))
    fits = modes.dtype.kind in "iu" and (not modes.size or -(2**31) <= modes.min() <= modes.max() < 2**31)
    if not fits or modes.ndim > 1 or (not modes.ndim and not for_all):
        raise ArgumentError("mode", f"must {'be an integer, or ' if for_all else ''}hold one mode a sample")
    return cast("list[int]", modes.reshape(-1).tolist())


def encode_request(
    inputs: Mapping[str, pb.Tensor], snr_db: float | None, mode: ArrayLike | None = None
) -> pb.EncodeRequest:
    """An Encode request, with the estimate of a transmitter that routes and the modes that are asked for."""
    request = pb.EncodeRequest(inputs=inputs, mode=mode_to_message(mode))
    if snr_db is not None:
        try:
            request.snr_db = snr_db
        except (TypeError, ValueError):
            raise ArgumentError("snr_db", f"must be {_SETTINGS['snr_db']}, got {snr_db!r}") from None
    return request


def decode_arguments(request: pb.DecodeRequest) -> DecodeArguments:
    """The arrays of a Decode request."""

    def given(field: str) -> NDArray[Any] | None:
        return tensor_from_message(field, getattr(request, field)) if request.HasField(field) else None

    return DecodeArguments(
        symbols=given("symbols"),
        no=given("no"),
        mode=np.array(request.mode, dtype=np.int64) if request.mode else None,
        llr_in=given("llr_in"),
        bits=given("bits"),
        inputs=inputs_from_message(request.inputs),
    )


def decode_request(
    symbols: ArrayLike | None,
    no: ArrayLike | None,
    mode: ArrayLike | None,
    llr_in: ArrayLike | None,
    bits: ArrayLike | None = None,
    inputs: Mapping[str, ArrayLike] | None = None,
) -> pb.DecodeRequest:
    """Inverse of `decode_arguments`."""
    request = pb.DecodeRequest(inputs=inputs_to_message(inputs or {}))
    for name, given in (("symbols", symbols), ("no", no), ("llr_in", llr_in), ("bits", bits)):
        if given is not None:
            getattr(request, name).CopyFrom(tensor_to_message(name, given))
    request.mode.extend(mode_to_message(mode, for_all=False))
    return request


def settings_from_message(message: pb.LinkSettings) -> Settings:
    """The settings of a Transmit request or reply.

    Raises
    ------
    ArgumentError
        If there is no SNR for a simulated channel.
    """
    if not message.HasField("snr_db") and message.channel != RADIO:
        raise ArgumentError("snr_db", "is missing: give Es/N0 in dB")
    return Settings(
        snr_db=message.snr_db if message.HasField("snr_db") else None,
        channel=message.channel or "awgn",
        block_symbols=message.block_symbols,
        k_factor_db=message.k_factor_db if message.HasField("k_factor_db") else None,
        seed=message.seed,
        sample_offset=message.sample_offset,
        draw=message.draw,
        snr_error_db=message.snr_error_db,
        csi=message.csi or "perfect",
        pilots=message.pilots,
        no_offset_db=message.no_offset_db,
    )


def settings_to_message(settings: Settings) -> pb.LinkSettings:
    """Inverse of `settings_from_message`.

    Raises
    ------
    ArgumentError
        If a value does not fit into its field; its range is checked by who uses it.
    """
    message = pb.LinkSettings()
    for name, wanted in _SETTINGS.items():
        value = getattr(settings, name)
        if value is not None:
            try:
                setattr(message, name, value)
            except (TypeError, ValueError):
                raise ArgumentError(name, f"must be {wanted}, got {value!r}") from None
    return message


def sent_to_message(
    sent: Transmission | Sent, tensor_format: pb.TensorFormat, include_symbols: bool
) -> pb.Transmission:
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


def transmission_from_message(message: pb.EncodeResponse) -> Transmission:
    """What the transmitter sends, symbols included."""
    sent = sent_from_message(message.sent)
    if sent.symbols is None:
        raise ArgumentError("symbols", "are missing")
    return Transmission(sent.mode, sent.indices, sent.bits, sent.num_bits, sent.symbols, sent.num_symbols)


def decoded_to_message(decoded: Decoded, tensor_format: pb.TensorFormat, include_llr: bool) -> pb.Reception:
    """What the receiver found."""
    message = pb.Reception(indices_hat=tensor_to_message("indices_hat", decoded.indices_hat, tensor_format))
    if decoded.probabilities is not None and decoded.logits is not None:
        chosen = decoded.probabilities[np.arange(len(decoded.decisions)), decoded.decisions].tolist()
        rows = zip(decoded.decisions.tolist(), decoded.answers, chosen, strict=True)
        message.decisions.extend(pb.Decision(class_index=i, class_name=name, probability=p) for i, name, p in rows)
        message.probabilities.CopyFrom(tensor_to_message("probabilities", decoded.probabilities, tensor_format))
        message.logits.CopyFrom(tensor_to_message("logits", decoded.logits, tensor_format))
    if decoded.log_prob is not None:
        message.texts.extend(decoded.answers)
        message.pieces.CopyFrom(tensor_to_message("pieces", decoded.decisions, tensor_format))
        message.log_prob.CopyFrom(tensor_to_message("log_prob", decoded.log_prob, tensor_format))
    if include_llr and decoded.llr is not None:
        message.llr.CopyFrom(tensor_to_message("llr", decoded.llr, tensor_format))
    return message


def decoded_from_message(message: pb.Reception) -> Decoded:
    """Inverse of `decoded_to_message`."""
    if message.HasField("pieces"):
        return Decoded(
            decisions=tensor_from_message("pieces", message.pieces),
            answers=tuple(message.texts),
            probabilities=None,
            logits=None,
            indices_hat=tensor_from_message("indices_hat", message.indices_hat),
            llr=tensor_from_message("llr", message.llr) if message.HasField("llr") else None,
            log_prob=tensor_from_message("log_prob", message.log_prob),
        )
    return Decoded(
        decisions=np.array([decision.class_index for decision in message.decisions], dtype=np.int64),
        answers=tuple(decision.class_name for decision in message.decisions),
        probabilities=tensor_from_message("probabilities", message.probabilities),
        logits=tensor_from_message("logits", message.logits),
        indices_hat=tensor_from_message("indices_hat", message.indices_hat),
        llr=tensor_from_message("llr", message.llr) if message.HasField("llr") else None,
    )


def encoded_to_message(encoded: Encoded, request: pb.EncodeRequest, model: ModelId) -> pb.EncodeResponse:
    """Reply of Encode."""
    return pb.EncodeResponse(
        sent=sent_to_message(encoded.sent, request.tensor_format, include_symbols=True),
        truncated=() if encoded.truncated is None else encoded.truncated.tolist(),
        unknown=() if encoded.unknown is None else encoded.unknown.tolist(),
        timing=timing_to_message(encoded.timing),
        model_version=model.version,
        model_digest=model.digest,
    )


def decode_response(decoded: Decoded, request: pb.DecodeRequest, model: ModelId) -> pb.DecodeResponse:
    """Reply of Decode."""
    return pb.DecodeResponse(
        decoded=decoded_to_message(decoded, request.tensor_format, request.include_llr),
        timing=None if decoded.timing is None else timing_to_message(decoded.timing),
        model_version=model.version,
        model_digest=model.digest,
        truncated=() if decoded.truncated is None else decoded.truncated.tolist(),
        unknown=() if decoded.unknown is None else decoded.unknown.tolist(),
    )


def decoded_from_response(message: pb.DecodeResponse) -> Decoded:
    """Inverse of `decode_response`."""
    timing = message.timing
    return decoded_from_message(message.decoded)._replace(
        timing=Timing(timing.transmitter_us, timing.channel_us, timing.receiver_us, timing.queue_us),
        truncated=np.array(message.truncated, dtype=np.bool_) if message.truncated else None,
        unknown=np.array(message.unknown, dtype=np.bool_) if message.unknown else None,
    )


def timing_to_message(timing: Timing) -> pb.Timing:
    """Time spent."""
    return pb.Timing(**timing._asdict())


def header_to_message(header: HeaderOutcome) -> pb.HeaderOutcome:
    """What became of the headers."""
    return pb.HeaderOutcome(
        mode=header.mode.tolist(),
        lost=header.lost.tolist(),
        wrong=header.wrong.tolist(),
        symbols=header.symbols.tolist(),
        headers=header.headers,
        headers_lost=header.headers_lost,
        headers_wrong=header.headers_wrong,
        header_symbols=header.header_symbols,
        pilot_symbols=header.pilot_symbols,
    )


def header_from_message(message: pb.HeaderOutcome) -> HeaderOutcome:
    """Inverse of `header_to_message`."""
    return HeaderOutcome(
        mode=np.array(message.mode, dtype=np.int64),
        lost=np.array(message.lost, dtype=np.bool_),
        wrong=np.array(message.wrong, dtype=np.bool_),
        symbols=np.array(message.symbols, dtype=np.float64),
        headers=message.headers,
        headers_lost=message.headers_lost,
        headers_wrong=message.headers_wrong,
        header_symbols=message.header_symbols,
        pilot_symbols=message.pilot_symbols,
    )


def frames_to_message(frames: FrameCounts) -> pb.RadioFrames:
    """What became of a radio's frames."""
    return pb.RadioFrames(
        frames=frames.frames,
        frames_lost=frames.lost,
        crc_failed=frames.crc_failed,
        gaps=frames.gaps,
        clipped=frames.clipped,
        measured_snr_db=frames.snr_db,
        evm=frames.evm,
        papr_db=frames.papr_db,
    )


def frames_from_message(message: pb.RadioFrames) -> FrameCounts:
    """Inverse of `frames_to_message`: the sums that give these means, to the rounding of float64."""
    received = message.frames - message.frames_lost
    return FrameCounts(
        frames=message.frames,
        lost=message.frames_lost,
        crc_failed=message.crc_failed,
        gaps=message.gaps,
        clipped=message.clipped,
        no=received * 10.0 ** (-message.measured_snr_db / 10.0) if message.HasField("measured_snr_db") else 0.0,
        squared_evm=received * message.evm**2,
        papr=10.0 ** (message.papr_db / 10.0) if message.HasField("papr_db") else 0.0,
    )


def transmitted_to_message(result: Transmitted, request: pb.TransmitRequest, model: ModelId) -> pb.TransmitResponse:
    """One pass over the link, with what the request asked to include."""
    message = pb.TransmitResponse(
        sent=sent_to_message(result.sent, request.tensor_format, request.include_symbols),
        decoded=decoded_to_message(result.decoded, request.tensor_format, request.include_llr),
        bit_errors=result.bit_errors.tolist(),
        settings=settings_to_message(result.settings),
        timing=timing_to_message(result.timing),
        header=None if result.header is None else header_to_message(result.header),
        truncated=() if result.truncated is None else result.truncated.tolist(),
        unknown=() if result.unknown is None else result.unknown.tolist(),
        model_version=model.version,
        model_digest=model.digest,
        num_pilots=() if result.num_pilots is None else result.num_pilots.tolist(),
        radio=None if result.frames is None else frames_to_message(result.frames),
    )
    if request.include_symbols and result.y is not None and result.no is not None:
        message.received.y.CopyFrom(tensor_to_message("y", result.y, request.tensor_format))
        message.received.no.CopyFrom(tensor_to_message("no", result.no, request.tensor_format))
    return message


def transmitted_from_message(message: pb.TransmitResponse) -> Transmitted:
    """Inverse of `transmitted_to_message`."""
    received = message.received if message.HasField("received") else None
    timing = message.timing
    return Transmitted(
        sent=sent_from_message(message.sent),
        y=None if received is None else tensor_from_message("y", received.y),
        no=None if received is None else tensor_from_message("no", received.no),
        decoded=decoded_from_message(message.decoded),
        bit_errors=np.array(message.bit_errors, dtype=np.int64),
        settings=settings_from_message(message.settings),
        timing=Timing(timing.transmitter_us, timing.channel_us, timing.receiver_us, timing.queue_us),
        header=header_from_message(message.header) if message.HasField("header") else None,
        truncated=np.array(message.truncated, dtype=np.bool_) if message.truncated else None,
        unknown=np.array(message.unknown, dtype=np.bool_) if message.unknown else None,
        num_pilots=np.array(message.num_pilots, dtype=np.int64) if message.num_pilots else None,
        frames=frames_from_message(message.radio) if message.HasField("radio") else None,
    )
