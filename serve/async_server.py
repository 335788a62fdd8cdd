"""The server on an event loop: built, started, watched over and drained.

asyncio, one event loop, one process: a handler costs nothing while its request waits in a queue, and a caller that goes away
is noticed there. Graphs run in worker threads, and on the loop itself where that is quicker than waking a thread
(serve.engine.batcher). Bare grpc.aio answered 9 to 10 thousand calls a second at 64 in flight where threaded grpcio answered
5.5 to 8 thousand.

Draining: health says NOT_SERVING, so that no balancer sends more; after a delay new calls are refused, open streams are told
to come to an end, and calls in flight finish within the grace. Threads that are still at work then have END_S more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from link.errors import BundleError
from serve.config.machine import machine
from serve.config.schema import ServerConfig
from serve.engine.admission import Admission
from serve.engine.batcher import Run
from serve.engine.engine import Engine
from serve.engine.means import Means
from serve.engine.model import OPERATIONS, Model
from serve.engine.repository import Repository
from serve.engine.workers import Workers
from serve.listening import channel_options, listen
from serve.pb.hardpath.v1 import admin_pb2, link_pb2
from serve.pb.hardpath.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from serve.pb.hardpath.v1.link_pb2_grpc import add_LinkServiceServicer_to_server
from serve.pb.inference import grpc_service_pb2
from serve.pb.inference.grpc_service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from serve.security.guard import Security
from serve.services.admin import AdminServicer
from serve.services.door import Door
from serve.services.health import OVERALL, Health
from serve.services.inference.service import NAME as INFERENCE
from serve.services.inference.service import InferenceService
from serve.services.link import NAME, LinkService
from serve.services.reflection import add_reflection
from serve.services.streams import StreamLimits
from serve.telemetry.assembly import Telemetry
from serve.telemetry.statistics import InFlight

if TYPE_CHECKING:
    from serve.engine.radio import Radio

logger = logging.getLogger(__name__)

DESCRIPTIONS: Final = (
    link_pb2.DESCRIPTOR,
    admin_pb2.DESCRIPTOR,
    grpc_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
)
"""Of all services, for reflection."""

_CORE: Final = "grpc._cython.cygrpc"
_LINGER_S: Final = 0.25
"""gRPC, when it stops, cancels calls that nobody has taken up: time for them to be, and for later ones to be refused."""
_REFUSALS: Final = 2
END_S: Final = 5.0
"""That threads have to come to their ends after the last call has ended; no one can be stopped from outside."""


class AsyncServer:
    """A server on the running event loop.

    Parameters
    ----------
    config : ServerConfig

    Attributes
    ----------
    address : str
        Where it listens, as host:port.
    repository : Repository
    ended : bool
        Whether all of it came to its end when it was drained; where not, a thread is still at work.

    Raises
    ------
    BundleError
        If a bundle cannot be loaded.
    ArgumentError
        If it has no receiver of that name, or the file of the radio is wrong.
    DriverUnavailable
        If the driver of the radio is not installed.
    ServerError
        If the address cannot be had.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        radio = _radio(config)
        self._admission = admission = Admission(config.limits.queue_requests, config.limits.queue_bytes)
        self._telemetry = Telemetry(config, lambda: InFlight(admission.requests, admission.nbytes))
        self._means = _means(config, admission, self._telemetry.ran, radio)
        if radio is not None:
            self._telemetry.statistics.radio = lambda: radio.state
        self.repository = Repository(config.bundles, config.receiver, self._means)
        for model in self.engine.models:
            self._telemetry.loaded(model)
        self.repository.swapped = self._swapped
        self.repository.refused = self._telemetry.statistics.refused
        self._health = Health()
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draining = False
        self.ended = False
        self._tasks: list[asyncio.Task[None]] = []
        self._security = Security(config, self._telemetry.observer.refused)
        self._server = grpc.aio.server(
            interceptors=self._security.interceptors,
            options=channel_options(config),
        )
        self._add_services()
        self.address = listen(self._server, self._security, config.listen.host, config.listen.port)

    @property
    def engine(self) -> Engine:
        """The models."""
        return self.repository.engine

    async def start(self) -> None:
        """Answer calls from now on."""
        logging.getLogger(_CORE).addFilter(_is_no_peer_that_went)
        await self._server.start()
        for service in (NAME, INFERENCE, *(name for model in self.engine.models for name in _health_names(model))):
            self._health.set(service, serving=True)
        self._health.set(OVERALL, serving=True)
        self._telemetry.start()
        self._start(self._telemetry.watch())
        if self._config.lifecycle.watch:
            self._start(self.repository.watch(self._config.lifecycle.watch_interval_s))
        if self._means.radio is not None:
            self._start(self._means.radio.watch())
        for model in self.engine.models:
            logger.info("serving %s version %d on %s", model.name, model.version, self.address)

    async def renew(self) -> None:
        """Look anew at bundles, tokens and certificates; what is not good is told in the log, and the old goes on."""
        self._security.renew()
        for model in self.engine.models:
            with suppress(BundleError):  # which the log has
                await self.repository.reload(model.name)

    async def drain(self) -> None:
        """NOT_SERVING, then no new calls, then wait for those in flight; twice is once."""
        if self._draining:
            return
        self._draining = True
        self._telemetry.serving.clear()
        logger.info("draining %s", self.address)
        self._health.leave()
        await asyncio.sleep(max(self._config.lifecycle.drain_delay_s, _LINGER_S))
        self._closing.set_result(None)
        self._health.close()
        await asyncio.sleep(0.0)  # what streams have read is let in
        self._admission.close()
        for task in self._tasks:
            task.cancel()
        await self._quiet()
        for door in self._doors:
            door.close()
        await self._server.stop(self._config.lifecycle.grace_s)
        self.ended = await self._end()

    async def _quiet(self) -> None:
        """Until callers have heard that they are refused, or a while has passed."""
        for _ in range(_REFUSALS):
            before = self._admission.turned_away
            await asyncio.sleep(_LINGER_S)
            if self._admission.turned_away == before:
                return

    def _add_services(self) -> None:
        config, telemetry, server = self._config, self._telemetry, self._server
        limits = StreamLimits(
            samples=config.limits.samples_per_stream,
            stall_s=config.limits.stall_s,
            idle_s=config.limits.idle_s,
            max_batch=config.limits.max_batch,
        )
        # Health has a door of its own: a server that is full is not ill.
        self._doors = door, health_door = tuple(
            Door(config.limits.concurrent_calls, config.limits.receive_s) for _ in range(2)
        )
        link = LinkService(self.engine, limits, self._closing, telemetry.observer)
        door.add(add_LinkServiceServicer_to_server, link, server)
        administration = AdminServicer(telemetry.statistics.snapshot, self.repository.reload)
        door.add(add_AdminServiceServicer_to_server, administration, server)
        health_door.add(health_pb2_grpc.add_HealthServicer_to_server, self._health, server)
        inference = InferenceService(
            self.engine,
            telemetry.observer,
            reload=self.repository.reload,
            ready=telemetry.serving.is_set,
            limits=limits,
            closing=self._closing,
        )
        door.add(add_GRPCInferenceServiceServicer_to_server, inference, server)
        if config.listen.reflection != "off":
            add_reflection(server, DESCRIPTIONS, door, limits.stall_s)

    def _swapped(self, model: Model) -> None:
        self._telemetry.loaded(model)

    async def _end(self) -> bool:
        """Wait for the threads, but not for ever: a file system or a device may never answer one of them."""
        ended: Future[None] = Future()
        ended.set_running_or_notify_cancel()

        def close() -> None:
            try:
                self._close()
            except BaseException as error:
                ended.set_exception(error)
            else:
                ended.set_result(None)

        threading.Thread(target=close, name="hardpath-end", daemon=True).start()
        try:
            await asyncio.wait_for(asyncio.wrap_future(ended), END_S)
        except TimeoutError:
            logger.error("a load, a sweep or a run has not ended within %g s: the server ends without it", END_S)
            return False
        return True

    def _close(self) -> None:
        self._telemetry.close()
        self.repository.close()
        self._means.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


