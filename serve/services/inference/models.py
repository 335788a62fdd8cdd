"""The three models that a bundle is to clients of the Open Inference Protocol.

    NAME.transmitter   inputs ──> mode, indices, bits, num_bits, symbols, num_symbols
    NAME.receiver      symbols, no ──> decisions, class_names, probabilities, logits, indices_hat, llr
    NAME.link          inputs ──> transmitter ──> channel ──> receiver ──> all of these, y, no, bit_errors

Their tensors are those that the bundle's manifest names, and their operations those of the data plane.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.channel import RADIO
from link.errors import ArgumentError
from link.interface import SNR_INPUT, TensorSpec
from link.manifest import Manifest
from serve.engine.batcher import Caller
from serve.engine.model import OPERATIONS, Model
from serve.results import Decoded, Encoded, ModelInfo, Settings, Transmitted
from serve.services.inference.tensors import BYTES, DATATYPES, Output, Tensor, names, numbers, strings

SNR_DB: Final = 12.0
"""Es/N0 in dB where a request gives none."""

MODE: Final = "mode"
"""Input and parameter of a request for modes."""

_LINK_USUAL: Final = (
    "decisions",
    "class_names",
    "probabilities",
    "logits",
    "texts",
    "pieces",
    "log_prob",
    "bit_errors",
)

Arrays = dict[str, NDArray[Any]]
Options = dict[str, Any]
_Operation = Callable[[Model, Arrays, Options, Caller], Awaitable["Answer"]]


class Answer(NamedTuple):
    """What a model answered.

    Attributes
    ----------
    result : Encoded, Decoded or Transmitted
    rows : int
        B.
    options : dict of str to value
        The options as they were used; None where one was not.
    """

    result: Encoded | Decoded | Transmitted
    rows: int
    options: Options


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """One of the three models of a version of a bundle; it holds no graph, so that one that is replaced can go.

    Attributes
    ----------
    info : ModelInfo
    name, version : str
    inputs : dict of str to Tensor
    outputs : dict of str to Output
    usual : tuple of str
        Outputs of a request that names none.
    options : dict of str to value
        Options of the link that a request may have as parameters, each with its default; None where it has none.
    operation : callable
        That of the data plane: its model, inputs, options, and who asks.
    """

    info: ModelInfo
    name: str
    version: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Output]
    usual: tuple[str, ...]
    options: Options
    operation: _Operation

    @property
    def max_batch(self) -> int:
        """Most samples in a request."""
        return self.info.max_batch

    async def run(self, model: Model, arrays: Arrays, options: Options, caller: Caller) -> Answer:
        """Answer a request.

        Raises
        ------
        ArgumentError
            If an input or an option is wrong; it is named by its path in the request.
        Refused
            If the data plane does not take the request now.
        """
        given = frozenset(arrays)
        try:
            return await self.operation(model, arrays, options, caller)
        except ArgumentError as error:
            raise ArgumentError(self._path(error.field, given), error.message) from None

    def _path(self, field: str, given: frozenset[str]) -> str:
        if field.startswith("inputs."):
            return field
        return f"parameters.{field}" if field in self.options and field not in given else f"inputs.{field}"


def transmitter_model(info: ModelInfo, snr_db: float = SNR_DB) -> InferenceModel:
    """NAME.transmitter; a router's estimate of Es/N0 is an input or a parameter, `snr_db` where it is neither."""
    manifest = info.manifest
    assumed = snr_db if manifest.routed else None
    told = {tensor.name: tensor for tensor in _mode(manifest)}
    if manifest.routed:
        told[SNR_INPUT] = Tensor(SNR_INPUT, "FP32", optional=True)

    async def encode(model: Model, arrays: Arrays, options: Options, caller: Caller) -> Answer:
        estimate, used = _told(SNR_INPUT, told, arrays, options, assumed)
        mode, used_mode = _told(MODE, told, arrays, options)
        encoded = await model.encode(arrays, estimate, caller, mode=mode)
        return Answer(encoded, len(encoded.sent.mode), used | used_mode)

    inputs = [*_inputs(manifest, manifest.task_inputs), *told.values()]
    outputs = [*_sent(manifest), *_texts(manifest)]
    return _model(info, "transmitter", inputs, outputs, {SNR_INPUT: assumed, MODE: None}, encode)


