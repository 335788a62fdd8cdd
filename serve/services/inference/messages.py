"""What is said of a model: its metadata, its configuration, and the part of replies that they have in common."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from link.errors import ArgumentError
from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.inference.models import Answer, InferenceModel
from serve.services.inference.options import options_to_message
from serve.services.inference.tensors import Output, Tensor

PLATFORM: Final = "hardpath"

_CONFIGURED: Final = {
    "FP32": pb.TYPE_FP32,
    "INT64": pb.TYPE_INT64,
    "UINT8": pb.TYPE_UINT8,
    "BOOL": pb.TYPE_BOOL,
    "BYTES": pb.TYPE_STRING,
}
_BATCH: Final = -1
_TEMPLATES: Final = 256


class Wanted(NamedTuple):
    """An output that a request wants: by name, and where `classes` is not 0 as so many best classes."""

    name: str
    classes: int = 0


class Replies:
    """Makes the replies of one model; what they have in common is made once."""

    def __init__(self, model: InferenceModel) -> None:
        self._model = model
        self._usual = tuple(map(Wanted, model.usual))
        self._defaults = {name for name, value in model.options.items() if value is not None}
        self._outputs = lru_cache(_TEMPLATES)(self._find)
        self._template = lru_cache(_TEMPLATES)(self._begin)

    def wanted(self, request: pb.ModelInferRequest) -> tuple[Wanted, ...]:
        """The outputs that a request wants.

        Raises
        ------
        ArgumentError
            If one is unknown, wanted twice, or has an unusable parameter.
        """
        if not request.outputs:
            return self._usual
        wanted = tuple([_wanted(message) for message in request.outputs])
        self._outputs(wanted)
        return wanted

    def reply(self, request_id: str, wanted: tuple[Wanted, ...], answer: Answer) -> pb.ModelInferResponse:
        """The reply to a request."""
        reply = pb.ModelInferResponse()
        usual = self._defaults <= answer.options.keys()
        reply.CopyFrom(self._template(wanted, answer.rows, usual))
        reply.id = request_id
        options_to_message(answer.options, reply, self._model.options if usual else {})
        result = answer.result
        reply.raw_output_contents.extend([output.write(output.take(result)) for output in self._outputs(wanted)])
        return reply

    def _find(self, wanted: tuple[Wanted, ...]) -> tuple[Output, ...]:
        outputs = []
        seen = set()
        for name, classes in wanted:
            output = self._model.outputs.get(name)
            if output is None:
                known = ", ".join(self._model.outputs)
                raise ArgumentError(f"outputs.{name}", f"is unknown; this model has {known}")
            if name in seen:
                raise ArgumentError(f"outputs.{name}", "must be wanted once, got it twice")
            seen.add(name)
            outputs.append(output.best(classes) if classes else output)
        return tuple(outputs)

    def _begin(self, wanted: tuple[Wanted, ...], rows: int, with_options: bool) -> pb.ModelInferResponse:
        tensors = [output.tensor for output in self._outputs(wanted)]
        template = pb.ModelInferResponse(
            model_name=self._model.name,
            model_version=self._model.version,
            outputs=[
                pb.ModelInferResponse.InferOutputTensor(
                    name=tensor.name, datatype=tensor.datatype, shape=(rows, *tensor.shape)
                )
                for tensor in tensors
            ],
        )
        if with_options:
            options_to_message(self._model.options, template)
        return template


def metadata_of(model: InferenceModel) -> pb.ModelMetadataResponse:
    """Reply of ModelMetadata."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=[_metadata(tensor, tensor.announced) for tensor in model.inputs.values() if not tensor.hidden],
        outputs=[_metadata(output.tensor, output.tensor.shape) for output in model.outputs.values()],
    )


def config_of(model: InferenceModel) -> pb.ModelConfigResponse:
    """Reply of ModelConfig."""
    config = pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=PLATFORM,
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        max_batch_size=model.max_batch,
        input=[
            pb.ModelInput(
                name=tensor.name,
                data_type=_CONFIGURED[tensor.datatype],
                dims=tensor.announced,
                reshape=None if tensor.shape else pb.ModelTensorReshape(),
                optional=tensor.optional,
            )
            for tensor in model.inputs.values()
            if not tensor.hidden
        ],
        output=[
            pb.ModelOutput(name=tensor.name, data_type=_CONFIGURED[tensor.datatype], dims=tensor.shape)
            for tensor, *_ in model.outputs.values()
        ],
        dynamic_batching=pb.ModelDynamicBatching(),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    for name, value in model.options.items():
        config.parameters[name].string_value = "" if value is None else str(value)
    return pb.ModelConfigResponse(config=config)


def _metadata(tensor: Tensor, shape: tuple[int, ...]) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=(_BATCH, *shape))


def _wanted(message: pb.ModelInferRequest.InferRequestedOutputTensor) -> Wanted:
    classes = 0
    for name, value in message.parameters.items():
        field = f"outputs.{message.name}.parameters.{name}"
        if name != "classification":
            raise ArgumentError(field, "is unknown: tensors come within the message")
        if value.WhichOneof("parameter_choice") != "int64_param" or value.int64_param < 1:
            raise ArgumentError(field, "must be an integer of at least 1")
        classes = value.int64_param
    return Wanted(message.name, classes)
