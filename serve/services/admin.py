"""hardpath.v1.AdminService: what the server has counted, and new bundles in place of old ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc

from serve.engine.repository import Swap
from serve.messages.statistics import snapshot_to_message
from serve.messages.status import refuse
from serve.pb.hardpath.v1 import admin_pb2 as pb
from serve.pb.hardpath.v1 import admin_pb2_grpc
from serve.telemetry.snapshot import Snapshot

NAME: Final = pb.DESCRIPTOR.services_by_name["AdminService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """The servicer, for grpc.aio.

    Parameters
    ----------
    snapshot : callable
        Statistics.snapshot.
    reload : async callable
        Repository.reload: takes the name of a model, or "" for all.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], reload: Callable[[str], Awaitable[Sequence[Swap]]]) -> None:
        self._snapshot = snapshot
        self._reload = reload

    async def GetStatistics(self, request: pb.GetStatisticsRequest, context: Context) -> pb.GetStatisticsResponse:
        return pb.GetStatisticsResponse(statistics=snapshot_to_message(self._snapshot()))

    async def ReloadModel(self, request: pb.ReloadModelRequest, context: Context) -> pb.ReloadModelResponse:
        try:
            swaps = await self._reload(request.model)
        except Exception as error:  # every error must become a status; a traceback goes to the log
            await refuse(context, error, request)
        return pb.ReloadModelResponse(
            models=[
                pb.ReloadedModel(name=swap.name, previous_version=swap.before, version=swap.after, changed=swap.changed)
                for swap in swaps
            ]
        )