def _is_no_peer_that_went(record: logging.LogRecord) -> bool:
    """grpcio logs a traceback for each reply whose caller is gone, at the level of a defect."""
    return not record.getMessage().startswith("ExecuteBatchError")


def _health_names(model: Model) -> tuple[str, ...]:
    """Names under which a model's health is told."""
    return model.name, *(f"{model.name}.{operation}" for operation in OPERATIONS)


def _radio(config: ServerConfig) -> Radio | None:
    """The radio, not yet open; what it needs is imported where there is one."""
    if config.radio.file is None:
        return None
    from link.radio.spec import load_radio
    from serve.engine.radio import Radio

    return Radio(load_radio(config.radio.file), config.radio.wait_s)


def _means(config: ServerConfig, admission: Admission, ran: Callable[[str, Run], None], radio: Radio | None) -> Means:
    # One thread an operation, and a core left to the event loop: two threads on two busy cores made a graph slower.
    workers = config.batching.workers or max(1, machine().threads - 1)
    wait_us = config.batching.max_wait_us
    max_rows = config.batching.max_rows
    if not config.batching.auto:
        wait_us, max_rows = wait_us or 0, max_rows or 1
    return Means(
        workers=Workers(workers),
        admission=admission,
        max_batch=config.limits.max_batch,
        max_rows=max_rows,
        wait_s=None if wait_us is None else 1e-6 * wait_us,
        threads=config.run.threads or 1,
        device=config.run.device,
        memory_bytes=config.run.gpu_mem_bytes,
        ran=ran,
        radio=radio,
    )
