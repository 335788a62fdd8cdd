"""Which permission each method needs, and the interceptor that asks for it.

A server without tokens installs no interceptor and pays nothing. A call that is refused is refused by its headers: none of
its messages is read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from serve.security.tokens import Permission, Tokens

logger = logging.getLogger(__name__)

DOMAIN: Final = "hardpath"
"""Of the google.rpc.ErrorInfo that a refusal carries."""

Need = Permission | Literal["free"]


def _methods(service: str, need: Need, *names: str) -> dict[str, Need]:
    return {f"/{service}/{name}": need for name in names}


_LINK: Final = "hardpath.v1.LinkService"
_ADMIN: Final = "hardpath.v1.AdminService"
_INFERENCE: Final = "inference.GRPCInferenceService"
_HEALTH: Final = "grpc.health.v1.Health"
_REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

PERMISSIONS: Final[Mapping[str, Need]] = {
    **_methods(_HEALTH, "free", "Check", "Watch", "List"),
    **_methods(_REFLECTION[0], "free", "ServerReflectionInfo"),
    **_methods(_REFLECTION[1], "free", "ServerReflectionInfo"),
    **_methods(_LINK, "infer", "Encode", "Decode", "Transmit", "TransmitStream", "Sweep", "GetModel", "ListModels"),
    **_methods(_ADMIN, "admin", "GetStatistics", "ReloadModel"),
    # ServerLive to ModelReady are what the protocol has for health.
    **_methods(_INFERENCE, "free", "ServerLive", "ServerReady", "ModelReady"),
    **_methods(_INFERENCE, "infer", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics"),
    **_methods(_INFERENCE, "infer", "ModelInfer", "ModelStreamInfer", "RepositoryIndex"),
    **_methods(_INFERENCE, "admin", "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
    **_methods(_INFERENCE, "admin", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    **_methods(_INFERENCE, "admin", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    **_methods(_INFERENCE, "infer", "SystemSharedMemoryStatus", "CudaSharedMemoryStatus"),
}
"""By the path of a call. A method that is not here is refused where there are tokens."""

Context = grpc.aio.ServicerContext[Any, Any]
Denied = Callable[[str, grpc.StatusCode, Context], None]
_Details = Any  # grpc.HandlerCallDetails, whose metadata the stubs have as attributes only
_Handler = Any  # grpc.RpcMethodHandler, None for a method that nobody serves


class _Refusal(NamedTuple):
    """How a call is refused.

    Attributes
    ----------
    code : grpc.StatusCode
    details : str
    metadata : tuple
        What comes after a reply, with the details in protobuf.
    """

    code: grpc.StatusCode
    details: str
    metadata: Any

    @classmethod
    def of(cls, code: grpc.StatusCode, reason: str, message: str, **metadata: str) -> _Refusal:
        """With a google.rpc.ErrorInfo of that reason."""
        detail = AnyMessage()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
        status = rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=[detail]))
        return cls(status.code, status.details, status.trailing_metadata)

    def handler(self, method: str, denied: Denied) -> _Handler:
        """A handler that refuses a call of any kind before its first message."""

        async def refuse(messages: AsyncIterator[bytes], context: Context) -> None:
            denied(method.removeprefix("/"), self.code, context)
            try:
                await context.abort(self.code, self.details, self.metadata)
            finally:
                del messages, context  # the call keeps its error, whose traceback keeps this frame: no ring, no garbage

        # Of a stream of requests, since gRPC reads a single one before it calls the handler.
        return grpc.stream_stream_rpc_method_handler(refuse)


class Authorization(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Asks each call for a bearer token with the permission that its method needs.

    Parameters
    ----------
    tokens : Tokens
    reflection : "free" or "infer"
        What reflection needs.
    denied : callable, optional
        Called for each call that is refused with its method, its status and itself, to be counted and logged.
    """

    def __init__(self, tokens: Tokens, reflection: Need = "free", denied: Denied = lambda *call: None) -> None:
        self._tokens = tokens
        self._denied = denied
        self._needs = {**PERMISSIONS, **{path: reflection for path in PERMISSIONS if path.split("/")[1] in _REFLECTION}}

    async def intercept_service(
        self, continuation: Callable[[_Details], Awaitable[_Handler]], handler_call_details: _Details
    ) -> _Handler:
        refusal = self._refusal(handler_call_details)
        if refusal is None:
            return await continuation(handler_call_details)
        if refusal is _UNLISTED:
            if await continuation(handler_call_details) is None:
                return None  # nobody serves it: gRPC says UNIMPLEMENTED
            logger.error("%s is in no table of permissions: refused", handler_call_details.method)
        return refusal.handler(handler_call_details.method, self._denied)

    def _refusal(self, call: _Details) -> _Refusal | None:
        """What answers a call in place of its method; None where it is permitted."""
        need = self._needs.get(call.method)
        if need == "free":
            return None
        if need is None:
            return _UNLISTED
        token = _bearer(call.invocation_metadata)
        if token is None:
            return _MISSING
        caller = self._tokens.find(token)
        if caller is None:
            return _UNKNOWN
        if need not in caller.permissions:
            return _LACKING[need]
        if need == "admin":
            logger.info("%s calls %s", caller.name, call.method)
        return None


def _bearer(metadata: Any) -> str | None:
    """The token of a call: of exactly one `authorization` of scheme Bearer (RFC 6750, section 2.1), else None."""
    found = [value for key, value in metadata or () if key == "authorization"]
    if len(found) != 1 or not isinstance(found[0], str):
        return None
    scheme, _, token = found[0].partition(" ")
    return token.strip(" ") or None if scheme.lower() == "bearer" else None


_MISSING: Final = _Refusal.of(
    grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", "needs a token, as metadata `authorization: Bearer TOKEN`"
)
_UNKNOWN: Final = _Refusal.of(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN", "the token is not one of this server's")
_LACKING: Final = {
    need: _Refusal.of(
        grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_LACKING", f"needs a token that may {need}", permission=need
    )
    for need in ("infer", "admin")
}
_UNLISTED: Final = _Refusal.of(
    grpc.StatusCode.PERMISSION_DENIED,
    "METHOD_UNLISTED",
    "no token permits this method: the server lists no need for it",
)
