"""What a client asks and how it reads the answers: once for threads and asyncio, which differ in how they wait alone.

A call is a `Job` (serve.client.pieces): one request or, for a batch larger than the server takes at once, several, and how
their answers become one result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, TypeVar, cast

import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError, BundleError, ServerError
from link.runtime import Transmission
from serve.client import join, pieces
from serve.client.pieces import Job, Part, Piece
from serve.messages import convert
from serve.messages.manifest import model_from_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.results import Decoded, ModelInfo, Settings, Transmitted

if TYPE_CHECKING:
    from link.sequence import SequenceTables

Result = TypeVar("Result")
Inputs = ArrayLike | Mapping[str, ArrayLike]


class LinkOptions(TypedDict, total=False):
    """Channel and randomness, as serve.results.Settings has them."""

    channel: str
    block_symbols: int
    k_factor_db: float | None
    seed: int
    sample_offset: int
    draw: int
    snr_error_db: float
    csi: str
    pilots: int
    no_offset_db: float


class SweepOptions(TypedDict, total=False):
    """How a sweep runs.

    Attributes
    ----------
    channel, block_symbols, k_factor_db, seed, snr_error_db, csi, pilots, no_offset_db
        As serve.results.Settings has them.
    labels : (B,) int
        Right class of each sample; where left out, what the receiver decides of the symbols without noise counts as right.
    draws : int
        Times that all samples are sent at a point; at most, where a target is given.
    target_errors : int
        A point ends with so many wrong decisions.
    rel_width : float
        A point ends with an interval of its error rate of this width over the rate.
    confidence : float
        Coverage that intervals aim at.
    """

    channel: str
    block_symbols: int
    k_factor_db: float | None
    seed: int
    snr_error_db: float
    csi: str
    pilots: int
    no_offset_db: float
    labels: ArrayLike | None
    draws: int
    target_errors: int
    rel_width: float
    confidence: float


class ModelSummary(NamedTuple):
    """What a model is called.

    Attributes
    ----------
    name : str
    version : int
        Version that answers.
    task : str
    receiver_name : str
        Which receiver answers.
    """

    name: str
    version: int
    task: str
    receiver_name: str


class Choice(NamedTuple):
    """The modes that a batch is to be sent in.

    Attributes
    ----------
    mode : () or (B,) int, optional
        One for all samples, or one for each; None where none is asked for.
    """

    mode: NDArray[Any] | None

    def of(self, rows: slice) -> NDArray[Any] | None:
        """Of these rows."""
        return None if self.mode is None else pieces.cut(self.mode, rows)

    def require(self, sent: NDArray[np.int64]) -> None:
        """Raise unless they are what was sent: a server that is older does not hear that it is asked."""
        if self.mode is not None and ((self.mode >= 0) & (self.mode != sent)).any():
            raise ArgumentError("mode", "must be absent: the server is older than this option, and chose by itself")


def describe(model: str) -> Job[ModelInfo]:
    """GetModel."""
    return _single("GetModel", model, pb.GetModelRequest(model=_name(model)), _read_model)


@dataclass(frozen=True)
class SequenceReply:
    """The tables of a model's sequence stage, which are not about samples."""

    tables: SequenceTables


def sequence(model: str, info: ModelInfo) -> Job[SequenceReply]:
    """GetModel, for the tables of the model's sequence stage.

    Raises
    ------
    ArgumentError
        If the model has none.
    """
    spec = info.manifest.task.sequence
    if spec is None:
        raise ArgumentError("model", f"must decide windows of a recording together, {info.manifest.name} does not")
    classes = len(info.manifest.task.classes)

    def read(reply: pb.GetModelResponse) -> Part:
        from link.sequence_file import sequence_from_bytes

        try:
            tables = sequence_from_bytes(reply.sequence, classes, spec.file)
        except BundleError as error:
            raise ServerError(f"the server's sequence stage cannot be used: {error}") from None
        return Part(SequenceReply(tables), reply.model_digest)

    return _single("GetModel", model, pb.GetModelRequest(model=_name(model), include_sequence=True), read)


def summaries() -> Job[tuple[ModelSummary, ...]]:
    """ListModels."""
    return _single("ListModels", "", pb.ListModelsRequest(), _read_models)


