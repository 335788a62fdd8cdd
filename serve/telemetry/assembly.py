"""What is seen of a server from outside, put together: counts, metrics over HTTP, access log, traces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from link.errors import ServerError
from serve.config.schema import ServerConfig
from serve.engine.batcher import Run
from serve.engine.model import OPERATIONS, Model
from serve.telemetry.logs import AccessLog
from serve.telemetry.metrics import MetricsServer
from serve.telemetry.observer import Observer
from serve.telemetry.statistics import InFlight, Statistics
from serve.telemetry.traces import Traces

_REPORT_S: Final = 10.0


class Telemetry:
    """Of one server.

    Parameters
    ----------
    config : ServerConfig
    in_flight : callable
        Tells what is held now.

    Attributes
    ----------
    statistics : Statistics
    observer : Observer
        For the servicers.
    serving : threading.Event
        Set while calls are answered.

    Raises
    ------
    MissingExtra
        If the configuration needs a package that is not installed.
    ServerError
        If the address of the metrics cannot be had.
    """

    def __init__(self, config: ServerConfig, in_flight: Callable[[], InFlight]) -> None:
        trace = config.trace
        traces = None if trace.otlp_endpoint is None else Traces(trace.otlp_endpoint, ratio=trace.sample_ratio)
        self.statistics = Statistics(in_flight)
        self.observer = Observer(self.statistics, AccessLog(), traces)
        self.serving = threading.Event()
        self._metrics = self._metrics_server(config)

    def ran(self, operation: str, run: Run) -> None:
        """A batch was run."""
        self.statistics.operation(operation).executed(run.rows, run.requests, run.wasted)

    def loaded(self, model: Model) -> None:
        """A model answers from now on."""
        self.statistics.loaded(model.name, model.version)
        for operation in OPERATIONS:
            self.statistics.operation(f"{model.name}.{operation}").waiting = partial(model.waiting_requests, operation)

    def start(self) -> None:
        """Answer scrapes."""
        self.serving.set()
        if self._metrics is not None:
            self._metrics.start()

    async def watch(self) -> None:
        """Measure the loop's delay and report on the access log, until cancelled."""
        await asyncio.gather(self.statistics.watch_loop(), self._report())

    def close(self) -> None:
        """Report what is left, and stop; blocks."""
        self.observer.access.report()
        if self._metrics is not None:
            self._metrics.stop()
        if self.observer.traces is not None:
            self.observer.traces.close()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            self.observer.access.report()

    def _metrics_server(self, config: ServerConfig) -> MetricsServer | None:
        listen = config.listen
        if listen.metrics_port is None:
            return None
        if listen.metrics_port == listen.port != 0 and listen.metrics_host in (None, listen.host):
            raise ServerError(
                f"cannot listen for metrics on {listen.host}:{listen.port}: that is the port of gRPC; choose another "
                "metrics port"
            )
        return MetricsServer(
            self.statistics.snapshot,
            self.serving.is_set,
            host=listen.metrics_host or listen.host,
            port=listen.metrics_port,
        )
