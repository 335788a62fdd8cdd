"""The servers of a benchmark: each is started when a row first needs it, and all are ended together."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import bundles, hardpath_server
from benchmarks.serving.bundles import Size
from benchmarks.serving.contest import Contender
from benchmarks.serving.environments import Absent
from benchmarks.serving.load import Call
from benchmarks.serving.peers import bare, mlserver, ray_serve, triton
from benchmarks.serving.process import Process, ask
from benchmarks.serving.subjects import Command, Graph
from link.bundle import MANIFEST_NAME, load_bundle
from link.runtime import Transmitter

INFER: Final = "hardpath, ModelInfer"
ENCODE: Final = "hardpath, Encode"
AIO: Final = "bare grpc.aio"
THREADS: Final = "bare grpcio, 4 threads"
ONNX: Final = "grpc.aio and ONNX Runtime"
TRITON: Final = "Triton"
MLSERVER: Final = "MLServer"
RAY: Final = "Ray Serve"
_PEERS: Final = {TRITON: triton, MLSERVER: mlserver, RAY: ray_serve}


class Arena:
    """Starts what is asked for; a context manager.

    Parameters
    ----------
    cache : path
        Environments of peers and bundles.
    folder : path
        For what is written in between.
    demo : path, optional
        The bundle of `hardpath demo`.
    """

    def __init__(self, cache: Path, folder: Path, demo: Path | None = None) -> None:
        self.cache, self.folder, self._demo = cache, folder, demo
        self.absent: dict[str, str] = {}
        self.deaths: dict[str, int] = {}
        self._open = ExitStack()
        self._running: dict[str, Process] = {}
        self._sizes = (bundles.SMALL, bundles.LARGE)

    def bundle(self, size: Size) -> Path:
        """The bundle of a size."""
        return bundles.made(size, self.cache / "bundles")

    def demo(self) -> Path:
        """The digits bundle, trained where none was given and none is in the cache."""
        trained = self.cache / "digits" / "bundle"
        if self._demo is None and not (trained / MANIFEST_NAME).is_file():
            from benchmarks.semantic import load_digits

            load_digits(self.cache, 1)
        return trained if self._demo is None else self._demo

    def graph(self, size: Size) -> Graph:
        """Its transmitter."""
        return Graph.of(self.bundle(size))

    def symbols(self, size: Size, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """What ONNX Runtime makes of rows in this process."""
        return Transmitter(load_bundle(self.bundle(size)))({bundles.INPUT: rows}).symbols

    def hardpath(self, bundle: Path) -> Process:
        """The server under test with a bundle."""
        return self.start(f"hardpath {bundle.absolute()}", hardpath_server.command(bundle))

    def ours(self, size: Size, rows: int) -> list[Contender]:
        """The server under test, over each protocol that it speaks."""
        process, graph, x = self.hardpath(self.bundle(size)), self.graph(size), size.rows(rows)
        expected = self.symbols(size, x)
        encode = Contender(ENCODE, process, hardpath_server.encode(graph, x), hardpath_server.check_encode(expected))
        infer = hardpath_server.infer(graph, x)
        if not hardpath_server.speaks_oip(process, infer):
            self.absent[INFER] = "the server does not speak the Open Inference Protocol"
            return [encode]
        return [Contender(INFER, process, infer, hardpath_server.check_infer(expected)), encode]

    def peers(self, size: Size, rows: int, *names: str) -> list[Contender]:
        """Other servers of the same graph; those that cannot be had are noted in `absent`."""
        x = size.rows(rows)
        call = hardpath_server.infer(self.graph(size), x)
        check = hardpath_server.check_infer(self.symbols(size, x))
        found = []
        for name in names:
            try:
                found.append(Contender(name, self._peer(name), call, check))
            except (Absent, RuntimeError) as error:
                self.absent[name] = str(error)
        return found

    def bare(self, name: str, like: Contender) -> Contender:
        """gRPC alone, taking and answering the same bytes as a contender does."""
        reply = ask(like.process.address, like.call)
        file = self.folder / f"reply-{len(self._running)}"
        file.write_bytes(reply)
        kind = "aio" if name == AIO else "threads"
        call = Call(f"{bare.METHOD}0", like.call.body, like.call.samples)
        arguments = [sys.executable, "-m", "benchmarks.serving.peers.bare", kind, str(file)]
        label = f"{name}, bytes of {like.name.partition(', ')[2] or like.name}"
        return Contender(label, self.start(f"{label} {reply!r}", Command(arguments), call), call, _equal(reply))

    def notes(self) -> list[str]:
        """A line for each that could not be had, or that died under load and was started again."""
        died = [f"{name} died {count} times under load, and was started again." for name, count in self.deaths.items()]
        return [f"{name}: {why}." for name, why in self.absent.items()] + died

    def about(self) -> dict[str, str]:
        """Version and backend of each peer that ran."""
        return {name: module.about(self.cache) for name, module in _PEERS.items() if name in self._running}

    def _peer(self, name: str) -> Process:
        if name in self.absent:
            raise Absent(self.absent[name])
        if name in self._running:
            if self._running[name].alive:
                return self._running[name]
            self.deaths[name] = self.deaths.get(name, 0) + 1
            self._running.pop(name).stop()
        graphs = [self.graph(size) for size in self._sizes]
        probe = hardpath_server.infer(graphs[-1], self._sizes[-1].rows(1))
        if name == ONNX:
            served = [f"{graph.name}={graph.file}" for graph in graphs]
            command = Command([sys.executable, "-m", "benchmarks.serving.peers.grpc_onnx", *served])
        else:
            command = _PEERS[name].command(self.cache, graphs, self.folder / f"{name}-{self.deaths.get(name, 0)}")
        return self.start(name, command, probe)

    def start(self, name: str, command: Command, probe: Call | None = None) -> Process:
        """The server of that name, started unless it runs."""
        if name not in self._running:
            self._running[name] = self._open.enter_context(Process(command, probe))
        return self._running[name]

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def _equal(expected: bytes) -> Any:
    def check(reply: bytes) -> None:
        assert reply == expected, "other bytes"

    return check