def encode(
    x: Inputs, info: ModelInfo, model: str, snr_db: float | None, mode: ArrayLike | None = None
) -> Job[Transmission]:
    """Encode."""
    inputs = inputs_of(x, info)
    choice = _choice(mode, inputs)

    def request(rows: slice) -> Message:
        message = convert.encode_request(_inputs(inputs, rows), snr_db, choice.of(rows))
        message.tensor_format = pb.TENSOR_FORMAT_RAW
        message.model = _name(model)
        return message

    def together(parts: Sequence[Any]) -> Transmission:
        sent = join.transmissions(parts)
        choice.require(sent.mode)
        return sent

    sent = pieces.sent_bytes(info)
    return pieces.split("Encode", model, info, inputs, request, _read_encoded, together, reply_bytes=sent)


_RECEIVED: Final = frozenset(("symbols", "no", "llr_in", "bits"))


def decode(
    info: ModelInfo,
    model: str,
    symbols: ArrayLike | None,
    no: ArrayLike | None,
    mode: ArrayLike | None,
    llr_in: ArrayLike | None,
    bits: ArrayLike | None,
    include_llr: bool,
    inputs: Mapping[str, ArrayLike] | None = None,
) -> Job[Decoded]:
    """Decode."""
    if symbols is not None and no is not None and np.ndim(no) == 0:
        no = np.full(np.shape(symbols)[:-1], no, dtype=np.float32)
    given = {"symbols": symbols, "no": no, "llr_in": llr_in, "bits": bits}
    arrays = {name: _rows_of(name, value) for name, value in given.items() if value is not None}
    own = inputs_of(inputs or {}, info)
    modes = None if mode is None else np.asarray(mode)

    def request(rows: slice) -> Message:
        given: dict[str, Any] = {name: pieces.cut(array, rows) for name, array in arrays.items() if name in _RECEIVED}
        message = convert.decode_request(
            given.get("symbols"),
            given.get("no"),
            None if modes is None else pieces.cut(modes, rows),
            given.get("llr_in"),
            given.get("bits"),
            {name: pieces.cut(array, rows) for name, array in own.items()},
        )
        message.include_llr = include_llr
        message.tensor_format = pb.TENSOR_FORMAT_RAW
        message.model = _name(model)
        return message

    found = pieces.found_bytes(info, include_llr)
    arrays |= {f"inputs.{name}": array for name, array in own.items()}
    return pieces.split("Decode", model, info, arrays, request, _read_decoded, join.rows, reply_bytes=found)


def transmit(
    x: Inputs,
    info: ModelInfo,
    model: str,
    snr_db: float | None,
    include_llr: bool,
    include_symbols: bool,
    options: LinkOptions,
    mode: ArrayLike | None = None,
) -> Job[Transmitted]:
    """Transmit."""
    inputs = inputs_of(x, info)
    choice = _choice(mode, inputs)
    settings = _settings(snr_db, options)
    offset = settings.sample_offset

    def request(rows: slice) -> Message:
        message = pb.TransmitRequest(
            inputs=_inputs(inputs, rows),
            settings=settings,
            tensor_format=pb.TENSOR_FORMAT_RAW,
            include_llr=include_llr,
            include_symbols=include_symbols,
            model=_name(model),
            mode=convert.mode_to_message(choice.of(rows)),
        )
        message.settings.sample_offset = offset + rows.start
        return message

    def together(parts: Sequence[Transmitted]) -> Transmitted:
        result = join.rows(parts)
        choice.require(result.sent.mode)
        return result

    symbols = 12 * pieces.most(info, "num_symbols") if include_symbols else 0
    return pieces.split(
        "Transmit",
        model,
        info,
        inputs,
        request,
        _read_transmitted,
        together,
        reply_bytes=pieces.sent_bytes(info) + pieces.found_bytes(info, include_llr) + symbols,
        offset=offset,
    )


