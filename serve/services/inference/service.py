"""inference.GRPCInferenceService: the Open Inference Protocol, version 2, and of Triton's extensions what applies.

What is the same for all requests to a model is made once; raw contents become arrays without a copy, and arrays raw contents
with one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from time import monotonic
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from link.errors import ArgumentError
from link.provenance import code_version
from serve.engine.batcher import Caller
from serve.engine.engine import Engine
from serve.engine.errors import ModelNotFound
from serve.engine.model import Model
from serve.messages.status import refuse, status_of
from serve.pb.inference import grpc_service_pb2 as pb
from serve.pb.inference import grpc_service_pb2_grpc
from serve.services.inference.messages import PLATFORM, Replies, config_of, metadata_of
from serve.services.inference.models import DESCRIBED, SNR_DB, InferenceModel
from serve.services.inference.options import FINAL, options_from_message
from serve.services.inference.statistics import statistics_of
from serve.services.inference.streaming import InferStream, failed
from serve.services.inference.tensors import inputs_from_message
from serve.services.streams import StreamLimits
from serve.telemetry.observer import Call, Observer

NAME: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_INFER: Final = f"{NAME}/ModelInfer"
_STREAM_INFER: Final = f"{NAME}/ModelStreamInfer"

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]
_Method = Callable[["InferenceService", Request, Context], Awaitable[Response]]


class _Served(NamedTuple):
    """What is made once for a model."""

    description: InferenceModel
    replies: Replies
    metadata: pb.ModelMetadataResponse
    config: pb.ModelConfigResponse


def _answered(method: _Method[Request, Response]) -> _Method[Request, Response]:
    """Answer whatever `method` raises with the status that the table has for it."""

    @wraps(method)
    async def answer(service: InferenceService, request: Request, context: Context) -> Response:
        try:
            return await method(service, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # every error must become a status; a traceback goes to the log
            await refuse(context, error, request)

    return answer


def _served(description: InferenceModel) -> _Served:
    return _Served(description, Replies(description), metadata_of(description), config_of(description))


def _refusal(text: str) -> Callable[[InferenceService, Message, Context], Awaitable[NoReturn]]:
    """A method of the protocol that this server does not have, and why."""

    async def refuse_it(service: InferenceService, request: Message, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    return refuse_it


class InferenceService(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """The servicer.

    Parameters
    ----------
    engine : Engine
    observer : Observer
        Sees each request.
    reload : coroutine function, optional
        Loads the bundle of that name anew; where absent, the server does not have the extension.
    ready : callable
        Whether the server takes requests; while it drains it does not.
    limits : StreamLimits, optional
    closing : asyncio.Future, optional
        Once done, streams read no more and end.
    snr_db : float
        Es/N0 in dB where a request gives none.
    """

    def __init__(
        self,
        engine: Engine,
        observer: Observer,
        *,
        reload: Callable[[str], Awaitable[object]] | None = None,
        ready: Callable[[], bool] = lambda: True,
        limits: StreamLimits | None = None,
        closing: asyncio.Future[None] | None = None,
        snr_db: float = SNR_DB,
    ) -> None:
        self._engine = engine
        self._observer = observer
        self._reload = reload
        self._ready = ready
        self._limits = limits or StreamLimits()
        self._closing = asyncio.get_running_loop().create_future() if closing is None else closing
        self._snr_db = snr_db
        self._served: dict[str, _Served] = {}

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=PLATFORM, version=code_version(), extensions=self._extensions())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        try:
            self._find(request.name, request.version)
        except (ModelNotFound, ArgumentError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._ready())

    @_answered
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        return self._find(request.name, request.version)[1].metadata

    @_answered
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        return self._find(request.name, request.version)[1].config

    @_answered
    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        served = [self._find(request.name, request.version)[1]] if request.name else self._all()
        return pb.ModelStatisticsResponse(
            model_stats=[
                statistics_of(each.description, self._observer.statistics.operation(each.description.name).snapshot())
                for each in served
            ]
        )

    @_answered
    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await self._infer(request, context, self._observer.call(_INFER, context))

    async def ModelStreamInfer(self, requests: AsyncIterator[pb.ModelInferRequest], context: Context) -> None:
        with self._observer.stream() as stream:

            async def respond(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
                try:
                    reply = await self._infer(request, context, self._observer.call(_STREAM_INFER, context, stream))
                except Exception as error:  # of this request; the stream goes on
                    return failed(request, status_of(error, request).message)
                reply.parameters[FINAL].bool_param = True
                return pb.ModelStreamInferResponse(infer_response=reply)

            await InferStream(context, respond, self._limits, self._closing).answer(requests)

    @_answered
    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        _require_repository(request.repository_name)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=each.description.name, version=each.description.version, state="READY"
                )
                for each in self._all()
            ]
        )

    @_answered
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        if self._reload is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server does not load bundles by call")
        _require_repository(request.repository_name)
        for name in request.parameters:
            raise ArgumentError(f"parameters.{name}", "must be absent: the bundle itself is loaded anew")
        bundles = {model.name for model in self._engine.models}
        name = request.model_name
        await self._reload(name if name in bundles else self._find(name)[0].name)
        return pb.RepositoryModelLoadResponse()

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        return pb.SystemSharedMemoryStatusResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        return pb.CudaSharedMemoryUnregisterResponse()

    TraceSetting = _refusal("what is traced is set when the server starts")
    LogSettings = _refusal("what is logged is set when the server starts")
    RepositoryModelUnload = _refusal("a server holds the models that it was started with, and unloads none by call")
    SystemSharedMemoryRegister = _refusal("tensors come within the message: memory is not shared")
    CudaSharedMemoryRegister = _refusal("tensors come within the message: memory is not shared")

    def _extensions(self) -> list[str]:
        repository = [] if self._reload is None else ["model_repository"]
        return ["classification", "model_configuration", *repository, "parameters", "statistics"]

    async def _infer(self, request: pb.ModelInferRequest, context: Context, seen: Call) -> pb.ModelInferResponse:
        with seen as call:
            model, served = self._find(request.model_name, request.model_version, "model_version")
            description = served.description
            call.of(description.name)
            wanted = served.replies.wanted(request)
            options = options_from_message(request.parameters, description.options)
            arrays = inputs_from_message(request, description.inputs, description.max_batch)
            caller = _caller(request, context, options.timeout_s)
            call.read()
            answer = await description.run(model, arrays, options.link, caller)
            call.computed(answer.rows, answer.result.timing)
            return served.replies.reply(request.id, wanted, answer)

    def _find(self, name: str, version: str = "", field: str = "version") -> tuple[Model, _Served]:
        """The model of that name that answers now, and what is said of it.

        Raises
        ------
        ModelNotFound
            If there is none of that name.
        ArgumentError
            If another version of it answers.
        """
        bundle, _, operation = name.rpartition(".")
        describe = DESCRIBED.get(operation)
        if not bundle or describe is None:
            raise ModelNotFound(name, self._names())
        try:
            model = self._engine.model(bundle)
        except ModelNotFound:
            raise ModelNotFound(name, self._names()) from None
        served = self._served.get(name)
        if served is None or served.description.info is not model.info:
            served = self._served[name] = _served(describe(model.info, self._snr_db))
        if version and version != served.description.version:
            raise ArgumentError(field, f"must be {served.description.version} or empty, got {version!r}")
        return model, served

    def _names(self) -> list[str]:
        return [f"{model.name}.{operation}" for model in self._engine.models for operation in DESCRIBED]

    def _all(self) -> list[_Served]:
        return [self._find(name)[1] for name in self._names()]


def _caller(request: pb.ModelInferRequest, context: Context, timeout_s: float | None) -> Caller:
    """Who asks: the reply is wanted within the call's own time and that of its parameter `timeout`."""
    left = context.time_remaining()
    if timeout_s is not None:
        left = timeout_s if left is None else min(left, timeout_s)
    return Caller(None if left is None else monotonic() + left, request.ByteSize())


def _require_repository(name: str) -> None:
    if name:
        raise ArgumentError("repository_name", f"must be empty: there is one repository, got {name!r}")
