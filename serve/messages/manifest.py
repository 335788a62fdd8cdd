"""The manifest as a message and back, so that a client knows of a model what the bundle says."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from link.errors import ServerError
from link.interface import MODE_INPUT, TensorSpec, mode_input
from link.manifest import (
    GraphSpec,
    HeaderSpec,
    LlrSpec,
    Manifest,
    Mode,
    Provenance,
    TaskSpec,
    TextSpec,
    TokenizerSpec,
)
from link.task import SequenceSpec
from serve.messages.tensor import DATA_TYPES, DTYPES
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.results import ModelInfo

_BATCH = -1


def model_to_message(info: ModelInfo) -> pb.GetModelResponse:
    """Reply of GetModel."""
    manifest = info.manifest
    return pb.GetModelResponse(
        model=pb.Model(
            schema_version=manifest.schema_version,
            name=manifest.name,
            version=manifest.version,
            task=pb.Task(**manifest.task.model_dump()),
            modes=[_mode_to_message(mode) for mode in manifest.modes],
            default_mode=manifest.default_mode,
            llr=pb.LlrConvention(**manifest.llr.model_dump()),
            transmitter=_transmitter_to_message(manifest),
            receiver=_graph_to_message(manifest.receiver),
            provenance_json=manifest.provenance.model_dump_json(),
            header=None if manifest.header is None else pb.Header(**manifest.header.model_dump()),
            tokenizer=None if manifest.tokenizer is None else pb.Tokenizer(**manifest.tokenizer.model_dump()),
            receiver_name=manifest.receiver_name,
            takes_mode=manifest.takes_mode,
        ),
        code_version=info.code_version,
        channels=info.channels,
        max_batch=info.max_batch,
        model_digest=info.digest,
    )


def list_to_message(infos: Iterable[ModelInfo]) -> pb.ListModelsResponse:
    """Reply of ListModels."""
    return pb.ListModelsResponse(
        models=[
            pb.ModelSummary(
                name=info.manifest.name,
                version=info.manifest.version,
                task=info.manifest.task.name,
                receiver_name=info.manifest.receiver_name,
                digest=info.digest,
            )
            for info in infos
        ]
    )


def model_from_message(message: pb.GetModelResponse) -> ModelInfo:
    """Inverse of `model_to_message`, but for the receivers that are not served: a client knows of one.

    Raises
    ------
    ServerError
        If this version of hardpath cannot use the model that the server describes.
    """
    model = message.model
    try:
        manifest = Manifest.model_validate(
            {
                "schema_version": model.schema_version,
                "name": model.name,
                "version": model.version,
                "task": _task_from_message(model.task),
                "modes": tuple(_mode_from_message(mode) for mode in model.modes),
                "default_mode": model.default_mode,
                "header": _header_from_message(model.header) if model.HasField("header") else None,
                "llr": LlrSpec.model_validate(
                    {"convention": model.llr.convention, "demapper": model.llr.demapper, "clip": model.llr.clip}
                ),
                "transmitter": _transmitter_from_message(model),
                "receiver": _graph_from_message(model.receiver),
                "provenance": Provenance.model_validate_json(model.provenance_json),
                "tokenizer": _tokenizer_from_message(model.tokenizer) if model.HasField("tokenizer") else None,
                # A server of a time when there was one receiver does not name it.
                **({"receiver_name": model.receiver_name} if model.receiver_name else {}),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "model"
        raise ServerError(
            f"the server's model is not one that this version of hardpath knows: {where}: {first['msg']}"
        ) from None
    return ModelInfo(manifest, message.code_version, tuple(message.channels), message.max_batch, message.model_digest)


def _task_from_message(message: pb.Task) -> TaskSpec:
    question = message.question if message.HasField("question") else None
    text = None
    if message.HasField("text"):
        text = TextSpec(positions=message.text.positions, pieces=message.text.pieces, end_id=message.text.end_id)
    sequence = None
    if message.HasField("sequence"):
        held = message.sequence
        sequence = SequenceSpec.model_validate({"file": held.file, "sha256": held.sha256, "parts": tuple(held.parts)})
    return TaskSpec(
        name=message.name,
        classes=tuple(message.classes),
        question=question,
        text=text,
        receiver_inputs=tuple(message.receiver_inputs),
        sequence=sequence,
    )


def _mode_to_message(mode: Mode) -> pb.Mode:
    return pb.Mode(
        tokens=mode.tokens,
        codewords=mode.codewords,
        order=mode.order,
        index_bits=mode.index_bits,
        num_bits=mode.num_bits,
        num_symbols=mode.num_symbols,
        labels=mode.labels,
        log_prior=mode.log_prior,
    )


def _mode_from_message(message: pb.Mode) -> Mode:
    return Mode(
        tokens=message.tokens,
        codewords=message.codewords,
        order=message.order,
        labels=tuple(message.labels),
        log_prior=tuple(message.log_prior),
    )


def _header_from_message(message: pb.Header) -> HeaderSpec:
    return HeaderSpec.model_validate(
        {
            "code": message.code,
            "repeats": message.repeats,
            "frame_samples": message.frame_samples,
            "threshold": message.threshold,
        }
    )


def _tokenizer_from_message(message: pb.Tokenizer) -> TokenizerSpec:
    return TokenizerSpec.model_validate({name: getattr(message, name) for name in TokenizerSpec.model_fields})


def _transmitter_to_message(manifest: Manifest) -> pb.Graph:
    """Without the input for modes: clients from before there was one would take it for one of the task's."""
    message = _graph_to_message(manifest.transmitter)
    kept = [tensor for tensor in message.inputs if not (manifest.takes_mode and tensor.name == MODE_INPUT)]
    del message.inputs[:]
    message.inputs.extend(kept)
    return message


def _transmitter_from_message(model: pb.Model) -> GraphSpec:
    graph = _graph_from_message(model.transmitter)
    told = (mode_input(len(model.modes)),) if model.takes_mode else ()
    return graph.model_copy(update={"inputs": (*graph.inputs, *told)})


def _graph_to_message(graph: GraphSpec) -> pb.Graph:
    return pb.Graph(
        file=graph.file,
        sha256=graph.sha256,
        inputs=[_tensor_to_message(tensor) for tensor in graph.inputs],
        outputs=[_tensor_to_message(tensor) for tensor in graph.outputs],
    )


def _graph_from_message(message: pb.Graph) -> GraphSpec:
    return GraphSpec(
        file=message.file,
        sha256=message.sha256,
        inputs=tuple(_tensor_from_message(tensor) for tensor in message.inputs),
        outputs=tuple(_tensor_from_message(tensor) for tensor in message.outputs),
    )


def _tensor_to_message(tensor: TensorSpec) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=tensor.name,
        data_type=DATA_TYPES[tensor.dtype],
        shape=[_BATCH if size == "batch" else size for size in tensor.shape],
        low=tensor.low,
        high=tensor.high,
        description=tensor.description,
    )


def _tensor_from_message(message: pb.TensorSpec) -> TensorSpec:
    return TensorSpec.model_validate(
        {
            "name": message.name,
            "dtype": DTYPES.get(message.data_type),
            "shape": tuple("batch" if size == _BATCH else size for size in message.shape),
            "low": message.low if message.HasField("low") else None,
            "high": message.high if message.HasField("high") else None,
            "description": message.description,
        }
    )
