"""A client of hardpath.v1.AdminService."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from link.errors import ServerError
from serve.client.failures import reason
from serve.messages.statistics import snapshot_from_message
from serve.pb.hardpath.v1 import admin_pb2 as pb
from serve.pb.hardpath.v1 import admin_pb2_grpc
from serve.telemetry.snapshot import Snapshot

TIMEOUT_S: Final = 5.0

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["AdminService"].full_name

Reply = TypeVar("Reply", bound=Message)


class Reloaded(NamedTuple):
    """What became of one model whose bundle was read anew.

    Attributes
    ----------
    name : str
    previous_version, version : int
        Served before and served now.
    changed : bool
        Whether another bundle is served now than before.
    """

    name: str
    previous_version: int
    version: int
    changed: bool


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
    metadata : sequence of (str, str)
        What goes with each call: the token, as serve.client.target has it.

    Notes
    -----
    Each method raises ServerError where the server cannot be reached, fails, or refuses, naming the address.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        address: str,
        *,
        timeout_s: float = TIMEOUT_S,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._metadata = tuple(metadata)
        self._stub = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]

    def statistics(self) -> Snapshot:
        """What the server has counted."""
        reply: pb.GetStatisticsResponse = self._call(self._stub.GetStatistics, pb.GetStatisticsRequest())
        return snapshot_from_message(reply.statistics)

    def reload(self, model: str = "") -> tuple[Reloaded, ...]:
        """Let the server read the bundle of a model, or of all, anew; a bundle that it refuses is a ServerError."""
        reply: pb.ReloadModelResponse = self._call(self._stub.ReloadModel, pb.ReloadModelRequest(model=model))
        return tuple(Reloaded(item.name, item.previous_version, item.version, item.changed) for item in reply.models)

    def _call(self, method: Callable[..., Reply], request: Message) -> Reply:
        try:
            return method(request, timeout=self.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._server_error(error) from None

    def _server_error(self, error: grpc.RpcError) -> ServerError:
        code, details = error.code(), error.details()
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                return ServerError(f"no server can be reached at {self.address}: {reason(details or '')}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return ServerError(f"the server at {self.address} did not answer within {self.timeout_s:g} s")
            case grpc.StatusCode.UNIMPLEMENTED:
                return ServerError(
                    f"the server at {self.address} has no {_SERVICE}: it runs another version of hardpath"
                )
            case _:
                return ServerError(f"the server at {self.address} refused: {code.name}: {details}")