def receiver_model(info: ModelInfo, snr_db: float = SNR_DB) -> InferenceModel:
    """NAME.receiver, which takes symbols and their noise variances, or the bits or LLRs of another modem."""
    manifest = info.manifest
    heard = {spec.name: spec for spec in manifest.receiver.inputs}
    bits = next(spec for spec in manifest.transmitter.outputs if spec.name == "bits")
    side = _inputs(manifest, manifest.side_inputs)
    own = {tensor.name for tensor in side}

    async def decode(model: Model, arrays: Arrays, options: Options, caller: Caller) -> Answer:
        decoded = await model.decode(
            arrays.get("symbols"),
            arrays.get("no"),
            arrays.get("mode"),
            arrays.get("llr_in"),
            arrays.get("bits"),
            {name: array for name, array in arrays.items() if name in own},
            caller,
        )
        return Answer(decoded, len(decoded.decisions), {})

    inputs = [
        _tensor(heard["symbols"]),
        _tensor(heard["no"]),
        *side,
        *(_tensor(spec, optional=True) for spec in (heard["mode"], heard["llr_in"], bits)),
    ]
    return _model(info, "receiver", inputs, _decoded(manifest, ""), {}, decode)


def link_model(info: ModelInfo, snr_db: float = SNR_DB) -> InferenceModel:
    """NAME.link, whose channel, its SNR and the address of its randomness are parameters; over a radio no SNR is assumed."""
    manifest = info.manifest
    told = {tensor.name: tensor for tensor in _mode(manifest)}

    async def transmit(model: Model, arrays: Arrays, options: Options, caller: Caller) -> Answer:
        mode, used_mode = _told(MODE, told, arrays, options)
        options.pop(MODE, None)
        assumed = None if options.get("channel") == RADIO else snr_db
        settings = Settings(**({SNR_INPUT: assumed} | dict(options)))
        result = await model.transmit(arrays, settings, caller, mode=mode)
        used = {name: value for name, value in vars(result.settings).items() if value is not None}
        return Answer(result, len(result.bit_errors), used | used_mode if used_mode else used)

    outputs = [
        *_decoded(manifest, "decoded."),
        numbers(Tensor("bit_errors", "INT64"), attrgetter("bit_errors")),
        *_sent(manifest),
        *_received(manifest),
        *_headers(manifest),
        *_texts(manifest),
    ]
    inputs = [*_inputs(manifest, manifest.sample_inputs), *told.values()]
    options = vars(Settings(snr_db)) | {MODE: None}
    return _model(info, "link", inputs, outputs, options, transmit, _LINK_USUAL)


DESCRIBED: Final = dict(zip(OPERATIONS, (transmitter_model, receiver_model, link_model), strict=True))
"""What describes each operation of the data plane as a model."""


def _model(
    info: ModelInfo,
    operation: str,
    inputs: Iterable[Tensor],
    outputs: Iterable[Output],
    options: Options,
    run: _Operation,
    usual: tuple[str, ...] | None = None,
) -> InferenceModel:
    by_name = {output.tensor.name: output for output in outputs}
    return InferenceModel(
        info=info,
        name=f"{info.manifest.name}.{operation}",
        version=str(info.manifest.version),
        inputs={tensor.name: tensor for tensor in inputs},
        outputs=by_name,
        usual=tuple(by_name if usual is None else filter(by_name.__contains__, usual)),
        options=options,
        operation=run,
    )


def _tensor(spec: TensorSpec, *, optional: bool = False) -> Tensor:
    sizes = tuple(size for size in spec.shape[1:] if size != "batch")
    return Tensor(spec.name, DATATYPES[spec.dtype], sizes, optional)


