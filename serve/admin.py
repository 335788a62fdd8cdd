"""hardpath.v1.AdminService: what the server has counted, and new bundles in place of old ones; and its client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from link.errors import ServerError
from serve.pb.hardpath.v1 import admin_pb2 as pb
from serve.pb.hardpath.v1 import admin_pb2_grpc
from serve.snapshot import Snapshot
from serve.statistics_messages import snapshot_from_message, snapshot_to_message
from serve.status import argument_error, status_of

NAME: Final = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
TIMEOUT_S: Final = 5.0

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class Reloaded(NamedTuple):
    """What became of one model whose bundle was read anew.

    Attributes
    ----------
    name : str
    previous_version, version : int
        Served before and served now; equal where the bundle has not changed.
    """

    name: str
    previous_version: int
    version: int


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """The servicer, for grpc.aio.

    Parameters
    ----------
    snapshot : callable
        Statistics.snapshot.
    reload : async callable
        Takes the name of a model, or "" for all, and returns what became of each. It raises ArgumentError("model", ...) where
        there is none of that name, and BundleError where a bundle is refused.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], reload: Callable[[str], Awaitable[Sequence[Reloaded]]]
    ) -> None:
        self._snapshot = snapshot
        self._reload = reload

    async def GetStatistics(
        self, request: pb.GetStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatisticsResponse:
        return pb.GetStatisticsResponse(statistics=snapshot_to_message(self._snapshot()))

    async def ReloadModel(
        self, request: pb.ReloadModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.ReloadModelResponse:
        try:
            reloaded = await self._reload(request.model)
        except Exception as error:  # every error must become a status; a traceback goes to the log
            status = status_of(error, request)
        else:
            return pb.ReloadModelResponse(models=[pb.ReloadedModel(**model._asdict()) for model in reloaded])
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status returned")


class AdminClient:
    """Asks a server for its statistics, and to read its bundles anew.

    Parameters
    ----------
    channel : grpc.Channel
        Open; whoever opened it closes it.
    address : str
        What errors call the server.
    timeout_s : float
        Seconds that a call may take.

    Notes
    -----
    Each method raises ServerError where the server cannot be reached, fails, or refuses, naming the address.
    """

    def __init__(self, channel: grpc.Channel, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._stub = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]

    def statistics(self) -> Snapshot:
        """What the server has counted."""
        reply: pb.GetStatisticsResponse = self._call(self._stub.GetStatistics, pb.GetStatisticsRequest())
        return snapshot_from_message(reply.statistics)

    def reload(self, model: str = "") -> tuple[Reloaded, ...]:
        """Let the server read the bundle of a model, or of all, anew.

        Raises
        ------
        ArgumentError
            If the server has no such model.
        """
        reply: pb.ReloadModelResponse = self._call(self._stub.ReloadModel, pb.ReloadModelRequest(model=model))
        return tuple(Reloaded(item.name, item.previous_version, item.version) for item in reply.models)

    def _call(self, method: Callable[..., Reply], request: Message) -> Reply:
        try:
            return method(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            refused = argument_error(error)
            raise refused if refused is not None else self._server_error(error) from None

    def _server_error(self, error: grpc.RpcError) -> ServerError:
        code, details = error.code(), error.details()
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                return ServerError(f"no server can be reached at {self.address}: {details}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return ServerError(f"the server at {self.address} did not answer within {self.timeout_s:g} s")
            case grpc.StatusCode.UNIMPLEMENTED:
                return ServerError(f"the server at {self.address} has no {NAME}: its version is another one")
            case _:
                return ServerError(f"the server at {self.address} refused: {code.name}: {details}")
