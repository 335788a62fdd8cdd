"""Ways to run a server: `serve` as a process of its own, `Server` inside a program; serve.async_server is what runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel

from serve.async_server import AsyncServer
from serve.config.schema import ServerConfig

logger = logging.getLogger(__name__)

Section = TypeVar("Section", bound=BaseModel)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_TOGETHER_S: Final = 0.05
"""Seconds before the drain in which another signal says nothing more: a supervisor may send two, and one comes first."""

_COLLECT_EVERY: Final = 50_000
"""Objects made and not ended between two looks for garbage: a call leaves none but gRPC's own five where it is aborted."""


class Server:
    """A server in a thread of its own, for programs that are not asynchronous; in a `with` block it drains at the end.

    Parameters
    ----------
    bundle : path, optional
        Folder of the bundle to serve; absent: those of `config`.
    receiver : str, optional
        Which of the bundle's receivers answers, where it has several; the first where absent.
    host : str, optional
        Address to listen on; the default is reachable from this machine only.
    port : int, optional
        0 takes a free one.
    max_batch : int, optional
        Most samples in one request.
    grace_s : float, optional
        Seconds that calls in flight have to finish when the server stops.
    config : ServerConfig, optional
        Everything else, and what of these is not given.

    Attributes
    ----------
    address : str
        Where it listens, as host:port.
    engine : Engine

    Raises
    ------
    As AsyncServer.
    """

    def __init__(
        self,
        bundle: Path | str | None = None,
        *,
        receiver: str | None = None,
        host: str | None = None,
        port: int | None = None,
        max_batch: int | None = None,
        grace_s: float | None = None,
        config: ServerConfig | None = None,
    ) -> None:
        config = config or ServerConfig()
        given = _with(
            config,
            bundles=None if bundle is None else (Path(bundle),),
            receiver=receiver,
            listen=_with(config.listen, host=host, port=port),
            limits=_with(config.limits, max_batch=max_batch),
            lifecycle=_with(config.lifecycle, grace_s=grace_s),
        )
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hardpath-serve", daemon=True)
        self._thread.start()
        try:
            self._server = self._call(_build(given))
        except BaseException:
            self._end()
            raise
        self.address = self._server.address
        self.engine = self._server.engine
        self.repository = self._server.repository

    def start(self) -> None:
        """Answer calls from now on."""
        self._call(self._server.start())

    def stop(self) -> None:
        """Drain; twice is once."""
        if self._thread.is_alive():
            self._call(self._server.drain())
            self._end()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def serve(config: ServerConfig, *, ready: Callable[[str], None] | None = None) -> bool:
    """Serve until SIGINT or SIGTERM, then drain. SIGHUP: look at all files anew.

    A second SIGINT or SIGTERM ends the process at once, with 128 plus its number.

    Call it in the main thread, the only one that may handle signals.

    Parameters
    ----------
    config : ServerConfig
    ready : callable, optional
        Called with the address once calls are answered.

    Returns
    -------
    ended : bool
        Whether all of the server came to its end. Where not, a thread hangs, and the interpreter would wait for it.

    Raises
    ------
    As AsyncServer.
    """
    before = [signal.getsignal(number) for number in _SIGNALS]
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(config, ready))
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: a call costs a tenth less CPU (docs/bench/serve.md)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _serve(config: ServerConfig, ready: Callable[[str], None] | None) -> bool:
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def hear(number: signal.Signals) -> None:
        for other in _SIGNALS:
            loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_IGN)
        if not received.done():  # both may have come at once
            received.set_result(number)
            loop.call_later(_TOGETHER_S, end_at_the_next)

    def end_at_the_next() -> None:
        for number in _SIGNALS:
            signal.signal(number, _end_at_once)

    hangup = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    server = AsyncServer(config)
    for number in _SIGNALS:  # until here they end the process: there is nothing to drain
        loop.add_signal_handler(number, hear, number)
    await server.start()
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look at it again
    gc.set_threshold(_COLLECT_EVERY)
    if ready is not None:
        ready(server.address)
    renewing = loop.create_task(_renew(server, hangup))
    logger.info("received %s", (await received).name)
    renewing.cancel()
    await asyncio.sleep(_TOGETHER_S)
    await server.drain()
    return server.ended


async def _renew(server: AsyncServer, hangup: asyncio.Event) -> None:
    """At each SIGHUP; those that come meanwhile are one."""
    while await hangup.wait():
        hangup.clear()
        logger.info("received SIGHUP: looking at all files anew")
        try:
            await server.renew()
        except Exception:  # a defect here must not cost the next one
            logger.exception("looking at all files anew failed")


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Whoever sends a second signal does not want to wait: not for calls, nor for threads that compute."""
    logger.warning("received %s during the drain: calls in flight are cut", signal.Signals(number).name)
    os._exit(128 + number)


def _with(section: Section, **given: Any) -> Section:
    """A part of a configuration with what is given in place of what it has."""
    return section.model_copy(update={name: value for name, value in given.items() if value is not None})


async def _build(config: ServerConfig) -> AsyncServer:
    return AsyncServer(config)