def _inputs(manifest: Manifest, of: tuple[TensorSpec, ...]) -> list[Tensor]:
    """What some inputs of a sample are given as; in place of a text also the integers that it becomes."""
    specs = {spec.name: _tensor(spec) for spec in of}
    spec = manifest.text_of(of)
    if spec is None:
        return list(specs.values())
    tokens = [specs.pop(name)._replace(hidden=True) for name in spec.becomes]
    return [Tensor(spec.text, BYTES), *specs.values(), *tokens]


def _mode(manifest: Manifest) -> list[Tensor]:
    """The modes asked for, one a sample: not announced, lest a client that fills all inputs ask for mode 0."""
    return [Tensor(MODE, DATATYPES["int64"], optional=True, hidden=True)] if manifest.takes_mode else []


def _told(
    name: str, tensors: Mapping[str, Tensor], arrays: Arrays, options: Options, assumed: Any = None
) -> tuple[Any, Options]:
    """What a transmitter is told by an input, one a sample, or by a parameter, for all; and the parameter that was used.

    The input is taken from `arrays`, where it is one of `tensors` and not the task's.
    """
    each = arrays.pop(name, None) if name in tensors else None
    if each is None:
        one = options.get(name, assumed)
        return one, {} if one is None else {name: one}
    if name in options:
        raise ArgumentError(name, "must be given once, got an input and a parameter")
    return each, {}


def _sent(manifest: Manifest) -> list[Output]:
    return [numbers(_tensor(spec), attrgetter(f"sent.{spec.name}")) for spec in manifest.transmitter.outputs]


def _decoded(manifest: Manifest, prefix: str) -> list[Output]:
    tensors = {spec.name: _tensor(spec) for spec in manifest.receiver.outputs}
    found = [numbers(tensors[name], attrgetter(f"{prefix}{name}")) for name in ("indices_hat", "llr")]
    if manifest.task.text is not None:
        return [
            strings(Tensor("texts", BYTES), attrgetter(f"{prefix}answers")),
            numbers(tensors["pieces"], attrgetter(f"{prefix}decisions")),
            numbers(tensors["log_prob"], attrgetter(f"{prefix}log_prob")),
            *found,
        ]
    (scores,) = tensors["logits"].shape
    # A head may have more scores than its task has names.
    classes = (*manifest.task.classes, *[""] * (scores - len(manifest.task.classes)))
    decisions = attrgetter(f"{prefix}decisions")
    return [
        numbers(Tensor("decisions", "INT64"), decisions),
        names(Tensor("class_names", BYTES), decisions, classes),
        numbers(Tensor("probabilities", "FP32", (scores,)), attrgetter(f"{prefix}probabilities"), classes),
        numbers(tensors["logits"], attrgetter(f"{prefix}logits"), classes),
        *found,
    ]


def _received(manifest: Manifest) -> list[Output]:
    tensors = {spec.name: _tensor(spec) for spec in manifest.receiver.inputs}
    return [
        numbers(tensors["symbols"]._replace(name="y"), attrgetter("y")),
        numbers(tensors["no"], attrgetter("no")),
    ]


def _headers(manifest: Manifest) -> list[Output]:
    if manifest.header is None:
        return []
    return [
        numbers(Tensor("mode_hat", "INT64"), attrgetter("header.mode")),
        numbers(Tensor("header_lost", "BOOL"), attrgetter("header.lost")),
        numbers(Tensor("header_wrong", "BOOL"), attrgetter("header.wrong")),
    ]


def _texts(manifest: Manifest) -> list[Output]:
    if manifest.tokenizer is None:
        return []
    return [numbers(Tensor(name, "BOOL"), _flags(name)) for name in ("truncated", "unknown")]


def _flags(name: str) -> Callable[[Any], NDArray[np.bool_]]:
    """What was seen of each text; nothing is wrong with integers that came in its place."""

    def take(result: Encoded | Transmitted) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] | None = getattr(result, name)
        return np.zeros(len(result.sent.mode), dtype=np.bool_) if found is None else found

    return take