def sweep(x: Inputs, info: ModelInfo, model: str, snr_db: Sequence[float], options: SweepOptions) -> pb.SweepRequest:
    """Sweep: what is asked; `without` leaves points out that are known."""
    given: dict[str, Any] = dict(options)
    rule: dict[str, Any] = {
        name: given.pop(name) for name in ("draws", "target_errors", "rel_width", "confidence") if name in given
    }
    labels = given.pop("labels", None)
    settings = _settings(None, given)  # the points are no setting
    request = pb.SweepRequest(inputs=_inputs(inputs_of(x, info), slice(None)), settings=settings, model=_name(model))
    if labels is not None:
        request.labels.extend(_whole_numbers("labels", labels))
    for name, value in ({"snr_db": list(snr_db)} | rule).items():
        try:
            request.snr_db.extend(value) if name == "snr_db" else setattr(request, name, value)
        except (TypeError, ValueError):
            raise ArgumentError(name, f"must hold numbers, got {value!r}") from None
    return request


def without(request: pb.SweepRequest, points: int) -> pb.SweepRequest:
    """A sweep less its first points, which the caller has: each is the same, whatever others are in the grid."""
    rest = pb.SweepRequest()
    rest.CopyFrom(request)
    del rest.snr_db[:points]
    return rest


def inputs_of(x: Inputs, info: ModelInfo) -> dict[str, Any]:
    """A batch as arrays, or lists of texts, by the names of the model's inputs."""
    if isinstance(x, Mapping):
        return {name: _rows_of(f"inputs.{name}", value) for name, value in x.items()}
    if isinstance(x, str | bytes):
        raise ArgumentError("x", "must be a list of texts, got a single one: put it into a list")
    names = info.manifest.input_names
    if len(names) != 1:
        raise ArgumentError("x", f"must map the inputs {', '.join(names)} to arrays")
    return {names[0]: _rows_of(f"inputs.{names[0]}", x)}


def _settings(snr_db: float | None, options: Mapping[str, Any]) -> pb.LinkSettings:
    return convert.settings_to_message(Settings(snr_db=snr_db, **options))


def _single(method: str, model: str, request: Message, read: Callable[[Any], Part]) -> Job[Any]:
    return Job(method, model, 1, 1, lambda: iter((Piece(request, 0, 1),)), read, lambda results: results[0])


def _inputs(arrays: Mapping[str, Any], rows: slice) -> dict[str, pb.Tensor]:
    return convert.inputs_to_message({name: pieces.cut(array, rows) for name, array in arrays.items()})


def _choice(mode: ArrayLike | None, inputs: Mapping[str, Any]) -> Choice:
    if mode is None:
        return Choice(None)
    count, rows = len(convert.mode_to_message(mode)), pieces.count(inputs)
    modes: NDArray[Any] = np.asarray(mode)
    if modes.ndim and count != rows:  # pieces would each find another fault with it, and one of a single row none
        raise ArgumentError("mode", f"must hold one mode a sample, got {count} for {rows}")
    return Choice(modes)


def _rows_of(field: str, value: ArrayLike) -> Any:
    """Something that can be cut along its first dimension: texts as they are, numbers as an array."""
    if isinstance(value, list | tuple) and any(isinstance(item, str) for item in value):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        raise ArgumentError(field, "must be an array with rows of equal length") from None
    return array


def _whole_numbers(name: str, value: ArrayLike) -> list[int]:
    numbers: NDArray[Any] = np.asarray(value)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers.size and np.abs(numbers).max() >= 2**31):
        raise ArgumentError(name, "must hold one class a sample")
    return cast("list[int]", numbers.tolist())


def _name(model: str) -> str:
    if not isinstance(model, str):
        raise ArgumentError("model", f"must be the name of a model, got {model!r}")
    return model


def _read_model(reply: pb.GetModelResponse) -> Part:
    return Part(model_from_message(reply), reply.model_digest)


def _read_models(reply: pb.ListModelsResponse) -> Part:
    return Part(tuple(ModelSummary(m.name, m.version, m.task, m.receiver_name) for m in reply.models))


def _read_encoded(reply: pb.EncodeResponse) -> Part:
    sent = convert.transmission_from_message(reply)
    return Part(join.EncodedPart(sent, sum(reply.truncated), sum(reply.unknown)), reply.model_digest)


def _read_decoded(reply: pb.DecodeResponse) -> Part:
    return Part(convert.decoded_from_response(reply), reply.model_digest)


def _read_transmitted(reply: pb.TransmitResponse) -> Part:
    return Part(convert.transmitted_from_message(reply), reply.model_digest)
